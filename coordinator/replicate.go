package coordinator

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// The bounds that policies set for the copies of cached blocks. The registry of nodes
// decides which node fetches or frees what; here is what it can't know: which bounds
// apply to a version, whether that is live and was not invalidated, and where its
// bytes come from. What has no bounds costs nothing, and no look at the storage is
// made for it.

const (
	// Each boundPause up to boundPages pages of blocks are looked at, less if the nodes
	// have enough to do.
	boundPause  = 250 * time.Millisecond
	boundPages  = 2048
	boundBusies = 32
	// While nothing bounds copies, blocks that are read much are looked at so often.
	heatPause = time.Second
)

// bounds knows whether a policy bounds copies, and when that changed.
type bounds struct {
	mu    sync.Mutex
	stale bool
	rules string // the policies that bound copies, in order of their paths
	some  bool
	wake  signal
}

// changed notes that policies changed.
func (b *bounds) changed() {
	b.mu.Lock()
	b.stale = true
	b.mu.Unlock()
	b.wake.raise()
}

// now reports whether anything is bounded, and whether other bounds were set since the
// last call.
func (b *bounds) now(policies func() []namespace.Policy) (some, other bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stale {
		return b.some, false
	}
	b.stale = false
	var rules strings.Builder
	b.some = false
	for _, p := range policies() {
		for _, s := range p.Settings {
			if s.Property == freshet.PropertyReplicationMin || s.Property == freshet.PropertyReplicationMax {
				fmt.Fprintf(&rules, "%q %s %s\n", string(p.Path), s.Property, s.Value)
				b.some = b.some || s.Value != "0"
			}
		}
	}
	other = rules.String() != b.rules
	b.rules = rules.String()
	return b.some, other
}

// boundCopies keeps the copies of blocks between their bounds until ctx ends.
func (c *Coordinator) boundCopies(ctx context.Context) error {
	defer c.nodes.Replicate(false)
	on := false
	for {
		changed := c.bounds.wake.wait()
		c.applyRoles()
		c.heatSome()
		some, other := c.bounds.now(c.state.Policies)
		if drain, _ := c.nodes.Draining("", c.clock.Elapsed()); drain {
			some = true
		}
		if some != on {
			on = some
			c.nodes.Replicate(on)
		} else if other {
			c.nodes.Recheck()
		}
		pause := heatPause
		if on {
			c.boundSome(ctx)
			pause = boundPause
		}
		tick := c.clock.After(pause)
		select {
		case <-changed:
		case <-tick:
		case <-ctx.Done():
			return nil
		}
	}
}

// boundSome looks at some of the pages that wait.
func (c *Coordinator) boundSome(ctx context.Context) {
	pages := c.nodes.NextPages(boundPages, c.clock.Elapsed())
	var v version
	draining, _ := c.nodes.Draining("", c.clock.Elapsed())
	busy := 0
	for i, p := range pages {
		if busy == boundBusies || ctx.Err() != nil {
			for _, rest := range pages[i:] {
				c.nodes.Mark(rest)
			}
			return
		}
		if i == 0 || p.File() != v.file { // the blocks of a file often come together
			v = c.copyOf(p.File(), draining)
		}
		if v.written {
			c.nodes.Mark(p)
			continue
		}
		if c.nodes.Keep(p, v.copies, c.clock.Elapsed()) {
			c.nodes.Mark(p)
			busy++
		}
	}
}

// version is a file version as its blocks are copied: with no bounds if they are not.
type version struct {
	file    freshet.FileID
	written bool // it is not live yet: an upload of it runs
	may     bool // blocks of it may be copied
	copies  freshet.Replication
	info    freshet.Info
	source  freshet.Source
}

