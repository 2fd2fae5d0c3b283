package fill

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// maxRemotes is how many other nodes are asked before the storage is.
const maxRemotes = 2

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
		// Not stale: that it was persisted or replaced meanwhile, the next look shows.
		return nil, freshet.Errorf(freshet.KindUnavailable, op, "",
			"the file was not in the storage yet when it was located, and the block can't be read from the nodes that keep it: look at their logs and disks")
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

// errStalled is why a source was given up.
var errStalled = errors.New("the source gave no byte")

// watched is a body that is given up when it gives no byte for too long.
type watched struct {
	io.ReadCloser
	ctx    context.Context //nolint:containedctx // that of the body
	cancel context.CancelCauseFunc
	watch  *time.Timer
	stall  time.Duration
}

// openWatched opens a body that is given up, with KindUnavailable, when it does not
// come, or gives no byte, for as long as a source may stall.
func (f *Filler) openWatched(ctx context.Context, open func(context.Context) (io.ReadCloser, error)) (*watched, error) {
	w := &watched{stall: f.opts.Stall}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.watch = time.AfterFunc(w.stall, func() {
		w.cancel(freshet.Errorf(freshet.KindUnavailable, "read block", "", "%w for %s", errStalled, w.stall))
	})
	var err error
	if w.ReadCloser, err = open(w.ctx); err != nil {
		err = w.causeOf(err)
		w.end()
		return nil, err
	}
	return w, nil
}

func (w *watched) Read(p []byte) (int, error) {
	w.watch.Reset(w.stall)
	n, err := w.ReadCloser.Read(p)
	w.watch.Stop()
	return n, w.causeOf(err)
}

// stalled reports whether the body was given up.
func (w *watched) stalled() bool {
	var e *freshet.Error
	return errors.As(context.Cause(w.ctx), &e)
}

// causeOf returns why the body was given up, if that is what err is about.
func (w *watched) causeOf(err error) error {
	if err != nil && w.stalled() {
		return context.Cause(w.ctx)
	}
	return err
}

func (w *watched) Close() error {
	err := w.ReadCloser.Close()
	w.end()
	return err
}

func (w *watched) end() {
	w.watch.Stop()
	w.cancel(nil)
}
