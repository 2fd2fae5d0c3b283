package sim_test

import (
	"context"
	"sync"
	"time"

	"github.com/freshet-io/freshet/crosscluster/membus"
)

// nemesis does harm, by seed.
type nemesis struct {
	w    *world
	dice *dice
	wg   sync.WaitGroup
}

// uploadPoints are those at which a cache node can die.
var uploadPoints = []string{"after-create", "before-permit", "after-permit", "after-commit", "after-complete"}

// work does harm until ctx ends, and then ends all of it.
func (n *nemesis) work(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, 500*time.Millisecond+n.dice.upTo(2500*time.Millisecond))
		if ctx.Err() == nil {
			n.step()
		}
	}
	n.wg.Wait()
	n.w.net.Heal()
	for _, s := range n.w.sites {
		s.raft.HealAll()
		s.setMood(mood{})
		for _, x := range s.nodes {
			x.dieAt("")
		}
	}
	n.w.note("all faults have ended")
}

func (n *nemesis) site() *site { return n.w.sites[n.dice.below(len(n.w.sites))] }

// after does something later, before the end of the faults.
func (n *nemesis) after(most time.Duration, fn func()) {
	d := 500*time.Millisecond + n.dice.upTo(most)
	n.wg.Go(func() {
		time.Sleep(d)
		fn()
	})
}

func (n *nemesis) step() {
	s, d := n.site(), n.dice
	switch d.below(16) {
	case 0, 1:
		n.isolate(s)
	case 2, 3:
		n.crash(s, s.members[d.below(len(s.members))])
	case 4:
		n.restart(s, s.members[d.below(len(s.members))])
	case 5:
		n.transfer(s)
	case 6, 7, 8:
		x, point := s.anyNode(d), uploadPoints[d.below(len(uploadPoints))]
		n.w.note("%s: %s is to die at %s", s.name, x.name, point)
		x.dieAt(point)
	case 9:
		n.w.note("%s: a cache node dies", s.name)
		s.anyNode(d).crash()
	case 10:
		n.w.note("%s: the storage is down", s.name)
		s.setMood(mood{down: true})
		n.after(8*time.Second, func() { s.setMood(mood{}); n.w.note("%s: the storage is back", s.name) })
	case 11, 12:
		n.w.note("%s: the storage's answers are uncertain", s.name)
		s.setMood(mood{uncertain: .15, late: .2, lost: .1, latency: 100 * time.Millisecond})
		n.after(6*time.Second, func() { s.setMood(mood{}); n.w.note("%s: the storage's answers are certain", s.name) })
	case 13:
		n.bump(s)
	default:
		n.disturb(s)
	}
}

// isolate cuts the leader off from its followers; clients and the bus still reach
// it.
func (n *nemesis) isolate(s *site) {
	m := s.leader()
	if m == nil || len(s.members) < 3 {
		return
	}
	n.w.note("%s: leader %s is isolated", s.name, m.raft)
	s.raft.Isolate(m.raft)
	n.after(4*time.Second, func() { s.healMember(m.raft); n.w.note("%s: %s is not isolated any more", s.name, m.raft) })
}

func (n *nemesis) crash(s *site, m *member) {
	if m.stopped() {
		return
	}
	n.w.note("%s: %s crashes (leads: %t)", s.name, m.raft, s.leader() == m)
	m.crash()
	n.after(4*time.Second, func() { n.w.note("%s: %s starts again", s.name, m.raft); m.start(m.index == 0) })
}

func (n *nemesis) restart(s *site, m *member) {
	if m.stopped() {
		return
	}
	n.w.note("%s: %s stops in order", s.name, m.raft)
	m.halt()
	n.after(2*time.Second, func() { n.w.note("%s: %s starts again", s.name, m.raft); m.start(m.index == 0) })
}

func (n *nemesis) transfer(s *site) {
	m := s.leader()
	if m == nil || len(s.members) < 3 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := m.running().TransferLeadership(ctx, "")
	n.w.note("%s: leadership is transferred: %v", s.name, err)
}

func (n *nemesis) bump(s *site) {
	m := s.leader()
	if m == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	epoch, err := m.running().BumpEpoch(ctx, false)
	n.w.note("%s: epoch %d begins: %v", s.name, epoch, err)
}

// disturb puts faults between two sites, in both directions or in one.
func (n *nemesis) disturb(a *site) {
	d := n.dice
	b := n.site()
	if a == b {
		return
	}
	faults := []membus.Faults{
		{Cut: true, Loss: 1},
		{Cut: true},
		{Loss: 1},
		{Loss: .3},
		{Hang: true},
		{Hang: true, Loss: 1},
		{Loss: .3, Duplicate: .3, Corrupt: .1, Jitter: 500 * time.Millisecond, Drop: .2, Repeat: .2, Delay: 40 * time.Millisecond},
	}
	f := faults[d.below(len(faults))]
	if d.below(3) == 0 {
		n.w.note("from %s to %s: %+v", a.name, b.name, f)
		n.w.net.SetOneWay(a.name, b.name, f)
	} else {
		n.w.note("between %s and %s: %+v", a.name, b.name, f)
		n.w.net.Set(a.name, b.name, f)
	}
	n.after(12*time.Second, func() {
		n.w.note("between %s and %s: no faults", a.name, b.name)
		n.w.net.Set(a.name, b.name, membus.Faults{})
	})
}
