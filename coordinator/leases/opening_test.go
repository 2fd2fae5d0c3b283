package leases_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/leases"
)

// A leader that names a session and dies before it answers leaves it to nobody but who
// asked for it: by the name that it chose the next leader need not wait for it.
func TestASessionThatWasNotAnswered(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]time.Duration{"named": 0, "not named": freshet.AwaitFor(length)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, leases.Options{}, func(w *world) {
				s := w.open(freshet.LeaseID{})
				w.lease(s, "/f")
				s.Close()
				next := freshet.LeaseOpening{ID: freshet.LeaseID{1}, Previous: s.ID()}
				w.Release(&next)
				if _, err := w.Table.Open(w.Context(), next.ID, func(ctx context.Context, a leases.Allowed) error {
					defer w.Leave() // what the state says now, it says to the next leader
					return w.allow(ctx, a)
				}); !freshet.IsKind(err, freshet.KindNotLeader) {
					w.Fatalf("the session began: %v", err)
				}
				if !slices.Equal(w.allowed.Holders, []freshet.LeaseID{next.ID}) {
					w.Fatalf("the state names %s", w.allowed.Holders)
				}
				w.Enter(2, w.allowed)
				again := freshet.LeaseOpening{ID: freshet.LeaseID{2}, Previous: s.ID()}
				if want == 0 {
					again.Unanswered = []freshet.LeaseID{next.ID}
				}
				w.Release(&again)
				if s, err := w.Table.Open(w.Context(), again.ID, w.allow); err != nil || s.ID() != again.ID {
					w.Fatal(s, err)
				}
				start := time.Now()
				release, err := w.Guard(w.Context(), 2, func() []freshet.Path { return []freshet.Path{"/f"} })
				if took := time.Since(start); err != nil || took != want {
					w.Fatalf("the first change waited %s, want %s: %v", took, want, err)
				}
				release()
			})
		})
	}
}

// A name that is in use, or that earlier leaders knew, is nobody else's.
func TestANameIsUsedOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, leases.Options{}, func(w *world) {
		s := w.open(freshet.LeaseID{})
		w.lease(s, "/f")
		taken := func(what string) {
			w.Helper()
			if _, err := w.Table.Open(w.Context(), s.ID(), w.allow); !freshet.IsKind(err, freshet.KindExist) {
				w.Errorf("%s: %v", what, err)
			}
		}
		taken("it is open")
		s.Close()
		taken("it keeps something")
		w.Leave()
		w.Enter(2, w.allowed)
		taken("it may keep something of the term before")
		// Once forgotten it may be had, and what was before does not end it.
		w.Release(&freshet.LeaseOpening{Previous: s.ID()})
		again, err := w.Table.Open(w.Context(), s.ID(), w.allow)
		if err != nil {
			w.Fatal(err)
		}
		w.lease(again, "/f")
		again.Close()
		w.Release(&freshet.LeaseOpening{Previous: s.ID()})
		if again, err = w.Table.Open(w.Context(), s.ID(), w.allow); err != nil {
			w.Fatal(err)
		}
		time.Sleep(freshet.AwaitFor(length)) // fake time: for what the one before kept
		for range 2 {
			if got := w.lease(again, "/f"); got != length {
				w.Errorf("granted %s", got)
			}
		}
		if n, _ := w.Counts(); n != 1 {
			w.Errorf("%d sessions", n)
		}
	})
}
