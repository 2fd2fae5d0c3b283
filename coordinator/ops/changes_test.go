package ops_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/fault"
	"github.com/freshet-io/freshet/ufs/mem"
)

func TestMkdir(t *testing.T) {
	each(t, func(t *testing.T, mode mem.Mode) {
		w := newWorld(t, mode, time.Minute)
		w.put("file", "x")
		l := w.lead(ops.Options{})
		mkdir := func(path freshet.Path, parents bool) (freshet.Completed, error) {
			return l.Mkdir(context.Background(), freshet.MkdirQuery{Path: path, Parents: parents})
		}
		done, err := mkdir("/m/d", false)
		if err != nil || done.Info.Type != freshet.TypeDirectory || done.Token.Seq != 1 {
			t.Fatalf("%+v %v", done, err)
		}
		_, err = mkdir("/m/d", false)
		kind(t, err, freshet.KindExist, "exists")
		if done, err := mkdir("/m/d", true); err != nil || done.Info.Path != "/m/d" {
			t.Errorf("existing with parents: %+v %v", done, err)
		}
		_, err = mkdir("/m/a/b/c", false)
		kind(t, err, freshet.KindNotExist, "/m/a/b does not exist")
		if _, err := mkdir("/m/a/b/c", true); err != nil {
			t.Error(err)
		}
		_, err = mkdir("/m/file", true)
		kind(t, err, freshet.KindExist, "a file is there")
		_, err = mkdir("/m/file/below", true)
		kind(t, err, freshet.KindConflict, "/m/file is not a directory")
		_, err = mkdir("/m/nested", false)
		kind(t, err, freshet.KindExist, "exists")
		if _, err := mkdir("/m/nested", true); err != nil {
			t.Error(err)
		}
		_, err = mkdir("/ro/d", true)
		kind(t, err, freshet.KindPermission, "read-only")
		_, err = mkdir("/m/.freshetd", true)
		kind(t, err, freshet.KindPermission, "reserved name")
		if len(w.records()) != 2 {
			t.Errorf("records %v", w.records())
		}
		w.checkPublished()
		w.checkServable("d", "a", "a/b", "a/b/c", "file")
	})
}

func TestRemove(t *testing.T) {
	each(t, func(t *testing.T, mode mem.Mode) {
		w := newWorld(t, mode, time.Minute)
		w.put("d/a", "1")
		w.put("d/sub/b", "2")
		w.put("f", "3")
		l := w.lead(ops.Options{})
		remove := func(path freshet.Path, recursive bool) error {
			_, err := l.Remove(context.Background(), freshet.RemoveQuery{Path: path, Recursive: recursive})
			return err
		}
		kind(t, remove("/m", true), freshet.KindConflict, "is a mount point; detach it with 'freshet mount rm'")
		kind(t, remove("/m/nested", true), freshet.KindConflict, "is a mount point; detach it with 'freshet mount rm'")
		kind(t, remove("/", true), freshet.KindConflict, "")
		kind(t, remove("/m/d", false), freshet.KindConflict, "not empty")
		kind(t, remove("/m/none", true), freshet.KindNotExist, "")
		kind(t, remove("/ro/f", false), freshet.KindPermission, "read-only")
		if len(w.records()) != 0 {
			t.Errorf("records of refusals: %v", w.records())
		}
		if err := remove("/m/f", false); err != nil {
			t.Fatal(err)
		}
		if err := remove("/m/d", true); err != nil {
			t.Fatal(err)
		}
		if got := w.store.Snapshot(); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
		if len(w.records()) != 2 {
			t.Errorf("one record per removal: %v", w.records())
		}
		w.checkPublished()
		w.checkServable("f", "d", "d/a", "d/sub")
	})
}

