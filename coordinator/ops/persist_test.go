package ops_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/ufs/mem"
)

// TestWhatNoNodeCanPersistHoldsUpNoOtherFile, however many older files that is: their node
// is lost, does not have their bytes any more, or does nothing but wait for its storage.
func TestWhatNoNodeCanPersistHoldsUpNoOtherFile(t *testing.T) {
	const older = 1200 // more than are looked at in one pass
	for name, stuck := range map[string]func(n *node){
		"lost":    func(n *node) { n.to = nil },
		"emptied": func(n *node) { clear(n.blocks); n.told = false },
		"waiting": func(*node) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, mem.Local, time.Minute)
				l := w.lead(ops.Options{})
				a, b := w.keeper("n1", l), w.keeper("n2", l)
				seconds := func(n int) {
					t.Helper()
					for range n {
						<-time.After(time.Second)
						for _, n := range []*node{a, b} {
							if n.to != nil {
								n.beat()
							}
						}
					}
				}
				length := int64(3)
				var oldest []freshet.FileID
				keep := func(i int, n *node) {
					t.Helper()
					q := freshet.BeginWriteQuery{Op: freshet.OpID{1, byte(i >> 8), byte(i)}, Path: freshet.Path(fmt.Sprintf("/m/f%d", i)), Node: n.id, Write: freshet.MustCache, Length: &length}
					at := keepFile(t, l, q, map[freshet.NodeID]*node{n.id: n})
					if at.Node.ID != n.id {
						t.Fatalf("kept by %s", at.Node.ID)
					}
					oldest = append(oldest, at.File)
				}
				for i := range older {
					keep(i, a)
				}
				stuck(a)
				seconds(10)
				keep(older, b)
				all, err := l.Kept()
				if err != nil || len(all) != older+1 {
					t.Fatalf("%d files, %v", len(all), err)
				}
				queue := &namespace.QueuePersist{At: time.Now()}
				for i := range all {
					queue.Files = append(queue.Files, all[i].File)
				}
				w.apply(namespace.Command{QueuePersist: queue})
				seconds(5)
				if len(b.reply.Persist) != 1 || b.reply.Persist[0].Path != freshet.Path(fmt.Sprintf("/m/f%d", older)) {
					t.Errorf("the other node is ordered %+v", b.reply.Persist)
				}
				var got, want []freshet.FileID // of the oldest, as many as one node may have
				for _, o := range a.reply.Persist {
					got = append(got, o.File)
				}
				if name == "waiting" {
					want = oldest[:32]
				}
				if slices.Sort(got); !slices.Equal(got, want) {
					t.Errorf("the node of the older files is ordered %v, want %v", got, want)
				}
			})
		})
	}
}
