package ops

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

const (
	// beneathTimeout bounds the look at what a file that stays on nodes replaces: a storage
	// that does not answer holds up no such write.
	beneathTimeout = 3 * time.Second
	// beneathLooks is how many such looks of one call are under way at a time.
	beneathLooks = 16
)

// lookBeneath looks at what files that stay on nodes are about to replace, where that became
// doubtful since their writes began: what the state takes to lie beneath a file is what may
// be replaced when it is persisted.
func (e *Engine) lookBeneath(ctx context.Context, qs []freshet.CompleteQuery) {
	ctx, cancel := context.WithTimeout(ctx, beneathTimeout)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(beneathLooks)
	for i := range qs {
		in, ok := e.state.Intent(qs[i].Op)
		if !ok || !e.doubtful(&in) {
			continue
		}
		group.Go(func() error {
			if err := e.lookAt(ctx, in.Path); err != nil && !freshet.IsKind(err, freshet.KindNotExist) {
				e.log.Debug("what a file is written over is not certain", "op", in.Op.String(), "error", err)
			}
			return nil
		})
	}
	_ = group.Wait() // nobody fails
}

// doubtful reports whether the write is one of a file that stays on nodes, and the state is
// not sure of what lies beneath that.
func (e *Engine) doubtful(in *namespace.Intent) bool {
	if e.lookAt == nil || !in.Keeps() {
		return false
	}
	l, err := e.state.Lookup(in.Path)
	switch {
	case err != nil || l.Unpersisted:
		return false
	case l.Uncachable:
		return true
	case !l.Found:
		return l.Need > in.Started // else it was looked for when the write began
	}
	return !l.Freshness.Servable(0)
}

// endDoubtful ends writes that a heartbeat reported, once it was looked at what lies beneath
// them. Those that can't be ended are reported again.
func (e *Engine) endDoubtful(l *lead, qs []freshet.CompleteQuery) {
	if len(qs) == 0 {
		return
	}
	release := l.hold(qs)
	started := e.start(l, "end files that stay on nodes", func(ctx context.Context) {
		defer release()
		each, err := e.Completes(ctx, qs)
		if err != nil {
			e.log.Debug("finished files could not be settled yet", "operations", len(qs), "error", err)
		}
		for i := range each {
			e.unsettled(l, qs[i].Op, each[i].Err)
		}
	})
	if !started {
		release()
	}
}

// hold keeps heartbeats from ending writes that somebody else is about to end, until release
// is called.
func (l *lead) hold(qs []freshet.CompleteQuery) (release func()) {
	add := func(n int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i := range qs {
			op := qs[i].Op
			if l.ending[op] += n; l.ending[op] == 0 {
				delete(l.ending, op)
			}
		}
	}
	add(1)
	return func() { add(-1) }
}

func (l *lead) held(op freshet.OpID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ending[op] > 0
}
