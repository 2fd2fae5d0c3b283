package crosscluster

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the bus counts. The label publisher is the name of a cluster
// that introduced itself.
type metrics struct {
	lag     *prometheus.HistogramVec
	records *prometheus.CounterVec
	behind  *prometheus.GaugeVec
	lost    *prometheus.GaugeVec
	gaps    prometheus.Counter
	resets  prometheus.Counter
	refused prometheus.Counter
	frames  *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		lag: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "freshet_invalidation_lag_seconds", Help: "Time from a change's publication to its mark here, by the two clusters' wall clocks.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15, 60},
		}, []string{"publisher"}),
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_invalidations_total", Help: "Change records of other clusters by what became of them: applied, duplicate, hinted, dropped, corrupt.",
		}, []string{"publisher", "result"}),
		behind: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "freshet_bus_behind_records", Help: "Records that a publisher is known to have and that are not applied here.",
		}, []string{"publisher"}),
		lost: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "freshet_bus_lost_domains", Help: "Domains for which a publisher is out of contact.",
		}, []string{"publisher"}),
		gaps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "freshet_bus_gap_total", Help: "Times that records were found missing and asked for again.",
		}),
		resets: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "freshet_bus_reset_total", Help: "Times that a publisher's log was started over.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "freshet_bus_refused_total", Help: "Introductions of other clusters that were refused.",
		}),
		frames: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_bus_gossip_total", Help: "Gossip payloads by what became of them: sent, taken, repeated, unknown, corrupt, overflow, limited, bogus.",
		}, []string{"result"}),
	}
	if r != nil {
		for _, c := range []prometheus.Collector{m.lag, m.records, m.behind, m.lost, m.gaps, m.resets, m.refused, m.frames} {
			// Registered before by another bus of this process: both count on
			// their own then, which only tests do.
			_ = r.Register(c)
		}
	}
	return m
}

func (m *metrics) count(publisher, result string, n int) {
	if n > 0 {
		m.records.WithLabelValues(publisher, result).Add(float64(n))
	}
}

// observe sets the gauges of one publisher.
func (m *metrics) observe(publisher string, c *contact) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var behind, lost float64
	for _, s := range c.logs {
		if high := max(s.head.High, s.target); s.exists && high > s.sub.Applied {
			behind += float64(high - s.sub.Applied)
		}
		if s.lost {
			lost++
		}
	}
	m.behind.WithLabelValues(publisher).Set(behind)
	m.lost.WithLabelValues(publisher).Set(lost)
}
