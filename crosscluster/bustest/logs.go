package bustest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/crosscluster"
	"github.com/freshet-io/freshet/crosscluster/membus"
	"github.com/freshet-io/freshet/invalidation"
)

func bornInReset(w *World) {
	a, b := w.Site("east", SiteOptions{}), w.Site("west", SiteOptions{})
	a.Put(Lake, keys("a", 10)...)
	a.Compact(Lake, 5)
	b.Peer(a)
	a.StartAll()
	b.StartAll()
	w.Quiet(soon)
	if n := b.Counts(); n.Resets != 1 || n.Applied != 0 {
		w.T.Errorf("%+v, want one reset and nothing applied", n)
	}
}

func compacted(w *World) {
	a, b := w.Pair(SiteOptions{})
	a.Put(Lake, "/before")
	w.Quiet(soon)
	w.Net.Set("east", "west", membus.Faults{Cut: true, Loss: 1})
	a.Put(Lake, keys("during", 30)...)
	w.Until(contactLimit, func() string { return unlessLost(b, a) })
	a.Compact(Lake, 20)
	w.Net.Heal()
	w.Quiet(soon)
	if n := b.Counts().Resets; n != 1 {
		w.T.Errorf("%d resets, want 1", n)
	}
}

func newEpoch(w *World) {
	a, b := w.Pair(SiteOptions{Members: 2})
	a.Put(Lake, keys("a", 5)...)
	w.Quiet(soon)
	a.epoch++
	a.Restore(Lake, 2, a.epoch)
	a.writes -= 2
	a.Lead(1)
	a.Put(Lake, "/after")
	w.Quiet(soon)
	sub, _ := b.Position(a.ID, Lake)
	if n := b.Counts().Resets; n != 1 || sub.Publisher.Epoch != 2 {
		w.T.Errorf("%d resets, want 1; epoch %d, want 2", n, sub.Publisher.Epoch)
	}
}

func oldEpoch(w *World) {
	a, b := w.Pair(SiteOptions{})
	a.Put(Lake, "/a")
	a.Bump()
	w.Quiet(soon)
	a.SetEpoch(1)
	a.Put(Lake, "/b")
	w.Until(soon, func() string {
		if why := b.WhyLost(a.ID, Lake); why == "" {
			return "a publisher whose epoch went back is not lost"
		}
		for _, p := range b.Bus(0).Peers() {
			if strings.Contains(p.LastError, "epoch 1 < known 2: restored without bump? run freshet cluster bump-epoch") {
				return ""
			}
		}
		return fmt.Sprintf("peers do not say why: %+v", b.Bus(0).Peers())
	})
	a.SetEpoch(3)
	w.Quiet(30 * time.Second)
}

func lostEnd(w *World) {
	a, b := w.Pair(SiteOptions{})
	a.Put(Lake, keys("a", 5)...)
	w.Quiet(soon)
	a.Lose(Lake, 2)
	a.writes -= 2
	w.Quiet(soon) // found by a head behind us
	a.Lose(Lake, 1)
	a.Put(Lake, "/other") // found by the chain
	a.writes--
	w.Quiet(soon)
	a.Lose(Lake, 2)
	a.Put(Lake, keys("regrown", 6)...)
	a.writes -= 2
	w.Quiet(30 * time.Second)
	if n := b.Counts().Resets; n < 3 { // one for each loss; a second if it is seen before it is regrown
		w.T.Errorf("%d resets, want 3 or more", n)
	}
}

func rebuilt(w *World) {
	a, b := w.Pair(SiteOptions{Domains: []freshet.DomainID{Lake, Sea}})
	a.Put(Lake, keys("a", 5)...)
	w.Quiet(soon)
	old := a.ID
	a.Stop(0)
	a.Rebuild(uuid.NewSHA1(uuid.NameSpaceOID, []byte("east again")), Lake)
	a.StartAll()
	a.Put(Lake, "/new")
	w.Quiet(soon)
	if _, ok := b.Position(old, Lake); ok {
		w.T.Error("the old cluster's subscription is still there")
	}
}

