package coordinator_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/kv/pebblekv"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
)

// memCluster is a single member with its log in memory and its state in db, over a
// storage in memory that is mounted at "/". It ends with stop.
func memCluster(b *testing.B, store *mem.Store, db kv.Store) (c *coordinator.Coordinator, stop func()) {
	b.Helper()
	c, end := lone(b, "mem://lake", freshet.Never, coordinator.Deps{Store: db, Openers: ufs.Openers{mem.Opener{"lake": store}}})
	return c, func() {
		if err := errors.Join(end(), db.Close()); err != nil {
			b.Error(err)
		}
	}
}

// share is what became of the time of a thread that looks up, and of those beside it.
type share struct {
	lookups   int
	ran, wall time.Duration
	took      [400]int      // lookups by their duration, in steps of an eighth
	others    time.Duration // processor time of all other threads
	waited    time.Duration // for Apply to let readers in, of all threads
}

func (s *share) add(t *share) {
	s.lookups, s.ran, s.wall = s.lookups+t.lookups, s.ran+t.ran, s.wall+t.wall
	s.others, s.waited = s.others+t.others, s.waited+t.waited
	for i, n := range t.took {
		s.took[i] += n
	}
}

// of returns d per lookup in nanoseconds.
func (s *share) of(d time.Duration) float64 {
	return float64(d.Nanoseconds()) / float64(max(s.lookups, 1))
}

func (s *share) note(d time.Duration) {
	n := max(uint64(d.Nanoseconds()), 8)
	k := bits.Len64(n) - 4 // the three bits behind the first
	s.took[min(k*8+int(n>>k&7), len(s.took)-1)]++
}

// within returns the nanoseconds in which a part of the lookups ended.
func (s *share) within(part float64) float64 {
	left := int(part * float64(s.lookups))
	for i, n := range s.took {
		if left -= n; left < 0 {
			return float64(uint64(8+i%8) << (i / 8))
		}
	}
	return 0
}

// processTime returns the processor time that all threads took.
func processTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// applyWaits returns how long others have waited for the lock that Apply holds, of
// what the profile of locks has.
func applyWaits(b *testing.B) time.Duration {
	b.Helper()
	var text strings.Builder // in a unit of its own, which it alone says
	if err := pprof.Lookup("mutex").WriteTo(&text, 1); err != nil {
		b.Fatal(err)
	}
	var perSecond int64
	if _, err := fmt.Sscanf(text.String(), "--- mutex:\ncycles/second=%d", &perSecond); err != nil {
		b.Fatal(err)
	}
	records := make([]runtime.BlockProfileRecord, 10_000)
	n, ok := runtime.MutexProfile(records)
	if !ok {
		b.Fatalf("the profile has %d records", n)
	}
	var cycles int64
	for _, r := range records[:n] {
		for frames, more := runtime.CallersFrames(r.Stack()), true; more; {
			var f runtime.Frame
			f, more = frames.Next()
			if strings.HasSuffix(f.Function, "namespace.(*State).Apply") {
				cycles += r.Cycles
			}
		}
	}
	return time.Duration(float64(cycles) / float64(perSecond) * float64(time.Second))
}

// threadTime returns how long this thread has run.
func threadTime(b *testing.B) (ran time.Duration) {
	b.Helper()
	text, err := os.ReadFile("/proc/thread-self/schedstat")
	if err != nil {
		b.Skip("the system does not tell how long threads run: ", err)
	}
	if _, err := fmt.Sscan(string(text), &ran); err != nil {
		b.Fatal(err)
	}
	return ran
}

// gauge returns a function that returns what became of the time of this thread, which
// must be locked, since gauge was called.
func measured(b *testing.B) func() share {
	b.Helper()
	waited, all, ran, begin := applyWaits(b), processTime(b), threadTime(b), time.Now()
	return func() share {
		b.Helper()
		s := share{wall: time.Since(begin), ran: threadTime(b) - ran}
		s.others = processTime(b) - all - s.ran
		s.waited = applyWaits(b) - waited
		return s
	}
}

// lookups stats cached files, one after the other, until stop.
func lookups(b *testing.B, c *coordinator.Coordinator, stop <-chan struct{}) share {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	paths := make([]freshet.Path, 1000)
	for i := range paths {
		paths[i] = freshet.Path(fmt.Sprintf("/hot/f%03d", i))
	}
	var took share
	done := measured(b)
	last := time.Now()
	for i := 0; ; i++ {
		select {
		case <-stop:
			s := done()
			s.lookups, s.took = i, took.took
			return s
		default:
		}
		if _, err := c.Stat(b.Context(), paths[i%len(paths)], freshet.ReadOptions{}); err != nil {
			b.Fatal(err)
		}
		now := time.Now()
		took.note(now.Sub(last))
		last = now
	}
}

