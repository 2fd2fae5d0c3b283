// Package fault owns an ufs.FS that goes wrong on purpose, for tests: rules say
// which calls fail, wait or lie about their outcome. It never invents data.
package fault

import (
	"context"
	"io"
	"iter"
	"strings"
	"sync"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

// Op names a call that a rule can be about.
type Op string

// The calls. OpAny is every one of them.
const (
	OpAny     Op = ""
	OpStat    Op = "stat"
	OpList    Op = "list" // before each entry, and before the first
	OpOpen    Op = "open"
	OpRead    Op = "read" // each Read of an open file
	OpCreate  Op = "create"
	OpWrite   Op = "write"
	OpCommit  Op = "commit"
	OpAbort   Op = "abort" // of a Writer
	OpMkdir   Op = "mkdir"
	OpRename  Op = "rename" // by the key it moves from
	OpRemove  Op = "remove"
	OpSetAttr Op = "setattr"
	OpAbortUp Op = "abort-upload"
)

// Rule says what happens to the calls that it fits. The first rule that fits a
// call applies.
type Rule struct {
	Op     Op
	Prefix string // of the key; "" fits all
	// Skip lets that many fitting calls pass first; Times ends the rule after
	// that many more, 0 never.
	Skip, Times int
	// Gate, if not nil, is waited for before the call, or until its ctx ends:
	// then the error is the context's and the call does not happen. Entered, if
	// not nil, is sent to (or skipped if nobody can take it) when a call comes
	// to the gate.
	Gate    <-chan struct{}
	Entered chan<- struct{}
	// Err, if not nil, is the result instead of the call's.
	Err error
	// Uncertain makes the call happen although Err is returned.
	Uncertain bool
	// Late makes the call happen when the channel is closed or sent to, after
	// Err was returned: an effect that lands when nobody waits for it any more.
	// It is for OpCommit, OpRemove, OpMkdir, OpRename and OpSetAttr. Wait waits
	// for it.
	Late <-chan struct{}
}

// FS is an ufs.FS that follows rules. It is safe for concurrent use.
type FS struct {
	inner ufs.FS

	mu    sync.Mutex
	rules []*active
	late  sync.WaitGroup
}

type active struct {
	Rule
	seen int
}

var _ ufs.FS = (*FS)(nil)

// New returns inner with no rules.
func New(inner ufs.FS) *FS { return &FS{inner: inner} }

// Unwrap returns the FS below.
func (f *FS) Unwrap() ufs.FS { return f.inner }

// Add adds a rule behind those that are there and returns what takes it away.
func (f *FS) Add(r Rule) (remove func()) {
	a := &active{Rule: r}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, a)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for i, other := range f.rules {
			if other == a {
				f.rules = append(f.rules[:i:i], f.rules[i+1:]...)
				return
			}
		}
	}
}

// Clear takes all rules away.
func (f *FS) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
}

// Wait waits until all late effects have landed.
func (f *FS) Wait() { f.late.Wait() }

// match returns the rule for a call, nil if none fits.
func (f *FS) match(op Op, key string) *Rule {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.rules {
		if (a.Op != OpAny && a.Op != op) || !strings.HasPrefix(key, a.Prefix) {
			continue
		}
		a.seen++
		if a.seen <= a.Skip || (a.Times > 0 && a.seen > a.Skip+a.Times) {
			continue
		}
		return &a.Rule
	}
	return nil
}

// do makes a call under the rules. Effect gets the context of the caller, or one
// that does not end if it is late.
func (f *FS) do(ctx context.Context, op Op, key string, effect func(context.Context) error) error {
	r := f.match(op, key)
	if r == nil {
		return effect(ctx)
	}
	if r.Gate != nil {
		select {
		case r.Entered <- struct{}{}:
		default:
		}
		select {
		case <-r.Gate:
		case <-ctx.Done():
			return ufs.ContextError(ctx, string(op), key)
		}
	}
	if r.Err == nil {
		return effect(ctx)
	}
	switch {
	case r.Late != nil:
		f.late.Go(func() {
			<-r.Late
			_ = effect(context.WithoutCancel(ctx)) // nobody hears of a late effect: that is the point
		})
	case r.Uncertain:
		_ = effect(ctx) // the caller is told Err, whatever happened
	}
	return freshet.Wrap(string(op), freshet.Path(key), r.Err)
}

// Features implements ufs.FS.
func (f *FS) Features() ufs.Features { return f.inner.Features() }

// Close waits for late effects and closes the FS below.
func (f *FS) Close() error {
	f.Wait()
	return f.inner.Close()
}

// status makes a call with a status.
func (f *FS) status(ctx context.Context, op Op, key string, call func(context.Context) (ufs.Status, error)) (ufs.Status, error) {
	var st ufs.Status
	var mu sync.Mutex // a late effect must not write the caller's result
	returned := false
	err := f.do(ctx, op, key, func(ctx context.Context) error {
		got, err := call(ctx)
		mu.Lock()
		defer mu.Unlock()
		if !returned {
			st = got
		}
		return err
	})
	mu.Lock()
	defer mu.Unlock()
	returned = true
	if err != nil {
		return ufs.Status{}, err
	}
	return st, nil
}

