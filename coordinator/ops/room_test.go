package ops_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs/mem"
)

// keepFile has a file acknowledged that only its node has.
func keepFile(t *testing.T, l *leader, q freshet.BeginWriteQuery, nodes map[freshet.NodeID]*node) freshet.Ticket {
	t.Helper()
	ctx := context.Background()
	a, err := l.BeginWrite(ctx, q)
	if err != nil {
		t.Fatal(err)
	}
	w := freshet.Written{Length: *q.Length, ModTime: time.Now(), Fingerprint: fingerprint.Unpersisted(uint64(a.Ticket.File))}
	if _, err := l.Complete(ctx, q.Op, w); err != nil {
		t.Fatal(err)
	}
	hold(a.Ticket.File, w.Length, nodes[a.Ticket.Node.ID])
	return a.Ticket
}

// TestAFileGoesWhereThereIsRoom: not to a node that is full of what it keeps; with room
// nowhere a write is refused, unless what is kept is on its way to the storage.
func TestAFileGoesWhereThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Local, time.Minute)
		l := w.lead(ops.Options{})
		nodes := map[freshet.NodeID]*node{"n1": w.keeper("n1", l), "n2": w.keeper("n2", l)} // of 1 GiB each
		beats := func() {
			t.Helper()
			for range 8 {
				<-time.After(time.Second)
				for _, n := range nodes {
					n.beat()
				}
			}
		}
		length := int64(600 << 20)
		q := func(n byte, p freshet.Path) freshet.BeginWriteQuery {
			return freshet.BeginWriteQuery{Op: freshet.OpID{n}, Path: p, Node: "n1", Write: freshet.MustCache, Length: &length, BlockSize: 1 << 30}
		}
		begin := func(q freshet.BeginWriteQuery) (freshet.NodeID, error) {
			t.Helper()
			a, err := l.BeginWrite(context.Background(), q)
			return a.Ticket.Node.ID, err
		}
		if at := keepFile(t, l, q(1, "/m/a"), nodes).Node.ID; at != "n1" {
			t.Fatalf("kept by %s", at)
		}
		if at := keepFile(t, l, q(2, "/m/b"), nodes).Node.ID; at != "n2" { // at once
			t.Fatalf("kept by %s, which is full", at)
		}
		beats()
		both := q(3, "/m/c")
		both.DurableReplicas = 2
		for _, q := range []freshet.BeginWriteQuery{q(3, "/m/c"), both} {
			_, err := begin(q)
			kind(t, err, freshet.KindExhausted, "the most room has 424MiB, and files that are not in the storage and do not wait to be persisted take 1200MiB")
		}
		if len(w.state.Intents()) != 0 {
			t.Error("an operation began")
		}
		small := q(3, "/m/small")
		short := int64(400 << 20)
		small.Length = &short
		if at, err := begin(small); at != "n1" || err != nil {
			t.Errorf("the small one is sent to %s, %v", at, err)
		}
		if err := l.AbortWrite(context.Background(), small.Op); err != nil {
			t.Fatal(err)
		}
		// What is on its way to the storage leaves: the writer waits.
		var files []freshet.FileID
		all, err := l.Kept()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if f.Nodes[0] == "n2" {
				files = append(files, f.File)
			}
		}
		w.apply(namespace.Command{QueuePersist: &namespace.QueuePersist{Files: files}})
		if at, err := begin(q(4, "/m/d")); at != "n2" || err != nil {
			t.Errorf("while n2 persists, it is sent to %s, %v", at, err)
		}
		_, err = begin(both)
		kind(t, err, freshet.KindExhausted, "asks for 2 cache nodes, and 1 have room")
	})
}

