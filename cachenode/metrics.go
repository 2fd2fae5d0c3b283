package cachenode

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/fill"
	"github.com/freshet-io/freshet/cachenode/tier"
)

type metrics struct {
	reads     *prometheus.CounterVec
	bytes     *prometheus.CounterVec
	evictions *prometheus.CounterVec
	uploads   *prometheus.CounterVec
	copies    *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, t *tier.Tier) *metrics {
	m := &metrics{
		reads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_reads_total", Help: "Block reads by where their bytes came from.",
		}, []string{"source"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_read_bytes_total", Help: "Bytes read by where they came from.",
		}, []string{"source"}),
		evictions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_evictions_total", Help: "Blocks that left the cache, by reason.",
		}, []string{"reason"}),
		uploads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_uploads_total", Help: "Uploads by outcome.",
		}, []string{"result"}),
		copies: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_copied_blocks_total", Help: "Blocks that the leader ordered to be copied here, by what came of it.",
		}, []string{"result"}),
	}
	if reg == nil {
		return m
	}
	labels := prometheus.Labels{"tier": string(t.Kind())}
	reg.MustRegister(m.reads, m.bytes, m.evictions, m.uploads, m.copies,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "freshet_cache_bytes", Help: "Bytes that cached blocks take, blocks in the making included.", ConstLabels: labels,
		}, func() float64 { return float64(t.Used()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "freshet_cache_capacity_bytes", Help: "Bytes that cached blocks may take.", ConstLabels: labels,
		}, func() float64 { return float64(t.Capacity()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "freshet_cache_pinned_bytes", Help: "Bytes of blocks that a policy keeps from being evicted.", ConstLabels: labels,
		}, func() float64 { return float64(t.Pinned()) }),
	)
	for _, o := range []freshet.Origin{freshet.OriginHit, freshet.OriginRemote, freshet.OriginUFS} {
		m.reads.WithLabelValues(o.String())
		m.bytes.WithLabelValues(o.String())
	}
	for _, r := range []tier.Reason{tier.ReasonCapacity, tier.ReasonFreed, tier.ReasonCorrupt, tier.ReasonForeign} {
		m.evictions.WithLabelValues(string(r))
	}
	for _, r := range []string{"copied", "failed"} {
		m.copies.WithLabelValues(r)
	}
	// What the start found on the disk and removed was damaged while nobody watched.
	m.evictions.WithLabelValues(string(tier.ReasonCorrupt)).Add(float64(t.Quarantined()))
	return m
}

// countedStream counts a read when it ends.
type countedStream struct {
	*fill.Stream
	metrics *metrics
	closed  bool
}

// Close implements io.Closer.
func (s *countedStream) Close() error {
	if !s.closed {
		s.closed = true
		source := s.Origin().String()
		s.metrics.reads.WithLabelValues(source).Inc()
		s.metrics.bytes.WithLabelValues(source).Add(float64(s.Sent()))
	}
	return s.Stream.Close()
}
