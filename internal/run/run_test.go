package run_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/freshet-io/freshet/internal/run"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBroken = errors.New("broken")

func untilEnd(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestFirstErrorEndsTheGroup(t *testing.T) {
	t.Parallel()
	g := run.NewGroup(t.Context())
	ended := make(chan struct{})
	g.Go("waiter", func(ctx context.Context) error {
		defer close(ended)
		<-ctx.Done()
		return context.Cause(ctx)
	})
	g.Go("failing part", func(context.Context) error { return errBroken })
	err := g.Wait()
	if !errors.Is(err, errBroken) || err.Error() != "failing part: broken" {
		t.Errorf("Wait: %v", err)
	}
	select {
	case <-ended:
	default:
		t.Error("Wait returned before the other function had ended")
	}
	if !errors.Is(context.Cause(g.Context()), errBroken) {
		t.Errorf("cause of the context: %v", context.Cause(g.Context()))
	}
}

func TestLaterErrorsDoNotReplaceTheFirst(t *testing.T) {
	t.Parallel()
	g := run.NewGroup(t.Context())
	g.Go("late", func(ctx context.Context) error {
		<-ctx.Done()
		return errors.New("failed while stopping")
	})
	g.Go("early", func(context.Context) error { return errBroken })
	if err := g.Wait(); err.Error() != "early: broken" {
		t.Errorf("Wait: %v", err)
	}
}

func TestFunctionThatReturnsNilLeavesTheOthersRunning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := run.NewGroup(t.Context())
		worked := false
		g.Go("short", func(context.Context) error { return nil })
		g.Go("long", func(ctx context.Context) error {
			select {
			case <-time.After(time.Hour):
				worked = true
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err := g.Wait(); err != nil || !worked {
			t.Errorf("Wait: %v, the long function finished: %v", err, worked)
		}
		if g.Context().Err() == nil {
			t.Error("the context outlived Wait")
		}
	})
}

func TestEndOfTheParentIsNoError(t *testing.T) {
	t.Parallel()
	cause := errors.New("asked to stop")
	stops := map[string]func(context.Context) (context.Context, func()){
		"cancel": func(ctx context.Context) (context.Context, func()) { return context.WithCancel(ctx) },
		"cause": func(ctx context.Context) (context.Context, func()) {
			ctx, cancel := context.WithCancelCause(ctx)
			return ctx, func() { cancel(cause) }
		},
		"deadline": func(ctx context.Context) (context.Context, func()) {
			return context.WithTimeout(ctx, time.Nanosecond)
		},
	}
	for name, stop := range stops {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := stop(t.Context())
			g := run.NewGroup(ctx)
			g.Go("plain", untilEnd)
			g.Go("wrapped", func(ctx context.Context) error { return fmt.Errorf("reading: %w", untilEnd(ctx)) })
			cancel()
			if err := g.Wait(); err != nil {
				t.Errorf("Wait: %v", err)
			}
		})
	}
}

