package coordinator_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

func (w *world) save(m *member) []byte {
	w.Helper()
	var b bytes.Buffer
	if err := m.SaveSnapshot(w.Context(), false, &b); err != nil {
		w.Fatal(err)
	}
	return b.Bytes()
}

func (w *world) restore(m *member, snapshot []byte, opts freshet.RestoreOptions) freshet.Restored {
	w.Helper()
	r, err := m.RestoreSnapshot(w.Context(), bytes.NewReader(snapshot), opts)
	if err != nil {
		w.Fatal(err)
	}
	return r
}

// agree waits until all members have the same state at one index.
func (w *world) agree() {
	w.Helper()
	for range 600 {
		hashes := map[[32]byte]bool{}
		indexes := map[uint64]bool{}
		for _, m := range w.members {
			h, err := m.StateHash(w.Context(), w.applied(w.leader()))
			if err != nil {
				w.Fatal(err)
			}
			hashes[h.Hash], indexes[h.Applied] = true, true
		}
		if len(indexes) == 1 {
			if len(hashes) != 1 {
				w.Fatal("the members have different states")
			}
			return
		}
		time.Sleep(100 * time.Millisecond) // fake time
	}
	w.Fatal("the members don't come to one index")
}

// TestC16ARestoreTrustsNothingFromBefore saves, changes the storage and the cluster,
// and restores: the mounts and policies are those of the snapshot, what was cached
// then is looked at before it is served, and the other clusters are told, twice.
func TestC16ARestoreTrustsNothingFromBefore(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3} {
		seeds := []freshet.MountChange{mount("/data", "mem://lake/d", freshet.Never)}
		inBubble(t, settings{members: n, seeds: seeds}, func(w *world) {
			w.store.Put("later/f", []byte("one"))
			w.store.Put("d/f", []byte("one"))
			w.store.Put("d/gone", []byte("x"))
			m := w.leader()
			w.stat(m, "/data/f")
			w.stat(m, "/data/gone")
			if _, err := m.SetPolicy(w.Context(), freshet.SyncPolicy{Path: "/data/kept", Interval: freshet.Never}, false); err != nil {
				w.Fatal(err)
			}
			snapshot := w.save(m)

			if _, err := m.AddMount(w.Context(), mount("/later", "mem://lake/later", freshet.Never)); err != nil {
				w.Fatal(err)
			}
			if _, err := m.RemovePolicy(w.Context(), "/data/kept", false); err != nil {
				w.Fatal(err)
			}
			w.store.Put("d/f", []byte("three"))
			w.store.Remove("d/gone")
			if st := w.stat(m, "/data/f"); st.Info.Length != 3 {
				w.Fatalf("the change was seen before it was looked for: %+v", st.Info)
			}
			before := m.Publisher()
			heads, _ := m.Heads()
			if r := w.restore(m, snapshot, freshet.RestoreOptions{DryRun: true}); r.Epoch != 0 || r.Entries == 0 || r.Mounts != 1 || r.ReplacedEntries == 0 {
				w.Errorf("dry run: %+v", r)
			}
			if got := m.Publisher(); got != before {
				w.Errorf("a dry run made %+v of %+v", got, before)
			}

			r := w.restore(m, snapshot, freshet.RestoreOptions{})
			m = w.leader()
			got := m.Publisher()
			if got.Cluster != before.Cluster || got.Name != before.Name || got.Epoch <= before.Epoch || got.Epoch != r.Epoch {
				w.Errorf("after the restore %+v, before %+v, answer %+v", got, before, r)
			}
			if st := w.stat(m, "/data/f"); st.Info.Length != 5 {
				w.Errorf("what the snapshot knew is served: %+v", st.Info)
			}
			w.statKind(m, "/data/gone", freshet.KindNotExist)
			mounts, _, err := m.Mounts(w.Context(), "")
			if err != nil || len(mounts) != 1 || mounts[0].Mount.Path != "/data" {
				w.Errorf("mounts %+v, %v", mounts, err)
			}
			policies, err := m.Policies(w.Context(), "/data/kept")
			if err != nil || len(policies) == 0 || policies[0].Path != "/data/kept" {
				w.Errorf("policies %+v, %v", policies, err)
			}
			after, _ := m.Heads()
			if after[0].High != heads[0].High+1 {
				w.Errorf("log %+v after, %+v before", after, heads)
			}
			time.Sleep(2 * time.Minute)
			if again, _ := m.Heads(); again[0].High != after[0].High+1 {
				w.Errorf("it was not said once more that anything may have changed: %+v", again)
			}
			if n == 3 {
				w.agree()
			}
			// New mounts and writes go on, on all members.
			if _, err := m.AddMount(w.Context(), mount("/later", "mem://lake/later", freshet.Never)); err != nil {
				w.Error(err)
			}
			if _, err := m.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/data/made"}); err != nil {
				w.Error(err)
			}
			w.agree()
		})
	}
}

