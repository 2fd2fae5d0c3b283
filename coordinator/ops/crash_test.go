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
	"github.com/freshet-io/freshet/ufs/fault"
	"github.com/freshet-io/freshet/ufs/mem"
)

// write states of a node's upload at which its process dies.
const (
	diesAfterBegin = iota
	diesAfterSend
	diesAfterPermit
	diesAfterCommit
	diesAfterComplete
)

// takeTo takes an upload to one of its states.
func (u *upload) takeTo(state int, data string) freshet.Written {
	u.n.w.t.Helper()
	var wr freshet.Written
	fatal := func(err error) {
		if err != nil {
			u.n.w.t.Fatal(err)
		}
	}
	if state >= diesAfterSend {
		u.send(data)
		u.n.beat()
	}
	if state >= diesAfterPermit {
		fatal(u.permit())
	}
	if state >= diesAfterCommit {
		var err error
		wr, err = u.commit()
		fatal(err)
	}
	if state >= diesAfterComplete {
		_, err := u.n.to.Complete(context.Background(), u.ticket.Op, wr)
		fatal(err)
	}
	return wr
}

// TestWriterDiesAtAnyPoint kills a cache node, or the cache node and the leader,
// at each point of an upload.
func TestWriterDiesAtAnyPoint(t *testing.T) {
	for state := diesAfterBegin; state <= diesAfterComplete; state++ {
		for _, how := range []string{"silent", "restarted", "with the leader"} {
			t.Run(fmt.Sprintf("state %d %s", state, how), func(t *testing.T) {
				each(t, func(t *testing.T, mode mem.Mode) { writerDies(t, mode, state, how) })
			})
		}
	}
}

func writerDies(t *testing.T, mode mem.Mode, state int, how string) {
	lifetime := 20 * time.Second
	if mode == mem.Local {
		lifetime = 0
	}
	w := newWorld(t, mode, lifetime)
	w.put("f", "old")
	l := w.lead(ops.Options{UnknownLifetime: 10 * time.Second})
	n := w.node("n1", l)
	n.begin(freshet.BeginWriteQuery{Path: "/m/f"}).takeTo(state, "new")
	switch how {
	case "restarted":
		n.restart()
		n.beat()
	case "with the leader":
		l.die()
		l = w.lead(ops.Options{UnknownLifetime: 10 * time.Second})
		n.to = l
		n.restart()
		n.beat()
	}
	w.until(6*time.Second, "the upload has ended or is in quarantine", func() bool {
		in := w.state.Intents()
		return len(in) == 0 || in[0].State == namespace.IntentQuarantine
	})
	want := 0
	if state >= diesAfterPermit {
		want = 1
	}
	if got := w.recordsOf("f"); got < want || (want == 0 && got > 0) {
		t.Errorf("%d records, want %d", got, want)
	}
	// What was not published is cleared right after its intent has ended.
	w.until(time.Second, "no upload is left in the storage", func() bool { return w.store.Uploads() == 0 })
	w.quiet(25 * time.Second)
	w.checkPublished()
	w.checkServable("f")
}

func TestWriterKilledBetweenCommitAndCompleteIsPublished(t *testing.T) {
	each(t, func(t *testing.T, mode mem.Mode) {
		w := newWorld(t, mode, 0)
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		n.begin(freshet.BeginWriteQuery{Path: "/m/f"}).takeTo(diesAfterCommit, "new")
		w.until(6*time.Second, "the record of the dead writer's file", func() bool { return w.recordsOf("f") > 0 })
		w.checkPublished()
		n.restart()
		n.beat()
		w.quiet(61 * time.Second)
		w.checkServable("f")
	})
}

func TestC12PutThatLandsAfterItsRetryIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, 20*time.Second)
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		u := n.begin(freshet.BeginWriteQuery{Path: "/m/f"})
		u.send("same bytes")
		if err := u.permit(); err != nil {
			t.Fatal(err)
		}
		// The first PUT gets no answer and lands later; its repetition succeeds. A
		// single PUT can't be called back.
		l.fs.Add(fault.Rule{Op: fault.OpAbortUp, Err: freshet.Errorf(freshet.KindNotExist, "abort upload", "", "no such upload")})
		late := make(chan struct{})
		n.fs.Add(fault.Rule{Op: fault.OpCommit, Times: 1, Late: late, Err: freshet.Errorf(freshet.KindDeadline, "commit", "", "no answer")})
		if _, err := u.commit(); !freshet.IsKind(err, freshet.KindDeadline) {
			t.Fatal(err)
		}
		u.send("same bytes")
		wr, err := u.commit()
		if err != nil {
			t.Fatal(err)
		}
		delete(n.active, u.ticket.Op)
		n.finished[u.ticket.Op] = freshet.FinishedOp{Op: u.ticket.Op, Written: &wr, Uncertain: true}
		n.beat()
		if w.recordsOf("f") != 1 {
			t.Errorf("records after the completion: %v", w.records())
		}
		<-time.After(10 * time.Second)
		w.put("f", "another cluster's")
		close(late)
		n.fs.Wait()
		if got := string(w.store.Snapshot()["f"]); got != "same bytes" {
			t.Fatalf("the late PUT did not land: %q", got)
		}
		w.quiet(25 * time.Second)
		w.checkPublished()
		w.checkServable("f")
	})
}

func TestC13EndedUploadNeedsNoQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, time.Hour)
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		// The storage confirms that it dropped the upload: nothing of it can land.
		u := n.begin(freshet.BeginWriteQuery{Path: "/m/f"})
		u.takeTo(diesAfterPermit, "new")
		n.restart()
		n.beat()
		w.quiet(2 * time.Second)
		if w.recordsOf("f") != 1 {
			t.Errorf("records %v", w.records())
		}
		if _, err := u.commit(); err == nil {
			t.Error("an upload that was ended was published")
		}
		w.checkServable("f")
	})
}

func TestC13UploadThatCannotBeEndedWaitsItsLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lifetime = 40 * time.Second
		w := newWorld(t, mem.Object, lifetime)
		l := w.lead(ops.Options{})
		l.fs.Add(fault.Rule{Op: fault.OpAbortUp, Err: freshet.Errorf(freshet.KindNotExist, "abort upload", "", "no such upload")})
		n := w.node("n1", l)
		u := n.begin(freshet.BeginWriteQuery{Path: "/m/f"})
		u.takeTo(diesAfterPermit, "new")
		n.restart()
		n.beat()
		w.until(2*time.Second, "the first record", func() bool { return w.recordsOf("f") == 1 })
		began := time.Now()
		<-time.After(lifetime / 2)
		if _, err := u.commit(); err != nil { // the zombie
			t.Fatal(err)
		}
		look, err := w.state.Lookup("/m/f")
		if err != nil || !look.Uncachable {
			t.Errorf("cachable in quarantine: %+v %v", look, err)
		}
		w.quiet(lifetime)
		if took := time.Since(began); took < lifetime-time.Second {
			t.Errorf("the quarantine took %v, want %v", took, lifetime)
		}
		w.checkPublished()
		w.checkServable("f")
	})
}

func TestC13LateEffectIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, 5*time.Second)
		l := w.lead(ops.Options{})
		l.fs.Add(fault.Rule{Op: fault.OpAbortUp, Err: freshet.Errorf(freshet.KindNotExist, "abort upload", "", "no such upload")})
		n := w.node("n1", l)
		u := n.begin(freshet.BeginWriteQuery{Path: "/m/f"})
		u.takeTo(diesAfterPermit, "new")
		w.quiet(15 * time.Second) // the node is silent: its process stands still
		wr, err := u.commit()
		if err != nil {
			t.Fatal(err)
		}
		delete(n.active, u.ticket.Op)
		n.finished[u.ticket.Op] = freshet.FinishedOp{Op: u.ticket.Op, Written: &wr}
		n.beat()
		w.until(time.Second, "the late effect is published", func() bool { return w.recordsOf("f") == 3 })
		w.checkPublished()
		w.quiet(6 * time.Second)
		w.checkServable("f")
	})
}

func TestC14ResolutionBindsOnlyOurBytes(t *testing.T) {
	for _, ours := range []bool{true, false} {
		t.Run(fmt.Sprint(ours), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, mem.Object, 10*time.Second)
				l := w.lead(ops.Options{})
				n := w.node("n1", l)
				u := n.begin(freshet.BeginWriteQuery{Path: "/m/f"})
				u.takeTo(diesAfterCommit, "ours")
				if !ours {
					w.put("f", "another cluster's")
				}
				n.restart()
				n.beat()
				w.quiet(12 * time.Second)
				file := u.ticket.File
				if live := w.state.FileLive([]freshet.FileID{file})[0]; live != ours {
					t.Errorf("the file ID is bound: %t, want %t", live, ours)
				}
				_, known, err := w.state.OpResult(u.ticket.Op)
				if err != nil || known != ours {
					t.Errorf("the outcome is known: %t, want %t (%v)", known, ours, err)
				}
				w.checkPublished()
				w.checkServable("f")
			})
		})
	}
}

