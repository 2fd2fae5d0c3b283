package coordinator

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet/coordinator/namespace"
)

// stateMetrics tells of the size of the state, its cache and its store. Everything
// is read at once when it is asked for.
type stateMetrics struct {
	read func() namespace.Stats

	entries, trash                *prometheus.Desc
	cacheEntries, cacheBytes      *prometheus.Desc
	lookups                       *prometheus.Desc
	disk, obsolete, memory        *prometheus.Desc
	compactions, flushes, sources *prometheus.Desc
}

func newStateMetrics(read func() namespace.Stats) *stateMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &stateMetrics{
		read:         read,
		entries:      desc("freshet_state_entries", "Files and directories that the state holds, those included that were removed and are not purged yet."),
		trash:        desc("freshet_state_trash_directories", "Removed directories that are not purged yet."),
		cacheEntries: desc("freshet_state_cache_entries", "Names in the cache of entries, those included that are known not to be held."),
		cacheBytes:   desc("freshet_state_cache_bytes", "Memory that the cache of entries takes."),
		lookups:      desc("freshet_state_cache_lookups_total", "Names looked for in the cache of entries, by whether the store had to be asked: hit or miss.", "result"),
		disk:         desc("freshet_state_store_disk_bytes", "Bytes that the store of the state takes on disk."),
		obsolete:     desc("freshet_state_store_obsolete_bytes", "Of these, bytes of files that were replaced and are about to be deleted."),
		memory:       desc("freshet_state_store_memory_bytes", "Memory that the store's block cache and tables of recent changes take."),
		compactions:  desc("freshet_state_store_compactions_total", "Compactions of the store since the start."),
		flushes:      desc("freshet_state_store_flushes_total", "Tables of recent changes written to disk since the start."),
		sources:      desc("freshet_state_store_read_amplification", "Sorted runs that a read may have to look into."),
	}
}

// Describe implements prometheus.Collector.
func (m *stateMetrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m *stateMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.read()
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	count := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(m.entries, float64(s.Entries))
	gauge(m.trash, float64(s.Trash))
	gauge(m.cacheEntries, float64(s.CacheEntries))
	gauge(m.cacheBytes, float64(s.CacheBytes))
	count(m.lookups, s.CacheHits, "hit")
	count(m.lookups, s.CacheMisses, "miss")
	gauge(m.disk, float64(s.Store.DiskBytes))
	gauge(m.obsolete, float64(s.Store.ObsoleteBytes))
	gauge(m.memory, float64(s.Store.MemoryBytes))
	count(m.compactions, s.Store.Compactions)
	count(m.flushes, s.Store.Flushes)
	gauge(m.sources, float64(s.Store.ReadAmplified))
}
