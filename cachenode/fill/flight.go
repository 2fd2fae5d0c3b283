package fill

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
)

// errNotCached ends a fetch for a reason that lies in the cache, not in the
// source: readers go on without it.
var errNotCached = errors.New("the block can't be cached")

const (
	copyBuffer = 256 << 10
	minPiece   = 64 << 10
)

// flight is one fetch of a block into the tier, from which any number of readers
// take the bytes as they arrive.
type flight struct {
	filler *Filler
	req    freshet.BlockRead // Block and Source count
	refs   int               // guarded by the filler's mu; the fetch itself has one

	mu     sync.Mutex
	writer *tier.Writer
	have   int64 // bytes that can be read
	done   bool
	err    error
	origin freshet.Origin
	more   chan struct{} // closed when any of the above changes
}

// newFlight returns a flight with two references: the fetch's and the caller's.
func newFlight(f *Filler, req freshet.BlockRead) *flight {
	return &flight{filler: f, req: req, refs: 2, origin: freshet.OriginUFS, more: make(chan struct{})}
}

// serves reports whether the flight brings the bytes that req means: the same
// file version, which an ID that was used again after a restore is not.
func (fl *flight) serves(req freshet.BlockRead) bool {
	return fl.req.Block.Length == req.Block.Length && fl.req.Source.Fingerprint.SameContent(req.Source.Fingerprint)
}

// run fetches the block. It ends with the block in the tier or nothing.
func (fl *flight) run(ctx context.Context) {
	f := fl.filler
	err := fl.fetch(ctx)
	if err != nil && ctx.Err() != nil {
		err = errNotCached // the node is stopping; that is not the source's fault
	}
	f.mu.Lock()
	delete(f.flights, fl.req.Block.ID)
	f.mu.Unlock()
	fl.update(func() { fl.done, fl.err = true, err })
	f.leave(fl)
}

func (fl *flight) update(change func()) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	change()
	close(fl.more)
	fl.more = make(chan struct{})
}

func (fl *flight) fetch(ctx context.Context) error {
	f, block := fl.filler, fl.req.Block
	w, err := f.deps.Blocks.Create(block.ID, block.Length)
	if err != nil {
		return errNotCached
	}
	fl.update(func() { fl.writer = w })
	if err := fl.fetchFromAny(ctx); err != nil {
		return err
	}
	cluster, epoch, _ := f.deps.Identity()
	// A failure here costs the readers nothing: they have all the bytes.
	_ = w.Commit(tier.Meta{Cluster: cluster, Epoch: epoch, Fingerprint: fl.req.Source.Fingerprint}) //nolint:errcheck // see above
	return nil
}

// fetchFromAny takes the bytes from the first source that has them, and goes on
// with the next where one fails: they are the same bytes everywhere.
func (fl *flight) fetchFromAny(ctx context.Context) error {
	f := fl.filler
	for _, node := range f.remotes(fl.req) {
		err := fl.fetchFrom(ctx, freshet.OriginRemote, func(ctx context.Context, r span) (io.ReadCloser, error) {
			return f.openRemote(ctx, node, fl.req, r)
		})
		if err == nil || errors.Is(err, errNotCached) || ctx.Err() != nil {
			return err
		}
	}
	return fl.fetchFrom(ctx, freshet.OriginUFS, func(ctx context.Context, r span) (io.ReadCloser, error) {
		return f.openUFS(ctx, fl.req, r)
	})
}

func (fl *flight) fetchFrom(ctx context.Context, origin freshet.Origin, open func(context.Context, span) (io.ReadCloser, error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := fl.filler.opts.Stall
	watch := time.AfterFunc(stall, func() {
		cancel(freshet.Errorf(freshet.KindUnavailable, "read block", "", "the source gave no byte for %s", stall))
	})
	defer watch.Stop()
	rc, err := open(ctx, span{fl.have, fl.req.Block.Length - fl.have})
	if err != nil {
		return causeOf(ctx, err)
	}
	defer func() { _ = rc.Close() }() //nolint:errcheck // only read from
	body := alive{rc, func() { watch.Reset(stall) }}
	fl.update(func() { fl.origin = origin })
	buf := make([]byte, min(copyBuffer, fl.req.Block.Length))
	for fl.have < fl.req.Block.Length {
		left := fl.req.Block.Length - fl.have
		n, err := io.ReadAtLeast(body, buf[:min(left, int64(len(buf)))], int(min(left, minPiece)))
		if n > 0 {
			if _, err := fl.writer.Write(buf[:n]); err != nil {
				return errNotCached
			}
			fl.update(func() { fl.have += int64(n) })
		}
		if err != nil {
			return causeOf(ctx, err)
		}
	}
	return nil
}

// alive tells of each byte that comes.
type alive struct {
	io.Reader
	beat func()
}

func (a alive) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if n > 0 {
		a.beat()
	}
	return n, err
}

// causeOf returns why ctx ended, if that is what err is about.
func causeOf(ctx context.Context, err error) error {
	var e *freshet.Error
	if cause := context.Cause(ctx); errors.As(cause, &e) {
		return cause
	}
	return err
}

// ahead reports whether off is too far ahead of the fetch to wait for it.
func (fl *flight) ahead(off int64) bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return off > fl.have+fl.filler.opts.Far
}

// wait returns how many bytes there are as soon as they are more than off.
func (fl *flight) wait(ctx context.Context, off int64) (int64, error) {
	for {
		fl.mu.Lock()
		have, done, err, more := fl.have, fl.done, fl.err, fl.more
		fl.mu.Unlock()
		switch {
		case off < have:
			return have, nil
		case done && err == nil:
			return 0, io.EOF
		case done:
			return 0, err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (fl *flight) from() freshet.Origin {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.origin
}
