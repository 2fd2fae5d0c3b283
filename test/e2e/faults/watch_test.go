package faults_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

// use is what a process has of the system at one time.
type use struct {
	memory      int64 // anonymous, in bytes
	descriptors int64
	goroutines  int64
}

// What a process may have more in the second half of a soak than in the first, once
// its first quarter is over: a part of what it had, and so much besides.
const (
	growth          = 1.25
	moreMemory      = 32 << 20
	moreDescriptors = 32
	moreGoroutines  = 100
	// lentBlocks is how many blocks the memory tier of a node has room for: each that was
	// lent once is a descriptor until it leaves.
	lentBlocks = 32
)

// watch samples processes.
type watch struct {
	l       *lake
	samples map[string][]use
}

var goroutines = regexp.MustCompile(`(?m)^go_goroutines (\d+)$`)

func sample(ctx context.Context, p *fleet.Process, address string) (use, error) {
	var u use
	proc := filepath.Join("/proc", strconv.Itoa(p.PID()))
	b, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			if u.memory, err = strconv.ParseInt(strings.Fields(rest)[0], 10, 64); err != nil {
				return u, err
			}
			u.memory <<= 10
		}
	}
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return u, err
	}
	u.descriptors = int64(len(fds))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return u, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return u, err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	if b, err = io.ReadAll(resp.Body); err != nil {
		return u, err
	}
	m := goroutines.FindSubmatch(b)
	if m == nil {
		return u, fmt.Errorf("%s does not say how many goroutines it has", p.Name)
	}
	u.goroutines, err = strconv.ParseInt(string(m[1]), 10, 64)
	return u, err
}

// each calls fn for all servers, with the address of their metrics.
func (l *lake) each(fn func(p *fleet.Process, address string)) {
	for _, r := range l.regions() {
		for i, p := range r.Coordinators {
			fn(p, r.HTTP[i])
		}
		for i, p := range r.Nodes {
			fn(p, r.NodeHTTP[i])
		}
	}
}

func (w *watch) run(ctx context.Context) error {
	w.samples = map[string][]use{}
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		w.l.each(func(p *fleet.Process, address string) {
			one, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			if u, err := sample(one, p, address); err == nil { // else it does not run at the moment
				w.samples[p.Name] = append(w.samples[p.Name], u)
			}
		})
	}
}

func median(all []use, of func(use) int64) int64 {
	values := make([]int64, 0, len(all))
	for _, u := range all {
		values = append(values, of(u))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// judge compares the halves; strict demands that they be alike.
func (w *watch) judge(t *testing.T, strict bool) {
	t.Helper()
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for n := range w.samples {
			if !yield(n) {
				return
			}
		}
	}) {
		all := w.samples[name]
		all = all[len(all)/4:]
		if len(all) < 2 {
			t.Errorf("%s was looked at %d times", name, len(w.samples[name]))
			continue
		}
		first, second := all[:len(all)/2], all[len(all)/2:]
		line := fmt.Sprintf("%-6s %4d samples:", name, len(all))
		for _, what := range []struct {
			name string
			of   func(use) int64
			more int64
			unit int64
		}{
			{"MiB of memory", func(u use) int64 { return u.memory }, moreMemory, 1 << 20},
			{"descriptors", func(u use) int64 { return u.descriptors }, moreDescriptors, 1},
			{"goroutines", func(u use) int64 { return u.goroutines }, moreGoroutines, 1},
		} {
			a, b := median(first, what.of), median(second, what.of)
			line += fmt.Sprintf(" %d, then %d %s;", a/what.unit, b/what.unit, what.name)
			if strict && float64(b) > growth*float64(a)+float64(what.more) {
				t.Errorf("%s had %d %s in the first half, and %d in the second", name, a/what.unit, what.name, b/what.unit)
			}
		}
		t.Log(line)
	}
}

// rest is what the servers have when nothing goes on.
func (l *lake) rest(t *testing.T) map[string]use {
	t.Helper()
	out := map[string]use{}
	l.each(func(p *fleet.Process, address string) {
		u, err := sample(t.Context(), p, address)
		must(t, err)
		out[p.Name] = u
	})
	return out
}

// atRest waits until the servers have about the descriptors and goroutines of before.
func (l *lake) atRest(t *testing.T, before map[string]use) {
	t.Helper()
	l.each(func(p *fleet.Process, address string) {
		was := before[p.Name]
		var is use
		err := fleet.Poll(t.Context(), 2*e2e.Patience, p.Name+" to be at rest", func(ctx context.Context) (err error) {
			if is, err = sample(ctx, p, address); err != nil {
				return err
			}
			if is.descriptors > was.descriptors+moreDescriptors+lentBlocks || is.goroutines > was.goroutines+moreGoroutines {
				return fmt.Errorf("%d descriptors and %d goroutines, not about %d and %d", is.descriptors, is.goroutines, was.descriptors, was.goroutines)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		t.Logf("%s at rest: %d MiB, %d descriptors, %d goroutines; before the load %d, %d, %d", p.Name,
			is.memory>>20, is.descriptors, is.goroutines, was.memory>>20, was.descriptors, was.goroutines)
	})
}
