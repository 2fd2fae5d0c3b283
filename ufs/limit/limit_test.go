package limit_test

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/limit"
	"github.com/freshet-io/freshet/ufs/mem"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConforms(t *testing.T) {
	for name, opts := range map[string]limit.Options{
		"no bounds": {}, "bounds": {PerSecond: 1_000_000, Concurrent: 6}, // some cases have three uploads open
	} {
		t.Run(name, func(t *testing.T) {
			ufstest.Run(t, ufstest.InMemory(mem.Local, func(_ *testing.T, fs ufs.FS) ufs.FS { return limit.New(fs, opts) }))
		})
	}
}

func wantKind(t *testing.T, err error, k freshet.Kind) {
	t.Helper()
	if !freshet.IsKind(err, k) {
		t.Errorf("got %v (kind %v), want kind %v", err, freshet.KindOf(err), k)
	}
}

// TestRate: after the burst requests come at the rate, whatever call they are.
func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := mem.New(mem.Options{PageSize: 10})
		for i := range 25 {
			store.Put(fmt.Sprintf("d/%02d", i), []byte("x"))
		}
		reg := prometheus.NewRegistry()
		m, err := limit.NewMetrics(reg)
		if err != nil {
			t.Fatal(err)
		}
		fs := limit.New(store.FS(""), limit.Options{PerSecond: 10, Burst: 2, Metrics: m})
		start := time.Now()
		for range 12 { // 2 of the burst, 10 at 100 ms each
			if _, err := fs.Stat(t.Context(), "d/00"); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("12 calls took %v, want 1s", took)
		}
		n := 0
		for _, err := range fs.List(t.Context(), "d", ufs.ListOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if took := time.Since(start); n != 25 || took != 1300*time.Millisecond {
			t.Errorf("%d entries of 3 pages came after %v, want 25 after 1.3s", n, took)
		}
		if waited := waitedSeconds(t, reg); waited < 1.29 || waited > 1.31 {
			t.Errorf("the metric says %v s of waiting", waited)
		}
	})
}

func waitedSeconds(t *testing.T, reg *prometheus.Registry) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%d families, %v", len(families), err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

// TestRateRespectsTheContext: who can't wait long enough is told at once, and that
// nothing was sent; who gives up leaves.
func TestRateRespectsTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := mem.New(mem.Options{})
		store.Put("f", nil)
		fs := limit.New(store.FS(""), limit.Options{PerSecond: 1})
		if _, err := fs.Stat(t.Context(), "f"); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := fs.Stat(short, "f")
		wantKind(t, err, freshet.KindExhausted)
		if took := time.Since(start); took != 0 {
			t.Errorf("it took %v to say so", took)
		}
		ctx, giveUp := context.WithCancel(t.Context())
		time.AfterFunc(300*time.Millisecond, giveUp)
		_, err = fs.Stat(ctx, "f")
		wantKind(t, err, freshet.KindDeadline)
		if took := time.Since(start); took != 300*time.Millisecond {
			t.Errorf("the call returned after %v, want 300ms", took)
		}
		if n := store.Calls()["stat"]; n != 1 {
			t.Errorf("%d calls reached the storage, want 1", n)
		}
	})
}

// TestConcurrent: never more than the bound are at the storage.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		store := mem.New(mem.Options{Hook: func(string, string) error {
			n := now.Add(1)
			defer now.Add(-1)
			for {
				old := most.Load()
				if n <= old || most.CompareAndSwap(old, n) {
					break
				}
			}
			time.Sleep(time.Millisecond) // the storage takes its time, in a bubble
			return nil
		}})
		fs := limit.New(store.FS(""), limit.Options{Concurrent: 3})
		var wg sync.WaitGroup
		start := time.Now()
		for range 30 {
			wg.Go(func() {
				_, err := fs.Mkdir(t.Context(), "d", ufs.MkdirOptions{Existing: true})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if most.Load() != 3 || time.Since(start) != 10*time.Millisecond {
			t.Errorf("at most %d calls at a time, 30 took %v; want 3 and 10ms", most.Load(), time.Since(start))
		}
	})
}

// TestStreamsHoldASlot: until they are closed, committed or aborted, twice or not.
func TestStreamsHoldASlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := mem.New(mem.Options{})
		store.Put("f", []byte("x"))
		fs := limit.New(store.FS(""), limit.Options{Concurrent: 1})
		busy := func(want bool) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := fs.Stat(ctx, "f"); want {
				wantKind(t, err, freshet.KindDeadline)
			} else {
				wantKind(t, err, freshet.KindOK)
			}
		}
		streams(t, fs, busy)
		for _, err := range fs.List(t.Context(), "", ufs.ListOptions{}) {
			if err != nil {
				t.Error(err)
			}
			busy(false) // a consumer may ask for what it was given
		}
		if _, _, err := fs.Open(t.Context(), "none", ufs.OpenOptions{}); !freshet.IsKind(err, freshet.KindNotExist) {
			t.Error(err)
		}
		busy(false)
	})
}

func streams(t *testing.T, fs ufs.FS, busy func(bool)) {
	t.Helper()
	r, _, err := fs.Open(t.Context(), "f", ufs.OpenOptions{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	busy(true)
	_ = r.Close()
	_ = r.Close() // a second time frees nothing that is not ours
	busy(false)
	for _, end := range []func(ufs.Writer) error{
		func(w ufs.Writer) error { _, err := w.Commit(t.Context()); return err },
		func(w ufs.Writer) error { return w.Abort(t.Context()) },
	} {
		w, err := fs.Create(t.Context(), "g", ufs.CreateOptions{Size: -1})
		if err != nil {
			t.Fatal(err)
		}
		busy(true)
		if err := end(w); err != nil {
			t.Error(err)
		}
		busy(false)
		_ = w.Abort(t.Context()) // is safe, and frees no slot that is not its own
		busy(false)
	}
}
