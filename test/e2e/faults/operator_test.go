package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

// operator does what operators do, and kills nodes.
type operator struct {
	l    *lake
	rand *rand.Rand
	dirs []freshet.Path
	// pause is between two acts; the first node of each region is never killed.
	pause time.Duration

	mu   sync.Mutex
	done map[string]int
}

// told is nil if the command line worked, or said that something can't be now.
func told(what, out string, code int) error {
	switch code {
	case freshet.ExitOK, freshet.ExitConflict, freshet.ExitUnavailable, freshet.ExitPartly:
		return nil
	}
	return fmt.Errorf("%s: exit code %d: %s", what, code, out)
}

func (o *operator) run(ctx context.Context) error {
	tick := time.NewTicker(o.pause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := o.act(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
}

func (o *operator) act(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e2e.Patience)
	defer cancel()
	regions := o.l.regions()
	r := regions[o.rand.IntN(len(regions))]
	dir := string(o.dirs[o.rand.IntN(len(o.dirs))])
	node := 1 + o.rand.IntN(len(r.Nodes)-1)
	acts := []struct {
		name string
		do   func() error
	}{
		{"warm", func() error { return o.tell(ctx, r, "cache", "warm", dir, "--timeout", "20s") }},
		{"free", func() error { return o.tell(ctx, r, "cache", "free", dir, "--recursive") }},
		{"pin", func() error { return o.tell(ctx, r, "cache", "pin", dir) }},
		{"unpin", func() error { return o.tell(ctx, r, "cache", "unpin", dir) }},
		{"persist", func() error { return o.tell(ctx, r, "persist", dir, "--recursive") }},
		{"drain", func() error { return o.drain(ctx, r, fmt.Sprint("n", node+1)) }},
		{"kill", func() error { return o.kill(r.Nodes[node]) }},
		{"kill", func() error { return o.kill(r.Nodes[node]) }},
		{"transfer", func() error { return o.tell(ctx, r, "cluster", "raft", "transfer-leader") }},
	}
	a := acts[o.rand.IntN(len(acts))]
	o.mu.Lock()
	if o.done == nil {
		o.done = map[string]int{}
	}
	o.done[a.name]++
	o.mu.Unlock()
	return a.do()
}

func (o *operator) tell(ctx context.Context, r *e2e.Region, args ...string) error {
	out, code := command(ctx, r, args...)
	return told(fmt.Sprintf("%s: %q", r.Name, args), out, code)
}

func (o *operator) drain(ctx context.Context, r *e2e.Region, node string) error {
	if err := o.tell(ctx, r, "cluster", "drain", node, "--wait", "--timeout", "5s"); err != nil {
		return err
	}
	return o.undrain(ctx, r, node)
}

// undrain lets the node serve again, which nothing may prevent for long.
func (o *operator) undrain(ctx context.Context, r *e2e.Region, node string) error {
	return fleet.Poll(ctx, e2e.Patience, "the drain to end", func(ctx context.Context) error {
		out, code := command(ctx, r, "cluster", "drain", node, "--undo")
		if code != 0 {
			return fmt.Errorf("exit code %d: %s", code, out)
		}
		return nil
	})
}

func (o *operator) kill(p *fleet.Process) error {
	if err := o.l.kill(p); err != nil {
		return err
	}
	return p.Start()
}

// settle waits until everything is quiet: what is unpersisted is written, what was
// killed is back, nothing is left behind.
func (l *lake) settle(t *testing.T, writers ...*writer) {
	t.Helper()
	for _, r := range l.regions() {
		for _, p := range r.Processes() {
			if !p.Running() {
				must(t, p.Start())
			}
		}
		must(t, r.AwaitReady(t.Context()))
	}
	for _, r := range l.regions() {
		e2e.Seen(t, "everything of "+r.Name+" is in the storage", func(ctx context.Context) error {
			for _, root := range roots {
				if out, code := command(ctx, r, "persist", "--recursive", root); code != 0 {
					return fmt.Errorf("persist: exit code %d: %s", code, out)
				}
			}
			u, err := unpersisted(ctx, r)
			if err == nil && u.Count > 0 {
				err = fmt.Errorf("%+v%s", u, lives(writers, u))
			}
			return err
		})
		must(t, fleet.Poll(t.Context(), 2*e2e.Patience, "no operation in "+r.Name, func(ctx context.Context) error {
			st, err := r.S.Cluster(ctx)
			if err == nil && st.Intents+st.Quarantined > 0 {
				err = fmt.Errorf("%d operations unfinished, %d quarantined", st.Intents, st.Quarantined)
			}
			return err
		}))
	}
	e2e.Seen(t, "nothing is left behind", func(ctx context.Context) error {
		left, err := l.leftovers(ctx)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%q", left)
		}
		return err
	})
}

// lives tells the histories of files that are not in the storage, wherever they are by now.
func lives(writers []*writer, left pending) string {
	var out strings.Builder
	for _, at := range left.Files {
		for _, w := range writers {
			for _, f := range w.all {
				f.mu.Lock()
				if string(f.path) == at.Path || string(f.doubt.path) == at.Path {
					fmt.Fprintf(&out, "\n%s:\n\t%s", f.id, strings.Join(f.history, "\n\t"))
				}
				f.mu.Unlock()
			}
		}
	}
	return out.String()
}