func TestRename(t *testing.T) {
	each(t, func(t *testing.T, mode mem.Mode) {
		w := newWorld(t, mode, time.Minute)
		for _, key := range []string{"a", "b", "d/x", "d/sub/y", "e/z"} {
			w.put(key, key)
		}
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		rename := func(from, to freshet.Path, overwrite bool) error {
			_, err := l.Rename(context.Background(), freshet.RenameQuery{Path: from, Target: to, Overwrite: overwrite})
			return err
		}
		kind(t, rename("/m/d", "/m/d/sub/q", false), freshet.KindInvalid, "cannot move /m/d into its own subtree /m/d/sub/q")
		kind(t, rename("/m/d/x", "/m/d", true), freshet.KindConflict, "is a directory")
		kind(t, rename("/m/a", "/m/nested/a", false), freshet.KindConflict, "cross-mount rename not supported: /m/a is on the mount at /m, the target /m/nested/a is on the mount at /m/nested: copy it with 'freshet fs cp -r")
		kind(t, rename("/m/nested", "/m/q", false), freshet.KindConflict, "is a mount point")
		kind(t, rename("/m/none", "/m/q", false), freshet.KindNotExist, "")
		kind(t, rename("/m/a", "/m/b", false), freshet.KindExist, "overwritten")
		kind(t, rename("/m/a", "/m/d", true), freshet.KindConflict, "is a directory")
		kind(t, rename("/m/d", "/m/a", true), freshet.KindConflict, "is a file")
		kind(t, rename("/m/d", "/m/e", true), freshet.KindExist, "never replaced")
		kind(t, rename("/m/a", "/m/no/such", false), freshet.KindNotExist, "/m/no does not exist")
		kind(t, rename("/m/a", "/m/b/c", false), freshet.KindConflict, "/m/b is not a directory")
		u := n.begin(freshet.BeginWriteQuery{Path: "/m/d/new"})
		kind(t, rename("/m/d", "/m/q", false), freshet.KindConflict, "/m/d/new is being written")
		if err := l.AbortWrite(context.Background(), u.ticket.Op); err != nil {
			t.Fatal(err)
		}
		if len(w.records()) != 0 {
			t.Errorf("records of refusals: %v", w.records())
		}
		for _, r := range [][2]freshet.Path{{"/m/a", "/m/b"}, {"/m/d", "/m/q"}, {"/m/e/z", "/m/q/z"}} {
			if err := rename(r[0], r[1], true); err != nil {
				t.Fatal(err)
			}
		}
		got := w.store.Snapshot()
		for key, want := range map[string]string{"b": "a", "q/x": "d/x", "q/sub/y": "d/sub/y", "q/z": "e/z"} {
			if string(got[key]) != want {
				t.Errorf("%s holds %q, want %q", key, got[key], want)
			}
			delete(got, key)
		}
		if len(got) != 0 || len(w.records()) != 3 {
			t.Errorf("left %v, records %v", got, w.records())
		}
		w.checkPublished()
		w.checkServable("a", "b", "d", "d/x", "q", "q/x", "q/z", "e", "e/z")
	})
}

func TestSetAttr(t *testing.T) {
	each(t, func(t *testing.T, mode mem.Mode) {
		w := newWorld(t, mode, time.Minute)
		w.put("f", "1")
		l := w.lead(ops.Options{})
		bits := uint32(0o600)
		done, err := l.SetAttr(context.Background(), freshet.SetAttrQuery{Path: "/m/f", Mode: &bits})
		_, none := l.SetAttr(context.Background(), freshet.SetAttrQuery{Path: "/m/f"})
		kind(t, none, freshet.KindInvalid, "nothing to change")
		if mode == mem.Object {
			kind(t, err, freshet.KindUnsupported, "keeps no owner, group or mode")
			return
		}
		if err != nil || done.Info.Mode != bits {
			t.Errorf("%+v %v", done, err)
		}
		w.checkPublished()
		w.checkServable("f")
	})
}

func TestS11RepeatedOperationHasOneEffectAndOneOutcome(t *testing.T) {
	each(t, func(t *testing.T, mode mem.Mode) {
		w := newWorld(t, mode, time.Minute)
		w.put("f", "1")
		l := w.lead(ops.Options{})
		q := freshet.RemoveQuery{Op: freshet.OpID{1}, Path: "/m/f"}
		gate, entered := make(chan struct{}), make(chan struct{}, 1)
		l.fs.Add(fault.Rule{Op: fault.OpRemove, Times: 1, Gate: gate, Entered: entered})
		type answer struct {
			c   freshet.Completed
			err error
		}
		answers := make(chan answer, 2)
		for range 2 { // the second joins the first
			go func() {
				c, err := l.Remove(context.Background(), q)
				answers <- answer{c, err}
			}()
		}
		<-entered
		_, err := l.Remove(context.Background(), freshet.RemoveQuery{Op: q.Op, Path: "/m/g"})
		kind(t, err, freshet.KindConflict, "in use for another operation")
		close(gate)
		a, b := <-answers, <-answers
		if a.err != nil || b.err != nil || a.c.Token != b.c.Token {
			t.Errorf("%+v %+v", a, b)
		}
		w.put("f", "2")
		next := w.lead(ops.Options{})
		again, err := next.Remove(context.Background(), q)
		if err != nil || again.Token != a.c.Token {
			t.Errorf("repeated at the next leader: %+v %v", again, err)
		}
		if string(w.store.Snapshot()["f"]) != "2" || len(w.records()) != 1 {
			t.Errorf("a second effect: %v, records %v", w.store.Snapshot(), w.records())
		}
	})
}

func TestOperationOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Local, 0)
		w.put("f", "1")
		l := w.lead(ops.Options{})
		gate, entered := make(chan struct{}), make(chan struct{}, 1)
		l.fs.Add(fault.Rule{Op: fault.OpRemove, Gate: gate, Entered: entered})
		ctx, cancel := context.WithCancel(context.Background())
		errs := make(chan error, 1)
		q := freshet.RemoveQuery{Op: freshet.OpID{1}, Path: "/m/f"}
		go func() { _, err := l.Remove(ctx, q); errs <- err }()
		<-entered
		cancel()
		err := <-errs
		kind(t, err, freshet.KindDeadline, "still runs")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the cause is lost: %v", err)
		}
		close(gate)
		if done, err := l.Remove(context.Background(), q); err != nil || done.Token.Seq != 1 {
			t.Errorf("%+v %v", done, err)
		}
	})
}

