package ops_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
)

// tree puts so many files below d.
func (w *world) tree(n int) {
	for i := range n {
		w.put(fmt.Sprintf("d/s%d/f%05d", i%7, i), "x")
	}
}

// held is how many files of the tree the storage has.
func (w *world) held() int {
	n := 0
	for key := range w.store.Snapshot() {
		if strings.HasPrefix(key, "d/") && !strings.HasSuffix(key, "/") {
			n++
		}
	}
	return n
}

func ignore(freshet.RemoveProgress) error { return nil }

func TestATreeIsRemovedPageByPage(t *testing.T) {
	const files = 10_000
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, time.Minute)
		w.tree(files)
		w.put("other", "x")
		l := w.lead(ops.Options{})
		op := freshet.OpID{9}
		var reports []freshet.RemoveProgress
		done, err := l.RemoveTree(t.Context(), freshet.RemoveQuery{Op: op, Path: "/m/d"}, func(p freshet.RemoveProgress) error {
			if gone := files - w.held(); !p.Done && (int64(gone) < p.Entries-8 || p.Entries < int64(gone)) {
				t.Errorf("%d entries are reported, %d files are gone", p.Entries, gone)
			}
			reports = append(reports, p)
			return nil
		})
		if err != nil || done.Token.IsZero() {
			t.Fatalf("%+v, %v", done, err)
		}
		last := reports[len(reports)-1]
		if len(reports) < 10 || !last.Done || last.Entries < files || last.Token != done.Token {
			t.Errorf("%d reports, the last is %+v", len(reports), last)
		}
		if got := w.store.Snapshot(); len(got) != 1 {
			t.Errorf("%d objects are left", len(got))
		}
		if n := w.recordsOf("d"); n != len(reports) {
			t.Errorf("%d records for %d pages", n, len(reports))
		}
		if open := w.state.Intents(); len(open) != 0 {
			t.Errorf("open: %+v", open)
		}
		// The same operation again is not done again.
		w.put("d/new", "x")
		again, err := l.RemoveTree(t.Context(), freshet.RemoveQuery{Op: op, Path: "/m/d"}, ignore)
		if err != nil || again.Token != done.Token || w.held() != 1 {
			t.Errorf("repeated: %+v, %v, %d files", again, err, w.held())
		}
		w.checkPublished()
	})
}

// TestACancelledRemovalLeavesADefiniteState: what is gone is gone in both, what is
// left is left in both and marked, no operation stays open, and the same call goes
// on.
func TestACancelledRemovalLeavesADefiniteState(t *testing.T) {
	for _, how := range []string{"context", "report"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, mem.Object, time.Minute)
				w.tree(500)
				l := w.lead(ops.Options{RemovePage: 50})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				enough := errors.New("enough")
				q := freshet.RemoveQuery{Op: freshet.OpID{9}, Path: "/m/d"}
				_, err := l.RemoveTree(ctx, q, func(p freshet.RemoveProgress) error {
					switch {
					case p.Entries < 200:
					case how == "context":
						cancel()
					default:
						return enough
					}
					return nil
				})
				if how == "context" {
					kind(t, err, freshet.KindDeadline, "repeat the removal to go on")
				} else if !errors.Is(err, enough) {
					t.Errorf("got %v", err)
				}
				synctest.Wait()
				left := w.held()
				if left == 0 || left > 300 {
					t.Fatalf("%d files are left", left)
				}
				if open := w.state.Intents(); len(open) != 0 {
					t.Errorf("open: %+v", open)
				}
				if now, err := w.state.Lookup("/m/d/s6"); err != nil || now.Servable(0) || now.KnownAbsent {
					t.Errorf("what is left is not marked: %+v, %v", now, err)
				}
				w.checkPublished()
				w.quiet(time.Hour) // nothing goes on by itself
				if n := w.held(); n != left {
					t.Errorf("%d files were left, an hour later %d", left, n)
				}
				if _, err := l.Mkdir(t.Context(), freshet.MkdirQuery{Path: "/m/d/s6/new"}); err != nil {
					t.Errorf("the tree can't be used: %v", err)
				}
				if _, err := l.RemoveTree(t.Context(), q, ignore); err != nil || w.held() != 0 {
					t.Errorf("repeated: %v, %d files are left", err, w.held())
				}
			})
		})
	}
}

func TestAPageWhoseLeaderDiedIsRolledForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, 10*time.Second)
		w.tree(300)
		opts := ops.Options{RemovePage: 50, UnknownLifetime: 10 * time.Second}
		l := w.lead(opts)
		q := freshet.RemoveQuery{Op: freshet.OpID{9}, Path: "/m/d"}
		w.freezeAfter(w.steps() + 130) // in the third page
		errs := make(chan error, 1)
		go func() {
			_, err := l.RemoveTree(context.Background(), q, ignore)
			errs <- err
		}()
		synctest.Wait()
		l.die()
		if err := <-errs; err == nil {
			t.Fatal("half a removal was acknowledged")
		}
		if n := w.held(); n == 0 || n == 300 {
			t.Fatalf("%d files are left when the leader dies", n)
		}
		w.freezeAfter(0)
		next := w.lead(opts)
		done, err := next.RemoveTree(t.Context(), q, ignore)
		if err != nil || done.Token.IsZero() || w.held() != 0 {
			t.Errorf("with the next leader: %+v, %v, %d files are left", done, err, w.held())
		}
		w.quiet(time.Minute)
		w.checkPublished()
	})
}

