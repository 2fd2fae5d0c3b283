package ufstest

import (
	"context"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

func uploadCases() []testCase {
	return []testCase{
		{"upload/invisible-before-commit", uploadInvisible},
		{"upload/abort", uploadAbort},
		{"upload/abort-leaves-no-parents", uploadAbortParents},
		{"upload/abort-keeps-old-version", uploadAbortKeeps},
		{"upload/context-ends", uploadContext},
		{"upload/no-commit-after-a-failed-write", uploadBroken},
		{"upload/abort-by-operation", uploadAbortByOp},
		{"upload/abort-by-operation-leaves-others", uploadAbortOthers},
		{"upload/abort-unknown-operation", uploadAbortUnknown},
		{"upload/abort-committed", uploadAbortCommitted},
		{"upload/operation-mark", uploadMark},
		{"upload/sealed", uploadSealed},
		{"upload/same-operation-again", uploadSameOp},
	}
}

// half starts an upload of the large size and leaves it half done.
func (e *env) half(key string, op freshet.OpID) ufs.Writer {
	e.Helper()
	w, err := e.fs.Create(e.ctx(), key, ufs.CreateOptions{Op: op, Size: -1})
	e.must(err)
	_, err = w.Write(pattern(30, e.h.Large))
	e.must(err)
	return w
}

func uploadInvisible(e *env) {
	e.mkdir("d")
	w := e.half("d/f", opID(1))
	e.wantAbsent("d/f")
	e.wantKeys("d", ufs.ListOptions{})
	e.wantKeys("", ufs.ListOptions{Recursive: true}, "d/")
	_, err := w.Commit(e.ctx())
	e.must(err)
	e.wantKeys("d", ufs.ListOptions{}, "d/f")
}

func uploadAbort(e *env) {
	e.mkdir("d")
	w := e.half("d/f", opID(1))
	e.must(w.Abort(e.ctx()))
	e.wantAbsent("d/f")
	e.wantKeys("d", ufs.ListOptions{})
	if _, err := w.Commit(e.ctx()); err == nil {
		e.Error("commit after abort succeeded")
	}
	e.wantAbsent("d/f")
	e.wantNothingLeft()
	e.must(e.fs.Remove(e.ctx(), "d", ufs.RemoveOptions{})) // really empty
}

// uploadAbortParents: what is not committed makes no directories either.
func uploadAbortParents(e *env) {
	w := e.half("a/b/f", opID(1))
	e.must(w.Abort(e.ctx()))
	if _, err := e.write("c/d/f", []byte("x"), ufs.CreateOptions{Size: 2}); !freshet.IsKind(err, freshet.KindInvalid) {
		e.Errorf("a commit of other length than announced: %v", err)
	}
	if left := e.keys("", ufs.ListOptions{Recursive: true}); len(left) > 0 {
		e.Errorf("uploads that failed left %q", left)
	}
	e.wantNothingLeft()
	w = e.half("a/b/f", opID(2))
	ended, err := e.fs.AbortUpload(e.ctx(), "a/b/f", opID(2))
	e.must(err)
	if ended {
		if _, err := w.Commit(e.ctx()); err == nil {
			e.Error("the commit of the ended upload succeeded")
		}
		e.wantNothingLeft()
	}
	e.must(w.Abort(e.ctx()))
}

func uploadAbortKeeps(e *env) {
	st := e.put("f", []byte("old"))
	w := e.half("f", opID(1))
	e.wantContent("f", []byte("old"))
	e.must(w.Abort(e.ctx()))
	e.wantContent("f", []byte("old"))
	if !e.stat("f").Fingerprint.Equal(st.Fingerprint) {
		e.Error("an aborted upload changed the fingerprint of what was there")
	}
}

func uploadContext(e *env) {
	e.mkdir("d")
	ctx, cancel := context.WithCancel(e.ctx())
	w, err := e.fs.Create(ctx, "d/f", ufs.CreateOptions{Op: opID(1), Size: -1})
	e.must(err)
	_, err = w.Write(pattern(31, e.h.Large))
	e.must(err)
	cancel()
	e.soon("commit with an ended context", func() {
		if _, err := w.Commit(ctx); err == nil {
			e.Error("it succeeded")
		}
	})
	e.must(w.Abort(e.ctx()))
	e.wantAbsent("d/f")
	e.wantNothingLeft()
	e.must(e.fs.Remove(e.ctx(), "d", ufs.RemoveOptions{})) // really empty
}

// uploadBroken: after a write that failed bytes are missing, whatever the length
// announced; not even a context that still holds makes that a file.
func uploadBroken(e *env) {
	ctx, cancel := context.WithCancel(e.ctx())
	defer cancel()
	w, err := e.fs.Create(ctx, "f", ufs.CreateOptions{Op: opID(1), Size: -1})
	e.must(err)
	_, err = w.Write([]byte("head"))
	e.must(err)
	cancel()
	failed := false
	for range 3 { // some only fail once they have a part to send
		if _, err := w.Write(pattern(32, e.h.Large)); err != nil {
			failed = true
			break
		}
	}
	_, err = w.Commit(e.ctx())
	if err == nil && failed {
		e.Error("a commit succeeded after a write had failed")
	}
	if err != nil {
		e.must(w.Abort(e.ctx()))
		e.wantAbsent("f")
	}
	e.wantNothingLeft()
}

func uploadAbortByOp(e *env) {
	e.mkdir("d")
	w := e.half("d/f", opID(1))
	ended, err := e.fs.AbortUpload(e.ctx(), "d/f", opID(1))
	e.must(err)
	if ended != e.feat.AbortEndsEffects {
		e.Errorf("ended is %v, Features.AbortEndsEffects is %v", ended, e.feat.AbortEndsEffects)
	}
	if e.feat.AbortEndsEffects {
		if _, err := w.Commit(e.ctx()); err == nil {
			e.Error("the commit of the ended upload succeeded")
		}
		e.wantAbsent("d/f")
	}
	if err := w.Abort(e.ctx()); err != nil {
		e.Errorf("abort of the ended upload: %v", err)
	}
	if e.feat.AbortEndsEffects {
		e.must(e.fs.Remove(e.ctx(), "d", ufs.RemoveOptions{})) // really empty
	}
}

func uploadAbortOthers(e *env) {
	one, two := e.half("d/f", opID(1)), e.half("d/f", opID(2))
	other := e.half("d/f2", opID(1))
	_, err := e.fs.AbortUpload(e.ctx(), "d/f", opID(1))
	e.must(err)
	_, err = two.Commit(e.ctx())
	e.must(err)
	_, err = other.Commit(e.ctx())
	e.must(err)
	e.must(one.Abort(e.ctx()))
	e.wantKeys("d", ufs.ListOptions{}, "d/f", "d/f2")
}

func uploadAbortUnknown(e *env) {
	e.put("d/f", []byte("x"))
	for _, key := range []string{"d/f", "d/g", "no/such/place"} {
		if _, err := e.fs.AbortUpload(e.ctx(), key, opID(9)); err != nil {
			e.Errorf("abort of an operation that never was at %q: %v", key, err)
		}
	}
	e.wantContent("d/f", []byte("x"))
}

func uploadAbortCommitted(e *env) {
	w := e.half("d/f", opID(1))
	_, err := w.Commit(e.ctx())
	e.must(err)
	_, err = e.fs.AbortUpload(e.ctx(), "d/f", opID(1))
	e.must(err)
	e.wantContent("d/f", pattern(30, e.h.Large))
}

func uploadMark(e *env) {
	st, err := e.write("f", []byte("small"), ufs.CreateOptions{Op: opID(7)})
	e.must(err)
	large := e.writeLarge("large", -1)
	if !e.feat.OperationMark {
		if got := e.stat("f"); !got.Op.IsZero() {
			e.Errorf("stat gives the mark %v although Features.OperationMark is false", got.Op)
		}
		return
	}
	_, opened, err := e.open("f", ufs.OpenOptions{Length: -1})
	e.must(err)
	if got := e.stat("f"); got.Op != opID(7) || opened.Op != opID(7) || st.Op != opID(7) {
		e.Errorf("mark by commit %v, stat %v, open %v, want %v", st.Op, got.Op, opened.Op, opID(7))
	}
	if got := e.stat("large"); got.Op != opID(1) || large.Op != opID(1) {
		e.Errorf("large file: mark by commit %v, stat %v, want %v", large.Op, got.Op, opID(1))
	}
}

// uploadSealed: a complete upload stays hidden, and what it says of the file is true of
// that file alone, whose bytes may be anybody's.
func uploadSealed(e *env) {
	before, after := pattern(29, e.h.Large), pattern(30, e.h.Large)
	e.put("d/f", before)
	w := e.half("d/f", opID(1))
	sealed, err := w.Seal(e.ctx())
	e.must(err)
	if !e.feat.OperationMark && !sealed.Known() {
		e.Error("neither a mark nor a fingerprint tells the file from others")
	}
	if again, err := w.Seal(e.ctx()); err != nil || again != sealed {
		e.Errorf("sealed again: %v, %v, before %v", again, err, sealed)
	}
	if _, err := w.Write([]byte("more")); err == nil {
		e.Error("it takes more bytes")
	}
	e.wantContent("d/f", before)
	if st := e.stat("d/f"); st.Fingerprint.Moved(sealed) {
		e.Errorf("what was there before passes for it: %v", st.Fingerprint)
	}
	st, err := w.Commit(e.ctx())
	e.must(err)
	e.wantContent("d/f", after)
	if now := e.stat("d/f"); sealed.Known() && (!now.Fingerprint.Moved(sealed) || !st.Fingerprint.Moved(sealed)) {
		e.Errorf("sealed %v, committed %v, there is %v", sealed, st.Fingerprint, now.Fingerprint)
	}
	e.put("d/f", after)
	if now := e.stat("d/f"); now.Fingerprint.Moved(sealed) {
		e.Errorf("another file with the same bytes passes for it: %v", now.Fingerprint)
	}
	dropped := e.half("d/g", opID(2))
	_, err = dropped.Seal(e.ctx())
	e.must(err)
	e.must(dropped.Abort(e.ctx()))
	e.wantAbsent("d/g")
}

// uploadSameOp: a retried operation must not publish what its first attempt left
// half done.
func uploadSameOp(e *env) {
	first := e.half("d/f", opID(1))
	if _, err := e.write("d/f", []byte("second attempt"), ufs.CreateOptions{Op: opID(1)}); err != nil {
		e.Fatalf("second attempt: %v", err)
	}
	e.wantContent("d/f", []byte("second attempt"))
	e.must(first.Abort(e.ctx()))
	e.wantContent("d/f", []byte("second attempt"))
	e.wantKeys("d", ufs.ListOptions{}, "d/f")
}
