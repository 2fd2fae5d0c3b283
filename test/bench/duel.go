package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"time"
)

// duels is how many rounds a comparison has.
const duels = 5

// side is one of the two who do the same, and what one time cost on average, by
// round.
type side struct {
	do        func(context.Context) error
	others    pids   // whose CPU time counts besides this process's
	at        string // HTTP address of the server that is profiled with it, if any
	wall, cpu []time.Duration
}

// once bounds a measurement to one time a turn.
const once = time.Duration(0)

// turnLength is how long each does it before the other has its turn.
func (b *bench) turnLength() time.Duration { return b.length / 6 }

// duel has ours and theirs do the same in turns, so that a busy machine hurts both.
// The CPU time is that of this process: the server's is not in it.
func (b *bench) duel(ctx context.Context, what string, atLeast time.Duration, ours, theirs func(context.Context) error) (our, their *side, err error) {
	our, their = &side{do: ours}, &side{do: theirs}
	return our, their, b.contest(ctx, what, atLeast, our, their)
}

// contest is a duel of sides that say which servers work for them.
func (b *bench) contest(ctx context.Context, what string, atLeast time.Duration, our, their *side) error {
	for _, s := range []*side{our, their} { // connections, caches
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	for round := range duels {
		turns := []*side{our, their}
		if round%2 == 1 {
			slices.Reverse(turns)
		}
		for _, s := range turns {
			if err := s.turn(ctx, atLeast); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
		}
	}
	return errors.Join(b.profileDuel(ctx, what+"-driver", 6*atLeast, our), b.profileDuel(ctx, what+"-bare", 6*atLeast, their))
}

func (s *side) turn(ctx context.Context, atLeast time.Duration) error {
	runtime.GC() // each pays for its own garbage
	cpu, begun := s.used(), time.Now()
	for n := time.Duration(1); ; n++ {
		if err := s.do(ctx); err != nil {
			return err
		}
		if wall := time.Since(begun); wall >= atLeast {
			s.wall, s.cpu = append(s.wall, wall/n), append(s.cpu, (s.used()-cpu)/n)
			return nil
		}
	}
}

// used is the CPU time of all who work for the side.
func (s *side) used() time.Duration { return cpuTime(nil) + preciseTime(s.others) }

// profileDuel does it for a while under the profiler, if profiles were asked for.
func (b *bench) profileDuel(ctx context.Context, name string, length time.Duration, s *side) error {
	if s.at != "" && length == once {
		length = time.Second // no storage that is slow
	}
	if b.profiles == "" || length == once {
		return nil
	}
	f, err := os.Create(filepath.Join(b.profiles, name+".prof"))
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	if s.at != "" {
		wg.Go(func() {
			if err := profile(ctx, s.at, length, filepath.Join(b.profiles, name+"-server.prof")); err != nil {
				fmt.Fprintln(os.Stderr, "bench: no profile:", err)
			}
		})
	}
	defer wg.Wait()
	err = pprof.StartCPUProfile(f)
	for begun := time.Now(); err == nil && time.Since(begun) < length; {
		err = s.do(ctx)
	}
	pprof.StopCPUProfile()
	return errors.Join(err, f.Close())
}

// ratios says how much faster ours is than theirs, by the median of the rounds: 1 is
// as fast, 0.5 takes twice as long.
func ratios(ours, theirs []time.Duration) (median, low, high float64) {
	all := make([]float64, len(ours))
	for i := range ours {
		all[i] = float64(theirs[i]) / float64(ours[i])
	}
	slices.Sort(all)
	return all[len(all)/2], all[0], all[len(all)-1]
}

func middle(all []time.Duration) time.Duration {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

// addDuel adds the row of a comparison; show makes a rate readable that units were
// done at in the time given.
func (b *bench) addDuel(what string, our, their *side, show func(time.Duration) string) {
	cpu, low, high := ratios(our.cpu, their.cpu)
	wall, _, _ := ratios(our.wall, their.wall)
	b.add(what, show(middle(our.wall)), show(middle(our.cpu)),
		fmt.Sprintf("%s per CPU-second: **%.2f** of it (%.2f–%.2f), %.2f by time", show(middle(their.cpu)), cpu, low, high, wall))
}
