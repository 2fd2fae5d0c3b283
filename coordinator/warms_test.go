package coordinator_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// TestAWarmWaitsForTheNodesOfEachLeader: a new leader knows of no node until their next
// heartbeats, which after a restart of all may take a while. It must not take that for a
// cluster without any.
func TestAWarmWaitsForTheNodesOfEachLeader(t *testing.T) {
	t.Parallel()
	var all *world
	inBubble(t, settings{members: 3, world: &all, hooks: announcing(&all)}, func(w *world) {
		const files, terms = 20, 20
		for i := range files {
			w.store.Put(fmt.Sprintf("d/f%d", i), []byte("content"))
		}
		m, _ := w.inForce(namespace.Version)
		h := freshet.Heartbeat{
			Node: freshet.Node{ID: "n1", Name: "n1", GRPC: "n1:7410"}, Incarnation: 1, Full: true, Capacity: 1 << 30, TakesWarms: true,
		}
		w.beat(m, h)
		started, err := m.StartWarm(w.Context(), freshet.WarmQuery{Paths: []freshet.Path{"/data/d"}})
		if err != nil {
			w.Fatal(err)
		}
		show := func() freshet.WarmJob {
			w.Helper()
			jobs, err := m.WarmJobs(w.Context(), started.ID)
			if err != nil {
				w.Fatal(err)
			}
			return jobs[0]
		}
		for term := range terms {
			if _, err := m.TransferLeadership(w.Context(), ""); err != nil {
				w.Fatal(err)
			}
			m = w.leader()
			time.Sleep(20 * time.Second)
			if j := show(); j.State != freshet.SyncRunning || j.Progress.Failed != 0 {
				w.Fatalf("in term %d: %+v", term, j)
			}
		}
		for range 10 {
			r := w.beat(m, h)
			h.Warmed = nil
			for _, o := range r.Warm {
				h.Added = append(h.Added, freshet.BlockReport{ID: o.Block.ID, Length: o.Block.Length})
				h.Warmed = append(h.Warmed, freshet.WarmedBlock{Block: o.Block.ID, Fetched: true})
			}
			time.Sleep(time.Second)
		}
		if j := show(); j.State != freshet.SyncDone || j.Progress.Files != files {
			w.Errorf("when a node came: %+v", j)
		}
	})
}

// TestAFreeOfANewLeader waits for what the nodes tell, and does not say that it has freed
// what the next leader knows nothing of.
func TestAFreeOfANewLeader(t *testing.T) {
	t.Parallel()
	var all *world
	inBubble(t, settings{members: 3, world: &all, hooks: announcing(&all)}, func(w *world) {
		w.store.Put("f", []byte("content"))
		m, _ := w.inForce(namespace.Version)
		f := newFleet(w, "n1")
		b := f.hold("n1", w.stat(m, "/data/f").Info)
		f.seconds(m, 1)
		type answer struct {
			freshet.FreeResult
			err error
		}
		free := func(ctx context.Context) chan answer {
			done := make(chan answer, 1)
			go func() {
				r, err := m.FreeCache(ctx, freshet.FreeQuery{Path: "/data/f"})
				done <- answer{r, err}
			}()
			return done
		}
		next := func() {
			w.Helper()
			if _, err := m.TransferLeadership(w.Context(), ""); err != nil {
				w.Fatal(err)
			}
			m = w.leader()
		}
		next()
		f.seconds(m, 3)
		page, err := m.InspectCache(w.Context(), freshet.CacheQuery{Path: "/data/f"}) // it, too
		if err != nil || page.Files[0].CachedBlocks != 1 {
			w.Errorf("what is cached: %+v, %v", page, err)
		}
		next()
		done := free(w.Context())
		f.seconds(m, 10)
		if r := <-done; r.err != nil || r.Copies != 1 || r.Pending != 0 {
			w.Errorf("freed %+v", r)
		}
		f.want(b, 0, "freed")

		f.hold("n1", w.stat(m, "/data/f").Info)
		f.seconds(m, 1)
		done = free(w.Context()) // and no node hears of it
		synctest.Wait()
		next()
		if r := <-done; !freshet.IsKind(r.err, freshet.KindNotLeader) {
			w.Errorf("the term ended, and it has freed %+v", r)
		}
		ended, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		if r := <-free(ended); !freshet.IsKind(r.err, freshet.KindDeadline) {
			w.Errorf("in a second it has freed %+v", r)
		}
	})
}