// Stat implements ufs.FS.
func (f *FS) Stat(ctx context.Context, key string) (ufs.Status, error) {
	return f.status(ctx, OpStat, key, func(ctx context.Context) (ufs.Status, error) { return f.inner.Stat(ctx, key) })
}

// Mkdir implements ufs.FS.
func (f *FS) Mkdir(ctx context.Context, key string, opts ufs.MkdirOptions) (ufs.Status, error) {
	return f.status(ctx, OpMkdir, key, func(ctx context.Context) (ufs.Status, error) { return f.inner.Mkdir(ctx, key, opts) })
}

// Rename implements ufs.FS.
func (f *FS) Rename(ctx context.Context, from, to string) (ufs.Status, error) {
	return f.status(ctx, OpRename, from, func(ctx context.Context) (ufs.Status, error) { return f.inner.Rename(ctx, from, to) })
}

// SetAttr implements ufs.FS.
func (f *FS) SetAttr(ctx context.Context, key string, attr ufs.Attr) (ufs.Status, error) {
	return f.status(ctx, OpSetAttr, key, func(ctx context.Context) (ufs.Status, error) { return f.inner.SetAttr(ctx, key, attr) })
}

// Remove implements ufs.FS.
func (f *FS) Remove(ctx context.Context, key string, opts ufs.RemoveOptions) error {
	return f.do(ctx, OpRemove, key, func(ctx context.Context) error { return f.inner.Remove(ctx, key, opts) })
}

// AbortUpload implements ufs.FS.
func (f *FS) AbortUpload(ctx context.Context, key string, id freshet.OpID) (ended bool, err error) {
	err = f.do(ctx, OpAbortUp, key, func(ctx context.Context) (err error) {
		ended, err = f.inner.AbortUpload(ctx, key, id)
		return err
	})
	return ended && err == nil, err
}

// List implements ufs.FS.
func (f *FS) List(ctx context.Context, dir string, opts ufs.ListOptions) iter.Seq2[ufs.Status, error] {
	nothing := func(context.Context) error { return nil }
	return func(yield func(ufs.Status, error) bool) {
		if err := f.do(ctx, OpList, dir, nothing); err != nil {
			yield(ufs.Status{}, err)
			return
		}
		for st, err := range f.inner.List(ctx, dir, opts) {
			if err == nil {
				if err = f.do(ctx, OpList, dir, nothing); err != nil {
					st = ufs.Status{}
				}
			}
			if !yield(st, err) || err != nil {
				return
			}
		}
	}
}

// Open implements ufs.FS.
func (f *FS) Open(ctx context.Context, key string, opts ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	var r io.ReadCloser
	st, err := f.status(ctx, OpOpen, key, func(ctx context.Context) (st ufs.Status, err error) {
		r, st, err = f.inner.Open(ctx, key, opts)
		return st, err
	})
	if err != nil {
		if r != nil {
			_ = r.Close() // opened under an uncertain rule: the caller never sees it
		}
		return nil, st, err
	}
	return &reader{ReadCloser: r, ctx: ctx, fs: f, key: key}, st, nil
}

type reader struct {
	io.ReadCloser
	ctx context.Context //nolint:containedctx // an open stream belongs to its call
	fs  *FS
	key string
}

// Read keeps io.EOF as it is: do sees only the rules' own errors.
func (r *reader) Read(p []byte) (n int, err error) {
	var own error
	err = r.fs.do(r.ctx, OpRead, r.key, func(context.Context) error {
		n, own = r.ReadCloser.Read(p)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, own
}

// Create implements ufs.FS.
func (f *FS) Create(ctx context.Context, key string, opts ufs.CreateOptions) (ufs.Writer, error) {
	var w ufs.Writer
	err := f.do(ctx, OpCreate, key, func(ctx context.Context) (err error) {
		w, err = f.inner.Create(ctx, key, opts)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &writer{inner: w, ctx: ctx, fs: f, key: key}, nil
}

type writer struct {
	inner ufs.Writer
	ctx   context.Context //nolint:containedctx // Create's context governs the writes
	fs    *FS
	key   string
}

func (w *writer) Write(p []byte) (n int, err error) {
	err = w.fs.do(w.ctx, OpWrite, w.key, func(context.Context) (err error) {
		n, err = w.inner.Write(p)
		return err
	})
	return n, err
}

func (w *writer) Seal(ctx context.Context) (fingerprint.Fingerprint, error) { return w.inner.Seal(ctx) }

func (w *writer) Commit(ctx context.Context) (ufs.Status, error) {
	return w.fs.status(ctx, OpCommit, w.key, func(ctx context.Context) (ufs.Status, error) { return w.inner.Commit(ctx) })
}

func (w *writer) Abort(ctx context.Context) error {
	return w.fs.do(ctx, OpAbort, w.key, func(ctx context.Context) error { return w.inner.Abort(ctx) })
}
