// Package sim_test simulates whole systems: the real code of two or three clusters
// with their coordinators, cache nodes, clients and bus, in one process and in fake
// time, over one storage, with faults by seed. It knows what the storage held at
// every moment, and so what each cluster may answer.
//
// It never opens a socket, and replaces only what lies outside of the project: the
// network, the coordinators' disks and the storage.
package sim_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/freshet-io/freshet/ufs/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSimulation runs seeds; FRESHET_SIM_SEEDS says how many, FRESHET_SIM_SEED
// which single one.
func TestSimulation(t *testing.T) {
	first, n := uint64(1), uint64(24)
	if v, err := strconv.ParseUint(os.Getenv("FRESHET_SIM_SEEDS"), 10, 32); err == nil {
		n = v
	}
	if v, err := strconv.ParseUint(os.Getenv("FRESHET_SIM_SEED"), 10, 64); err == nil {
		first, n = v, 1
	}
	for seed := first; seed < first+n; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { simulate(t, seed) })
		})
	}
}

// shape derives the world of a seed.
func shape(seed uint64) settings {
	s := settings{seed: seed, mode: mem.Mode(seed % 2), nodes: 2, members: []int{3, 3}, prefix: []string{"/", "/team", "/team/a"}}
	switch seed % 6 {
	case 1:
		s.members = []int{3, 3, 3}
	case 2:
		s.members = []int{1, 3}
	case 4:
		s.members = []int{3, 1, 1}
	}
	s.latency = []time.Duration{4 * time.Millisecond, 20 * time.Millisecond, 120 * time.Millisecond}[seed/2%3]
	s.rebuild = seed%5 == 3
	s.leases = seed%4 != 0
	if s.kept = seed%3 != 0; s.kept {
		s.nodes += int(seed / 3 % 2)
	}
	if seed%6 == 5 {
		s.records = 40
	}
	return s
}

// simulate runs a seed: a time of work under faults, quiet, and judgement. One
// seed in eight has no faults at all.
func simulate(t *testing.T, seed uint64) {
	t.Logf("seed %d", seed)
	w := newWorld(t, shape(seed))
	faults := seed%8 != 0
	defer func() {
		if w.failed() || t.Failed() {
			t.Logf("timeline of seed %d:\n%s", seed, w.story.print())
			for _, bad := range w.story.bad {
				t.Errorf("seed %d: %s", seed, bad)
			}
		}
	}()
	for _, s := range w.sites {
		s.waitLeader()
	}
	for round := range 4 {
		w.note("round %d begins", round)
		w.round(seed, uint64(round), faults)
		if !w.quiet() {
			break
		}
		w.hist.calm()
		w.asPromised()
		if !w.persisted() || !w.quiet() {
			break
		}
		w.hist.calm()
		w.converged()
	}
	for _, s := range w.sites {
		s.collect()
	}
	w.close()
	w.unbroken()
	w.explained()
	w.published(faults)
	w.agree()
	w.note("%d reads judged, %d attempts; %+v", w.hist.reads, len(w.hist.attempts), w.stay)
	if testing.Verbose() {
		t.Logf("%d reads judged, %d attempts, %s of fake time; of one process in three %.0f answers were kept ones, %.0f were called back; %+v",
			w.hist.reads, len(w.hist.attempts), time.Since(w.start), w.kept.hits, w.kept.dropped, w.stay)
	}
}

// round has clients work under faults for a while.
func (w *world) round(seed, number uint64, faults bool) {
	ctx, cancel := context.WithCancel(context.Background())
	var busy sync.WaitGroup
	for i, s := range w.sites {
		if w.settings.leases {
			newActor(w, s, seed, 1000*number+uint64(500+i)).hot(ctx, &busy)
		}
		for j := range 3 {
			newActor(w, s, seed, 1000*number+uint64(100+10*i+j)).work(ctx, &busy)
		}
	}
	busy.Go(func() {
		for ctx.Err() == nil {
			pause(ctx, time.Second)
			for _, s := range w.sites {
				s.collect()
			}
		}
	})
	harm, over := context.WithTimeout(ctx, 15*time.Second)
	if faults {
		n := &nemesis{w: w, dice: newDice(seed, 2+1000*number), seed: seed, busy: make(chan struct{}, 1)}
		n.work(harm, number == 1)
	} else {
		<-harm.Done()
	}
	over()
	time.Sleep(time.Second)
	cancel()
	busy.Wait()
}
