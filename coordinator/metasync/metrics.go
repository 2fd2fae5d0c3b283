package metasync

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	seconds  *prometheus.HistogramVec      // by scope
	entries  map[string]prometheus.Counter // by result
	joined   prometheus.Counter
	rejected prometheus.Counter
	skipped  prometheus.Counter
	stale    prometheus.Counter
	failed   prometheus.Counter
	absent   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, s *Syncer) *metrics {
	m := &metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "freshet_sync_seconds", Help: "Duration of looks at the storage, by scope: entry, listing, or tree.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 3, 12),
		}, []string{"scope"}),
		entries:  map[string]prometheus.Counter{},
		joined:   counter("freshet_sync_joined_total", "Reads that shared a look at the storage that another read had begun."),
		rejected: counter("freshet_sync_rejected_total", "Loads that were not installed because the path was invalidated while they ran."),
		skipped:  counter("freshet_sync_skipped_total", "Entries of the storage that can't be shown: not a file or directory, or not a legal name."),
		stale:    counter("freshet_stale_reads_detected_total", "Times a storage refused a version that this cluster had given out as current."),
		failed:   counter("freshet_sync_failures_total", "Looks at the storage that failed."),
		absent:   counter("freshet_absent_hits_total", "Reads answered by a remembered look that found nothing, without asking the storage."),
	}
	entries := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "freshet_sync_entries_total", Help: "Entries that were compared with the storage, by result: unchanged, changed, added, removed, failed.",
	}, []string{"result"})
	for _, result := range []string{resultUnchanged, resultChanged, resultAdded, resultRemoved, resultFailed} {
		m.entries[result] = entries.WithLabelValues(result) // looked up once: it is counted per entry
	}
	if reg != nil {
		reg.MustRegister(m.seconds, entries, m.joined, m.rejected, m.skipped, m.stale, m.failed, m.absent)
		reg.MustRegister(
			gauge("freshet_sync_validations", "Validations that the leader holds in memory.", func() float64 { return float64(s.mem.Load().size()) }),
			gauge("freshet_absent_paths", "Paths at which a look found nothing and that the leader remembers.", func() float64 {
				n, _ := s.mem.Load().absent.held()
				return float64(n)
			}),
			gauge("freshet_absent_bytes", "Memory that the leader uses for paths at which a look found nothing.", func() float64 {
				_, b := s.mem.Load().absent.held()
				return float64(b)
			}),
		)
	}
	return m
}

func gauge(name, help string, value func() float64) prometheus.GaugeFunc {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
}

// servedAbsent counts an answer that a remembered look gave.
func (m *metrics) servedAbsent(v *Verdict) {
	if v.LookedAt != "" {
		m.absent.Inc()
	}
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

// The results of comparing one entry.
const (
	resultUnchanged = "unchanged"
	resultChanged   = "changed"
	resultAdded     = "added"
	resultRemoved   = "removed"
	resultFailed    = "failed"
)

func (m *metrics) took(scope string, d time.Duration) {
	m.seconds.WithLabelValues(scope).Observe(d.Seconds())
}
