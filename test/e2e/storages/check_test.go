package storages_test

import (
	"bufio"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/e2e"
)

// TestCheckFindsAndRepairsWhatChangedBehindTheRegionsBack changes the storage of a
// region that never looks by itself, compares, repairs, and compares again. Nothing
// of it may change the storage.
func TestCheckFindsAndRepairsWhatChangedBehindTheRegionsBack(t *testing.T) {
	for _, k := range []kind{{"local", localPlace, e2e.Options{Coordinators: 1}}, {"s3", s3Place, e2e.Options{Coordinators: 3}}} {
		t.Run(k.name, func(t *testing.T) {
			p := k.start(t)
			k.opts.Lone, k.opts.Nodes = true, 1
			w := e2e.NewBareWorld(t, p.storage, p.env, k.opts)
			checkAndRepair(t, p, w.A)
		})
	}
}

func checkAndRepair(t *testing.T, p *place, r *e2e.Region) {
	put := func(name, data string) {
		t.Helper()
		if err := p.storage.Put(t.Context(), name, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(name string) {
		t.Helper()
		if err := p.storage.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"d/same", "d/content", "d/gone", "d/typed", "e/same", "never/read"} {
		put(name, "first of "+name)
	}
	r.Mount(t, "/lake", p.uri, p.options)
	r.CLI(t, "check", "/lake").Want(t, 0, "NOT LOADED") // nothing is cached: nothing differs
	r.CLI(t, "fs", "ls", "/lake/d").Want(t, 0, "content")
	r.CLI(t, "fs", "ls", "/lake/e").Want(t, 0)
	r.CLI(t, "fs", "cat", "/lake/d/content").Want(t, 0, "first of")
	r.CLI(t, "check", "/lake", "--all").Want(t, 0)
	e2e.AwaitCached(t, r, "d/content", int64(len("first of d/content"))) // a block is stored when its reader has it

	put("d/content", "another content")
	remove("d/gone")
	remove("d/typed")
	put("d/typed/below", "x")
	put("e/new", "new")
	before, err := p.storage.Tree(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	served := r.CLI(t, "fs", "cat", "/lake/d/content").Want(t, 0)
	if !strings.Contains(served.Out, "first of") {
		t.Errorf("a region that never looks served %q", served.Out)
	}
	want := map[string]string{
		"/lake/d/content": freshet.DifferenceContent, "/lake/d/gone": freshet.DifferenceOnlyCache,
		"/lake/d/typed": freshet.DifferenceType, "/lake/e/new": freshet.DifferenceOnlyStorage,
	}
	if got := differences(t, r.CLI(t, "check", "/lake", "-o", "json").Want(t, freshet.ExitUnhealthy)); !maps.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	r.CLI(t, "explain", "--check", "/lake/d/content").Want(t, freshet.ExitUnhealthy, "CACHED", "STORAGE", "another version")
	// Any member answers, over REST too.
	for _, member := range r.HTTP {
		a := e2e.HTTP(t, "POST", "http://"+member+"/v1/check", `{"path":"/lake/e"}`).Want(t, 200)
		if !strings.Contains(a.Body, "/lake/e/new") || !strings.Contains(strings.ReplaceAll(a.Body, " ", ""), `"done":true`) {
			t.Errorf("%s: %s", member, a.Body)
		}
	}
	r.CLI(t, "check", "/lake", "--repair", "--dry-run").Want(t, freshet.ExitUnhealthy, "would")
	r.CLI(t, "check", "/lake", "--repair").Want(t, 0, "repaired")
	r.CLI(t, "check", "/lake", "--all").Want(t, 0)
	r.CLI(t, "fs", "cat", "/lake/d/content").Want(t, 0, "another content")
	r.CLI(t, "fs", "cat", "/lake/e/new").Want(t, 0, "new")
	r.CLI(t, "fs", "stat", "/lake/d/gone").Want(t, freshet.ExitNotFound)
	r.CLI(t, "fs", "cat", "/lake/d/typed/below").Want(t, 0, "x")
	r.CLI(t, "explain", "/lake/d/content").Want(t, 0, "asked for by an operator, or by a repair")
	r.CLI(t, "check", "/elsewhere").Want(t, freshet.ExitNotFound)

	after, err := p.storage.Tree(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	same := func(a, b e2e.Object) bool { return a.Dir == b.Dir && slices.Equal(a.Data, b.Data) }
	if !maps.EqualFunc(before, after, same) {
		t.Errorf("the storage changed: %v, before %v", slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
	}
}

// differences returns the classes that a check told of, by path.
func differences(t *testing.T, ran e2e.Ran) map[string]string {
	t.Helper()
	found := map[string]string{}
	for in := bufio.NewScanner(strings.NewReader(ran.Out)); in.Scan(); {
		var line struct {
			Difference *struct {
				Path, Class string
				Served      bool
			}
		}
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			t.Fatalf("%v: %s", err, in.Text())
		}
		if d := line.Difference; d != nil && d.Served {
			found[d.Path] = d.Class
		}
	}
	return found
}
