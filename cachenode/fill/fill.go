// Package fill owns the way of a block's bytes to a reader: from the node's own
// tier, from another node that holds the block, or from the storage, with one
// fetch for a block however many ask for it. A reader of a part of a block gets it at
// once; the rest may follow in the background, which gives way to readers.
//
// It never returns bytes of two versions: blocks are named by file version, and
// the storage is read on the condition of the fingerprint. A storage that holds
// another version is KindStale, for the caller to ask the coordinator again. It
// never remembers an error, and never fails a read because of the cache: where
// a block can't be cached the reader gets it straight from its source.
package fill

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/store"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/ufs"
)

// Mounts gives the storage of a mount; *ufs.Mounts does.
type Mounts interface {
	// Get returns the storage; release is called after its last use.
	Get(id freshet.MountID) (fs ufs.FS, release func(), err error)
}

// Remote reads from the caches of other nodes.
type Remote interface {
	// ReadBlock returns the bytes that req asks for if node holds the block, else
	// KindNotExist; req.Cached is set. The stream ends with an error unless it
	// returned all of them.
	ReadBlock(ctx context.Context, node freshet.Node, req freshet.BlockRead) (freshet.BlockStream, error)
}

// Deps are what a Filler works with.
type Deps struct {
	Blocks *store.Store
	Mounts Mounts
	Remote Remote // nil: other nodes are not asked
	// AwaitMount, if not nil, waits a while for a mount that this node has not
	// heard of.
	AwaitMount func(ctx context.Context, id freshet.MountID)
	// Identity returns the cluster and its epoch, for the headers of blocks;
	// false as long as they are not known, and then nothing is cached.
	Identity func() (cluster freshet.ClusterID, epoch uint64, ok bool)
	// Self is the node that is never asked as a remote one.
	Self freshet.NodeID
	// Caching returns what of a mount's blocks is kept; nil: all that is read.
	Caching func(id freshet.MountID) ufs.Caching
	// Watch is told of what is done in the background.
	Watch Watch
	Clock clock.Clock // nil: the machine's
}

// Watch are functions that are told of background work; each may be nil.
type Watch struct {
	// Bytes is told of bytes that came although no reader waited for them.
	Bytes func(n int64)
	// Fetched is told what came of a block of which a part was read: "cached",
	// "failed", or "dropped", if there was too much else to do.
	Fetched func(result string)
}

func (w Watch) bytes(n int64) {
	if w.Bytes != nil {
		w.Bytes(n)
	}
}

func (w Watch) fetched(result string) {
	if w.Fetched != nil {
		w.Fetched(result)
	}
}

// Options are the settings of a Filler; the zero value is usable.
type Options struct {
	// MaxFills is how many blocks are fetched into the tier at the same time; a
	// read beyond that is served without caching. 0 is 64.
	MaxFills int
	// Range is how many bytes one request to a source asks for, rounded up to
	// whole chunks; Parallel is how many of them a block that readers wait for
	// takes at a time, and MaxRanges how many all blocks together take beyond one
	// each. Each costs a buffer of tier.ChunkSize. 0 is 8 MiB, 4 and 64.
	Range     int64
	Parallel  int
	MaxRanges int
	// Background is how many blocks are fetched at the same time of which only a
	// part was read, and BackgroundRate, if not 0, how many bytes come in a second
	// that no reader waits for. 0 is 4.
	Background     int
	BackgroundRate int64
	// Far is how many bytes ahead of a running fetch a reader waits for it; one
	// that wants bytes beyond them gets a fetch of its own for just its range.
	// A block that is no longer is always fetched whole. 0 is 1 MiB.
	Far int64
	// Stall is how long a fetch may go without a byte. 0 is a minute.
	Stall time.Duration
}

