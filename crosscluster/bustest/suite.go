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

// Test is one test of the suite.
type Test struct {
	Name string
	Run  func(w *World)
}

// Suite returns the tests that hold over every transport.
func Suite() []Test {
	return []Test{
		{"a change is marked in every other cluster", everyone},
		{"streams alone, addresses from the configuration", streamsAlone},
		{"addresses from the gossip pool alone", gossipAlone},
		{"all gossip lost, the streams carry it", gossipLost},
		{"gossip reordered, repeated, damaged", gossipBad},
		{"decision 22: a configured cluster never seen is lost until seen", neverSeen},
		{"S1: a full partition is told, and healed without loss", partition},
		{"S1: streams cut, gossip marks, the gap is told", streamsCut},
		{"S3: batches lost and repeated in the stream", badStream},
		{"C21: a hanging stream is no contact", hanging},
		{"C18: publisher's and receiver's leaders change", leaders},
		{"C20: a log compacted beyond its beginning starts by reset", bornInReset},
		{"C20: a log compacted beyond a subscriber resets it", compacted},
		{"S12: a new epoch resets", newEpoch},
		{"S12: an epoch that goes back is refused", oldEpoch},
		{"C22: a log that lost its end and kept its epoch is found", lostEnd},
		{"C24: a rebuilt cluster of the same name replaces the old", rebuilt},
		{"C24: a forgotten cluster is not waited for", forgotten},
		{"C24: an orderly leave is not waited for", leave},
		{"mounts come and go", mounts},
		{"nudge pulls at once", nudge},
		{"security 89: a stranger's frame is dropped", stranger},
		{"security 92: a forged head does not last", forgedHead},
		{"a burst is applied in order and in few commands", burst},
		{"status tells positions and acknowledgements", status},
	}
}

const soon = 15 * time.Second

// Pair adds and starts two clusters, east and west, that know each other.
func (w *World) Pair(o SiteOptions) (a, b *Site) {
	a, b = w.Site("east", o), w.Site("west", o)
	a.Peer(b)
	b.Peer(a)
	a.StartAll()
	b.StartAll()
	return a, b
}

func keys(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("/%s/%04d", prefix, i)
	}
	return out
}

func everyone(w *World) {
	a, b, c := w.Site("east", SiteOptions{Members: 3}), w.Site("west", SiteOptions{Members: 3}), w.Site("north", SiteOptions{})
	for _, s := range []*Site{a, b, c} {
		for _, p := range []*Site{a, b, c} {
			if p != s {
				s.Peer(p)
			}
		}
		s.StartAll()
	}
	a.Put(Lake, keys("a", 20)...)
	b.Put(Lake, keys("b", 20)...)
	w.Quiet(soon)
	c.Put(Lake, "/c")
	c.Write(Lake, invalidation.Record{Kind: invalidation.KindRename, Key: "/c", Key2: "/d", Recursive: true})
	c.writes++
	w.Quiet(soon)
	if n := b.Counts().Resets; n != 0 {
		w.T.Errorf("%d resets without a cause", n)
	}
}

func streamsAlone(w *World) {
	a, b := w.Pair(SiteOptions{NoGossip: true, Members: 2})
	a.Put(Lake, keys("a", 5)...)
	w.Quiet(soon)
	if n := b.Counts().Hints; n != 0 {
		w.T.Errorf("%d hints without gossip", n)
	}
}

func gossipAlone(w *World) {
	a, b, c := w.Site("east", SiteOptions{Members: 2}), w.Site("west", SiteOptions{}), w.Site("north", SiteOptions{})
	for _, s := range []*Site{a, b, c} {
		s.StartAll()
	}
	a.Put(Lake, "/a")
	b.Put(Lake, "/b")
	w.Quiet(30 * time.Second)
	c.Put(Lake, "/c")
	a.Lead(1)
	w.Quiet(soon)
}

func gossipLost(w *World) {
	w.Net.Set("east", "west", membus.Faults{Loss: 1})
	a, b := w.Pair(SiteOptions{})
	for i := range 10 {
		a.Put(Lake, fmt.Sprint("/a", i))
		b.Put(Lake, fmt.Sprint("/b", i))
		w.Quiet(soon)
	}
}

func gossipBad(w *World) {
	w.Net.Set("east", "west", membus.Faults{Loss: .3, Duplicate: .5, Corrupt: .3, Jitter: 500 * time.Millisecond})
	a, b := w.Pair(SiteOptions{})
	for i := range 30 {
		a.Put(Lake, fmt.Sprint("/a", i))
		b.Put(Lake, fmt.Sprint("/b", i))
		w.Quiet(soon)
	}
	w.Until(soon, func() string {
		a.Put(Lake, "/again")
		if b.Counter("freshet_bus_gossip_total", "corrupt") == 0 {
			return "no payload arrived damaged"
		}
		return ""
	})
	w.Quiet(soon)
	if n := a.Counts().Resets + b.Counts().Resets; n != 0 {
		w.T.Errorf("%d resets by bad gossip", n)
	}
}

