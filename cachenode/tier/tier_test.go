package tier_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/fingerprint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func cluster() freshet.ClusterID { return uuid.MustParse("6f1a4c1e-0000-4000-8000-000000000001") }

func version(n int) fingerprint.Fingerprint { return fingerprint.S3(fmt.Sprintf("etag-%d", n), 1<<40) }

func meta(v int) tier.Meta { return tier.Meta{Cluster: cluster(), Epoch: 3, Fingerprint: version(v)} }

func want(v int, length int) tier.Want {
	return tier.Want{Cluster: cluster(), Epoch: 3, Fingerprint: version(v), Length: int64(length)}
}

func block(file, index int) freshet.BlockID {
	return freshet.BlockID{File: freshet.FileID(file), Index: uint32(index)}
}

// content is what a block holds in these tests: different for each.
func content(id freshet.BlockID, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(id.File), byte(id.File >> 8), byte(id.Index), byte(n), byte(n >> 8), byte(n >> 16)})
	_, _ = r.Read(b)
	return b
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantKind(t testing.TB, err error, kind freshet.Kind) {
	t.Helper()
	if freshet.KindOf(err) != kind {
		t.Fatalf("got error %v of kind %v, want kind %v", err, freshet.KindOf(err), kind)
	}
}

// put writes the block id with n bytes of version 1.
func put(t testing.TB, tr *tier.Tier, id freshet.BlockID, n int) {
	t.Helper()
	if err := tryPut(tr, id, n); err != nil {
		t.Fatalf("put %v: %v", id, err)
	}
}

func tryPut(tr *tier.Tier, id freshet.BlockID, n int) error {
	w, err := tr.Create(id, int64(n))
	if err != nil {
		return err
	}
	defer w.Close()
	b := content(id, n)
	for len(b) > 0 { // pieces that do not fall on chunks
		m := min(len(b), 100_003)
		if _, err := w.Write(b[:m]); err != nil {
			return err
		}
		b = b[m:]
	}
	return w.Commit(meta(1))
}

// get reads a whole block in the way of its number: by ReadAt or CopyTo.
func get(tr *tier.Tier, id freshet.BlockID, n, way int) (b []byte, err error) {
	r, err := tr.Open(id, want(1, n))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if way%2 == 0 {
		var buf bytes.Buffer
		_, err = r.CopyTo(&buf, 0, int64(n))
		return buf.Bytes(), err
	}
	b = make([]byte, n)
	_, err = io.ReadFull(io.NewSectionReader(r, 0, int64(n)), b)
	return b, err
}

func mustGet(t testing.TB, tr *tier.Tier, id freshet.BlockID, n int) {
	t.Helper()
	for way := range 2 {
		b, err := get(tr, id, n, way)
		if err != nil || !bytes.Equal(b, content(id, n)) {
			t.Fatalf("block %v, way %d: %d bytes, %v", id, way, len(b), err)
		}
	}
}

// onBoth runs the conformance test on a tier of each kind.
func onBoth(t *testing.T, opts tier.Options, test func(t *testing.T, tr *tier.Tier)) {
	t.Helper()
	for _, kind := range []tier.Kind{tier.Memory, tier.Disk} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			tr := newTier(t, kind, t.TempDir(), opts)
			test(t, tr)
			tr.Clear()
			if used := tr.Used(); used != 0 {
				t.Errorf("%d bytes are taken after everything was closed and dropped", used)
			}
		})
	}
}

