// Package chaos_test lets two regions of real processes work while servers are
// killed and the network between them is cut and disturbed. It checks that no
// acknowledged change is ever lost and that, after healing and quiet, both regions
// show what the storage has without having been asked to sync.
package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// Environment of the tests: how many seeds, the first of them, and how many
// faults each has.
const (
	seedsEnv = "FRESHET_CHAOS_SEEDS"
	seedEnv  = "FRESHET_CHAOS_SEED"
	stepsEnv = "FRESHET_CHAOS_STEPS"
)

func number(t *testing.T, name string, fallback uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return fallback
	}
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

func TestNothingIsLost(t *testing.T) {
	// The same seeds each time: what they find is repeatable. More of them, and
	// others, are for make chaos.
	first := number(t, seedEnv, 1)
	for seed := first; seed < first+number(t, seedsEnv, 3); seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { run(t, seed, int(number(t, stepsEnv, 6))) })
	}
}

// trial is one seed.
type trial struct {
	t     *testing.T
	w     *e2e.World
	rand  *rand.Rand
	steps atomic.Int64

	mu       sync.Mutex
	begun    time.Time
	timeline []string
}

func run(t *testing.T, seed uint64, faults int) {
	t.Logf("repeat with %s=%d %s=1", seedEnv, seed, seedsEnv)
	w := e2e.NewS3World(t, e2e.Options{})
	tr := &trial{t: t, w: w, rand: rand.New(rand.NewPCG(seed, 1)), begun: time.Now()} //nolint:gosec // repeatable on purpose
	t.Cleanup(tr.print)
	writers := []*writer{
		newWriter("x/wa0", w.A, w.B, seed*10, &tr.steps), newWriter("x/wa1", w.A, w.B, seed*10+1, &tr.steps),
		newWriter("x/wb0", w.B, w.A, seed*10+2, &tr.steps),
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, len(writers))
	for _, wr := range writers {
		go func() { ended <- wr.run(ctx) }()
	}
	tr.load(20)
	plan := tr.plan(seed, faults)
	for _, f := range plan {
		if t.Failed() {
			break
		}
		tr.say("%s", f.name)
		heal := f.begin(tr)
		tr.load(25)
		if heal != nil {
			tr.say("%s ends", f.name)
			heal()
		}
		tr.load(10)
	}
	stop()
	for range writers {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	tr.heal()
	tr.say("healed")
	w.Converged(t)
	tree, err := w.Storage.Tree(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	certain, unknown := 0, 0
	for _, wr := range writers {
		certain, unknown = certain+len(wr.files), unknown+wr.unknown
		for _, bad := range wr.verdict(tree) {
			t.Error(bad)
		}
	}
	t.Logf("%d operations, %d files, %d outcomes unknown, %s", tr.steps.Load(), certain, unknown, time.Since(tr.begun).Round(time.Second))
}

func (tr *trial) say(format string, args ...any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	at := time.Since(tr.begun).Round(time.Millisecond)
	tr.timeline = append(tr.timeline, fmt.Sprintf("%8s  step %4d  %s", at, tr.steps.Load(), fmt.Sprintf(format, args...)))
}

func (tr *trial) print() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.t.Logf("faults:\n%s", strings.Join(tr.timeline, "\n"))
}

// load lets the writers do n more operations, or as many as they can in a while.
func (tr *trial) load(n int64) {
	until := tr.steps.Load() + n
	err := fleet.Poll(tr.t.Context(), 8*time.Second, "the load", func(context.Context) error {
		if now := tr.steps.Load(); now < until {
			return fmt.Errorf("%d of %d operations", now, until)
		}
		return nil
	})
	if err != nil {
		tr.say("load is slow: %v", err)
	}
}

func (tr *trial) must(err error) {
	if err != nil {
		tr.t.Error(err)
	}
}

// heal ends all faults and starts what does not run.
func (tr *trial) heal() {
	for _, c := range tr.w.Fleet.Clusters {
		for _, r := range c.Bus {
			r.Resume()
			r.Heal()
			r.Delay(0)
			r.Disturb(fleet.Datagrams{}, 0)
		}
		for _, p := range c.Processes() {
			if !p.Running() {
				tr.must(p.Start())
			}
		}
		tr.must(c.AwaitReady(tr.t.Context()))
	}
}
