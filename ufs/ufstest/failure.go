package ufstest

import (
	"context"
	"io"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

func failureCases() []testCase {
	return []testCase{
		{"failure/ended-context", failureContext},
		{"failure/context-ends-while-reading", failureContextReading},
		{"failure/denied-is-not-absent", failureDenied},
		{"failure/down-is-not-absent", failureDown},
	}
}

// calls does one call of every kind on fs, about key.
func (e *env) calls(ctx context.Context, fs ufs.FS, key string) map[string]error {
	result := map[string]error{}
	_, result["stat"] = fs.Stat(ctx, key)
	for _, err := range fs.List(ctx, "", ufs.ListOptions{}) {
		result["list"] = err
		if err != nil {
			break
		}
	}
	r, _, err := fs.Open(ctx, key, ufs.OpenOptions{Length: -1})
	if err == nil {
		_, err = io.ReadAll(r)
		e.must(r.Close())
	}
	result["open"] = err
	w, err := fs.Create(ctx, key+"-new", ufs.CreateOptions{Size: 1})
	if err == nil {
		if _, err = w.Write([]byte("x")); err == nil {
			_, err = w.Commit(ctx)
		}
		if err != nil {
			_ = w.Abort(e.ctx()) // the storage may be gone
		}
	}
	result["create"] = err
	_, result["mkdir"] = fs.Mkdir(ctx, key+"-dir", ufs.MkdirOptions{})
	_, result["rename"] = fs.Rename(ctx, key, key+"-moved")
	result["remove"] = fs.Remove(ctx, key, ufs.RemoveOptions{})
	result["remove tree"] = fs.Remove(ctx, key, ufs.RemoveOptions{Recursive: true})
	if e.feat.OwnerAndMode {
		mode := uint32(0o600)
		_, result["setattr"] = fs.SetAttr(ctx, key, ufs.Attr{Mode: &mode})
	}
	return result
}

func failureContext(e *env) {
	e.put("f", []byte("x"))
	ctx, cancel := context.WithCancel(e.ctx())
	cancel()
	e.soon("calls with an ended context", func() {
		for call, err := range e.calls(ctx, e.fs, "f") {
			if !freshet.IsKind(err, freshet.KindDeadline, freshet.KindUnavailable) {
				e.Errorf("%s with an ended context: %v, want deadline or unavailable", call, err)
			}
		}
	})
	e.wantKeys("", ufs.ListOptions{}, "f")
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

func failureDenied(e *env) {
	if e.h.Denied == nil {
		e.Fatal("the harness has no Denied: give it or name this case in Exceptions")
	}
	fs := e.h.Denied(e.T)
	e.Cleanup(func() { e.must(fs.Close()) })
	for call, err := range e.calls(e.ctx(), fs, "f") {
		if !freshet.IsKind(err, freshet.KindPermission) {
			e.Errorf("%s on a storage that denies: %v (kind %v), want permission", call, err, freshet.KindOf(err))
		}
	}
}

func failureDown(e *env) {
	if e.h.Down == nil {
		e.Fatal("the harness has no Down: give it or name this case in Exceptions")
	}
	fs := e.h.Down(e.T)
	e.Cleanup(func() { e.must(fs.Close()) })
	ctx, cancel := context.WithCancel(e.ctx())
	defer cancel()
	e.soon("calls on a storage that is down", func() {
		for call, err := range e.calls(ctx, fs, "f") {
			if !freshet.IsKind(err, freshet.KindUnavailable, freshet.KindDeadline) {
				e.Errorf("%s on a storage that is down: %v (kind %v), want unavailable", call, err, freshet.KindOf(err))
			}
		}
	})
}