func newTier(t testing.TB, kind tier.Kind, dir string, opts tier.Options) *tier.Tier {
	t.Helper()
	var tr *tier.Tier
	var err error
	if kind == tier.Memory {
		tr, err = tier.NewMemory(opts)
	} else {
		tr, err = tier.OpenDisk(dir, opts)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

func TestReadBackWhatWasWritten(t *testing.T) {
	t.Parallel()
	onBoth(t, tier.Options{Capacity: 64 << 20}, func(t *testing.T, tr *tier.Tier) {
		for i, n := range []int{1, 4095, 4096, tier.ChunkSize - 1, tier.ChunkSize, tier.ChunkSize + 1, 3*tier.ChunkSize + 7} {
			id := block(1, i)
			put(t, tr, id, n)
			mustGet(t, tr, id, n)
			testRanges(t, tr, id, n)
		}
	})
}

func testRanges(t *testing.T, tr *tier.Tier, id freshet.BlockID, n int) {
	t.Helper()
	r := must2(tr.Open(id, want(1, n)))(t)
	defer func() { _ = r.Close() }()
	full := content(id, n)
	rnd := rand.New(rand.NewPCG(uint64(n), 1))
	for range 50 {
		off := rnd.IntN(n)
		length := 1 + rnd.IntN(n-off)
		b := make([]byte, length)
		if m, err := r.ReadAt(b, int64(off)); m != length || err != nil || !bytes.Equal(b, full[off:off+length]) {
			t.Fatalf("ReadAt(%d, %d) of %d: %d, %v", off, length, n, m, err)
		}
		var buf bytes.Buffer
		if m, err := r.CopyTo(&buf, int64(off), int64(length)); m != int64(length) || err != nil || !bytes.Equal(buf.Bytes(), full[off:off+length]) {
			t.Fatalf("CopyTo(%d, %d) of %d: %d, %v", off, length, n, m, err)
		}
		if err := r.Verify(int64(off), int64(length)); err != nil {
			t.Fatal(err)
		}
		if f, base := r.File(); f != nil {
			if _, err := f.ReadAt(b, base+int64(off)); err != nil || !bytes.Equal(b, full[off:off+length]) {
				t.Fatalf("the file at %d: %v", off, err)
			}
		}
	}
	b := make([]byte, 10)
	if m, err := r.ReadAt(b, int64(n)); m != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read at the end: %d, %v", m, err)
	}
	if m, err := r.ReadAt(b, int64(n-1)); m != 1 || !errors.Is(err, io.EOF) {
		t.Errorf("read over the end: %d, %v", m, err)
	}
	if _, err := r.ReadAt(b, -1); !freshet.IsKind(err, freshet.KindInvalid) {
		t.Errorf("negative offset: %v", err)
	}
}

func must2[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T { t.Helper(); return must(t, v, err) }
}

func TestBlockInTheMakingIsInvisibleButReadable(t *testing.T) {
	t.Parallel()
	onBoth(t, tier.Options{Capacity: 8 << 20}, func(t *testing.T, tr *tier.Tier) {
		id, n := block(1, 0), 700_000
		full := content(id, n)
		w := must2(tr.Create(id, int64(n)))(t)
		for _, end := range []int{1, 5000, 300_000, n} {
			must2(w.Write(full[w.Written():end]))(t)
			b := make([]byte, end)
			must2(w.ReadAt(b, 0))(t)
			if !bytes.Equal(b, full[:end]) {
				t.Fatalf("the first %d bytes differ", end)
			}
			if _, ok := tr.Stat(id); ok {
				t.Fatal("a block that was not committed is visible")
			}
		}
		if err := w.Commit(meta(1)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, n)
		must2(w.ReadAt(b, 0))(t)
		w.Close()
		mustGet(t, tr, id, n)
		_, err := tr.Create(id, 5)
		wantKind(t, err, freshet.KindExist)
	})
}

func TestAbandonedBlockLeavesNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, tier.Options{Capacity: 8 << 20}, func(t *testing.T, tr *tier.Tier) {
		w := must2(tr.Create(block(1, 0), -1))(t)
		must2(w.Write(make([]byte, 3<<20)))(t)
		if tr.Used() < 3<<20 {
			t.Errorf("3 MiB in the making count as %d bytes", tr.Used())
		}
		w.Close()
		if tr.Used() != 0 || len(tr.List()) != 0 {
			t.Errorf("%d bytes and blocks %v are left", tr.Used(), tr.List())
		}
	})
}

func TestSecondWriterOfABlockLoses(t *testing.T) {
	t.Parallel()
	onBoth(t, tier.Options{Capacity: 8 << 20}, func(t *testing.T, tr *tier.Tier) {
		id := block(4, 0)
		w1, w2 := must2(tr.Create(id, 3))(t), must2(tr.Create(id, 3))(t)
		for _, w := range []*tier.Writer{w1, w2} {
			must2(w.Write(content(id, 3)))(t)
		}
		if err := w1.Commit(meta(1)); err != nil {
			t.Fatal(err)
		}
		wantKind(t, w2.Commit(meta(1)), freshet.KindExist)
		w2.Close()
		w1.Close()
		mustGet(t, tr, id, 3)
	})
}

func TestC17BlockOfAnotherHistoryIsDropped(t *testing.T) {
	t.Parallel()
	good := want(1, 100)
	tests := map[string]func(*tier.Want){
		"cluster":             func(w *tier.Want) { w.Cluster[0]++ },
		"epoch of the future": func(w *tier.Want) { w.Epoch = 2 },
		"content":             func(w *tier.Want) { w.Fingerprint = version(2) },
		"unknown content":     func(w *tier.Want) { w.Fingerprint = fingerprint.Fingerprint{} },
		"length":              func(w *tier.Want) { w.Length++ },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBoth(t, tier.Options{Capacity: 1 << 20}, func(t *testing.T, tr *tier.Tier) {
				put(t, tr, block(1, 0), 100)
				w := good
				change(&w)
				_, err := tr.Open(block(1, 0), w)
				wantKind(t, err, freshet.KindNotExist)
				if _, ok := tr.Stat(block(1, 0)); ok {
					t.Error("the block is still there")
				}
			})
		})
	}
	t.Run("older epochs and metadata are fine", func(t *testing.T) {
		t.Parallel()
		onBoth(t, tier.Options{Capacity: 1 << 20}, func(t *testing.T, tr *tier.Tier) {
			put(t, tr, block(1, 0), 100)
			w := good
			w.Epoch, w.Fingerprint.Meta = 9, "alice,staff,600"
			r := must2(tr.Open(block(1, 0), w))(t)
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		})
	})
}

