package fill_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/fill"
	"github.com/freshet-io/freshet/ufs/mem"
)

func TestBlockComesInRangesAtATime(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"", t.TempDir()} {
		b := newBed(t, settings{dir: dir, opts: fill.Options{Range: mib, Parallel: 3}})
		data := pages(1, 7*mib+100)
		req := b.put("a", data, 1)
		r := b.record()
		gate, opened := make(chan struct{}), make(chan ask, 100)
		var under, most atomic.Int64
		r.onOpen = func(_ context.Context, _ int, a ask) error {
			most.Store(max(most.Load(), under.Add(1)))
			opened <- a
			<-gate
			under.Add(-1)
			return nil
		}
		done := make(chan error, 1)
		go func() {
			got, _, err := b.read(req)
			if err == nil && !bytes.Equal(got, data) {
				err = fmt.Errorf("other bytes")
			}
			done <- err
		}()
		for range 3 {
			<-opened
		}
		close(gate)
		check(t, <-done)
		b.awaitCached(req.Block.ID)
		asks, total := r.all()
		slices.SortFunc(asks, func(a, b ask) int { return int(a.off - b.off) })
		if len(asks) != 8 || total != int64(len(data)) || most.Load() > 3 {
			t.Errorf("%v, %d at a time", asks, most.Load())
		}
		b.want(req, data, freshet.OriginHit)
	}
}

// TestOneSlowRangeHoldsUpOnlyItsReaders: who wants bytes that are there gets them.
func TestOneSlowRangeHoldsUpOnlyItsReaders(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{opts: fill.Options{Range: mib, Parallel: 4}})
	data := pages(1, 4*mib)
	req := b.put("a", data, 1)
	r := b.record()
	gate := make(chan struct{})
	r.onOpen = func(_ context.Context, _ int, a ask) error {
		if a.off == 0 {
			<-gate
		}
		return nil
	}
	done := make(chan error, 1)
	go func() { _, _, err := b.read(req); done <- err }()
	for asks, _ := r.all(); len(asks) < 4; asks, _ = r.all() {
		<-time.After(time.Microsecond)
	}
	b.want(withRange(req, 3*mib, 1000), data[3*mib:3*mib+1000], freshet.OriginUFS)
	if asks, _ := r.all(); len(asks) != 4 {
		t.Errorf("%v", asks)
	}
	close(gate)
	check(t, <-done)
}

// TestNextBlockComesAhead: the reader of one block finds the next under way.
func TestNextBlockComesAhead(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{opts: fill.Options{Range: mib}})
	data := pages(1, 8*mib)
	first := b.put("a", data, 1)
	first.Block.Length = 4 * mib
	second := first
	second.Block.ID.Index, second.Block.Offset = 1, 4*mib
	r := b.record()
	for i := range 2 { // what is there is not fetched again
		if !b.filler.Ahead(second) {
			t.Fatal("it was not taken")
		}
		b.want(first, data[:4*mib], s2(b, first))
		if i == 0 {
			b.awaitCached(second.Block.ID)
		}
		b.want(second, data[4*mib:], freshet.OriginHit)
		if asks, total := r.all(); len(asks) != 8 || total != 8*mib {
			t.Errorf("%v", asks)
		}
	}
	c := newBed(t, settings{caching: keeping(false, true)})
	third := c.put("a", data, 1)
	if c.filler.Ahead(third) {
		t.Error("it is fetched ahead where only whole reads are kept")
	}
	c.stop()
	c.wantNotCached(third.Block.ID)
}

// TestSourceThatBreaksOffIsAskedForTheRest in each kind of read.
func TestSourceThatBreaksOffIsAskedForTheRest(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		off, n int64
		typ    freshet.ReadType
	}{
		"block": {0, 5 * mib, freshet.ReadCache},
		"range": {mib + 5, 900_000, freshet.ReadCache},
		"long":  {mib + 5, 2 * mib, freshet.ReadNoCache},
	} {
		for _, changed := range []bool{false, true} {
			t.Run(fmt.Sprint(name, changed), func(t *testing.T) {
				t.Parallel()
				b := newBed(t, settings{opts: fill.Options{Range: 2 * mib}, caching: keeping(false, true)})
				data := pages(1, 5*mib)
				req := b.put("a", data, 1)
				req.Type = test.typ
				r := b.record()
				r.body = func(_ context.Context, i int, rc io.ReadCloser) io.ReadCloser {
					if i > 5 {
						return rc
					}
					if changed {
						b.store.Put("a", pages(2, 5*mib))
					}
					return &breaking{rc, 100_000 + 1000*i, unavailable()}
				}
				got, _, err := b.read(withRange(req, test.off, test.n))
				if changed {
					if !freshet.IsKind(err, freshet.KindStale) {
						t.Errorf("%d bytes, %v", len(got), err)
					}
					b.stop()
					b.wantNotCached(req.Block.ID)
					return
				}
				if err != nil || !bytes.Equal(got, data[test.off:test.off+test.n]) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				asks, _ := r.all()
				if len(asks) < 7 {
					t.Errorf("%v", asks)
				}
				for _, w := range r.want {
					if w != req.Source.Fingerprint.String() {
						t.Errorf("asked for version %s", w)
					}
				}
			})
		}
	}
}

func TestSourceThatBreaksOffForeverIsAnError(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{})
	req := b.put("a", pages(1, 5*mib), 1)
	r := b.record()
	r.body = func(_ context.Context, _ int, rc io.ReadCloser) io.ReadCloser {
		return &breaking{rc, 70_000, unavailable()}
	}
	for _, typ := range []freshet.ReadType{freshet.ReadCache, freshet.ReadNoCache} {
		req.Type = typ
		if got, _, err := b.read(req); !freshet.IsKind(err, freshet.KindUnavailable) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	if asks, _ := r.all(); len(asks) > 25 {
		t.Errorf("%d requests", len(asks))
	}
	if b.stop(); b.blocks.Used() != 0 {
		t.Error("something is cached")
	}
}

