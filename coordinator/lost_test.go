package coordinator_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
)

// keptByDisks writes a file of one block that stays on the disks of nodes, which live.
func (w *world) keptByDisks(l *member, p freshet.Path, write freshet.WriteType, nodes ...*freshet.Heartbeat) freshet.BlockReport {
	w.Helper()
	for _, h := range nodes {
		h.Tier, h.Keeps, h.Durable = "disk", true, true
	}
	return w.keptBy(l, p, write, nodes...)
}

// keptBy writes a file of one block that stays on nodes, which live.
func (w *world) keptBy(l *member, p freshet.Path, write freshet.WriteType, nodes ...*freshet.Heartbeat) freshet.BlockReport {
	w.Helper()
	for _, h := range nodes {
		h.Incarnation, h.Full, h.Capacity = 1, true, 1<<30
		h.Term = w.beat(l, *h).Term
	}
	a, err := l.BeginWrite(w.Context(), freshet.BeginWriteQuery{Path: p, Write: write, Node: nodes[0].Node.ID, DurableReplicas: len(nodes)})
	if err != nil {
		w.Fatal(err)
	}
	file := a.Ticket.File
	done := freshet.Written{Length: 3, ModTime: time.Now(), Fingerprint: fingerprint.Unpersisted(uint64(file))}
	for _, h := range nodes {
		done.Nodes = append(done.Nodes, h.Node.ID)
		h.Full = false
	}
	if _, err = l.Complete(w.Context(), a.Ticket.Op, done); err != nil {
		w.Fatal(err)
	}
	return freshet.BlockReport{ID: freshet.BlockID{File: file}, Length: 3}
}

// wantLost demands that the file is lost, and what readers, explain and the status of the
// cluster say of that, and what none of them does.
func (w *world) wantLost(l *member, p freshet.Path, says []string, never string) {
	w.Helper()
	_, err := l.Locate(w.Context(), freshet.LocateQuery{Path: p, Length: 3})
	w.wantKind(err, freshet.KindUnavailable)
	if err == nil {
		return
	}
	e, err2 := l.Explain(w.Context(), p, false)
	s, err3 := l.Cluster(w.Context())
	if err2 != nil || err3 != nil {
		w.Fatal(err2, err3)
	}
	for who, text := range map[string]string{"a reader": err.Error(), "explain": e.Remedy, "status": strings.Join(s.Problems, "\n")} {
		lacks := func(word string) bool { return !strings.Contains(text, word) }
		if slices.ContainsFunc(says, lacks) || never != "" && strings.Contains(text, never) {
			w.Errorf("%s is told %q; want %q and never %q", who, text, says, never)
		}
	}
}

func onDisk(name string) *freshet.Heartbeat {
	return &freshet.Heartbeat{Node: freshet.Node{ID: freshet.NodeID("id-" + name), Name: name, GRPC: name + ":7410", HTTP: name + ":7411", Host: name}}
}

// TestDamageIsNoAbsence: nobody is told to bring back a node that is there, and has found
// the only copy of a file damaged.
func TestDamageIsNoAbsence(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		l := w.leader()
		h := onDisk("edge")
		b := w.keptByDisks(l, "/data/f", freshet.MustCache, h)
		h.Added = []freshet.BlockReport{b}
		w.beat(l, *h)
		h.Added, h.Removed, h.Damaged = nil, []freshet.BlockID{b.ID}, []freshet.BlockID{b.ID}
		w.beat(l, *h)
		h.Removed, h.Damaged = nil, nil
		_, err := l.Locate(w.Context(), freshet.LocateQuery{Path: "/data/f", Length: 3})
		if err == nil || !strings.Contains(err.Error(), "damaged on edge") {
			w.Errorf("at once, when others may not have been heard: %v", err)
		}
		for range 10 { // fake time: the leader has heard everybody, and the write is a while ago
			time.Sleep(time.Second)
			w.beat(l, *h)
		}
		says := []string{"damage", "edge", "again, or remove", "fs rm", "quarantine"}
		w.wantLost(l, "/data/f", says, "bring back edge")
		time.Sleep(10 * time.Second) // fake time: the node is silent
		other := onDisk("other")     // somebody lives
		other.Incarnation, other.Full, other.Keeps = 1, true, true
		w.beat(l, *other)
		w.wantLost(l, "/data/f", says, "bring back edge")
	})
}

// TestDamageOfOneCopy: another node that kept the file, and is away, has it still.
func TestDamageOfOneCopy(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		l := w.leader()
		bad, away := onDisk("edge"), onDisk("far")
		b := w.keptByDisks(l, "/data/f", freshet.MustCache, bad, away)
		bad.Added, away.Added = []freshet.BlockReport{b}, []freshet.BlockReport{b}
		w.beat(l, *bad)
		w.beat(l, *away)
		away.Added = nil
		bad.Added, bad.Removed, bad.Damaged = nil, []freshet.BlockID{b.ID}, []freshet.BlockID{b.ID}
		w.beat(l, *bad)
		bad.Removed, bad.Damaged = nil, nil
		loc, err := l.Locate(w.Context(), freshet.LocateQuery{Path: "/data/f", Length: 3})
		if err != nil || len(loc.Blocks) != 1 || len(loc.Blocks[0].Nodes) != 1 || loc.Blocks[0].Nodes[0].Name != "far" {
			w.Errorf("while another node has it: %+v, %v", loc, err)
		}
		for range 10 { // fake time: the other node is silent
			time.Sleep(time.Second)
			w.beat(l, *bad)
		}
		w.wantLost(l, "/data/f", []string{"bring back far"}, "edge or far")
		for range 10 { // fake time: both are well, and one of them has a copy again
			time.Sleep(time.Second)
			w.beat(l, *away)
			bad.Added = []freshet.BlockReport{b}
			w.beat(l, *bad)
		}
		time.Sleep(10 * time.Second) // fake time: both are silent
		other := onDisk("other")     // somebody lives
		other.Incarnation, other.Full, other.Keeps = 1, true, true
		w.beat(l, *other)
		w.wantLost(l, "/data/f", []string{"bring back edge", "far"}, "damage")
	})
}

// TestABlockThatIsGoneOnALiveNode: damage that was told to a leader before this one, or
// files that somebody removed: the node is there, and nobody is told to bring it back.
func TestABlockThatIsGoneOnALiveNode(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		l := w.leader()
		h := onDisk("edge")
		w.keptByDisks(l, "/data/f", freshet.MustCache, h)
		h.Incarnation, h.Full = 2, true // without the block
		for range 10 {                  // fake time: as above
			time.Sleep(time.Second)
			w.beat(l, *h)
		}
		w.wantLost(l, "/data/f", []string{"edge", "live", "cluster nodes", "fs rm"}, "bring back edge")
	})
}