func neverSeen(w *World) {
	a, b := w.Site("east", SiteOptions{}), w.Site("west", SiteOptions{})
	a.Peer(b)
	a.StartAll()
	isLost := func() string {
		if len(a.AnyLost(Lake)) == 0 {
			return "a configured cluster that was never seen is not lost"
		}
		return ""
	}
	w.Until(soon, isLost)
	w.Holds(5*time.Second, isLost)
	b.Peer(a)
	b.StartAll()
	w.Quiet(soon)
}

func partition(w *World) {
	a, b := w.Pair(SiteOptions{})
	a.Put(Lake, "/before")
	w.Quiet(soon)
	w.Net.Set("east", "west", membus.Faults{Cut: true, Loss: 1})
	a.Put(Lake, keys("during", 300)...)
	w.Until(contactLimit, func() string { return unlessLost(b, a) })
	if sub, _ := b.Position(a.ID, Lake); sub.Applied != 1 {
		w.T.Errorf("applied %d through a partition", sub.Applied)
	}
	w.Net.Heal()
	w.Quiet(soon)
	if n := b.Counts().Resets; n != 0 {
		w.T.Errorf("%d resets where the log still reached", n)
	}
}

// contactLimit is how soon the loss of contact must be told.
const contactLimit = 3500 * time.Millisecond

func unlessLost(r, p *Site) string {
	if r.WhyLost(p.ID, Lake) == "" {
		return r.Name + " does not count " + p.Name + " as lost"
	}
	return ""
}

func streamsCut(w *World) {
	a, b := w.Pair(SiteOptions{})
	a.Put(Lake, "/before")
	w.Quiet(soon)
	w.Net.Set("east", "west", membus.Faults{Cut: true})
	w.Holds(2*time.Second, func() string { return b.WhyLost(a.ID, Lake) }) // an election takes so long
	order := w.Order.Next()
	a.Put(Lake, "/during")
	w.Until(time.Second, func() string {
		if !b.MarkedSince(Lake, "/during", order) {
			return "gossip did not mark"
		}
		return ""
	})
	w.Until(contactLimit, func() string { return unlessLost(b, a) })
	if sub, _ := b.Position(a.ID, Lake); sub.Applied != 1 {
		w.T.Errorf("C19: gossip advanced the position to %d", sub.Applied)
	}
	w.Net.Heal()
	w.Quiet(soon)
	w.Net.Set("east", "west", membus.Faults{Cut: true})
	w.Until(11*time.Second, func() string { return unlessLost(b, a) }) // gossip alone does not excuse for ever
	w.Net.Heal()
	w.Quiet(soon)
}

func badStream(w *World) {
	a, b := w.Pair(SiteOptions{NoGossip: true})
	w.Quiet(soon)
	w.Net.Set("east", "west", membus.Faults{Drop: .3, Repeat: .3})
	for i := range 60 {
		a.Put(Lake, fmt.Sprint("/a", i))
		b.Put(Lake, fmt.Sprint("/b", i))
		w.Holds(20*time.Millisecond, func() string { return "" })
	}
	w.Until(soon, func() string { return Level(b, a, Lake) })
	if n := b.Counts(); n.Applied != 60 || n.Resets != 0 {
		w.T.Errorf("%+v, want 60 applied and no reset", n)
	}
	if b.Counter("freshet_bus_gap_total", "") == 0 {
		w.T.Error("no gap was seen")
	}
	w.Net.Heal()
	w.Quiet(soon)
}

func hanging(w *World) {
	a, b := w.Pair(SiteOptions{NoGossip: true})
	w.Quiet(soon)
	w.Net.Set("east", "west", membus.Faults{Hang: true})
	a.Put(Lake, "/during")
	w.Until(contactLimit, func() string { return unlessLost(b, a) })
	confirmed := b.Confirmed(a.ID, Lake)
	w.Holds(2*time.Second, func() string {
		if b.Confirmed(a.ID, Lake) != confirmed {
			return "confirmed without an answer"
		}
		return ""
	})
	w.Net.Heal()
	w.Quiet(soon)
}

func leaders(w *World) {
	a, b := w.Pair(SiteOptions{Members: 3})
	for i := range 6 {
		a.Put(Lake, keys(fmt.Sprint("a", i), 50)...)
		a.Lead(-1)
		a.Put(Lake, fmt.Sprint("/between", i))
		a.Lead((i + 1) % 3)
		if i%2 == 1 {
			b.Lead((i + 2) % 3)
		}
		b.Put(Lake, fmt.Sprint("/b", i))
		w.Quiet(soon)
	}
	if n := a.Counts().Resets + b.Counts().Resets; n != 0 {
		w.T.Errorf("%d resets by changes of leaders", n)
	}
}

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
	a.Lose(Lake, 2)
	a.writes -= 2
	a.Bump()
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
	a, b := w.Pair(SiteOptions{})
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
	a, b := w.Pair(SiteOptions{Members: 2})
	a.Put(Lake, "/a")
	w.Quiet(soon)
	a.Stop(0)
	a.Stop(1)
	w.Until(contactLimit, func() string { return unlessLost(b, a) })
	ctx, cancel := context.WithTimeout(context.Background(), soon)
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
	ctx, cancel := context.WithTimeout(context.Background(), soon)
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
