package coordinator

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet/invalidation"
)

type metrics struct {
	invalidations *prometheus.CounterVec
	cleaned       prometheus.Counter
	audited       prometheus.Counter
	violations    *prometheus.CounterVec
	expired       prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, c *Coordinator) *metrics {
	m := &metrics{cleaned: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "freshet_coordinator_cleaned_uploads_total",
		Help: "Uploads of writers that died, ended in the storages.",
	}), invalidations: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "freshet_coordinator_invalidated_records_total",
		Help: "Records of other clusters that were applied to the state, by the verdict on their batch.",
	}, []string{"verdict"}), expired: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "freshet_coordinator_expired_entries_total",
		Help: "Entries that nobody used for as long as the ttl of their path, dropped from the cache.",
	})}
	m.registerAudit(reg)
	if reg == nil {
		return m
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	reg.MustRegister(m.invalidations, m.cleaned, m.expired, newStateMetrics(c.state.Stats),
		gauge("freshet_coordinator_leader", "1 if this member leads the cluster and answers.", func() float64 {
			if _, leads := c.Leading(); leads {
				return 1
			}
			return 0
		}),
		gauge("freshet_coordinator_underreplicated_blocks", "Cached blocks with fewer live copies than replication_min of their path, as the leader last saw them.", func() float64 {
			return float64(c.nodes.Short())
		}),
		gauge("freshet_coordinator_hot_blocks", "Blocks that have more copies, or are to, because they are read much.", func() float64 {
			blocks, _ := c.nodes.HeatTotals()
			return float64(blocks)
		}),
		gauge("freshet_coordinator_hot_copies", "Copies that were ordered because blocks are read much, and were not let go yet.", func() float64 {
			_, copies := c.nodes.HeatTotals()
			return float64(copies)
		}),
		gauge("freshet_coordinator_draining_nodes", "Live cache nodes that are to be emptied.", func() float64 {
			return float64(c.nodes.Totals(c.clock.Elapsed()).Draining)
		}),
		gauge("freshet_coordinator_mounts", "Number of mounts.", func() float64 {
			mounts, _ := c.state.Mounts()
			return float64(len(mounts))
		}),
		gauge("freshet_coordinator_degraded_mounts", "Mounts that may miss news of a publisher.", func() float64 { return float64(c.degradedMounts()) }),
	)
	return m
}

func (m *metrics) invalidated(v invalidation.Verdict, n int) {
	word := [...]string{"ignore", "apply", "gap", "reset"}[min(int(v), int(invalidation.VerdictReset))]
	m.invalidations.WithLabelValues(word).Add(float64(n))
}
