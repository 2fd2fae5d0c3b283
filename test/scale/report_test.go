package scale_test

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-io/freshet/coordinator"
)

// report collects what the phases took, and watches memory meanwhile.
type report struct {
	t     *testing.T
	last  time.Time
	cpu   time.Duration
	lines []string
	most  atomic.Int64 // resident memory but for mapped files
}

// newReport prints the report when the test ends.
func newReport(t *testing.T) *report {
	t.Helper()
	r := &report{t: t, last: time.Now(), cpu: cpuTime(t)}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			own, _ := r.sample()
			r.most.Store(max(r.most.Load(), own))
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
		t.Logf("wall and CPU time, with a state_cache of %s:\n%s", mib(stateCache), strings.Join(r.lines, "\n"))
	})
	return r
}

func (r *report) phase(format string, args ...any) {
	now, cpu := time.Now(), cpuTime(r.t)
	r.lines = append(r.lines, fmt.Sprintf("%7.2fs %7.2fs  %s", now.Sub(r.last).Seconds(), (cpu-r.cpu).Seconds(), fmt.Sprintf(format, args...)))
	r.last, r.cpu = now, cpu
}

// sample returns the resident memory of this process but for mapped files, and
// that of mapped files; zero where the system does not say.
func (r *report) sample() (own, mapped int64) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib int64
		if n, _ := fmt.Sscanf(lines.Text(), "RssAnon: %d kB", &kib); n == 1 {
			own = kib << 10
		}
		if n, _ := fmt.Sscanf(lines.Text(), "RssFile: %d kB", &kib); n == 1 {
			mapped = kib << 10
		}
	}
	return own, mapped
}

// memory checks the bounds of the heap and of resident memory.
func (r *report) memory(m *member) {
	r.t.Helper()
	live, st := liveHeap(), m.state.Stats()
	own, mapped := r.sample()
	most := max(r.most.Load(), own)
	r.phase("memory: live heap %s, resident %s, at most %s so far (and %s of mapped files); cache %s for %d names, store %s",
		mib(live), mib(own), mib(most), mib(mapped), mib(st.CacheBytes), st.CacheEntries, mib(st.Store.MemoryBytes))
	// A table of recent changes that a reader still holds comes to the store's part.
	entries, store := coordinator.SplitMemory(stateCache)
	if st.CacheBytes > entries || st.Store.MemoryBytes > store+store/4 {
		r.t.Errorf("cache and store take %s and %s, at most %s and about %s", mib(st.CacheBytes), mib(st.Store.MemoryBytes), mib(entries), mib(store))
	}
	if live > maxLive {
		r.t.Errorf("the live heap is %s, at most %s whatever the number of inodes", mib(live), mib(maxLive))
	}
	if most > maxResident {
		r.t.Errorf("resident memory came to %s, at most %s whatever the number of inodes", mib(most), mib(maxResident))
	}
}

func liveHeap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
