package fill_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/fill"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/ufs"
)

const mib = 1 << 20

// background counts what a Filler says of its background.
type background struct {
	bytes atomic.Int64
	mu    sync.Mutex
	ends  map[string]int
}

func (c *background) watch() fill.Watch {
	c.ends = map[string]int{}
	return fill.Watch{
		Bytes: func(n int64) { c.bytes.Add(n) },
		Fetched: func(result string) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.ends[result]++
		},
	}
}

func (c *background) ended(result string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ends[result]
}

func keeping(partial, passive bool) func(freshet.MountID) ufs.Caching {
	return func(freshet.MountID) ufs.Caching { return ufs.Caching{Partial: partial, Passive: passive} }
}

func TestRangedReadAsksForItsRangeAndTheRestFollows(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"", t.TempDir()} {
		var bg background
		b := newBed(t, settings{dir: dir, watch: bg.watch(), opts: fill.Options{Range: 4 * mib}})
		data := pages(1, 18*mib+77)
		req := b.put("a", data, 1)
		r := b.record()
		b.want(withRange(req, 5*mib+3, 1000), data[5*mib+3:5*mib+1003], freshet.OriginUFS)
		b.awaitCached(req.Block.ID)
		asks, total := r.all()
		if asks[0] != (ask{5*mib + 3, 1000}) {
			t.Errorf("the range cost %+v", asks[0])
		}
		if len(asks) != 1+5 || total != 1000+int64(len(data)) {
			t.Errorf("%d bytes in %v", total, asks)
		}
		b.want(req, data, freshet.OriginHit)
		b.stop()
		if bg.bytes.Load() != int64(len(data)) || bg.ended("cached") != 1 {
			t.Errorf("background: %d bytes, %v", bg.bytes.Load(), bg.ends)
		}
	}
}

func TestReadOfAShortBlockOrMostOfOneComesWithTheBlock(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ size, off, n int64 }{
		"short":       {mib, 500_000, 10},
		"half":        {6 * mib, 0, 3 * mib},
		"all but one": {6 * mib, 1, 6*mib - 1},
		"the end":     {6 * mib, 2 * mib, 4 * mib},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, settings{})
			data := pages(1, int(test.size))
			req := b.put("a", data, 1)
			r := b.record()
			b.want(withRange(req, test.off, test.n), data[test.off:test.off+test.n], freshet.OriginUFS)
			b.awaitCached(req.Block.ID)
			if asks, total := r.all(); total != test.size || len(asks) > 2 || test.size <= mib && len(asks) > 1 {
				t.Errorf("%d bytes in %v", total, asks)
			}
			b.want(req, data, freshet.OriginHit)
		})
	}
}

// TestWithoutPartialCaching: only what is read as a whole is kept.
func TestWithoutPartialCaching(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{caching: keeping(false, true)})
	data := pages(1, 3*mib)
	req := b.put("a", data, 1)
	r := b.record()
	for _, at := range []ask{{0, 10}, {mib, mib}, {1, 3*mib - 1}} {
		b.want(withRange(req, at.off, at.n), data[at.off:at.off+at.n], freshet.OriginUFS)
	}
	asks, _ := r.all()
	if !slices.Equal(asks, []ask{{0, 10}, {mib, mib}, {1, 3*mib - 1}}) || b.blocks.Used() != 0 {
		t.Errorf("%v, %d bytes are cached", asks, b.blocks.Used())
	}

	// Who leaves early leaves nothing, unless somebody else reads on.
	gate := make(chan struct{})
	r.body = func(ctx context.Context, _ int, rc io.ReadCloser) io.ReadCloser { return &gated{rc, ctx, gate, mib} }
	one, err := b.filler.Read(t.Context(), req)
	check(t, err)
	check(t, one.Close())
	for b.blocks.Used() > 0 {
		<-time.After(time.Microsecond)
	}
	one, err = b.filler.Read(t.Context(), req)
	check(t, err)
	two, err := b.filler.Read(t.Context(), req)
	check(t, err)
	check(t, one.Close())
	close(gate)
	got, err := io.ReadAll(two)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	check(t, two.Close())
	b.awaitCached(req.Block.ID)
	b.want(req, data, freshet.OriginHit)
}

// gated is a body that stands still after some bytes until the gate is closed.
type gated struct {
	io.ReadCloser

	ctx  context.Context //nolint:containedctx // that of the body
	gate chan struct{}
	left int
}

