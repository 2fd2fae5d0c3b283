package crosscluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/run"
	"github.com/freshet-io/freshet/invalidation"
	busv1 "github.com/freshet-io/freshet/proto/freshet/bus/v1"
)

// link listens to one other cluster while this member leads: it finds the
// publisher's leader, keeps a stream to it, and pulls from any member what can't
// be had from the stream.
type link struct {
	bus     *Bus
	name    string
	contact *contact
	hints   *hinter
	after   <-chan struct{} // closed when a former link to the cluster is done
	done    chan struct{}   // closed when run has returned
	ended   chan struct{}   // closed by end
	endOnce sync.Once
	nudged  chan struct{}

	mu      sync.Mutex
	wanted  map[freshet.DomainID]bool // nudged domains
	leader  string                    // address at which the leader was last found
	breakUp func()                    // ends the session, if there is one
}

// errResync ends a session because what it is about has changed.
var errResync = errors.New("mounts or clusters changed")

func newLink(b *Bus, name string, after <-chan struct{}) *link {
	l := &link{
		bus: b, name: name, after: after, done: make(chan struct{}), ended: make(chan struct{}), nudged: make(chan struct{}, 1),
		wanted:  map[freshet.DomainID]bool{},
		contact: &contact{bus: b, name: name, logs: map[freshet.DomainID]*standing{}},
	}
	l.hints = newHinter(b, l.contact)
	return l
}

// end makes run return.
func (l *link) end() { l.endOnce.Do(func() { close(l.ended) }) }

// abandon makes nobody wait for the publisher any more.
func (l *link) abandon() {
	l.mu.Lock()
	if l.breakUp != nil {
		l.breakUp()
	}
	l.mu.Unlock()
	l.contact.mu.Lock()
	for _, s := range l.contact.logs {
		s.exists, s.synced, s.sub = false, false, invalidation.Subscription{}
	}
	l.contact.mu.Unlock()
	l.contact.tell(true)
}

// nudge asks for the domain's records at once.
func (l *link) nudge(d freshet.DomainID) {
	l.mu.Lock()
	l.wanted[d] = true
	l.mu.Unlock()
	l.wake()
}

func (l *link) wake() {
	select {
	case l.nudged <- struct{}{}:
	default:
	}
}

