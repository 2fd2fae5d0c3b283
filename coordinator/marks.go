package coordinator

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// keepMarks is how many marks a member remembers with their causes, of about 200
// bytes each.
const keepMarks = 8192

// marks remembers the newest marks and what made them, for people who ask. It is
// memory of this process and decides nothing: the state has the stamps alone.
type marks struct {
	mu   sync.Mutex
	ring []mark // of at most keepMarks
	next int    // where the oldest is, once the ring is full
}

type mark struct {
	namespace.Marked

	index uint64
	at    time.Time // zero if it was not applied as it was made, but from the log later
}

// note remembers the marks of a log entry.
func (m *marks) note(index uint64, marked []namespace.Marked, at time.Time) {
	if len(marked) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range marked[max(len(marked)-keepMarks, 0):] {
		one := mark{Marked: marked[max(len(marked)-keepMarks, 0)+i], index: index, at: at}
		if len(m.ring) < keepMarks {
			m.ring = append(m.ring, one)
			continue
		}
		m.ring[m.next] = one
		m.next = (m.next + 1) % keepMarks
	}
}

// find returns the mark that set a stamp. Other marks of the same log entry may
// have set it too: the one that is the nearest counts.
func (m *marks) find(s namespace.Stamp) (mark, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	best, found := mark{}, false
	for i := range m.ring {
		one := &m.ring[i]
		if one.index != s.Index || !one.sets(&s) {
			continue
		}
		if !found || len(one.Path) < len(best.Path) {
			best, found = *one, true
		}
	}
	return best, found
}

// ownAt returns the mark by which an operation of this cluster made p what it is,
// at an index.
func (m *marks) ownAt(p freshet.Path, index uint64) (mark, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.ring {
		if one := &m.ring[i]; one.index == index && one.Path == p && one.Cause.Kind == namespace.CauseOperation {
			return *one, true
		}
	}
	return mark{}, false
}

// sets reports whether a mark may have set a stamp.
func (m *mark) sets(s *namespace.Stamp) bool {
	switch s.Kind {
	case freshet.StampRecursive:
		return m.Recursive && (m.Path == s.Path || m.Path.Contains(s.Path))
	case freshet.StampSelf:
		// Its own; or the path was not known to be a directory when something below it
		// changed; or it became held after its path had been marked with a tree.
		return s.Path.Contains(m.Path) || (m.Recursive && m.Path.Contains(s.Path))
	}
	return s.Path.Contains(m.Path) || m.Path.Contains(s.Path)
}

// stamps explains the stamps that cover p.
func (c *Coordinator) stamps(p freshet.Path) ([]freshet.ExplainedStamp, error) {
	all, err := c.state.Stamps(p)
	if err != nil {
		return nil, err
	}
	out := make([]freshet.ExplainedStamp, 0, len(all))
	for _, s := range all {
		x := freshet.ExplainedStamp{Kind: s.Kind, Path: s.Path, Index: s.Index, Cause: "not known: it was before this leader's memory"}
		if m, ok := c.marks.find(s); ok {
			x.Cause, x.At = c.causeText(&m), m.at.UTC()
			if m.at.IsZero() {
				x.At = time.Time{}
			}
		}
		out = append(out, x)
	}
	return out, nil
}

// causeText says in words what made a mark.
func (c *Coordinator) causeText(m *mark) string {
	cause := &m.Cause
	switch cause.Kind {
	case namespace.CauseOperation:
		return fmt.Sprintf("own %s of %s (operation %s)", cause.OpKind, m.Path, cause.Op)
	case namespace.CauseResolution:
		return fmt.Sprintf("end of a %s of %s whose outcome was unknown (operation %s)", cause.OpKind, m.Path, cause.Op)
	case namespace.CauseRecord:
		return fmt.Sprintf("change of %s, number %d of its log, by %s", m.Path, cause.Seq, c.clusterName(cause.Publisher))
	case namespace.CauseHint:
		return fmt.Sprintf("hint of another cluster that %s changed", m.Path)
	case namespace.CauseNotice:
		return fmt.Sprintf("notice of %s that %s changed", cause.Source, m.Path)
	case namespace.CauseOperator:
		return "asked for by an operator, or by a repair"
	case namespace.CauseReset:
		return fmt.Sprintf("the position in the log of %s was set anew: anything may have changed", c.clusterName(cause.Publisher))
	case namespace.CauseEpoch:
		return "a new epoch: log entries may have been lost"
	case namespace.CauseMount:
		return fmt.Sprintf("the mount %s was added, changed or removed", m.Path)
	case namespace.CauseLoad:
		return fmt.Sprintf("%s changed while it was looked at", m.Path)
	case namespace.CauseUnknown:
	}
	return "not known"
}

// clusterName returns the name of a publisher, or its ID.
func (c *Coordinator) clusterName(id freshet.ClusterID) string {
	for _, s := range c.state.Subscriptions() {
		if s.Publisher.Cluster == id && s.Publisher.Name != "" {
			return s.Publisher.Name
		}
	}
	return "cluster " + strings.ToLower(id.String())
}

// noteMarks remembers what a log entry marked. Only the leader of the term sees
// entries as they are made; what others apply, or a restart applies again, has a
// cause and no time.
func (c *Coordinator) noteMarks(a *journal.Applied) {
	if len(a.Changes.Marked) == 0 {
		return
	}
	at := time.Time{}
	if c.journal != nil {
		if _, leads := c.journal.Leading(); leads {
			at = c.clock.Now()
		}
	}
	c.marks.note(a.Index, a.Changes.Marked, at)
}
