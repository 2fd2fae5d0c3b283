package crosscluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
)

// SerfOptions are the settings of the gossip pool.
type SerfOptions struct {
	// Bind is the address to listen on, TCP and UDP, host:port; port 0 picks one,
	// an empty host is every address. "127.0.0.1:0" if empty.
	Bind string
	// Advertise is what others are told, if Bind can't be reached: host:port. The
	// host is resolved once, when Run begins.
	Advertise string
	// Join are members of the pool, host:port. They are tried for ever.
	Join []string
	// Key encrypts the gossip: 16, 24 or 32 bytes. OldKeys are accepted too, while
	// a key is being replaced. Without a Key, gossip is not encrypted.
	Key     []byte
	OldKeys [][]byte
	Logger  *slog.Logger
	// Transport replaces the sockets, in tests.
	Transport memberlist.Transport
}

// Bounds of the pool; see the measurements in docs/performance.md.
const (
	serfGossipInterval = 50 * time.Millisecond
	serfEventBuffer    = 8192
	serfEventLimit     = 1200 // name and payload
	serfTagLimit       = memberlist.MetaMaxSize
	serfRejoin         = 10 * time.Second
	serfLeaveDelay     = 200 * time.Millisecond
	frameEvent         = "f"
	digestEvent        = "d"
)

// Serf is the gossip pool over memberlist and serf. It implements Gossip. It is
// safe for concurrent use.
type Serf struct {
	options SerfOptions
	log     *slog.Logger

	mu      sync.Mutex
	serf    *serf.Serf // nil while not running
	address string
	members []Member
	changed chan struct{}
}

var _ Gossip = (*Serf)(nil)

// NewSerf returns a member of the pool; Run makes it take part.
func NewSerf(options SerfOptions) *Serf {
	if options.Bind == "" {
		options.Bind = "127.0.0.1:0"
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	return &Serf{options: options, log: options.Logger, changed: make(chan struct{})}
}

// config makes serf's configuration for a member.
func (s *Serf) config(ctx context.Context, self Member, events chan<- serf.Event) (*serf.Config, error) {
	list := memberlist.DefaultWANConfig()
	list.GossipInterval = serfGossipInterval
	list.LogOutput = s.logWriter()
	list.Transport = s.options.Transport
	if err := s.listen(ctx, list); err != nil {
		return nil, err
	}
	if len(s.options.Key) > 0 {
		ring, err := memberlist.NewKeyring(s.options.OldKeys, s.options.Key)
		if err != nil {
			return nil, freshet.Errorf(freshet.KindInvalid, "start gossip", "", "the gossip key must have 16, 24 or 32 bytes")
		}
		list.Keyring = ring
	}
	c := serf.DefaultConfig()
	c.NodeName = self.Cluster + "." + self.Node
	c.Tags = tags(self)
	c.MemberlistConfig = list
	c.LogOutput = list.LogOutput
	c.EventCh = events
	c.EventBuffer = serfEventBuffer
	c.UserEventSizeLimit = serfEventLimit
	c.QueueDepthWarning, c.MaxQueueDepth = 64, 256 // old frames are worth nothing
	c.LeavePropagateDelay = serfLeaveDelay
	c.EnableNameConflictResolution = false
	c.SnapshotPath = "" // addresses of yesterday are not joined again
	return c, nil
}

func (s *Serf) listen(ctx context.Context, list *memberlist.Config) error {
	host, port, err := resolve(ctx, s.options.Bind)
	if err != nil {
		return err
	}
	list.BindAddr, list.BindPort = host, port
	list.AdvertisePort = port
	if s.options.Advertise != "" {
		if list.AdvertiseAddr, list.AdvertisePort, err = resolve(ctx, s.options.Advertise); err != nil {
			return err
		}
	}
	return nil
}

// resolve returns the IP and the port of host:port.
func resolve(ctx context.Context, addr string) (string, int, error) {
	const op = "start gossip"
	host, text, err := net.SplitHostPort(addr)
	port, perr := strconv.ParseUint(text, 10, 16)
	switch {
	case err != nil || perr != nil:
		return "", 0, freshet.Errorf(freshet.KindInvalid, op, "", "gossip address %q is not host:port", addr)
	case host == "":
		return "0.0.0.0", int(port), nil
	case net.ParseIP(host) != nil:
		return host, int(port), nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(found) == 0 {
		return "", 0, freshet.Errorf(freshet.KindUnavailable, op, "", "gossip address %q has no IP address: %w", addr, err)
	}
	best := found[0]
	for _, ip := range found {
		if ip.Unmap().Is4() {
			best = ip.Unmap()
			break
		}
	}
	return best.String(), int(port), nil
}

// Run implements Gossip.
func (s *Serf) Run(ctx context.Context, self Member, deliver func([]byte)) error {
	// serf holds a lock while it sends: the channel is drained by a goroutine
	// that never waits for anything.
	events := make(chan serf.Event, 256)
	c, err := s.config(ctx, self, events)
	if err != nil {
		return err
	}
	if size := tagSize(c.Tags); size > serfTagLimit {
		return freshet.Errorf(freshet.KindInvalid, "start gossip", "", "names and addresses need %d bytes in the pool, more than %d", size, serfTagLimit)
	}
	pool, err := serf.Create(c)
	if err != nil {
		return &freshet.Error{Op: "start gossip", Kind: freshet.KindUnavailable, Err: err}
	}
	local := pool.LocalMember()
	s.mu.Lock()
	s.serf = pool
	s.mu.Unlock()
	s.refresh(pool)
	s.mu.Lock() // last: whoever sees the address finds us among the members
	s.address = net.JoinHostPort(local.Addr.String(), strconv.Itoa(int(local.Port)))
	s.mu.Unlock()
	var parts sync.WaitGroup
	drained, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(drained)
		for {
			select {
			case e := <-events:
				s.take(pool, e, deliver)
			case <-stop:
				return
			}
		}
	}()
	parts.Go(func() { s.join(ctx, pool) })
	<-ctx.Done()
	parts.Wait()
	s.mu.Lock()
	s.serf, s.members = nil, nil
	s.mu.Unlock()
	err = pool.Leave() // tells the others; bounded by serf's own timeouts
	if serr := pool.Shutdown(); serr != nil {
		err = errors.Join(err, serr)
	}
	close(stop)
	<-drained
	if err != nil {
		s.log.Warn("leaving the gossip pool failed", "error", err)
	}
	return nil
}

// Address returns where this member listens, "" while it does not run.
func (s *Serf) Address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.address
}

