package local

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/internal/clock"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// Nodes is the way to nodes over the network.
type Nodes interface {
	ReadBlock(ctx context.Context, n freshet.Node, q freshet.BlockRead) (freshet.BlockStream, error)
	ReadAhead(ctx context.Context, n freshet.Node, q freshet.BlockRead) error
	WriteFile(ctx context.Context, t freshet.Ticket, body io.Reader, length int64) (freshet.Completed, error)
}

// Options are the settings of a Pool; the zero value is usable.
type Options struct {
	// Dir, if not "", is where the sockets of nodes are, by the last parts of their
	// names: for a container that has the directory at another place.
	Dir string
	// Off leaves sockets alone.
	Off bool
	// Descriptors is how many blocks are kept open. 0 is 256.
	Descriptors int
	// Idle is how long a block is kept open that nobody reads. 0 is 30 seconds.
	Idle  time.Duration
	Clock clock.Clock
}

// How long what did not work is left alone.
const (
	redialAfter = 5 * time.Second
	reaskAfter  = 500 * time.Millisecond
)

// maxRefused bounds the blocks that are remembered as refused.
const maxRefused = 1024

// Pool reads blocks by their descriptors where it can, and over the network where
// not. It keeps descriptors open for those who come next. Safe for concurrent use;
// Close must be called.
type Pool struct {
	next Nodes
	opts Options

	silent  time.Duration // see silentFor
	stop    chan struct{}
	wg      sync.WaitGroup
	buffers sync.Pool // of *[streamBuffer]byte

	mu      sync.Mutex
	closed  bool
	hosts   map[host]*peer
	open    map[key]*descriptor
	drafts  map[*draft]struct{}
	asking  map[key]chan struct{} // closed when it was answered
	refused map[key]time.Duration // until when
	// As refused: nodes that shared no memory for a write.
	unshared map[host]time.Duration
	tick     uint64
	stats    Stats

	sweeping bool
}

// Stats count what a Pool has done.
type Stats struct {
	Local       int64 // reads by a descriptor
	Drafts      int64 // blocks that were read while the node fetched them
	Writes      int64 // files that went through shared memory
	Descriptors int   // that are kept open now
}

// host is a node in one of its lives.
type host struct {
	node        freshet.NodeID
	incarnation uint64
}

// key names a block at a node.
type key struct {
	host
	block freshet.BlockID
}

// peer is the way to one node.
type peer struct {
	mu    sync.Mutex
	conn  *conn
	retry time.Duration // not before
}

// New returns a Pool over next. It connects to nothing yet.
func New(next Nodes, opts Options) *Pool {
	if opts.Descriptors <= 0 {
		opts.Descriptors = 256
	}
	if opts.Idle <= 0 {
		opts.Idle = 30 * time.Second
	}
	if opts.Clock == nil {
		opts.Clock = clock.Real{}
	}
	opts.Off = opts.Off || !Supported
	return &Pool{
		next: next, opts: opts, silent: silentFor, stop: make(chan struct{}), hosts: map[host]*peer{}, open: map[key]*descriptor{}, drafts: map[*draft]struct{}{},
		asking: map[key]chan struct{}{}, refused: map[key]time.Duration{}, unshared: map[host]time.Duration{},
	}
}

// Close ends all connections and closes all descriptors that nobody reads by now.
// Reads go over the network from now on.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	hosts, open, drafts := p.hosts, p.open, p.drafts
	p.hosts, p.open, p.drafts = nil, nil, nil
	p.mu.Unlock()
	close(p.stop)
	for _, h := range hosts {
		h.mu.Lock()
		if h.conn != nil {
			h.conn.end(freshet.Errorf(freshet.KindUnavailable, "read block", "", "shutting down"))
		}
		h.mu.Unlock()
	}
	for _, d := range open {
		d.release()
	}
	for d := range drafts {
		d.release()
	}
	p.wg.Wait()
	return nil
}

