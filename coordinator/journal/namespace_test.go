package journal_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// The real state, on a store in memory: members agree on its hash, and one that
// joins when the log is gone gets it as a dump.
func TestNamespaceThroughTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		net := &journal.MemoryNetwork{}
		var states []*namespace.State
		var journals []*journal.Journal
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 3)
		servers := []journal.Server{{ID: "m0", Addr: "m0"}, {ID: "m1", Addr: "m1"}, {ID: "m2", Addr: "m2"}}
		for i, s := range servers {
			state, err := namespace.Open(kv.NewMemory(), namespace.Options{})
			if err != nil {
				t.Fatal(err)
			}
			j, err := journal.Open(journal.Options{
				ID: s.ID, Advertise: s.Addr, Memory: journal.NewMemory(), Network: net,
				Identity:      func() uuid.UUID { return state.Identity().Cluster },
				SnapshotEvery: time.Second, SnapshotAfter: 10, TrailingLogs: 5,
			}, state)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				if err := j.Bootstrap(servers[:2]); err != nil {
					t.Fatal(err)
				}
			}
			states, journals = append(states, state), append(journals, j)
			go func() { ended <- j.Run(ctx) }()
		}
		defer func() {
			cancel()
			for range servers {
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		}()
		leader := func() *journal.Journal {
			for {
				for _, j := range journals {
					if _, ok := j.Leading(); ok {
						return j
					}
				}
				time.Sleep(10 * time.Millisecond) // fake time
			}
		}
		l := leader()
		id := uuid.New()
		if res, err := l.Propose(ctx, namespace.Command{Bootstrap: &namespace.Bootstrap{Cluster: id, Name: "eu", Epoch: 1, At: time.Now()}}); err != nil || res[0].Err != nil {
			t.Fatalf("%+v, %v", res, err)
		}
		for i := range 50 {
			m := &namespace.Member{ID: fmt.Sprintf("m%d", i%3), GRPC: fmt.Sprintf("host:%d", 1000+i)}
			if res, err := l.Propose(ctx, namespace.Command{SetMember: m}, namespace.Command{BumpEpoch: &namespace.BumpEpoch{}}); err != nil || res[1].Epoch != uint64(i+2) {
				t.Fatalf("%+v, %v", res, err)
			}
			time.Sleep(100 * time.Millisecond) // fake time, for snapshots to come
		}
		if err := l.AddVoter(ctx, servers[2]); err != nil {
			t.Fatal(err)
		}
		index, err := leader().ReadBarrier(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var first [32]byte
		for i, j := range journals {
			if err := journal.WaitApplied(ctx, j, index); err != nil {
				t.Fatal(err)
			}
			hash, err := states[i].Hash()
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				first = hash
			}
			if hash != first || states[i].Identity().Cluster != id || states[i].Identity().Epoch != 51 {
				t.Errorf("m%d differs: %+v", i, states[i].Identity())
			}
		}
	})
}
