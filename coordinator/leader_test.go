package coordinator_test

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/invalidation"
)

func TestTheClusterIsFoundedWithWhatTheConfigurationSays(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{members: 3}, func(w *world) {
		m := w.leader()
		s, err := m.Cluster(w.Context())
		if err != nil {
			w.Fatal(err)
		}
		if s.Name != "eu-west" || s.ID == (freshet.ClusterID{}) || s.Epoch == 0 || len(s.Members) != 3 || s.Mounts != 1 {
			w.Errorf("founded %+v", s)
		}
		mounts, index, err := m.Mounts(w.Context(), "")
		if err != nil || index == 0 || mounts[0].Mount.Origin != "config" || mounts[0].Mount.ID == 0 {
			w.Errorf("mounts %+v, %v", mounts, err)
		}
		time.Sleep(5 * time.Second) // the followers have heard of it
		for _, o := range w.members {
			if o != m {
				_, err := o.Cluster(w.Context())
				w.wantKind(err, freshet.KindNotLeader)
				var hint interface{ LeaderAddress() string }
				if !errors.As(err, &hint) || hint.LeaderAddress() != m.id+":7400" {
					w.Errorf("the error does not name the leader: %v", err)
				}
				if _, leads := o.Leading(); leads {
					w.Error("a follower says that it leads")
				}
			}
		}
	})
}

// TestWhoSaysThatItLeadsCarriesOutOperations asks for one as soon as that is said, in
// each of several terms.
func TestWhoSaysThatItLeadsCarriesOutOperations(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		m := w.members[0]
		for i := range 5 {
			for leads := false; !leads; {
				changed := m.Leadership()
				if _, leads = m.Leading(); !leads {
					<-changed
				}
			}
			if _, err := m.Mkdir(w.Context(), freshet.MkdirQuery{Path: freshet.Path(fmt.Sprintf("/data/d%d", i))}); err != nil {
				w.Errorf("term %d: %v", i, err)
			}
			w.halt(m)
			w.start(m, settings{}, nil, false)
		}
	})
}

func TestFollowersAnnounceThemselves(t *testing.T) {
	t.Parallel()
	var w *world
	inBubble(t, settings{members: 3, hooks: announcing(&w), world: &w}, func(w *world) {
		m := w.leader()
		time.Sleep(5 * time.Second)
		s, err := m.Cluster(w.Context())
		if err != nil {
			w.Fatal(err)
		}
		for _, o := range s.Members {
			if o.GRPC != o.ID+":7400" || !o.Voter {
				w.Errorf("member %+v", o)
			}
		}
		_, _, err = m.JoinRaft(w.Context(), freshet.Member{ID: "x", Raft: "x"}, "us-east")
		w.wantKind(err, freshet.KindConflict)
		w.wantKind(m.RemoveRaft(w.Context(), "nobody", false), freshet.KindNotExist)
		other := w.members[0]
		if other == m {
			other = w.members[1]
		}
		if err := m.RemoveRaft(w.Context(), other.id, true); err != nil {
			w.Error(err)
		}
		if err := m.RemoveRaft(w.Context(), other.id, false); err != nil {
			w.Error(err)
		}
		// It may not have heard of its removal, and must not undo it.
		_, _, err = m.JoinRaft(w.Context(), freshet.Member{ID: other.id, Raft: other.id, Voter: true}, "eu-west")
		w.wantKind(err, freshet.KindNotExist)
		time.Sleep(5 * time.Second)
		if s, err := m.Cluster(w.Context()); err != nil || len(s.Members) != 2 {
			w.Errorf("after the removal: %+v, %v", s.Members, err)
		}
	})
}

func TestARestartInOrderKeepsTheEpochAndWhatWasLoaded(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		w.stat(m, "/data/f")
		before := m.Publisher()
		time.Sleep(10 * time.Second)
		w.halt(m)
		w.start(m, settings{}, nil, false)
		w.leader()
		if got := m.Publisher(); got != before {
			w.Errorf("after an orderly restart: %+v, before %+v", got, before)
		}
		if n := w.asked(func() { w.stat(m, "/data/f") }); n != 0 {
			w.Errorf("after an orderly restart: %d looks", n)
		}
	})
}

// TestC22AnUncleanEndOfASingleMemberBeginsANewEpoch copies the directory of a
// running member, as a crash would leave it.
func TestC22AnUncleanEndOfASingleMemberBeginsANewEpoch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{disk: t.TempDir()})
	defer w.close()
	w.store.Put("f", []byte("one"))
	m := w.leader()
	w.stat(m, "/data/f")
	before := m.Publisher()
	heads, _ := m.Heads()
	if err := m.kv.Flush(); err != nil {
		t.Fatal(err)
	}
	crashed := t.TempDir()
	if err := os.CopyFS(crashed, os.DirFS(m.dir)); err != nil {
		t.Fatal(err)
	}
	store := m.kv.Crash()
	m.stop()
	t.Logf("the crashed run ended: %v", <-m.done)
	m.stop, m.kv = nil, store
	w.start(m, settings{disk: crashed}, nil, false)
	w.leader()
	got := m.Publisher()
	if got.Epoch <= before.Epoch || got.Cluster != before.Cluster {
		t.Errorf("after a crash: %+v, before %+v", got, before)
	}
	after, _ := m.Heads()
	if after[0].High != heads[0].High+1 {
		t.Errorf("nothing says that anything may have changed: %+v, before %+v", after, heads)
	}
	w.store.Put("f", []byte("three"))
	if st := w.stat(m, "/data/f"); st.Info.Length != 5 {
		t.Errorf("what was loaded before the crash is trusted: %+v", st.Info)
	}
}