// Stats returns what was counted.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Descriptors = len(p.open)
	return s
}

// ReadAhead asks at the socket if there is one, else over the network.
func (p *Pool) ReadAhead(ctx context.Context, n freshet.Node, q freshet.BlockRead) error {
	if c := p.reach(ctx, n); c != nil && c.readAhead(ctx, q) == nil {
		return nil
	}
	return p.next.ReadAhead(ctx, n, q)
}

// ranges is what the way over the network may have besides.
type ranges interface {
	ReadRange(ctx context.Context, n freshet.Node, r rpc.RangeRead) error
	ReadRanges(ctx context.Context, n freshet.Node, reads []rpc.RangeRead) ([]error, error)
}

// ReadRange reads over the network. KindUnsupported: it can't.
func (p *Pool) ReadRange(ctx context.Context, n freshet.Node, r rpc.RangeRead) error {
	if at, ok := p.next.(ranges); ok {
		return at.ReadRange(ctx, n, r)
	}
	return noRanges()
}

// ReadRanges reads over the network, as ReadRange does.
func (p *Pool) ReadRanges(ctx context.Context, n freshet.Node, reads []rpc.RangeRead) ([]error, error) {
	if at, ok := p.next.(ranges); ok {
		return at.ReadRanges(ctx, n, reads)
	}
	return nil, noRanges()
}

func noRanges() error {
	return freshet.Errorf(freshet.KindUnsupported, "read ranges", "", "the way to the nodes has no such call")
}

// Near reports whether blocks of the node can be read by their descriptors.
func (p *Pool) Near(ctx context.Context, n freshet.Node) bool {
	return p.reach(ctx, n) != nil
}

// ReadBlock reads a range of a block, by its descriptor if there is one, or while the
// node fetches it.
func (p *Pool) ReadBlock(ctx context.Context, n freshet.Node, q freshet.BlockRead) (freshet.BlockStream, error) {
	if q.Length < 0 {
		q.Length = q.Block.Length - q.Offset
	}
	if p.fetches(&n, &q) {
		if s, err := p.fetch(ctx, n, q); s != nil || err != nil {
			return s, err
		}
		return p.next.ReadBlock(ctx, n, q)
	}
	if d := p.borrow(ctx, &n, &q.Block, &q.Source); d != nil {
		d.release()
		return &stream{pool: p, ctx: ctx, node: n, req: q, desc: d}, nil
	}
	return p.next.ReadBlock(ctx, n, q)
}

// ReadBlockAt fills p from off of block b of src by its descriptor, and reports
// whether it could. If not, nothing is known of what p holds.
func (p *Pool) ReadBlockAt(ctx context.Context, n *freshet.Node, b *freshet.Block, src *freshet.Source, into []byte, off int64) bool {
	if off < 0 || off > b.Length-int64(len(into)) {
		return false
	}
	d := p.borrow(ctx, n, b, src)
	if d == nil {
		return false
	}
	err := d.readAt(into, off)
	d.release()
	if err != nil {
		p.drop(d, err, b, src)
		return false
	}
	return true
}

// borrow returns a descriptor of the block with a reference for the caller; nil if
// the bytes must be streamed.
func (p *Pool) borrow(ctx context.Context, n *freshet.Node, b *freshet.Block, src *freshet.Source) *descriptor {
	if p.opts.Off || n.Socket == "" || n.Incarnation == 0 || b.ID.File == 0 {
		return nil
	}
	k := key{host{n.ID, n.Incarnation}, b.ID}
	for {
		d, wait, asks := p.lookup(&k, b, src)
		if d != nil || wait == nil {
			return d
		}
		if asks {
			d = p.ask(ctx, k, n, b, src)
			p.mu.Lock()
			delete(p.asking, k)
			p.mu.Unlock()
			close(wait)
			return d
		}
		select {
		case <-wait: // somebody else asks
		case <-ctx.Done():
			return nil
		}
	}
}

