package coordinator

import (
	"context"
	"fmt"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/activesync"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
)

func (c *Coordinator) mountsAndChange() ([]freshet.Mount, <-chan struct{}) {
	changed := c.watch.mounts.wait()
	mounts, _ := c.state.Mounts()
	return mounts, changed
}

// listens reports whether a mount's storage is heard in this term, and whether it
// tells of every change.
func (c *Coordinator) listens(m *freshet.Mount) (complete, heard bool) {
	if !m.ActiveSync {
		return false, false
	}
	return c.active.Heard(m.ID, m.Generation, c.term.Load())
}

// unheard says why a mount's storage is not heard, and what that means under the
// interval that applies then.
func (c *Coordinator) unheard(m *freshet.Mount, applies freshet.Interval) string {
	st := c.active.Status(m.ID, c.term.Load())
	seen := "only by a sync that is asked for"
	switch {
	case applies == freshet.Always:
		seen = "at every access"
	case applies > 0:
		seen = "after " + applies.String()
	}
	return fmt.Sprintf("notifications of %s are %s; changes are seen %s", st.Source, st.Reason, seen)
}

// missing says why news of a mount may be missing, "" if none is.
func (c *Coordinator) missing(m *freshet.Mount) string {
	return c.rule(&namespace.Lookup{HasMount: true, Mount: *m, Interval: m.Interval, Rule: namespace.Rule{Path: m.Path, Mount: true}, Policy: namespace.Effective{Level: c.levelOf(m)}}, nil).degraded
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// activeStatus returns how a mount's storage is heard, nil if nobody listens.
func (c *Coordinator) activeStatus(m *freshet.Mount) *freshet.ActiveSyncStatus {
	if !m.ActiveSync {
		return nil
	}
	st := c.active.Status(m.ID, c.term.Load())
	return &st
}

// checkActive says whether an open storage can be listened to; notes say what
// listening does not promise.
func checkActive(fs ufs.FS, m *freshet.Mount) (notes []string, err error) {
	_, about, err := activesync.SourceOf(fs)
	if err != nil {
		return nil, err
	}
	if !about.Complete && m.Interval < 0 {
		notes = append(notes, fmt.Sprintf("%s may miss changes or lose word of them: set a sync interval for what it misses", about.ID))
	}
	return notes, nil
}

// PostEvents takes what somebody posted who says that a storage changed, and
// returns when what it names is marked.
func (c *Coordinator) PostEvents(ctx context.Context, p freshet.EventPost) (freshet.EventAnswer, error) {
	if err := c.barrier(ctx); err != nil {
		return freshet.EventAnswer{}, err
	}
	return c.active.Post(ctx, p, c.opts.Environment.Secret)
}
