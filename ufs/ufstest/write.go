package ufstest

import (
	"sync"
	"sync/atomic"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

func writeCases() []testCase {
	return []testCase{
		{"create/small", createSmall},
		{"create/empty", createEmpty},
		{"create/large", createLarge},
		{"create/unknown-size", createUnknownSize},
		{"create/overwrite", createOverwrite},
		{"create/overwrite-keeps-mode", createOverwriteMode},
		{"create/makes-parents", createParents},
		{"create/over-directory", createOverDirectory},
		{"create/below-file", createBelowFile},
		{"create/root", createRoot},
		{"create/other-size-than-announced", createOtherSize},
		{"create/if-absent", createIfAbsent},
		{"create/if-absent-race", createIfAbsentRace},
		{"create/if-match", createIfMatch},
		{"create/if-match-race", createIfMatchRace},
		{"create/large-over-large", createLargeOverLarge},
		{"create/again-and-again", createAgain},
		{"create/concurrent-overwrites", createConcurrent},
	}
}

func createSmall(e *env) {
	st := e.put("f", []byte("hello"))
	if st.Key != "f" || st.Type != freshet.TypeFile || st.Length != 5 {
		e.Errorf("got %+v", st)
	}
	e.wantContent("f", []byte("hello"))
}

func createEmpty(e *env) {
	if st := e.put("f", nil); st.Length != 0 {
		e.Errorf("got %+v", st)
	}
	if st := e.stat("f"); st.IsDir() || st.Length != 0 {
		e.Errorf("got %+v", st)
	}
	e.wantContent("f", nil)
}

// createLarge writes in pieces that do not divide the size of a part.
func (e *env) writeLarge(key string, size int64) ufs.Status {
	e.Helper()
	data := pattern(20, e.h.Large+12345)
	if size >= 0 {
		size = int64(len(data))
	}
	w, err := e.fs.Create(e.ctx(), key, ufs.CreateOptions{Size: size, Op: opID(1)})
	e.must(err)
	for rest := data; len(rest) > 0; {
		n := min(len(rest), 100_003)
		m, err := w.Write(rest[:n])
		if err != nil || m != n {
			e.Fatalf("write: %d of %d, %v", m, n, err)
		}
		rest = rest[n:]
	}
	st, err := w.Commit(e.ctx())
	e.must(err)
	if st.Length != int64(len(data)) {
		e.Errorf("commit says %d bytes, wrote %d", st.Length, len(data))
	}
	e.wantContent(key, data)
	return st
}

func createLarge(e *env)       { e.writeLarge("f", 1) }
func createUnknownSize(e *env) { e.writeLarge("f", -1) }

func createOverwrite(e *env) {
	e.put("f", []byte("a long first version"))
	e.put("f", []byte("second"))
	e.wantContent("f", []byte("second"))
	e.wantKeys("", ufs.ListOptions{}, "f")
}

// createOverwriteMode: new content lets nobody in whom the old one kept out.
func createOverwriteMode(e *env) {
	if !e.feat.OwnerAndMode {
		e.lacks("Features.OwnerAndMode is false")
	}
	mode := uint32(0o600)
	before := e.put("f", []byte("secret"))
	_, err := e.fs.SetAttr(e.ctx(), "f", ufs.Attr{Mode: &mode})
	e.must(err)
	for _, opts := range []ufs.CreateOptions{{}, {Mode: 0o640}, {}} {
		want := opts.Mode
		if want == 0 {
			want = mode
		}
		mode = want
		st, err := e.write("f", []byte("still secret"), opts)
		e.must(err)
		if now := e.stat("f"); st.Mode != want || now.Mode != want || now.Owner != before.Owner || now.Group != before.Group || !now.Fingerprint.Equal(st.Fingerprint) {
			e.Errorf("mode %04o asked for: the commit says %+v, the file has %+v, want mode %04o", opts.Mode, st, now, want)
		}
	}
}

func createParents(e *env) {
	e.put("a/b/c/f", []byte("x"))
	e.wantContent("a/b/c/f", []byte("x"))
	e.put("a/b/g", []byte("y"))
	e.wantKeys("a/b", ufs.ListOptions{}, "a/b/c/", "a/b/g")
}

func createOverDirectory(e *env) {
	e.mkdir("d")
	e.put("p/f", []byte("x"))
	for _, key := range []string{"d", "p"} {
		_, err := e.write(key, []byte("file"), ufs.CreateOptions{})
		e.wantKind(err, freshet.KindConflict)
		if !e.stat(key).IsDir() {
			e.Errorf("%q is no directory any more", key)
		}
	}
	e.wantContent("p/f", []byte("x"))
}

func createBelowFile(e *env) {
	if !e.feat.RealDirectories {
		e.lacks("a prefix needs no directory here")
	}
	e.put("f", []byte("x"))
	for _, key := range []string{"f/below", "f/far/below"} {
		_, err := e.write(key, []byte("y"), ufs.CreateOptions{})
		e.wantKind(err, freshet.KindConflict)
	}
	e.wantContent("f", []byte("x"))
}

func createRoot(e *env) {
	_, err := e.write("", []byte("x"), ufs.CreateOptions{})
	e.wantKind(err, freshet.KindConflict, freshet.KindInvalid)
}

func createOtherSize(e *env) {
	for _, size := range []int64{9, 11, 1 << 40} {
		_, err := e.write("f", []byte("0123456789"), ufs.CreateOptions{Size: size})
		e.wantKind(err, freshet.KindInvalid)
		e.wantAbsent("f")
	}
	e.wantNothingLeft()
}

func createIfAbsent(e *env) {
	st, err := e.write("f", []byte("first"), ufs.CreateOptions{IfAbsent: true})
	e.must(err)
	_, err = e.write("f", []byte("second"), ufs.CreateOptions{IfAbsent: true})
	e.wantKind(err, freshet.KindExist)
	e.wantContent("f", []byte("first"))
	if !e.stat("f").Fingerprint.Equal(st.Fingerprint) {
		e.Error("a refused create changed the fingerprint")
	}
	_, err = e.write("f", pattern(1, e.h.Large), ufs.CreateOptions{IfAbsent: true})
	e.wantKind(err, freshet.KindExist)
	e.wantContent("f", []byte("first"))
}

func createIfAbsentRace(e *env) {
	if !e.feat.CreateIfAbsent {
		e.lacks("Features.CreateIfAbsent is false")
	}
	var won atomic.Int32
	var winner atomic.Value
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			data := pattern(byte(i), 100)
			_, err := e.write("f", data, ufs.CreateOptions{IfAbsent: true, Op: opID(byte(i))})
			switch {
			case err == nil:
				won.Add(1)
				winner.Store(data)
			case !freshet.IsKind(err, freshet.KindExist):
				e.Errorf("loser %d: %v, want exist", i, err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		e.Fatalf("%d writers won", won.Load())
	}
	e.wantContent("f", winner.Load().([]byte))
}

func createIfMatch(e *env) {
	first := e.put("f", []byte("first"))
	second, err := e.write("f", []byte("other"), ufs.CreateOptions{IfMatch: e.known(first.Fingerprint)})
	e.must(err)
	e.wantContent("f", []byte("other"))
	_, err = e.write("f", []byte("third"), ufs.CreateOptions{IfMatch: first.Fingerprint})
	e.wantKind(err, freshet.KindStale)
	e.wantContent("f", []byte("other"))
	e.must(e.fs.Remove(e.ctx(), "f", ufs.RemoveOptions{}))
	_, err = e.write("f", []byte("third"), ufs.CreateOptions{IfMatch: second.Fingerprint})
	e.wantKind(err, freshet.KindStale, freshet.KindNotExist)
	e.wantAbsent("f")
}

// createIfMatchRace: of those who replace one version only one does.
func createIfMatchRace(e *env) {
	if !e.feat.ReplaceIf {
		e.lacks("Features.ReplaceIf is false")
	}
	first := e.put("f", []byte("first"))
	var won atomic.Int32
	var winner atomic.Value
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			data := pattern(byte(i), 100)
			_, err := e.write("f", data, ufs.CreateOptions{IfMatch: first.Fingerprint, Op: opID(byte(i))})
			switch {
			case err == nil:
				won.Add(1)
				winner.Store(data)
			case !freshet.IsKind(err, freshet.KindStale):
				e.Errorf("loser %d: %v, want stale", i, err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		e.Fatalf("%d writers won", won.Load())
	}
	e.wantContent("f", winner.Load().([]byte))
	e.wantNothingLeft()
}

func createLargeOverLarge(e *env) {
	e.put("f", pattern(21, e.h.Large+99))
	e.writeLarge("f", -1)
	e.wantKeys("", ufs.ListOptions{}, "f")
}

// createAgain: a name is a file, then a directory, then a file again.
func createAgain(e *env) {
	for i := range 5 {
		e.put("n", pattern(byte(i), 100+i))
		e.wantContent("n", pattern(byte(i), 100+i))
		e.must(e.fs.Remove(e.ctx(), "n", ufs.RemoveOptions{}))
		e.wantAbsent("n")
		e.mkdir("n")
		if !e.stat("n").IsDir() {
			e.Error("no directory")
		}
		e.must(e.fs.Remove(e.ctx(), "n", ufs.RemoveOptions{}))
		e.wantAbsent("n")
	}
	if !e.isEmpty() {
		e.Error("something is left")
	}
}

func createConcurrent(e *env) {
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			if _, err := e.write("f", pattern(byte(i), 5000), ufs.CreateOptions{Op: opID(byte(i))}); err != nil {
				e.Errorf("writer %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	got, st, err := e.open("f", ufs.OpenOptions{Length: -1})
	e.must(err)
	if len(got) != 5000 || st.Length != 5000 {
		e.Fatalf("got %d bytes, status %+v", len(got), st)
	}
	e.wantContent("f", pattern(got[0], 5000))
	e.wantKeys("", ufs.ListOptions{}, "f")
}
