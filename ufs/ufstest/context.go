package ufstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

func contextCases() []testCase {
	return []testCase{
		{"failure/ended-context", failureContext},
		{"failure/context-ends-while-reading", failureContextReading},
		{"failure/context-ends-in-a-call", failureContextInCall},
		{"failure/context-ends-while-the-storage-is-silent", failureStalled},
	}
}

// rounds is how often each call is interrupted, each time a little later.
const rounds = 10

// interrupted is one kind of call that is given up in the middle. Check sees
// whether it happened as a whole or not at all.
type interrupted struct {
	name    string
	prepare func(e *env, key string)
	call    func(e *env, ctx context.Context, key string) error
	check   func(e *env, key string, err error)
}

func failureContext(e *env) {
	e.put("f", []byte("x"))
	ctx, cancel := context.WithCancel(e.ctx())
	cancel()
	e.soon("calls with an ended context", func() {
		for _, c := range e.calls() {
			if err := c.do(ctx, e.fs, "f"); !freshet.IsKind(err, freshet.KindDeadline, freshet.KindUnavailable) {
				e.Errorf("%s with an ended context: %v, want deadline or unavailable", c.name, err)
			}
		}
	})
	e.wantKeys("", ufs.ListOptions{}, "f")
	e.wantNothingLeft()
}

func failureContextReading(e *env) {
	e.put("f", pattern(60, e.h.Large))
	ctx, cancel := context.WithCancel(e.ctx())
	defer cancel()
	r, _, err := e.fs.Open(ctx, "f", ufs.OpenOptions{Length: -1})
	e.must(err)
	_, err = io.ReadFull(r, make([]byte, 10))
	e.must(err)
	cancel()
	e.soon("a read with an ended context", func() {
		if _, err := io.ReadAll(r); freshet.IsKind(err, freshet.KindNotExist, freshet.KindStale, freshet.KindInternal) {
			e.Errorf("got %v, want deadline, unavailable or the rest of the bytes", err)
		}
	})
	e.must(r.Close())
}

// failureContextInCall: the context ends at ten moments of each kind of call.
func failureContextInCall(e *env) {
	for _, in := range interruptions() {
		for i := range rounds {
			key := fmt.Sprintf("%s/%d", in.name, i)
			in.prepare(e, key)
			ctx, cancel := context.WithCancel(e.ctx())
			timer := time.AfterFunc(time.Duration(i*i)*100*time.Microsecond, cancel)
			var err error
			e.soon(in.name, func() { err = in.call(e, ctx, key) })
			timer.Stop()
			cancel()
			if !freshet.IsKind(err, freshet.KindOK, freshet.KindDeadline, freshet.KindUnavailable) {
				e.Errorf("%s, given up: %v (kind %v), want success, deadline or unavailable", in.name, err, freshet.KindOf(err))
			}
			in.check(e, key, err)
		}
	}
	e.wantNothingLeftAfter(20 * time.Second) // what is carried out late is cleared later
}

func interruptions() []interrupted {
	return []interrupted{
		{"stat", (*env).putLarge, interruptedStat, (*env).wantLarge},
		{"list", func(e *env, key string) { e.fill(key, 4*e.h.PageSize) }, interruptedList, func(*env, string, error) {}},
		{"open", (*env).putLarge, interruptedOpen, (*env).wantLarge},
		{"create", func(*env, string) {}, interruptedCreate, (*env).wantLargeOrNothing},
		{"mkdir", func(*env, string) {}, interruptedMkdir, func(e *env, key string, err error) {
			if err == nil && !e.stat(key).IsDir() {
				e.Errorf("mkdir %q succeeded, and there is no directory", key)
			}
		}},
		{"rename", (*env).putLarge, interruptedRename, func(e *env, key string, err error) {
			// The storage may carry out late what was given up, even now: the old name is
			// asked for first, the new one must be there if that is gone.
			if err != nil {
				if got, _, oerr := e.open(key, ufs.OpenOptions{Length: -1}); oerr == nil && bytes.Equal(got, e.large()) {
					e.wantLargeOrNothing(key+"-moved", err)
					return
				}
			}
			e.wantLarge(key+"-moved", err)
		}},
		{"remove", (*env).putLarge, interruptedRemove, (*env).wantLargeOrRemoved},
		{"remove tree", func(e *env, key string) { e.fill(key, 4*e.h.PageSize) }, interruptedRemove, func(e *env, key string, err error) {
			if err == nil {
				e.wantAbsent(key)
			}
		}},
	}
}

