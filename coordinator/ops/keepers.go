package ops

import (
	"context"
	"encoding/binary"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

const (
	// spareKeepers is how many nodes a ticket names beyond those that are needed.
	spareKeepers = 3
	// keepPerNode bounds the files of which one node is ordered to take a copy at a time;
	// keepWithin is after how long an order that was not carried out goes to another node:
	// at once if its node is lost.
	keepPerNode = 32
	keepWithin  = time.Minute
	// persistsSoon is how long a file that is queued waits for the storage before another
	// copy is made of it.
	persistsSoon = 10 * time.Second
)

// Standing is where an unpersisted file is at the moment.
type Standing struct {
	Heard   bool           // all nodes that live have told what they hold, since the file was acknowledged
	Live    []freshet.Node // have all of it
	Staying []freshet.Node // of Live: those that are not to be emptied
}

func (e *Engine) standing(f *namespace.UnpersistedFile) Standing {
	now := e.clock.Elapsed()
	age := e.clock.Now().Sub(f.Since) // negative if the clock that told Since is ahead
	s := Standing{Heard: e.nodes.AllHeard(now) && (age < 0 || age > e.nodes.DeadAfter())}
	s.Live, s.Staying = e.nodes.Standing(f.File, f.Length, f.Nodes, now)
	return s
}

// Short reports whether fewer live nodes have all of the file than was promised, but
// one has.
func (s *Standing) Short(f *namespace.UnpersistedFile) bool {
	return s.Heard && len(s.Live) > 0 && len(s.Live) < f.Promised()
}

// KeptWithout reports whether an unpersisted file is on as many nodes that live and stay
// as was promised, not counting the one of the ID.
func (e *Engine) KeptWithout(f *namespace.UnpersistedFile, id freshet.NodeID) bool {
	at := e.standing(f)
	others := slices.DeleteFunc(at.Staying, func(n freshet.Node) bool { return n.ID == id })
	return len(others) >= f.Promised()
}

// replicasOf returns on how many nodes a file that stays on nodes is to be durable.
// KindUnavailable: there are not so many.
func (e *Engine) replicasOf(q *freshet.BeginWriteQuery, now time.Duration) (int, error) {
	if q.DurableReplicas < 2 {
		return 0, nil
	}
	if have := e.nodes.KeeperCount(now); have < q.DurableReplicas {
		return 0, freshet.Errorf(freshet.KindUnavailable, opWrite, q.Path,
			"durable_replicas asks for %d cache nodes with a cache tier on a disk, and %d live that are not being drained: start or bring back nodes, or ask for fewer replicas; nothing was written",
			q.DurableReplicas, have)
	}
	return q.DurableReplicas, nil
}

// addKeepers names in the ticket the nodes that are to keep copies.
func (e *Engine) addKeepers(t *freshet.Ticket, in *namespace.Intent) {
	if in.Replicas < 2 {
		return
	}
	length := int64(0)
	if in.Length != nil {
		length = *in.Length
	}
	t.DurableReplicas = in.Replicas
	t.Keepers = e.nodes.Keepers([]freshet.NodeID{in.Node}, length, binary.BigEndian.Uint64(in.Op[8:]), in.Replicas-1+spareKeepers, e.clock.Elapsed())
}

// keepersOf returns the nodes that keep what the node wrote, nil if it is alone.
func keepersOf(in *namespace.Intent, w *freshet.Written) []freshet.NodeID {
	if !in.Keeps() || len(w.Nodes) < 2 {
		return nil
	}
	return w.Nodes
}

// lookForShort tells once of a file of which there are fewer copies than was promised.
func (e *Engine) lookForShort(w *lossWatch, short map[freshet.FileID]struct{}, f *namespace.UnpersistedFile, at Standing) {
	if !at.Short(f) {
		return
	}
	if _, was := w.short[f.File]; !was && len(short) < lossesTold {
		e.log.Warn("a file that is not in the storage is on fewer live nodes than was promised",
			"path", string(e.pathOf(f.File)), "file_id", uint64(f.File), "live", len(at.Live), "promised", f.Promised(), "nodes", e.nodes.Named(f.Nodes))
	}
	short[f.File] = struct{}{}
}

func (e *Engine) pathOf(id freshet.FileID) freshet.Path {
	f, _ := e.state.UnpersistedOf(id)
	return f.Path
}

// keepOrder is the order to a node to take a durable copy of an unpersisted file. The
// new leader gives its own.
type keepOrder struct {
	node  freshet.NodeID
	at    time.Duration
	tried []freshet.NodeID // before it, without success
}

// orderKeeper has one more node take a copy of a file of which fewer nodes than was
// promised have all bytes and stay. What is persisted soon anyway is left alone.
func (e *Engine) orderKeeper(l *lead, f *namespace.UnpersistedFile, at Standing) {
	soon := f.Queued && f.Attempts == 0 && e.clock.Now().Sub(f.Waits()) < persistsSoon
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.keeps[f.File]
	if !at.Heard || len(at.Live) == 0 || len(at.Staying) >= f.Promised() || !f.Persisting.IsZero() || soon {
		delete(l.keeps, f.File)
		return
	}
	now := e.now()
	switch {
	case o == nil:
		o = &keepOrder{}
	case now-o.at < keepWithin && e.nodes.Presence(o.node, e.clock.Elapsed()).Live:
		return
	default:
		o.tried = append(o.tried, o.node)
	}
	without := slices.Clone(o.tried)
	for _, n := range at.Live {
		without = append(without, n.ID)
	}
	busy := map[freshet.NodeID]int{}
	for _, other := range l.keeps {
		busy[other.node]++
	}
	for _, n := range e.nodes.Keepers(without, f.Length, uint64(f.File), 1+spareKeepers, e.clock.Elapsed()) {
		if busy[n.ID] < keepPerNode {
			o.node, o.at = n.ID, now
			if l.keeps == nil {
				l.keeps = map[freshet.FileID]*keepOrder{}
			}
			l.keeps[f.File] = o
			return
		}
	}
	delete(l.keeps, f.File) // from the beginning, the next time
}

// forgetKeeps drops orders for files that are not unpersisted any more.
func (l *lead) forgetKeeps(unpersisted func(freshet.FileID) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.keeps {
		if !unpersisted(id) {
			delete(l.keeps, id)
		}
	}
}

// keepOrders returns the files of which the node is to take copies.
func (e *Engine) keepOrders(l *lead, node freshet.NodeID) []freshet.KeepOrder {
	var files []freshet.FileID
	l.mu.Lock()
	for id, o := range l.keeps {
		if o.node == node {
			files = append(files, id)
		}
	}
	l.mu.Unlock()
	slices.Sort(files)
	var all []freshet.KeepOrder
	for _, id := range files {
		f, ok := e.state.UnpersistedOf(id)
		if !ok {
			continue
		}
		if at := e.standing(&f); len(at.Live) > 0 {
			all = append(all, freshet.KeepOrder{File: id, Length: f.Length, BlockSize: f.BlockSize, Nodes: at.Live})
		}
	}
	return all
}

// took notes that the node keeps files of which it was ordered to take a copy.
func (e *Engine) took(ctx context.Context, l *lead, h *freshet.Heartbeat) {
	var cmds []namespace.Command
	for _, id := range h.Took {
		if f, ok := e.state.UnpersistedOf(id); ok && !slices.Contains(f.Nodes, h.Node.ID) {
			cmds = append(cmds, namespace.Command{AddKeeper: &namespace.AddKeeper{File: id, Node: h.Node.ID}})
		}
	}
	if len(cmds) > 0 {
		if _, err := e.journal.Propose(ctx, cmds...); err != nil {
			e.log.Warn("copies of files that are not in the storage could not be noted yet", "node_id", string(h.Node.ID), "files", len(cmds), "error", err)
			return
		}
		e.log.Info("a node keeps further copies of files that are not in the storage", "node_id", string(h.Node.ID), "files", len(cmds))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range h.Took {
		if o := l.keeps[id]; o != nil && o.node == h.Node.ID {
			delete(l.keeps, id)
		}
	}
}
