package sim_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/ufs/mem"
)

// keepFile writes a new version of a file that stays on nodes, and returns its attempt.
func (s *site) keepFile(key string, write freshet.WriteType, replicas int) *attempt {
	s.w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		s.w.hist.mu.Lock()
		length := 100 + len(s.w.hist.contents) // no two are equally long
		s.w.hist.mu.Unlock()
		v, data := s.w.hist.newVersion(s, length)
		a := &attempt{site: s, op: freshet.OpID(uuid.New()), what: "write", key: key, version: v, write: write, replicas: replicas}
		s.w.hist.begin(a)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		_, err := s.client().Write(ctx, s.pathOf(key), bytes.NewReader(data), client.WriteOptions{
			Op: a.op, Length: int64(len(data)), BlockSize: freshet.MinBlockSize, Write: write, DurableReplicas: replicas,
		})
		cancel()
		if err == nil {
			s.w.hist.end(a, acked, nil)
			s.w.durable(a)
			return a
		}
		s.w.hist.end(a, refused, err)
		if time.Now().After(deadline) {
			s.w.t.Fatal(err)
		}
	}
}

// holder returns the node on whose disk a version is, and the others.
func (s *site) holder(a *attempt) (first *node, others []*node) {
	for _, n := range s.nodes {
		if first == nil && n.media().has(a.file, a.blocks) {
			first = n
			continue
		}
		others = append(others, n)
	}
	return first, others
}

func threeNodes(s *settings) { s.nodes, s.kept = 3, true }

// TestALostVersionIsToldAndNeverReplaced: the only disk that a version is on, which the
// storage has not, is gone. The older version that the storage has is not shown in its
// place, here, and nothing else is where nobody wrote; the file can be written again.
func TestALostVersionIsToldAndNeverReplaced(t *testing.T) {
	t.Parallel()
	corner(t, threeNodes, func(w *world, west, east *site) {
		older := west.mustPut("/team/f0")
		a := west.keepFile("/team/f0", freshet.MustCache, 0)
		w.want(west, "/team/f0", a.version)
		n, _ := west.holder(a)
		n.crashFor(20*time.Second, true)
		time.Sleep(15 * time.Second)
		w.readable(west, west.client(), "/team/f0", a)
		if w.stay.lost != 1 {
			t.Errorf("%d lost versions were told", w.stay.lost)
		}
		time.Sleep(10 * time.Second)
		w.readable(west, west.client(), "/team/f0", a)
		w.want(east, "/team/f0", older)
		again := west.keepFile("/team/f0", freshet.AsyncThrough, 0)
		w.want(west, "/team/f0", again.version)
		w.hist.calm()
		if w.persisted() && w.quiet() {
			w.want(east, "/team/f0", again.version)
		}
	})
}

// TestTwoCopiesSurviveADisk: a version that two nodes promised to keep is readable when one
// of them is gone with its disk, is kept by a third one, and survives the second disk too.
func TestTwoCopiesSurviveADisk(t *testing.T) {
	t.Parallel()
	corner(t, threeNodes, func(w *world, west, _ *site) {
		w.until(time.Minute, "nodes", func() string { return west.unsettled() })
		a := west.keepFile("/team/f0", freshet.MustCache, 2)
		for range 2 {
			n, _ := west.holder(a)
			n.crashFor(10*time.Second, true)
			time.Sleep(time.Second)
			w.readable(west, west.client(), "/team/f0", a)
			if !w.until(time.Minute, "kept by two again", func() string {
				if len(west.holders(a.file, a.blocks)) < 2 {
					return "it is on one disk"
				}
				return west.unsettled()
			}) {
				return
			}
			time.Sleep(5 * time.Second) // until the leader counts the copy
		}
		w.readable(west, west.client(), "/team/f0", a)
		if w.stay.lost != 0 {
			t.Error("it was lost")
		}
	})
}

// TestAVersionIsBackWithItsNode: while the only node that has it is away, it is told to be,
// and it is read again when the node is back.
func TestAVersionIsBackWithItsNode(t *testing.T) {
	t.Parallel()
	corner(t, threeNodes, func(w *world, west, _ *site) {
		older := west.mustPut("/team/f0")
		a := west.keepFile("/team/f0", freshet.MustCache, 1)
		n, _ := west.holder(a)
		n.crashFor(20*time.Second, false)
		time.Sleep(10 * time.Second)
		_, err := west.client().Open(context.Background(), west.pathOf("/team/f0"), client.Whole())
		if !freshet.IsKind(err, freshet.KindUnavailable) {
			t.Errorf("while its node is away: %v (the storage has version %d)", err, older)
		}
		time.Sleep(15 * time.Second)
		w.want(west, "/team/f0", a.version)
	})
}

// TestWhatADeadNodeWroteIsNoConflict: the storage, which marks nothing, has a version whose
// node died before it could say so. A version that was not in the storage, written before it
// or after, is persisted, or gone if it was replaced.
func TestWhatADeadNodeWroteIsNoConflict(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		corner(t, func(s *settings) { threeNodes(s); s.mode = mem.Local }, func(w *world, west, east *site) {
			west.mustPut("/team/f0")
			want := 0
			if !after {
				want = west.keepFile("/team/f0", freshet.MustCache, 1).version
			}
			for _, n := range west.nodes {
				n.dieAt("after-commit")
			}
			v, data := w.hist.newVersion(west, 200)
			a := &attempt{site: west, op: freshet.OpID(uuid.New()), what: "write", key: "/team/f0", version: v}
			w.hist.begin(a)
			_, err := west.client().Write(context.Background(), west.pathOf(a.key), bytes.NewReader(data), client.WriteOptions{Op: a.op, Length: int64(len(data))})
			if w.hist.end(a, unknown, err); err == nil || !w.bucket.holds(a.key, v) {
				t.Errorf("%v, and the storage has version %d", err, w.bucket.version(a.key))
			}
			for _, n := range west.nodes {
				n.dieAt("")
			}
			if after {
				want = west.keepFile("/team/f0", freshet.MustCache, 1).version
			}
			w.hist.calm()
			if w.persisted() && w.quiet() {
				if !after {
					want = v
				}
				w.want(east, "/team/f0", want)
			}
			if w.stay.conflicts != 0 {
				t.Errorf("after %t: %d conflicts", after, w.stay.conflicts)
			}
		})
	}
}
