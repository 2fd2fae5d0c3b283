package crosscluster

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/run"
	"github.com/freshet-io/freshet/invalidation"
	busv1 "github.com/freshet-io/freshet/proto/freshet/bus/v1"
)

// session is the receiver's side of one stream, with its opening and its end.
// Everything that moves a position happens in its one loop, so records are
// applied in order.
type session struct {
	link         *link
	peer         Peer
	addr         string
	publisher    invalidation.Publisher
	rootsChanged <-chan struct{}

	domains  map[freshet.DomainID]bool
	requests chan *busv1.SubscribeRequest
	inbox    chan *busv1.SubscribeResponse
	pulled   chan invalidation.Batch
	kept     *busv1.SubscribeResponse // read ahead while coalescing

	number    uint64    // of the last solicit
	solicits  []solicit // not answered yet
	silent    time.Time // since when no heartbeat arrived
	restarts  map[freshet.DomainID]time.Time
	corrupt   map[freshet.DomainID]int
	resets    map[freshet.DomainID]string // wait for their time
	pulling   map[freshet.DomainID]bool
	pullEnded chan freshet.DomainID
}

// solicit is a question for a heartbeat, and where we stood when we asked: an
// answer can't lie behind that.
type solicit struct {
	number uint64
	sent   time.Time
	at     map[freshet.DomainID]invalidation.Subscription
}

func (s *session) bus() *Bus { return s.link.bus }

