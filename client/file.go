package client

import (
	"context"
	"io"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
)

// near is what nodes on this host can do besides: they give blocks without a message
// for each read.
type near interface {
	// Near reports whether blocks of the node can be read that way.
	Near(ctx context.Context, n freshet.Node) bool
	// ReadBlockAt fills into from off of block b of src, and reports whether it could.
	ReadBlockAt(ctx context.Context, n *freshet.Node, b *freshet.Block, src *freshet.Source, into []byte, off int64) bool
}

// maxParallel bounds the requests of one vectored read that are on their way.
const maxParallel = 8

// maxGap is how many bytes between two ranges are rather read than asked for twice.
const maxGap = 64 << 10

// File is an open file for reads at any place. From the first byte that it delivered,
// and from the first call of Info, it is at one version: a change of the file is an
// error of kind stale from then on. Safe for concurrent use; it holds nothing that
// must be closed.
type File struct {
	ctx  context.Context //nolint:containedctx // io.ReaderAt has no place for it
	c    *Client
	path freshet.Path
	opts ReadOptions

	version atomic.Pointer[version]
	mu      sync.Mutex // held to change it
	pinned  atomic.Bool
}

// Range is one part of a vectored read: Into is filled from Offset of the file on.
type Range struct {
	Offset int64
	Into   []byte
}

// OpenFile finds the file and the version to read. opts.Offset and opts.Length do not
// count. ctx bounds all reads by ReadAt.
func (c *Client) OpenFile(ctx context.Context, p freshet.Path, opts ReadOptions) (*File, error) {
	f := &File{ctx: ctx, c: c, path: p, opts: opts}
	v, err := f.locate(ctx, "")
	if err != nil {
		return nil, err
	}
	f.version.Store(v)
	return f, nil
}

// Info returns the entry as of the version being read.
func (f *File) Info() freshet.Info {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pinned.Store(true)
	return f.version.Load().info
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, freshet.Errorf(freshet.KindInvalid, "read", f.path, "offset %d is negative", off)
	}
	n := 0
	err := f.read(f.ctx, func(v *version) error {
		n = int(max(0, min(int64(len(p)), v.info.Length-off)))
		return v.readRange(f.ctx, off, p[:n])
	})
	if err == nil && n < len(p) {
		err = io.EOF
	}
	if err != nil && err != io.EOF { //nolint:errorlint // made above
		n = 0
	}
	return n, err
}

// ReadRanges fills all ranges, in any order, at one version, or returns an error; then
// nothing is known of what they hold. KindInvalid: a range lies outside of the file.
func (f *File) ReadRanges(ctx context.Context, ranges []Range) error {
	return f.read(ctx, func(v *version) error {
		for _, r := range ranges {
			if r.Offset < 0 || int64(len(r.Into)) > v.info.Length-r.Offset {
				return freshet.Errorf(freshet.KindInvalid, "read", f.path, "%d bytes from %d are outside of the file's %d", len(r.Into), r.Offset, v.info.Length)
			}
		}
		return v.readRanges(ctx, ranges)
	})
}

// read calls do until all that it read is of the version that the file is at.
func (f *File) read(ctx context.Context, do func(*version) error) error {
	for try := 1; ; try++ {
		v := f.version.Load()
		err := do(v)
		switch {
		case err == nil:
			if f.pin(v) {
				return nil
			}
		case !freshet.IsKind(err, freshet.KindStale) || try == maxTries || ctx.Err() != nil:
			return err
		default:
			if err := f.renew(ctx, v); err != nil {
				return err
			}
		}
	}
}

// pin makes v the file's version for good; false if it is another already.
func (f *File) pin(v *version) bool {
	if f.pinned.Load() && f.version.Load() == v {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.version.Load() != v {
		return false
	}
	f.pinned.Store(true)
	return true
}

// renew looks at the file again after v was found to be stale.
func (f *File) renew(ctx context.Context, v *version) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.version.Load() != v {
		return nil // somebody else did
	}
	fresh, err := f.locate(ctx, v.source.Fingerprint.String())
	if err != nil {
		return err
	}
	if f.pinned.Load() && !fresh.source.Fingerprint.SameContent(v.source.Fingerprint) {
		return changed(f.path, v.source, fresh.source)
	}
	f.version.Store(fresh)
	return nil
}

