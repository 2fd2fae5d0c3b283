package coordinator_test

import (
	"context"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/crosscluster"
	"github.com/freshet-io/freshet/crosscluster/membus"
)

// onBus runs the bus of a member.
func (w *world) onBus(net *membus.Network, m *member, name, other string) (stop func()) {
	w.Helper()
	addr := name + ":7403"
	net.Place(addr, name, m.Publisher().Cluster)
	bus := crosscluster.New(region{m.Coordinator}, net.Guard(name, membus.Transport{Network: net}.Dialer()), crosscluster.Options{
		Advertise: addr, Addresses: func() []string { return []string{addr} },
		Peers: []crosscluster.PeerConfig{{Cluster: other, Addresses: []string{other + ":7403"}}},
	})
	detach := net.Attach(addr, bus)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- bus.Run(ctx) }()
	return func() {
		detach()
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
	}
}

// TestTwoClustersOverOneStorage joins the real parts: two coordinators and the
// bus between them, over one storage, mounted at different paths and prefixes.
func TestTwoClustersOverOneStorage(t *testing.T) {
	t.Parallel()
	east := settings{cluster: "us-east", seeds: []freshet.MountChange{mount("/lake", "mem://lake/x", freshet.Never)}}
	inBubble(t, settings{cluster: "eu-west"}, func(w *world) {
		w2 := w.sibling(east)
		defer w2.close()
		a, b := w.leader(), w2.leader()
		net := membus.NewNetwork(1)
		defer w.onBus(net, a, "eu-west", "us-east")()
		defer w2.onBus(net, b, "us-east", "eu-west")()
		w.await("b is in contact", func() bool {
			mounts, _, err := b.Mounts(w.Context(), "/lake")
			return err == nil && !mounts[0].Degraded && len(subs(b)) == 1
		})
		w.store.Put("x/d/f", []byte("one"))
		if st := w2.stat(b, "/lake/d/f"); st.Info.Length != 3 {
			w.Errorf("b: %+v", st.Info)
		}
		w2.list(b, "/lake/d")
		write := func(fn func() (freshet.Completed, error)) freshet.Token {
			w.Helper()
			done, err := fn()
			if err != nil {
				w.Fatal(err)
			}
			return done.Token
		}
		tok := write(func() (freshet.Completed, error) {
			return a.Rename(w.Context(), freshet.RenameQuery{Path: "/data/x/d/f", Target: "/data/x/d/g"})
		})
		if _, err := b.Stat(w.Context(), "/lake/d/f", freshet.ReadOptions{After: tok}); !freshet.IsKind(err, freshet.KindNotExist) {
			w.Errorf("b still has the old name: %v", err)
		}
		if st := w2.stat(b, "/lake/d/g"); st.Info.Length != 3 {
			w.Errorf("b: %+v", st.Info)
		}
		// What is outside of b's mount costs b nothing.
		w2.list(b, "/lake/d")
		if n := w.asked(func() {
			tok = write(func() (freshet.Completed, error) {
				return a.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/data/elsewhere"})
			})
		}); n == 0 {
			w.Error("a made a directory without the storage")
		}
		if n := w.asked(func() {
			if _, err := b.Stat(w.Context(), "/lake/d/g", freshet.ReadOptions{After: tok}); err != nil {
				w.Error(err)
			}
		}); n != 0 {
			w.Errorf("an unrelated change cost b %d looks", n)
		}
		// Cut off, b says so and checks by time; after healing nothing is lost.
		net.Set("eu-west", "us-east", membus.Faults{Cut: true, Loss: 1})
		time.Sleep(15 * time.Second)
		if st := w2.stat(b, "/lake/d/g"); !st.Freshness.Degraded {
			w.Errorf("b does not know that it is cut off: %+v", st.Freshness)
		}
		tok = write(func() (freshet.Completed, error) {
			return a.Remove(w.Context(), freshet.RemoveQuery{Path: "/data/x/d", Recursive: true})
		})
		_, err := b.Stat(w.Context(), "/lake/d/g", freshet.ReadOptions{After: tok})
		w.wantKind(err, freshet.KindDeadline)
		net.Heal()
		w.await("b is level", func() bool {
			_, err := b.Stat(w.Context(), "/lake/d/g", freshet.ReadOptions{After: tok})
			return freshet.IsKind(err, freshet.KindNotExist)
		})
		w2.statKind(b, "/lake/d", freshet.KindNotExist)
	})
}

func subs(m *member) []string {
	var out []string
	all, err := m.Subscriptions()
	if err != nil {
		return nil
	}
	for _, s := range all {
		out = append(out, s.Publisher.Name)
	}
	return out
}

// await waits in fake time until cond holds.
func (w *world) await(what string, cond func() bool) {
	w.Helper()
	for range 1800 {
		if cond() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.Fatalf("not within three minutes: %s", what)
}