// lookup returns the descriptor that is open; else a channel that is closed when the
// block was asked for, which the caller does if asks is true; else nothing: the block
// was refused lately.
func (p *Pool) lookup(k *key, b *freshet.Block, src *freshet.Source) (d *descriptor, wait chan struct{}, asks bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.open[*k]; d != nil {
		if d.layout.Length != b.Length || !d.version.SameContent(src.Fingerprint) || !d.acquire() {
			return nil, nil, false
		}
		p.tick++
		d.used = p.tick
		p.stats.Local++
		return d, nil, false
	}
	if p.closed || p.isRefused(*k) {
		return nil, nil, false
	}
	if wait, ok := p.asking[*k]; ok {
		return nil, wait, false
	}
	wait = make(chan struct{})
	p.asking[*k] = wait
	return nil, wait, true
}

// touch says that a descriptor is in use.
func (p *Pool) touch(d *descriptor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tick++
	d.used = p.tick
	p.stats.Local++
}

// isRefused is called with mu held.
func (p *Pool) isRefused(k key) bool {
	until, ok := p.refused[k]
	if ok && p.opts.Clock.Elapsed() >= until {
		delete(p.refused, k)
		ok = false
	}
	return ok
}

// ask borrows a block from the node.
func (p *Pool) ask(ctx context.Context, k key, n *freshet.Node, b *freshet.Block, src *freshet.Source) *descriptor {
	c := p.reach(ctx, *n)
	if c == nil {
		return nil
	}
	a, err := c.open(ctx, wireOf(b, src))
	if err != nil {
		if ctx.Err() == nil {
			pause := reaskAfter
			if errors.Is(err, errLate) {
				pause = redialAfter
			}
			p.refuse(k, pause)
		}
		return nil
	}
	if a.layout.Length != b.Length {
		c.giveBack(a)
		return nil
	}
	return p.accept(k, src.Fingerprint, c, a)
}

// accept takes over what an answer lends; nil if it can't be used.
func (p *Pool) accept(k key, version fingerprint.Fingerprint, c *conn, a answer) *descriptor {
	d, err := newDescriptor(k, version, a.layout, a.fd, func() { c.release(a.loan) })
	if err != nil {
		c.giveBack(a)
		return nil
	}
	d.loan, d.from = a.loan, c
	return p.keep(d)
}

// wireOf leaves out what only other nodes need.
func wireOf(b *freshet.Block, src *freshet.Source) *freshetv1.ReadBlockRequest {
	return rpc.ReadBlockToWire(freshet.BlockRead{Block: freshet.Block{ID: b.ID, Offset: b.Offset, Length: b.Length}, Source: *src})
}

// keep puts a descriptor into the cache and returns it with a reference for the
// caller.
func (p *Pool) keep(d *descriptor) *descriptor {
	d.acquire()
	p.mu.Lock()
	if had := p.open[d.key]; p.closed || had != nil || d.from.isRecalled(d.loan) {
		p.mu.Unlock() // somebody else may have asked at the same time
		d.release()   // the caller's reference stays
		return d
	}
	var oldest *descriptor
	if len(p.open) >= p.opts.Descriptors {
		for _, o := range p.open {
			if oldest == nil || o.used < oldest.used {
				oldest = o
			}
		}
		delete(p.open, oldest.key)
	}
	p.tick++
	d.used = p.tick
	p.open[d.key] = d
	p.stats.Local++
	p.mu.Unlock()
	if oldest != nil {
		oldest.release()
	}
	return d
}

func (p *Pool) refuse(k key, pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.refused) >= maxRefused {
		clear(p.refused)
	}
	p.refused[k] = p.opts.Clock.Elapsed() + pause
}

