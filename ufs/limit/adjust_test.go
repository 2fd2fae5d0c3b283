package limit_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/limit"
	"github.com/freshet-io/freshet/ufs/mem"
)

// TestBoundsChangeForWhoWaits: who waits under one bound goes under the next.
func TestBoundsChangeForWhoWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := mem.New(mem.Options{})
		store.Put("f", []byte("x"))
		fs := limit.New(store.FS(""), limit.Options{PerSecond: 1})
		start := time.Now()
		var wg sync.WaitGroup
		for range 101 {
			wg.Go(func() {
				if _, err := fs.Stat(t.Context(), "f"); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(2500 * time.Millisecond)
		if n := store.Calls()["stat"]; n != 3 {
			t.Errorf("%d calls in 2.5 s at one per second", n)
		}
		fs.Adjust(ufs.Guards{RequestsPerSecond: 10})
		time.Sleep(time.Second)
		if n := store.Calls()["stat"]; n < 13 || n > 23 { // with the burst of the new bound
			t.Errorf("%d calls one second later at ten per second", n)
		}
		fs.Adjust(ufs.Guards{})
		wg.Wait()
		if took := time.Since(start); took != 3500*time.Millisecond {
			t.Errorf("without a bound the last call came after %v", took)
		}
		fs.Adjust(ufs.Guards{RequestsPerSecond: 1})
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		for range 2 { // one at once, one a second later
			if _, err := fs.Stat(ctx, "f"); err != nil {
				t.Error(err)
			}
		}
		_, err := fs.Stat(ctx, "f")
		wantKind(t, err, freshet.KindExhausted)
	})
}

// TestMoreOrFewerAtATime changes how many uploads may be open.
func TestMoreOrFewerAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := limit.New(mem.New(mem.Options{}).FS(""), limit.Options{Concurrent: 1})
		open := make(chan ufs.Writer, 100)
		create := func(ctx context.Context) error {
			w, err := fs.Create(ctx, "f", ufs.CreateOptions{Size: -1})
			if err == nil {
				open <- w
			}
			return err
		}
		for range 10 {
			go func() {
				if err := create(t.Context()); err != nil {
					t.Error(err)
				}
			}()
		}
		want := func(n int) {
			t.Helper()
			if synctest.Wait(); len(open) != n {
				t.Errorf("%d are open, want %d", len(open), n)
			}
		}
		closeOne := func() {
			if err := (<-open).Abort(t.Context()); err != nil {
				t.Error(err)
			}
		}
		want(1)
		fs.Adjust(ufs.Guards{ConcurrentRequests: 4})
		want(4)
		fs.Adjust(ufs.Guards{ConcurrentRequests: 2})
		for n := 3; n >= 2; n-- {
			closeOne()
			if n == 3 {
				want(3)
			}
		}
		want(2)
		closeOne()
		want(2) // one went, the next came
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantKind(t, create(ctx), freshet.KindDeadline)
		fs.Adjust(ufs.Guards{})
		want(7)
		for range 7 {
			closeOne()
		}
		fs.Adjust(ufs.Guards{ConcurrentRequests: 1})
		for range 3 {
			if err := create(t.Context()); err != nil {
				t.Fatal(err)
			}
			closeOne()
		}
	})
}
