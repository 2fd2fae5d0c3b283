package inotify_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet/test/hdfstest"
	"github.com/freshet-io/freshet/ufs/hdfs/inotify"
)

// TestDelay measures how long after a change returned its notice comes, each round
// after a random pause of up to a second. FRESHET_DELAY_ROUNDS asks for more
// rounds than the few that show that it works at all.
func TestDelay(t *testing.T) {
	rounds := 10
	if n, err := strconv.Atoi(os.Getenv("FRESHET_DELAY_ROUNDS")); err == nil {
		rounds = n
	}
	c := hdfstest.Shared(t)
	c.Dfs(t, "-mkdir", "/delay")
	ctx, cancel := context.WithCancel(t.Context())
	type arrival struct {
		key string
		at  time.Time
	}
	arrivals, done := make(chan arrival, 16), make(chan struct{})
	go func() {
		defer close(done)
		s := inotify.New(inotify.Options{Addrs: []string{c.Addr()}, User: c.User()})
		for n, err := range s.Watch(ctx, nil) {
			if err != nil {
				return // the test ended, or it fails for want of arrivals
			}
			key := ""
			if len(n.Changes) > 0 {
				key = n.Changes[0].Key
			}
			select {
			case arrivals <- arrival{key, time.Now()}:
			case <-ctx.Done():
			}
		}
	}()
	defer func() { cancel(); <-done }()
	await := func(key string) time.Time {
		t.Helper()
		limit := time.NewTimer(heardWithin)
		defer limit.Stop()
		for {
			select {
			case a := <-arrivals:
				if a.key == key {
					return a.at
				}
			case <-limit.C:
				t.Fatalf("%q was not told within %v", key, heardWithin)
			}
		}
	}
	await("")
	delays := make([]time.Duration, rounds)
	for i := range delays {
		key := fmt.Sprintf("/delay/%d", i)
		c.Dfs(t, "-mkdir", key)
		returned := time.Now()
		delays[i] = max(0, await(key).Sub(returned))
		<-time.After(rand.N(time.Second))
	}
	slices.Sort(delays)
	t.Logf("delay of %d changes: p50 %v, p99 %v, max %v", rounds, delays[rounds/2], delays[rounds*99/100], delays[rounds-1])
	if delays[rounds/2] > 2*time.Second {
		t.Error("half of the notices come later than any poll does")
	}
}

// BenchmarkIdlePoll has the NameNode asked while nothing changes.
func BenchmarkIdlePoll(b *testing.B) {
	c := hdfstest.Shared(b)
	// Waits between polls are twice as long as the polls.
	s := inotify.New(inotify.Options{Addrs: []string{c.Addr()}, User: c.User(), MinPoll: 1, MaxPoll: 1, Heartbeat: 1})
	before := processCPU(c.PID())
	left := b.N
	b.ResetTimer()
	for _, err := range s.Watch(b.Context(), nil) {
		if err != nil {
			b.Fatal(err)
		}
		if left--; left <= 0 {
			break
		}
	}
	b.ReportMetric(float64((processCPU(c.PID())-before).Microseconds())/float64(b.N), "server-cpu-µs/op")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/3/float64(b.N), "poll-µs/op")
}

// processCPU returns what a process used, 0 where the system does not say.
func processCPU(pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0
	}
	var ticks int64
	for _, f := range fields[11:13] { // user and system, in hundredths of a second
		n, _ := strconv.ParseInt(f, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
