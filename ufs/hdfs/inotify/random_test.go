package inotify_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/test/hdfstest"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/hdfs/inotify"
)

// consumer applies notices as a region does, and starts again where it was, or
// where it was before, whenever it is told to or the watch fails.
type consumer struct {
	s *inotify.Source

	mu      sync.Mutex
	heard   []ufs.Notice
	cursors [][]byte
	end     context.CancelFunc // of the watch under way
	gate    sync.Mutex         // held while nobody watches
	news    chan struct{}
}

func (k *consumer) run(ctx context.Context) {
	for ctx.Err() == nil {
		k.gate.Lock()
		k.gate.Unlock() //nolint:staticcheck // waits only
		k.mu.Lock()
		var since []byte
		if len(k.cursors) > 0 {
			since = k.cursors[len(k.cursors)-1]
		}
		watching, end := context.WithCancel(ctx)
		k.end = end
		k.mu.Unlock()
		for n, err := range k.s.Watch(watching, since) {
			if err != nil {
				break
			}
			k.mu.Lock()
			k.heard = append(k.heard, n)
			k.cursors = append(k.cursors, n.Cursor)
			k.mu.Unlock()
			select {
			case k.news <- struct{}{}:
			default:
			}
		}
		end()
	}
}

// restart ends the watch under way; it goes on back notices before the last.
func (k *consumer) restart(back int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cursors = k.cursors[:max(1, len(k.cursors)-back)]
	k.end()
}

func (k *consumer) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.heard)
}

// tells reports whether a notice after the first from covers a key.
func (k *consumer) tells(from int, key string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, n := range k.heard[from:] {
		if n.Gap != "" {
			return true
		}
		for i := range n.Changes {
			if covers(&n.Changes[i], key) {
				return true
			}
		}
	}
	return false
}

func covers(r *invalidation.Record, key string) bool {
	for _, k := range []string{r.Key, r.Key2} {
		if k != "" && (k == key || r.Recursive && strings.HasPrefix(key, k+"/")) {
			return true
		}
	}
	return false
}

// change is what must be told: a key, "" for everything, after notice number from.
type change struct {
	step, key string
	from      int
}

func TestRandomHistories(t *testing.T) {
	seeds := 20
	if testing.Short() {
		seeds = 2
	}
	c := hdfstest.Start(t, hdfstest.Options{})
	f := local(t, 5000)
	gaps := 0
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := &history{t: t, c: c, file: f, r: rand.New(rand.NewPCG(uint64(seed), 7)), dir: fmt.Sprintf("/s%d", seed)}
			h.run()
			h.k.mu.Lock()
			defer h.k.mu.Unlock()
			for _, n := range h.k.heard {
				if n.Gap != "" {
					gaps++
				}
			}
		})
	}
	t.Logf("%d gaps in %d histories", gaps, seeds)
	if gaps == 0 && seeds >= 20 {
		t.Error("no history had a gap: the test has lost its point")
	}
}

type history struct {
	t    *testing.T
	c    *hdfstest.Cluster
	k    *consumer
	r    *rand.Rand
	file string
	dir  string
	all  []change
	live []string
	made int
	away bool // nobody watches
}

func (h *history) run() {
	ctx, cancel := context.WithCancel(h.t.Context())
	h.k = &consumer{s: inotify.New(inotify.Options{Addrs: []string{h.c.Addr()}, User: h.c.User()}), news: make(chan struct{}, 1)}
	var wg sync.WaitGroup
	wg.Go(func() { h.k.run(ctx) })
	defer wg.Wait()
	defer h.back() // also when a step fails
	defer cancel()
	h.await("the first notice", func() bool { return h.k.count() > 0 })
	for range 15 {
		h.step()
	}
	h.back()
	end := h.dir + "-end"
	from := h.k.count()
	h.dfs("-mkdir", end)
	h.await(end, func() bool { return h.k.tells(from, end) })
	for _, ch := range h.all {
		if !h.k.tells(ch.from, ch.key) {
			h.t.Errorf("%s: %q was not told", ch.step, ch.key)
		}
	}
}

func (h *history) await(what string, ok func() bool) {
	h.t.Helper()
	limit := time.NewTimer(heardWithin)
	defer limit.Stop()
	for !ok() {
		select {
		case <-h.k.news:
		case <-limit.C:
			h.t.Fatalf("%s was not told within %v", what, heardWithin)
		}
	}
}

func (h *history) dfs(args ...string) { h.c.Dfs(h.t, args...) }

// must notes what the step that is about to be done changes.
func (h *history) must(step string, keys ...string) {
	from := h.k.count()
	for _, key := range keys {
		h.all = append(h.all, change{step: step, key: key, from: from})
	}
}

func (h *history) fresh() string {
	h.made++
	return fmt.Sprintf("%s/f%d", h.dir, h.made)
}

// leave has nobody watch for a while.
func (h *history) leave() {
	if !h.away {
		h.away = true
		h.k.gate.Lock()
		h.k.restart(h.r.IntN(4))
	}
}

func (h *history) back() {
	if h.away {
		h.away = false
		h.k.gate.Unlock()
	}
}

func (h *history) step() {
	switch n := h.r.IntN(100); {
	case n < 8:
		h.c.StopNameNode(h.t)
		h.c.StartNameNode(h.t)
	case n < 18:
		h.c.Admin(h.t, "-rollEdits")
	case n < 26:
		h.c.PurgeEdits(h.t)
	case n < 29:
		h.must("reformat", h.live...)
		h.c.Reformat(h.t)
		h.live = nil
	case n < 45:
		h.k.restart(h.r.IntN(4))
	case n < 50:
		h.leave()
	case n < 53:
		h.back()
	case n < 65 || len(h.live) == 0:
		path := h.fresh()
		h.must("put", path)
		h.dfs("-mkdir", "-p", h.dir)
		h.dfs("-put", h.file, path)
		h.live = append(h.live, path)
	default:
		h.changeOne()
	}
}

func (h *history) changeOne() {
	i := h.r.IntN(len(h.live))
	path := h.live[i]
	switch h.r.IntN(5) {
	case 0:
		h.must("append", path)
		h.dfs("-appendToFile", h.file, path)
	case 1:
		h.must("chmod", path)
		h.dfs("-chmod", fmt.Sprintf("%o", 0o600+h.r.IntN(64)), path)
	case 2:
		to := h.fresh()
		h.must("rename", path, to)
		h.dfs("-mv", path, to)
		h.live[i] = to
	case 3:
		h.must("remove", path)
		h.dfs("-rm", "-skipTrash", path)
		h.live = append(h.live[:i], h.live[i+1:]...)
	default:
		to := h.dir + fmt.Sprintf("-moved%d", h.made)
		h.made++
		h.must("move all", h.live...)
		h.dfs("-mv", h.dir, to)
		h.dfs("-mv", to, h.dir)
	}
}
