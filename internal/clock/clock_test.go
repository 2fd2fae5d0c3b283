package clock_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet/internal/clock"
)

func TestRealElapsedNeverGoesBack(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var c clock.Real
			last := c.Elapsed()
			for range 20_000 {
				now := c.Elapsed()
				if now < last {
					t.Errorf("Elapsed went back from %v to %v", last, now)
					return
				}
				last = now
			}
		})
	}
	wg.Wait()
}

func TestRealFollowsTheFakeTimeOfABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c clock.Real
		start, elapsed := c.Now(), c.Elapsed()
		<-c.After(time.Hour)
		if got := c.Since(start); got != time.Hour {
			t.Errorf("Since after an hour's wait: %v", got)
		}
		// The suspension of the machine is measured outside the bubble and gets
		// more exact with time, by far less than the wait.
		if got := c.Elapsed() - elapsed; got < time.Hour || got > time.Hour+time.Minute {
			t.Errorf("Elapsed after an hour's wait: %v", got)
		}
	})
}

func TestRealTimer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		testTimer(t, clock.Real{}, time.Sleep)
	})
}

func TestFakeTimer(t *testing.T) {
	t.Parallel()
	c := clock.NewFake(time.Unix(1_000_000, 0))
	testTimer(t, c, c.Advance)
}

// testTimer holds both clocks to the same rules.
func testTimer(t *testing.T, c clock.Clock, wait func(time.Duration)) {
	t.Helper()
	start := c.Now()
	timer := c.NewTimer(time.Minute)
	wait(time.Minute - 1)
	if fired(timer) {
		t.Error("the timer fired early")
	}
	if !timer.Reset(time.Minute) {
		t.Error("Reset of a running timer reported that it was stopped")
	}
	wait(time.Minute)
	if at, ok := received(timer); !ok || at.Sub(start) != 2*time.Minute-1 {
		t.Errorf("fired %v at %v after the start, want %v", ok, at.Sub(start), 2*time.Minute-1)
	}
	if timer.Stop() {
		t.Error("Stop of a fired timer reported that it was running")
	}
	if timer.Reset(time.Second) {
		t.Error("Reset of a fired timer reported that it was running")
	}
	wait(time.Second)
	timer.Stop() // fired, not received: the value must be gone
	if fired(timer) {
		t.Error("a value was received after Stop")
	}
	at := c.NewTimer(0)
	wait(1)
	if !fired(at) {
		t.Error("a timer of zero did not fire at once")
	}
	if got := c.Since(start); got < 2*time.Minute+time.Second-1 {
		t.Errorf("Since the start: %v", got)
	}
}

func received(timer clock.Timer) (time.Time, bool) {
	select {
	case at := <-timer.C():
		return at, true
	default:
		return time.Time{}, false
	}
}

func fired(timer clock.Timer) bool {
	_, ok := received(timer)
	return ok
}

func TestFakeFiresTimersInOrderOfTheirTimes(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_000_000, 0)
	c := clock.NewFake(start)
	waits := []time.Duration{3 * time.Second, time.Second, 2 * time.Second, time.Hour}
	var channels []<-chan time.Time
	for _, d := range waits {
		channels = append(channels, c.After(d))
	}
	c.Advance(10 * time.Second)
	for i, d := range waits[:3] {
		if got := (<-channels[i]).Sub(start); got != d {
			t.Errorf("timer %d saw %v, want %v", i, got, d)
		}
	}
	select {
	case at := <-channels[3]:
		t.Errorf("the timer of an hour fired at %v", at)
	default:
	}
	if got := c.Elapsed(); got != 10*time.Second {
		t.Errorf("Elapsed: %v", got)
	}
}

func TestFakeWallClockDoesNotMoveElapsed(t *testing.T) {
	t.Parallel()
	c := clock.NewFake(time.Unix(1_000_000, 0))
	timer := c.NewTimer(time.Minute)
	c.SetWall(time.Unix(0, 0))
	if got := c.Elapsed(); got != 0 {
		t.Errorf("Elapsed after the wall clock was set back: %v", got)
	}
	c.SetWall(time.Unix(2_000_000, 0))
	if fired(timer) {
		t.Error("setting the wall clock forward fired a timer")
	}
	c.Advance(time.Minute)
	if at, ok := received(timer); !ok || !at.Equal(time.Unix(2_000_060, 0)) {
		t.Errorf("fired %v at %v", ok, at)
	}
}

func TestFakeAdvanceBackPanics(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("Advance accepted a negative duration")
		}
	}()
	clock.NewFake(time.Unix(0, 0)).Advance(-1)
}

func TestFakeAwaitTimers(t *testing.T) {
	t.Parallel()
	c := clock.NewFake(time.Unix(0, 0))
	done := make(chan time.Time)
	go func() {
		timer := c.NewTimer(time.Minute)
		done <- <-timer.C()
	}()
	if err := c.AwaitTimers(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	c.Advance(time.Minute)
	if at := <-done; !at.Equal(time.Unix(60, 0)) {
		t.Errorf("the waiter saw %v", at)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.AwaitTimers(ended, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("AwaitTimers with an ended context: %v", err)
	}
}

func BenchmarkRealElapsed(b *testing.B) {
	var c clock.Real
	for b.Loop() {
		c.Elapsed()
	}
}
