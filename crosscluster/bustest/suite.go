package bustest

import (
	"fmt"
	"time"

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
		{"a configured cluster never seen is lost until seen", neverSeen},
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
		{"a stranger's frame is dropped", stranger},
		{"a forged head does not last", forgedHead},
		{"a flood of marks of everything is limited", flood},
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
	// Streams break a moment after the cut, like real ones: what is put at once
	// may still get through.
	w.Holds(50*time.Millisecond, func() string { return "" })
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
	puts := 0
	put := func() {
		a.Put(Lake, fmt.Sprint("/a", puts))
		b.Put(Lake, fmt.Sprint("/b", puts))
		puts++
	}
	for range 60 {
		put()
		w.Holds(20*time.Millisecond, func() string { return "" })
	}
	w.Until(soon, func() string { // batches may have been few, where time is real
		if b.Counter("freshet_bus_gap_total", "") > 0 {
			return ""
		}
		put()
		return "no gap was seen"
	})
	w.Until(soon, func() string { return Level(b, a, Lake) })
	if n := b.Counts(); n.Applied != puts || n.Resets != 0 {
		w.T.Errorf("%+v, want %d applied and no reset", n, puts)
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