func changed(p freshet.Path, was, is freshet.Source) error {
	return freshet.Errorf(freshet.KindStale, "read", p,
		"the file changed while it was read (version %s, then %s); read it again", was.Fingerprint, is.Fingerprint)
}

// shorter is changed for a version that does not reach to where the reader is.
func shorter(p freshet.Path, was freshet.Source) error {
	return freshet.Errorf(freshet.KindStale, "read", p, "the file changed while it was read (it was version %s, and is shorter now); read it again", was.Fingerprint)
}

// locate asks for the beginning of the file.
func (f *File) locate(ctx context.Context, stale string) (*version, error) {
	loc, err := f.c.Locate(ctx, f.query(0, stale))
	if err != nil {
		return nil, err
	}
	return &version{f: f, info: loc.Info, source: loc.Source, parts: [][]freshet.Block{loc.Blocks}}, nil
}

func (f *File) query(off int64, stale string) freshet.LocateQuery {
	return freshet.LocateQuery{
		Path: f.path, Offset: off, Length: window, Options: f.opts.ReadOptions,
		Host: f.c.opts.Host, Rack: f.c.opts.Rack, Zone: f.c.opts.Zone, StaleFingerprint: stale,
	}
}

// version is one version of a file, with where its blocks are as far as was asked.
type version struct {
	f      *File
	info   freshet.Info
	source freshet.Source

	mu    sync.RWMutex
	parts [][]freshet.Block // each in order and without gaps; the first one that has a place counts

	holders map[freshet.BlockID]freshet.Node // what was seen of blocks; see note
}

// maxParts bounds what is remembered of where blocks are.
const maxParts = 64

// find returns the block at off, if it is known.
func (v *version) find(off int64) (*freshet.Block, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, blocks := range v.parts {
		i := sort.Search(len(blocks), func(i int) bool { return blocks[i].Offset+blocks[i].Length > off })
		if i < len(blocks) && blocks[i].Offset <= off {
			return &blocks[i], true
		}
	}
	return nil, false
}

