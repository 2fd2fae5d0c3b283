package coordinator_test

import (
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
)

// located returns the blocks of a whole file, however many answers that takes.
func (w *world) located(m *member, p freshet.Path) (info freshet.Info, blocks []freshet.Block, answers int) {
	w.Helper()
	for off := int64(0); ; answers++ {
		loc, err := m.Locate(w.Context(), freshet.LocateQuery{Path: p, Offset: off, Length: -1})
		if err != nil {
			w.Fatalf("locate %s at %d: %v", p, off, err)
		}
		if len(loc.Blocks) == 0 {
			return loc.Info, blocks, answers
		}
		blocks = append(blocks, loc.Blocks...)
		last := loc.Blocks[len(loc.Blocks)-1]
		off = last.Offset + last.Length
	}
}

// wantBlocks expects that the blocks of a file cover it in pieces of that size.
func (w *world) wantBlocks(m *member, p freshet.Path, size int64) freshet.FileID {
	w.Helper()
	info, blocks, _ := w.located(m, p)
	if info.BlockSize != size {
		w.Errorf("%s has blocks of %d, want %d", p, info.BlockSize, size)
	}
	at := int64(0)
	for i, b := range blocks {
		if int64(b.ID.Index) != int64(i) || b.ID.File != info.FileID || b.Offset != at || b.Length != min(size, info.Length-at) {
			w.Fatalf("%s: block %d is %+v", p, i, b)
		}
		at += b.Length
	}
	if at != info.Length {
		w.Errorf("%s: the blocks cover %d of %d bytes", p, at, info.Length)
	}
	return info.FileID
}

func TestABlockSizeAppliesToTheNextVersion(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{options: func(o *coordinator.Options) {
		o.Policies = []freshet.PolicyChange{policy("/", "block_size", "128KiB")}
	}}, func(w *world) {
		const length = 1<<20 + 5
		w.store.Put("d/f", make([]byte, length))
		w.store.Put("hot/f", make([]byte, length))
		m := w.leader()
		w.node(m, "n1")
		before := w.wantBlocks(m, "/data/d/f", 128<<10) // the policy that founded the cluster
		w.setPolicy(m, "/data/d", "block_size", "65536")
		w.setPolicy(m, "/data/hot", "block_size", "1MiB")
		w.wantBlocks(m, "/data/hot/f", 1<<20)
		// Nothing that is held changes, not by a look at the storage either.
		always := freshet.Always
		for _, o := range []freshet.ReadOptions{{}, {SyncInterval: &always}} {
			if _, err := m.Stat(w.Context(), "/data/d/f", o); err != nil {
				w.Fatal(err)
			}
			if id := w.wantBlocks(m, "/data/d/f", 128<<10); id != before {
				w.Errorf("version %d, was %d", id, before)
			}
		}
		if x, err := m.Explain(w.Context(), "/data/d/f", false); err != nil || x.Info.BlockSize != 128<<10 ||
			!strings.Contains(settings2text(x.Effective), "block_size=64KiB@/data/d by operator") {
			w.Errorf("explained as %+v, %s, %v", x.Info, settings2text(x.Effective), err)
		}
		w.store.Put("d/f", make([]byte, length+1))
		if _, err := m.Stat(w.Context(), "/data/d/f", freshet.ReadOptions{SyncInterval: &always}); err != nil {
			w.Fatal(err)
		}
		if id := w.wantBlocks(m, "/data/d/f", 64<<10); id == before {
			w.Error("another content has the same version")
		}
		// Writes say it to the node that takes them; one may name its own.
		for _, c := range []struct{ named, want int64 }{{0, 64 << 10}, {1 << 20, 1 << 20}} {
			a, err := m.BeginWrite(w.Context(), freshet.BeginWriteQuery{Path: "/data/d/new", BlockSize: c.named})
			if err != nil || a.Ticket.BlockSize != c.want {
				w.Errorf("%+v: %+v, %v", c, a.Ticket, err)
			}
		}
		// A member that takes over, or starts anew, goes on with all of it.
		w.halt(m)
		w.start(m, settings{}, nil, false)
		m = w.leader()
		w.node(m, "n1")
		w.wantBlocks(m, "/data/d/f", 64<<10)
		w.wantBlocks(m, "/data/hot/f", 1<<20)
	})
}

// A long file of small blocks is located in parts, each of which fits into a message.
func TestManyBlocksAreLocatedInParts(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("f", make([]byte, 40<<20+1))
		m := w.leader()
		w.node(m, "n1")
		w.setPolicy(m, "/data", "block_size", "64KiB")
		w.wantBlocks(m, "/data/f", 64<<10)
		if _, blocks, answers := w.located(m, "/data/f"); len(blocks) != 641 || answers != 3 {
			w.Errorf("%d blocks in %d answers", len(blocks), answers)
		}
		// Blocks that many nodes hold take more room.
		id := w.stat(m, "/data/f").Info.FileID
		var held []freshet.BlockReport
		for i := range uint32(641) {
			held = append(held, freshet.BlockReport{ID: freshet.BlockID{File: id, Index: i}, Length: 64 << 10})
		}
		for i := range 40 {
			name := "h" + string(rune('A'+i))
			w.beat(m, freshet.Heartbeat{Node: freshet.Node{ID: freshet.NodeID(name), Name: name, GRPC: name + ":7410"}, Incarnation: 1, Full: true, Added: held})
		}
		w.wantBlocks(m, "/data/f", 64<<10)
		if _, blocks, answers := w.located(m, "/data/f"); len(blocks) != 641 || answers != 7 {
			w.Errorf("%d blocks on 40 nodes in %d answers", len(blocks), answers)
		}
		if x, err := m.Explain(w.Context(), "/data/f", false); err != nil || len(x.Blocks) != 399 || x.MoreBlocks != 242 {
			w.Errorf("%d blocks are explained, %d not, %v", len(x.Blocks), x.MoreBlocks, err)
		}
	})
}

// A block size that one member would not heed is refused until it is upgraded.
func TestABlockSizeWaitsForAllMembers(t *testing.T) {
	t.Parallel()
	var w *world
	older := 3 // which knows no sizes of blocks
	inBubble(t, mixed(&w, &older), func(w *world) {
		time.Sleep(10 * time.Second) // fake time: all have announced themselves
		l, _ := w.inForce(older)
		if l.id == "c3" {
			if _, err := l.TransferLeadership(w.Context(), "c1"); err != nil {
				w.Fatal(err)
			}
			time.Sleep(10 * time.Second) // fake time
			l, _ = w.inForce(older)
		}
		for _, dry := range []bool{true, false} {
			ch := policy("/data", "block_size", "1MiB")
			ch.DryRun = dry
			_, err := l.ChangePolicy(w.Context(), ch)
			w.wantKind(err, freshet.KindUnsupported)
			if err != nil && !strings.Contains(err.Error(), "upgrade c3") {
				w.Errorf("the error does not say what to do: %v", err)
			}
		}
		w.setPolicy(l, "/data", "block_size", "64MiB")
	})
}
