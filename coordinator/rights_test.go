package coordinator_test

import (
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs/mem"
)

// TestRights: an entry has the rights that its storage keeps, or those of its mount;
// a mount point those of what is mounted, and the way to it nobody's.
func TestRights(t *testing.T) {
	inBubble(t, settings{mode: mem.Local, seeds: []freshet.MountChange{mount("/a/b", "mem://lake/x", freshet.Never)}}, func(w *world) {
		m := w.leader()
		if _, err := m.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/a/b/d/e", Parents: true, Mode: 0o750, Owner: "alice", Group: "staff"}); err != nil {
			t.Fatal(err)
		}
		for _, want := range []freshet.Rights{
			{Path: "/", Type: freshet.TypeDirectory, Mode: 0o755},
			{Path: "/a", Type: freshet.TypeDirectory, Mode: 0o755},
			{Path: "/a/b/d", Type: freshet.TypeDirectory, Owner: "alice", Group: "staff", Mode: 0o755, Kept: true},
			{Path: "/a/b/d/e", Type: freshet.TypeDirectory, Owner: "alice", Group: "staff", Mode: 0o750, Kept: true},
		} {
			got, err := m.Rights(w.Context(), want.Path, freshet.ReadOptions{})
			if got.Keep <= 0 {
				t.Errorf("%s: an answer that rests on them can't be kept: %v", want.Path, got.Keep)
			}
			got.Keep = 0
			if err != nil || got != want {
				t.Errorf("%s: %+v, %v, want %+v", want.Path, got, err, want)
			}
		}
		// The mount point is never loaded as an entry: the storage is asked, once in
		// a while.
		var top freshet.Rights
		if n := w.asked(func() { top, _ = m.Rights(w.Context(), "/a/b", freshet.ReadOptions{}) }); n != 1 || top.Owner == "" || !top.Kept {
			t.Errorf("the mount point took %d questions: %+v", n, top)
		}
		if n := w.asked(func() {
			again, err := m.Rights(w.Context(), "/a/b", freshet.ReadOptions{})
			if again.Keep > top.Keep {
				t.Errorf("they may be kept for %s, then for %s", top.Keep, again.Keep)
			}
			if again.Keep = top.Keep; err != nil || again != top {
				t.Errorf("again: %+v, %v", again, err)
			}
		}); n != 0 {
			t.Errorf("asked again %d times at once", n)
		}
		w.wantKind(second(m.Rights(w.Context(), "/a/b/none", freshet.ReadOptions{})), freshet.KindNotExist)
		if l, err := m.AccessList(w.Context(), "/a/b/d"); err != nil || l != nil {
			t.Errorf("a list of a storage that keeps none: %v, %v", l, err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

// TestRightsOfAMount: without owners in the storage the mount's options say.
func TestRightsOfAMount(t *testing.T) {
	inBubble(t, settings{mode: mem.Object, seeds: []freshet.MountChange{mount("/o", "mem://lake/x", freshet.Never)}}, func(w *world) {
		m := w.leader()
		if _, err := m.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/o/d", Owner: "alice", Group: "staff"}); err != nil {
			t.Fatal(err)
		}
		for _, p := range []freshet.Path{"/o", "/o/d"} {
			want := freshet.Rights{Path: p, Type: freshet.TypeDirectory, Mode: 0o700, MountOf: "/o"}
			got, err := m.Rights(w.Context(), p, freshet.ReadOptions{})
			if got.Keep = 0; err != nil || got != want {
				t.Errorf("%s: %+v, %v, want %+v", p, got, err, want)
			}
		}
	})
}
