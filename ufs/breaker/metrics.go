package breaker

import (
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"

	"github.com/freshet-io/freshet"
)

// Metrics are the metrics of all breakers of one process. A nil *Metrics shows
// nothing. It is safe for concurrent use.
type Metrics struct {
	state   *prometheus.Desc
	opened  *prometheus.CounterVec
	refused *prometheus.CounterVec

	mu  sync.Mutex
	all map[*FS]struct{}
}

// NewMetrics registers freshet_ufs_breaker_state{kind,mount_id} (0 closed, 1
// half-open, 2 open), freshet_ufs_breaker_opened_total{kind} and
// freshet_ufs_breaker_refused_total{kind}.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		state: prometheus.NewDesc("freshet_ufs_breaker_state",
			"Circuit breaker of a mount: 0 closed, 1 half-open (one call tries the storage), 2 open (the storage is left alone).", []string{"kind", "mount_id"}, nil),
		opened: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_ufs_breaker_opened_total", Help: "How often a circuit breaker opened, by kind of storage.",
		}, []string{"kind"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_ufs_breaker_refused_total", Help: "Calls that an open circuit breaker refused, by kind of storage.",
		}, []string{"kind"}),
		all: map[*FS]struct{}{},
	}
	for _, c := range []prometheus.Collector{m, m.opened, m.refused} {
		if err := reg.Register(c); err != nil {
			return nil, freshet.Errorf(freshet.KindInternal, "register metrics", "", "%w", err)
		}
	}
	return m, nil
}

func (m *Metrics) add(f *FS) {
	if m == nil || f.opts.Mount == 0 { // not mounted yet, only tried
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all[f] = struct{}{}
}

func (m *Metrics) remove(f *FS) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.all, f)
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.state }

// Collect implements prometheus.Collector. While a mount changes, two generations
// of it are open: the worse one is shown.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	type of struct{ kind, mount string }
	worst := map[of]float64{}
	m.mu.Lock()
	open := slices.Collect(maps.Keys(m.all))
	m.mu.Unlock()
	for _, f := range open {
		at := of{f.kind, strconv.FormatUint(uint64(f.opts.Mount), 10)}
		worst[at] = max(worst[at], level(f.circuit.State()))
	}
	for at, v := range worst {
		ch <- prometheus.MustNewConstMetric(m.state, prometheus.GaugeValue, v, at.kind, at.mount)
	}
}

func level(s gobreaker.State) float64 {
	switch s {
	case gobreaker.StateOpen:
		return 2
	case gobreaker.StateHalfOpen:
		return 1
	default:
		return 0
	}
}