// TestWhatIsWithdrawnLeavesNothing: the node that was persisting a file may be dead when
// the file is renamed, replaced or removed.
func TestWhatIsWithdrawnLeavesNothing(t *testing.T) {
	for name, change := range map[string]func(context.Context, *leader) error{
		"remove": func(ctx context.Context, l *leader) error {
			_, err := l.Remove(ctx, freshet.RemoveQuery{Op: freshet.OpID{9}, Path: "/m/f"})
			if freshet.IsKind(err, freshet.KindNotExist) { // in the storage
				err = nil
			}
			return err
		},
		"rename": func(ctx context.Context, l *leader) error {
			_, err := l.Rename(ctx, freshet.RenameQuery{Op: freshet.OpID{9}, Path: "/m/f", Target: "/m/g"})
			return err
		},
		"replace": func(ctx context.Context, l *leader) error {
			length := int64(3)
			q := freshet.BeginWriteQuery{Op: freshet.OpID{9}, Path: "/m/f", Write: freshet.MustCache, Length: &length}
			a, err := l.BeginWrite(ctx, q)
			if err != nil {
				return err
			}
			_, err = l.Complete(ctx, q.Op, freshet.Written{Length: 3, ModTime: time.Now(), Fingerprint: fingerprint.Unpersisted(uint64(a.Ticket.File))})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, mem.Object, time.Minute)
				l := w.lead(ops.Options{})
				n := w.keeper("n1", l)
				length := int64(3)
				keepFile(t, l, freshet.BeginWriteQuery{Op: freshet.OpID{1}, Path: "/m/f", Write: freshet.AsyncThrough, Length: &length}, map[freshet.NodeID]*node{"n1": n})
				w.until(5*time.Second, "it is ordered", func() bool {
					n.beat()
					return len(n.reply.Persist) == 1
				})
				o := n.reply.Persist[0]
				u, err := n.fs.Create(t.Context(), o.Target.Key, createOptions(o.Op))
				if err == nil {
					_, err = u.Write([]byte("abc"))
				}
				if err != nil || w.store.Uploads() != 1 {
					t.Fatal(err)
				}
				if err := change(context.Background(), l); err != nil {
					t.Fatal(err)
				}
				w.until(time.Second, "nothing is left", func() bool { return w.store.Uploads() == 0 })
			})
		})
	}
}

// TestWhatIsInMemoryAlone is known of a file until a disk has it.
func TestWhatIsInMemoryAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Local, time.Minute)
		l := w.lead(ops.Options{})
		m, d := w.node("m", l), w.keeper("d", l)
		m.inMemory = true
		m.beat()
		length := int64(3)
		for i, id := range []freshet.NodeID{"m", "d"} {
			q := freshet.BeginWriteQuery{Op: freshet.OpID{byte(i + 1)}, Path: freshet.Path("/m/" + id), Node: id, Write: freshet.MustCache, Length: &length}
			file := keepFile(t, l, q, map[freshet.NodeID]*node{"m": m, "d": d}).File
			if f, ok := w.state.UnpersistedOf(file); !ok || f.Nodes[0] != id || f.Memory != (id == "m") {
				t.Errorf("of %s: %+v", id, f)
			}
			w.apply(namespace.Command{AddKeeper: &namespace.AddKeeper{File: file, Node: "other"}})
			if f, ok := w.state.UnpersistedOf(file); !ok || f.Memory {
				t.Errorf("with a copy on a disk: %+v", f)
			}
		}
	})
}

// TestNoNodeThatKeepsLives is not the same as that there is none.
func TestNoNodeThatKeepsLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Local, time.Minute)
		l := w.lead(ops.Options{})
		m := w.node("memory", l)
		q := freshet.BeginWriteQuery{Op: freshet.OpID{1}, Path: "/m/a", Write: freshet.AsyncThrough}
		begin := func() error {
			_, err := l.BeginWrite(context.Background(), q)
			return err
		}
		kind(t, begin(), freshet.KindUnavailable, "bring one back") // others may not have been heard yet
		m.beatFor(10 * time.Second)
		kind(t, begin(), freshet.KindUnsupported, "needs a node with a cache tier on a disk")
		w.keeper("n1", l)
		m.beatFor(10 * time.Second) // without n1
		kind(t, begin(), freshet.KindUnavailable, "bring one back")
	})
}

// TestALeaderThatHasJustBegunDoesNotSayThatThereIsNoRoom: other nodes may be on their way.
func TestALeaderThatHasJustBegunDoesNotSayThatThereIsNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Local, time.Minute)
		l := w.lead(ops.Options{})
		nodes := map[freshet.NodeID]*node{"n1": w.keeper("n1", l)} // of 1 GiB
		length := int64(600 << 20)
		q := freshet.BeginWriteQuery{Op: freshet.OpID{1}, Path: "/m/a", Node: "n1", Write: freshet.MustCache, Length: &length, BlockSize: 1 << 30}
		keepFile(t, l, q, nodes)
		q.Op, q.Path = freshet.OpID{2}, "/m/b"
		beats := func(n int) {
			for range n {
				<-time.After(time.Second)
				nodes["n1"].beat()
			}
		}
		beats(3)
		_, err := l.BeginWrite(context.Background(), q)
		kind(t, err, freshet.KindUnavailable, "has not heard from all cache nodes yet")
		beats(5)
		_, err = l.BeginWrite(context.Background(), q)
		kind(t, err, freshet.KindExhausted, "no cache node has room")
	})
}
