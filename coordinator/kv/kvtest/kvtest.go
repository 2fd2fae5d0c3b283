// Package kvtest owns the conformance suite that every implementation of
// coordinator/kv passes. It is used by tests only.
package kvtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/freshet-io/freshet/coordinator/kv"
)

// Maker makes stores for a test. Crash ends a store as the death of its process
// would, without a flush, and opens what is left.
type Maker struct {
	New   func(t *testing.T) kv.Store
	Crash func(t *testing.T, s kv.Store) kv.Store
}

// Run runs the suite.
func Run(t *testing.T, m Maker) {
	t.Helper()
	tests := map[string]func(*testing.T, Maker){
		"get and scan":                testReads,
		"batch reads its own changes": testOwnReads,
		"batch is atomic":             testAtomic,
		"view stays":                  testView,
		"delete range":                testDeleteRange,
		"slices may be reused":        testReuse,
		"crash loses a suffix":        testCrash,
		"closed":                      testClosed,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, m) })
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, s kv.Store, pairs ...string) {
	t.Helper()
	b := s.NewBatch()
	for pair := range slices.Chunk(pairs, 2) {
		must(t, b.Set([]byte(pair[0]), []byte(pair[len(pair)-1])))
	}
	must(t, b.Commit(), b.Close())
}

func dump(t *testing.T, r kv.Reader, start, end string) []string {
	t.Helper()
	var got []string
	must(t, r.Scan([]byte(start), []byte(end), func(k, v []byte) bool {
		got = append(got, string(k)+"="+string(v))
		return true
	}))
	return got
}

func want(t *testing.T, got []string, pairs ...string) {
	t.Helper()
	if !slices.Equal(got, pairs) {
		t.Fatalf("got %q, want %q", got, pairs)
	}
}

func testReads(t *testing.T, m Maker) {
	s := m.New(t)
	defer s.Close()
	put(t, s, "b", "2", "a", "1", "c\x00", "3", "c", "", "\xff", "9")
	v, ok, err := s.Get([]byte("a"))
	if string(v) != "1" || !ok || err != nil {
		t.Fatalf("get: %q, %t, %v", v, ok, err)
	}
	if v, ok, err := s.Get([]byte("c")); len(v) != 0 || !ok || err != nil {
		t.Fatalf("get of an empty value: %q, %t, %v", v, ok, err)
	}
	if _, ok, err := s.Get([]byte("x")); ok || err != nil {
		t.Fatalf("get of nothing: %t, %v", ok, err)
	}
	want(t, dump(t, s, "a", "c"), "a=1", "b=2")
	want(t, dump(t, s, "b", ""), "b=2", "c=", "c\x00=3", "\xff=9")
	n := 0
	must(t, s.Scan(nil, nil, func(_, _ []byte) bool { n++; return n < 2 }))
	if n != 2 {
		t.Fatalf("a scan went on to %d", n)
	}
}

func testOwnReads(t *testing.T, m Maker) {
	s := m.New(t)
	defer s.Close()
	put(t, s, "a", "1", "b", "2", "c", "3")
	b := s.NewBatch()
	must(t, b.Set([]byte("b"), []byte("new")), b.Delete([]byte("a")), b.Set([]byte("d"), []byte("4")))
	want(t, dump(t, b, "", ""), "b=new", "c=3", "d=4")
	if _, ok, err := b.Get([]byte("a")); ok || err != nil {
		t.Fatalf("a deleted key is there: %v", err)
	}
	want(t, dump(t, s, "", ""), "a=1", "b=2", "c=3")
	must(t, b.Close())
	want(t, dump(t, s, "", ""), "a=1", "b=2", "c=3")
}

func testAtomic(t *testing.T, m Maker) {
	s := m.New(t)
	defer s.Close()
	b := s.NewBatch()
	must(t, b.Set([]byte("a"), []byte("1")), b.Set([]byte("a"), []byte("2")), b.Set([]byte("b"), nil))
	want(t, dump(t, s, "", ""))
	must(t, b.Commit())
	want(t, dump(t, s, "", ""), "a=2", "b=")
	if err := b.Set([]byte("a"), nil); err == nil {
		t.Fatal("a committed batch takes changes")
	}
}

