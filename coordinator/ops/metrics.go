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
	m.written = m.operations.WithLabelValues(namespace.OpWrite.String(), "done")
	if reg != nil {
		reg.MustRegister(m.operations, m.resolutions, m.late, m.intents, m.nodes)
	}
	return m
}

// rest clears what only a leader can tell.
func (m *metrics) rest() {
	m.intents.Reset()
	m.nodes.Reset()
}
