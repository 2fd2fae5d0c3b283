package tier_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/zeebo/xxh3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
)

// lend lends the block id with n bytes of version 1.
func lend(t *testing.T, tr *tier.Tier, id freshet.BlockID, n int) *tier.Loan {
	t.Helper()
	r := must2(tr.Open(id, want(1, n)))(t)
	l, err := r.Lend()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestALentBlockIsReadFromItsFile(t *testing.T) {
	t.Parallel()
	onBoth(t, tier.Options{Capacity: 8 << 20}, func(t *testing.T, tr *tier.Tier) {
		for _, n := range []int{1, tier.ChunkSize, 2*tier.ChunkSize + 77} {
			id := block(n, 0)
			put(t, tr, id, n)
			before := must2(tr.Open(id, want(1, n)))(t) // of the heap, if the block is there
			l := lend(t, tr, id, n)
			at := l.Layout()
			got := must2(io.ReadAll(io.NewSectionReader(l.File(), at.Offset, at.Length)))(t)
			if !bytes.Equal(got, content(id, n)) {
				t.Fatalf("%d bytes: others in the file", n)
			}
			for i, sum := range at.Sums {
				if c := got[i*tier.ChunkSize : min(n, (i+1)*tier.ChunkSize)]; xxh3.Hash(c) != sum {
					t.Errorf("%d bytes: chunk %d has another checksum", n, i)
				}
			}
			if at.Sealed != (tr.Kind() == tier.Memory) || at.Sealed && at.Verified[0]&1 == 0 {
				t.Errorf("%+v", at)
			}
			for _, r := range []*tier.Reader{before, must2(tr.Open(id, want(1, n)))(t)} {
				for _, size := range []int{n, max(n/2, 1)} {
					b := make([]byte, size)
					must2(r.ReadAt(b, 0))(t)
					var out bytes.Buffer
					must2(r.CopyTo(&out, 0, int64(n)))(t)
					if !bytes.Equal(b, content(id, n)[:size]) || !bytes.Equal(out.Bytes(), content(id, n)) {
						t.Fatal("a stream has other bytes since the block is lent")
					}
				}
				_ = r.Close()
			}
			l.Close()
		}
	})
}

// TestABlockIsLentWhileItIsViewed has the block move into its file at any moment of a
// look at its memory.
func TestABlockIsLentWhileItIsViewed(t *testing.T) {
	t.Parallel()
	tr := newTier(t, tier.Memory, "", tier.Options{Capacity: 8 << 20})
	for i := range 100 {
		const n = 5000
		id := block(i+1, 0)
		put(t, tr, id, n)
		r := must2(tr.Open(id, want(1, n)))(t)
		begun := make(chan struct{})
		var lending sync.WaitGroup
		lending.Go(func() {
			<-begun
			lend(t, tr, id, n).Close()
		})
		close(begun)
		for {
			b := r.View(0, n)
			if b == nil {
				break // it is in its file
			}
			if !bytes.Equal(b, content(id, n)) {
				t.Fatal("other bytes")
			}
		}
		lending.Wait()
		_ = r.Close()
	}
}

// TestALentBlockInMemoryCanNotBeChanged opens its file again, as whoever borrows it
// could.
func TestALentBlockInMemoryCanNotBeChanged(t *testing.T) {
	t.Parallel()
	tr := newTier(t, tier.Memory, "", tier.Options{Capacity: 8 << 20})
	put(t, tr, block(1, 0), 5000)
	l := lend(t, tr, block(1, 0), 5000)
	defer l.Close()
	if !l.Layout().Sealed {
		t.Skip("this system has no sealed files")
	}
	if _, err := l.File().WriteAt([]byte("x"), 0); err == nil {
		t.Error("written by the descriptor")
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", l.File().Fd()), os.O_RDWR, 0)
	if err != nil {
		return // not even that
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("written by another descriptor")
	}
	if err := f.Truncate(0); err == nil {
		t.Error("truncated")
	}
}

func TestLentBlocksStayAndAreBounded(t *testing.T) {
	t.Parallel()
	onBoth(t, tier.Options{Capacity: 4<<20 + 64<<10}, func(t *testing.T, tr *tier.Tier) {
		const n = 1 << 20
		var loans []*tier.Loan
		for i := 1; i <= 4; i++ {
			put(t, tr, block(i, 0), n)
		}
		for i := 1; i <= 2; i++ {
			loans = append(loans, lend(t, tr, block(i, 0), n))
		}
		again := lend(t, tr, block(1, 0), n) // costs no more
		r := must2(tr.Open(block(3, 0), want(1, n)))(t)
		if _, err := r.Lend(); !freshet.IsKind(err, freshet.KindExhausted) {
			t.Errorf("more than half is lent: %v", err)
		}
		_ = r.Close()
		for i := 5; i < 12; i++ {
			put(t, tr, block(i, 0), n)
		}
		if !loans[0].Held() || !loans[1].Held() {
			t.Error("a lent block was evicted")
		}
		used := tr.Used()
		tr.Remove(block(1, 0))
		if loans[0].Held() || tr.Used() != used || tr.Lent() < 2*n {
			t.Errorf("of a removed block: %d bytes used, %d lent", tr.Used(), tr.Lent())
		}
		loans[0].Close()
		if tr.Used() != used {
			t.Error("its space was given away before its last borrower has gone")
		}
		again.Close()
		loans[1].Close()
		if tr.Used() >= used || tr.Lent() != 0 {
			t.Errorf("%d bytes used, %d lent at the end", tr.Used(), tr.Lent())
		}
	})
}

// TestAFileInMemoryGoesWithItsBlock counts descriptors.
func TestAFileInMemoryGoesWithItsBlock(t *testing.T) {
	tr := newTier(t, tier.Memory, "", tier.Options{Capacity: 8 << 20})
	count := func() int { return len(must(t, must2(os.ReadDir("/proc/self/fd"))(t), nil)) }
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip(err)
	}
	before := count()
	for i := 1; i <= 8; i++ {
		put(t, tr, block(i, 0), 5000)
		lend(t, tr, block(i, 0), 5000).Close()
	}
	if count() < before+8 {
		t.Error("the blocks are in no files")
	}
	r := must2(tr.Open(block(1, 0), want(1, 5000)))(t)
	tr.Clear()
	b := make([]byte, 5000)
	must2(r.ReadAt(b, 0))(t)
	if !bytes.Equal(b, content(block(1, 0), 5000)) {
		t.Error("other bytes after the block has gone")
	}
	_ = r.Close()
	if n := count(); n > before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}
