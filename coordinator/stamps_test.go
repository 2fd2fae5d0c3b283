package coordinator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs/mem"
)

// stamp returns the newest stamp of a kind that an explanation tells of.
func stampOf(w *world, x *freshet.Explanation, kind string) freshet.ExplainedStamp {
	w.Helper()
	i := slices.IndexFunc(x.Stamps, func(s freshet.ExplainedStamp) bool { return s.Kind == kind })
	if i < 0 {
		w.Errorf("%s has no stamp %q: %+v", x.Path, kind, x.Stamps)
		return freshet.ExplainedStamp{}
	}
	return x.Stamps[i]
}

func (w *world) explain(m *member, p freshet.Path) freshet.Explanation {
	w.Helper()
	x, err := m.Explain(w.Context(), p, false)
	if err != nil {
		w.Fatal(err)
	}
	return x
}

func TestExplainSaysWhatMadeEachStamp(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{mode: mem.Object}, func(w *world) {
		w.store.Put("a/b/f", []byte("one"))
		w.store.Put("a/b/g", []byte("one"))
		m := w.leader()
		p := newPeer(w, m)
		w.load(m)
		p.publish(invalidation.KindMeta, "/a/other")
		p.publish(invalidation.KindContent, "/a/b/f")
		at := time.Now()
		time.Sleep(time.Minute)
		want := func(path freshet.Path, kind string, from freshet.Path, cause string) {
			w.Helper()
			x := w.explain(m, path)
			s := stampOf(w, &x, kind)
			if s.Path != from || !strings.Contains(s.Cause, cause) || s.Index == 0 {
				w.Errorf("%s, stamp %q: %+v, want one at %s because of %q", path, kind, s, from, cause)
			}
			if !slices.IsSortedFunc(x.Stamps, func(a, b freshet.ExplainedStamp) int { return int(b.Index) - int(a.Index) }) {
				w.Errorf("not the newest first: %+v", x.Stamps)
			}
		}
		want("/data/a/b/f", freshet.StampSelf, "/data/a/b/f", "number 2 of its log, by us-east")
		x := w.explain(m, "/data/a/b/f")
		if s := stampOf(w, &x, freshet.StampSelf); !s.At.Equal(at) || s.Index != x.Need {
			t.Errorf("%+v, want it at %v and index %d", s, at, x.Need)
		}
		want("/data/a/b/f", freshet.StampParentListing, "/data/a/b", "number 2 of its log")
		want("/data/a/b", freshet.StampListing, "/data/a/b", "number 2 of its log")
		want("/data/a/b/none", freshet.StampParentListing, "/data/a/b", "number 2 of its log")
		want("/data/a/other", freshet.StampRemembered, "/data/a/other", "number 1 of its log")
		if _, err := m.Invalidate(w.Context(), namespace.Command{Mark: &namespace.Mark{Path: "/data/a", Recursive: true}}); err != nil {
			w.Fatal(err)
		}
		want("/data/a/b/g", freshet.StampRecursive, "/data/a", "operator")
		if err := m.Hint(w.Context(), p.dom, []invalidation.Record{{Seq: 9, Kind: invalidation.KindContent, Key: "/a/b/g"}}); err != nil {
			w.Fatal(err)
		}
		want("/data/a/b/g", freshet.StampSelf, "/data/a/b/g", "hint of another cluster")
		if _, err := m.Reset(w.Context(), p.pub, invalidation.Head{Domain: p.dom, High: 40}); err != nil {
			w.Fatal(err)
		}
		want("/data/a/b/g", freshet.StampRecursive, "/data", "log of us-east was set anew")
		if _, err := m.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/data/own"}); err != nil {
			w.Fatal(err)
		}
		want("/data/own", freshet.StampSelf, "/data/own", "own mkdir of /data/own (operation ")
		if _, err := m.BumpEpoch(w.Context(), false); err != nil {
			w.Fatal(err)
		}
		want("/data/own", freshet.StampRecursive, "/data", "new epoch")
		if x := w.explain(m, "/elsewhere"); len(x.Stamps) != 0 {
			w.Errorf("of a path that is not mounted: %+v", x.Stamps)
		}
	})
}

