package membus

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/crosscluster"
	"github.com/freshet-io/freshet/invalidation"
)

// Order numbers the events of several clusters, so that a test can say which
// came first.
type Order struct{ last atomic.Uint64 }

// Next returns the next number.
func (o *Order) Next() uint64 { return o.last.Add(1) }

// Cluster is the replicated state of a cluster, as simple as the rules of a
// Region allow: what a group of members would agree on, without the group. It
// is safe for concurrent use.
type Cluster struct {
	order *Order
	// Latency is how long a command takes. Set it before the cluster is used.
	Latency time.Duration

	mu      sync.Mutex
	self    invalidation.Publisher
	leader  int
	term    context.Context //nolint:containedctx // the leadership is its owner
	depose  context.CancelFunc
	ruled   chan struct{} // closed when the leadership changes
	roots   []crosscluster.Root
	rooted  chan struct{}
	logs    map[freshet.DomainID]*log
	grown   chan struct{}
	subs    map[position]invalidation.Subscription
	marks   map[freshet.DomainID]map[string]uint64 // key → order of its last mark
	resets  map[freshet.DomainID]uint64            // order of the last mark of everything
	hints   int
	applied int
	resat   int
	lost    map[position]string
	confirm map[position]time.Time
	moved   chan struct{} // closed when anything of a receiver changes
}

type position struct {
	publisher freshet.ClusterID
	domain    freshet.DomainID
}

// log is the log of one domain; hashes[i] is the chain before records[i].
type log struct {
	low     uint64
	records []invalidation.Record
	hashes  []invalidation.Hash
	orders  []uint64
}

func (l *log) head(d freshet.DomainID) invalidation.Head {
	n := len(l.records)
	return invalidation.Head{Domain: d, Low: l.low, High: l.low + uint64(n) - 1, Hash: l.hashes[n]}
}

// NewCluster returns a cluster without a leader.
func NewCluster(self invalidation.Publisher, order *Order) *Cluster {
	c := &Cluster{
		order: order, self: self, leader: -1, ruled: make(chan struct{}), rooted: make(chan struct{}), grown: make(chan struct{}),
		moved: make(chan struct{}), logs: map[freshet.DomainID]*log{}, subs: map[position]invalidation.Subscription{},
		marks: map[freshet.DomainID]map[string]uint64{}, resets: map[freshet.DomainID]uint64{}, lost: map[position]string{},
		confirm: map[position]time.Time{},
	}
	c.term, c.depose = context.WithCancel(context.Background())
	c.depose()
	return c
}

func reopen(ch *chan struct{}) {
	close(*ch)
	*ch = make(chan struct{})
}

// Lead makes a member the leader; -1 for none.
func (c *Cluster) Lead(member int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.depose()
	c.leader = member
	if member >= 0 {
		c.term, c.depose = context.WithCancel(context.Background())
	}
	clear(c.lost) // it was in the leader's memory
	clear(c.confirm)
	reopen(&c.ruled)
	reopen(&c.moved)
}

// Mount replaces the mounts.
func (c *Cluster) Mount(roots ...crosscluster.Root) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roots = roots
	reopen(&c.rooted)
}

// Write appends a record to the cluster's own log, as a change by its users does,
// and returns its sequence number.
func (c *Cluster) Write(d freshet.DomainID, r invalidation.Record) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok := c.logs[d]
	if !ok {
		l = &log{low: 1, hashes: make([]invalidation.Hash, 1)}
		c.logs[d] = l
	}
	n := len(l.records)
	r.Seq = l.low + uint64(n)
	l.records = append(l.records, r)
	l.hashes = append(l.hashes, l.hashes[n].Next(r))
	l.orders = append(l.orders, c.order.Next())
	reopen(&c.grown)
	return r.Seq
}

// Compact drops the records below low.
func (c *Cluster) Compact(d freshet.DomainID, low uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.logs[d]
	cut := int(low - l.low)
	l.low, l.records, l.hashes, l.orders = low, l.records[cut:], l.hashes[cut:], l.orders[cut:]
}

// Lose drops the newest n records, as a restore from a backup or a disk without
// fsync does. Without a new epoch, only the chain tells.
func (c *Cluster) Lose(d freshet.DomainID, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lose(d, n)
}

// lose drops the newest n records. The lock is held.
func (c *Cluster) lose(d freshet.DomainID, n int) {
	l := c.logs[d]
	keep := len(l.records) - n
	l.records, l.hashes, l.orders = slices.Clone(l.records[:keep]), slices.Clone(l.hashes[:keep+1]), l.orders[:keep]
}

// Restore drops the newest n records and changes the epoch, at once, as a restore
// that is followed by a new epoch before anybody is answered.
func (c *Cluster) Restore(d freshet.DomainID, n int, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lose(d, n)
	c.self.Epoch = epoch
	reopen(&c.grown)
}

