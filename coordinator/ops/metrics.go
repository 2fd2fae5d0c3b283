package ops

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet/coordinator/namespace"
)

// metrics counts what this package does.
type metrics struct {
	operations  *prometheus.CounterVec
	written     prometheus.Counter // of operations: the many
	resolutions *prometheus.CounterVec
	late        prometheus.Counter
	intents     *prometheus.GaugeVec
	nodes       *prometheus.GaugeVec

	unpersisted      *prometheus.GaugeVec
	unpersistedBytes prometheus.Gauge
	lost             prometheus.Gauge
	lag              prometheus.Gauge
	short            prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_operations_total", Help: "Changes of the storage that ended, by kind of operation and outcome.",
		}, []string{"kind", "outcome"}),
		resolutions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_resolutions_total", Help: "Operations whose writer died or never got an answer, by what was done with them.",
		}, []string{"result"}),
		late: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "freshet_late_effects_total", Help: "Effects that landed after their operation had been given up.",
		}),
		intents: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "freshet_intents", Help: "Operations that have begun and not ended, by state; only the leader tells.",
		}, []string{"state"}),
		nodes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "freshet_cache_nodes", Help: "Cache nodes that the leader knows, by whether they live.",
		}, []string{"state"}),
	}
	m.unpersisted = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "freshet_unpersisted_files", Help: "Visible files that are not in the storage, by state; only the leader tells.",
	}, []string{"state"})
	m.unpersistedBytes = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "freshet_unpersisted_bytes", Help: "Bytes of visible files that are not in the storage; only the leader tells.",
	})
	m.lost = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "freshet_unpersisted_lost_files", Help: "Visible files whose bytes are neither in the storage nor on a live cache node; only the leader tells.",
	})
	m.lag = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "freshet_persist_lag_seconds", Help: "Age of the oldest file that waits to be persisted; only the leader tells.",
	})
	m.short = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "freshet_unpersisted_short_files",
		Help: "Visible files that are not in the storage and are on fewer live cache nodes than durable_replicas promised, but on one; only the leader tells.",
	})
	m.written = m.operations.WithLabelValues(namespace.OpWrite.String(), "done")
	if reg != nil {
		reg.MustRegister(m.operations, m.resolutions, m.late, m.intents, m.nodes, m.unpersisted, m.unpersistedBytes, m.lost, m.lag, m.short)
	}
	return m
}

// rest clears what only a leader can tell.
func (m *metrics) rest() {
	m.intents.Reset()
	m.nodes.Reset()
	m.unpersisted.Reset()
	m.unpersistedBytes.Set(0)
	m.lost.Set(0)
	m.lag.Set(0)
	m.short.Set(0)
}