func TestWhatIsNoTreeIsRemovedInOnePage(t *testing.T) {
	each(t, func(t *testing.T, mode mem.Mode) {
		w := newWorld(t, mode, time.Minute)
		w.put("f", "x")
		w.put("d/a/b", "x")
		l := w.lead(ops.Options{RemovePage: 1})
		for _, p := range []freshet.Path{"/m/f", "/m/d"} {
			if _, err := l.RemoveTree(t.Context(), freshet.RemoveQuery{Path: p}, ignore); err != nil {
				t.Errorf("%s: %v", p, err)
			}
			_, err := l.RemoveTree(t.Context(), freshet.RemoveQuery{Path: p}, ignore)
			kind(t, err, freshet.KindNotExist, "")
		}
		if got := w.store.Snapshot(); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
		_, err := l.RemoveTree(t.Context(), freshet.RemoveQuery{Path: "/m"}, ignore)
		kind(t, err, freshet.KindConflict, "mount point")
	})
}

func TestAPlanOfARenameSaysWhatItCosts(t *testing.T) {
	each(t, func(t *testing.T, mode mem.Mode) {
		w := newWorld(t, mode, time.Minute)
		w.tree(20)
		w.put("f", "12345")
		w.put("g", "1")
		l := w.lead(ops.Options{})
		plan := func(from, to freshet.Path, overwrite bool) (freshet.RenamePlan, error) {
			return l.PlanRename(t.Context(), freshet.RenameQuery{Path: from, Target: to, Overwrite: overwrite})
		}
		before := w.store.Snapshot()
		for _, c := range []struct {
			from, to       freshet.Path
			objects, bytes int64
			replaces       bool
		}{{"/m/d", "/m/e", 20, 20, false}, {"/m/f", "/m/h", 1, 5, false}, {"/m/f", "/m/g", 1, 5, true}} {
			p, err := plan(c.from, c.to, c.replaces)
			if mode == mem.Local {
				c.objects, c.bytes = 0, 0
			}
			if err != nil || p.Atomic != (mode == mem.Local) || p.Objects != c.objects || p.Bytes != c.bytes || p.Replaces != c.replaces || p.Info.Path != c.to {
				t.Errorf("%s to %s: %+v, %v", c.from, c.to, p, err)
			}
		}
		_, err := plan("/m/f", "/m/g", false)
		kind(t, err, freshet.KindExist, "exists")
		_, err = plan("/m/f", "/m/nested/f", false)
		kind(t, err, freshet.KindConflict, "the mount at /m/nested")
		_, err = plan("/m/d", "/m/d/x", false)
		kind(t, err, freshet.KindInvalid, "own subtree")
		_, err = plan("/m/none", "/m/x", false)
		kind(t, err, freshet.KindNotExist, "")
		if after := w.store.Snapshot(); len(after) != len(before) || len(w.records()) != 0 || len(w.state.Intents()) != 0 {
			t.Error("a plan changed something")
		}
	})
}

// TestARemovalOfWhatOnlyTheStateHas: a file that is in no storage is complete when its
// removal has looked at the storage but not begun, and then the storage has nothing there
// any more. What goes is not said to have been absent.
func TestARemovalOfWhatOnlyTheStateHas(t *testing.T) {
	for path, tree := range map[freshet.Path]bool{"/m/d": true, "/m/d/f": false} {
		t.Run(string(path), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, mem.Local, time.Minute)
				w.put("d/f", "older")
				op, between := freshet.OpID{9}, func() {}
				l := w.lead(ops.Options{Hook: func(p string, o freshet.OpID) {
					if p == ops.PointBegin && o == op {
						between()
					}
				}})
				n := w.keeper("n1", l)
				u := n.begin(freshet.BeginWriteQuery{Op: freshet.OpID{5}, Path: "/m/d/f", Node: "n1", Write: freshet.MustCache})
				between = func() {
					if _, err := l.Complete(t.Context(), u.ticket.Op, freshet.Written{
						Length: 3, ModTime: time.Now(), Fingerprint: fingerprint.Unpersisted(uint64(u.ticket.File)), Nodes: []freshet.NodeID{"n1"},
					}); err != nil {
						t.Error(err)
					}
					if err := w.store.FS("").Remove(t.Context(), "d", ufs.RemoveOptions{Recursive: true}); err != nil {
						t.Error(err)
					}
				}
				_, err := l.Remove(t.Context(), freshet.RemoveQuery{Op: op, Path: path, Recursive: tree})
				if _, kept := w.state.UnpersistedOf(u.ticket.File); err != nil || kept {
					t.Errorf("removed: %v; the file is still there: %t", err, kept)
				}
			})
		})
	}
}
