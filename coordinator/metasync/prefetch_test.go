package metasync_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/invalidation"
)

// files puts n files in a directory of the storage.
func (b *bed) files(dir string, n int) {
	for i := range n {
		b.store.Put(fmt.Sprintf("%s/f%05d", dir, i), []byte("x"))
	}
}

func file(dir freshet.Path, i int) freshet.Path { return dir.Join(fmt.Sprintf("f%05d", i)) }

// list makes the listing of dir fresh as a reader does.
func (b *bed) list(dir freshet.Path) []string {
	b.Helper()
	infos, _, err := b.Children(b.Context(), dir, "", 100_000, b.rule)
	if err != nil {
		b.Fatal(err)
	}
	names := make([]string, 0, len(infos))
	for i := range infos {
		names = append(names, infos[i].Path.Base())
	}
	return names
}

func (b *bed) prefetched(result float64) {
	b.Helper()
	b.until(fmt.Sprint(result, " prefetches ended"), func() bool {
		return b.metric("freshet_prefetch_listings_total") >= result && b.PrefetchIdle()
	})
}

// outOfPatience lets a prefetch that waits for its budget give up.
func (b *bed) outOfPatience() {
	b.Helper()
	if err := b.clock.AwaitTimers(b.Context(), 2); err != nil {
		b.Fatal(err)
	}
	b.clock.Advance(time.Second)
}

func TestLookingUpOneByOneListsTheDirectory(t *testing.T) {
	t.Parallel()
	for _, interval := range []freshet.Interval{freshet.Never, freshet.Interval(time.Hour)} {
		b := newBed(t, metasync.Options{Prefetch: metasync.PrefetchOptions{Rule: metasync.Fixed(interval)}})
		b.rule = metasync.Fixed(interval)
		b.files("d", 50)
		b.prefetches()
		for i := range 4 {
			b.present(file("/m/d", i))
		}
		b.prefetched(1)
		b.free("the others", func() {
			for i := range 50 {
				b.present(file("/m/d", i))
			}
			b.absent("/m/d/none")
		})
		if used, calls := b.metric("freshet_prefetch_used_total"), b.metric("freshet_prefetch_calls_total"); used != 1 || calls != 1 {
			t.Errorf("%v used, %v calls", used, calls)
		}
		if n := b.metric("freshet_prefetch_bytes"); n != 0 {
			t.Errorf("%v bytes are counted after all was used", n)
		}
	}
}

