package coordinator_test

import (
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/fingerprint"
)

// A file that is visible before it is in the storage is refused until every member
// knows what that is.
func TestWritesThatStayOnNodesWaitForAllMembers(t *testing.T) {
	t.Parallel()
	var w *world
	older := namespace.VersionUnpersisted - 1
	inBubble(t, mixed(&w, &older), func(w *world) {
		time.Sleep(10 * time.Second) // fake time: all have announced themselves
		l, _ := w.inForce(older)
		if l.id == "c3" {
			if _, err := l.TransferLeadership(w.Context(), "c1"); err != nil {
				w.Fatal(err)
			}
			time.Sleep(10 * time.Second) // fake time
			l, _ = w.inForce(older)
		}
		for _, write := range []freshet.WriteType{freshet.MustCache, freshet.AsyncThrough} {
			_, err := l.BeginWrite(w.Context(), freshet.BeginWriteQuery{Path: "/data/f", Write: write})
			w.wantKind(err, freshet.KindUnsupported)
			if err != nil && !strings.Contains(err.Error(), "upgrade c3") {
				w.Errorf("the error does not say what to do: %v", err)
			}
		}
		_, err := l.ChangePolicy(w.Context(), policy("/data", "write_type", "must_cache"))
		w.wantKind(err, freshet.KindUnsupported)
	})
}

// TestWhatWasInMemoryAloneIsGone: nobody is told to bring back a node that came back
// without the bytes.
func TestWhatWasInMemoryAloneIsGone(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		l := w.leader()
		n := freshet.Node{ID: "n1", Name: "edge", GRPC: "edge:7410", HTTP: "edge:7411", Host: "edge"}
		h := freshet.Heartbeat{Node: n, Incarnation: 1, Full: true, Capacity: 1 << 30, Keeps: true}
		w.beat(l, h)
		a, err := l.BeginWrite(w.Context(), freshet.BeginWriteQuery{Path: "/data/f", Write: freshet.MustCache})
		if err != nil {
			w.Fatal(err)
		}
		file := a.Ticket.File
		if _, err = l.Complete(w.Context(), a.Ticket.Op, freshet.Written{Length: 3, ModTime: time.Now(), Fingerprint: fingerprint.Unpersisted(uint64(file))}); err != nil {
			w.Fatal(err)
		}
		says := func(what string) {
			w.Helper()
			_, err := l.Locate(w.Context(), freshet.LocateQuery{Path: "/data/f", Length: 3})
			w.wantKind(err, freshet.KindUnavailable)
			if err == nil || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), "bring back") {
				w.Errorf("got %v, want %q", err, what)
			}
			e, err := l.Explain(w.Context(), "/data/f", false)
			if err != nil || !strings.Contains(e.Remedy, "fs rm /data/f") || strings.Contains(e.Remedy, "bring back") {
				w.Errorf("explained: %q, %v", e.Remedy, err)
			}
		}
		time.Sleep(10 * time.Second) // fake time: the node is silent
		h.Node.ID = "n0"             // somebody lives
		h.Node.Name, h.Node.GRPC = "other", "other:7410"
		w.beat(l, h)
		says("in the memory of edge alone; unless it still runs")
		h.Node = n
		h.Node.ID = "n2"
		w.beat(l, h)
		says("in the memory of edge alone and are gone")
	})
}