func (g *gated) Read(p []byte) (int, error) {
	if g.left <= 0 {
		select {
		case <-g.gate:
		case <-g.ctx.Done():
			return 0, g.ctx.Err()
		}
	} else {
		p = p[:min(len(p), g.left)]
	}
	n, err := g.ReadCloser.Read(p)
	g.left -= n
	return n, err
}

// TestColumnarReads reads as engines read Parquet: the last bytes, the footer, then
// column chunks. What the storage is asked for is those ranges and the block, once.
func TestColumnarReads(t *testing.T) {
	t.Parallel()
	var bg background
	b := newBed(t, settings{capacity: 256 * mib, watch: bg.watch()})
	const size = 64 * mib
	data := pages(1, size)
	req := b.put("a", data, 1)
	r := b.record()
	reads := []ask{{size - 8, 8}, {size - 64<<10, 64 << 10}, {4 * mib, 300_000}, {20 * mib, 2 * mib}, {41 * mib, 900_000}, {50*mib + 5, mib}}
	var asked int64
	for _, at := range reads {
		got, _, err := b.read(withRange(req, at.off, at.n))
		if err != nil || !bytes.Equal(got, data[at.off:at.off+at.n]) {
			t.Fatalf("%d bytes at %d: %v", len(got), at.off, err)
		}
		asked += at.n
	}
	b.awaitCached(req.Block.ID)
	asks, total := r.all()
	if total > size+asked || len(asks) > len(reads)+8 {
		t.Errorf("%d bytes in %d requests: %v", total, len(asks), asks)
	}
	for _, at := range reads {
		b.want(withRange(req, at.off, at.n), data[at.off:at.off+at.n], freshet.OriginHit)
	}
	if after, _ := r.all(); len(after) != len(asks) {
		t.Error("hits cost requests")
	}
	t.Logf("%d ranges of %d bytes cost %d requests of %d bytes, the block being %d", len(reads), asked, len(asks), total, size)
}

func TestReadersOfOneRangeShareIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, settings{caching: keeping(false, true)})
		defer b.stop()
		data := pages(1, 8*mib)
		req := b.put("a", data, 1)
		r := b.record()
		gate := make(chan struct{})
		r.onOpen = func(context.Context, int, ask) error { <-gate; return nil }
		var wg sync.WaitGroup
		read := func(off, n int64) {
			wg.Go(func() {
				got, _, err := b.read(withRange(req, off, n))
				if err != nil || !bytes.Equal(got, data[off:off+n]) {
					t.Errorf("%d bytes at %d: %v", len(got), off, err)
				}
			})
		}
		read(7*mib, 100_000)
		synctest.Wait()
		for i := range int64(99) {
			read(7*mib+i*1000, 1000)
		}
		synctest.Wait() // all are here: who came after the others had left would ask for itself
		close(gate)
		wg.Wait()
		if asks, _ := r.all(); !slices.Equal(asks, []ask{{7 * mib, 100_000}}) {
			t.Errorf("%d requests: %v", len(asks), asks)
		}
		if b.blocks.Used() != 0 {
			t.Error("something was cached")
		}
	})
}

func TestHundredReadersOfOneBlockAreOneRequest(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"", t.TempDir()} {
		b := newBed(t, settings{dir: dir})
		for size, mixed := range map[int]bool{mib: true, 3 * mib: false} {
			data := pages(1, size)
			req := b.put("a", data, freshet.FileID(size))
			r := b.record()
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() {
					q := req
					if mixed {
						q = withRange(req, int64(99-i)*8000, int64(1+i*100))
					}
					got, _, err := b.read(q)
					want := data
					if mixed {
						want = data[q.Offset : q.Offset+q.Length]
					}
					if err != nil || !bytes.Equal(got, want) {
						t.Errorf("reader %d: %d bytes, %v", i, len(got), err)
					}
				})
			}
			wg.Wait()
			if asks, _ := r.all(); len(asks) != 1 {
				t.Errorf("a block of %d bytes: %v", size, asks)
			}
		}
	}
}

