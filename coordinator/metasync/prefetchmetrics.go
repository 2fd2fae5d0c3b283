package metasync

import "github.com/prometheus/client_golang/prometheus"

// What became of a prefetch.
const (
	prefetchDone    = "done"
	prefetchStopped = "stopped"
	prefetchFailed  = "failed"
	prefetchDropped = "dropped"
)

type prefetchMetrics struct {
	listings            map[string]prometheus.Counter // by result
	calls, used, wasted prometheus.Counter
}

func newPrefetchMetrics(reg prometheus.Registerer, f *prefetcher) *prefetchMetrics {
	m := &prefetchMetrics{
		listings: map[string]prometheus.Counter{},
		calls:    counter("freshet_prefetch_calls_total", "Storage calls that were made for prefetching."),
		used:     counter("freshet_prefetch_used_total", "Prefetched listings that answered a reader."),
		wasted:   counter("freshet_prefetch_wasted_total", "Prefetched listings that answered nobody within a minute."),
	}
	listings := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "freshet_prefetch_listings_total", Help: "Prefetches by what became of them: done, stopped (for lack of budget), dropped (before they began), failed.",
	}, []string{"result"})
	for _, result := range []string{prefetchDone, prefetchStopped, prefetchDropped, prefetchFailed} {
		m.listings[result] = listings.WithLabelValues(result)
	}
	if reg != nil {
		reg.MustRegister(listings, m.calls, m.used, m.wasted, gauge("freshet_prefetch_bytes", "Memory of entries that were prefetched and not used yet.", func() float64 {
			f.mu.Lock()
			defer f.mu.Unlock()
			return float64(f.bytes)
		}))
	}
	return m
}
