package metasync_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
)

// line starts takers of slots, one after the other, and notes who got one.
type line struct {
	t     *testing.T
	slots *metasync.Slots
	mu    sync.Mutex
	got   []string
	wg    sync.WaitGroup
}

// add starts a taker that gives its slot back at once, and returns when it waits.
func (l *line) add(ctx context.Context, name string, mount freshet.MountID) {
	l.wg.Go(func() {
		slot, err := l.slots.Take(ctx, mount)
		if err != nil {
			l.t.Errorf("%s: %v", name, err)
			return
		}
		l.mu.Lock()
		l.got = append(l.got, name)
		l.mu.Unlock()
		slot.Release()
	})
	synctest.Wait()
}

func of(ctx context.Context, c metasync.Class) context.Context { return metasync.WithClass(ctx, c) }

func take(ctx context.Context, t *testing.T, s *metasync.Slots, mount freshet.MountID) metasync.Slot {
	t.Helper()
	slot, err := s.Take(ctx, mount)
	if err != nil {
		t.Fatal(err)
	}
	return slot
}

func TestAFreeSlotGoesToTheHighestClassThatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := metasync.NewSlots(metasync.Limits{Parallel: 1, PerMount: 1}, nil, nil)
		l := &line{t: t, slots: s}
		first := take(t.Context(), t, s, 1)
		l.add(of(t.Context(), metasync.ClassBackground), "background 1", 1)
		l.add(of(t.Context(), metasync.ClassPrefetch), "prefetch", 2)
		l.add(of(t.Context(), metasync.ClassBackground), "background 2", 3)
		l.add(t.Context(), "reader 1", 2)
		l.add(of(t.Context(), metasync.ClassOnDemand), "reader 2", 1)
		if got := s.Load(metasync.ClassBackground); got.Waiting != 2 {
			t.Errorf("%d of the background wait, want 2", got.Waiting)
		}
		first.Release()
		l.wg.Wait()
		want := []string{"reader 1", "reader 2", "prefetch", "background 1", "background 2"}
		if !slices.Equal(l.got, want) {
			t.Errorf("served %q, want %q", l.got, want)
		}
	})
}

func TestWorkThatAReaderComesToWaitForOvertakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := metasync.NewSlots(metasync.Limits{Parallel: 1, PerMount: 1}, nil, nil)
		l := &line{t: t, slots: s}
		first := take(t.Context(), t, s, 1)
		l.add(of(t.Context(), metasync.ClassBackground), "a", 1)
		ctx, raise := metasync.Work(t.Context(), metasync.ClassBackground)
		l.add(ctx, "b", 1)
		l.add(of(t.Context(), metasync.ClassPrefetch), "c", 1)
		raise(metasync.ClassOnDemand)
		raise(metasync.ClassBackground) // it does not sink
		if got := metasync.ClassOf(ctx); got != metasync.ClassOnDemand {
			t.Errorf("the work is %s", got)
		}
		first.Release()
		l.wg.Wait()
		if want := []string{"b", "c", "a"}; !slices.Equal(l.got, want) {
			t.Errorf("served %q, want %q", l.got, want)
		}
	})
}

func TestTheBackgroundIsNeverStarved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := metasync.NewSlots(metasync.Limits{Parallel: 1, PerMount: 1}, nil, nil)
		l := &line{t: t, slots: s}
		first := take(t.Context(), t, s, 1)
		for range 60 {
			l.add(t.Context(), "reader", 1)
		}
		l.add(of(t.Context(), metasync.ClassBackground), "background", 1)
		l.add(of(t.Context(), metasync.ClassPrefetch), "prefetch", 1)
		first.Release()
		l.wg.Wait()
		if b, p := slices.Index(l.got, "background"), slices.Index(l.got, "prefetch"); b != 15 || p != 31 {
			t.Errorf("the background was number %d, the prefetch number %d; want the 16th and the 32nd of %d slots", b+1, p+1, len(l.got))
		}
	})
}

