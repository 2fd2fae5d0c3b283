package coordinator_test

import (
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// A leader writes the name of a session down and dies before it answers. The client comes
// to the next leader and names the session that it tried to have: no change waits for it.
func TestASessionWhoseLeaderDiedBeforeItAnswered(t *testing.T) {
	t.Parallel()
	for name, waits := range map[string]bool{"named": false, "not named": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const length = 10 * time.Second
			var announced *world
			inBubble(t, settings{members: 3, world: &announced, hooks: announcing(&announced), options: func(o *coordinator.Options) { o.Leases.Length = length }}, func(w *world) {
				m, _ := w.inForce(namespace.Version)
				first := freshet.LeaseOpening{ID: freshet.LeaseID{1}}
				s, err := m.OpenLeases(w.Context(), first)
				if err != nil || s.ID() != first.ID {
					w.Fatal(s, err) // this is the answer that nobody gets
				}
				w.net.Isolate(m.id)
				next := w.successor(m)
				second := freshet.LeaseOpening{ID: freshet.LeaseID{2}}
				if !waits {
					second.Unanswered = []freshet.LeaseID{first.ID}
				}
				if s, err = next.OpenLeases(w.Context(), second); err != nil || s.ID() != second.ID {
					w.Fatal(s, err)
				}
				defer s.Close()
				start := time.Now()
				if _, err := next.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/data/d"}); err != nil {
					w.Fatal(err)
				}
				if took := time.Since(start); (took > length/2) != waits {
					w.Errorf("the first change took %s", took)
				}
			})
		})
	}
}

// successor waits until another member than gone leads.
func (w *world) successor(gone *member) *member {
	w.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) { // fake time
		for _, m := range w.members {
			if m == gone {
				continue
			}
			if _, ok := m.Leading(); ok {
				return m
			}
		}
	}
	w.Fatal("nobody leads")
	return nil
}
