package coordinator_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// TestAWarmWaitsForTheNodesOfEachLeader: a new leader knows of no node until their next
// heartbeats. It must not take that for a cluster without any, in none of many terms.
func TestAWarmWaitsForTheNodesOfEachLeader(t *testing.T) {
	t.Parallel()
	var all *world
	inBubble(t, settings{members: 3, world: &all, hooks: announcing(&all)}, func(w *world) {
		const files, terms = 20, 300
		for i := range files {
			w.store.Put(fmt.Sprintf("d/f%d", i), []byte("content"))
		}
		m, _ := w.inForce(namespace.Version)
		if _, err := m.Heartbeat(w.Context(), freshet.Heartbeat{
			Node: freshet.Node{ID: "n1", Name: "n1", GRPC: "n1:7410"}, Incarnation: 1, Full: true, Capacity: 1 << 30, TakesWarms: true,
		}); err != nil {
			w.Fatal(err)
		}
		job, err := m.StartWarm(w.Context(), freshet.WarmQuery{Paths: []freshet.Path{"/data/d"}})
		if err != nil {
			w.Fatal(err)
		}
		for term := range terms {
			if _, err := m.TransferLeadership(w.Context(), ""); err != nil {
				w.Fatal(err)
			}
			m = w.leader()
			time.Sleep(4 * time.Second) // each of which is a time in which the nodes could be heard
			jobs, err := m.WarmJobs(w.Context(), job.ID)
			if err != nil {
				w.Fatal(err)
			}
			if j := jobs[0]; j.State != freshet.SyncRunning || j.Progress.Failed != 0 {
				w.Fatalf("in term %d: %+v", term, j)
			}
		}
	})
}
