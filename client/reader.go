package client

import (
	"context"
	"errors"
	"io"
	"math"
	"time"

	"github.com/freshet-io/freshet"
)

// window is how much of a file one Locate covers: enough to make the question
// rare, little enough to keep the answer small.
const window = 4 << 30

// maxTries bounds how often in a row the bytes at one place are asked for; the
// pauses between the tries, together seven seconds, give the cluster the time to
// notice that a node is gone: five seconds.
const maxTries = 10

const firstPause, maxPause = 50 * time.Millisecond, 2 * time.Second

// Reader is an open file. From the first byte that it delivered, and from the
// first call of Info, Location or Range, it is at one version: a change of the
// file is an error of kind stale from then on. Not safe for concurrent use.
type Reader struct {
	ctx    context.Context //nolint:containedctx // io.Reader has no place for it
	c      *Client
	path   freshet.Path
	opts   ReadOptions
	loc    freshet.Location
	pos    int64 // next byte to deliver, offset in the file
	end    int64
	next   int // index into loc.Blocks
	body   freshet.BlockStream
	left   int64 // bytes that body still owes
	from   string
	pinned bool // the version is known to the caller
	fails  int  // since the last byte
	ahead  readAhead
}

// Open finds the file and the version to read. Bytes flow when Read is called;
// ctx bounds them all.
func (c *Client) Open(ctx context.Context, p freshet.Path, opts ReadOptions) (*Reader, error) {
	if opts.Offset < 0 {
		return nil, freshet.Errorf(freshet.KindInvalid, "read", p, "offset %d is negative", opts.Offset)
	}
	if opts.Length > math.MaxInt64-opts.Offset {
		opts.Length = -1
	}
	r := &Reader{ctx: ctx, c: c, path: p, opts: opts, pos: opts.Offset}
	if err := r.locate(opts.Offset, ""); err != nil {
		return nil, err
	}
	return r, nil
}

// Info returns the entry as of the version being read.
func (r *Reader) Info() freshet.Info { return r.Location().Info }

// Location returns the answer that the bytes are read by.
func (r *Reader) Location() freshet.Location {
	r.pinned = true
	return r.loc
}

// Range returns the first byte of the range and the one after its last.
func (r *Reader) Range() (start, end int64) {
	r.pinned = true
	return r.opts.Offset, r.end
}

// From says where the first block came from: "hit", "remote" or "ufs"; "" before
// the first Read.
func (r *Reader) From() string { return r.from }

// Prime asks for the first block, so that From and errors of the first byte are
// known before an answer is begun.
func (r *Reader) Prime() error {
	if r.body != nil || r.pos >= r.end {
		return nil
	}
	return r.openBlock()
}

func (r *Reader) locate(off int64, stale string) error {
	n := int64(window)
	if want := r.opts.Length; want >= 0 {
		n = min(n, r.opts.Offset+want-off)
	}
	loc, err := r.c.Locate(r.ctx, freshet.LocateQuery{
		Path: r.path, Offset: off, Length: n, Options: r.opts.ReadOptions, Host: r.c.opts.Host,
		Rack: r.c.opts.Rack, Zone: r.c.opts.Zone, StaleFingerprint: stale,
		Again: r.fails > 0,
	})
	if r.pinned && freshet.IsKind(err, freshet.KindInvalid) {
		return shorter(r.path, r.loc.Source)
	}
	if err != nil {
		return err
	}
	if r.pinned && !loc.Source.Fingerprint.SameContent(r.loc.Source.Fingerprint) {
		return changed(r.path, r.loc.Source, loc.Source)
	}
	r.loc, r.next = loc, 0
	r.end = loc.Info.Length
	if want := r.opts.Length; want >= 0 && r.opts.Offset+want < r.end {
		r.end = r.opts.Offset + want
	}
	return nil
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	for {
		if r.pos >= r.end {
			return 0, io.EOF
		}
		if r.body == nil {
			if err := r.openBlock(); err != nil {
				return 0, err
			}
			continue // the file may end before r.pos now
		}
		n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
		r.advance(int64(n))
		switch {
		case n > 0:
			return n, nil
		case err != nil:
			if err := r.recover(err); err != nil {
				return 0, err
			}
		}
	}
}

// WriteTo implements io.WriterTo: chunks go from the source to w, past this
// process where the system can do that.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	to := &sink{Writer: w}
	for r.pos < r.end {
		if r.body == nil {
			if err := r.openBlock(); err != nil {
				return total, err
			}
			continue // the file may end before r.pos now
		}
		n, err := to.take(r.body, r.left)
		total += n
		short := n < r.left
		r.advance(n)
		switch {
		case to.err != nil:
			return total, to.err // the writer's own: no other node would help
		case err == nil && !short:
			continue
		case err == nil:
			err = io.EOF
		}
		if err := r.recover(err); err != nil {
			return total, err
		}
	}
	return total, nil
}

