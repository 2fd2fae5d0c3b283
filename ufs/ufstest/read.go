package ufstest

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

func readCases() []testCase {
	return []testCase{
		{"open/whole", openWhole},
		{"open/ranges", openRanges},
		{"open/skip", openSkip},
		{"open/past-end", openPastEnd},
		{"open/empty-file", openEmpty},
		{"open/missing", openMissing},
		{"open/directory", openDirectory},
		{"open/want-matching", openWantMatching},
		{"open/want-other-version", openWantOther},
		{"open/want-removed", openWantRemoved},
		{"open/concurrent-readers", openConcurrent},
		{"open/close-early", openCloseEarly},
		{"open/replaced-while-reading", openReplaced},
		{"open/rewritten-while-reading", openRewritten},
		{"open/truncated-while-reading", openTruncated},
	}
}

func openWhole(e *env) {
	data := pattern(1, e.h.Large+7)
	e.put("f", data)
	got, st, err := e.open("f", ufs.OpenOptions{Length: -1})
	e.must(err)
	if !bytes.Equal(got, data) {
		e.Errorf("got %d other bytes than the %d written", len(got), len(data))
	}
	if st.Key != "f" || st.Length != int64(len(data)) || !st.Fingerprint.Equal(e.stat("f").Fingerprint) {
		e.Errorf("status of open %+v is not the status of stat %+v", st, e.stat("f"))
	}
}

func openRanges(e *env) {
	data := pattern(2, 4096)
	e.put("f", data)
	for _, off := range []int64{0, 1, 256, 511, 512, 513, 768, 1024, 1025, 4095} {
		for _, n := range []int64{-1, 0, 1, 511, 512, 4096, 1 << 40, math.MaxInt64} {
			got, st, err := e.open("f", ufs.OpenOptions{Offset: off, Length: n})
			if err != nil {
				e.Fatalf("offset %d length %d: %v", off, n, err)
			}
			want := data[off:]
			if n >= 0 && n < int64(len(want)) {
				want = want[:n]
			}
			if !bytes.Equal(got, want) || st.Length != 4096 {
				e.Errorf("offset %d length %d: got %d bytes, status %+v, want %d bytes", off, n, len(got), st, len(want))
			}
		}
	}
}

func openPastEnd(e *env) {
	e.put("f", []byte("0123456789"))
	for _, off := range []int64{11, 1 << 20, math.MaxInt64, -1} {
		for _, n := range []int64{-1, 1} {
			_, _, err := e.open("f", ufs.OpenOptions{Offset: off, Length: n})
			e.wantKind(err, freshet.KindInvalid)
		}
	}
	got, _, err := e.open("f", ufs.OpenOptions{Offset: 10, Length: -1}) // exactly at the end: nothing to give
	if len(got) != 0 {
		e.Errorf("at the end: got %q", got)
	}
	e.wantKind(err, freshet.KindOK, freshet.KindInvalid)
}

func openEmpty(e *env) {
	e.put("f", nil)
	for _, n := range []int64{-1, 0, 10} {
		got, st, err := e.open("f", ufs.OpenOptions{Length: n})
		e.must(err)
		if len(got) != 0 || st.Length != 0 {
			e.Errorf("length %d: got %q, %+v", n, got, st)
		}
	}
}

func openMissing(e *env) {
	e.put("f", []byte("x"))
	for _, key := range []string{"nothing", "no/such", "f/below"} {
		_, _, err := e.open(key, ufs.OpenOptions{Length: -1})
		e.wantKind(err, freshet.KindNotExist)
	}
}

func openDirectory(e *env) {
	e.mkdir("d")
	e.put("p/f", []byte("x"))
	for _, key := range []string{"", "d", "p"} {
		_, _, err := e.open(key, ufs.OpenOptions{Length: -1})
		e.wantKind(err, freshet.KindConflict)
	}
}

func openWantMatching(e *env) {
	data := pattern(3, 1000)
	st := e.put("f", data)
	for _, n := range []int64{-1, 10, 0} {
		got, opened, err := e.open("f", ufs.OpenOptions{Want: e.known(st.Fingerprint), Length: n})
		e.must(err)
		if want := data[:min(uint64(n), 1000)]; !bytes.Equal(got, want) || !opened.Fingerprint.Equal(st.Fingerprint) {
			e.Errorf("length %d: got %d bytes of %v, want %d of %v", n, len(got), opened.Fingerprint, len(want), st.Fingerprint)
		}
	}
}

func openWantOther(e *env) {
	old := e.put("f", pattern(4, 1000))
	e.put("f", pattern(5, 1000))
	for _, n := range []int64{-1, 10, 0} {
		got, _, err := e.open("f", ufs.OpenOptions{Want: e.known(old.Fingerprint), Length: n})
		e.wantKind(err, freshet.KindStale)
		if len(got) != 0 {
			e.Errorf("got %d bytes of another version", len(got))
		}
	}
	foreign := fingerprint.Azure("never-here")
	_, _, err := e.open("f", ufs.OpenOptions{Want: foreign, Length: -1})
	e.wantKind(err, freshet.KindStale)
}