// look asks where the blocks from off on are; again says that an answer of before did
// not hold, so that it may not be given once more.
func (v *version) look(ctx context.Context, off int64, again bool) error {
	q := v.f.query(off, "")
	q.Again = again
	loc, err := v.f.c.Locate(ctx, q)
	if freshet.IsKind(err, freshet.KindInvalid) {
		return shorter(v.f.path, v.source)
	}
	if err != nil {
		return err
	}
	if !loc.Source.Fingerprint.SameContent(v.source.Fingerprint) {
		return changed(v.f.path, v.source, loc.Source)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.parts = slices.Insert(v.parts, 0, loc.Blocks)
	v.parts = v.parts[:min(len(v.parts), maxParts)]
	return nil
}

// readRange fills p, which lies in the file, from off on.
func (v *version) readRange(ctx context.Context, off int64, p []byte) error {
	for len(p) > 0 {
		n, err := v.readBlock(ctx, off, p)
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// readBlock fills what the block at off has of p.
func (v *version) readBlock(ctx context.Context, off int64, p []byte) (int, error) {
	for fails := 1; ; fails++ {
		b, ok := v.find(off)
		if !ok {
			if err := v.look(ctx, off, false); err != nil {
				return 0, err
			}
			if b, ok = v.find(off); !ok {
				return 0, freshet.Errorf(freshet.KindInternal, "read", v.f.path, "the answer of the coordinator does not cover byte %d", off)
			}
		}
		n := int(min(int64(len(p)), b.Offset+b.Length-off))
		if v.readNear(ctx, b, off, p[:n]) {
			return n, nil
		}
		err := v.readFar(ctx, b, off, p[:n])
		if err == nil {
			return n, nil
		}
		if !mayMend(err) || fails >= maxTries || !pause(ctx, fails) {
			return 0, err
		}
		if err := v.look(ctx, off, true); err != nil {
			return 0, err
		}
	}
}

// mayMend reports whether another look at where the blocks are may mend err. What is
// stale is not of this version.
func mayMend(err error) bool {
	return freshet.IsKind(err, freshet.KindUnavailable, freshet.KindExhausted, freshet.KindNotExist, freshet.KindCorrupt)
}

func (v *version) request(b *freshet.Block, off, n int64) freshet.BlockRead {
	return freshet.BlockRead{Block: *b, Source: v.source, Offset: off - b.Offset, Length: n, Type: v.f.opts.Read}
}

// readNear reads from a node of this host, if there is one with the block.
func (v *version) readNear(ctx context.Context, b *freshet.Block, off int64, p []byte) bool {
	at := v.f.c.near
	if at == nil {
		return false
	}
	known := false
	for i := range b.Nodes {
		n := &b.Nodes[i]
		known = known || n.ID == b.Fetch.ID
		if n.Socket != "" && at.ReadBlockAt(ctx, n, b, &v.source, p, off-b.Offset) {
			return true
		}
	}
	return !known && b.Fetch.Socket != "" && at.ReadBlockAt(ctx, &b.Fetch, b, &v.source, p, off-b.Offset)
}

// readFar reads from a node that holds the block, else by a stream from the first node
// that has one.
func (v *version) readFar(ctx context.Context, b *freshet.Block, off int64, p []byte) error {
	if v.readShared(ctx, b, off, p) {
		return nil
	}
	last := freshet.Errorf(freshet.KindUnavailable, "read", v.f.path, "no cache node is live")
	for _, n := range v.f.c.candidates(ctx, *b) {
		err := v.readStream(ctx, n, b, off, p)
		if err == nil {
			return nil
		}
		if last = err; !freshet.IsKind(err, freshet.KindStale) && ctx.Err() == nil {
			continue
		}
		return last
	}
	return last
}

// piece is a part of a vectored read that lies in one block.
type piece struct {
	off  int64
	into []byte
}

// readRanges reads what it can from this host, and the rest by few requests at once.
func (v *version) readRanges(ctx context.Context, ranges []Range) error {
	var rest []piece
	for _, r := range ranges {
		off, p := r.Offset, r.Into
		for len(p) > 0 {
			b, ok := v.find(off)
			if !ok {
				if err := v.look(ctx, off, false); err != nil {
					return err
				}
				if b, ok = v.find(off); !ok {
					return freshet.Errorf(freshet.KindInternal, "read", v.f.path, "the answer of the coordinator does not cover byte %d", off)
				}
			}
			n := min(int64(len(p)), b.Offset+b.Length-off)
			if !v.readNear(ctx, b, off, p[:n]) {
				rest = append(rest, piece{off, p[:n]})
			}
			p, off = p[n:], off+n
		}
	}
	if len(rest) > 1 {
		rest = v.readTogether(ctx, rest)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxParallel)
	for _, run := range v.runs(rest) {
		group.Go(func() error { return v.readRun(ctx, run) })
	}
	return group.Wait()
}

// runs puts pieces of one block together that lie close to each other.
func (v *version) runs(pieces []piece) (runs [][]piece) {
	slices.SortStableFunc(pieces, func(a, b piece) int { return int(max(-1, min(1, a.off-b.off))) })
	for i, p := range pieces {
		if i > 0 {
			last := &runs[len(runs)-1]
			end := (*last)[len(*last)-1]
			gap := p.off - end.off - int64(len(end.into))
			b, ok := v.find(end.off)
			if ok && gap >= 0 && gap <= maxGap && p.off < b.Offset+b.Length {
				*last = append(*last, p)
				continue
			}
		}
		runs = append(runs, []piece{p})
	}
	return runs
}

// readRun reads pieces of one block by one request.
func (v *version) readRun(ctx context.Context, run []piece) error {
	if len(run) == 1 {
		return v.readRange(ctx, run[0].off, run[0].into)
	}
	first, last := run[0].off, run[len(run)-1]
	all := make([]byte, last.off+int64(len(last.into))-first)
	if err := v.readRange(ctx, first, all); err != nil {
		return err
	}
	for _, p := range run {
		copy(p.into, all[p.off-first:])
	}
	return nil
}
