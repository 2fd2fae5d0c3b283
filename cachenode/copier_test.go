package cachenode_test

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
)

// network connects nodes by their IDs.
type network struct {
	mu    sync.Mutex
	nodes map[freshet.NodeID]*bed
	// fail, if set, is asked before a node keeps a block.
	fail func(to freshet.Node, q freshet.BlockKeep) error
	kept int // calls
}

func (n *network) join(b *bed) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[b.node.Node().ID] = b
}

func (n *network) at(to freshet.Node) (*bed, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if b := n.nodes[to.ID]; b != nil {
		return b, nil
	}
	return nil, freshet.Errorf(freshet.KindUnavailable, "call", "", "no node %s", to.ID)
}

func (n *network) ReadBlock(ctx context.Context, to freshet.Node, q freshet.BlockRead) (freshet.BlockStream, error) {
	b, err := n.at(to)
	if err != nil {
		return nil, err
	}
	return b.node.Read(ctx, q)
}

func (n *network) KeepBlock(ctx context.Context, to freshet.Node, q freshet.BlockKeep) error {
	b, err := n.at(to)
	if err != nil {
		return err
	}
	n.mu.Lock()
	fail := n.fail
	n.kept++
	n.mu.Unlock()
	if fail != nil {
		if err := fail(to, q); err != nil {
			return err
		}
	}
	return b.node.KeepBlock(ctx, q)
}

// several runs test with that many nodes with disks, and one of memory alone as the last.
func several(t *testing.T, disks int, test func(t *testing.T, n *network, beds []*bed)) {
	t.Helper()
	dirs := make([]string, disks)
	for i := range dirs {
		dirs[i] = t.TempDir()
	}
	synctest.Test(t, func(t *testing.T) {
		n := &network{nodes: map[freshet.NodeID]*bed{}}
		var beds []*bed
		for i := range disks + 1 {
			s := settings{net: n, capacity: 8 << 20}
			s.opts.Node.Name = string(rune('a' + i))
			if i < disks {
				s.dir = dirs[i]
			}
			beds = append(beds, newBed(t, s))
		}
		defer func() {
			for _, b := range beds {
				b.stop()
			}
			synctest.Wait()
		}()
		test(t, n, beds)
	})
}

// copied is a ticket for so many durable copies, with all the other nodes.
func copied(beds []*bed, file freshet.FileID, replicas int) freshet.Ticket {
	t := keptTicket(beds[0], file)
	t.DurableReplicas = replicas
	for _, b := range beds[1:] {
		t.Keepers = append(t.Keepers, b.node.Node())
	}
	return t
}

// has reports whether a node keeps all of a version, for good.
func (b *bed) has(file freshet.FileID, length int64) bool {
	sum := int64(0)
	for _, r := range b.blocks.List() {
		if r.ID.File == file {
			sum += r.Length
		}
	}
	return sum == length && (length == 0 || slices.Contains(b.blocks.Kept(), file))
}

// completions notes what the leader is told.
func completions(b *bed) *freshet.Written {
	w := &freshet.Written{}
	b.leader.set(func() {
		b.leader.complete = func(_ freshet.OpID, got freshet.Written) error { *w = got; return nil }
	})
	return w
}

// TestCopiesAreKeptBeforeAFileIsVisible, on as many nodes as was asked for, and go on
// with another one where a node fails.
func TestCopiesAreKeptBeforeAFileIsVisible(t *testing.T) {
	t.Parallel()
	several(t, 4, func(t *testing.T, n *network, beds []*bed) {
		a, b, c, d := beds[0], beds[1], beds[2], beds[3]
		told := completions(a)
		data := random(3*blockSize+10, 1)
		_, err := a.write(copied(beds, 1, 3), data)
		check(t, err)
		ids := []freshet.NodeID{a.node.Node().ID, b.node.Node().ID, c.node.Node().ID}
		slices.Sort(told.Nodes[1:])
		slices.Sort(ids[1:])
		if !slices.Equal(told.Nodes, ids) || !a.has(1, int64(len(data))) || !b.has(1, int64(len(data))) || !c.has(1, int64(len(data))) || d.has(1, int64(len(data))) {
			t.Errorf("kept by %v, want %v", told.Nodes, ids)
		}
		// One that breaks down in the middle is replaced, from the first block on.
		n.fail = func(to freshet.Node, q freshet.BlockKeep) error {
			if to.ID == b.node.Node().ID && q.Block.ID.Index == 1 {
				return freshet.Errorf(freshet.KindUnavailable, "call", "", "as the test wants it")
			}
			return nil
		}
		_, err = a.write(copied(beds, 2, 2), data)
		check(t, err)
		if len(told.Nodes) != 2 || told.Nodes[1] != c.node.Node().ID || !c.has(2, int64(len(data))) {
			t.Errorf("after a failure it is kept by %v", told.Nodes)
		}
		// Nobody needs to be asked about a file without bytes, and one copy is no copy.
		n.kept = 0
		_, err = a.write(copied(beds, 3, 2), nil)
		check(t, err)
		_, err = a.write(copied(beds, 4, 1), data)
		check(t, err)
		if n.kept != 0 || len(told.Nodes) != 0 {
			t.Errorf("%d calls, told %v", n.kept, told.Nodes)
		}
		// The copies survive their nodes' restart.
		b.stop()
		again := newBed(t, settings{net: n, dir: b.dir, capacity: 8 << 20})
		defer again.stop()
		if !again.has(1, int64(len(data))) {
			t.Error("a copy is gone after a restart")
		}
	})
}