func TestC15NewLeaderAdoptsLiveUploads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, time.Minute)
		l := w.lead(ops.Options{})
		n, dead := w.node("n1", l), w.node("n2", l)
		uploading := n.begin(freshet.BeginWriteQuery{Path: "/m/a", Node: "n1"})
		uploading.takeTo(diesAfterSend, "a")
		publishing := n.begin(freshet.BeginWriteQuery{Path: "/m/b", Node: "n1"})
		publishing.takeTo(diesAfterPermit, "b")
		lost := dead.begin(freshet.BeginWriteQuery{Path: "/m/c", Node: "n2"})
		lost.takeTo(diesAfterPermit, "c")
		l.die()
		l = w.lead(ops.Options{})
		n.to = l
		n.beatFor(20 * time.Second) // the uploads take their time
		if in := w.state.Intents(); len(in) != 2 || w.recordsOf("a") != 0 || w.recordsOf("b") != 0 {
			t.Fatalf("intents %+v, records %v", in, w.records())
		}
		if w.recordsOf("c") == 0 {
			t.Error("the upload of the dead node was not resolved")
		}
		for _, u := range []*upload{uploading, publishing} {
			if err := u.permit(); err != nil {
				t.Fatal(err)
			}
			wr, err := u.commit()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Complete(context.Background(), u.ticket.Op, wr); err != nil {
				t.Fatal(err)
			}
		}
		w.quiet(time.Second)
		w.checkPublished()
		w.checkServable("a", "b", "c")
	})
}

func TestC15DurationsRestartOnTheNewLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lifetime = 30 * time.Second
		w := newWorld(t, mem.Object, lifetime)
		l := w.lead(ops.Options{})
		l.fs.Add(fault.Rule{Op: fault.OpMkdir, Err: freshet.Errorf(freshet.KindDeadline, "mkdir", "", "no answer")})
		_, err := l.Mkdir(context.Background(), freshet.MkdirQuery{Path: "/m/d"})
		kind(t, err, freshet.KindDeadline, "unknown")
		<-time.After(lifetime - 2*time.Second)
		l.die()
		w.lead(ops.Options{})
		began := time.Now()
		w.quiet(lifetime + 2*time.Second)
		if took := time.Since(began); took < lifetime {
			t.Errorf("the new leader waited %v, want at least %v", took, lifetime)
		}
	})
}

func TestNodeThatLostAnUploadIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, 5*time.Second)
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		u := n.begin(freshet.BeginWriteQuery{Path: "/m/f"})
		n.beatFor(5 * time.Second) // the client takes its time: no reason to give up
		u.takeTo(diesAfterPermit, "x")
		n.beatFor(3 * time.Second)
		if len(w.state.Intents()) != 1 || w.recordsOf("f") != 0 {
			t.Fatalf("resolved while the node has it: %+v", w.state.Intents())
		}
		delete(n.active, u.ticket.Op)
		n.beatFor(3 * time.Second)
		if w.recordsOf("f") != 1 {
			t.Errorf("records %v, intents %+v", w.records(), w.state.Intents())
		}
	})
}

func TestNodeThatIsUnsureHasTheStorageAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, 5*time.Second)
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		u := n.begin(freshet.BeginWriteQuery{Path: "/m/f"})
		u.takeTo(diesAfterPermit, "x")
		n.fs.Add(fault.Rule{Op: fault.OpCommit, Times: 1, Uncertain: true, Err: freshet.Errorf(freshet.KindDeadline, "commit", "", "no answer")})
		if _, err := u.commit(); err == nil {
			t.Fatal("no fault")
		}
		delete(n.active, u.ticket.Op)
		n.finished[u.ticket.Op] = freshet.FinishedOp{Op: u.ticket.Op, Uncertain: true}
		n.beat()
		w.until(time.Second, "the storage was asked", func() bool { return w.recordsOf("f") == 1 })
		done, ok, err := w.state.OpResult(u.ticket.Op)
		if err != nil || !ok || done.Info.Length != 1 {
			t.Errorf("the object carries our mark: %+v %v %v", done, ok, err)
		}
		n.beat()
		if len(n.finished) != 0 {
			t.Error("not settled")
		}
		w.quiet(6 * time.Second)
		w.checkPublished()
		w.checkServable("f")
	})
}

func TestStorageOutOfReachWhileResolving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, 5*time.Second)
		w.put("f", "old")
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		n.begin(freshet.BeginWriteQuery{Path: "/m/f"}).takeTo(diesAfterCommit, "new")
		down := freshet.Errorf(freshet.KindUnavailable, "call", "", "no route")
		remove := l.fs.Add(fault.Rule{Err: down})
		n.restart()
		n.beatFor(9 * time.Second)
		if w.recordsOf("f") != 0 {
			t.Error("resolved without having asked")
		}
		n.beatFor(20 * time.Second)
		look, err := w.state.Lookup("/m/f")
		if err != nil || (look.Servable(0) && !look.Uncachable && look.Found) {
			t.Errorf("served while nobody knows: %+v %v", look, err)
		}
		w.checkPublished()
		remove()
		w.quiet(40 * time.Second)
		w.checkPublished()
		w.checkServable("f")
	})
}
