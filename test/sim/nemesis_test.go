package sim_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/crosscluster/membus"
)

// nemesis does harm, by seed.
type nemesis struct {
	w    *world
	dice *dice
	wg   sync.WaitGroup
	busy chan struct{} // held by what must not overlap; a mutex would stop the fake time of those who wait
	seed uint64
}

// uploadPoints are those at which a cache node can die.
var uploadPoints = []string{"after-create", "before-permit", "after-permit", "after-commit", "after-complete"}

// keptPoints are those of files that stay on nodes at first.
var keptPoints = []string{"after-keep", "before-persist-commit", "after-persist-commit", "after-create", "before-permit"}

// work does harm until ctx ends, and then ends all of it.
func (n *nemesis) work(ctx context.Context, special bool) {
	if special && n.w.settings.rebuild {
		n.wg.Go(func() { n.rebuild(n.site(), n.dice.upTo(8*time.Second)) })
	}
	if special && n.w.settings.records > 0 {
		n.wg.Go(func() { n.burst(n.dice.upTo(8 * time.Second)) })
	}
	for ctx.Err() == nil {
		pause(ctx, 300*time.Millisecond+n.dice.upTo(1500*time.Millisecond))
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
			if _, p := x.running(); p != nil {
				p.mute.Store(false)
			}
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
	most := 20
	if n.w.settings.kept {
		most = 27
	}
	switch d.below(most) {
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
	case 14:
		n.remount(s)
	case 18, 19:
		n.freeze(s)
	case 15:
		n.disturb(s, 45*time.Second)
	case 20, 21:
		x, point := s.anyNode(d), keptPoints[d.below(len(keptPoints))]
		n.w.note("%s: %s is to die at %s", s.name, x.name, point)
		x.dieAt(point)
	case 22:
		n.w.note("%s: a cache node is away for long", s.name)
		s.anyNode(d).crashFor(8*time.Second+d.upTo(12*time.Second), false)
	case 23, 26:
		n.w.note("%s: a cache node loses its disk", s.name)
		s.anyNode(d).crashFor(time.Second+d.upTo(7*time.Second), true)
	case 24, 25:
		n.silence(s.anyNode(d))
	default:
		n.disturb(s, 12*time.Second)
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
	n.busy <- struct{}{}
	defer func() { <-n.busy }()
	if m.stopped() {
		return
	}
	n.w.note("%s: %s crashes (leads: %t)", s.name, m.raft, s.leader() == m)
	m.crash()
	n.after(4*time.Second, func() { n.startAgain(m) })
}

// startAgain starts a member, unless that was done meanwhile.
func (n *nemesis) startAgain(m *member) {
	n.busy <- struct{}{}
	defer func() { <-n.busy }()
	if m.stopped() {
		n.w.note("%s: %s starts again", m.site.name, m.raft)
		m.start(m.index == 0)
	}
}

func (n *nemesis) restart(s *site, m *member) {
	n.busy <- struct{}{}
	defer func() { <-n.busy }()
	if m.stopped() {
		return
	}
	n.w.note("%s: %s stops in order", s.name, m.raft)
	m.halt()
	n.after(2*time.Second, func() { n.startAgain(m) })
}

// silence keeps a node from its leader for a while, but not from its clients and the storage.
func (n *nemesis) silence(x *node) {
	_, p := x.running()
	if p == nil {
		return
	}
	n.w.note("%s: %s does not reach its leader", x.site.name, x.name)
	p.mute.Store(true)
	n.after(14*time.Second, func() {
		p.mute.Store(false)
		n.w.note("%s: %s reaches its leader", x.site.name, x.name)
	})
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
func (n *nemesis) disturb(a *site, most time.Duration) {
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
		{Drop: .3, Repeat: .3, Loss: 1},
		{Drop: .3, Loss: .9, Delay: 100 * time.Millisecond},
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
	n.after(most, func() {
		n.w.note("between %s and %s: no faults", a.name, b.name)
		n.w.net.Set(a.name, b.name, membus.Faults{})
	})
}

// remount takes the mount away from its users and brings it back.
func (n *nemesis) remount(s *site) {
	m := s.leader()
	if _, there := s.mounted(); m == nil || !there {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	// Without force it is refused as long as something is not in the storage.
	force := !n.w.settings.kept || n.dice.below(3) == 0
	s.changed()
	end := func() {}
	if force {
		end = s.giveUp()
	}
	_, err := call(ctx, s, func(c *coordinator.Coordinator) (freshet.MountAnswer, error) {
		return c.RemoveMount(ctx, s.path, freshet.RemoveMountOptions{Force: force})
	})
	n.w.note("%s: unmount (by force: %t): %v", s.name, force, err)
	n.after(4*time.Second, func() {
		defer end()
		for ctx := context.Background(); ; pause(ctx, 200*time.Millisecond) {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			_, err := call(ctx, s, func(c *coordinator.Coordinator) (freshet.MountAnswer, error) { return c.AddMount(ctx, s.mount()) })
			if err == nil || freshet.IsKind(err, freshet.KindExist, freshet.KindConflict) {
				// That of a removal of which nobody knew may come later: look.
				answers, merr := call(ctx, s, func(c *coordinator.Coordinator) ([]freshet.MountAnswer, error) {
					answers, _, err := c.Mounts(ctx, "")
					return answers, err
				})
				cancel()
				if merr == nil && len(answers) == 1 {
					n.w.note("%s: mount: %v", s.name, err)
					break
				}
				continue
			}
			cancel()
		}
		s.changed()
		n.w.bucket.excuse(s) // operations of a mount that was removed end without the storage
	})
}

// rebuild makes a cluster anew: the same name, another identity, nothing in its
// state. Its writers are stopped first, and what they sent has landed, as an
// operator has to see to.
func (n *nemesis) rebuild(s *site, wait time.Duration) {
	time.Sleep(wait)
	n.busy <- struct{}{}
	defer func() { <-n.busy }()
	n.w.note("%s: the cluster is to be made anew", s.name)
	for _, m := range s.members {
		m.halt()
	}
	defer s.giveUp()()
	for _, x := range s.nodes { // what is not in the storage has to be given up
		x.crashFor(time.Second+n.w.chance.upTo(7*time.Second), n.w.settings.kept)
	}
	time.Sleep(lateness + time.Second)
	for _, m := range s.members {
		m.log, m.kv = journal.NewMemory(), kv.NewMemory()
	}
	s.mu.Lock()
	s.rebuilt = time.Now()
	s.mu.Unlock()
	n.w.note("%s: the new cluster starts", s.name)
	n.w.bucket.excuse(s)
	for _, m := range s.members {
		m.start(m.index == 0)
	}
}

// burst makes so many changes while a subscriber is away that the log no longer
// reaches back to its position.
func (n *nemesis) burst(wait time.Duration) {
	time.Sleep(wait)
	a, b := n.w.sites[0], n.w.sites[1]
	n.w.note("%s makes a burst of changes while %s is away", a.name, b.name)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for begun := time.Now(); time.Since(begun) < 14*time.Second; {
			n.w.net.Set(a.name, b.name, membus.Faults{Cut: true, Loss: 1}) // whatever else heals it
			time.Sleep(200 * time.Millisecond)
		}
	}()
	var writers sync.WaitGroup
	for i := range 8 {
		writers.Go(func() {
			x := newActor(n.w, a, n.seed, uint64(900+i))
			for j := range 150 {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				what := &attempt{what: "mkdir", key: fmt.Sprintf("/burst/d%d", i)}
				if j%2 == 1 {
					what.what = "remove"
				}
				x.change(ctx, what, func(op freshet.OpID, _ *attempt) error {
					if j%2 == 1 {
						_, err := x.files.Remove(ctx, freshet.RemoveQuery{Op: op, Path: a.pathOf(what.key)})
						return err
					}
					_, err := x.files.Mkdir(ctx, freshet.MkdirQuery{Op: op, Path: a.pathOf(what.key), Parents: true})
					return err
				})
				cancel()
			}
		})
	}
	writers.Wait()
	<-done
	n.w.net.Set(a.name, b.name, membus.Faults{})
	n.w.note("%s can be heard by %s again", a.name, b.name)
}