// takeWanted returns the domains that were nudged, and those that are overdue.
func (l *link) takeWanted() []freshet.DomainID {
	out := l.contact.due()
	l.mu.Lock()
	defer l.mu.Unlock()
	for d := range l.wanted {
		if !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	clear(l.wanted)
	return out
}

// run keeps the link up until ctx ends.
func (l *link) run(ctx context.Context) error {
	defer close(l.done)
	if l.after != nil { // two would contradict each other
		<-l.after
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := run.NewGroup(ctx)
	g.Go("end", func(ctx context.Context) error {
		select {
		case <-l.ended:
			cancel()
		case <-ctx.Done():
		}
		return nil
	})
	if k, ok := l.bus.dir.lookup(l.name); ok && k.id != uuid.Nil {
		if err := l.contact.load(k.id); err != nil {
			return err
		}
	}
	l.contact.tell(false)
	g.Go("watch", l.watch)
	g.Go("hints", l.hints.run)
	g.Go("connect", l.connect)
	err := g.Wait()
	select {
	case <-l.ended:
		l.contact.tell(true)
	default:
	}
	return err
}

// watch tells the region when the publisher becomes lost or is back.
func (l *link) watch(ctx context.Context) error {
	for l.bus.pause(ctx, watchTick) {
		l.contact.tell(false)
		l.bus.metrics.observe(l.name, l.contact)
	}
	return nil
}

// connect opens sessions one after another.
func (l *link) connect(ctx context.Context) error {
	wait := minBackOff
	for ctx.Err() == nil {
		began := l.bus.clock.Now()
		err := l.session(ctx)
		if errors.Is(err, errResync) || ctx.Err() != nil {
			wait = minBackOff
			l.rest(ctx, minBackOff)
			continue
		}
		if _, panicked := errors.AsType[*run.PanicError](err); panicked {
			l.bus.log.Error("a defect ended the stream from another cluster", "cluster", l.name, "error", err)
		}
		l.contact.mu.Lock()
		answered := l.contact.verified.After(began)
		l.contact.last = err.Error()
		l.contact.mu.Unlock()
		l.bus.log.Debug("no stream from another cluster", "cluster", l.name, "error", err)
		limit := maxBackOff
		if answered {
			limit = time.Second // its leader is there: only the stream is missing
		}
		if l.bus.clock.Since(began) > contactTimeout {
			wait = minBackOff
		}
		l.rest(ctx, wait/2+rand.N(wait/2+1)) //nolint:gosec // jitter is no secret
		wait = min(2*wait, limit)
	}
	return nil
}

// rest waits before the next attempt; a nudge or a change of addresses ends it.
func (l *link) rest(ctx context.Context, d time.Duration) {
	_, changed := l.bus.dir.list()
	t := l.bus.clock.NewTimer(d)
	defer t.Stop()
	floor := l.bus.clock.NewTimer(minBackOff)
	defer floor.Stop()
	select {
	case <-t.C():
		return
	case <-l.nudged:
	case <-changed:
	case <-ctx.Done():
		return
	}
	select { // however often it is woken
	case <-floor.C():
	case <-ctx.Done():
	}
}

// session finds the publisher's leader among its members and listens to it. On
// the way it pulls what is missing from whoever answers.
func (l *link) session(ctx context.Context) error {
	k, ok := l.bus.dir.lookup(l.name)
	if !ok {
		return errResync
	}
	addresses := k.addresses()
	if len(addresses) == 0 {
		return errors.New("no address of the cluster is known")
	}
	l.mu.Lock()
	if i := slices.Index(addresses, l.leader); i > 0 {
		addresses = append([]string{l.leader}, slices.Delete(addresses, i, i+1)...)
	}
	l.mu.Unlock()
	var errs []error
	for _, addr := range addresses {
		err := l.sessionAt(ctx, addr)
		if errors.Is(err, errResync) || ctx.Err() != nil {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (l *link) sessionAt(ctx context.Context, addr string) error {
	// What changes from here on ends the session.
	_, rootsChanged := l.bus.region.Roots()
	peer, err := l.open(ctx, addr)
	if err != nil {
		return freshet.Wrap("dial "+addr, "", err)
	}
	defer func() { _ = peer.Close() }() // nothing more is expected of it
	k, err := l.hello(ctx, peer)
	if err != nil {
		return freshet.Wrap("hello to "+addr, "", err)
	}
	if err := l.adopt(ctx, k); err != nil {
		return err
	}
	s := &session{link: l, peer: peer, addr: addr, publisher: k.publisher(), rootsChanged: rootsChanged}
	err = s.run(ctx)
	if errors.Is(err, errResync) || ctx.Err() != nil {
		return err
	}
	if freshet.IsKind(err, freshet.KindNotLeader) && addr != "" {
		l.forgetLeader(addr)
	}
	// No stream, but the member answers: it may have what is missing.
	for _, d := range l.takeWanted() {
		if perr := s.pullNow(ctx, d); perr != nil {
			err = errors.Join(err, perr)
		}
	}
	return freshet.Wrap("stream from "+addr, "", err)
}

func (l *link) open(ctx context.Context, addr string) (Peer, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return l.bus.dial(ctx, addr)
}

func (l *link) forgetLeader(addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leader == addr {
		l.leader = ""
	}
}

// hello exchanges introductions.
func (l *link) hello(ctx context.Context, peer Peer) (known, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	forgotten := l.bus.dir.forgotten()
	resp, err := peer.Hello(ctx, &busv1.HelloRequest{Cluster: infoToWire(l.bus.info())})
	if err != nil {
		return known{}, err
	}
	info, err := infoFromWire(resp.GetCluster())
	if err != nil {
		return known{}, err
	}
	if info.Name != l.name {
		return known{}, freshet.Errorf(freshet.KindConflict, "hello", "", "cluster %s answers where %s was expected: check the configured peers", info.Name, l.name)
	}
	if err := l.bus.dir.greetAnswer(forgotten, info, l.bus.clock.Now()); err != nil {
		return known{}, err
	}
	k, ok := l.bus.dir.lookup(l.name)
	if !ok {
		return known{}, errResync
	}
	return k, nil
}

// adopt loads our positions in the logs of the cluster, after dropping those of a
// former cluster of the same name.
func (l *link) adopt(ctx context.Context, k known) error {
	subs, err := l.bus.region.Subscriptions()
	if err != nil {
		return err
	}
	for _, s := range subs {
		if s.Publisher.Name != k.name || s.Publisher.Cluster == k.id {
			continue
		}
		l.bus.log.Warn("a cluster was rebuilt under its old name: starting over with it", "cluster", k.name,
			"old_id", s.Publisher.Cluster.String(), "new_id", k.id.String())
		if err := l.bus.forgetID(ctx, s.Publisher.Cluster); err != nil {
			return err
		}
	}
	return l.contact.load(k.id)
}
