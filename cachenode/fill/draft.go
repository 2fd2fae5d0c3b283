package fill

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
)

// gatherFor is how long a reader in another process waits for more than the first
// byte, so that one that follows the fetch closely does not ask for each piece.
const gatherFor = 5 * time.Millisecond

// Draft is a block that another process reads, by a file of its own, while it is
// fetched for it. It counts as a reader of the fetch, and its space stays taken, until
// Close. Safe for concurrent use.
type Draft struct {
	fl     *flight
	file   *os.File
	offset int64
	close  sync.Once
}

// Draft joins the fetch of a block, or begins it, as Read would for the same request,
// and returns when the first byte that is asked for has come, with up to where they
// can be read. Another reader of the block and this one share one fetch.
// KindUnsupported: Read answers this request in another way. KindStale: the storage
// holds another version. again: the tier is having the block just now, look there.
func (f *Filler) Draft(ctx context.Context, req freshet.BlockRead) (d *Draft, have int64, again bool, err error) {
	if err := checkRange(&req); err != nil {
		return nil, 0, false, err
	}
	if req.Length == 0 || req.Cached {
		return nil, 0, false, errNotLent()
	}
	fl, ending := f.join(req, req.Offset)
	if ending {
		return nil, 0, f.awaitEnding(ctx, req.Block.ID) || ctx.Err() == nil, ctx.Err()
	}
	if fl == nil {
		return nil, 0, false, errNotLent()
	}
	d = &Draft{fl: fl}
	if have, err = fl.wait(ctx, req.Offset); err == nil {
		d.file, d.offset, err = fl.writer.Lend()
	}
	if err != nil {
		d.Close()
		return nil, 0, false, draftError(err)
	}
	return d, have, false, nil
}

func errNotLent() error {
	return freshet.Errorf(freshet.KindUnsupported, "lend block", "", "this read is answered by a stream")
}

func draftError(err error) error {
	if errors.Is(err, errNotCached) {
		return freshet.Errorf(freshet.KindUnavailable, "fetch block", "", "the tier has no room, or failed")
	}
	return wrapEnd(err)
}

// Await returns, as soon as the byte at off of the block can be read, up to where all
// can; a little later if these are less than so many. An error says why no more come:
// KindStale, that the storage holds another version.
func (d *Draft) Await(ctx context.Context, off, want int64) (have int64, err error) {
	length := d.fl.req.Block.Length
	if off < 0 || off >= length || want < 0 {
		return 0, freshet.Errorf(freshet.KindInvalid, "fetch block", "", "byte %d is outside of the block's %d", off, length)
	}
	have, err = d.fl.gather(ctx, off, off+min(want, length-off))
	if err != nil {
		return 0, draftError(err)
	}
	return have, nil
}

// gather waits for the bytes from off to end, but not long once the first one is there.
func (fl *flight) gather(ctx context.Context, off, end int64) (have int64, err error) {
	if have, err = fl.wait(ctx, off); err != nil {
		return 0, err
	}
	var late <-chan time.Time
	for have < end {
		next, more, err := fl.look(have)
		switch {
		case err != nil:
			return have, nil //nolint:nilerr // whoever asks for the next byte is told
		case more == nil:
			have = next
			continue
		case late == nil:
			timer := fl.filler.deps.Clock.NewTimer(gatherFor)
			defer timer.Stop()
			late = timer.C()
		}
		select {
		case <-more:
		case <-late:
			return have, nil
		case <-ctx.Done():
			return have, nil
		}
	}
	return have, nil
}

// File returns the descriptor to pass on, open for reading only and nobody else's.
func (d *Draft) File() *os.File { return d.file }

// Layout says where in the file the bytes are and will be. It has no checksums: nobody
// has read the bytes since they were written.
func (d *Draft) Layout() freshet.BlockLayout {
	return freshet.BlockLayout{Offset: d.offset, Length: d.fl.req.Block.Length}
}

// Origin says where the bytes come from.
func (d *Draft) Origin() freshet.Origin { return d.fl.originNow() }

// Held reports whether the fetch goes on: when it has ended, the block is lent by the
// tier, if it was cached.
func (d *Draft) Held() bool {
	d.fl.mu.Lock()
	defer d.fl.mu.Unlock()
	return !d.fl.done
}

// Sent closes the file: whoever borrows it has a copy, or never will.
func (d *Draft) Sent() {
	if d.file != nil {
		_ = d.file.Close() //nolint:errcheck // only lent
		d.file = nil
	}
}

// Close ends the loan: the borrower has closed its copy of the file. A fetch that is
// only for its readers ends with the last of them.
func (d *Draft) Close() {
	d.close.Do(func() {
		d.Sent()
		d.fl.filler.leave(d.fl, true)
	})
}
