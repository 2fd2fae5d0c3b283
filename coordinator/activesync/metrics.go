package activesync

import "github.com/prometheus/client_golang/prometheus"

// kindPosted is the kind of what is posted to us.
const kindPosted = "webhook"

type metrics struct {
	notices  *prometheus.CounterVec
	gaps     *prometheus.CounterVec
	restarts *prometheus.CounterVec
	lag      *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		notices: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_active_sync_notices_total",
			Help: "Notices of storages, by the kind of source and what was done: marked, ignored (nothing mounted), idle (no change), gap (everything marked) or failed.",
		}, []string{"kind", "result"}),
		gaps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_active_sync_gap_total",
			Help: "Times that a source said, or was silent for so long, that changes may have been missed.",
		}, []string{"kind"}),
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_active_sync_restarts_total",
			Help: "Watches of storages that ended with an error and were begun again.",
		}, []string{"kind"}),
		lag: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "freshet_active_sync_lag_seconds",
			Help:    "From the time that a storage gives for the oldest change of a notice to its replicated mark; the clocks of both count.",
			Buckets: []float64{.005, .01, .025, .05, .1, .15, .3, .6, 1, 2.5, 5, 10, 30, 60, 300},
		}, []string{"kind"}),
	}
	if reg != nil {
		reg.MustRegister(m.notices, m.gaps, m.restarts, m.lag)
	}
	return m
}