// TestHundredReadersOfALongBlockAskForEachRangeOnce: the readers of a cold block that
// comes in several requests, of which some begin in the midst of it, share all of them.
func TestHundredReadersOfALongBlockAskForEachRangeOnce(t *testing.T) {
	t.Parallel()
	const size, ranges = 64 * mib, 8 // of the default length of a range
	data := pages(1, size)
	for kind, dir := range map[string]string{"memory": "", "disk": t.TempDir()} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t, settings{dir: dir, capacity: 2 * size})
				defer b.stop()
				req := b.put("a", data, 1)
				r := b.record()
				gate := make(chan struct{})
				r.onOpen = func(context.Context, int, ask) error { <-gate; return nil }
				var wg sync.WaitGroup
				for i := range 100 {
					wg.Go(func() {
						q := withRange(req, 0, size)
						if i%2 == 1 {
							q = withRange(req, int64(i)*300_001, size/2) // half of a block comes as all of it does
						}
						s, err := b.filler.Read(t.Context(), q)
						if err != nil {
							t.Errorf("reader %d: %v", i, err)
							return
						}
						want := sameAs(data[q.Offset : q.Offset+q.Length])
						if n, err := io.Copy(&want, s); err != nil || n != q.Length {
							t.Errorf("reader %d: %d bytes, %v", i, n, err)
						}
						if err := s.Close(); err != nil {
							t.Errorf("reader %d: %v", i, err)
						}
					})
					if i == 0 {
						synctest.Wait() // the first one divides the block
					}
				}
				synctest.Wait()
				close(gate)
				wg.Wait()
				asks, total := r.all()
				slices.SortFunc(asks, func(x, y ask) int { return int(x.off - y.off) })
				for i, a := range asks {
					if a != (ask{int64(i) * size / ranges, size / ranges}) {
						t.Errorf("request %d was for %+v", i, a)
					}
				}
				if len(asks) != ranges || total != size {
					t.Errorf("%d bytes in %d requests", total, len(asks))
				}
			})
		})
	}
}

// sameAs takes just the bytes that it has: so many readers of so many bytes can't keep
// them all to be compared at the end.
type sameAs []byte

func (s *sameAs) Write(p []byte) (int, error) {
	if len(p) > len(*s) || !bytes.Equal(p, (*s)[:len(p)]) {
		return 0, errors.New("wrong bytes")
	}
	*s = (*s)[len(p):]
	return len(p), nil
}

// TestBackgroundGivesWayToReaders: as long as a reader waits for the storage the
// background gets one piece in a tenth of a second, and the reader loses no time.
func TestBackgroundGivesWayToReaders(t *testing.T) {
	t.Parallel()
	var alone time.Duration
	for _, busy := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var bg background
			b := newBed(t, settings{capacity: 256 * mib, watch: bg.watch(), opts: fill.Options{Parallel: 1}})
			defer b.stop()
			first, second := b.put("a", pages(1, 32*mib), 1), b.put("b", pages(2, 32*mib), 2)
			r := b.record()
			r.body = func(_ context.Context, _ int, rc io.ReadCloser) io.ReadCloser { return slowly{rc} }
			if busy {
				b.want(withRange(first, 20*mib, 10), pages(1, 32*mib)[20*mib:20*mib+10], freshet.OriginUFS)
			}
			begun := time.Now()
			b.want(second, pages(2, 32*mib), freshet.OriginUFS)
			took := time.Since(begun)
			if !busy {
				alone = took
				return
			}
			pieces := bg.bytes.Load() / tier.ChunkSize
			if most := int64(took/(100*time.Millisecond)) + 4; pieces > most || pieces < most/2 {
				t.Errorf("%d pieces in %v", pieces, took)
			}
			if took != alone {
				t.Errorf("the reader took %v, alone %v", took, alone)
			}
			b.awaitCached(second.Block.ID)
			b.awaitCached(first.Block.ID) // now nobody is in its way
			if total := time.Since(begun) - took; total > 3*alone {
				t.Errorf("the background took %v more, a reader %v", total, alone)
			}
		})
	}
}

// slowly is a body that gives up to 64 KiB in ten milliseconds.
type slowly struct{ io.ReadCloser }

func (s slowly) Read(p []byte) (int, error) {
	time.Sleep(10 * time.Millisecond)
	return s.ReadCloser.Read(p[:min(len(p), 64<<10)])
}

func TestBackgroundKeepsToItsRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, settings{opts: fill.Options{BackgroundRate: mib}})
		defer b.stop()
		reqs := []freshet.BlockRead{b.put("a", pages(1, 8*mib), 1), b.put("b", pages(2, 8*mib), 2)}
		begun := time.Now()
		for _, req := range reqs {
			_, _, err := b.read(withRange(req, 7*mib, 10))
			check(t, err)
		}
		<-b.added
		<-b.added
		if took := time.Since(begun); took < 13*time.Second || took > 18*time.Second {
			t.Errorf("16 MiB at 1 MiB/s took %v", took)
		}
	})
}