func TestOpenReaderSurvivesRemoval(t *testing.T) {
	t.Parallel()
	onBoth(t, tier.Options{Capacity: 4 << 20}, func(t *testing.T, tr *tier.Tier) {
		id, n := block(1, 0), 3<<20
		put(t, tr, id, n)
		r := must2(tr.Open(id, want(1, n)))(t)
		tr.Remove(id)
		if _, err := tr.Open(id, want(1, n)); !freshet.IsKind(err, freshet.KindNotExist) {
			t.Errorf("opened a removed block: %v", err)
		}
		if err := tryPut(tr, block(2, 0), 2<<20); !freshet.IsKind(err, freshet.KindExhausted) {
			t.Errorf("the space of an open block was given away: %v", err)
		}
		for _, size := range []int{1, 5000, n} {
			b := make([]byte, size)
			must2(r.ReadAt(b, 0))(t)
			if !bytes.Equal(b, content(id, n)[:size]) {
				t.Fatal("other bytes")
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		put(t, tr, block(2, 0), 2<<20)
	})
}

func TestEvictionMakesRoomButNotOfBlocksInUse(t *testing.T) {
	t.Parallel()
	onBoth(t, tier.Options{Capacity: 4<<20 + 64<<10}, func(t *testing.T, tr *tier.Tier) {
		var mu sync.Mutex
		var log []string
		tr.Observe(func(c tier.Change) {
			mu.Lock()
			defer mu.Unlock()
			log = append(log, fmt.Sprintf("%v %d %v%s", c.Added, c.Block.ID.File, c.Block.Length == 1<<20, c.Reason))
		})
		for i := range 4 {
			put(t, tr, block(i+1, 0), 1<<20)
		}
		r := must2(tr.Open(block(1, 0), want(1, 1<<20)))(t)
		for i := 4; i < 12; i++ {
			put(t, tr, block(i+1, 0), 1<<20)
		}
		if _, ok := tr.Stat(block(1, 0)); !ok {
			t.Error("a block that was being read was evicted")
		}
		_ = r.Close()
		if got := len(tr.List()); got != 4 || tr.Used() > tr.Capacity() {
			t.Errorf("%d blocks, %d bytes", got, tr.Used())
		}
		mu.Lock()
		defer mu.Unlock()
		if !slices.Contains(log, "true 12 true") || !slices.Contains(log, "false 2 true"+string(tier.ReasonCapacity)) || len(log) != 12+8 {
			t.Errorf("observed %q", log)
		}
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	onBoth(t, tier.Options{Capacity: 1 << 20}, func(t *testing.T, tr *tier.Tier) {
		for _, c := range []struct {
			id     freshet.BlockID
			length int64
			kind   freshet.Kind
		}{
			{block(0, 0), 10, freshet.KindInvalid}, // what has no file ID is never cached
			{block(1, 0), 0, freshet.KindInvalid},
			{block(1, 0), freshet.MaxBlockSize + 1, freshet.KindInvalid},
			{block(1, 0), 1 << 20, freshet.KindExhausted}, // its checksums do not fit
		} {
			_, err := tr.Create(c.id, c.length)
			wantKind(t, err, c.kind)
		}
		w := must2(tr.Create(block(1, 0), -1))(t)
		_, err := w.Write(make([]byte, 2<<20))
		wantKind(t, err, freshet.KindExhausted)
		wantKind(t, w.Commit(meta(1)), freshet.KindExhausted)
		w.Close()
		empty := must2(tr.Create(block(1, 0), -1))(t)
		wantKind(t, empty.Commit(meta(1)), freshet.KindInvalid)
		empty.Close()
	})
	for _, opts := range []tier.Options{{Capacity: -1}, {Policy: "clock"}} {
		_, err := tier.NewMemory(opts)
		wantKind(t, err, freshet.KindInvalid)
	}
}

// TestPolicyScan shows why s3-fifo is the default: one pass over a lot of data
// does not push out what is read again and again.
func TestPolicyScan(t *testing.T) {
	t.Parallel()
	kept := map[string]int{}
	for _, name := range tier.Policies() {
		tr := newTier(t, tier.Memory, "", tier.Options{Capacity: 100 * (4096 + 8), Policy: name})
		read := func(id freshet.BlockID) bool {
			r, err := tr.Open(id, want(1, 4096))
			if err == nil {
				_ = r.Close()
				return true
			}
			put(t, tr, id, 4096)
			return false
		}
		for range 5 {
			for i := range 50 {
				read(block(1, i))
			}
		}
		for i := range 1000 {
			read(block(2, i))
		}
		for i := range 50 {
			if _, ok := tr.Stat(block(1, i)); ok {
				kept[name]++
			}
		}
	}
	if kept["s3-fifo"] < 45 || kept["lru"] != 0 {
		t.Errorf("of 50 hot blocks, a scan left %v", kept)
	}
}
