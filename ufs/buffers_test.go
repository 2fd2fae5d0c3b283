package ufs_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/freshet-io/freshet/ufs"
)

func buffers(t *testing.T, size int64) (*ufs.Buffers, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	b, err := ufs.NewBuffers(size, reg)
	if err != nil {
		t.Fatal(err)
	}
	return b, reg
}

func take(t *testing.T, b *ufs.Buffers, n int64) func() {
	t.Helper()
	give, err := b.Take(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return give
}

// gathered returns the value of a metric without labels.
func gathered(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// Who came first is served first, be it more than those behind him want; and what was
// waited for can be seen.
func TestBuffersAreHandedOutInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, reg := buffers(t, 10)
		give := take(t, b, 6)
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for i, n := range []int64{5, 1, 4} { // the second would fit at once
			wg.Go(func() {
				g, err := b.Take(context.Background(), n)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				time.Sleep(time.Second)
				g()
			})
			synctest.Wait()
		}
		if v := gathered(t, reg, "freshet_upload_memory_bytes"); v != 6 {
			t.Errorf("%v bytes in use, want 6", v)
		}
		time.Sleep(3 * time.Second)
		give()
		wg.Wait()
		slices.Sort(order[:2]) // both go on together
		if !slices.Equal(order, []int{0, 1, 2}) && !slices.Equal(order, []int{0, 2, 1}) {
			t.Errorf("served in the order %v", order)
		}
		if v := gathered(t, reg, "freshet_upload_memory_wait_seconds_total"); v < 9 {
			t.Errorf("waited %v s, want 3 each at least", v)
		}
		if v := gathered(t, reg, "freshet_upload_memory_bytes"); v != 0 {
			t.Errorf("%v bytes stay in use", v)
		}
		if n, err := testutil.GatherAndCount(reg); err != nil || n != 2 {
			t.Errorf("%d metrics, %v", n, err)
		}
	})
}

// What is larger than all there is gets all of it; a wait ends with its context, and
// leaves nothing behind.
func TestBuffersOfAnySize(t *testing.T) {
	b, _ := buffers(t, 10)
	give := take(t, b, 1000)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := b.Take(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("took some of what another has all of: %v", err)
	}
	give()
	take(t, b, 10)()
	var none *ufs.Buffers
	take(t, none, 1<<40)()
}