// TestTooFewCopiesAreNone: the write fails and says why, and nothing becomes visible.
func TestTooFewCopiesAreNone(t *testing.T) {
	t.Parallel()
	several(t, 3, func(t *testing.T, n *network, beds []*bed) {
		a, b, c, memory := beds[0], beds[1], beds[2], beds[3]
		data := random(3*blockSize, 1)
		refused := func(ticket freshet.Ticket, kind freshet.Kind, why ...string) {
			t.Helper()
			_, err := a.write(ticket, data)
			wantKind(t, err, kind)
			for _, w := range why {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%v does not say %q", err, w)
				}
			}
			if a.has(ticket.File, int64(len(data))) {
				t.Error("the writer's blocks are still there")
			}
		}
		c.leader.set(func() { c.leader.reply.Draining = true })
		c.nextBeat()
		n.fail = func(to freshet.Node, _ freshet.BlockKeep) error {
			for to.ID != b.node.Node().ID && !slices.Contains(b.blocks.Kept(), 1) {
				time.Sleep(time.Millisecond)
			}
			return nil
		}
		refused(copied(beds, 1, 3), freshet.KindExhausted, "durable on 3 nodes", "memory alone", "being drained", "nothing was written")
		n.fail = func(freshet.Node, freshet.BlockKeep) error {
			return freshet.Errorf(freshet.KindConflict, "call", "", "as the test wants it")
		}
		refused(copied(beds, 2, 2), freshet.KindExhausted, "durable on 2 nodes", "as the test wants it")
		if got := a.leader.called(); slices.Contains(got, "complete") || !slices.Contains(got, "abort") {
			t.Errorf("calls: %v", got)
		}
		// Until the leader says that the version never will be, a copy is kept.
		if !slices.Contains(b.blocks.Kept(), 1) || !slices.Contains(b.nextBeat().Kept, 1) {
			t.Errorf("kept: %v", b.blocks.Kept())
		}
		b.leader.set(func() { b.leader.reply.Released = []freshet.FileID{1} })
		b.nextBeat()
		if len(b.blocks.Kept()) != 0 {
			t.Errorf("after the release: %v", b.blocks.Kept())
		}
		ticket := copied(beds, 3, 2)
		ticket.Node = memory.node.Node()
		_, err := memory.write(ticket, data)
		wantKind(t, err, freshet.KindUnsupported)
		// A client that leaves ends it.
		n.fail = nil
		_, err = a.node.Write(t.Context(), copied(beds, 4, 2), &endless{left: 2 * blockSize, err: io.ErrUnexpectedEOF}, -1)
		wantKind(t, err, freshet.KindInvalid)
	})
}

// TestNodesThatAreFullAreWaitedFor, for a while.
func TestNodesThatAreFullAreWaitedFor(t *testing.T) {
	t.Parallel()
	several(t, 2, func(t *testing.T, _ *network, beds []*bed) {
		a, b := beds[0], beds[1]
		fill := keptTicket(b, 1)
		_, err := b.node.Write(t.Context(), fill, bytes.NewReader(random(7<<20, 1)), 7<<20)
		check(t, err)
		data := random(2<<20, 2)
		ended := make(chan error)
		begun := time.Now()
		write := func(file freshet.FileID) {
			_, err := a.write(copied(beds[:2], file, 2), data)
			ended <- err
		}
		go write(2)
		err = <-ended
		wantKind(t, err, freshet.KindExhausted)
		if waited := time.Since(begun); waited < 29*time.Second || waited > 40*time.Second {
			t.Errorf("after %s: %v", waited, err)
		}
		go write(3)
		time.Sleep(5 * time.Second)
		b.leader.set(func() { b.leader.reply.Released = []freshet.FileID{1, 2} })
		check(t, <-ended)
		if !b.has(3, int64(len(data))) {
			t.Error("there is no copy")
		}
	})
}

