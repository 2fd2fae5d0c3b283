package namespace_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/invalidation"
)

// TestNoMarkOfAnAbsentPathIsEverForgotten holds what absent paths rest on: of a
// path that is not held, Need is at least the newest mark that covers it,
// whatever came and went around it, and however many marks were made since.
func TestNoMarkOfAnAbsentPathIsEverForgotten(t *testing.T) {
	t.Parallel()
	for seed := range uint64(16) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			w := &needWorld{cluster: newCluster(t), rnd: rand.New(rand.NewPCG(seed, 5)), marks: map[freshet.Path]uint64{}, wide: map[freshet.Path]uint64{}}
			for step := range 130 {
				w.step()
				w.check()
				if step%50 == 49 {
					w.flood()
					w.check()
				}
			}
		})
	}
}

type needWorld struct {
	*cluster
	rnd   *rand.Rand
	marks map[freshet.Path]uint64 // of the path itself
	wide  map[freshet.Path]uint64 // and of all below
}

// path returns one of few paths, so that they meet.
func (w *needWorld) path() freshet.Path {
	p := freshet.Path("/m")
	for range 1 + w.rnd.IntN(3) {
		p = p.Join(string("abc"[w.rnd.IntN(3)]))
	}
	return p
}

func (w *needWorld) mark(p freshet.Path, recursive bool) {
	w.marks[p] = w.i
	if recursive {
		w.wide[p] = w.i
	}
}

func (w *needWorld) step() {
	p := w.path()
	key := strings.TrimPrefix(string(p), "/m")
	recursive := w.rnd.IntN(3) == 0
	start := w.i - uint64(w.rnd.IntN(3))
	if start == 0 {
		start = w.i
	}
	gen := w.look(p).Mount
	switch w.rnd.IntN(7) {
	case 0:
		w.must(namespace.Command{Mark: &namespace.Mark{Path: p, Recursive: recursive}})
		w.mark(p, recursive)
	case 1:
		w.must(namespace.Command{Hint: &namespace.Hint{Domain: domain, Records: []invalidation.Record{{Kind: invalidation.KindContent, Key: key, Recursive: recursive}}}})
		w.mark(p, recursive)
	case 2:
		to := w.path()
		if p.Contains(to) || to.Contains(p) {
			return
		}
		op := freshet.OpID{1, byte(w.i >> 8), byte(w.i)}
		if r := w.do(namespace.Command{Begin: &namespace.Begin{Op: op, Kind: namespace.OpRename, Path: p, Path2: to}}); r.Err != nil {
			return
		}
		w.must(namespace.Command{Complete: &namespace.Complete{Op: op, Entry: w.entry(to.Base())}})
		w.mark(p, true)
		w.mark(to, true)
	case 3:
		w.do(namespace.Command{LoadListing: &namespace.LoadListing{
			Mount: gen.ID, Generation: gen.Generation, Dir: p, Start: start, ListStart: start, Complete: true,
			Upserts: []namespace.Entry{*w.entry("b")}, Removes: []string{"a", "c"},
		}})
	default:
		load := &namespace.LoadEntry{Mount: gen.ID, Generation: gen.Generation, Path: p, Start: start}
		if w.rnd.IntN(2) == 0 {
			load.Entry = w.entry(p.Base())
		}
		w.do(namespace.Command{LoadEntry: load})
	}
}

func (w *needWorld) entry(name string) *namespace.Entry {
	e := &namespace.Entry{Name: name, Type: freshet.TypeFile, Length: 1, Fingerprint: fingerprint.Fingerprint{Content: fmt.Sprint(w.i)}}
	if w.rnd.IntN(2) == 0 {
		e.Type, e.Length = freshet.TypeDirectory, 0
	}
	return e
}

// flood makes more marks of paths that are not held than are remembered one by one.
func (w *needWorld) flood() {
	var records []invalidation.Record
	for i := range 4200 {
		records = append(records, invalidation.Record{Kind: invalidation.KindCreate, Key: fmt.Sprintf("/z%d", i)})
	}
	w.must(namespace.Command{Hint: &namespace.Hint{Domain: domain, Records: records}})
}

func (w *needWorld) check() {
	w.t.Helper()
	for _, a := range "abc" {
		for _, b := range "abc" {
			for _, c := range "abc" {
				p := freshet.Path(fmt.Sprintf("/m/%c/%c/%c", a, b, c))
				for q := p; q != "/m"; q = q.Parent() {
					l := w.look(q)
					if l.Found {
						continue
					}
					need := w.marks[q]
					for up := q; up != "/m"; up = up.Parent() {
						need = max(need, w.wide[up])
					}
					if l.Need < need {
						w.t.Fatalf("at %d: %s is not held, and needs %d: a mark of %d was forgotten", w.i, q, l.Need, need)
					}
				}
			}
		}
	}
}

// TestAMarkOfAllBelowAFileSurvivesTheFile: another cluster puts a directory where
// a file is held, removes it again, and a look finds nothing. A load of what was
// below, which began in between, must not install.
func TestAMarkOfAllBelowAFileSurvivesTheFile(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	load := func(p freshet.Path, e *namespace.Entry, start uint64) namespace.Result {
		m := c.look(p).Mount
		return c.must(namespace.Command{LoadEntry: &namespace.LoadEntry{Mount: m.ID, Generation: m.Generation, Path: p, Start: start, Entry: e}})
	}
	file := func(name string) *namespace.Entry {
		return &namespace.Entry{Name: name, Type: freshet.TypeFile, Length: 1, Fingerprint: fingerprint.Fingerprint{Content: "v"}}
	}
	if !load("/m/f", file("f"), c.i).Installed {
		t.Fatal("the file was not installed")
	}
	began := c.i
	c.must(namespace.Command{Mark: &namespace.Mark{Path: "/m/f", Recursive: true}})
	marked := c.i
	if !load("/m/f", nil, c.i).Installed {
		t.Fatal("the file was not removed")
	}
	if l := c.look("/m/f/x"); l.Need < marked {
		t.Errorf("/m/f/x needs %d, and was marked at %d", l.Need, marked)
	}
	if load("/m/f/x", file("x"), began).Installed {
		t.Error("a load that began before the mark was installed")
	}
}
