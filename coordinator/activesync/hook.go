package activesync

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/ufs"
)

// maxSilence is how long nothing may be posted for a mount; 0 is for ever.
func maxSilence(m freshet.Mount) time.Duration {
	d, err := time.ParseDuration(m.Options[ufs.OptionEventsMaxSilence]) // checked when it was mounted
	if err != nil {
		return 0
	}
	return d
}

// hook is what was posted for a domain in this term.
type hook struct {
	clock clock.Clock
	began time.Time
	last  atomic.Int64 // Elapsed at the last post, or at the beginning of the term
	ever  atomic.Bool
	lag   atomic.Int64 // negative: unknown
}

func newHook(c clock.Clock) *hook {
	h := &hook{clock: c, began: c.Now()}
	h.last.Store(int64(c.Elapsed()))
	h.lag.Store(-1)
	return h
}

func (h *hook) heardNow(e *Engine, oldest time.Time) {
	h.last.Store(int64(h.clock.Elapsed()))
	h.ever.Store(true)
	if !oldest.IsZero() {
		lag := max(h.clock.Now().Sub(oldest), 0)
		h.lag.Store(int64(lag))
		e.metrics.lag.WithLabelValues(kindPosted).Observe(lag.Seconds())
	}
}

// unproved reports whether nothing may have been posted for too long although this
// term is not that old: nothing was posted in it, and the one before is forgotten.
func (h *hook) unproved(m freshet.Mount) bool { return maxSilence(m) > 0 && !h.ever.Load() }

// hookEar is how a mount hears a hook.
type hookEar struct {
	hook       *hook
	generation uint64
	most       time.Duration
}

func (h hookEar) of() uint64 { return h.generation }

func (h hookEar) idle() time.Duration {
	return h.hook.clock.Elapsed() - time.Duration(h.hook.last.Load())
}

func (h hookEar) heard() (complete, ok bool) { return false, h.most == 0 || h.idle() <= h.most }

func (h hookEar) status() freshet.ActiveSyncStatus {
	st := freshet.ActiveSyncStatus{Source: "events posted to /v1/events", SinceNotice: -1, Lag: time.Duration(h.hook.lag.Load())}
	_, st.Heard = h.heard()
	if h.hook.ever.Load() {
		st.SinceNotice = h.idle()
	}
	if st.Heard {
		st.HeardSince = h.hook.began.UTC()
	} else {
		st.Reason = fmt.Sprintf("not heard for %s: nothing was posted, %s allows %s", h.idle().Round(time.Second), ufs.OptionEventsMaxSilence, h.most)
	}
	return st
}