// copyOf returns what applies to the blocks of a version now, and with all also of one
// whose copies no policy bounds. Nothing does if it is not live, or was invalidated.
func (c *Coordinator) copyOf(file freshet.FileID, all bool) version {
	v := version{file: file}
	info, _, live, err := c.state.FileInfo(file)
	if err != nil {
		return v
	}
	if !live {
		_, v.written = c.state.PathOfFile(file)
		return v
	}
	e, _ := c.state.EffectiveAt(info.Path)
	if e.Pinned {
		e.Copies.Min = max(e.Copies.Min, 1) // it is not to be lost with a node
	}
	if e.Copies.None() && !all {
		return v
	}
	in, err := c.sync.Inspect(info.Path, untimed)
	if err != nil || !copyable(&in) || in.Lookup.Info.FileID != file {
		return v
	}
	l := &in.Lookup
	v.copies, v.info, v.may = e.Copies, l.Info, true
	v.source = freshet.Source{Mount: l.Mount.ID, Key: l.Key, Fingerprint: l.Info.Fingerprint}
	return v
}

// untimed is the rule under which age alone makes nothing stale.
func untimed(*namespace.Lookup) freshet.Interval { return freshet.Never }

// copyable reports whether the version that is held may be copied between nodes: no
// word of a change has come since it was last found in the storage.
func copyable(in *metasync.Inspection) bool {
	return in.Lookup.Found && in.Entry.Fresh && !in.Lookup.Uncachable && in.Lookup.Info.Fingerprint.Known()
}

// answerCopies completes the answer to a heartbeat with what the node is to fetch.
func (c *Coordinator) answerCopies(h *freshet.Heartbeat, r *freshet.HeartbeatReply) {
	if !h.TakesCopies || r.NeedFull {
		return
	}
	var v version
	draining, _ := c.nodes.Draining("", c.clock.Elapsed())
	for i, o := range c.nodes.ToCopy(h.Node.ID, c.clock.Elapsed()) {
		if i == 0 || o.Block.File != v.file {
			v = c.copyOf(o.Block.File, true)
		}
		b := freshet.Block{ID: o.Block, Nodes: o.From}
		if v.info.BlockSize > 0 {
			b.Offset = int64(o.Block.Index) * v.info.BlockSize
			b.Length = min(v.info.BlockSize, v.info.Length-b.Offset)
		}
		wanted := v.copies.Min >= 2 || o.Hot || (v.copies.Min == 1 && draining)
		if !v.may || !wanted || b.Length <= 0 {
			c.nodes.Withdraw(h.Node.ID, o.Block)
			continue
		}
		r.Copy = append(r.Copy, freshet.BlockCopy{Block: b, Source: v.source})
	}
}

// moved has the blocks of what was renamed looked at: other bounds may apply there.
func (c *Coordinator) moved(info *freshet.Info) {
	if info.Type == freshet.TypeDirectory {
		c.nodes.Recheck()
		return
	}
	c.nodes.MarkFile(info.FileID)
}

// explainCopies says how the blocks stand to the bounds of the path; nil if there are
// none.
func (c *Coordinator) explainCopies(l *namespace.Lookup, blocks []freshet.ExplainedBlock) *freshet.ReplicationStatus {
	if l.Policy.Copies == (freshet.Replication{}) {
		return nil
	}
	r := &freshet.ReplicationStatus{Replication: l.Policy.Copies}
	for _, b := range blocks {
		if len(b.Nodes) < r.Min {
			r.Short++
		}
	}
	var why []string
	if least, most := r.Bounds(); most != r.Max {
		why = append(why, fmt.Sprintf("replication_min is above replication_max, which is set for another path, and wins: %d to %d copies are kept", least, most))
	}
	if r.Short > 0 {
		why = append(why, c.whyShort(l, r.Min))
	}
	r.Reason = strings.Join(why, "; ")
	return r
}

func (c *Coordinator) whyShort(l *namespace.Lookup, least int) string {
	in, err := c.sync.Inspect(l.Info.Path, untimed)
	now := c.clock.Elapsed()
	switch carriers := c.nodes.Carriers(now); {
	case err == nil && !copyable(&in):
		return "nothing is copied of a version that was invalidated, or is of unknown fate, until the storage was asked"
	case carriers < least:
		return fmt.Sprintf("only %d cache nodes live that take copies", carriers)
	}
	if c.nodes.Ordered(l.Info.FileID) {
		return "copies are ordered and on their way"
	}
	return "copies are ordered when a node has room and time for them"
}