// TestNothingIsPrefetchedThatNobodyHasToAskFor: what is fresh, what would not be
// served, and what is no sequence.
func TestNothingIsPrefetchedThatNobodyHasToAskFor(t *testing.T) {
	t.Parallel()
	never := metasync.Fixed(freshet.Never)
	for name, c := range map[string]struct {
		opts metasync.PrefetchOptions
		rule metasync.Rule
		read func(b *bed)
	}{
		"fresh": {metasync.PrefetchOptions{}, never, func(b *bed) {
			b.list("/m/d")
			b.rule = metasync.Fixed(freshet.Always) // of these calls alone
			for i := range 20 {
				b.present(file("/m/d", i))
			}
		}},
		"always": {metasync.PrefetchOptions{Rule: metasync.Fixed(freshet.Always)}, metasync.Fixed(freshet.Always), func(b *bed) {
			for i := range 20 {
				b.present(file("/m/d", i))
				b.list(freshet.Path(fmt.Sprintf("/m/s%d", i%10)))
			}
		}},
		"the same three": {metasync.PrefetchOptions{}, metasync.Fixed(freshet.Always), func(b *bed) {
			for i := range 60 {
				b.present(file("/m/d", i%3))
			}
		}},
		"now and then": {metasync.PrefetchOptions{}, never, func(b *bed) {
			for i := range 20 {
				b.clock.Advance(time.Minute)
				b.present(file("/m/d", i))
			}
		}},
		"here and there": {metasync.PrefetchOptions{}, never, func(b *bed) {
			for i := range 10 {
				b.present(file(freshet.Path(fmt.Sprintf("/m/s%d", i)), 0))
			}
		}},
		"off": {metasync.PrefetchOptions{Off: true}, never, func(b *bed) {
			for i := range 20 {
				b.present(file("/m/d", i))
			}
		}},
		"background work": {metasync.PrefetchOptions{}, never, func(b *bed) {
			ctx := metasync.WithClass(b.Context(), metasync.ClassBackground)
			for i := range 20 {
				if _, err := b.Entry(ctx, file("/m/d", i), b.rule); err != nil {
					b.Fatal(err)
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, metasync.Options{Prefetch: c.opts})
			b.rule = c.rule
			b.files("d", 20)
			for i := range 10 {
				b.files(fmt.Sprintf("s%d", i), 2)
			}
			if !c.opts.Off {
				b.prefetches()
			}
			c.read(b)
			b.until("idle", b.PrefetchIdle)
			if n := b.metric("freshet_prefetch_calls_total"); n != 0 {
				t.Errorf("%v calls", n)
			}
		})
	}
}

func TestDirectoriesThatFollowAreListedAhead(t *testing.T) {
	t.Parallel()
	b := newBed(t, metasync.Options{Prefetch: metasync.PrefetchOptions{Ahead: 3, Share: 8}})
	b.rule = metasync.Fixed(freshet.Interval(time.Hour))
	dir := func(i int) freshet.Path { return freshet.Path(fmt.Sprintf("/m/d%02d", i)) }
	for i := range 12 {
		b.files(fmt.Sprintf("d%02d", i), 3)
	}
	b.list("/m")
	b.prefetches()
	for i := range 3 {
		b.list(dir(i))
	}
	b.prefetched(3)
	for i := 3; i < 12; i++ { // each that is used has another one made
		b.until(fmt.Sprint(dir(i), " is there"), func() bool {
			in, err := b.Inspect(dir(i), b.rule)
			return err == nil && in.Listing.Fresh
		})
		if _, asked, err := b.Listing(t.Context(), dir(i), b.rule); asked || err != nil {
			t.Errorf("%s was asked for: %t, %v", dir(i), asked, err)
		}
		if names := b.list(dir(i)); len(names) != 3 {
			t.Errorf("%s: %v", dir(i), names)
		}
	}
	b.until("idle", b.PrefetchIdle)
	if calls, used := b.metric("freshet_prefetch_calls_total"), b.metric("freshet_prefetch_used_total"); calls != 9 || used != 9 {
		t.Errorf("%v made, %v used", calls, used)
	}
}

func TestPrefetchingKeepsToItsBudget(t *testing.T) {
	t.Parallel()
	t.Run("calls", func(t *testing.T) {
		t.Parallel()
		b := newBed(t, metasync.Options{Prefetch: metasync.PrefetchOptions{Share: 0.25}})
		b.files("d", 9000) // 9 pages, and the budget of 4 lookups is one
		b.prefetches()
		for i := range 4 {
			b.present(file("/m/d", i))
		}
		b.outOfPatience()
		b.prefetched(1)
		if n := b.metric("freshet_prefetch_calls_total"); n != 1 {
			t.Errorf("%v calls", n)
		}
		for i := range 7 { // it is tried again only after twice as many
			b.present(file("/m/d", 8000+i))
		}
		b.until("idle", b.PrefetchIdle)
		if n := b.metric("freshet_prefetch_listings_total"); n != 1 {
			t.Errorf("%v prefetches", n)
		}
		b.present(file("/m/d", 8007))
		b.outOfPatience()
		b.prefetched(2)
		if n := b.metric("freshet_prefetch_calls_total"); n != 3 {
			t.Errorf("%v calls after 12 lookups", n)
		}
		if n := b.metric("freshet_prefetch_bytes"); n != 0 {
			t.Errorf("%v bytes are counted for prefetches that were given up", n)
		}
	})
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		b := newBed(t, metasync.Options{Prefetch: metasync.PrefetchOptions{Bytes: 100 * 206}})
		b.files("d", 3000)
		b.files("e", 50)
		b.prefetches()
		for i := range 20 {
			b.present(file("/m/d", i))
		}
		b.prefetched(1)
		if n := b.metric("freshet_prefetch_used_total") + b.metric("freshet_prefetch_bytes"); n != 0 {
			t.Errorf("the listing does not fit, and was made: %v", n)
		}
		for i := range 4 {
			b.present(file("/m/e", i))
		}
		b.prefetched(2)
		b.free("one that fits", func() { b.present(file("/m/e", 40)) })
	})
}