func (r *Reader) advance(n int64) {
	r.pos += n
	r.left -= n
	if n > 0 {
		r.pinned, r.fails = true, 0
		r.lookAhead(n)
	}
	if r.left <= 0 && r.body != nil {
		_ = r.body.Close() // read only
		r.body = nil
	}
}

// recover drops the body after it failed at r.pos; the next openBlock asks again
// from there. An early end is a failure too.
func (r *Reader) recover(err error) error {
	if r.body != nil {
		_ = r.body.Close() // read only
		r.body = nil
	}
	if r.left <= 0 {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = freshet.Errorf(freshet.KindUnavailable, "read", r.path, "%d bytes are missing: %w", r.left, io.ErrUnexpectedEOF)
	}
	return r.retry(err)
}

// openBlock opens the block at r.pos on the best node that answers.
func (r *Reader) openBlock() error {
	for {
		b, ok := r.blockAt(r.pos)
		if !ok {
			if err := r.locate(r.pos, ""); err != nil {
				return err
			}
			if r.pos >= r.end {
				return nil // another version, which is shorter; nothing was said of this one
			}
			if b, ok = r.blockAt(r.pos); !ok {
				return freshet.Errorf(freshet.KindInternal, "read", r.path, "the answer of the coordinator does not cover byte %d", r.pos)
			}
		}
		err := r.openOn(b)
		if err == nil {
			return nil
		}
		if err := r.retry(err); err != nil {
			return err
		}
		if r.pos >= r.end {
			return nil // as above
		}
	}
}

// retry looks at the file again after err, if that may mend it, and returns the
// error that ends the read otherwise.
func (r *Reader) retry(err error) error {
	r.fails++
	if r.fails >= maxTries || r.ctx.Err() != nil {
		return err
	}
	stale := ""
	switch freshet.KindOf(err) { //nolint:exhaustive // another look mends no other
	case freshet.KindStale:
		stale = r.loc.Source.Fingerprint.String()
	case freshet.KindUnavailable, freshet.KindExhausted, freshet.KindNotExist, freshet.KindCorrupt:
		if !pause(r.ctx, r.fails) {
			return err
		}
	default:
		return err
	}
	return r.locate(r.pos, stale)
}

// pause waits before a further try after so many that failed; the first one follows
// at once. It returns false if the read ended meanwhile.
func pause(ctx context.Context, fails int) bool {
	if fails < 2 {
		return true
	}
	t := time.NewTimer(min(firstPause<<(fails-2), maxPause))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *Reader) blockAt(off int64) (freshet.Block, bool) {
	for ; r.next < len(r.loc.Blocks); r.next++ {
		b := r.loc.Blocks[r.next]
		if off < b.Offset {
			break
		}
		if off < b.Offset+b.Length {
			return b, true
		}
	}
	return freshet.Block{}, false
}

func (r *Reader) openOn(b freshet.Block) error {
	candidates := r.c.candidates(r.ctx, b)
	if b.Via.ID != "" && r.opts.Read != freshet.ReadNoCache {
		candidates = append([]freshet.Node{b.Via}, candidates...)
	}
	if len(candidates) == 0 {
		return freshet.Errorf(freshet.KindUnavailable, "read", r.path, "no cache node is live")
	}
	skip := r.pos - b.Offset
	n := min(b.Length-skip, r.end-r.pos)
	var last error
	for _, node := range candidates {
		body, err := r.c.nodes.ReadBlock(r.ctx, node, freshet.BlockRead{
			Block: b, Source: r.loc.Source, Offset: skip, Length: n, Type: r.opts.Read,
		})
		if err == nil {
			r.body, r.left = body, n
			if r.from == "" {
				r.from = body.Origin().String()
			}
			return nil
		}
		last = err
		if freshet.IsKind(err, freshet.KindStale) {
			break
		}
	}
	return last
}

// Close frees what the reader holds.
func (r *Reader) Close() error {
	r.stopAhead()
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.body = nil
	return err
}

// Narrow restricts a reader, of which nothing was read yet, to n bytes from off;
// both are not negative.
func (r *Reader) Narrow(off, n int64) {
	n = min(n, max(r.loc.Info.Length-off, 0))
	r.opts.Offset, r.opts.Length = off, n
	r.pos, r.end, r.next = off, off+n, 0
}
