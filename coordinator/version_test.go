package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// announcing has the members of a world announce themselves to their leader.
func announcing(w **world) coordinator.Hooks {
	return coordinator.Hooks{Announce: func(ctx context.Context, leader string, self freshet.Member) error {
		for _, m := range (*w).members {
			if m.id+":7400" == leader {
				_, _, err := m.JoinRaft(ctx, self, "eu-west")
				return err
			}
		}
		return errors.New("nobody is at " + leader)
	}}
}

// mixed is a cluster of three of which the last applies an older version.
func mixed(w **world, older *int) settings {
	return settings{
		members: 3, world: w, hooks: announcing(w),
		options: func(o *coordinator.Options) {
			if o.Member.ID == "c3" {
				o.Applies = *older
			}
		},
	}
}

// inForce waits until the leader says that a version is in force.
func (w *world) inForce(version int) (leader *member, s freshet.ClusterStatus) {
	w.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) { // fake time
		var err error
		leader = w.leader()
		if s, err = leader.Cluster(w.Context()); err == nil && s.StateVersion == version {
			return leader, s
		}
	}
	w.Fatalf("version %d is in force, want %d", s.StateVersion, version)
	return nil, s
}

func TestNothingIsProposedThatAMemberCannotApply(t *testing.T) {
	t.Parallel()
	var w *world
	older := namespace.Version - 1
	s := mixed(&w, &older)
	inBubble(t, s, func(w *world) {
		w.leader()
		time.Sleep(10 * time.Second) // fake time: all have announced themselves
		l, status := w.inForce(older)
		if l.id == "c3" {
			next, err := l.TransferLeadership(w.Context(), "c1")
			if err != nil {
				w.Fatal(next, err)
			}
			time.Sleep(10 * time.Second) // fake time
			l, status = w.inForce(older)
		}
		newer := namespace.Command{SetVersion: &namespace.SetVersion{Version: namespace.Version}}
		err := l.Gate(newer)
		w.wantKind(err, freshet.KindUnsupported)
		if !strings.Contains(err.Error(), "upgrade c3") {
			w.Errorf("the error does not say what to do: %v", err)
		}
		want := fmt.Sprintf("member c3 applies version %d of the state, the leader %d: upgrade it", older, namespace.Version)
		if all := strings.Join(status.Problems, "\n"); !strings.Contains(all, want) {
			w.Errorf("problems: %s", all)
		}
		// The others are started anew meanwhile: nothing changes.
		for _, m := range w.members[:2] {
			w.halt(m)
			w.start(m, s, nil, false)
			time.Sleep(10 * time.Second) // fake time
			w.inForce(older)
		}
		// The last is upgraded.
		w.halt(w.members[2])
		older = namespace.Version
		w.start(w.members[2], s, nil, false)
		l, status = w.inForce(namespace.Version)
		if err := l.Gate(newer); err != nil {
			w.Error(err)
		}
		for _, p := range status.Problems {
			if strings.Contains(p, "version") {
				w.Errorf("problem: %s", p)
			}
		}
		time.Sleep(10 * time.Second) // fake time: the others have it too
		w.refusesOlder(l, s)
	})
}

// refusesOlder expects that members of an older release can't come into the cluster
// any more.
func (w *world) refusesOlder(l *member, s settings) {
	w.Helper()
	_, _, err := l.JoinRaft(w.Context(), freshet.Member{ID: "c4", Name: "c4", Raft: "c4", StateVersion: namespace.Version - 1}, "eu-west")
	w.wantKind(err, freshet.KindUnsupported)
	if !strings.Contains(err.Error(), "upgrade it") {
		w.Errorf("the error does not say what to do: %v", err)
	}
	if status, err := l.Cluster(w.Context()); err != nil || len(status.Members) != 3 {
		w.Errorf("%+v, %v", status.Members, err)
	}
	m := w.members[2]
	w.halt(m)
	opts := coordinator.Options{
		Cluster: "eu-west", Member: namespace.Member{ID: m.id}, Applies: namespace.Version - 1,
		Journal: journal.Options{Memory: m.log, Network: w.net, Advertise: m.id},
	}
	_, err = coordinator.New(opts, coordinator.Deps{Store: m.kv, Openers: w.openers})
	w.wantKind(err, freshet.KindUnsupported)
	w.start(m, s, nil, false)
}

// A change that needs a newer version says so, and works once that is in force.
func TestAFeatureWaitsForItsVersion(t *testing.T) {
	t.Parallel()
	var w *world
	older := namespace.Version - 1
	s := mixed(&w, &older)
	inBubble(t, s, func(w *world) {
		for _, m := range w.members {
			m.Need(func(c *namespace.Command) int {
				if c.SetPolicy != nil || c.ChangePolicy != nil {
					return namespace.Version
				}
				return namespace.Needs(c)
			})
		}
		time.Sleep(10 * time.Second) // fake time
		l, _ := w.inForce(older)
		set := func() error {
			_, err := l.SetPolicy(w.Context(), freshet.SyncPolicy{Path: "/data", Interval: freshet.Never}, false)
			return err
		}
		w.wantKind(set(), freshet.KindUnsupported)
		// The oldest member is removed instead of upgraded.
		if l.id == "c3" {
			if _, err := l.TransferLeadership(w.Context(), "c1"); err != nil {
				w.Fatal(err)
			}
			time.Sleep(10 * time.Second) // fake time
			l, _ = w.inForce(older)
		}
		if err := l.RemoveRaft(w.Context(), "c3", false); err != nil {
			w.Fatal(err)
		}
		l, _ = w.inForce(namespace.Version)
		if err := set(); err != nil {
			w.Error(err)
		}
	})
}
