package ufs

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/freshet-io/freshet"
)

// Buffers bounds the memory in which the uploads of a process wait for their storages,
// whatever their number. Who wants some waits for those who came before. Safe for
// concurrent use; nil has no bound.
//
// An upload takes the memory of one part after the other, and what it holds comes back
// without any more of it: so none waits for itself, nor do two for each other.
type Buffers struct {
	size   int64
	free   *semaphore.Weighted
	used   prometheus.Gauge
	waited prometheus.Counter
}

// NewBuffers returns Buffers of size bytes, at least 1. It registers
// freshet_upload_memory_bytes and freshet_upload_memory_wait_seconds_total.
func NewBuffers(size int64, reg prometheus.Registerer) (*Buffers, error) {
	b := &Buffers{
		size: size, free: semaphore.NewWeighted(size),
		used: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "freshet_upload_memory_bytes",
			Help: "Memory of parts of uploads that are filled or on their way to a storage.",
		}),
		waited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "freshet_upload_memory_wait_seconds_total",
			Help: "Time that uploads waited for memory, see cache.uploads.memory.",
		}),
	}
	for _, c := range []prometheus.Collector{b.used, b.waited} {
		if err := reg.Register(c); err != nil {
			return nil, freshet.Errorf(freshet.KindInternal, "register metrics", "", "%w", err)
		}
	}
	return b, nil
}

// Take waits for n bytes, or for all there are if n is more, and returns the function
// that gives them back, to be called once. The error is that of ctx, which ended.
func (b *Buffers) Take(ctx context.Context, n int64) (give func(), err error) {
	if b == nil {
		return func() {}, nil
	}
	n = min(n, b.size)
	if !b.free.TryAcquire(n) {
		begun := time.Now()
		err := b.free.Acquire(ctx, n)
		b.waited.Add(time.Since(begun).Seconds())
		if err != nil {
			return nil, err
		}
	}
	b.used.Add(float64(n))
	return func() {
		b.used.Sub(float64(n))
		b.free.Release(n)
	}, nil
}