func TestContextErrorOfALiveGroupIsAnError(t *testing.T) {
	t.Parallel()
	g := run.NewGroup(t.Context())
	g.Go("call", func(context.Context) error { return context.DeadlineExceeded })
	if err := g.Wait(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait hid the error of a call of its own: %v", err)
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	g := run.NewGroup(t.Context())
	g.Go("waiter", untilEnd)
	g.Stop()
	if err := g.Wait(); err != nil {
		t.Errorf("Wait: %v", err)
	}
}

func TestPanicBecomesAnErrorWithItsName(t *testing.T) {
	t.Parallel()
	g := run.NewGroup(t.Context())
	g.Go("waiter", untilEnd)
	g.Go("fragile", func(context.Context) error { panic(errBroken) })
	err := g.Wait()
	var panicked *run.PanicError
	if !errors.As(err, &panicked) {
		t.Fatalf("Wait: %v", err)
	}
	if panicked.Name != "fragile" || !errors.Is(err, errBroken) || !strings.Contains(string(panicked.Stack), "run_test.go") {
		t.Errorf("the error does not name the part, its value and its place: %v", err)
	}
}

func TestExitOfAGoroutineIsAnError(t *testing.T) {
	t.Parallel()
	g := run.NewGroup(t.Context())
	g.Go("waiter", untilEnd)
	g.Go("exiting", func(context.Context) error {
		runtime.Goexit()
		return nil
	})
	if err := g.Wait(); !errors.Is(err, run.ErrExited) || !strings.Contains(err.Error(), "exiting") {
		t.Errorf("Wait: %v", err)
	}
}

func TestFunctionsMayStartFunctions(t *testing.T) {
	t.Parallel()
	g := run.NewGroup(t.Context())
	g.Go("outer", func(context.Context) error {
		g.Go("inner", func(context.Context) error { return errBroken })
		return nil
	})
	if err := g.Wait(); err == nil || err.Error() != "inner: broken" {
		t.Errorf("Wait: %v", err)
	}
}

func TestCleanupsRunLastFirstAfterTheGoroutines(t *testing.T) {
	t.Parallel()
	g := run.NewGroup(t.Context())
	var events trace
	g.Cleanup("store", func() error { events.add("store"); return errors.New("disk full") })
	g.Cleanup("index", func() error { panic("index is torn") })
	g.Cleanup("socket", func() error { events.add("socket"); return nil })
	g.Go("worker", func(ctx context.Context) error {
		<-ctx.Done()
		events.add("worker")
		return errBroken
	})
	g.Stop()
	err := g.Wait()
	if want := []string{"worker", "socket", "store"}; !slices.Equal(events.all(), want) {
		t.Errorf("order %q, want %q", events.all(), want)
	}
	var panicked *run.PanicError
	if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "store: disk full") || !errors.As(err, &panicked) {
		t.Errorf("Wait lost an error: %v", err)
	}
}

func TestOrderedStopsInReverse(t *testing.T) {
	t.Parallel()
	for _, failing := range []string{"", "store", "service", "listener"} {
		t.Run("failing="+failing, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { testOrdered(t, failing) })
		})
	}
}

// testOrdered runs three parts that take a second each to stop, and lets one of
// them fail after a minute, or none.
func testOrdered(t *testing.T, failing string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	var events trace
	part := func(name string) run.Part {
		return run.Part{Name: name, Run: func(ctx context.Context) error {
			var failure <-chan time.Time
			if name == failing {
				failure = time.After(time.Minute)
			}
			select {
			case <-ctx.Done():
				time.Sleep(time.Second)
				events.add(name)
				return ctx.Err()
			case <-failure:
				return errBroken
			}
		}}
	}
	start := time.Now()
	err := run.Ordered(ctx, part("store"), part("service"), part("listener"))
	want := slices.DeleteFunc([]string{"listener", "service", "store"}, func(name string) bool { return name == failing })
	if !slices.Equal(events.all(), want) {
		t.Errorf("stopped in the order %q, want %q", events.all(), want)
	}
	if failing == "" {
		if err != nil || time.Since(start) != time.Hour+3*time.Second {
			t.Errorf("returned %v after %v", err, time.Since(start))
		}
		return
	}
	if err == nil || err.Error() != failing+": broken" || time.Since(start) != time.Minute+2*time.Second {
		t.Errorf("returned %v after %v", err, time.Since(start))
	}
}

func TestOrderedStopsWhenAPartReturns(t *testing.T) {
	t.Parallel()
	err := run.Ordered(t.Context(),
		run.Part{Name: "store", Run: func(context.Context) error { return nil }},
		run.Part{Name: "service", Run: untilEnd})
	if err != nil {
		t.Errorf("Ordered: %v", err)
	}
}

func TestOrderedPanic(t *testing.T) {
	t.Parallel()
	err := run.Ordered(t.Context(),
		run.Part{Name: "store", Run: untilEnd},
		run.Part{Name: "service", Run: func(context.Context) error { panic("torn") }})
	var panicked *run.PanicError
	if !errors.As(err, &panicked) || panicked.Name != "service" {
		t.Errorf("Ordered: %v", err)
	}
}

// trace is a list of events that goroutines add to.
type trace struct {
	mu     sync.Mutex
	events []string
}

func (l *trace) add(event string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, event)
}

func (l *trace) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}
