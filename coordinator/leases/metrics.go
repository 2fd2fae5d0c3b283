package leases

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	grants, breaks, expired, late prometheus.Counter
	refused                       *prometheus.CounterVec
	waited                        prometheus.Histogram
}

func newMetrics(r prometheus.Registerer, t *Table) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		grants:  counter("freshet_lease_grants_total", "Answers that a client was allowed to keep for a while."),
		breaks:  counter("freshet_lease_breaks_total", "Kept answers that were called back before a change."),
		expired: counter("freshet_lease_expired_total", "Sessions that were ended because a client did not drop what it was told to before it ran out."),
		late:    counter("freshet_lease_late_breaks_total", "Kept answers that were called back only after a change was applied; any is a fault of Freshet."),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "freshet_lease_refusals_total", Help: "Answers that a client wanted to keep and may not."}, []string{"reason"}),
		waited: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "freshet_lease_wait_seconds", Help: "How long changes waited for kept answers to be dropped.",
			Buckets: []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 2, 5, 10},
		}),
	}
	if r == nil {
		return m
	}
	gauge := func(name, help string, f func() int) prometheus.GaugeFunc {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(f()) })
	}
	r.MustRegister(m.grants, m.breaks, m.expired, m.late, m.refused, m.waited,
		gauge("freshet_lease_sessions", "Clients that keep answers.", func() int { n, _ := t.Counts(); return n }),
		gauge("freshet_leases", "Answers that clients may keep now.", func() int { _, n := t.Counts(); return n }))
	return m
}