func TestUncertainEffectIsLookedAtAndPublishedTwice(t *testing.T) {
	tests := map[string]func(l *leader) error{
		"mkdir": func(l *leader) error {
			_, err := l.Mkdir(context.Background(), freshet.MkdirQuery{Op: freshet.OpID{1}, Path: "/m/k"})
			return err
		},
		"remove": func(l *leader) error {
			_, err := l.Remove(context.Background(), freshet.RemoveQuery{Op: freshet.OpID{1}, Path: "/m/k"})
			return err
		},
	}
	for name, do := range tests {
		for _, happens := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, mem.Object, 30*time.Second)
					if name == "remove" {
						w.put("k", "1")
					}
					l := w.lead(ops.Options{})
					l.fs.Add(fault.Rule{Op: fault.Op(name), Times: 1, Uncertain: happens, Err: freshet.Errorf(freshet.KindDeadline, "call", "", "no answer")})
					kind(t, do(l), freshet.KindDeadline, "the outcome is unknown")
					w.until(time.Second, "the path is published", func() bool { return w.recordsOf("k") == 1 })
					look, err := w.state.Lookup("/m/k")
					if err != nil || !look.Uncachable {
						t.Errorf("cachable while the effect may land: %+v %v", look, err)
					}
					w.quiet(31 * time.Second)
					if w.recordsOf("k") != 2 {
						t.Errorf("records %v", w.records())
					}
					w.checkPublished()
				})
			})
		}
	}
}

func TestNothingBeginsInATreeThatIsBeingMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, time.Minute)
		w.put("d/x", "1")
		l := w.lead(ops.Options{})
		w.node("n1", l)
		gate, entered := make(chan struct{}), make(chan struct{}, 1)
		l.fs.Add(fault.Rule{Op: fault.OpRename, Gate: gate, Entered: entered})
		done := make(chan error, 1)
		go func() {
			_, err := l.Rename(context.Background(), freshet.RenameQuery{Path: "/m/d", Target: "/m/e"})
			done <- err
		}()
		<-entered
		ctx := context.Background()
		for _, p := range []freshet.Path{"/m/d/new", "/m/e/new", "/m/d"} {
			_, err := l.BeginWrite(ctx, freshet.BeginWriteQuery{Path: p})
			kind(t, err, freshet.KindUnavailable, "has not ended")
			_, err = l.Mkdir(ctx, freshet.MkdirQuery{Path: p + "/k", Parents: true})
			kind(t, err, freshet.KindUnavailable, "has not ended")
		}
		if _, err := l.BeginWrite(ctx, freshet.BeginWriteQuery{Path: "/m/other"}); err != nil {
			t.Error(err)
		}
		close(gate)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if _, err := l.BeginWrite(ctx, freshet.BeginWriteQuery{Path: "/m/e/new"}); err != nil {
			t.Error(err)
		}
	})
}

func TestRefusedHalfWayIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, time.Minute)
		w.put("d/a", "1")
		w.put("d/b", "2")
		l := w.lead(ops.Options{})
		l.fs.Add(fault.Rule{Op: fault.OpRemove, Times: 1, Uncertain: true, Err: freshet.Errorf(freshet.KindPermission, "call", "", "denied")})
		_, err := l.Remove(context.Background(), freshet.RemoveQuery{Path: "/m/d", Recursive: true})
		kind(t, err, freshet.KindPermission, "denied")
		w.checkPublished()
		if len(w.state.Intents()) != 0 {
			t.Errorf("intents %+v", w.state.Intents())
		}
	})
}

// An effect that the storage can't have seen is over at once: nothing is
// published, looked at or kept out of the caches.
func TestEffectThatWasNeverSentIsAborted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, time.Minute)
		w.put("k", "1")
		l := w.lead(ops.Options{})
		refused := &freshet.Error{Op: "call", Kind: freshet.KindUnavailable, Err: errors.Join(errors.New("connection refused"), ufs.ErrNotSent)}
		l.fs.Add(fault.Rule{Op: fault.OpRemove, Times: 1, Err: refused})
		l.fs.Add(fault.Rule{Op: fault.OpMkdir, Times: 1, Err: refused})
		_, err := l.Remove(context.Background(), freshet.RemoveQuery{Op: freshet.OpID{1}, Path: "/m/k"})
		kind(t, err, freshet.KindUnavailable, "connection refused")
		_, err = l.Mkdir(context.Background(), freshet.MkdirQuery{Op: freshet.OpID{2}, Path: "/m/d"})
		kind(t, err, freshet.KindUnavailable, "connection refused")
		if len(w.state.Intents()) != 0 || len(w.records()) != 0 {
			t.Errorf("intents %+v, records %v", w.state.Intents(), w.records())
		}
		if look, err := w.state.Lookup("/m/k"); err != nil || look.Uncachable {
			t.Errorf("kept out of the caches: %+v %v", look, err)
		}
		if _, err := l.Remove(context.Background(), freshet.RemoveQuery{Op: freshet.OpID{1}, Path: "/m/k"}); err != nil {
			t.Errorf("the same operation again: %v", err)
		}
		w.checkPublished()
	})
}
