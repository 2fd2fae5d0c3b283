package bustest

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/freshet-io/freshet/crosscluster/membus"
)

// Simulate does random things to three clusters for a while, by seed: writes,
// faults, changes of leaders, restarts, compaction, lost logs. Then all faults
// end, and everybody must become level.
func Simulate(w *World, seed uint64, length time.Duration) {
	w.T.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 77)) //nolint:gosec // repeatable on purpose
	names := []string{"east", "west", "north"}
	sites := make([]*Site, len(names))
	for i, name := range names {
		sites[i] = w.Site(name, SiteOptions{Members: 1 + rnd.IntN(3), NoGossip: rnd.IntN(6) == 0})
		sites[i].Latency = time.Duration(rnd.IntN(10)) * time.Millisecond
	}
	for _, s := range sites {
		for _, p := range sites {
			if p != s {
				s.Peer(p)
			}
		}
		s.StartAll()
	}
	steps := 0
	w.Holds(length, func() string {
		if rnd.IntN(10) == 0 {
			steps++
			w.step(rnd, sites, steps)
		}
		return ""
	})
	w.Net.Heal()
	for _, s := range sites {
		for i := range s.nodes {
			if s.nodes[i].stop == nil {
				s.Start(i)
			}
		}
		s.Lead(rnd.IntN(len(s.nodes)))
	}
	w.Quiet(2 * time.Minute)
}

func (w *World) step(rnd *rand.Rand, sites []*Site, number int) {
	s := sites[rnd.IntN(len(sites))]
	other := sites[rnd.IntN(len(sites))]
	switch rnd.IntN(24) {
	default:
		s.Put(Lake, keys(fmt.Sprintf("%s/%d", s.Name, number), 1+rnd.IntN(40))...)
	case 0:
		w.Net.Set(s.Name, other.Name, membus.Faults{Cut: true, Loss: 1})
	case 1:
		w.Net.Set(s.Name, other.Name, membus.Faults{Cut: true})
	case 2:
		w.Net.Set(s.Name, other.Name, membus.Faults{Hang: true, Loss: rnd.Float64()})
	case 3:
		w.Net.Set(s.Name, other.Name, membus.Faults{
			Delay: time.Duration(rnd.IntN(200)) * time.Millisecond, Loss: .3, Duplicate: .3, Corrupt: .1, Jitter: time.Second, Drop: .1, Repeat: .1,
		})
	case 4, 5, 6:
		w.Net.Heal()
	case 7, 8:
		s.Lead(rnd.IntN(len(s.nodes)+1) - 1)
	case 9:
		i := rnd.IntN(len(s.nodes))
		if s.nodes[i].stop != nil {
			s.Stop(i)
		}
	case 10, 11:
		i := rnd.IntN(len(s.nodes))
		if s.nodes[i].stop == nil {
			s.Start(i)
		}
	case 12:
		if h := s.Head(Lake); h.High > h.Low {
			s.Compact(Lake, h.Low+uint64(rnd.Int64N(int64(h.High-h.Low))))
		}
	case 13:
		if h := s.Head(Lake); h.High > h.Low {
			n := 1 + rnd.IntN(min(5, int(h.High-h.Low)))
			s.Lose(Lake, n)
			s.writes -= n
			if rnd.IntN(2) == 0 {
				s.Bump()
			}
		}
	}
}