// TestTierThatFailsInTheMiddle: readers go on from the storage where they are.
func TestTierThatFailsInTheMiddle(t *testing.T) {
	t.Parallel()
	for _, errno := range []error{syscall.EIO, syscall.ENOSPC} {
		for _, op := range []string{"create", "write", "publish"} {
			t.Run(fmt.Sprint(errno, op), func(t *testing.T) {
				t.Parallel()
				var broken atomic.Bool
				var left atomic.Int64
				b := newBed(t, settings{dir: t.TempDir(), opts: fill.Options{Range: mib}, fault: func(_, at string) error {
					if broken.Load() && at == op && left.Add(-1) < 0 {
						return errno
					}
					return nil
				}})
				data := pages(1, 4*mib)
				req := b.put("a", data, 1)
				if op == "write" {
					left.Store(7)
				}
				broken.Store(true)
				var wg sync.WaitGroup
				for i := range 20 {
					wg.Go(func() {
						q := withRange(req, int64(i)*1000, 4*mib-int64(i)*1000)
						got, _, err := b.read(q)
						if err != nil || !bytes.Equal(got, data[q.Offset:]) {
							t.Errorf("reader %d: %d bytes, %v", i, len(got), err)
						}
					})
				}
				wg.Wait()
				b.wantNotCached(req.Block.ID)
				broken.Store(false)
				got, _, err := b.read(req)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			})
		}
	}
}

// TestReadersDontPinMemory: 64 cold blocks on the way to a disk, each with a reader
// that took one byte, cost no more than the buffers of the requests.
func TestReadersDontPinMemory(t *testing.T) {
	const streams, size = 64, 4 * mib
	b := newBed(t, settings{dir: t.TempDir(), capacity: 2 * streams * size, opts: fill.Options{Range: mib}})
	data := pages(1, size)
	b.store.Put("a", data)
	st, err := b.fs.Stat(t.Context(), "a")
	check(t, err)
	live := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := live()
	var all []*fill.Stream
	for i := range streams {
		req := freshet.BlockRead{
			Block:  freshet.Block{ID: freshet.BlockID{File: freshet.FileID(i + 1)}, Length: size},
			Source: freshet.Source{Mount: 1, Key: "a", Fingerprint: st.Fingerprint}, Length: -1,
		}
		s, err := b.filler.Read(t.Context(), req)
		check(t, err)
		_, err = io.ReadFull(s, make([]byte, 1))
		check(t, err)
		all = append(all, s)
	}
	for range streams { // nobody waits for the slow readers
		<-b.added
	}
	if grown := int64(live()) - int64(before); grown > 128*(256<<10)+8*mib {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
	for _, s := range all {
		rest, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(rest, data[1:]) {
			t.Errorf("%d bytes, %v", len(rest), err)
		}
		check(t, s.Close())
	}
}

// TestRangesOfChangingFiles reads ranges of all sizes of files that are overwritten
// while sources break off and blocks are evicted: each answer is of the one version
// that was asked for.
func TestRangesOfChangingFiles(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{mode: mem.Local, dir: t.TempDir(), capacity: 9 * mib, opts: fill.Options{Range: 512 << 10, Parallel: 3, Far: 256 << 10}})
	const size = 3*mib + 1234
	r := b.record()
	r.body = func(_ context.Context, i int, rc io.ReadCloser) io.ReadCloser {
		if i%5 == 0 {
			return &breaking{rc, 10_000 + i*997%900_000, unavailable()}
		}
		return rc
	}
	var mu sync.Mutex
	var current [4]freshet.BlockRead
	var next atomic.Uint64
	next.Store(100)
	renew := func(k int) {
		mu.Lock()
		defer mu.Unlock()
		key := string(rune('a' + k))
		v := next.Add(1)
		if current[k].Source.Key == "" {
			current[k] = b.put(key, pages(v, size), freshet.FileID(v))
			return
		}
		b.store.Rewrite(key, pages(v, size))
		st, err := b.fs.Stat(t.Context(), key)
		check(t, err)
		current[k].Block.ID.File, current[k].Source.Fingerprint = freshet.FileID(v), st.Fingerprint
	}
	for k := range current {
		renew(k)
	}
	var good atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 5))
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				req := current[rnd.IntN(len(current))]
				mu.Unlock()
				if off := rnd.Int64N(size - 32); rnd.IntN(3) > 0 {
					req = withRange(req, off, 32+rnd.Int64N(min(size-off-32, 1<<rnd.IntN(22))+1))
				}
				if rnd.IntN(8) == 0 {
					req.Type = freshet.ReadNoCache
				}
				got, _, err := b.read(req)
				if err == nil {
					good.Add(1)
					var v uint64
					if v, err = versionOf(req.Offset, got); err != nil || v != uint64(req.Block.ID.File) {
						t.Errorf("%d bytes at %d are of version %d, not %d: %v", len(got), req.Offset, v, req.Block.ID.File, err)
					}
				} else if !freshet.IsKind(err, freshet.KindStale, freshet.KindUnavailable) {
					t.Error(err)
				}
			}
		})
	}
	for i := range 40 {
		for before := good.Load(); good.Load() < before+5; {
			<-time.After(time.Microsecond)
		}
		renew(i % len(current))
	}
	close(stop)
	wg.Wait()
}
