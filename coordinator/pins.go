package coordinator

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// pins tells cache nodes which of their blocks are not to be evicted. It is
// answered to a node's own reports: with what a node adds it hears which of it is
// pinned, and when the rules change it is asked for a full report, whose answer
// is the whole truth. A block that just came is pinned from the next heartbeat on.
type pins struct {
	mu       sync.Mutex
	stale    bool   // the policies may have changed since rules was made
	rules    string // the policies that pin or unpin, in order of their paths
	some     bool   // one of them pins
	revision uint64 // grows with each change; 0 while nothing was ever pinned
}

// changed notes that policies changed.
func (p *pins) changed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stale = true
}

// moved notes that files may have come into a pinned path, or left one.
func (p *pins) moved() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.some {
		p.revision++
	}
}

// now returns the revision, and whether anything is pinned.
func (p *pins) now(policies func() []namespace.Policy) (revision uint64, some bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stale {
		return p.revision, p.some
	}
	p.stale = false
	var rules strings.Builder
	p.some = false
	for _, policy := range policies() {
		i := slices.IndexFunc(policy.Settings, func(s namespace.PolicySetting) bool { return s.Property == freshet.PropertyPinned })
		if i >= 0 {
			fmt.Fprintf(&rules, "%q %s\n", string(policy.Path), policy.Settings[i].Value)
			p.some = p.some || policy.Settings[i].Value == "true"
		}
	}
	if s := rules.String(); s != p.rules {
		p.rules = s
		p.revision++
	}
	return p.revision, p.some
}

// answerPins completes the answer to a heartbeat.
func (c *Coordinator) answerPins(h *freshet.Heartbeat, r *freshet.HeartbeatReply) {
	revision, some := c.pins.now(c.state.Policies)
	r.PinRevision = revision
	if h.PinRevision != revision && !h.Full {
		r.NeedFull = true
		return
	}
	if !some || r.NeedFull {
		return
	}
	var last freshet.FileID
	for _, b := range h.Added {
		if b.ID.File == last {
			continue // blocks of one file often come together
		}
		last = b.ID.File
		if p, ok := c.state.PathOfFile(last); ok {
			if e, _ := c.state.EffectiveAt(p); e.Pinned {
				r.Pinned = append(r.Pinned, last)
			}
		}
	}
}