func (s *Serf) take(pool *serf.Serf, e serf.Event, deliver func([]byte)) {
	switch e := e.(type) {
	case serf.UserEvent:
		deliver(e.Payload)
	case serf.MemberEvent:
		s.refresh(pool)
	}
}

// refresh reads the members that are alive.
func (s *Serf) refresh(pool *serf.Serf) {
	var alive []Member
	for _, m := range pool.Members() {
		if m.Status != serf.StatusAlive {
			continue
		}
		if member, ok := memberOf(m.Tags); ok {
			alive = append(alive, member)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serf == pool {
		s.members = alive
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// join tries the members to join until ctx ends: at once, and again whenever we
// are alone, for they may all have been down.
func (s *Serf) join(ctx context.Context, pool *serf.Serf) {
	wait := 100 * time.Millisecond
	for ctx.Err() == nil && len(s.options.Join) > 0 {
		if pool.NumNodes() <= 1 || s.foreign() == 0 {
			if _, err := pool.Join(s.options.Join, true); err != nil {
				s.log.Debug("no member of the gossip pool could be joined", "error", err)
			}
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		wait = min(2*wait, serfRejoin)
	}
}

// Join asks members of the pool, host:port, to take us in, and returns how many
// did. KindUnavailable if none did. They are not remembered: the pool remembers
// its members itself.
func (s *Serf) Join(ctx context.Context, addresses []string) (int, error) {
	const op = "join gossip"
	s.mu.Lock()
	pool := s.serf
	s.mu.Unlock()
	if pool == nil {
		return 0, freshet.Errorf(freshet.KindUnavailable, op, "", "this member does not take part in the pool")
	}
	type answer struct {
		n   int
		err error
	}
	answered := make(chan answer, 1) // serf takes no context; its own timeouts end it
	go func() {
		n, err := pool.Join(addresses, true)
		answered <- answer{n, err}
	}()
	select {
	case a := <-answered:
		if a.n == 0 && a.err != nil {
			return 0, &freshet.Error{Op: op, Kind: freshet.KindUnavailable, Err: a.err}
		}
		return a.n, nil
	case <-ctx.Done():
		return 0, &freshet.Error{Op: op, Kind: freshet.KindDeadline, Err: ctx.Err()}
	}
}

// foreign returns how many members of other clusters are alive.
func (s *Serf) foreign() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serf == nil {
		return 0
	}
	own, n := s.serf.LocalMember().Tags["id"], 0
	for _, m := range s.members {
		if m.ID.String() != own {
			n++
		}
	}
	return n
}

// Publish implements Gossip.
func (s *Serf) Publish(payload []byte, coalesce bool) error {
	s.mu.Lock()
	pool := s.serf
	s.mu.Unlock()
	switch {
	case pool == nil:
		return freshet.Errorf(freshet.KindUnavailable, "gossip", "", "this member does not take part in the pool")
	case len(payload) > invalidation.MaxFrame:
		return freshet.Errorf(freshet.KindInvalid, "gossip", "", "payload of %d bytes, at most %d leave a member", len(payload), invalidation.MaxFrame)
	}
	name := frameEvent
	if coalesce {
		name = digestEvent + pool.LocalMember().Tags["name"] // the newest of each cluster counts
	}
	if err := pool.UserEvent(name, payload, coalesce); err != nil {
		return &freshet.Error{Op: "gossip", Kind: freshet.KindUnavailable, Err: err}
	}
	return nil
}

// Announce implements Gossip.
func (s *Serf) Announce(self Member) error {
	s.mu.Lock()
	pool := s.serf
	s.mu.Unlock()
	if pool == nil {
		return freshet.Errorf(freshet.KindUnavailable, "announce", "", "this member does not take part in the pool")
	}
	t := tags(self)
	if size := tagSize(t); size > serfTagLimit {
		return freshet.Errorf(freshet.KindInvalid, "announce", "", "names and addresses need %d bytes in the pool, more than %d", size, serfTagLimit)
	}
	if err := pool.SetTags(t); err != nil {
		return &freshet.Error{Op: "announce", Kind: freshet.KindUnavailable, Err: err}
	}
	return nil
}

// Members implements Gossip.
func (s *Serf) Members() ([]Member, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Member(nil), s.members...), s.changed
}

func tags(m Member) map[string]string {
	return map[string]string{
		"id": m.ID.String(), "name": m.Cluster, "node": m.Node, "epoch": strconv.FormatUint(m.Epoch, 10),
		"bus": m.Bus, "proto": strconv.FormatUint(uint64(m.Protocol), 10),
	}
}

// tagSize bounds the encoded size of tags from above.
func tagSize(tags map[string]string) int {
	n := 1 + 3
	for k, v := range tags {
		n += len(k) + len(v) + 2*3
	}
	return n
}

func memberOf(tags map[string]string) (Member, bool) {
	id, err := uuid.Parse(tags["id"])
	epoch, eerr := strconv.ParseUint(tags["epoch"], 10, 64)
	protocol, perr := strconv.ParseUint(tags["proto"], 10, 32)
	if errors.Join(err, eerr, perr) != nil || !validName(tags["name"]) {
		return Member{}, false
	}
	return Member{
		Cluster: tags["name"], ID: id, Epoch: epoch, Node: tags["node"], Bus: tags["bus"], Protocol: uint32(protocol),
	}, true
}

// logWriter turns the lines that serf and memberlist log into records.
func (s *Serf) logWriter() io.Writer { return lineWriter{s.log} }

type lineWriter struct{ log *slog.Logger }

// Write logs one line such as "2006/01/02 15:04:05 [WARN] serf: …".
func (w lineWriter) Write(line []byte) (int, error) {
	text := string(bytes.TrimSpace(line))
	level := slog.LevelDebug
	for word, l := range map[string]slog.Level{"[WARN] ": slog.LevelInfo, "[ERR] ": slog.LevelWarn, "[INFO] ": slog.LevelDebug, "[DEBUG] ": slog.LevelDebug} {
		if _, rest, ok := strings.Cut(text, word); ok {
			level, text = l, rest
			break
		}
	}
	w.log.Log(context.Background(), level, "gossip pool", "message", text)
	return len(line), nil
}

// String names the pool's member in logs.
func (s *Serf) String() string { return fmt.Sprintf("serf at %s", s.Address()) }