func forgotten(w *World) {
	a, b := w.Pair(SiteOptions{Members: 2, Domains: []freshet.DomainID{Lake, Sea}})
	a.Put(Lake, "/a")
	w.Quiet(soon)
	a.Stop(0)
	a.Stop(1)
	w.Until(contactLimit, func() string { return unlessLost(b, a) })
	ctx, cancel := context.WithTimeout(context.Background(), soon+w.Slack)
	defer cancel()
	if err := b.Bus(1).Forget(ctx, "east"); freshet.KindOf(err) != freshet.KindNotLeader {
		w.T.Errorf("a member that does not lead forgot: %v", err)
	}
	if err := b.Bus(0).Forget(ctx, "nobody"); freshet.KindOf(err) != freshet.KindNotExist {
		w.T.Errorf("forgot nobody: %v", err)
	}
	order := w.Order.Next()
	if err := b.Bus(0).Forget(ctx, "east"); err != nil {
		w.T.Fatal(err)
	}
	w.Until(soon, func() string { return strings.Join(b.AnyLost(Lake), ", ") })
	w.Holds(5*time.Second, func() string { return strings.Join(b.AnyLost(Lake), ", ") })
	if !b.MarkedSince(Lake, "/whatever", order) {
		w.T.Error("forgetting did not mark everything")
	}
	a.Start(0)
	a.Put(Lake, "/back")
	w.Quiet(soon)
}

func leave(w *World) {
	a, b := w.Pair(SiteOptions{})
	a.Put(Lake, "/a")
	w.Quiet(soon)
	a.Put(Lake, "/last")
	ctx, cancel := context.WithTimeout(context.Background(), soon+w.Slack)
	defer cancel()
	order := w.Order.Next()
	if err := a.Bus(0).Leave(ctx); err != nil {
		w.T.Fatal(err)
	}
	w.Until(soon, func() string { return strings.Join(b.AnyLost(Lake), ", ") })
	w.Holds(5*time.Second, func() string { return strings.Join(b.AnyLost(Lake), ", ") })
	a.Stop(0)
	w.Holds(5*time.Second, func() string { return strings.Join(b.AnyLost(Lake), ", ") })
	if !b.MarkedSince(Lake, "/last", order) {
		w.T.Error("the last change was not marked")
	}
}

func mounts(w *World) {
	a, b := w.Pair(SiteOptions{})
	a.Put(Lake, "/a")
	w.Quiet(soon)
	a.Put(Sea, "/wave")
	b.MountAll(Lake, Sea) // a does not mount it, but wrote to it
	w.Until(soon, func() string { return Level(b, a, Sea) })
	a.MountAll(Lake, Sea)
	b.Put(Sea, "/storm")
	w.Quiet(soon)
	b.MountAll(Sea)
	w.Until(soon, func() string { return strings.Join(b.AnyLost(Lake), ", ") })
	a.Put(Lake, "/unseen")
	a.Put(Sea, "/calm")
	w.Quiet(soon)
	b.MountAll(Lake, Sea)
	w.Quiet(soon)
}

func nudge(w *World) {
	a, b := w.Pair(SiteOptions{NoGossip: true})
	w.Quiet(soon)
	seq := a.Put(Lake, "/a")
	b.Bus(0).Nudge(a.ID, Lake)
	b.Bus(0).Nudge(uuid.New(), Lake)
	w.Until(soon, func() string {
		if sub, _ := b.Position(a.ID, Lake); sub.Applied < seq {
			return "not applied"
		}
		return ""
	})
}

// outsider gossips whatever it is told.
func (w *World) outsider() crosscluster.Gossip {
	addr := w.transport.Address("outsider", 0)
	w.Net.Place(addr, "outsider", uuid.NewSHA1(uuid.NameSpaceOID, []byte("outsider")))
	g := w.transport.Gossip("outsider", addr, 0)
	w.running.Go(func() {
		if err := g.Run(w.ctx, crosscluster.Member{Cluster: "outsider", Node: "x", ID: uuid.New()}, func([]byte) {}); err != nil {
			w.T.Error(err)
		}
	})
	return g
}

