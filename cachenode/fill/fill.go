// Package fill owns the way of a block's bytes to a reader: from the node's own
// tier, from another node that holds the block, or from the storage, with one
// fetch for a block however many ask for it.
//
// It never returns bytes of two versions: blocks are named by file version, and
// the storage is read on the condition of the fingerprint. A storage that holds
// another version is KindStale, for the caller to ask the coordinator again. It
// never remembers an error, and never fails a read because of the cache: where
// a block can't be cached the reader gets it straight from its source.
package fill

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/store"
	"github.com/freshet-io/freshet/cachenode/tier"
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
}

// Options are the settings of a Filler; the zero value is usable.
type Options struct {
	// MaxFills is how many blocks are fetched into the tier at the same time; a
	// read beyond that is served without caching. 0 is 64.
	MaxFills int
	// Far is how many bytes ahead of a running fetch a reader waits for it; one
	// that wants bytes beyond them gets a fetch of its own for just its range.
	// 0 is 1 MiB.
	Far int64
	// Stall is how long a fetch may go without a byte. 0 is a minute.
	Stall time.Duration
}

// maxRemotes is how many other nodes are asked before the storage is.
const maxRemotes = 2

// Filler serves reads of blocks. It is safe for concurrent use. Without Run, and
// after it, reads are served but nothing new is cached.
type Filler struct {
	deps Deps
	opts Options

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // that of Run: fetches outlive the reads that began them
	flights map[freshet.BlockID]*flight
	wg      sync.WaitGroup
}

// New returns a Filler. It starts nothing.
func New(deps Deps, opts Options) *Filler {
	if opts.MaxFills <= 0 {
		opts.MaxFills = 64
	}
	if opts.Far <= 0 {
		opts.Far = 1 << 20
	}
	if opts.Stall <= 0 {
		opts.Stall = time.Minute
	}
	return &Filler{deps: deps, opts: opts, flights: make(map[freshet.BlockID]*flight)}
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

// join returns the running fetch of the block, or starts one; nil if the block
// can't or shall not be cached. The caller leaves it at the end.
func (f *Filler) join(req freshet.BlockRead) *flight {
	_, _, known := f.deps.Identity()
	if !known || req.Block.ID.File == 0 || req.Block.Length == 0 || !req.Source.Fingerprint.Known() {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.flights[req.Block.ID]; fl != nil {
		if !fl.serves(req) {
			return nil
		}
		fl.refs++
		return fl
	}
	if f.ctx == nil || req.Type == freshet.ReadNoCache || len(f.flights) >= f.opts.MaxFills {
		return nil
	}
	fl := newFlight(f, req)
	f.flights[req.Block.ID] = fl
	ctx := f.ctx
	f.wg.Go(func() { fl.run(ctx) })
	return fl
}

// leave gives up one interest in a fetch; the last one to leave frees it.
func (f *Filler) leave(fl *flight) {
	f.mu.Lock()
	fl.refs--
	last := fl.refs == 0
	f.mu.Unlock()
	if last && fl.writer != nil {
		fl.writer.Close()
	}
}

// remotes returns the other nodes to ask for the block, the best first.
func (f *Filler) remotes(req freshet.BlockRead) []freshet.Node {
	if f.deps.Remote == nil || req.Block.ID.File == 0 || !req.Source.Fingerprint.Known() {
		return nil
	}
	var nodes []freshet.Node
	for _, n := range req.Block.Nodes {
		if n.ID != f.deps.Self && len(nodes) < maxRemotes {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// openRemote opens n bytes from off of the block at another node.
func (f *Filler) openRemote(ctx context.Context, node freshet.Node, req freshet.BlockRead, r span) (io.ReadCloser, error) {
	req.Offset, req.Length, req.Cached = r.off, r.n, true
	rc, err := f.deps.Remote.ReadBlock(ctx, node, req)
	if err != nil {
		return nil, freshet.Wrap("read block from another node", "", err)
	}
	return &exact{body: rc, left: r.n}, nil
}

// openUFS opens n bytes from off of the block in the storage.
func (f *Filler) openUFS(ctx context.Context, req freshet.BlockRead, r span) (io.ReadCloser, error) {
	const op = "read block from storage"
	if req.Source.Fingerprint.IsUnpersisted() {
		return nil, freshet.Errorf(freshet.KindStale, op, "", "the version that was located is in no storage, and this node does not hold the block")
	}
	fs, release, err := f.deps.Mounts.Get(req.Source.Mount)
	if freshet.IsKind(err, freshet.KindNotExist) && f.deps.AwaitMount != nil {
		f.deps.AwaitMount(ctx, req.Source.Mount)
		fs, release, err = f.deps.Mounts.Get(req.Source.Mount)
	}
	if freshet.IsKind(err, freshet.KindNotExist) {
		// Not "the file does not exist": this node has not heard of the mount.
		return nil, freshet.Errorf(freshet.KindUnavailable, op, "", "this node does not have the mount yet: %w", err)
	}
	if err != nil {
		return nil, freshet.Wrap(op, "", err)
	}
	want := req.Source.Fingerprint
	rc, st, err := fs.Open(ctx, req.Source.Key, ufs.OpenOptions{Want: want, Offset: req.Block.Offset + r.off, Length: r.n})
	if err == nil && want.Known() && st.Fingerprint.Known() && !st.Fingerprint.SameContent(want) {
		_ = rc.Close() //nolint:errcheck // nothing of it was used
		err = freshet.Errorf(freshet.KindStale, op, "", "the storage holds another version")
	}
	if err != nil {
		release()
		// That the file is gone, or shorter than the version that was located,
		// means that there is a newer truth to be asked for.
		if freshet.IsKind(err, freshet.KindNotExist, freshet.KindInvalid) {
			return nil, freshet.Errorf(freshet.KindStale, op, "", "%w", err)
		}
		return nil, freshet.Wrap(op, "", err)
	}
	return &exact{body: rc, left: r.n, release: release}, nil
}

// span is a range of a block in bytes.
type span struct{ off, n int64 }

// exact ends after the bytes that were asked for. A body that ends early is of
// another version than the one that was located.
type exact struct {
	body    io.ReadCloser
	left    int64
	release func()
}

func (e *exact) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > e.left {
		p = p[:e.left]
	}
	n, err := e.body.Read(p)
	e.left -= int64(n)
	switch {
	case err == io.EOF && e.left > 0: //nolint:errorlint // io.Reader promises io.EOF itself
		return n, freshet.Errorf(freshet.KindStale, "read block", "", "the source ended %d bytes early", e.left)
	case err == io.EOF: //nolint:errorlint // as above
		return n, nil
	}
	return n, freshet.Wrap("read block", "", err)
}

func (e *exact) Close() error {
	err := e.body.Close()
	if e.release != nil {
		e.release()
	}
	return err
}
