package coordinator

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/audit"
)

// Audit has the leader compare what is cached with the storages, round after round,
// and count what a read would be answered with although the storage has something
// else. It repairs nothing: a violation that vanished by itself tells nobody why.
type Audit struct {
	// PerSecond is how many entries are compared in a second; 0, the default, is
	// none, and nothing runs.
	PerSecond float64
}

const (
	// auditPause is how long a round takes at least.
	auditPause = 10 * time.Second
	// auditAgain is after how long what was found is looked at again.
	auditAgain = time.Minute
	// maxSuspects bounds what waits to be looked at again.
	maxSuspects = 1000
	// maxAuditLogs bounds the violations of a round that are logged.
	maxAuditLogs = 20
)

// The windows of freshet_consistency_violations_total.
const (
	windowNow   = "0s"
	windowAgain = "1m"
)

func (m *metrics) registerAudit(reg prometheus.Registerer) {
	m.audited = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "freshet_audit_entries_total", Help: "Entries that the leader's audit compared with their storages.",
	})
	m.violations = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "freshet_consistency_violations_total",
		Help: "Entries that a read would have been answered with although the storage has others, by how long after they were found.",
	}, []string{"window"})
	for _, w := range []string{windowNow, windowAgain} {
		m.violations.WithLabelValues(w) // shown as zero, not as absent
	}
	if reg != nil {
		reg.MustRegister(m.audited, m.violations)
	}
}

// suspect is a violation to be looked at again.
type suspect struct {
	path freshet.Path
	due  time.Duration
}

// auditing is one leader's audit.
type auditing struct {
	c        *Coordinator
	suspects []suspect
	logged   int
	seen     int64 // entries of the round so far
}

// auditStorages compares until ctx ends.
func (c *Coordinator) auditStorages(ctx context.Context) error {
	a := &auditing{c: c}
	for {
		began := c.clock.Elapsed()
		a.seen, a.logged = 0, 0
		err := c.auditor(ctx).Check(ctx, freshet.CheckQuery{Path: "/", Recursive: true}, func(r freshet.CheckReport) error {
			a.take(r)
			return nil
		})
		if err != nil && ctx.Err() == nil {
			c.log.Warn("the audit could not compare everything", "error", err)
		}
		for wait := true; wait; {
			a.again(ctx)
			wait = c.clock.Elapsed()-began < auditPause || len(a.suspects) > 0
			select {
			case <-c.clock.After(time.Second):
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// auditor returns an Auditor that takes its time.
func (c *Coordinator) auditor(ctx context.Context) *audit.Auditor {
	began, entries := c.clock.Elapsed(), 0
	return audit.New(c.auditDeps(), audit.Options{Clock: c.clock, Parallel: 1, Pace: func() error {
		entries++
		ahead := time.Duration(float64(entries)/c.opts.Audit.PerSecond*float64(time.Second)) - (c.clock.Elapsed() - began)
		if ahead < 10*time.Millisecond {
			return nil
		}
		select {
		case <-c.clock.After(ahead):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}})
}

// take counts what a round told.
func (a *auditing) take(r freshet.CheckReport) {
	a.c.metrics.audited.Add(float64(r.Progress.Entries - a.seen))
	a.seen = r.Progress.Entries
	d := r.Difference
	if d == nil || !a.violates(d) {
		return
	}
	a.c.metrics.violations.WithLabelValues(windowNow).Inc()
	if len(a.suspects) < maxSuspects {
		a.suspects = append(a.suspects, suspect{path: d.Path, due: a.c.clock.Elapsed() + auditAgain})
	}
	if a.logged++; a.logged <= maxAuditLogs {
		a.c.log.Warn("a read would be answered with what the storage does not have; see freshet explain --check", "path", string(d.Path), "class", d.Class, "reason", d.Reason)
	}
}

// violates reports whether nothing excuses a difference: a read would be answered
// with it, no sync interval allows that, and no news is known to be on its way.
func (a *auditing) violates(d *freshet.Difference) bool {
	if !d.Served {
		return false
	}
	l, err := a.c.state.Lookup(d.Path)
	return err == nil && a.c.ruleOf(nil)(&l) < 0 && a.c.coming(&l.Mount) == ""
}

// again looks at the violations whose time has come.
func (a *auditing) again(ctx context.Context) {
	for len(a.suspects) > 0 && a.suspects[0].due <= a.c.clock.Elapsed() && ctx.Err() == nil {
		p := a.suspects[0].path
		a.suspects = a.suspects[1:]
		still := false
		_ = a.c.auditor(ctx).Check(ctx, freshet.CheckQuery{Path: p}, func(r freshet.CheckReport) error { // what can't be compared any more is no violation
			still = still || (r.Difference != nil && r.Difference.Path == p && a.violates(r.Difference))
			return nil
		})
		if still {
			a.c.metrics.violations.WithLabelValues(windowAgain).Inc()
		}
	}
}