func TestAReaderFindsAFreeSlotWhateverTheBackgroundDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := metasync.NewSlots(metasync.Limits{Parallel: 8, PerMount: 8}, nil, nil)
		var held []metasync.Slot
		for range 6 {
			held = append(held, take(of(t.Context(), metasync.ClassBackground), t, s, 1))
		}
		l := &line{t: t, slots: s}
		l.add(of(t.Context(), metasync.ClassPrefetch), "prefetch", 1)
		if s.Load(metasync.ClassPrefetch).Waiting != 1 {
			t.Error("the last quarter of the slots was given to a prefetch")
		}
		for range 2 {
			held = append(held, take(t.Context(), t, s, 1)) // does not wait
		}
		for _, slot := range held {
			slot.Release()
		}
		l.wg.Wait()
	})
}

func TestAFullMountStandsInNobodysWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := metasync.NewSlots(metasync.Limits{Parallel: 3, PerMount: 1}, nil, nil)
		l := &line{t: t, slots: s}
		one := take(t.Context(), t, s, 1)
		l.add(t.Context(), "waits", 1)
		other := take(of(t.Context(), metasync.ClassBackground), t, s, 2) // a lower class, of another mount
		other.Release()
		s.SetLimits(metasync.Limits{Parallel: 3, PerMount: 2})
		l.wg.Wait() // the one that waited got the second slot
		one.Release()
		if got := s.Limits(); got != (metasync.Limits{Parallel: 3, PerMount: 2}) {
			t.Errorf("limits %+v", got)
		}
	})
}

func TestWhoStopsWaitingLeavesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := metasync.NewSlots(metasync.Limits{Parallel: 1}, nil, nil)
		one := take(t.Context(), t, s, 1)
		stop := errors.New("enough")
		ctx, cancel := context.WithCancelCause(of(t.Context(), metasync.ClassPrefetch))
		var err error
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, err = s.Take(ctx, 1)
		}()
		synctest.Wait()
		cancel(stop)
		<-done
		if !errors.Is(err, stop) {
			t.Errorf("error %v", err)
		}
		if got := s.Load(metasync.ClassPrefetch); got != (metasync.Load{}) {
			t.Errorf("left %+v", got)
		}
		one.Release()
		take(t.Context(), t, s, 2).Release()
	})
}

// TestSlotsAreBounded lets many take slots of few mounts while the limits change,
// give up and rise.
func TestSlotsAreBounded(t *testing.T) {
	t.Parallel()
	const most, mounts = 6, 3
	s := metasync.NewSlots(metasync.Limits{Parallel: most, PerMount: 3}, nil, nil)
	var all atomic.Int64
	var each [mounts]atomic.Int64
	var wg sync.WaitGroup
	for worker := range 24 {
		wg.Go(func() {
			for i := range 200 {
				ctx, raise := metasync.Work(t.Context(), metasync.Class(worker%3))
				ctx, cancel := context.WithCancel(ctx)
				switch i % 7 {
				case 0:
					go cancel()
				case 1:
					go raise(metasync.ClassOnDemand)
				}
				m := (worker + i) % mounts
				slot, err := s.Take(ctx, freshet.MountID(m))
				if err == nil {
					if n := all.Add(1); n > most {
						t.Errorf("%d slots are given of %d", n, most)
					}
					if n := each[m].Add(1); n > 3 {
						t.Errorf("%d slots of one mount are given of 3", n)
					}
					each[m].Add(-1)
					all.Add(-1)
					slot.Release()
				}
				cancel()
				if i%50 == 0 {
					s.SetLimits(metasync.Limits{Parallel: 2 + worker%5, PerMount: 1 + worker%3})
				}
			}
		})
	}
	wg.Wait()
	for c := range metasync.Class(3) {
		if got := s.Load(c); got != (metasync.Load{}) {
			t.Errorf("%s: left %+v", c, got)
		}
	}
}
