package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/e2e"
)

// soakEnv says for how long TestSoakOfTheDataPath works, soakSeed how its luck falls;
// soakShort is its length without. From soakFlat on, the use of memory, descriptors
// and goroutines in its halves must be alike.
const (
	soakEnv   = "FRESHET_SOAK_DATA"
	soakSeed  = "FRESHET_SOAK_SEED"
	soakShort = 20 * time.Second
	soakFlat  = 4 * time.Minute
)

// TestSoakOfTheDataPath has two regions write and read the same two storages in all
// ways, through caches that are far too small, while operators warm, free, pin and
// drain and nodes are killed. No reader sees bytes of two versions, or a version older
// than it may; what was acknowledged is in the storage in the end; and nothing grows.
func TestSoakOfTheDataPath(t *testing.T) {
	length, seed := soakShort, uint64(1)
	if text := os.Getenv(soakEnv); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatalf("%s: %v", soakEnv, err)
		}
	}
	if text := os.Getenv(soakSeed); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", soakSeed, err)
		}
	}
	tiers := shortDir(t)
	l := newLake(t, e2e.Options{Coordinators: 3, Nodes: 3, Sockets: true, Tiers: disks(tiers, "8MiB", "32MiB")})
	defer http.DefaultClient.CloseIdleConnections()
	before := l.rest(t)

	ctx, stop := context.WithTimeout(t.Context(), length)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	var acks atomic.Int64
	writers := l.writers(t, seed, &acks)
	for _, w := range writers {
		group.Go(func() error { return w.run(ctx) })
	}
	reads := &tally{}
	for name, way := range ways() {
		for i, r := range l.regions() {
			d := &reader{
				l: l, r: r, name: name, way: way, files: writers, tally: reads,
				rand: rand.New(rand.NewPCG(seed, uint64(i)+uint64(len(name)))), //nolint:gosec // repeatable on purpose
			}
			group.Go(func() error { return d.run(ctx) })
		}
	}
	o := &operator{l: l, rand: rand.New(rand.NewPCG(seed, 5)), pause: 1500 * time.Millisecond} //nolint:gosec // as above
	for _, w := range writers {
		o.dirs = append(o.dirs, w.dir)
	}
	group.Go(func() error { return o.run(ctx) })
	watch := &watch{l: l}
	group.Go(func() error { return watch.run(ctx) })
	err := group.Wait()

	t.Logf("reads: %s", reads)
	t.Logf("acts: %v", o.done)
	for _, w := range writers {
		t.Logf("writes to %s: %s", w.dir, &w.tally)
	}
	t.Logf("%d writes were acknowledged", acks.Load())
	watch.judge(t, length >= soakFlat)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range l.regions() {
		for i := range r.Nodes {
			must(t, o.undrain(t.Context(), r, fmt.Sprint("n", i+1)))
		}
	}
	l.settle(t, writers...)
	l.verdict(t, writers, true)
	cleanTiers(t, tiers)
	l.atRest(t, before)
	for name := range ways() {
		if reads.count(name+" ok") == 0 {
			t.Errorf("nobody read anything by %s", name)
		}
	}
}

// writers are one for each region and storage.
func (l *lake) writers(t *testing.T, seed uint64, acks *atomic.Int64) []*writer {
	t.Helper()
	var out []*writer
	for _, r := range l.regions() {
		for _, root := range roots {
			w := newWriter(l, r, freshet.Path(root+"/"+r.Name), seed*10+uint64(len(out)), acks)
			w.http = true
			_, err := r.S.Mkdir(t.Context(), freshet.MkdirQuery{Path: w.dir})
			must(t, err)
			out = append(out, w)
		}
	}
	return out
}