// TestTheLeaderOrdersAnotherCopy of a file that is on too few nodes: it counts once it
// is durable, also where the node happens to have blocks of it.
func TestTheLeaderOrdersAnotherCopy(t *testing.T) {
	t.Parallel()
	several(t, 2, func(t *testing.T, _ *network, beds []*bed) {
		a, b := beds[0], beds[1]
		data := random(2*blockSize+5, 1)
		_, err := a.write(keptTicket(a, 1), data)
		check(t, err)
		// A reader had the first block cached there.
		s, err := b.node.Read(t.Context(), freshet.BlockRead{
			Block:  freshet.Block{ID: freshet.BlockID{File: 1}, Length: blockSize, Nodes: []freshet.Node{a.node.Node(), b.node.Node()}},
			Source: freshet.Source{Mount: 1, Fingerprint: fingerprint.Unpersisted(1)}, Length: -1,
		})
		check(t, err)
		_, err = io.Copy(io.Discard, s)
		check(t, err)
		check(t, s.Close())
		synctest.Wait()
		if _, ok := b.blocks.Stat(freshet.BlockID{File: 1}); !ok || len(b.blocks.Kept()) != 0 {
			t.Fatalf("before the order: %v, kept %v", ok, b.blocks.Kept())
		}
		order := freshet.KeepOrder{File: 1, Length: int64(len(data)), BlockSize: blockSize, Nodes: []freshet.Node{a.node.Node()}}
		gone := order
		gone.File = 9
		b.leader.set(func() { b.leader.reply.Keep = []freshet.KeepOrder{order, gone} })
		for range 4 {
			b.nextBeat()
		}
		if took := b.leader.last().Took; !slices.Equal(took, []freshet.FileID{1}) || !b.has(1, int64(len(data))) {
			t.Errorf("took %v, kept %v", took, b.blocks.Kept())
		}
		b.leader.set(func() { b.leader.reply.Keep = nil })
		b.nextBeat()
		if took := b.nextBeat().Took; len(took) != 0 {
			t.Errorf("still told: %v", took)
		}
		other := freshet.BlockKeep{Cluster: a.leader.reply.Cluster, Epoch: 3, Node: b.node.Node().ID, Incarnation: 1, Block: freshet.Block{ID: freshet.BlockID{File: 1}, Length: blockSize}}
		wantKind(t, b.node.KeepBlock(t.Context(), other), freshet.KindConflict)
		other.Epoch = 5
		wantKind(t, b.node.KeepBlock(t.Context(), other), freshet.KindUnavailable)
		other.Epoch = 4
		check(t, b.node.KeepBlock(t.Context(), other))
		other.Incarnation++
		wantKind(t, b.node.KeepBlock(t.Context(), other), freshet.KindConflict)
	})
}

// TestAnOrderThatFailedIsTriedAgain as long as the leader gives it, with what it says by
// then: it may have no other node to give it to.
func TestAnOrderThatFailedIsTriedAgain(t *testing.T) {
	t.Parallel()
	several(t, 2, func(t *testing.T, _ *network, beds []*bed) {
		a, b := beds[0], beds[1]
		data := random(blockSize+5, 1)
		_, err := a.write(keptTicket(a, 1), data)
		check(t, err)
		order := freshet.KeepOrder{File: 1, Length: int64(len(data)), BlockSize: blockSize}
		b.leader.set(func() { b.leader.reply.Keep = []freshet.KeepOrder{order} })
		for range 3 {
			b.nextBeat()
		}
		if took := b.leader.last().Took; len(took) != 0 {
			t.Fatalf("took %v from nobody", took)
		}
		order.Nodes = []freshet.Node{a.node.Node()}
		b.leader.set(func() { b.leader.reply.Keep = []freshet.KeepOrder{order} })
		for range 8 {
			b.nextBeat()
		}
		if took := b.leader.last().Took; !slices.Equal(took, []freshet.FileID{1}) || !b.has(1, int64(len(data))) {
			t.Errorf("took %v, kept %v", took, b.blocks.Kept())
		}
	})
}