func openWantRemoved(e *env) {
	st := e.put("f", []byte("x"))
	e.must(e.fs.Remove(e.ctx(), "f", ufs.RemoveOptions{}))
	_, _, err := e.open("f", ufs.OpenOptions{Want: st.Fingerprint, Length: -1})
	e.wantKind(err, freshet.KindNotExist)
}

// openConcurrent: 400 ranges, most of them small, by 16 readers at a time.
func openConcurrent(e *env) {
	const readers, each = 16, 25
	data := pattern(6, e.h.Large)
	e.put("f", data)
	st := e.stat("f")
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 6))
			for n := range each {
				off := rng.Int64N(int64(len(data)))
				length := rng.Int64N(64 << 10)
				if n == 0 {
					length = -1 // to the end
				}
				want := data[off:]
				if length >= 0 {
					want = want[:min(length, int64(len(want)))]
				}
				got, _, err := e.open("f", ufs.OpenOptions{Want: st.Fingerprint, Offset: off, Length: length})
				if err != nil || !bytes.Equal(got, want) {
					e.Errorf("reader %d: %d bytes at %d: got %d bytes, %v", i, length, off, len(got), err)
				}
			}
		})
	}
	wg.Wait()
}

// openSkip: what is left after some bytes were passed over is what follows them.
func openSkip(e *env) {
	data := pattern(13, 4096)
	e.put("f", data)
	for _, skip := range []int64{0, 1, 511, 512, 513, 4095, 4096} {
		r, _, err := e.fs.Open(e.ctx(), "f", ufs.OpenOptions{Length: -1})
		e.must(err)
		_, err = io.CopyN(io.Discard, r, skip)
		e.must(err)
		got, err := io.ReadAll(r)
		e.must(err)
		e.must(r.Close())
		if !bytes.Equal(got, data[skip:]) {
			e.Errorf("after %d bytes: got %d bytes, want %d", skip, len(got), len(data[skip:]))
		}
	}
}

func openCloseEarly(e *env) {
	e.put("f", pattern(7, e.h.Large))
	for range 20 {
		r, _, err := e.fs.Open(e.ctx(), "f", ufs.OpenOptions{Length: -1})
		e.must(err)
		if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
			e.Fatal(err)
		}
		e.must(r.Close())
	}
	e.must(e.fs.Remove(e.ctx(), "f", ufs.RemoveOptions{}))
}

// readAcross reads the first bytes of f, lets change happen and reads on. What
// comes must be the old version, whole, or an error of kind stale; bytes of
// another version must never be handed out.
func (e *env) readAcross(old []byte, change func()) {
	e.Helper()
	r, _, err := e.fs.Open(e.ctx(), "f", ufs.OpenOptions{Want: e.stat("f").Fingerprint, Length: -1})
	e.must(err)
	head := make([]byte, 100)
	_, err = io.ReadFull(r, head)
	e.must(err)
	change()
	tail, err := io.ReadAll(r)
	if cerr := r.Close(); err == nil && cerr != nil {
		err = cerr
	}
	got := slices.Concat(head, tail)
	if !bytes.HasPrefix(old, got) {
		e.Errorf("read %d bytes that are not of the version asked for", len(got))
	}
	switch {
	case err == nil && len(got) != len(old):
		e.Errorf("a success of %d bytes instead of %d", len(got), len(old))
	case err != nil && !errors.Is(err, freshet.KindStale):
		e.Errorf("got error %v (kind %v), want stale", err, freshet.KindOf(err))
	}
}

func openReplaced(e *env) {
	old := pattern(8, e.h.Large)
	e.put("f", old)
	e.readAcross(old, func() { e.put("f", pattern(9, e.h.Large)) })
	e.wantContent("f", pattern(9, e.h.Large))
}

func openRewritten(e *env) {
	out := e.outside()
	rewrite := out.Rewrite
	if rewrite == nil {
		rewrite = out.Put
	}
	old := pattern(10, e.h.Large)
	e.put("f", old)
	e.readAcross(old, func() { e.must(rewrite("f", pattern(11, e.h.Large))) })
	e.wantContent("f", pattern(11, e.h.Large))
}

func openTruncated(e *env) {
	out := e.outside()
	rewrite := out.Rewrite
	if rewrite == nil {
		rewrite = out.Put
	}
	old := pattern(12, e.h.Large)
	e.put("f", old)
	e.readAcross(old, func() { e.must(rewrite("f", old[:e.h.Large/2])) })
	e.wantContent("f", old[:e.h.Large/2])
}
