package ops_test

import (
	"context"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/ufs/mem"
)

func TestWriteThroughANode(t *testing.T) {
	each(t, func(t *testing.T, mode mem.Mode) {
		w := newWorld(t, mode, time.Minute)
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		done := n.write("/m/d/f", "hello")
		if done.Info.Length != 5 || done.Info.FileID == 0 || done.Token.Seq != 1 {
			t.Errorf("completed %+v", done)
		}
		if len(w.state.Intents()) != 0 {
			t.Errorf("intents: %+v", w.state.Intents())
		}
		w.checkPublished()
		w.checkServable("d/f", "d")
	})
}

func TestBeginWriteRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Local, 0)
		l := w.lead(ops.Options{MaxIntents: 2})
		begin := func(path freshet.Path, write freshet.WriteType) error {
			_, err := l.BeginWrite(context.Background(), freshet.BeginWriteQuery{Path: path, Write: write})
			return err
		}
		kind(t, begin("/m/f", freshet.CacheThrough), freshet.KindUnavailable, "no live cache node")
		n := w.node("n1", l)
		n.write("/m/file", "x")
		if _, err := l.Mkdir(context.Background(), freshet.MkdirQuery{Path: "/m/dir"}); err != nil {
			t.Fatal(err)
		}
		n.beatFor(6 * time.Second) // others would have been heard of by now
		kind(t, begin("/m/f", freshet.MustCache), freshet.KindUnsupported, "must_cache")
		kind(t, begin("/m/f", freshet.AsyncThrough), freshet.KindUnsupported, "async_through")
		kind(t, begin("/ro/f", freshet.Through), freshet.KindPermission, "read-only")
		kind(t, begin("/m/.freshet.x", freshet.Through), freshet.KindPermission, "reserved name")
		kind(t, begin("/m/nested", freshet.Through), freshet.KindConflict, "is a mount point")
		kind(t, begin("/", freshet.Through), freshet.KindConflict, "root")
		kind(t, begin("/nowhere/f", freshet.Through), freshet.KindNotExist, "no storage is mounted")
		kind(t, begin("/m/dir", freshet.Through), freshet.KindConflict, "is a directory")
		kind(t, begin("/m/file/below", freshet.Through), freshet.KindConflict, "not a directory")
		if err := begin("/m/1", freshet.Through); err != nil {
			t.Fatal(err)
		}
		if err := begin("/m/2", freshet.Through); err != nil {
			t.Fatal(err)
		}
		kind(t, begin("/m/3", freshet.Through), freshet.KindExhausted, "2 operations are open")
		if got := len(w.state.Intents()); got != 2 {
			t.Errorf("%d intents, want 2", got)
		}
	})
}

func TestTheSameOperationGetsTheSameTicketThenTheOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, time.Minute)
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		w.node("n2", l)
		q := freshet.BeginWriteQuery{Op: freshet.OpID{5}, Path: "/m/f", Node: "n1"}
		u := n.begin(q)
		q.Node = "n2"
		if again := n.begin(q); !reflect.DeepEqual(again.ticket, u.ticket) {
			t.Errorf("another ticket: %+v, %+v", u.ticket, again.ticket)
		}
		_, err := l.BeginWrite(context.Background(), freshet.BeginWriteQuery{Op: q.Op, Path: "/m/g"})
		kind(t, err, freshet.KindConflict, "in use for another operation")
		u.send("x")
		if err := u.permit(); err != nil {
			t.Fatal(err)
		}
		wr, err := u.commit()
		if err != nil {
			t.Fatal(err)
		}
		first, err := l.Complete(context.Background(), q.Op, wr)
		if err != nil {
			t.Fatal(err)
		}
		second, err := l.Complete(context.Background(), q.Op, wr)
		if err != nil || second.Token != first.Token {
			t.Errorf("the second completion: %+v %v", second, err)
		}
		a, err := l.BeginWrite(context.Background(), q)
		if err != nil || !a.Done || a.Completed.Token != first.Token {
			t.Errorf("begin after the end: %+v %v", a, err)
		}
		if len(w.records()) != 1 {
			t.Errorf("%d records, want 1", len(w.records()))
		}
	})
}

func TestPermitIsForTheLivingRunOfTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, time.Minute)
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		u := n.begin(freshet.BeginWriteQuery{Path: "/m/f"})
		ctx := context.Background()
		kind(t, l.Permit(ctx, freshet.PermitQuery{Op: u.ticket.Op, Node: "n1", Incarnation: 2, Length: -1}), freshet.KindConflict, "incarnation")
		kind(t, l.Permit(ctx, freshet.PermitQuery{Op: freshet.OpID{9}, Node: "n1", Incarnation: 1, Length: -1}), freshet.KindNotExist, "not known")
		<-time.After(6 * time.Second)
		kind(t, u.permit(), freshet.KindUnavailable, "heartbeat")
		n.beat()
		kind(t, u.permit(), freshet.KindNotExist, "not known") // it was given up meanwhile
		if u2 := n.begin(freshet.BeginWriteQuery{Path: "/m/f"}); u2.permit() != nil {
			t.Error("a new upload was not permitted")
		}
	})
}

func TestClientAbortsItsWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, time.Minute)
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		u := n.begin(freshet.BeginWriteQuery{Path: "/m/f"})
		u.send("x")
		n.beat()
		if err := l.AbortWrite(context.Background(), u.ticket.Op); err != nil {
			t.Fatal(err)
		}
		n.beat()
		if len(n.reply.Abort) != 1 || n.reply.Abort[0] != u.ticket.Op {
			t.Errorf("the node is told to abort %v", n.reply.Abort)
		}
		kind(t, l.AbortWrite(context.Background(), u.ticket.Op), freshet.KindNotExist, "not known")
		u = n.begin(freshet.BeginWriteQuery{Path: "/m/f"})
		u.send("x")
		if err := u.permit(); err != nil {
			t.Fatal(err)
		}
		kind(t, l.AbortWrite(context.Background(), u.ticket.Op), freshet.KindConflict, "may have changed the storage")
		if len(w.records()) != 0 {
			t.Errorf("records of nothing: %v", w.records())
		}
	})
}

func TestFinishedUploadsAreCompletedByTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, time.Minute)
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		u := n.begin(freshet.BeginWriteQuery{Path: "/m/f"})
		u.send("x")
		if err := u.permit(); err != nil {
			t.Fatal(err)
		}
		wr, err := u.commit()
		if err != nil {
			t.Fatal(err)
		}
		delete(n.active, u.ticket.Op)
		n.finished[u.ticket.Op] = freshet.FinishedOp{Op: u.ticket.Op, Written: &wr}
		refused := n.begin(freshet.BeginWriteQuery{Path: "/m/g"})
		n.finished[refused.ticket.Op] = freshet.FinishedOp{Op: refused.ticket.Op}
		n.beat()
		if len(n.finished) != 0 || len(w.state.Intents()) != 0 {
			t.Errorf("not settled: %v, intents %+v", n.finished, w.state.Intents())
		}
		if w.recordsOf("f") != 1 || w.recordsOf("g") != 0 {
			t.Errorf("records: %v", w.records())
		}
		done, ok, err := w.state.OpResult(u.ticket.Op)
		if err != nil || !ok || done.Info.Length != 1 {
			t.Errorf("outcome %+v %v %v", done, ok, err)
		}
		w.checkPublished()
		w.checkServable("f", "g")
	})
}