// run opens the stream and follows it until it ends; the error says why.
func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.link.mu.Lock()
	s.link.breakUp = cancel
	s.link.mu.Unlock()

	k, ok := s.bus().dir.lookup(s.link.name)
	if !ok {
		return errResync
	}
	_, dirChanged := s.bus().dir.list()
	sent := s.bus().clock.Now()
	verified, err := s.poll(ctx)
	if err != nil {
		return err
	}
	s.link.contact.answered(sent)
	s.link.mu.Lock()
	s.link.leader = s.addr
	s.link.mu.Unlock()
	s.begin()
	if err := s.reconcile(ctx, k, verified, sent); err != nil {
		return err
	}
	if len(s.domains) == 0 {
		return s.idle(ctx, dirChanged)
	}
	g := run.NewGroup(ctx)
	g.Go("stream", func(ctx context.Context) error {
		err := s.peer.Subscribe(ctx, s.requests, func(m *busv1.SubscribeResponse) error {
			select {
			case s.inbox <- m:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err == nil && ctx.Err() == nil {
			err = errors.New("the stream was closed")
		}
		return err
	})
	g.Go("apply", func(ctx context.Context) error { return s.follow(ctx, g, dirChanged) })
	err = g.Wait()
	s.link.contact.mu.Lock()
	s.link.contact.stream = false
	s.link.contact.mu.Unlock()
	if err == nil {
		return errResync // broken up
	}
	return err
}

func (s *session) begin() {
	s.requests = make(chan *busv1.SubscribeRequest, 16)
	s.inbox = make(chan *busv1.SubscribeResponse, 32)
	s.pulled = make(chan invalidation.Batch)
	s.pullEnded = make(chan freshet.DomainID)
	s.restarts, s.corrupt = map[freshet.DomainID]time.Time{}, map[freshet.DomainID]int{}
	s.resets, s.pulling = map[freshet.DomainID]string{}, map[freshet.DomainID]bool{}
}

// idle waits while there is nothing to listen for.
func (s *session) idle(ctx context.Context, dirChanged <-chan struct{}) error {
	select {
	case <-dirChanged:
	case <-s.rootsChanged:
	case <-s.bus().clock.After(maxBackOff):
	case <-ctx.Done():
	}
	return errResync
}

// poll reads the publisher's heads, verified by its leader after the call began.
func (s *session) poll(ctx context.Context) (heads, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := s.peer.Poll(ctx, &busv1.PollRequest{})
	if err != nil {
		return heads{}, err
	}
	h, err := headsFromWire(resp.GetClusterId(), resp.GetEpoch(), resp.GetHeads())
	if err != nil {
		return heads{}, err
	}
	return h, s.check(h)
}

// check refuses heads of another cluster or of an older epoch than known.
func (s *session) check(h heads) error {
	switch {
	case h.cluster != s.publisher.Cluster:
		return errResync
	case h.epoch < s.publisher.Epoch:
		return freshet.Errorf(freshet.KindConflict, "poll", "", "epoch %d < known %d: restored without bump? run freshet cluster bump-epoch", h.epoch, s.publisher.Epoch)
	}
	s.publisher.Epoch = h.epoch
	return nil
}

// reconcile decides for each log that concerns us where to go on: at our
// position, at the log's beginning, or at its verified head after a reset. The
// heads were read after our positions.
func (s *session) reconcile(ctx context.Context, k known, verified heads, sent time.Time) error {
	c := s.link.contact
	for d, head := range verified.of {
		c.with(d, func(st *standing) { st.head = head })
	}
	s.domains = c.interest(k)
	for _, d := range slices.SortedFunc(maps.Keys(s.domains), compareDomains) {
		head := verified.head(d)
		sub, exists := c.position(d)
		switch {
		case !exists && head.Low == 1:
			fresh, err := s.bus().region.Begin(ctx, s.publisher, d)
			if freshet.IsKind(err, freshet.KindExist) {
				return errResync // begun meanwhile: read it
			}
			if err != nil {
				return freshet.Wrap("begin subscription", "", err)
			}
			c.moved(fresh)
		case !exists:
			if err := s.resetTo(ctx, head, sent, "the log no longer reaches back to its beginning"); err != nil {
				return err
			}
		case sub.Behind(verified.epoch, head) == invalidation.VerdictReset:
			if !s.mayReset(d) {
				s.resets[d] = "position and log do not fit"
				c.unsynced(d, "position and log do not fit")
				continue
			}
			if err := s.resetTo(ctx, head, sent, "position and log do not fit: epoch, chain or retention"); err != nil {
				return err
			}
		}
		c.proved(head, sent)
	}
	return nil
}

func compareDomains(a, b freshet.DomainID) int { return slices.Compare(a[:], b[:]) }

// mayReset reports whether a reset of the domain is due: one at once, further ones
// later and later, lest a confused publisher keeps us starting over.
func (s *session) mayReset(d freshet.DomainID) bool {
	may := false
	s.link.contact.with(d, func(st *standing) {
		may = !s.bus().clock.Now().Before(st.nextReset)
	})
	return may
}

// resetTo starts the log over at a head that the publisher's leader verified.
func (s *session) resetTo(ctx context.Context, head invalidation.Head, sent time.Time, reason string) error {
	c := s.link.contact
	c.unsynced(head.Domain, "starting over: "+reason)
	sub, err := s.bus().region.Reset(ctx, s.publisher, head)
	if err != nil {
		return freshet.Wrap("reset", "", err)
	}
	s.bus().metrics.resets.Inc()
	s.bus().log.Warn("a publisher's log was started over", "cluster", s.publisher.Name, "epoch", s.publisher.Epoch,
		"position", head.High, "reason", reason)
	c.with(head.Domain, func(st *standing) {
		now := s.bus().clock.Now()
		if now.Sub(st.lastReset) > 10*time.Minute {
			st.resets = 0
		}
		st.lastReset, st.resetReason = now, reason
		st.nextReset = now.Add(min(time.Second<<min(st.resets, 6), time.Minute))
		st.resets++
	})
	delete(s.resets, head.Domain)
	c.moved(sub)
	c.proved(head, sent)
	return nil
}

// reset reads a verified head first and starts the log over at it then, so that
// nothing published in between is missed.
func (s *session) reset(ctx context.Context, d freshet.DomainID, reason string) error {
	s.link.contact.unsynced(d, "starting over: "+reason)
	if !s.mayReset(d) {
		s.resets[d] = reason
		return nil
	}
	sent := s.bus().clock.Now()
	verified, err := s.poll(ctx)
	if err != nil {
		return err
	}
	s.link.contact.answered(sent)
	if err := s.resetTo(ctx, verified.head(d), sent, reason); err != nil {
		return err
	}
	return s.restart(d)
}

// request sends a message to the publisher. It never waits: who waits here can't
// take what the publisher waits to deliver.
func (s *session) request(m *busv1.SubscribeRequest) error {
	select {
	case s.requests <- m:
		return nil
	default:
		return errors.New("the stream takes no more requests")
	}
}

// restart asks the publisher to push from our position on.
func (s *session) restart(d freshet.DomainID) error {
	sub, _ := s.link.contact.position(d)
	s.restarts[d] = s.bus().clock.Now()
	return s.request(&busv1.SubscribeRequest{Start: []*busv1.Position{positionToWire(d, sub)}})
}

// solicit asks for a proof that everything published before now is known, and
// tells what we applied.
func (s *session) solicit(opening bool) error {
	s.number++
	q := solicit{number: s.number, sent: s.bus().clock.Now(), at: map[freshet.DomainID]invalidation.Subscription{}}
	m := &busv1.SubscribeRequest{Solicit: s.number}
	if opening {
		m.Cluster = infoToWire(s.bus().info())
	}
	for d := range s.domains {
		sub, exists := s.link.contact.position(d)
		if _, waits := s.resets[d]; waits || !exists {
			continue
		}
		q.at[d] = sub
		if opening {
			m.Start = append(m.Start, positionToWire(d, sub))
		}
		m.Positions = append(m.Positions, positionToWire(d, sub))
	}
	if len(s.solicits) > 16 {
		s.solicits = s.solicits[1:]
	}
	s.solicits = append(s.solicits, q)
	return s.request(m)
}
