package journal

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what this package does and asks Raft for the rest when scraped.
type metrics struct {
	j *Journal

	proposals    *prometheus.CounterVec
	commands     prometheus.Counter
	entries      prometheus.Counter
	latency      prometheus.Histogram
	apply        prometheus.Histogram
	elected      prometheus.Counter
	snapshots    *prometheus.CounterVec
	leaseReads   atomic.Uint64
	verifyRounds atomic.Uint64

	gauges []gauge
	reads  *prometheus.Desc
}

// gauge is a value of Raft.
type gauge struct {
	desc *prometheus.Desc
	read func(*session) float64
}

func newMetrics(j *Journal) *metrics {
	m := &metrics{
		j: j,
		proposals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_raft_proposals_total", Help: "Calls that proposed commands, by outcome.",
		}, []string{"outcome"}),
		commands: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "freshet_raft_commands_total", Help: "Commands that were acknowledged.",
		}),
		entries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "freshet_raft_entries_total", Help: "Log entries that this member proposed.",
		}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "freshet_raft_proposal_seconds", Help: "Time from a proposal to its acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		apply: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "freshet_raft_apply_seconds", Help: "Time to apply one log entry to the state.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 14),
		}),
		elected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "freshet_raft_terms_led_total", Help: "Terms in which this member was elected leader.",
		}),
		snapshots: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_raft_snapshots_total", Help: "Snapshots by what was done with them: taken, sent, received.",
		}, []string{"what"}),
		reads: prometheus.NewDesc("freshet_raft_reads_total",
			"Reads that the lease confirmed, and rounds of messages that confirmed reads.", []string{"by"}, nil),
	}
	m.gauges = raftGauges()
	return m
}

func raftGauges() []gauge {
	describe := func(name, help string, read func(*session) float64) gauge {
		return gauge{prometheus.NewDesc("freshet_raft_"+name, help, nil, nil), read}
	}
	stat := func(name string) func(*session) float64 {
		return func(s *session) float64 {
			v, _ := strconv.ParseFloat(s.raft.Stats()[name], 64)
			return v
		}
	}
	return []gauge{
		describe("term", "Current term.", func(s *session) float64 { return float64(s.raft.CurrentTerm()) }),
		describe("commit_index", "Index of the last committed entry.", func(s *session) float64 { return float64(s.raft.CommitIndex()) }),
		describe("last_index", "Index of the last entry of the log.", func(s *session) float64 { return float64(s.raft.LastIndex()) }),
		describe("snapshot_index", "Index up to which the log is not needed.", stat("last_snapshot_index")),
		describe("log_bytes", "Bytes of the entries in the log.", func(s *session) float64 {
			return float64(s.leadership.j.store.logs.sizes.total())
		}),
		describe("apply_queue", "Batches of entries that wait to be applied.", stat("fsm_pending")),
		describe("applied_index", "Index of the last command that the state has applied.", func(s *session) float64 {
			return float64(s.leadership.j.machine.applied.Load())
		}),
		describe("members", "Members of the cluster.", func(s *session) float64 {
			return float64(len(s.raft.GetConfiguration().Configuration().Servers))
		}),
		describe("proposals_queued", "Proposals that wait for their entry.", func(s *session) float64 {
			return float64(len(s.batcher.queue))
		}),
		describe("leader_contact_seconds", "Time since a follower heard from the leader, 0 on the leader.", func(s *session) float64 {
			last := s.raft.LastContact()
			if s.raft.State() == raft.Leader || last.IsZero() {
				return 0
			}
			return time.Since(last).Seconds()
		}),
	}
}

// register returns what undoes it. A nil Registerer is fine.
func (m *metrics) register(to prometheus.Registerer) (func(), error) {
	if to == nil {
		return func() {}, nil
	}
	if err := to.Register(m); err != nil {
		return nil, err
	}
	return func() { to.Unregister(m) }, nil
}

func (m *metrics) counters() []prometheus.Collector {
	return []prometheus.Collector{m.proposals, m.commands, m.entries, m.latency, m.apply, m.elected, m.snapshots}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, c := range m.counters() {
		c.Describe(to)
	}
	for _, g := range m.gauges {
		to <- g.desc
	}
	to <- m.reads
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	for _, c := range m.counters() {
		c.Collect(to)
	}
	if s := m.j.session.Load(); s != nil {
		for _, g := range m.gauges {
			to <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.read(s))
		}
	}
	to <- prometheus.MustNewConstMetric(m.reads, prometheus.CounterValue, float64(m.leaseReads.Load()), "lease")
	to <- prometheus.MustNewConstMetric(m.reads, prometheus.CounterValue, float64(m.verifyRounds.Load()), "round")
}

func (m *metrics) snapshotEvents() snapshotEvents {
	count := func(what string) func() { return m.snapshots.WithLabelValues(what).Inc }
	return snapshotEvents{taken: count("taken"), sent: count("sent"), received: count("received")}
}

func (m *metrics) entry([]*proposal) { m.entries.Inc() }

// proposed counts one call of Propose.
func (m *metrics) proposed(err error, commands int, start time.Time) {
	switch {
	case err == nil:
		m.proposals.WithLabelValues("ok").Inc()
		m.commands.Add(float64(commands))
		m.latency.Observe(time.Since(start).Seconds())
	case OutcomeUnknown(err):
		m.proposals.WithLabelValues("unknown").Inc()
	default:
		m.proposals.WithLabelValues("refused").Inc()
	}
}
