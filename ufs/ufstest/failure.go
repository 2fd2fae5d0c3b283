package ufstest

import (
	"context"
	"io"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/fault"
	"github.com/freshet-io/freshet/ufs/retry"
)

func failureCases() []testCase {
	return []testCase{
		{"failure/denied-is-not-absent", failureDenied},
		{"failure/down-is-not-absent", failureDown},
		{"failure/throttled", failureThrottled},
		{"failure/throttled-is-retried", failureRetried},
		{"failure/throttled-for-too-long", failureRetriedInVain},
	}
}

// call is one kind of call on an FS, about a key. It leaves nothing open.
type call struct {
	name string
	do   func(ctx context.Context, fs ufs.FS, key string) error
}

// calls returns one call of every kind.
func (e *env) calls() []call {
	all := []call{
		{"stat", func(ctx context.Context, fs ufs.FS, key string) error {
			_, err := fs.Stat(ctx, key)
			return err
		}},
		{"list", func(ctx context.Context, fs ufs.FS, _ string) error {
			for _, err := range fs.List(ctx, "", ufs.ListOptions{}) {
				if err != nil {
					return err
				}
			}
			return nil
		}},
		{"open", func(ctx context.Context, fs ufs.FS, key string) error {
			r, _, err := fs.Open(ctx, key, ufs.OpenOptions{Length: -1})
			if err != nil {
				return err
			}
			_, err = io.ReadAll(r)
			_ = r.Close() // the first error counts
			return err
		}},
		{"create", e.createCall},
		{"mkdir", func(ctx context.Context, fs ufs.FS, key string) error {
			_, err := fs.Mkdir(ctx, key+"-dir", ufs.MkdirOptions{})
			return err
		}},
		{"rename", func(ctx context.Context, fs ufs.FS, key string) error {
			_, err := fs.Rename(ctx, key, key+"-moved")
			return err
		}},
		{"remove", func(ctx context.Context, fs ufs.FS, key string) error {
			return fs.Remove(ctx, key, ufs.RemoveOptions{})
		}},
		{"remove tree", func(ctx context.Context, fs ufs.FS, key string) error {
			return fs.Remove(ctx, key, ufs.RemoveOptions{Recursive: true})
		}},
	}
	if e.feat.OwnerAndMode {
		all = append(all, call{"setattr", func(ctx context.Context, fs ufs.FS, key string) error {
			mode := uint32(0o600)
			_, err := fs.SetAttr(ctx, key, ufs.Attr{Mode: &mode})
			return err
		}})
	}
	return all
}

func (e *env) createCall(ctx context.Context, fs ufs.FS, key string) error {
	w, err := fs.Create(ctx, key+"-new", ufs.CreateOptions{Size: 1})
	if err != nil {
		return err
	}
	if _, err = w.Write([]byte("x")); err == nil {
		_, err = w.Commit(ctx)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(e.ctx(), time.Second)
		defer cancel()
		_ = w.Abort(ctx) // the storage may be gone
	}
	return err
}

func failureDenied(e *env) {
	if e.h.Denied == nil {
		e.Fatal("the harness has no Denied: give it or name this case in Exceptions")
	}
	fs := e.h.Denied(e.T)
	e.Cleanup(func() { e.must(fs.Close()) })
	for _, c := range e.calls() {
		if err := c.do(e.ctx(), fs, "f"); !freshet.IsKind(err, freshet.KindPermission) {
			e.Errorf("%s on a storage that denies: %v (kind %v), want permission", c.name, err, freshet.KindOf(err))
		}
	}
}

func failureDown(e *env) {
	if e.h.Down == nil {
		e.Fatal("the harness has no Down: give it or name this case in Exceptions")
	}
	fs := e.h.Down(e.T)
	e.Cleanup(func() { e.must(fs.Close()) })
	for _, c := range e.calls() {
		e.soon(c.name+" on a storage that is down", func() {
			if err := c.do(e.ctx(), fs, "f"); !freshet.IsKind(err, freshet.KindUnavailable, freshet.KindDeadline) {
				e.Errorf("%s on a storage that is down: %v (kind %v), want unavailable", c.name, err, freshet.KindOf(err))
			}
		})
	}
}

// failureThrottled: "slow down" is a passing trouble, not an answer.
func failureThrottled(e *env) {
	if e.h.Throttled == nil {
		e.Fatal("the harness has no Throttled: give it or name this case in Exceptions")
	}
	fs := e.h.Throttled(e.T)
	e.Cleanup(func() { e.must(fs.Close()) })
	for _, c := range e.calls() {
		e.soon(c.name+" on a storage that throttles", func() {
			if err := c.do(e.ctx(), fs, "f"); !freshet.IsKind(err, freshet.KindUnavailable, freshet.KindExhausted, freshet.KindDeadline) {
				e.Errorf("%s on a storage that throttles: %v (kind %v), want exhausted or unavailable", c.name, err, freshet.KindOf(err))
			}
		})
	}
}

// throttled returns the FS of the case with rules, under the repetition that
// mounts get.
func (e *env) throttled(rules ...fault.Rule) ufs.FS {
	f := fault.New(e.fs)
	for _, r := range rules {
		r.Err = freshet.KindExhausted
		f.Add(r)
	}
	return retry.New(f, retry.Options{First: time.Millisecond, Tries: 4})
}

// failureRetried: what is asked again is answered as if nothing had happened; a
// listing goes on behind what it gave already.
func failureRetried(e *env) {
	want := e.fill("d", 4*e.h.PageSize)
	e.put("f", []byte("hello"))
	fs := e.throttled(
		fault.Rule{Op: fault.OpStat, Times: 2}, fault.Rule{Op: fault.OpOpen, Times: 2}, fault.Rule{Op: fault.OpAbortUp, Times: 2},
		fault.Rule{Op: fault.OpList, Times: 1}, fault.Rule{Op: fault.OpList, Skip: e.h.PageSize + 1, Times: 2},
	)
	again := *e
	again.fs = fs
	if st := again.stat("f"); st.Length != 5 {
		e.Errorf("got %+v", st)
	}
	again.wantContent("f", []byte("hello"))
	again.wantKeys("d", ufs.ListOptions{PageSize: e.h.PageSize}, want...)
	if _, err := fs.AbortUpload(e.ctx(), "f", opID(9)); err != nil {
		e.Error(err)
	}
	_, err := fs.Stat(e.ctx(), "nothing")
	e.wantKind(err, freshet.KindNotExist)
}

// failureRetriedInVain: the repetition ends, and its error is the storage's own.
func failureRetriedInVain(e *env) {
	e.put("f", []byte("hello"))
	fs := e.throttled(fault.Rule{})
	for _, c := range e.calls() {
		e.soon(c.name+" under endless throttling", func() {
			if err := c.do(e.ctx(), fs, "f"); !freshet.IsKind(err, freshet.KindExhausted) {
				e.Errorf("%s under endless throttling: %v (kind %v), want exhausted", c.name, err, freshet.KindOf(err))
			}
		})
	}
	e.wantKeys("", ufs.ListOptions{}, "f")
}
