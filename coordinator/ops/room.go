package ops

import (
	"fmt"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/placement"
)

// keptSums are the bytes of unpersisted files by the nodes that keep them: all, and those
// that no upload is going to free.
type keptSums struct {
	all, fixed map[freshet.NodeID]int64
}

func newKeptSums() keptSums {
	return keptSums{map[freshet.NodeID]int64{}, map[freshet.NodeID]int64{}}
}

// fixed reports whether an unpersisted file stays on its nodes until somebody asks for it
// to be persisted, or removes it.
func fixed(u *namespace.Unpersisted) bool { return !u.Queued || u.Conflict }

func (s *keptSums) add(u *namespace.Unpersisted, at *Standing) {
	nodes := u.Nodes
	if at.Heard { // what was lost takes no space
		nodes = nil
		for i := range at.Live {
			nodes = append(nodes, at.Live[i].ID)
		}
	}
	for _, id := range nodes {
		s.all[id] += u.Length
		if fixed(u) {
			s.fixed[id] += u.Length
		}
	}
}

// tookSums takes over the sums, with what is being written.
func (l *lead) tookSums(e *Engine, s keptSums) {
	for _, in := range e.state.Intents() {
		if in.Keeps() && in.Length != nil {
			s.all[in.Node] += *in.Length
		}
	}
	e.nodes.SetKept(s.all)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fixed = s.fixed
}

// fixedNow returns how many bytes stay on which nodes, however long one waits. What
// came since the last look is not in it, so it is never too much.
func (e *Engine) fixedNow(l *lead) map[freshet.NodeID]int64 {
	now := map[freshet.NodeID]int64{}
	_, err := e.state.Unpersisted(0, func(u *namespace.Unpersisted, _ freshet.OpID) bool {
		if fixed(u) {
			for _, id := range u.Nodes {
				now[id] += u.Length
			}
		}
		return false
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, n := range now {
		now[id] = min(n, l.fixed[id])
	}
	if err != nil {
		return map[freshet.NodeID]int64{}
	}
	return now
}

// keeperOf returns the node for a file that stays on nodes: one that has the space for it
// at once; else one that will have it when others were persisted, where the writer waits.
// KindExhausted: there is none. KindUnavailable: no node that could lives.
// KindUnsupported: there is none that could.
func (e *Engine) keeperOf(l *lead, q *freshet.BeginWriteQuery, k placement.Keep, replicas int, now time.Duration) (freshet.Node, uint64, error) {
	rooms, others := e.nodes.Rooms(k, now)
	if len(rooms) == 0 {
		return freshet.Node{}, 0, e.noKeeper(q, others || !e.nodes.AllHeard(now))
	}
	need := k.Length
	if need < 0 {
		need = 1
	}
	have := func() (n int) {
		for i := range rooms {
			if rooms[i].Free >= need {
				n++
			}
		}
		return n
	}
	node, incarnation, ok := e.nodes.Keeper(k, now)
	if want := max(replicas, 1); !ok || have() < want {
		k.Fixed = e.fixedNow(l)
		rooms, _ = e.nodes.Rooms(k, now)
		switch n := have(); {
		case n >= want:
		case !e.nodes.AllHeard(now):
			return freshet.Node{}, 0, freshet.Errorf(freshet.KindUnavailable, opWrite, q.Path,
				"the leader has not heard from all cache nodes yet, and those that it knows have no room: try again in some seconds; nothing was written")
		default:
			return freshet.Node{}, 0, noRoom(q, k.Length, rooms, n)
		}
	}
	if !ok {
		node, incarnation, ok = e.nodes.Keeper(k, now)
	}
	if !ok { // one has gone since
		return freshet.Node{}, 0, e.noKeeper(q, true)
	}
	e.nodes.Promise(node.ID, max(k.Length, 0))
	return node, incarnation, nil
}

func (e *Engine) noKeeper(q *freshet.BeginWriteQuery, others bool) error {
	if others {
		return freshet.Errorf(freshet.KindUnavailable, opWrite, q.Path,
			"no cache node that can keep a file of write type %s lives and is not being drained: bring one back, end a drain with \"freshet cluster drain NODE --undo\", or write with cache_through; nothing was written", q.Write)
	}
	return freshet.Errorf(freshet.KindUnsupported, opWrite, q.Path,
		"no live cache node can keep a file of write type %s: async_through needs a node with a cache tier on a disk, and both need nodes of this release; or write with cache_through", q.Write)
}

func noRoom(q *freshet.BeginWriteQuery, length int64, rooms []placement.Room, have int) error {
	var most, kept int64
	for _, r := range rooms {
		most = max(most, r.Free)
		kept += r.Capacity - r.Free
	}
	what := "the file"
	if length >= 0 {
		what = "the file of " + freshet.FormatSize(length)
	}
	who := "no cache node has room for " + what
	if have > 0 {
		who = fmt.Sprintf("durable_replicas asks for %d cache nodes, and %d have room for %s", q.DurableReplicas, have, what)
	}
	return freshet.Errorf(freshet.KindExhausted, opWrite, q.Path,
		"%s: of the %d that could keep it the one with the most room has %s, and files that are not in the storage and do not wait to be persisted take %s; nothing was written: have them persisted, see \"freshet persist status\", or write with cache_through or through",
		who, len(rooms), freshet.FormatSize(most), freshet.FormatSize(kept))
}
