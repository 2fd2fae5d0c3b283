package ops_test

import (
	"context"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/ufs/mem"
)

// TestManyFilesBeginAndEndTogether makes the calls of several files at once, of which
// some are refused: each has the answer that it has alone, and the others have theirs.
func TestManyFilesBeginAndEndTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Local, time.Minute)
		l := w.lead(ops.Options{MaxIntents: 5})
		n := w.node("n1", l)
		ctx := context.Background()
		finished := freshet.OpID{8}
		u := n.begin(freshet.BeginWriteQuery{Op: finished, Path: "/m/done", Node: n.id})
		u.send("x")
		if err := u.permit(); err != nil {
			t.Fatal(err)
		}
		wr, err := u.commit()
		if err != nil {
			t.Fatal(err)
		}
		done, err := l.Complete(ctx, finished, wr)
		if err != nil {
			t.Fatal(err)
		}
		op := func(b byte) freshet.OpID { return freshet.OpID{9, 15: b} }

		begun, err := l.BeginWrites(ctx, []freshet.BeginWriteQuery{
			{Op: op(1), Path: "/m/a"},
			{Op: op(2), Path: "/ro/b"},
			{Op: op(3), Path: "/m/c"},
			{Op: op(1), Path: "/m/a"},
			{Op: finished, Path: "/m/done"},
			{Op: op(3), Path: "/m/other"},
			{Op: op(4), Path: "/m/d", Write: 77},
		})
		if err != nil || len(begun) != 7 {
			t.Fatalf("begun %+v, %v", begun, err)
		}
		for _, i := range []int{0, 2, 3} {
			if begun[i].Err != nil || begun[i].Answer.Ticket.File == 0 {
				t.Errorf("begin %d: %+v", i, begun[i])
			}
		}
		if !reflect.DeepEqual(begun[0].Answer.Ticket, begun[3].Answer.Ticket) {
			t.Errorf("the same operation has two tickets: %+v, %+v", begun[0], begun[3])
		}
		if a := begun[4]; a.Err != nil || !a.Answer.Done || a.Answer.Completed.Token != done.Token {
			t.Errorf("an operation that is done: %+v", a)
		}
		kind(t, begun[1].Err, freshet.KindPermission, "read-only")
		kind(t, begun[5].Err, freshet.KindConflict, "in use for another operation")
		kind(t, begun[6].Err, freshet.KindInvalid, "not a write type")

		more, err := l.BeginWrites(ctx, []freshet.BeginWriteQuery{{Path: "/m/1"}, {Path: "/m/2"}, {Path: "/m/3"}, {Path: "/m/4"}})
		if err != nil || more[0].Err != nil || more[1].Err != nil || more[2].Err != nil {
			t.Fatalf("more: %+v, %v", more, err)
		}
		kind(t, more[3].Err, freshet.KindExhausted, "5 operations are open")

		permits, err := l.Permits(ctx, []freshet.PermitQuery{
			{Op: op(1), Node: n.id, Incarnation: n.inc, Length: -1}, {Op: op(3), Node: n.id, Incarnation: n.inc + 6}, {Op: op(8), Node: n.id, Incarnation: n.inc}, {Op: op(3), Node: "nobody", Incarnation: 1},
		})
		if err != nil || permits[0] != nil {
			t.Fatalf("permits: %v, %v", permits, err)
		}
		kind(t, permits[1], freshet.KindConflict, "runs with incarnation")
		kind(t, permits[2], freshet.KindNotExist, "not known")
		kind(t, permits[3], freshet.KindUnavailable, "has not sent a heartbeat")

		ended, err := l.Completes(ctx, []freshet.CompleteQuery{{Op: op(1)}, {Op: op(8)}, {Op: finished}})
		if err != nil || ended[0].Err != nil || ended[0].Answer.Info.Path != "/m/a" {
			t.Fatalf("ended: %+v, %v", ended, err)
		}
		kind(t, ended[1].Err, freshet.KindNotExist, "not known")
		if ended[2].Err != nil || ended[2].Answer.Token != done.Token {
			t.Errorf("an upload that had ended: %+v", ended[2])
		}
	})
}
