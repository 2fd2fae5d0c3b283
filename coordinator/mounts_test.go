package coordinator_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/ufs/mem"
)

func TestMountsAreCheckedAndNothingChangesOnError(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("x/f", []byte("x"))
		w.openers[0].(mem.Opener)["other"] = mem.New(mem.Options{}) //nolint:errcheck // it is the only opener
		down := mem.New(mem.Options{Hook: func(string, string) error { return errDown }})
		w.openers[0].(mem.Opener)["down"] = down //nolint:errcheck // it is the only opener
		m := w.leader()
		level := func(l freshet.Level) *freshet.Level { return &l }
		uri := "mem://other"
		cases := map[string]struct {
			change freshet.MountChange
			kind   freshet.Kind
			text   string
		}{
			"no URI":          {freshet.MountChange{Path: "/o"}, freshet.KindInvalid, "URI"},
			"unknown scheme":  {mount("/o", "men://other", freshet.Never), freshet.KindInvalid, "did you mean 'mem'"},
			"unknown option":  {freshet.MountChange{Path: "/o", URI: &uri, Options: map[string]string{"domian": "x"}}, freshet.KindInvalid, "domain"},
			"unknown storage": {mount("/o", "mem://nowhere", freshet.Never), freshet.KindNotExist, "nowhere"},
			"storage is down": {mount("/o", "mem://down", freshet.Never), freshet.KindUnavailable, "can't be reached"},
			"path taken":      {mount("/data", "mem://other", freshet.Never), freshet.KindExist, "unmount it first"},
			"overlap":         {mount("/o", "mem://lake/x", freshet.Never), freshet.KindConflict, "overlaps mem://lake"},
			"hides a file":    {mount("/data/x/f", "mem://other", freshet.Never), freshet.KindConflict, "would be hidden"},
			"hides a dir":     {mount("/data/x", "mem://other", freshet.Never), freshet.KindConflict, "would be hidden"},
			"bounded":         {freshet.MountChange{Path: "/o", URI: &uri, Level: level(freshet.LevelBounded)}, freshet.KindUnsupported, "not built yet"},
			"strict":          {freshet.MountChange{Path: "/o", URI: &uri, Level: level(freshet.LevelStrict)}, freshet.KindUnsupported, "not built yet"},
			"no interval":     {freshet.MountChange{Path: "/o", URI: &uri, Level: level(freshet.LevelInterval)}, freshet.KindInvalid, "needs a sync interval"},
			"not canonical":   {mount("/o/../p", "mem://other", freshet.Never), freshet.KindInvalid, ".."},
			"reserved":        {mount("/.freshet.x", "mem://other", freshet.Never), freshet.KindPermission, "reserved name"},
		}
		for name, c := range cases {
			n := w.entries(m, func() {
				_, err := m.AddMount(w.Context(), c.change)
				w.wantKind(err, c.kind)
				if err != nil && !strings.Contains(err.Error(), c.text) {
					w.Errorf("%s: %q does not say %q", name, err, c.text)
				}
			})
			if mounts, _, _ := m.Mounts(w.Context(), ""); len(mounts) != 1 { //nolint:errcheck // the number says it
				w.Errorf("%s: there are %d mounts", name, len(mounts))
			}
			if n > 1 { // the look for hidden entries may load what it finds
				w.Errorf("%s: %d log entries", name, n)
			}
		}
	})
}

func TestMountsChangeWhileServing(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		other := mem.New(mem.Options{})
		w.openers[0].(mem.Opener)["other"] = other //nolint:errcheck // it is the only opener
		other.Put("p/f", []byte("other"))
		w.store.Put("f", []byte("x"))
		m := w.leader()
		dry := mount("/data/deep/o", "mem://other/p", freshet.Never)
		dry.DryRun = true
		if n := w.entries(m, func() {
			if a, err := m.AddMount(w.Context(), dry); err != nil || a.Mount.Path != "/data/deep/o" {
				w.Errorf("dry run: %+v, %v", a, err)
			}
		}); n != 0 {
			w.Errorf("a dry run made %d log entries", n)
		}
		w.statKind(m, "/data/deep/o", freshet.KindNotExist)
		uri := "mem://other/p"
		a, err := m.AddMount(w.Context(), freshet.MountChange{Path: "/data/deep/o", URI: &uri})
		if err != nil || a.Mount.Interval != freshet.Never || len(a.Notes) == 0 || a.Authority != "mem://other" || a.Mount.Origin != "operator" {
			w.Fatalf("add: %+v, %v", a, err)
		}
		if st := w.stat(m, "/data/deep/o"); !st.Info.MountPoint || st.Info.Type != freshet.TypeDirectory {
			w.Errorf("the mount point: %+v", st.Info)
		}
		if got := w.list(m, "/data"); !slices.Equal(got, []string{"/data/deep", "/data/f"}) {
			w.Errorf("the enclosing mount lists %v", got)
		}
		if got := w.list(m, "/data/deep"); !slices.Equal(got, []string{"/data/deep/o"}) {
			w.Errorf("the way to the mount lists %v", got)
		}
		if got := w.list(m, "/"); !slices.Equal(got, []string{"/data"}) {
			w.Errorf("the root lists %v", got)
		}
		if st := w.stat(m, "/data/deep/o/f"); st.Info.Length != 5 {
			w.Errorf("below the mount: %+v", st.Info)
		}
		// A sync of what is around removes no mount point.
		if err := m.Sync(w.Context(), "/", true, func(freshet.SyncProgress) error { return nil }); err != nil {
			w.Error(err)
		}
		if st := w.stat(m, "/data/deep/o/f"); st.Info.Length != 5 {
			w.Errorf("after a sync: %+v", st.Info)
		}
		up, err := m.UpdateMount(w.Context(), freshet.MountChange{Path: "/data/deep/o", ReadOnly: new(true), Interval: at(time.Minute), IfGeneration: a.Mount.Generation})
		if err != nil || !up.Mount.ReadOnly || up.Mount.Interval != freshet.Interval(time.Minute) || up.Mount.Generation != a.Mount.Generation {
			w.Errorf("update: %+v, %v", up, err)
		}
		_, err = m.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/data/deep/o/new"})
		w.wantKind(err, freshet.KindPermission)
		_, err = m.UpdateMount(w.Context(), freshet.MountChange{Path: "/data/deep/o", IfGeneration: 99})
		w.wantKind(err, freshet.KindConflict)
		elsewhere := "mem://lake/elsewhere"
		_, err = m.UpdateMount(w.Context(), freshet.MountChange{Path: "/data/deep/o", URI: &elsewhere})
		w.wantKind(err, freshet.KindConflict)
		_, err = m.RemoveMount(w.Context(), "/data", freshet.RemoveMountOptions{})
		w.wantKind(err, freshet.KindConflict)
		_, err = m.RemoveMount(w.Context(), "/data", freshet.RemoveMountOptions{DryRun: true})
		w.wantKind(err, freshet.KindConflict)
		if _, err = m.RemoveMount(w.Context(), "/data/deep/o", freshet.RemoveMountOptions{}); err != nil {
			w.Error(err)
		}
		w.statKind(m, "/data/deep/o/f", freshet.KindNotExist)
		_, _, err = m.Mounts(w.Context(), "/data/deep/o")
		w.wantKind(err, freshet.KindNotExist)
	})
}