// SetEpoch changes the epoch.
func (c *Cluster) SetEpoch(epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.self.Epoch = epoch
	reopen(&c.grown)
}

// Head returns the head of an own log.
func (c *Cluster) Head(d freshet.DomainID) invalidation.Head {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l, ok := c.logs[d]; ok {
		return l.head(d)
	}
	return invalidation.Head{Domain: d, Low: 1}
}

// Written returns the keys of the records that the log holds, with the order of
// their writing.
func (c *Cluster) Written(d freshet.DomainID) map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]uint64{}
	if l, ok := c.logs[d]; ok {
		for i, r := range l.records {
			out[r.Key] = l.orders[i]
			if r.Key2 != "" {
				out[r.Key2] = l.orders[i]
			}
		}
	}
	return out
}

// MarkedSince reports whether the key was marked after the event of that order.
func (c *Cluster) MarkedSince(d freshet.DomainID, key string, order uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.marks[d][key] > order || c.resets[d] > order
}

// Position returns the subscription to a publisher's log.
func (c *Cluster) Position(publisher freshet.ClusterID, d freshet.DomainID) (invalidation.Subscription, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.subs[position{publisher, d}]
	return s, ok
}

// WhyLost returns why a publisher counts as lost, "" if it does not.
func (c *Cluster) WhyLost(publisher freshet.ClusterID, d freshet.DomainID) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost[position{publisher, d}]
}

// AnyLost returns the reasons for which any publisher of the domain is lost.
func (c *Cluster) AnyLost(d freshet.DomainID) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for p, why := range c.lost {
		if p.domain == d {
			out = append(out, why)
		}
	}
	return out
}

// Confirmed returns the send time of the newest request whose answer showed that
// we are level with the publisher.
func (c *Cluster) Confirmed(publisher freshet.ClusterID, d freshet.DomainID) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.confirm[position{publisher, d}]
}

// Counts are numbers of commands of a receiver.
type Counts struct {
	Applied int // records
	Hints   int // records
	Resets  int
}

// Counts returns how much the receiver did so far.
func (c *Cluster) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Counts{Applied: c.applied, Hints: c.hints, Resets: c.resat}
}

// Changed returns a channel that is closed when anything of the receiver changes.
func (c *Cluster) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moved
}

// Member returns one member's view.
func (c *Cluster) Member(i int, node string) *Member { return &Member{c: c, i: i, node: node} }

// Member is one member of a Cluster as a crosscluster.Region.
type Member struct {
	c    *Cluster
	i    int
	node string
}

var _ crosscluster.Region = (*Member)(nil)

// Identity implements crosscluster.Region.
func (m *Member) Identity() crosscluster.Identity {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	return crosscluster.Identity{Publisher: m.c.self, Node: m.node}
}

// Leading implements crosscluster.Region.
func (m *Member) Leading() (context.Context, bool) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	if m.c.leader != m.i {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		return ended, false
	}
	return m.c.term, true
}

// Leadership implements crosscluster.Region.
func (m *Member) Leadership() <-chan struct{} {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	return m.c.ruled
}

// Roots implements crosscluster.Region.
func (m *Member) Roots() ([]crosscluster.Root, <-chan struct{}) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	return slices.Clone(m.c.roots), m.c.rooted
}

// Heads implements crosscluster.Region.
func (m *Member) Heads() ([]invalidation.Head, <-chan struct{}) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	return m.c.heads(), m.c.grown
}

func (c *Cluster) heads() []invalidation.Head {
	out := make([]invalidation.Head, 0, len(c.logs))
	for _, d := range slices.SortedFunc(maps.Keys(c.logs), func(a, b freshet.DomainID) int { return slices.Compare(a[:], b[:]) }) {
		out = append(out, c.logs[d].head(d))
	}
	return out
}

// VerifiedHeads implements crosscluster.Region.
func (m *Member) VerifiedHeads(ctx context.Context) ([]invalidation.Head, error) {
	if err := m.c.wait(ctx); err != nil {
		return nil, err
	}
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	if err := m.leads("verified heads"); err != nil {
		return nil, err
	}
	return m.c.heads(), nil
}