func TestRestoredMembersComeBackFromACrash(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{members: 3}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		w.stat(m, "/data/f")
		snapshot := w.save(m)
		w.restore(m, snapshot, freshet.RestoreOptions{})
		epoch := w.leader().Publisher().Epoch
		for _, m := range w.members {
			w.halt(m)
			w.start(m, settings{}, nil, false)
			w.stat(w.leader(), "/data/f")
		}
		if got := w.leader().Publisher().Epoch; got != epoch {
			w.Errorf("epoch %d after the restarts, %d before", got, epoch)
		}
		w.agree()
		w.restore(w.leader(), snapshot, freshet.RestoreOptions{}) // again and again
		w.agree()
	})
}

func TestRestoreRefusesWhatIsNotItsOwnOrDamaged(t *testing.T) {
	t.Parallel()
	var w *world
	inBubble(t, settings{members: 3, world: &w, hooks: announcing(&w)}, func(w *world) {
		m, _ := w.inForce(namespace.Version)
		own := w.save(m)
		other := w.sibling(settings{cluster: "us-east", seeds: []freshet.MountChange{mount("/theirs", "mem://lake/theirs", freshet.Never)}})
		defer other.close()
		foreign := other.save(other.leader())
		before := m.Publisher()
		try := func(what string, snapshot []byte, kind freshet.Kind) {
			_, err := m.RestoreSnapshot(w.Context(), bytes.NewReader(snapshot), freshet.RestoreOptions{})
			if !freshet.IsKind(err, kind) {
				w.Errorf("%s: %v", what, err)
			}
		}
		try("foreign", foreign, freshet.KindConflict)
		try("empty", nil, freshet.KindCorrupt)
		try("cut", own[:len(own)/2], freshet.KindCorrupt)
		for i := range own {
			if i%37 == 0 {
				damaged := bytes.Clone(own)
				damaged[i] ^= 1
				if _, err := m.RestoreSnapshot(w.Context(), bytes.NewReader(damaged), freshet.RestoreOptions{Force: true}); err == nil {
					w.Errorf("damaged at %d: it was restored", i)
				}
			}
		}
		for _, o := range w.members {
			if o != m {
				_, err := o.RestoreSnapshot(w.Context(), bytes.NewReader(own), freshet.RestoreOptions{})
				w.wantKind(err, freshet.KindNotLeader)
				w.wantKind(o.SaveSnapshot(w.Context(), false, &bytes.Buffer{}), freshet.KindNotLeader)
				if err := o.SaveSnapshot(w.Context(), true, &bytes.Buffer{}); err != nil {
					w.Error(err)
				}
			}
		}
		canceled, cancel := context.WithCancel(w.Context())
		cancel()
		if err := m.SaveSnapshot(canceled, true, &bytes.Buffer{}); err == nil {
			w.Error("a snapshot that nobody waits for was made")
		}
		if got := m.Publisher(); got != before {
			w.Errorf("%+v became %+v", before, got)
		}

		w.restore(m, foreign, freshet.RestoreOptions{Force: true})
		m = w.leader()
		got := m.Publisher()
		mounts, _, err := m.Mounts(w.Context(), "")
		if got.Cluster != before.Cluster || got.Name != "eu-west" || err != nil || len(mounts) != 1 || mounts[0].Mount.Path != "/theirs" {
			w.Errorf("by force: %+v, %+v, %v", got, mounts, err)
		}
		s, err := m.Cluster(w.Context())
		if err != nil || len(s.Members) != 3 || s.Members[0].GRPC == "" {
			w.Errorf("members %+v, %v", s.Members, err)
		}
		w.agree()
	})
}