func TestBumpEpoch(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		m := w.leader()
		before := m.Publisher().Epoch
		if e, err := m.BumpEpoch(w.Context(), true); err != nil || e <= before || m.Publisher().Epoch != before {
			w.Errorf("dry run: %d, %v", e, err)
		}
		if e, err := m.BumpEpoch(w.Context(), false); err != nil || e <= before || m.Publisher().Epoch != e {
			w.Errorf("%d, %v", e, err)
		}
		heads, _ := m.Heads()
		time.Sleep(2 * time.Minute) // C16: once more when no older effect can land any more
		if again, _ := m.Heads(); heads[0].High != 1 || again[0].High != 2 {
			w.Errorf("that anything may have changed was said %d times, then %d times", heads[0].High, again[0].High)
		}
	})
}

func TestC16ANewLeaderRepeatsThatAnythingMayHaveChanged(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{members: 3}, func(w *world) {
		m := w.leader()
		if _, err := m.BumpEpoch(w.Context(), false); err != nil {
			w.Fatal(err)
		}
		if _, err := m.TransferLeadership(w.Context(), ""); err != nil {
			w.Fatal(err)
		}
		next := w.leader()
		if heads, _ := next.Heads(); heads[0].High != 1 {
			w.Errorf("said %d times at once", heads[0].High)
		}
		time.Sleep(2 * time.Minute)
		if heads, _ := next.Heads(); heads[0].High != 2 {
			w.Errorf("said %d times in the end", heads[0].High)
		}
	})
}

func TestTheLeaderTidiesUp(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{options: func(o *coordinator.Options) {
		o.Retention = coordinator.Retention{Records: 10, Age: time.Minute, Most: 1 << 20}
	}}, func(w *world) {
		m := w.leader()
		const n = 3000
		for i := range n {
			// Each change of the mode of a missing path fails; a directory made twice is one record.
			if _, err := m.Mkdir(w.Context(), freshet.MkdirQuery{Path: freshet.Path("/data/d" + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676)))}); err != nil {
				w.Fatal(err)
			}
		}
		heads, _ := m.Heads()
		if heads[0].High != n || heads[0].Low != 1 {
			w.Fatalf("before: %+v", heads[0])
		}
		time.Sleep(5 * time.Minute)
		heads, changed := m.Heads()
		if heads[0].High != n || heads[0].Low != n-10+1 {
			w.Errorf("after: %+v", heads[0])
		}
		select {
		case <-changed:
			w.Error("the channel is closed and nothing changed")
		default:
		}
		_, err := m.Records(heads[0].Domain, 5, 10)
		w.wantKind(err, freshet.KindStale)
		// Old outcomes are forgotten a few times per hour; nothing else is to be done.
		if quiet := w.entries(m, func() { time.Sleep(time.Hour) }); quiet > 12 {
			w.Errorf("an idle cluster made %d log entries in an hour", quiet)
		}
	})
}

func TestVerifiedHeadsAndReset(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		p := newPeer(w, m)
		heads, err := m.VerifiedHeads(w.Context())
		if err != nil || len(heads) != 1 || heads[0].Domain != p.dom {
			w.Errorf("heads %+v, %v", heads, err)
		}
		w.stat(m, "/data/f")
		w.store.Put("f", []byte("three"))
		sub, err := m.Reset(w.Context(), p.pub, invalidation.Head{Domain: p.dom, Low: 1, High: 41})
		if err != nil || sub.Applied != 41 {
			w.Errorf("reset: %+v, %v", sub, err)
		}
		if st := w.stat(m, "/data/f"); st.Info.Length != 5 {
			w.Errorf("a reset marked nothing: %+v", st.Info)
		}
		w.store.Put("f", []byte("longer"))
		if err := m.Hint(w.Context(), p.dom, []invalidation.Record{{Seq: 99, Kind: invalidation.KindContent, Key: "/f"}}); err != nil {
			w.Error(err)
		}
		if st := w.stat(m, "/data/f"); st.Info.Length != 6 {
			w.Errorf("a hint marked nothing: %+v", st.Info)
		}
		if subs, err := m.Subscriptions(); err != nil || subs[0].Applied != 41 {
			w.Errorf("a hint advanced the position: %+v, %v", subs, err)
		}
		if err := m.Forget(w.Context(), p.pub.Cluster); err != nil {
			w.Error(err)
		}
		if subs, err := m.Subscriptions(); err != nil || len(subs) != 0 {
			w.Errorf("forgotten: %+v, %v", subs, err)
		}
		roots, _ := m.Roots()
		if len(roots) != 1 || roots[0].Key != "/" || roots[0].Authority != "mem://lake" {
			w.Errorf("roots %+v", roots)
		}
	})
}