func TestBlocksOfARemovedMountAreFreed(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("d/f", []byte("x"))
		m := w.leader()
		n := w.node(m, "n1")
		st := w.stat(m, "/data/d/f")
		block := freshet.BlockReport{ID: freshet.BlockID{File: st.Info.FileID}, Length: 1}
		w.beat(m, freshet.Heartbeat{Node: n, Incarnation: 1, Full: true, Added: []freshet.BlockReport{block}})
		if st := w.stat(m, "/data/d/f"); st.CachedBytes != 1 {
			w.Errorf("%d bytes are cached", st.CachedBytes)
		}
		if _, err := m.RemoveMount(w.Context(), "/data", freshet.RemoveMountOptions{}); err != nil {
			w.Fatal(err)
		}
		for range 100 {
			r := w.beat(m, freshet.Heartbeat{Node: n, Incarnation: 1, Full: true, Added: []freshet.BlockReport{block}})
			if slices.Contains(r.Free, block.ID) {
				return
			}
			time.Sleep(time.Second)
		}
		w.Error("the node was never told to free the block")
	})
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{options: func(o *coordinator.Options) {
		o.Policies = []freshet.PolicyChange{{Path: "/data/hot", Set: []freshet.Setting{{Property: freshet.PropertySyncInterval, Value: "10s"}}}}
	}}, func(w *world) {
		w.store.Put("hot/f", []byte("x"))
		w.store.Put("hot/cold/f", []byte("x"))
		m := w.leader()
		rule := func(p freshet.Path) freshet.SyncPolicy {
			rules, err := m.Policies(w.Context(), p)
			if err != nil {
				w.Fatal(err)
			}
			return rules[0]
		}
		if r := rule("/data/x"); r.Interval != freshet.Never || r.Origin != "mount" || r.Path != "/data" {
			w.Errorf("the mount's: %+v", r)
		}
		if r := rule("/data/hot/f"); r.Interval != freshet.Interval(10*time.Second) || r.Origin != "config" {
			w.Errorf("the configured: %+v", r)
		}
		w.stat(m, "/data/hot/f")
		w.stat(m, "/data/hot/cold/f")
		if _, err := m.SetPolicy(w.Context(), freshet.SyncPolicy{Path: "/data/hot/cold", Interval: freshet.Never}, false); err != nil {
			w.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if n := w.asked(func() { w.stat(m, "/data/hot/cold/f") }); n != 0 {
			w.Errorf("never: %d looks", n)
		}
		if n := w.asked(func() { w.stat(m, "/data/hot/f") }); n != 1 {
			w.Errorf("10 s: %d looks", n)
		}
		if next, err := m.RemovePolicy(w.Context(), "/data/hot/cold", true); err != nil || next.Path != "/data/hot" {
			w.Errorf("dry run: %+v, %v", next, err)
		}
		if next, err := m.RemovePolicy(w.Context(), "/data/hot/cold", false); err != nil || next.Path != "/data/hot" {
			w.Errorf("unset: %+v, %v", next, err)
		}
		if n := w.asked(func() { w.stat(m, "/data/hot/cold/f") }); n != 1 {
			w.Errorf("10 s at once: %d looks", n)
		}
		_, err := m.RemovePolicy(w.Context(), "/data", false)
		w.wantKind(err, freshet.KindNotExist)
		if all, err := m.Policies(w.Context(), ""); err != nil || len(all) != 2 {
			w.Errorf("all: %+v, %v", all, err)
		}
		if n := w.asked(func() {
			if _, err := m.Stat(w.Context(), "/data/hot/f", freshet.ReadOptions{SyncInterval: at(time.Hour)}); err != nil {
				w.Error(err)
			}
		}); n != 0 {
			w.Errorf("the request's own interval: %d looks", n)
		}
	})
}
