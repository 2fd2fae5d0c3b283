package cachenode

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/fill"
	"github.com/freshet-io/freshet/cachenode/store"
	"github.com/freshet-io/freshet/cachenode/tier"
)

type metrics struct {
	reads     *prometheus.CounterVec
	bytes     *prometheus.CounterVec
	evictions *prometheus.CounterVec
	uploads   *prometheus.CounterVec
	copies    *prometheus.CounterVec
	persisted *prometheus.CounterVec
	moves     *prometheus.CounterVec
	fetches   *prometheus.CounterVec
	unasked   prometheus.Counter
	warms     *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, blocks *store.Store) *metrics {
	m := &metrics{
		reads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_reads_total", Help: "Reads of blocks, each range of one that is read by ranges, by where their bytes came from.",
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
		persisted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_persisted_files_total", Help: "Files that the leader ordered to be written to the storage, by what came of it.",
		}, []string{"result"}),
		moves: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_cache_moves_total", Help: "Blocks that were copied from one tier of the node to another.",
		}, []string{"from", "to"}),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_background_fetches_total", Help: "Blocks of which a part was read, and the rest was to be cached in the background, by what came of it.",
		}, []string{"result"}),
		unasked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "freshet_background_bytes_total", Help: "Bytes fetched while no reader waited for them.",
		}),
		warms: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_warmed_blocks_total", Help: "Blocks that the leader ordered to be brought here for a warm, by what came of it.",
		}, []string{"result"}),
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.reads, m.bytes, m.evictions, m.uploads, m.copies, m.moves, m.persisted, m.fetches, m.unasked, m.warms, tiers{blocks})
	for _, o := range []freshet.Origin{freshet.OriginHit, freshet.OriginRemote, freshet.OriginUFS} {
		m.reads.WithLabelValues(o.String())
		m.bytes.WithLabelValues(o.String())
	}
	for _, r := range []tier.Reason{tier.ReasonCapacity, tier.ReasonFreed, tier.ReasonCorrupt, tier.ReasonForeign, tier.ReasonFailed} {
		m.evictions.WithLabelValues(string(r))
	}
	for _, r := range []string{"copied", "failed"} {
		m.copies.WithLabelValues(r)
	}
	for _, r := range []string{"cached", "failed", "dropped"} {
		m.fetches.WithLabelValues(r)
	}
	for _, r := range []string{"fetched", "held", "failed"} {
		m.warms.WithLabelValues(r)
	}
	// What the start found on the disk and removed was damaged while nobody watched.
	m.evictions.WithLabelValues(string(tier.ReasonCorrupt)).Add(float64(blocks.Swept()))
	return m
}

// background returns what counts the work in the background.
func (m *metrics) background() fill.Watch {
	return fill.Watch{
		Bytes:   func(n int64) { m.unasked.Add(float64(n)) },
		Fetched: func(result string) { m.fetches.WithLabelValues(result).Inc() },
	}
}

// tiers collects what is to be said of each tier.
type tiers struct{ blocks *store.Store }

// tierFigure is one figure of a tier.
type tierFigure struct {
	desc *prometheus.Desc
	of   func(store.Status) int64
}

func tierFigures() []tierFigure {
	figure := func(name, help string, of func(store.Status) int64) tierFigure {
		return tierFigure{prometheus.NewDesc(name, help, []string{"tier"}, nil), of}
	}
	return []tierFigure{
		figure("freshet_cache_bytes", "Bytes that cached blocks take, blocks in the making included.", func(s store.Status) int64 { return s.Used }),
		figure("freshet_cache_capacity_bytes", "Bytes that cached blocks may take.", func(s store.Status) int64 { return s.Capacity }),
		figure("freshet_cache_unpersisted_bytes", "Bytes of blocks that are kept because their files may not be in the storage.", func(s store.Status) int64 { return s.Kept }),
		figure("freshet_cache_pinned_bytes", "Bytes of blocks that a policy keeps from being evicted.", func(s store.Status) int64 { return s.Pinned }),
	}
}

func dirsDesc() *prometheus.Desc {
	return prometheus.NewDesc("freshet_cache_directories", "Directories of the cache by what they are good for.", []string{"tier", "state"}, nil)
}

// Describe implements prometheus.Collector.
func (t tiers) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range tierFigures() {
		ch <- f.desc
	}
	ch <- dirsDesc()
}

// Collect implements prometheus.Collector.
func (t tiers) Collect(ch chan<- prometheus.Metric) {
	figures, dirs := tierFigures(), dirsDesc()
	for _, s := range t.blocks.Status() {
		for _, f := range figures {
			ch <- prometheus.MustNewConstMetric(f.desc, prometheus.GaugeValue, float64(f.of(s)), string(s.Kind))
		}
		if s.Kind == store.Memory {
			continue
		}
		states := map[string]float64{"serving": 0, "full": 0, "failed": 0}
		for _, d := range s.Dirs {
			states[d.State]++
		}
		for state, n := range states {
			ch <- prometheus.MustNewConstMetric(dirs, prometheus.GaugeValue, n, string(s.Kind), state)
		}
	}
}

// countedStream counts a read when it ends; of one that is turned to range after range
// each counts.
type countedStream struct {
	*fill.Stream
	node   *Node
	id     freshet.BlockID
	ranges uint32
	closed bool
}

// Turn is that of fill.Stream.
func (s *countedStream) Turn(off, n int64) error {
	if err := s.Stream.Turn(off, n); err != nil {
		return err
	}
	s.ranges++
	return nil
}

// Close implements io.Closer.
func (s *countedStream) Close() error {
	if !s.closed {
		s.closed = true
		source, metrics := s.Origin().String(), s.node.metrics
		metrics.reads.WithLabelValues(source).Add(float64(max(s.ranges, 1)))
		metrics.bytes.WithLabelValues(source).Add(float64(s.Sent()))
		if s.ranges > 1 {
			s.node.heat.note(s.id, s.ranges-1) // the first was, when it began
		}
	}
	return s.Stream.Close()
}
