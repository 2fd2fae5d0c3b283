package pebblekv_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/freshet-io/freshet/coordinator/kv/pebblekv"
)

const spaceRows, rowBytes = 5_000, 200

// writeRows writes every row anew, with bytes that don't compress; empty deletes it.
func writeRows(t *testing.T, s *pebblekv.Store, round int, empty bool, each func()) {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(round), 1))
	value := make([]byte, rowBytes)
	for i := 0; i < spaceRows; {
		b := s.NewBatch()
		for range 100 {
			key := fmt.Appendf(nil, "row%06d", i)
			for j := range value {
				value[j] = byte(r.Uint32())
			}
			var err error
			if empty {
				err = b.Delete(key)
			} else {
				err = b.Set(key, value)
			}
			if err != nil {
				t.Fatal(err)
			}
			i++
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		if each != nil {
			each()
		}
	}
}

// TestSpaceOfWhatIsGoneIsGivenBack overwrites and deletes rows: the store must end
// as large as what is left.
func TestSpaceOfWhatIsGoneIsGivenBack(t *testing.T) {
	s, err := pebblekv.Open("state", pebblekv.Options{FS: vfs.NewMem(), CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	settled := func() int64 {
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := s.Compact(t.Context(), []byte{0}, []byte{255}); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); s.Metrics().ObsoleteBytes > 0; {
			if time.Now().After(deadline) {
				t.Fatalf("files that were replaced are not deleted: %+v", s.Metrics())
			}
			time.Sleep(time.Millisecond) // until the next look
		}
		return s.Metrics().DiskBytes
	}
	const overhead = 128 << 10 // manifest and options
	for round := range 10 {
		writeRows(t, s, round, false, nil)
	}
	if got, most := settled(), int64(spaceRows*rowBytes*13/10+overhead); got < spaceRows*rowBytes || got > most {
		t.Errorf("%d bytes for rows of %d, at most %d", got, spaceRows*rowBytes, most)
	}
	writeRows(t, s, 0, true, nil)
	if got := settled(); got > overhead {
		t.Errorf("%d bytes for nothing", got)
	}
}

// TestMemoryStaysInItsBound writes and reads more than the memory of a small store.
func TestMemoryStaysInItsBound(t *testing.T) {
	const memory = 1 << 20
	s, err := pebblekv.Open("state", pebblekv.Options{FS: vfs.NewMem(), CacheBytes: memory})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	most := int64(0)
	look := func() { most = max(most, s.Metrics().MemoryBytes) }
	for round := range 5 {
		writeRows(t, s, round, false, look)
		n := 0
		if err := s.Scan([]byte("row"), []byte("rox"), func(_, _ []byte) bool { n++; return true }); err != nil || n != spaceRows {
			t.Fatalf("%d rows, %v", n, err)
		}
		look()
	}
	t.Logf("at most %d bytes of memory", most)
	// Up to three tables of a quarter each, one more that is written or still read,
	// and the rest for blocks.
	if most > memory*3/2 {
		t.Errorf("block cache and tables took %d bytes, of %d", most, memory)
	}
}