func (e *env) large() []byte                 { return pattern(61, e.h.Large) }
func (e *env) putLarge(key string)           { e.put(key, e.large()) }
func (e *env) wantLarge(key string, _ error) { e.wantContent(key, e.large()) }
func (e *env) wantLargeOrNothing(key string, err error) {
	e.Helper()
	got, _, oerr := e.open(key, ufs.OpenOptions{Length: -1})
	e.largeOrNothing(key, err, got, oerr)
}

// wantLargeOrRemoved is wantLargeOrNothing after a removal, which the storage may carry
// out late if it was given up, even while the file is read.
func (e *env) wantLargeOrRemoved(key string, err error) {
	e.Helper()
	got, _, oerr := e.open(key, ufs.OpenOptions{Length: -1})
	if err != nil && oerr != nil {
		e.wantAbsent(key)
		return
	}
	e.largeOrNothing(key, err, got, oerr)
}

func (e *env) largeOrNothing(key string, err error, got []byte, oerr error) {
	e.Helper()
	if freshet.IsKind(oerr, freshet.KindNotExist) {
		return
	}
	if oerr != nil || !bytes.Equal(got, e.large()) {
		e.Errorf("after %v %q holds %d bytes, %v: neither all nor nothing", err, key, len(got), oerr)
	}
}

func interruptedStat(e *env, ctx context.Context, key string) error { //nolint:revive // a method value
	_, err := e.fs.Stat(ctx, key)
	return err
}

func interruptedList(e *env, ctx context.Context, key string) error { //nolint:revive // a method value
	n := 0
	for _, err := range e.fs.List(ctx, key, ufs.ListOptions{PageSize: e.h.PageSize}) {
		if err != nil {
			return err
		}
		n++
	}
	if n != 4*e.h.PageSize {
		e.Errorf("a listing that was cut off after %d of %d entries says that it is complete", n, 4*e.h.PageSize)
	}
	return nil
}

func interruptedOpen(e *env, ctx context.Context, key string) error { //nolint:revive // a method value
	r, _, err := e.fs.Open(ctx, key, ufs.OpenOptions{Length: -1})
	if err != nil {
		return err
	}
	got, err := io.ReadAll(r)
	if !bytes.HasPrefix(e.large(), got) || err == nil && len(got) != e.h.Large {
		e.Errorf("a read that was cut off gave %d bytes, %v", len(got), err)
	}
	return errors.Join(err, r.Close())
}

func interruptedCreate(e *env, ctx context.Context, key string) error { //nolint:revive // a method value
	w, err := e.fs.Create(ctx, key, ufs.CreateOptions{Size: int64(e.h.Large), Op: opID(60)})
	if err != nil {
		return err
	}
	asked := false
	if _, err = w.Write(e.large()); err == nil {
		asked = true
		if _, err = w.Commit(ctx); err == nil {
			return nil
		}
	}
	// Once it was asked for its effect, that may have come before the abort.
	if aborted := w.Abort(e.ctx()); aborted != nil && (!asked || !freshet.IsKind(aborted, freshet.KindDeadline)) {
		e.Errorf("abort %s: %v", key, aborted)
	}
	return err
}

func interruptedMkdir(e *env, ctx context.Context, key string) error { //nolint:revive // a method value
	_, err := e.fs.Mkdir(ctx, key, ufs.MkdirOptions{})
	return err
}

func interruptedRename(e *env, ctx context.Context, key string) error { //nolint:revive // a method value
	_, err := e.fs.Rename(ctx, key, key+"-moved")
	return err
}

func interruptedRemove(e *env, ctx context.Context, key string) error { //nolint:revive // a method value
	return e.fs.Remove(ctx, key, ufs.RemoveOptions{Recursive: true})
}

// failureStalled: a call that will never be answered ends with its context.
func failureStalled(e *env) {
	if e.h.Stalled == nil {
		e.Fatal("the harness has no Stalled: give it or name this case in Exceptions")
	}
	fs := e.h.Stalled(e.T)
	e.Cleanup(func() { e.must(fs.Close()) })
	for _, c := range e.calls() {
		ctx, cancel := context.WithCancel(e.ctx())
		timer := time.AfterFunc(50*time.Millisecond, cancel)
		e.soon(c.name+" on a storage that does not answer", func() {
			if err := c.do(ctx, fs, "f"); !freshet.IsKind(err, freshet.KindDeadline, freshet.KindUnavailable) {
				e.Errorf("%s on a storage that does not answer: %v (kind %v), want deadline or unavailable", c.name, err, freshet.KindOf(err))
			}
		})
		timer.Stop()
		cancel()
	}
}