// burn uses a processor until stop and touches nothing that others use.
func burn(b *testing.B, stop <-chan struct{}) share {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	done := measured(b)
	var block [1024]byte
	for {
		select {
		case <-stop:
			return done()
		default:
			sum := sha256.Sum256(block[:])
			copy(block[:], sum[:])
		}
	}
}

// beside runs what until its end, and do beside it.
func beside(what func(), do func(stop <-chan struct{})) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(stop)
		what()
	})
	do(stop)
	wg.Wait()
}

// BenchmarkLookupsBesideABigSync shows what the sync of a directory of 100,000
// entries and lookups of cached entries elsewhere cost each other: during the first
// sync, which loads all, and during one that finds nothing new.
//
// Of processors all who compute take from all others, and on a machine with other
// work it is chance how much. So there are more threads than processors, that the
// system alone divides these, and told apart are: what a lookup ran, which is what one
// thing makes dearer for the other, and what lookups waited for the lock of the state.
// Beside something that only burns a processor is what the rest is to be compared with.
func BenchmarkLookupsBesideABigSync(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8 * runtime.NumCPU()))
	defer runtime.SetMutexProfileFraction(runtime.SetMutexProfileFraction(1))
	storage := mem.New(mem.Options{})
	for i := range bigEntries {
		storage.Put(fmt.Sprintf("big/f%06d", i), nil)
	}
	for i := range 1000 {
		storage.Put(fmt.Sprintf("hot/f%03d", i), nil)
	}
	stores := map[string]func() kv.Store{
		"memory": func() kv.Store { return kv.NewMemory() },
		"pebble": func() kv.Store {
			s, err := pebblekv.Open(b.TempDir(), pebblekv.Options{})
			if err != nil {
				b.Fatal(err)
			}
			return s
		},
	}
	for _, name := range slices.Sorted(maps.Keys(stores)) {
		b.Run(name, func(b *testing.B) {
			got := map[string]*share{}
			for b.Loop() {
				for range besideRounds {
					syncBeside(b, storage, stores[name], got)
				}
			}
			for _, kind := range []string{"first", "unchanged"} {
				sync, burnt := got[kind], got[kind+"-burn"]
				const entries = besideRounds * bigEntries
				b.ReportMetric(sync.wall.Seconds()/burnt.wall.Seconds(), "time-ratio-"+kind)
				b.ReportMetric(float64(sync.others.Nanoseconds())/entries/float64(b.N), "ns-cpu/entry-"+kind)
				b.ReportMetric(float64(burnt.others.Nanoseconds())/entries/float64(b.N), "ns-cpu/entry-"+kind+"-burn")
			}
			for _, kind := range []string{"first", "unchanged", "alone", "burn"} {
				s := got[kind]
				b.ReportMetric(s.of(s.ran), "ns-run-"+kind)
				b.ReportMetric(s.of(s.wall), "ns-all-"+kind)
				b.ReportMetric(s.of(s.waited), "ns-waited-"+kind)
				b.ReportMetric(s.within(0.99), "ns-p99-"+kind)
				b.ReportMetric(s.within(0.999), "ns-p999-"+kind)
			}
		})
	}
}

const bigEntries, besideRounds = 100_000, 2

// syncBeside syncs a directory, twice beside lookups and twice beside what only burns
// a processor, and looks up alone and beside that.
func syncBeside(b *testing.B, storage *mem.Store, db func() kv.Store, got map[string]*share) {
	b.Helper()
	note := func(name string, s share) {
		if got[name] == nil {
			got[name] = &share{}
		}
		got[name].add(&s)
	}
	for _, with := range []string{"", "-burn"} {
		c, end := memCluster(b, storage, db())
		run := func(p freshet.Path) {
			if err := c.Sync(b.Context(), p, true, quiet); err != nil {
				b.Error(err)
			}
		}
		run("/hot")
		for _, kind := range []string{"first", "unchanged"} {
			beside(func() { run("/big") }, func(stop <-chan struct{}) {
				if with == "" {
					note(kind, lookups(b, c, stop))
				} else {
					note(kind+with, burn(b, stop))
				}
			})
		}
		if with == "" {
			second := func() { <-time.After(time.Second) }
			beside(second, func(stop <-chan struct{}) { note("alone", lookups(b, c, stop)) })
			beside(second, func(stop <-chan struct{}) {
				var wg sync.WaitGroup
				wg.Go(func() { burn(b, stop) })
				note("burn", lookups(b, c, stop))
				wg.Wait()
			})
		}
		end()
	}
}