// TestAReaderThatJoinsAPrefetchGetsIt, although its budget is spent.
func TestAReaderThatJoinsAPrefetchGetsIt(t *testing.T) {
	t.Parallel()
	b := newBed(t, metasync.Options{Prefetch: metasync.PrefetchOptions{Share: 0.25}, Clock: clock.Real{}})
	b.files("d", 5000)
	b.prefetches()
	began := make(chan struct{}, 100)
	b.onStep(func(step, _ string) error {
		if step == "list" {
			began <- struct{}{}
		}
		return nil
	})
	for i := range 4 {
		b.present(file("/m/d", i))
	}
	<-began
	if n := len(b.list("/m/d")); n != 5000 {
		t.Errorf("%d entries", n)
	}
}

// TestABackgroundSyncThatJoinsAPrefetchDoesNotWaitForItsBudget beyond the time for
// which the prefetch itself does.
func TestABackgroundSyncThatJoinsAPrefetchDoesNotWaitForItsBudget(t *testing.T) {
	t.Parallel()
	b := newBed(t, metasync.Options{Prefetch: metasync.PrefetchOptions{Share: 0.25}})
	b.files("d", 5000)
	b.prefetches()
	for i := range 4 {
		b.present(file("/m/d", i))
	}
	if err := b.clock.AwaitTimers(t.Context(), 2); err != nil { // it waits for its budget
		t.Fatal(err)
	}
	background := metasync.WithClass(t.Context(), metasync.ClassBackground)
	done := make(chan error, 1)
	go func() {
		infos, _, err := b.Children(background, "/m/d", "", 100_000, b.rule)
		if err == nil && len(infos) != 5000 {
			err = fmt.Errorf("%d entries", len(infos))
		}
		done <- err
	}()
	b.until("it has joined", func() bool { return b.Waiting("/m/d") == 2 })
	b.clock.Advance(time.Second) // once, and no more
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestAReadersOwnLookIsNoUseOfAPrefetch although the prefetch ends before the reader
// that it was made for has its answer.
func TestAReadersOwnLookIsNoUseOfAPrefetch(t *testing.T) {
	t.Parallel()
	b := newBed(t, metasync.Options{})
	b.files("d", 20)
	b.prefetches()
	b.mu.Lock()
	b.read = func(p freshet.Path) {
		if p == file("/m/d", 3) && (!b.PrefetchIdle() || b.metric("freshet_prefetch_listings_total") > 0) {
			b.prefetched(1)
		}
	}
	b.mu.Unlock()
	for i := range 4 {
		b.present(file("/m/d", i))
	}
	b.prefetched(1)
	if n := b.metric("freshet_prefetch_used_total"); n != 0 {
		t.Errorf("%v used", n)
	}
	b.present(file("/m/d", 10))
	if n := b.metric("freshet_prefetch_used_total"); n != 1 {
		t.Errorf("%v used by another", n)
	}
}

func TestAPrefetchThatBeganBeforeARecordIsNotServed(t *testing.T) {
	t.Parallel()
	b := newBed(t, metasync.Options{})
	b.files("d", 20)
	b.prefetches()
	began, resume := make(chan struct{}), make(chan struct{})
	b.onStep(func(step, _ string) error {
		if step == "list" {
			close(began)
			<-resume
		}
		return nil
	})
	for i := range 4 {
		b.present(file("/m/d", i))
	}
	<-began
	b.onStep(nil)
	b.record(invalidation.Record{Kind: invalidation.KindContent, Key: "/d/f00010"})
	close(resume)
	b.prefetched(1)
	b.costs("what was marked meanwhile", func() { b.present(file("/m/d", 10)) })
	b.free("what was not", func() { b.present(file("/m/d", 11)) })
}

func TestWhatNobodyUsesIsWasted(t *testing.T) {
	t.Parallel()
	b := newBed(t, metasync.Options{})
	b.files("d", 20)
	b.files("e", 20)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Prefetch(ctx) }()
	b.until("prefetching runs", b.Prefetches)
	for i := range 4 {
		b.present(file("/m/d", i))
	}
	b.prefetched(1)
	b.clock.Advance(2 * time.Minute)
	for i := range 4 {
		b.present(file("/m/e", i))
	}
	b.prefetched(2)
	if n := b.metric("freshet_prefetch_wasted_total"); n != 1 {
		t.Errorf("%v wasted", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n, bytes := b.metric("freshet_prefetch_wasted_total"), b.metric("freshet_prefetch_bytes"); n != 2 || bytes != 0 {
		t.Errorf("%v wasted at the end, %v bytes", n, bytes)
	}
	b.files("g", 20)
	for i := range 20 {
		b.present(file("/m/g", i))
	}
	if !b.PrefetchIdle() {
		t.Error("something is asked for after the end")
	}
}

// TestPrefetchingChangesNoAnswer compares every answer with the storage, of which
// every change is told.
func TestPrefetchingChangesNoAnswer(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 9))
			b := newBed(t, metasync.Options{Prefetch: metasync.PrefetchOptions{After: 2, Share: 4}})
			b.prefetches()
			there := map[string]bool{}
			name := func() (dir, name string) { return fmt.Sprintf("d%d", rnd.IntN(5)), fmt.Sprintf("f%d", rnd.IntN(8)) }
			for range 250 {
				dir, f := name()
				key, p := dir+"/"+f, freshet.Path("/m/"+dir+"/"+f)
				switch rnd.IntN(5) {
				case 0:
					if there[key] = !there[key]; there[key] {
						b.store.Put(key, []byte("x"))
					} else {
						b.store.Remove(key)
					}
					b.record(invalidation.Record{Kind: invalidation.KindContent, Key: "/" + key})
				case 1:
					var want []string
					for i := range 8 {
						if f := fmt.Sprintf("f%d", i); there[dir+"/"+f] {
							want = append(want, f)
						}
					}
					infos, _, err := b.Children(t.Context(), freshet.Path("/m/"+dir), "", 100, b.rule)
					var got []string
					for i := range infos {
						got = append(got, infos[i].Path.Base())
					}
					if !slices.Equal(got, want) || (err != nil && (len(want) > 0 || !freshet.IsKind(err, freshet.KindNotExist))) {
						t.Fatalf("listing of %s: %v, %v, want %v", dir, got, err, want)
					}
				default:
					if err := b.stat(p); (err == nil) != there[key] || (err != nil && !freshet.IsKind(err, freshet.KindNotExist)) {
						t.Fatalf("%s: %v, is there: %t", p, err, there[key])
					}
				}
			}
		})
	}
}

// BenchmarkLookupOneByOne looks up 2,000 files of a directory of a storage that
// takes 5 ms for every call.
func BenchmarkLookupOneByOne(b *testing.B) {
	for _, off := range []bool{true, false} {
		b.Run(fmt.Sprintf("prefetch=%t", !off), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				bed := newBed(b, metasync.Options{Clock: clock.Real{}, Prefetch: metasync.PrefetchOptions{Off: off}})
				bed.files("d", 2000)
				ctx, cancel := context.WithCancel(b.Context())
				done := make(chan error, 1)
				go func() { done <- bed.Prefetch(ctx) }()
				if !off {
					bed.until("prefetching runs", bed.Prefetches)
				}
				bed.onStep(func(string, string) error { time.Sleep(5 * time.Millisecond); return nil })
				b.StartTimer()
				for i := range 2000 {
					bed.present(file("/m/d", i))
				}
				b.StopTimer()
				n := bed.store.Calls()
				b.ReportMetric(float64(n["stat"]), "stats")
				b.ReportMetric(float64(n["list"]), "lists")
				cancel()
				if err := <-done; err != nil {
					b.Error(err)
				}
				b.StartTimer()
			}
		})
	}
}