func (c *Cluster) wait(ctx context.Context) error {
	if c.Latency > 0 {
		t := time.NewTimer(c.Latency)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// leads fails on members that do not lead. The lock is held.
func (m *Member) leads(op string) error {
	if m.c.leader != m.i {
		return freshet.Errorf(freshet.KindNotLeader, op, "", "member %d does not lead", m.i)
	}
	return nil
}

// Records implements crosscluster.Region.
func (m *Member) Records(d freshet.DomainID, after uint64, limit int) (invalidation.Batch, error) {
	c := m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	b := invalidation.Batch{Publisher: c.self.Cluster, Epoch: c.self.Epoch, Domain: d, After: after}
	l, ok := c.logs[d]
	if !ok {
		return b, freshet.Errorf(freshet.KindNotExist, "records", "", "no log of the domain was begun")
	}
	if after+1 < l.low || after > l.head(d).High {
		return b, freshet.Errorf(freshet.KindStale, "records", "", "position %d is not in the log", after)
	}
	from := int(after + 1 - l.low)
	b.AfterHash = l.hashes[from]
	b.Records = slices.Clone(l.records[from:min(len(l.records), from+limit)])
	return b, nil
}

// Subscriptions implements crosscluster.Region.
func (m *Member) Subscriptions() ([]invalidation.Subscription, error) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	return slices.Collect(maps.Values(m.c.subs)), nil
}

// command runs fn as a replicated command.
func (m *Member) command(ctx context.Context, op string, fn func()) error {
	if err := m.c.wait(ctx); err != nil {
		return err
	}
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	if err := m.leads(op); err != nil {
		return err
	}
	fn()
	reopen(&m.c.moved)
	return nil
}

// mark marks what a record names. The lock is held.
func (c *Cluster) mark(d freshet.DomainID, r invalidation.Record) {
	if c.marks[d] == nil {
		c.marks[d] = map[string]uint64{}
	}
	at := c.order.Next()
	if r.Kind == invalidation.KindAll || (r.Kind == invalidation.KindSubtree && r.Key == "/") {
		c.resets[d] = at
	}
	c.marks[d][r.Key] = at
	if r.Key2 != "" {
		c.marks[d][r.Key2] = at
	}
}

// Apply implements crosscluster.Region.
func (m *Member) Apply(ctx context.Context, b invalidation.Batch) (verdict invalidation.Verdict, next invalidation.Subscription, err error) {
	err = m.command(ctx, "apply", func() {
		c := m.c
		at := position{b.Publisher, b.Domain}
		sub, ok := c.subs[at]
		if !ok {
			verdict = invalidation.VerdictReset
			return
		}
		var news []invalidation.Record
		verdict, news, next = sub.Judge(b)
		for _, r := range news {
			c.mark(b.Domain, r)
		}
		c.applied += len(news)
		c.subs[at] = next
	})
	return verdict, next, err
}

// Hint implements crosscluster.Region.
func (m *Member) Hint(ctx context.Context, d freshet.DomainID, records []invalidation.Record) error {
	return m.command(ctx, "hint", func() {
		for _, r := range records {
			m.c.mark(d, r)
		}
		m.c.hints += len(records)
	})
}

// Reset implements crosscluster.Region.
func (m *Member) Reset(ctx context.Context, p invalidation.Publisher, head invalidation.Head) (sub invalidation.Subscription, err error) {
	err = m.command(ctx, "reset", func() {
		c := m.c
		at := position{p.Cluster, head.Domain}
		if old := c.subs[at]; old.Publisher.Epoch > p.Epoch {
			sub = old // of an older epoch: ignored
			return
		}
		sub = invalidation.Subscription{
			Publisher: p, Domain: head.Domain, State: invalidation.StateSynced, Applied: head.High, Hash: head.Hash,
		}
		c.subs[at] = sub
		c.resets[head.Domain] = c.order.Next()
		c.resat++
	})
	return sub, err
}

// Begin implements crosscluster.Region.
func (m *Member) Begin(ctx context.Context, p invalidation.Publisher, d freshet.DomainID) (sub invalidation.Subscription, err error) {
	var refused error
	err = m.command(ctx, "begin", func() {
		at := position{p.Cluster, d}
		if _, ok := m.c.subs[at]; ok {
			refused = freshet.Errorf(freshet.KindExist, "begin", "", "there is a subscription already")
			return
		}
		sub = invalidation.Subscription{Publisher: p, Domain: d, State: invalidation.StateSynced}
		m.c.subs[at] = sub
	})
	if err != nil {
		return sub, err
	}
	return sub, refused
}

// Forget implements crosscluster.Region.
func (m *Member) Forget(ctx context.Context, cluster freshet.ClusterID) error {
	refused := freshet.Errorf(freshet.KindNotExist, "forget", "", "there is no subscription to the cluster")
	err := m.command(ctx, "forget", func() {
		for at := range m.c.subs {
			if at.publisher == cluster {
				delete(m.c.subs, at)
				m.c.resets[at.domain] = m.c.order.Next()
				refused = nil
			}
		}
	})
	if err != nil {
		return err
	}
	return refused
}

// Confirm implements crosscluster.Region.
func (m *Member) Confirm(p invalidation.Publisher, d freshet.DomainID, sent time.Time) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	if m.c.leader == m.i {
		m.c.confirm[position{p.Cluster, d}] = sent
		reopen(&m.c.moved)
	}
}

// Lost implements crosscluster.Region.
func (m *Member) Lost(p invalidation.Publisher, d freshet.DomainID, lost bool, reason string) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	if m.c.leader != m.i {
		return
	}
	delete(m.c.lost, position{p.Cluster, d})
	if lost {
		m.c.lost[position{p.Cluster, d}] = reason
	}
	reopen(&m.c.moved)
}