func (o *Options) setDefaults() {
	positive := func(n *int, otherwise int) {
		if *n <= 0 {
			*n = otherwise
		}
	}
	positive(&o.MaxFills, 64)
	positive(&o.Parallel, 4)
	positive(&o.MaxRanges, 64)
	positive(&o.Background, 4)
	if o.Range <= 0 {
		o.Range = 8 << 20
	}
	o.Range = (o.Range + tier.ChunkSize - 1) / tier.ChunkSize * tier.ChunkSize
	if o.Far <= 0 {
		o.Far = 1 << 20
	}
	if o.Stall <= 0 {
		o.Stall = time.Minute
	}
}

// Filler serves reads of blocks. It is safe for concurrent use. Without Run, and
// after it, reads are served but nothing new is cached.
type Filler struct {
	deps  Deps
	opts  Options
	pace  pacer
	extra chan struct{} // lanes beyond the one that each fetch has

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // that of Run: fetches outlive the reads that began them
	flights map[freshet.BlockID]*flight
	parts   map[freshet.BlockID][]*part
	held    int64 // bytes of parts
	rest    rest
	wg      sync.WaitGroup
}

// New returns a Filler. It starts nothing.
func New(deps Deps, opts Options) *Filler {
	opts.setDefaults()
	if deps.Clock == nil {
		deps.Clock = clock.Real{}
	}
	if deps.Caching == nil {
		deps.Caching = func(freshet.MountID) ufs.Caching { return ufs.Caching{Partial: true, Passive: true} }
	}
	return &Filler{
		deps: deps, opts: opts, pace: pacer{clock: deps.Clock, rate: opts.BackgroundRate}, extra: make(chan struct{}, opts.MaxRanges),
		flights: make(map[freshet.BlockID]*flight), parts: make(map[freshet.BlockID][]*part), rest: newRest(),
	}
}

// Run lets blocks be fetched into the tier until ctx ends, and returns when all
// fetches have ended. It may be called once.
func (f *Filler) Run(ctx context.Context) error {
	f.mu.Lock()
	f.ctx = ctx
	f.mu.Unlock()
	<-ctx.Done()
	f.mu.Lock()
	f.ctx = nil // no fetch begins after this, so Wait sees them all
	f.mu.Unlock()
	f.wg.Wait()
	return nil
}

// Read returns the bytes that req asks for. The stream ends with ctx.
// KindInvalid: they are not in the block. KindStale: the storage holds another
// version, or none.
func (f *Filler) Read(ctx context.Context, req freshet.BlockRead) (*Stream, error) {
	if err := checkRange(&req); err != nil {
		return nil, err
	}
	s := &Stream{filler: f, ctx: ctx, req: req, off: req.Offset, end: req.Offset + req.Length}
	if s.off == s.end {
		return s, nil
	}
	if err := s.open(); err != nil {
		_ = s.Close() //nolint:errcheck // it has failed already
		return nil, wrapEnd(err)
	}
	return s, nil
}

// checkRange refuses what does not lie in the block and replaces the negative
// length.
func checkRange(req *freshet.BlockRead) error {
	b := req.Block
	if b.Offset < 0 || b.Length < 0 || b.Length > freshet.MaxBlockSize || b.Offset > b.Offset+b.Length {
		return freshet.Errorf(freshet.KindInvalid, "read block", "", "a block of %d bytes at %d is impossible", b.Length, b.Offset)
	}
	if req.Offset < 0 || req.Offset > b.Length {
		return freshet.Errorf(freshet.KindInvalid, "read block", "", "offset %d is outside of the block's %d bytes", req.Offset, b.Length)
	}
	if req.Length < 0 {
		req.Length = b.Length - req.Offset
	}
	if req.Length > b.Length-req.Offset {
		return freshet.Errorf(freshet.KindInvalid, "read block", "", "%d bytes from %d are more than the block's %d", req.Length, req.Offset, b.Length)
	}
	return nil
}

// openTier opens the block in the tier; nil if it is not there or was damaged.
func (f *Filler) openTier(req freshet.BlockRead) *tier.Reader {
	cluster, epoch, ok := f.deps.Identity()
	if !ok || req.Block.ID.File == 0 {
		return nil
	}
	r, err := f.deps.Blocks.Open(req.Block.ID, tier.Want{
		Cluster: cluster, Epoch: epoch, Fingerprint: req.Source.Fingerprint, Length: req.Block.Length,
	})
	if err != nil {
		return nil // whatever it is, the bytes can be had elsewhere
	}
	return r
}

