package sim_test

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/rpc"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/retry"
)

// node is one cache node; it is another process after each crash.
type node struct {
	site *site
	name string
	past sync.WaitGroup // former processes that are still winding up

	mu    sync.Mutex
	disk  *disk
	p     *process
	n     *cachenode.Node
	fatal string             // point of an upload at which it dies
	at    func(point string) // called at each point of an upload, if not nil
	end   func(killed bool)
}

func (n *node) start() {
	s, w := n.site, n.site.w
	p := &process{w: w, site: s, name: n.name, gone: make(chan struct{})}
	media := n.media()
	id, err := cachenode.OpenIdentity(media.dir)
	if err != nil {
		w.t.Error(err)
		return
	}
	blocks, err := media.open()
	if err != nil {
		w.t.Error(err)
		return
	}
	mounts := ufs.NewMounts(w.open, ufs.Environment{}, ufs.MountsOptions{
		Wrap: func(fs ufs.FS) ufs.FS { return retry.New(&flaky{fs, p}, retry.Options{}) },
	})
	cn := cachenode.New(cachenode.Deps{
		Coordinator: leaderOf{s, p}, Mounts: mounts, Blocks: blocks, Identity: id, Remote: nodesOf{s}, Peers: nodesOf{s}, Clock: w.clock,
		Log: slog.New(&w.story).With("at", n.name),
	}, cachenode.Options{
		Node: freshet.Node{Name: n.name, GRPC: n.name + ":7410", Host: n.name}, LeaderTimeout: 8 * time.Second, CommitTimeout: 10 * time.Second,
		StopTimeout: 5 * time.Second, Hook: func(point string) { n.reached(p, point) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- cn.Run(ctx) }()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.p, n.n = p, cn
	n.end = func(killed bool) {
		cancel()
		if err := <-done; err != nil && !killed {
			w.violation("", "%s: %v", n.name, err)
		}
		p.kill()
		_, _, _ = blocks.Close(), mounts.Close(), id.Close()
	}
}

// reached is told of the points of uploads.
func (n *node) reached(p *process, point string) {
	n.mu.Lock()
	die := n.fatal == point && n.p == p
	if die {
		n.fatal = ""
	}
	at := n.at
	n.mu.Unlock()
	if at != nil {
		at(point)
	}
	if die {
		n.site.w.note("%s: %s dies at %s", n.site.name, n.name, point)
		n.crash()
	}
}

// dieAt lets the node crash when an upload reaches a point.
func (n *node) dieAt(point string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fatal = point
}

// crash kills the node's process and starts another one soon.
func (n *node) crash() { n.crashFor(time.Second+n.site.w.chance.upTo(7*time.Second), false) }

// crashFor kills the node's process and starts another one later; wiped says that it is
// the end of its disk.
func (n *node) crashFor(away time.Duration, wiped bool) {
	n.mu.Lock()
	p, end := n.p, n.end
	n.end = nil
	n.mu.Unlock()
	if end == nil {
		if wiped { // it is gone already, and comes back without its disk
			n.wipe()
		}
		return
	}
	p.kill()
	ended := make(chan struct{})
	n.past.Go(func() {
		end(true)
		close(ended)
	})
	if wiped {
		n.wipe()
	}
	s := n.site
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return
	}
	s.restarts.Go(func() {
		time.Sleep(away)
		<-ended // which has the disk
		n.start()
		s.w.note("%s: %s is back", s.name, n.name)
	})
}

func (n *node) stop() {
	n.mu.Lock()
	end := n.end
	n.end = nil
	n.mu.Unlock()
	if end != nil {
		end(false)
	}
}

// up reports whether its process runs: its leader notices late that it does not.
func (n *node) up() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.end != nil
}

func (n *node) running() (*cachenode.Node, *process) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.n, n.p
}

func gone(what string) error {
	return freshet.Errorf(freshet.KindUnavailable, "call", "", "%s is gone", what)
}

