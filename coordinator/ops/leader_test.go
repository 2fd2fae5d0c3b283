package ops_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/ufs/mem"
)

// ownOps are operations of the coordinator, with what makes their storage ready.
func ownOps() map[string]func(l *leader) error {
	ctx := context.Background()
	id := freshet.OpID{42}
	bits := uint32(0o600)
	return map[string]func(l *leader) error{
		"mkdir": func(l *leader) error {
			_, err := l.Mkdir(ctx, freshet.MkdirQuery{Op: id, Path: "/m/new/dir", Parents: true})
			return err
		},
		"remove file": func(l *leader) error { _, err := l.Remove(ctx, freshet.RemoveQuery{Op: id, Path: "/m/f"}); return err },
		"remove tree": func(l *leader) error {
			_, err := l.Remove(ctx, freshet.RemoveQuery{Op: id, Path: "/m/d", Recursive: true})
			return err
		},
		"rename file": func(l *leader) error {
			_, err := l.Rename(ctx, freshet.RenameQuery{Op: id, Path: "/m/f", Target: "/m/g", Overwrite: true})
			return err
		},
		"rename tree": func(l *leader) error {
			_, err := l.Rename(ctx, freshet.RenameQuery{Op: id, Path: "/m/d", Target: "/m/e"})
			return err
		},
		"chmod": func(l *leader) error {
			_, err := l.SetAttr(ctx, freshet.SetAttrQuery{Op: id, Path: "/m/f", Mode: &bits})
			return err
		},
	}
}

func ownKeys() []string {
	return []string{"f", "g", "d", "d/a", "d/s/b", "e", "e/a", "e/s/b", "new", "new/dir"}
}

func prepared(t *testing.T, mode mem.Mode) *world {
	w := newWorld(t, mode, 20*time.Second)
	for _, key := range []string{"f", "g", "d/a", "d/s/b", "d/s/c"} {
		w.put(key, key)
	}
	return w
}

// TestLeaderDiesAtAnyPoint kills the leader at each point of each operation of its
// own: the crash points of the protocol.
func TestLeaderDiesAtAnyPoint(t *testing.T) {
	for name, do := range ownOps() {
		for _, point := range []string{ops.PointBegin, ops.PointEffect, ops.PointComplete, ops.PointDone} {
			t.Run(name+" at "+point, func(t *testing.T) {
				each(t, func(t *testing.T, mode mem.Mode) {
					if name == "chmod" && mode == mem.Object {
						t.Skip("an object store keeps no modes")
					}
					w := prepared(t, mode)
					var l *leader
					l = w.lead(ops.Options{Hook: func(p string, _ freshet.OpID) {
						if p == point {
							l.die()
						}
					}})
					err := do(l)
					if point != ops.PointDone && err == nil {
						t.Error("the operation was acknowledged")
					}
					l = w.lead(ops.Options{})
					w.until(3*time.Second, "taken over", func() bool {
						in := w.state.Intents()
						return len(in) == 0 || in[0].State == namespace.IntentQuarantine
					})
					w.checkPublished()
					if _, ok, err := w.state.OpResult(freshet.OpID{42}); point == ops.PointDone && (!ok || err != nil) {
						t.Errorf("the outcome is lost: %v", err)
					}
					w.quiet(22 * time.Second)
					w.checkPublished()
					w.checkServable(ownKeys()...)
					for range 2 { // whatever happened, the client comes to an end with it
						err = do(l)
					}
					if err != nil && !freshet.IsKind(err, freshet.KindNotExist, freshet.KindExist) {
						t.Errorf("repeated: %v", err)
					}
					w.checkServable(ownKeys()...)
				})
			})
		}
	}
}

// TestCrashBetweenStepsIsRolledForward stops the storage after each of its steps
// within an operation on a tree, kills the leader, and wants the next one to end
// what was begun.
func TestCrashBetweenStepsIsRolledForward(t *testing.T) {
	for _, name := range []string{"remove tree", "rename tree", "rename file"} {
		for after := 1; after <= 6; after++ {
			t.Run(fmt.Sprintf("%s after %d", name, after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { rollsForward(t, name, after) })
			})
		}
	}
}

func rollsForward(t *testing.T, name string, after int) {
	w := prepared(t, mem.Object)
	steps, effect := 0, false
	l := w.lead(ops.Options{Hook: func(p string, _ freshet.OpID) {
		if p == ops.PointEffect {
			effect = true
			steps = w.steps()
			w.freezeAfter(steps + after)
		}
	}})
	if name == "rename file" { // of what was uploaded in parts, a copy has another ETag
		w.node("n1", l).write("/m/f", "f")
		w.effects = nil
	}
	err := ownOps()[name](l)
	if !effect {
		t.Fatalf("the effect was not reached: %v", err)
	}
	if err == nil {
		return // it has fewer steps
	}
	kind(t, err, freshet.KindDeadline, "unknown")
	changed := len(w.effects) > 0
	l.die()
	w.freezeAfter(0)
	w.lead(ops.Options{})
	w.until(5*time.Second, "rolled forward", func() bool {
		in := w.state.Intents()
		return len(in) == 1 && in[0].State == namespace.IntentQuarantine
	})
	w.checkPublished()
	got := w.store.Snapshot()
	switch name {
	case "remove tree":
		if got["d/a"] != nil || got["d/s/b"] != nil || got["d/s/c"] != nil {
			t.Errorf("left: %v", got)
		}
	case "rename tree":
		if got["d/a"] != nil || got["d/s/b"] != nil || string(got["e/a"]) != "d/a" || string(got["e/s/b"]) != "d/s/b" {
			t.Errorf("half moved: %v", got)
		}
	case "rename file":
		if changed && (got["f"] != nil || string(got["g"]) != "f") {
			t.Errorf("half moved: %v", got)
		}
		if !changed && (string(got["f"]) != "f" || string(got["g"]) != "g") {
			t.Errorf("a move that had not begun was made: %v", got)
		}
	}
	w.quiet(22 * time.Second)
	w.checkPublished()
	w.checkServable(ownKeys()...)
}

func TestRolledForwardRenameSparesWhatCameLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := prepared(t, mem.Object)
		var l *leader
		l = w.lead(ops.Options{Hook: func(p string, _ freshet.OpID) {
			if p == ops.PointComplete {
				l.die()
			}
		}})
		if err := ownOps()["rename file"](l); err == nil {
			t.Fatal("acknowledged")
		}
		// The move is done, its record is not. Somebody writes the old name again.
		w.put("f", "written later")
		w.lead(ops.Options{})
		w.quiet(25 * time.Second)
		got := w.store.Snapshot()
		if string(got["f"]) != "written later" || string(got["g"]) != "f" {
			t.Errorf("the move was made twice: f=%q g=%q", got["f"], got["g"])
		}
		w.checkPublished()
		w.checkServable(ownKeys()...)
	})
}

// TestLostAnswersOfTheLog has proposals end without an answer, before or after
// they were applied.
func TestLostAnswersOfTheLog(t *testing.T) {
	for _, command := range []string{"begin", "complete"} {
		for _, applied := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s applied %t", command, applied), func(t *testing.T) {
				each(t, func(t *testing.T, mode mem.Mode) {
					w := prepared(t, mode)
					lost := 0
					w.failing = func(c namespace.Command) error {
						if lost > 0 || (command == "begin") != (c.Begin != nil) || (command == "complete") != (c.Complete != nil) {
							return nil
						}
						lost++
						if applied {
							w.apply(c)
						}
						return freshet.Errorf(freshet.KindUnavailable, "propose", "", "the outcome is unknown")
					}
					l := w.lead(ops.Options{})
					do := ownOps()["rename tree"]
					err := do(l)
					if command == "complete" && err != nil {
						t.Errorf("the completion was not repeated: %v", err)
					}
					if command == "begin" {
						kind(t, err, freshet.KindUnavailable, "outcome is unknown")
					}
					if lost != 1 {
						t.Fatalf("%d answers lost", lost)
					}
					w.quiet(25 * time.Second)
					w.checkPublished()
					w.checkServable(ownKeys()...)
					if len(w.effects) > 0 && len(w.effects) != 1 {
						t.Errorf("effects: %v", w.effects)
					}
				})
			})
		}
	}
}

// TestHeartbeatIsAnsweredWhileTheLogIsBusy: a node must not look dead, nor lose its
// lease, because a completion has to wait.
func TestHeartbeatIsAnsweredWhileTheLogIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, 5*time.Second)
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		u := n.begin(freshet.BeginWriteQuery{Path: "/m/f"})
		wr := u.takeTo(diesAfterCommit, "x")
		delete(n.active, u.ticket.Op)
		n.finished[u.ticket.Op] = freshet.FinishedOp{Op: u.ticket.Op, Written: &wr}
		busy := true
		w.failing = func(c namespace.Command) error {
			if busy && c.Complete != nil {
				return freshet.Errorf(freshet.KindExhausted, "propose", "", "too much waits")
			}
			return nil
		}
		for range 10 {
			n.beat()
			if len(n.finished) != 1 || n.reply.Lease == 0 {
				t.Fatalf("settled without the log: %+v", n.reply)
			}
			<-time.After(time.Second)
			if in, ok := w.state.Intent(u.ticket.Op); !ok || in.State != namespace.IntentMayPublish {
				t.Fatalf("an upload whose end the node tells counts as lost: %+v", in)
			}
		}
		busy = false
		n.beat()
		if len(n.finished) != 0 || w.recordsOf("f") != 1 {
			t.Errorf("not settled: records %v", w.records())
		}
		w.quiet(time.Second)
		w.checkServable("f")
	})
}

func TestOutcomesAreKeptForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := prepared(t, mem.Local)
		l := w.lead(ops.Options{KeepOutcomes: time.Hour})
		<-time.After(time.Minute)
		if err := ownOps()["remove file"](l); err != nil {
			t.Fatal(err)
		}
		known := func() bool {
			_, ok, err := w.state.OpResult(freshet.OpID{42})
			return ok && err == nil
		}
		<-time.After(time.Hour)
		if !known() {
			t.Error("forgotten within the hour")
		}
		w.until(10*time.Minute, "the outcome is forgotten", func() bool { return !known() })
	})
}

func TestUnresolvedIsToldInWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := prepared(t, mem.Object)
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		n.begin(freshet.BeginWriteQuery{Op: freshet.OpID{1}, Path: "/m/f"})
		want := "write of /m/f (operation 01000000000000000000000000000000 on node n1): uploading"
		if got := l.Unresolved("/m/f"); len(got) != 1 || got[0] != want {
			t.Errorf("%q, want %q", got, want)
		}
		if got := l.Unresolved("/m/f/below"); len(got) != 0 {
			t.Errorf("below a file: %q", got)
		}
	})
}