func TestHeartbeatCarriesMountsAndBlocksToFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, time.Minute)
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		if len(n.reply.Mounts) != 3 || n.reply.Term != l.term || n.reply.Lease != 4*time.Second || n.reply.Epoch != 1 {
			t.Errorf("first answer %+v", n.reply)
		}
		n.beat()
		if len(n.reply.Mounts) != 0 {
			t.Error("the mounts are told again")
		}
		done := n.write("/m/f", "old")
		old, stray := freshet.BlockID{File: done.Info.FileID}, freshet.BlockID{File: 1 << 30, Index: 3}
		n.blocks[old], n.blocks[stray], n.told = 3, 3, false
		n.beat()
		n.beat()
		if len(n.reply.Free) != 1 || n.reply.Free[0] != stray {
			t.Errorf("to free: %v, want the block of no live version", n.reply.Free)
		}
		if got := l.nodes.CachedBytes(done.Info.FileID, clock.Real{}.Elapsed()); got != 3 {
			t.Errorf("%d bytes cached", got)
		}
		n.write("/m/f", "new")
		n.beat()
		if len(n.reply.Free) != 2 {
			t.Errorf("to free after the overwrite: %v", n.reply.Free)
		}
	})
}

func TestUploadThatNeverStartsExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, time.Minute)
		l := w.lead(ops.Options{StartWithin: 20 * time.Second})
		n := w.node("n1", l)
		n.begin(freshet.BeginWriteQuery{Path: "/m/f"})
		n.beatFor(19 * time.Second)
		if len(w.state.Intents()) != 1 {
			t.Fatal("given up too early")
		}
		n.beatFor(3 * time.Second)
		if len(w.state.Intents()) != 0 || len(w.records()) != 0 {
			t.Errorf("intents %+v, records %v", w.state.Intents(), w.records())
		}
	})
}

func TestOverlappingWritersLeaveNothingStale(t *testing.T) {
	each(t, func(t *testing.T, mode mem.Mode) {
		w := newWorld(t, mode, time.Minute)
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		a := n.begin(freshet.BeginWriteQuery{Path: "/m/f"})
		b := n.begin(freshet.BeginWriteQuery{Path: "/m/f"})
		a.send("aaa")
		b.send("bb")
		for _, u := range []*upload{a, b} {
			if err := u.permit(); err != nil {
				t.Fatal(err)
			}
		}
		wa, err := a.commit()
		if err != nil {
			t.Fatal(err)
		}
		wb, err := b.commit()
		if err != nil {
			t.Fatal(err)
		}
		// The completions come in the other order.
		if _, err := l.Complete(context.Background(), b.ticket.Op, wb); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Complete(context.Background(), a.ticket.Op, wa); err != nil {
			t.Fatal(err)
		}
		if w.recordsOf("f") != 2 {
			t.Errorf("records %v", w.records())
		}
		w.checkPublished()
		w.checkServable("f")
	})
}

func TestOnlyTheLeaderAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, time.Minute)
		old := w.lead(ops.Options{})
		n := w.node("n1", old)
		u := n.begin(freshet.BeginWriteQuery{Path: "/m/f"})
		now := w.lead(ops.Options{}) // the old one does not know yet
		ctx := context.Background()
		kind(t, old.Permit(ctx, freshet.PermitQuery{Op: u.ticket.Op, Node: "n1", Incarnation: 1, Length: -1}), freshet.KindNotLeader, "")
		_, err := old.Complete(ctx, u.ticket.Op, freshet.Written{})
		kind(t, err, freshet.KindNotLeader, "")
		_, err = old.Mkdir(ctx, freshet.MkdirQuery{Path: "/m/d"})
		kind(t, err, freshet.KindNotLeader, "")
		old.end()
		_, err = old.Heartbeat(ctx, freshet.Heartbeat{Node: freshet.Node{ID: "n1"}})
		kind(t, err, freshet.KindNotLeader, "does not lead")
		if len(w.effects) != 0 {
			t.Errorf("the deposed leader changed the storage: %v", w.effects)
		}
		n.to = now
		n.active[u.ticket.Op] = true
		n.beat()
		if !n.reply.NeedFull && n.reply.Term != now.term {
			t.Errorf("answer %+v", n.reply)
		}
		if in, ok := w.state.Intent(u.ticket.Op); !ok || in.State != namespace.IntentUploading {
			t.Errorf("intent %+v %v", in, ok)
		}
	})
}