// stopped reports whether nothing more is fetched for several.
func (f *Filler) stopped() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ctx == nil
}

// named reports whether the block has a name that tells its version: only then can it
// be shared between readers.
func (f *Filler) named(req freshet.BlockRead) bool {
	_, _, known := f.deps.Identity()
	return known && req.Block.ID.File != 0 && req.Block.Length != 0 && req.Source.Fingerprint.Known()
}

// keeps returns what of the block is to be cached when it is read; nothing is
// Caching{}. What another node holds is copied only if that is wanted and allowed.
func (f *Filler) keeps(req freshet.BlockRead) (whole, part bool) {
	if req.Type == freshet.ReadNoCache || !f.named(req) {
		return false, false
	}
	c := f.deps.Caching(req.Source.Mount)
	self := slices.ContainsFunc(req.Block.Nodes, func(n freshet.Node) bool { return n.ID == f.deps.Self })
	if !self && (req.Block.Full || !c.Passive && len(f.remotes(req)) > 0) {
		return false, false
	}
	return true, c.Partial
}

// join returns the running fetch of the block, or starts one, for a reader that wants
// the bytes from off on; nil if the reader is to go on without. Who gets one leaves it
// at the end. ending says that the tier is about to have the block.
func (f *Filler) join(req freshet.BlockRead, off int64) (fl *flight, ending bool) {
	if !f.named(req) {
		return nil, false
	}
	whole, part := f.keeps(req)
	// What is the larger part of a block, or short, comes as the whole block does.
	long := req.Length == req.Block.Length || part && (req.Length >= req.Block.Length/2 || req.Block.Length <= f.opts.Far)
	f.mu.Lock()
	defer f.mu.Unlock()
	fl = f.flights[req.Block.ID]
	switch {
	case fl == nil && whole && long && len(f.flights) < f.opts.MaxFills:
		if req.Block.Length <= f.opts.Far {
			off = 0 // one request
		}
		fl = f.begin(req, off, part, true)
	case fl != nil && (!fl.serves(req) || !long && !fl.near(off, f.opts.Far)):
		return nil, false
	}
	if fl == nil || fl.ending {
		return nil, fl != nil
	}
	fl.refs++
	fl.enter(off)
	fl.widen()
	return fl, false
}

// awaitEnding waits, if the tier is about to have the block, until it does or can't,
// and reports whether it was.
func (f *Filler) awaitEnding(ctx context.Context, id freshet.BlockID) bool {
	f.mu.Lock()
	fl := f.flights[id]
	if fl == nil || !fl.ending {
		f.mu.Unlock()
		return false
	}
	fl.refs++
	f.mu.Unlock()
	_, _ = fl.wait(ctx, fl.req.Block.Length) //nolint:errcheck // the caller looks again
	f.leave(fl, false)
	return ctx.Err() == nil
}

// begin starts the fetch of a block, from off on, with mu held; nil after Run.
func (f *Filler) begin(req freshet.BlockRead, off int64, keep, soon bool) *flight {
	if f.ctx == nil {
		return nil
	}
	fl := newFlight(f, req, off)
	fl.keep = keep
	if fl.soon = soon; soon {
		fl.hurry()
	}
	f.flights[req.Block.ID] = fl
	ctx := f.ctx
	f.wg.Go(func() { fl.run(ctx) })
	return fl
}

// leave gives up one interest in a fetch, a reader's or the fetch's own; the last one
// to leave frees it.
func (f *Filler) leave(fl *flight, reader bool) {
	if reader {
		fl.exit()
	}
	f.mu.Lock()
	fl.refs--
	last := fl.refs == 0
	f.mu.Unlock()
	if last && fl.writer != nil {
		fl.writer.Close()
	}
}