// called makes a call to a process that may die meanwhile: then its caller hears
// of that, and nothing else.
func called[T any](ctx context.Context, p *process, fn func() (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	var none T
	if p.dead() {
		return none, gone(p.name)
	}
	got := make(chan answer, 1)
	p.w.calls.Go(func() {
		v, err := fn()
		got <- answer{v, err}
	})
	select {
	case a := <-got:
		if p.dead() {
			return none, gone(p.name)
		}
		return a.v, a.err
	case <-p.gone:
		return none, gone(p.name)
	case <-ctx.Done():
		return none, freshet.Errorf(freshet.KindDeadline, "call", "", "%w", ctx.Err())
	}
}

// call asks the members of a site until one says that it leads, or that it may
// not answer for another reason.
func call[T any](ctx context.Context, s *site, fn func(*coordinator.Coordinator) (T, error)) (T, error) {
	var none T
	s.mu.Lock()
	at := s.first
	s.mu.Unlock()
	last := gone("every member of " + s.name)
	for ; ; at++ {
		m := s.members[at%len(s.members)]
		if c := m.running(); c != nil {
			v, err := called(ctx, m.process(), func() (T, error) { return fn(c) })
			if !freshet.IsKind(err, freshet.KindNotLeader) {
				s.mu.Lock()
				s.first = at % len(s.members)
				s.mu.Unlock()
				return v, err
			}
			last = err
		}
		if at%len(s.members) == len(s.members)-1 {
			pause(ctx, 50*time.Millisecond)
		}
		if ctx.Err() != nil {
			return none, freshet.Errorf(freshet.KindUnavailable, "call", "", "%w", last)
		}
	}
}

// none is an answer without a value.
type none = struct{}

// leaderOf is how a node reaches its leader.
type leaderOf struct {
	s *site
	p *process
}

func fromNode[T any](ctx context.Context, l leaderOf, fn func(*coordinator.Coordinator) (T, error)) (T, error) {
	var zero T
	if l.p.dead() {
		return zero, gone(l.p.name)
	}
	if l.p.mute.Load() {
		return zero, gone("the leader of " + l.p.name)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return call(ctx, l.s, fn)
}

func (l leaderOf) Heartbeat(ctx context.Context, hb freshet.Heartbeat) (freshet.HeartbeatReply, error) {
	return fromNode(ctx, l, func(c *coordinator.Coordinator) (freshet.HeartbeatReply, error) { return c.Heartbeat(ctx, hb) })
}

func (l leaderOf) Permit(ctx context.Context, q freshet.PermitQuery) error {
	_, err := fromNode(ctx, l, func(c *coordinator.Coordinator) (none, error) { return none{}, c.Permit(ctx, q) })
	if err == nil {
		l.p.w.bucket.permitted(q.Op)
	}
	return err
}

func (l leaderOf) Complete(ctx context.Context, op freshet.OpID, w freshet.Written) (freshet.Completed, error) {
	l.p.w.hist.completes(l.s, op, w.Length)
	return fromNode(ctx, l, func(c *coordinator.Coordinator) (freshet.Completed, error) { return c.Complete(ctx, op, w) })
}

func (l leaderOf) Abort(ctx context.Context, op freshet.OpID, definite bool) error {
	_, err := fromNode(ctx, l, func(c *coordinator.Coordinator) (none, error) { return none{}, c.Abort(ctx, op, definite) })
	return err
}

// nodesOf is how clients and nodes reach the nodes of a site.
type nodesOf struct{ s *site }

func (o nodesOf) find(id freshet.NodeID) (*cachenode.Node, *process, error) {
	for _, n := range o.s.nodes {
		if cn, p := n.running(); cn != nil && cn.Node().ID == id && !p.dead() {
			return cn, p, nil
		}
	}
	return nil, nil, gone("node " + string(id))
}

func (o nodesOf) ReadBlock(ctx context.Context, to freshet.Node, q freshet.BlockRead) (freshet.BlockStream, error) {
	cn, p, err := o.find(to.ID)
	if err != nil {
		return nil, err
	}
	stream, err := cn.Read(ctx, q)
	if err != nil {
		return nil, err
	}
	return &cutStream{stream, p}, nil
}

func (o nodesOf) WriteFile(ctx context.Context, t freshet.Ticket, body io.Reader, length int64) (freshet.Completed, error) {
	cn, p, err := o.find(t.Node.ID)
	if err != nil {
		return freshet.Completed{}, err
	}
	o.s.w.hist.ticket(t)
	return called(ctx, p, func() (freshet.Completed, error) { return cn.Write(ctx, t, body, length) })
}

func (o nodesOf) KeepBlock(ctx context.Context, to freshet.Node, q freshet.BlockKeep) error {
	cn, p, err := o.find(to.ID)
	if err != nil {
		return err
	}
	_, err = called(ctx, p, func() (none, error) { return none{}, cn.KeepBlock(ctx, q) })
	return err
}

// cutStream ends when its node dies.
type cutStream struct {
	freshet.BlockStream
	p *process
}

func (c *cutStream) Read(b []byte) (int, error) {
	if c.p.dead() {
		return 0, gone(c.p.name)
	}
	return c.BlockStream.Read(b)
}

// router is the namespace of a site as a client reaches it.
type router struct{ s *site }

var _ rpc.Namespace = router{}

func (r router) Stat(ctx context.Context, p freshet.Path, opts freshet.ReadOptions) (freshet.Status, error) {
	st, err := call(ctx, r.s, func(c *coordinator.Coordinator) (freshet.Status, error) { return c.Stat(ctx, p, opts) })
	r.s.detain(ctx, st.Lease)
	return st, err
}

func (r router) List(ctx context.Context, q freshet.ListQuery) (freshet.ListPage, error) {
	return call(ctx, r.s, func(c *coordinator.Coordinator) (freshet.ListPage, error) { return c.List(ctx, q) })
}

func (r router) Mkdir(ctx context.Context, q freshet.MkdirQuery) (freshet.Completed, error) {
	return call(ctx, r.s, func(c *coordinator.Coordinator) (freshet.Completed, error) { return c.Mkdir(ctx, q) })
}

func (r router) Rename(ctx context.Context, q freshet.RenameQuery) (freshet.Completed, error) {
	return call(ctx, r.s, func(c *coordinator.Coordinator) (freshet.Completed, error) { return c.Rename(ctx, q) })
}

func (r router) Remove(ctx context.Context, q freshet.RemoveQuery) (freshet.Completed, error) {
	return call(ctx, r.s, func(c *coordinator.Coordinator) (freshet.Completed, error) { return c.Remove(ctx, q) })
}

func (r router) RemoveTree(ctx context.Context, q freshet.RemoveQuery, report func(freshet.RemoveProgress) error) error {
	_, err := call(ctx, r.s, func(c *coordinator.Coordinator) (none, error) { return none{}, c.RemoveTree(ctx, q, report) })
	return err
}

func (r router) PlanRename(ctx context.Context, q freshet.RenameQuery) (freshet.RenamePlan, error) {
	return call(ctx, r.s, func(c *coordinator.Coordinator) (freshet.RenamePlan, error) { return c.PlanRename(ctx, q) })
}

func (r router) SetAttr(ctx context.Context, q freshet.SetAttrQuery) (freshet.Completed, error) {
	return call(ctx, r.s, func(c *coordinator.Coordinator) (freshet.Completed, error) { return c.SetAttr(ctx, q) })
}

func (r router) Locate(ctx context.Context, q freshet.LocateQuery) (freshet.Location, error) {
	loc, err := call(ctx, r.s, func(c *coordinator.Coordinator) (freshet.Location, error) { return c.Locate(ctx, q) })
	r.s.detain(ctx, loc.Lease)
	return loc, err
}

func (r router) BeginWrite(ctx context.Context, q freshet.BeginWriteQuery) (freshet.BeginWriteAnswer, error) {
	return call(ctx, r.s, func(c *coordinator.Coordinator) (freshet.BeginWriteAnswer, error) { return c.BeginWrite(ctx, q) })
}

func (r router) AbortWrite(ctx context.Context, op freshet.OpID) error {
	_, err := call(ctx, r.s, func(c *coordinator.Coordinator) (none, error) { return none{}, c.AbortWrite(ctx, op) })
	return err
}

func (r router) Explain(ctx context.Context, p freshet.Path, check bool) (freshet.Explanation, error) {
	return call(ctx, r.s, func(c *coordinator.Coordinator) (freshet.Explanation, error) { return c.Explain(ctx, p, check) })
}

func (r router) Sync(ctx context.Context, p freshet.Path, recursive bool, report func(freshet.SyncProgress) error) error {
	_, err := call(ctx, r.s, func(c *coordinator.Coordinator) (none, error) { return none{}, c.Sync(ctx, p, recursive, report) })
	return err
}

// anyNode returns one of the nodes.
func (s *site) anyNode(d *dice) *node { return s.nodes[d.below(len(s.nodes))] }

// siteLog is what a site has published under one identity.
type siteLog struct {
	high    uint64
	records []logged
}

type logged struct {
	key, key2 string
	wide      bool // everything below too
	all       bool
	at        time.Time
	what      string
	op        freshet.OpID
}

func (l logged) covers(key string) bool {
	if l.all {
		return true
	}
	for _, k := range []string{l.key, l.key2} {
		if k != "" && (k == key || (l.wide && covers(k, key))) {
			return true
		}
	}
	return false
}