func stranger(w *World) {
	a, b := w.Pair(SiteOptions{})
	w.Quiet(soon)
	g := w.outsider()
	payload, _ := invalidation.PackFrame(invalidation.Batch{
		Publisher: uuid.New(), Epoch: 1, Domain: Lake, Records: []invalidation.Record{{Seq: 1, Kind: invalidation.KindAll, Key: "/"}},
	}, invalidation.MaxFrame)
	w.Until(soon, func() string {
		if err := g.Publish(payload, false); err != nil {
			return err.Error()
		}
		if b.Counter("freshet_bus_gossip_total", "unknown") == 0 {
			return "a stranger's frame was not counted"
		}
		return ""
	})
	if n := b.Counts().Hints; n != 0 {
		w.T.Errorf("a stranger caused %d hints", n)
	}
	a.Put(Lake, "/a")
	w.Quiet(soon)
}

func forgedHead(w *World) {
	a, b := w.Pair(SiteOptions{})
	a.Put(Lake, "/a")
	w.Quiet(soon)
	g := w.outsider()
	payload, _ := invalidation.PackDigest(invalidation.Digest{
		Publisher: a.ID, Epoch: 1, Heads: []invalidation.Head{{Domain: Lake, Low: 1, High: 1<<64 - 1}},
	}, invalidation.MaxFrame)
	w.Until(soon, func() string {
		if err := g.Publish(payload, false); err != nil {
			return err.Error()
		}
		if b.Counter("freshet_bus_gossip_total", "bogus") == 0 {
			return "a forged head was not found out"
		}
		return ""
	})
	w.Holds(5*time.Second, func() string { return b.WhyLost(a.ID, Lake) })
	if n := b.Counts().Resets; n != 0 {
		w.T.Errorf("a forged head caused %d resets", n)
	}
	a.Put(Lake, "/b")
	w.Quiet(soon)
}

func burst(w *World) {
	a, b := w.Pair(SiteOptions{})
	w.Quiet(soon)
	a.Put(Lake, keys("burst", 5000)...)
	w.Quiet(soon)
	if n := b.Counts(); n.Applied != 5000 || n.Resets != 0 {
		w.T.Errorf("%+v, want 5000 applied", n)
	}
}

func status(w *World) {
	a, b := w.Pair(SiteOptions{})
	a.Put(Lake, keys("a", 3)...)
	b.Put(Lake, keys("b", 7)...)
	w.Until(soon, func() string {
		peers := b.Bus(0).Peers()
		if len(peers) != 1 || peers[0].Name != "east" || peers[0].ID != a.ID || !peers[0].Stream || len(peers[0].Domains) != 1 {
			return fmt.Sprintf("peers: %+v", peers)
		}
		d := peers[0].Domains[0]
		if d.State != crosscluster.PeerSynced || d.Applied != 3 || d.Head != 3 || d.Acknowledged != 7 || d.Authority != "lake" {
			return fmt.Sprintf("domain: %+v", d)
		}
		return ""
	})
}

func flood(w *World) {
	a, b := w.Pair(SiteOptions{})
	w.Quiet(soon)
	w.Net.Set("east", "west", membus.Faults{Cut: true}) // so that hints are marked at once
	g := w.outsider()
	for i := range 50 {
		payload, _ := invalidation.PackFrame(invalidation.Batch{
			Publisher: a.ID, Epoch: 1, Domain: Lake, After: uint64(1000 + i),
			Records: []invalidation.Record{{Seq: 1, Kind: invalidation.KindAll, Key: "/"}},
		}, invalidation.MaxFrame)
		w.Until(soon, func() string {
			if err := g.Publish(payload, false); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	w.Until(soon, func() string {
		if b.Counter("freshet_bus_gossip_total", "limited") == 0 {
			return "a flood of marks of everything was not limited"
		}
		return ""
	})
	if n := b.Counts().Hints; n > 1 {
		w.T.Errorf("a flood marked everything %d times within a minute", n)
	}
	w.Net.Heal()
	a.Put(Lake, "/a")
	w.Quiet(soon)
}
