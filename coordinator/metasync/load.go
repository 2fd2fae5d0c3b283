package metasync

import (
	"context"

	"github.com/freshet-io/freshet/coordinator/namespace"
)

// load is a part of what a listing changes.
type load struct {
	d       *diff
	listing namespace.LoadListing
	results []string // one per difference, for metrics
}

// loads proposes loads: each by itself, or, where a listing of a tree goes
// through many small directories, as many together as one load may be large.
type loads struct {
	s     *Syncer
	least int // rows that are proposed together; 0: whatever there is
	queue []load
	rows  int
}

// add takes a load and proposes what there is if that is enough.
func (q *loads) add(ctx context.Context, l *load) error {
	q.queue = append(q.queue, *l)
	if q.rows += 1 + len(l.results); q.rows < q.least {
		return nil
	}
	return q.send(ctx)
}

// send proposes what there is.
func (q *loads) send(ctx context.Context) error {
	if len(q.queue) == 0 {
		return nil
	}
	cmds := make([]namespace.Command, len(q.queue))
	for i := range q.queue {
		cmds[i].LoadListing = &q.queue[i].listing
	}
	results, err := q.s.Propose(ctx, cmds...)
	if err != nil {
		return err
	}
	for i := range q.queue {
		q.queue[i].installed(&results[i])
	}
	q.queue, q.rows = nil, 0
	return nil
}

// installed notes what became of a load.
func (l *load) installed(r *namespace.Result) {
	d := l.d
	d.answer.changed += int64(len(l.results) - len(r.Rejected))
	d.answer.complete = r.Installed
	d.doubts = append(d.doubts, r.Rejected...)
	d.s.metrics.rejected.Add(float64(len(r.Rejected)))
	for _, result := range l.results {
		d.s.count(result)
	}
}