// TestExplainForgetsCausesAndSaysSo marks more often than causes are remembered.
func TestExplainForgetsCausesAndSaysSo(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("f", []byte("one"))
		w.store.Put("g", []byte("one"))
		m := w.leader()
		w.load(m)
		mark := func(p freshet.Path) {
			if _, err := m.Invalidate(w.Context(), namespace.Command{Mark: &namespace.Mark{Path: p}}); err != nil {
				w.Fatal(err)
			}
		}
		mark("/data/f")
		p := newPeer(w, m)
		var records []invalidation.Record
		for i := range 9000 {
			records = append(records, invalidation.Record{Seq: uint64(i + 1), Kind: invalidation.KindContent, Key: fmt.Sprintf("/x/%d", i)})
		}
		for len(records) > 0 {
			if err := m.Hint(w.Context(), p.dom, records[:500]); err != nil {
				w.Fatal(err)
			}
			records = records[500:]
		}
		mark("/data/g")
		x := w.explain(m, "/data/f")
		if s := stampOf(w, &x, freshet.StampSelf); !strings.Contains(s.Cause, "not known") || !s.At.IsZero() || s.Index == 0 {
			w.Errorf("an old mark: %+v", s)
		}
		x = w.explain(m, "/data/g")
		if s := stampOf(w, &x, freshet.StampSelf); !strings.Contains(s.Cause, "operator") || s.At.IsZero() {
			w.Errorf("a new mark: %+v", s)
		}
	})
}

func TestExplainKnowsCausesButNotTimesAfterAChangeOfLeader(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{members: 3}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		w.load(m)
		if _, err := m.Invalidate(w.Context(), namespace.Command{Mark: &namespace.Mark{Path: "/data/f"}}); err != nil {
			w.Fatal(err)
		}
		w.halt(m)
		next := w.leader()
		x := w.explain(next, "/data/f")
		if s := stampOf(w, &x, freshet.StampSelf); !strings.Contains(s.Cause, "operator") || !s.At.IsZero() {
			w.Errorf("%+v", s)
		}
	})
}

func TestExplainAndStatusListUnfinishedOperations(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		m := w.leader()
		n := w.node(m, "n1")
		op := freshet.OpID(uuid.New())
		began := time.Now()
		if _, err := m.BeginWrite(w.Context(), freshet.BeginWriteQuery{Op: op, Path: "/data/d/f"}); err != nil {
			w.Fatal(err)
		}
		x := w.explain(m, "/data/d/f")
		if len(x.Operations) != 1 || x.Operations[0].ID != op || x.Operations[0].State != "uploading" || x.Operations[0].Node != string(n.ID) ||
			!x.Operations[0].Since.Equal(began) || x.Operations[0].Remedy == "" {
			w.Errorf("%+v", x.Operations)
		}
		if x := w.explain(m, "/data/d"); len(x.Operations) != 0 {
			w.Errorf("of its parent: %+v", x.Operations)
		}
		if err := m.Permit(w.Context(), freshet.PermitQuery{Op: op, Node: n.ID, Incarnation: 1, Length: 0}); err != nil {
			w.Fatal(err)
		}
		// The node dies with its upload on the way: the outcome is not known.
		var s freshet.ClusterStatus
		for deadline := time.Now().Add(10 * time.Minute); len(s.QuarantinedOps) == 0 || s.QuarantinedOps[0].Until.IsZero(); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				w.Fatalf("nothing is in quarantine: %+v", s)
			}
			var err error
			if s, err = m.Cluster(w.Context()); err != nil {
				w.Fatal(err)
			}
		}
		q := s.QuarantinedOps[0]
		if q.ID != op || q.Path != "/data/d/f" || q.State != "quarantine" || !q.Until.After(time.Now()) || q.Until.After(time.Now().Add(time.Hour)) {
			w.Errorf("%+v", q)
		}
		if x := w.explain(m, "/data/d/f"); x.Verdict != "uncachable" || len(x.Operations) != 1 || !x.Operations[0].Until.Equal(q.Until) {
			w.Errorf("%s: %+v", x.Verdict, x.Operations)
		}
	})
}

func TestAMountThatHasJustBegunToListenIsConnectingUntilSomethingIsWrong(t *testing.T) {
	t.Parallel()
	f := newFeed("feed://lake", true)
	f.mute = true
	seeds := []freshet.MountChange{mount("/data", "mem://lake/data", freshet.Never)}
	inBubble(t, settings{feed: f, seeds: seeds}, func(w *world) {
		m := w.leader()
		added, err := m.AddMount(w.Context(), active(mount("/other", "mem://lake/other", freshet.Never)))
		if err != nil {
			w.Fatal(err)
		}
		if s := added.ActiveSync; !added.Degraded || s == nil || !s.Connecting || s.Heard {
			w.Errorf("just added: degraded %v, %+v", added.Degraded, s)
		}
		time.Sleep(10 * time.Minute) // it said nothing all the time
		if s := w.mountAt(m, "/other").ActiveSync; s.Connecting || s.Heard || s.Reason == "" {
			w.Errorf("silent: %+v", s)
		}
		f.set(func() { f.mute = false })
		w.heard(m, "/other", true)
		if s := w.mountAt(m, "/other").ActiveSync; s.Connecting || !s.Heard {
			w.Errorf("heard: %+v", s)
		}
	})
}
