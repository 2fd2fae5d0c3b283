package namespace_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// served is what decides about a file that may be served without a look.
type served struct {
	info     freshet.Info
	key      string
	interval freshet.Interval
	level    freshet.Level
	ttl      bool
}

// mostServed bounds how many files are compared around each log entry.
const mostServed = 24

// served returns the first files that may be served.
func (c *cluster) served() map[freshet.Path]served {
	out := map[freshet.Path]served{}
	mounts, _ := c.s.Mounts()
	for _, m := range mounts {
		c.servedIn(m.Path, out)
	}
	return out
}

func (c *cluster) servedIn(dir freshet.Path, out map[freshet.Path]served) {
	children, err := c.s.List(dir, "", mostServed)
	if err != nil {
		return
	}
	for i := range children {
		p := dir.Join(children[i].Name)
		switch {
		case len(out) >= mostServed:
			return
		case children[i].Info.Type == freshet.TypeDirectory:
			c.servedIn(p, out)
		default:
			if now, ok := c.servedAt(p); ok {
				out[p] = now
			}
		}
	}
}

func (c *cluster) servedAt(p freshet.Path) (served, bool) {
	l, err := c.s.Lookup(p)
	if err != nil || !l.Found || l.Placeholder || l.Uncachable || l.Info.Type == freshet.TypeDirectory || !l.Servable(0) {
		return served{}, false
	}
	l.Info.FromCache = false
	return served{l.Info, l.Key, l.Interval, l.Policy.Level, l.HasMount}, true
}

// wantLines checks that a log entry changed nothing but on the lines that were named
// before it was applied.
func (c *cluster) wantLines(lines []freshet.Path, before map[freshet.Path]served) {
	c.t.Helper()
	on := func(p freshet.Path, below bool) bool {
		for _, l := range lines {
			if l.Contains(p) || (below && p.Contains(l)) {
				return true
			}
		}
		return false
	}
	for _, m := range c.last.Marked {
		if !on(m.Path, false) {
			c.t.Fatalf("%s was marked, which is not on the lines %v", m.Path, lines)
		}
	}
	for p, was := range before {
		if now, ok := c.servedAt(p); (!ok || now != was) && !on(p, true) {
			c.t.Fatalf("%s was %+v and is %+v (%t); it is not on the lines %v", p, was, now, ok, lines)
		}
	}
}

// TestLinesCoverWhatChanges: every log entry of all tests of this package is held to its
// lines; here is what they do not come to.
func TestLinesCoverWhatChanges(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	lines := func(cmds ...namespace.Command) []freshet.Path { return c.s.Lines(cmds) }
	for name, cmd := range map[string]namespace.Command{
		"leases": {SetLeases: &namespace.SetLeases{Length: time.Second}},
		"member": {SetMember: &namespace.Member{ID: "a"}},
		"purge":  {Purge: &namespace.Purge{Limit: 1}},
	} {
		if got := lines(cmd); len(got) != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	for name, cmd := range map[string]namespace.Command{
		"epoch":   {BumpEpoch: &namespace.BumpEpoch{}},
		"unknown": {},
	} {
		if got := lines(cmd); len(got) != 1 || got[0] != freshet.Root {
			t.Errorf("%s: %v, want all", name, got)
		}
	}
	for _, want := range []namespace.SetLeases{{Length: 2 * time.Second}, {Length: time.Second, Holders: []freshet.LeaseID{{1}, {2}}}, {}} {
		c.must(namespace.Command{SetLeases: &want})
		if got := c.s.Leases(); !reflect.DeepEqual(got, want) {
			t.Errorf("the state allows %+v, want %+v", got, want)
		}
	}
	c.kind(namespace.Command{SetLeases: &namespace.SetLeases{Length: -1}}, freshet.KindInvalid)
}