// TestReaderMakesTheBackgroundHurry: the rate is not for what a reader waits for.
func TestReaderMakesTheBackgroundHurry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, settings{opts: fill.Options{BackgroundRate: 1000}})
		defer b.stop()
		data := pages(1, 8*mib)
		req := b.put("a", data, 1)
		_, _, err := b.read(withRange(req, 7*mib, 10))
		check(t, err)
		time.Sleep(time.Second) // the background waits for its rate
		begun := time.Now()
		b.want(req, data, freshet.OriginUFS)
		if took := time.Since(begun); took > time.Second {
			t.Errorf("a reader waited %v for the rate of the background", took)
		}
	})
}

func TestBackgroundIsBounded(t *testing.T) {
	t.Parallel()
	var bg background
	b := newBed(t, settings{watch: bg.watch(), opts: fill.Options{Background: 2}})
	data := pages(1, 2*mib)
	r := b.record()
	gate := make(chan struct{})
	var under, most atomic.Int64
	r.onOpen = func(_ context.Context, _ int, a ask) error {
		if a.n > 10 {
			most.Store(max(most.Load(), under.Add(1)))
			<-gate
			under.Add(-1)
		}
		return nil
	}
	const files = 300
	for i := range files {
		req := b.put("a", data, freshet.FileID(i+1))
		b.want(withRange(req, mib+5, 10), data[mib+5:mib+15], freshet.OriginUFS)
	}
	if n := bg.ended("dropped"); n < files-256-2 || n > files-256 {
		t.Errorf("%d of %d were dropped", n, files)
	}
	close(gate)
	for bg.ended("cached")+bg.ended("failed")+bg.ended("dropped") < files {
		<-time.After(time.Millisecond)
	}
	if most.Load() > 2 {
		t.Errorf("%d at a time", most.Load())
	}
}

// TestNoCacheLeavesNoTrace: nothing comes into a full tier, nothing goes from it, and
// what is there is used.
func TestNoCacheLeavesNoTrace(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{capacity: 4*mib + 1000})
	for i := range 4 {
		req := b.put("a", pages(1, mib), freshet.FileID(i+1))
		b.want(req, pages(1, mib), freshet.OriginUFS)
		b.awaitCached(req.Block.ID)
	}
	before, used := b.blocks.List(), b.blocks.Used()
	rnd := rand.New(rand.NewPCG(1, 2))
	other := b.put("b", pages(2, 3*mib), 77)
	other.Type = freshet.ReadNoCache
	for range 50 {
		off := rnd.Int64N(3 * mib)
		n := rnd.Int64N(3*mib - off)
		got, from, err := b.read(withRange(other, off, n))
		if n > 0 && (err != nil || from != freshet.OriginUFS || !bytes.Equal(got, pages(2, 3*mib)[off:off+n])) {
			t.Fatalf("%d bytes at %d from %v: %v", n, off, from, err)
		}
	}
	hit := b.put("a", pages(1, mib), 2)
	hit.Type = freshet.ReadNoCache
	b.want(hit, pages(1, mib), freshet.OriginHit)
	byID := func(x, y freshet.BlockReport) int { return int(x.ID.File) - int(y.ID.File) }
	after := b.blocks.List()
	slices.SortFunc(before, byID)
	slices.SortFunc(after, byID)
	if !slices.Equal(before, after) || b.blocks.Used() != used {
		t.Errorf("before: %v, %d bytes; after: %v, %d", before, used, after, b.blocks.Used())
	}
}

func TestCopiesOfOtherNodesBlocks(t *testing.T) {
	t.Parallel()
	data := pages(1, 2*mib)
	for name, test := range map[string]struct {
		passive, full bool
		nodes         []freshet.Node
		kept          bool
	}{
		"passive":                  {true, false, nodes("n1"), true},
		"not passive":              {false, false, nodes("n1"), false},
		"enough copies":            {true, true, nodes("n1"), false},
		"enough, this one counted": {true, true, nodes("n1", self), true},
		"nobody has it":            {false, false, nil, true},
	} {
		for _, off := range []int64{0, mib + 10} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				p := &peers{data: map[freshet.NodeID][]byte{"n1": data}}
				b := newBed(t, settings{remote: p, caching: keeping(true, test.passive)})
				req := b.put("a", data, 1)
				req.Block.Nodes, req.Block.Full = test.nodes, test.full
				if off > 0 {
					req = withRange(req, off, 10)
				}
				origin := freshet.OriginUFS
				if test.nodes != nil {
					origin = freshet.OriginRemote
				}
				want := data
				if off > 0 {
					want = data[off : off+10]
				}
				b.want(req, want, origin)
				if test.kept {
					b.awaitCached(req.Block.ID)
					return
				}
				b.stop()
				b.wantNotCached(req.Block.ID)
			})
		}
	}
}