func testView(t *testing.T, m Maker) {
	s := m.New(t)
	defer s.Close()
	put(t, s, "a", "1")
	v, err := s.View()
	must(t, err)
	put(t, s, "a", "2", "b", "2")
	want(t, dump(t, v, "", ""), "a=1")
	if got, ok, err := v.Get([]byte("a")); string(got) != "1" || !ok || err != nil {
		t.Fatalf("%q, %t, %v", got, ok, err)
	}
	must(t, v.Close())
	want(t, dump(t, s, "", ""), "a=2", "b=2")
}

func testDeleteRange(t *testing.T, m Maker) {
	s := m.New(t)
	defer s.Close()
	put(t, s, "a", "1", "b", "2", "c", "3", "d", "4")
	b := s.NewBatch()
	must(t, b.Set([]byte("bb"), []byte("x")), b.DeleteRange([]byte("b"), []byte("d")), b.Set([]byte("c"), []byte("again")))
	want(t, dump(t, b, "", ""), "a=1", "c=again", "d=4")
	must(t, b.Commit())
	want(t, dump(t, s, "", ""), "a=1", "c=again", "d=4")
}

func testReuse(t *testing.T, m Maker) {
	s := m.New(t)
	defer s.Close()
	key, value := []byte("a"), []byte("1")
	b := s.NewBatch()
	must(t, b.Set(key, value))
	key[0], value[0] = 'b', '2'
	must(t, b.Set(key, value), b.Commit())
	want(t, dump(t, s, "", ""), "a=1", "b=2")
	got, _, err := s.Get([]byte("a"))
	must(t, err)
	got[0] = 'x'
	want(t, dump(t, s, "a", "b"), "a=1")
}

// testCrash holds the store to its promise: after a crash it is at a state that
// one of the batches left, not older than the last flush.
func testCrash(t *testing.T, m Maker) {
	const batches, flushed = 200, 70
	s := m.New(t)
	pad := bytes.Repeat([]byte("x"), 4<<10)
	for i := 1; i <= batches; i++ {
		b := s.NewBatch()
		must(t, b.Set([]byte("applied"), binary.BigEndian.AppendUint64(nil, uint64(i))))
		must(t, b.Set(fmt.Appendf(nil, "row%05d", i), pad))
		if i > 10 {
			must(t, b.Delete(fmt.Appendf(nil, "row%05d", i-10)))
		}
		must(t, b.Commit())
		if i == flushed {
			must(t, s.Flush())
		}
	}
	s = m.Crash(t, s)
	defer s.Close()
	v, ok, err := s.Get([]byte("applied"))
	must(t, err)
	if !ok || len(v) != 8 {
		t.Fatal("nothing was left")
	}
	at := int(binary.BigEndian.Uint64(v))
	if at < flushed || at > batches {
		t.Fatalf("at %d after the crash, flushed at %d", at, flushed)
	}
	var rows []string
	must(t, s.Scan([]byte("row"), []byte("rox"), func(k, _ []byte) bool {
		rows = append(rows, string(k))
		return true
	}))
	var all []string
	for i := max(1, at-9); i <= at; i++ {
		all = append(all, fmt.Sprintf("row%05d", i))
	}
	want(t, rows, all...)
}

func testClosed(t *testing.T, m Maker) {
	s := m.New(t)
	b := s.NewBatch()
	must(t, b.Close(), b.Close())
	if err := b.Commit(); err == nil {
		t.Fatal("a closed batch was committed")
	}
	must(t, s.Close())
	if _, _, err := s.Get([]byte("a")); !errors.Is(err, kv.ErrClosed) {
		t.Fatalf("get after close: %v", err)
	}
	if err := s.Scan(nil, nil, func(_, _ []byte) bool { return true }); !errors.Is(err, kv.ErrClosed) {
		t.Fatalf("scan after close: %v", err)
	}
	if _, err := s.View(); !errors.Is(err, kv.ErrClosed) {
		t.Fatalf("view after close: %v", err)
	}
	if err := s.Flush(); !errors.Is(err, kv.ErrClosed) {
		t.Fatalf("flush after close: %v", err)
	}
}