// drop lets go of a descriptor that failed.
func (p *Pool) drop(d *descriptor, why error, b *freshet.Block, src *freshet.Source) {
	p.mu.Lock()
	held := p.open[d.key] == d
	if held {
		delete(p.open, d.key)
	}
	p.mu.Unlock()
	if !held {
		return
	}
	p.refuse(d.key, reaskAfter)
	if broken, ok := errors.AsType[*damage](why); ok && d.from != nil {
		d.from.damaged(wireOf(b, src), broken.chunk)
	}
	d.release()
}

// recalled closes the descriptors that the node wants back.
func (p *Pool) recalled(from *conn, loans []uint64) {
	wanted := make(map[uint64]struct{}, len(loans))
	for _, l := range loans {
		wanted[l] = struct{}{}
	}
	p.closeWhere(func(d *descriptor) bool {
		_, ok := wanted[d.loan]
		return ok && d.from == from
	})
	p.recallDrafts(from, wanted)
}

func (p *Pool) closeWhere(which func(*descriptor) bool) {
	var out []*descriptor
	p.mu.Lock()
	for k, d := range p.open {
		if which(d) {
			delete(p.open, k)
			out = append(out, d)
		}
	}
	p.mu.Unlock()
	for _, d := range out {
		d.release()
	}
}

// reach returns the connection to the node; nil if there can be none now.
func (p *Pool) reach(ctx context.Context, n freshet.Node) *conn {
	if p.opts.Off || n.Socket == "" || n.Incarnation == 0 {
		return nil
	}
	h := host{n.ID, n.Incarnation}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	at := p.hosts[h]
	if at == nil {
		if !p.succeeds(h) {
			p.mu.Unlock()
			return nil
		}
		at = new(peer)
		p.hosts[h] = at
	}
	p.mu.Unlock()
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.retry != 0 && p.opts.Clock.Elapsed() < at.retry {
		return nil
	}
	if at.conn != nil && !at.conn.ended() {
		if at.conn.silent.Swap(false) {
			at.retry = p.opts.Clock.Elapsed() + redialAfter
			return nil
		}
		return at.conn
	}
	if ctx.Err() != nil {
		return nil
	}
	c, err := dial(ctx, p.path(n), n, p.recalled)
	at.conn = c
	if err != nil {
		pause := redialAfter
		if ctx.Err() != nil { // who comes next need not wait as long
			pause = reaskAfter
		}
		at.retry = p.opts.Clock.Elapsed() + pause
		return nil
	}
	if !p.start(c) {
		c.end(freshet.Errorf(freshet.KindUnavailable, "read block", "", "shutting down"))
		at.conn = nil
	}
	return at.conn
}

// start runs the connection and, with the first one, what closes idle descriptors.
func (p *Pool) start(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	if !p.sweeping {
		p.sweeping = true
		p.wg.Go(p.sweep)
	}
	p.wg.Go(c.run)
	return true
}

// succeeds drops what is known of the node's earlier lives, whose processes have gone,
// and with them the connections. It returns false if a later one is known: who asks has
// an answer of before. It is called with mu held.
func (p *Pool) succeeds(h host) bool {
	for other := range p.hosts {
		if other.node != h.node {
			continue
		}
		if other.incarnation > h.incarnation {
			return false
		}
		delete(p.hosts, other)
	}
	return true
}

func (p *Pool) path(n freshet.Node) string {
	if p.opts.Dir == "" {
		return n.Socket
	}
	return filepath.Join(p.opts.Dir, filepath.Base(n.Socket))
}

// sweep closes descriptors that nobody has read by for a while.
func (p *Pool) sweep() {
	timer := p.opts.Clock.NewTimer(p.opts.Idle)
	defer timer.Stop()
	last := uint64(0) // the tick of the last sweep
	for {
		select {
		case <-p.stop:
			return
		case <-timer.C():
		}
		p.closeWhere(func(d *descriptor) bool { return d.used <= last })
		p.mu.Lock()
		last = p.tick
		p.mu.Unlock()
		timer.Reset(p.opts.Idle)
	}
}
