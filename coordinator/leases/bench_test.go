package leases_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/leases"
)

func benchTable(b *testing.B, sessions int) (*leases.Table, []*leases.Session) {
	b.Helper()
	t := leases.New(leases.Options{Length: time.Minute})
	t.Enter(1, leases.Allowed{})
	all := make([]*leases.Session, sessions)
	for i := range all {
		s, err := t.Open(b.Context(), freshet.LeaseID{}, func(context.Context, leases.Allowed) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
		all[i] = s
	}
	return t, all
}

// BenchmarkChange is what leases cost who changes a file: nobody has a session, some have
// one and keep nothing of it, or keep an answer about it, which each of them drops at once.
func BenchmarkChange(b *testing.B) {
	lines := func() []freshet.Path { return []freshet.Path{"/data/dir/file"} }
	change := func(b *testing.B, t *leases.Table) {
		b.Helper()
		release, err := t.Guard(b.Context(), 1, lines)
		if err != nil {
			b.Fatal(err)
		}
		release()
	}
	for _, n := range []int{0, 1, 1000} {
		b.Run(fmt.Sprintf("sessions=%d/kept=false", n), func(b *testing.B) {
			t, _ := benchTable(b, n)
			for b.Loop() {
				change(b, t)
			}
			t.Leave()
		})
	}
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("sessions=%d/kept=true", n), func(b *testing.B) {
			t, all := benchTable(b, n)
			for _, s := range all {
				go func() {
					for {
						k, err := s.Next(b.Context())
						if err != nil {
							return
						}
						_ = s.Ack(k.Number)
					}
				}()
			}
			for b.Loop() {
				b.StopTimer()
				for _, s := range all {
					t.Ask(s.ID(), "/data/dir/file").Grant(time.Minute)
				}
				b.StartTimer()
				change(b, t)
			}
			t.Leave()
		})
	}
}

// BenchmarkGrant is what a lease costs the answer that it is granted with.
func BenchmarkGrant(b *testing.B) {
	t, all := benchTable(b, 1)
	defer t.Leave()
	for i := 0; b.Loop(); i++ {
		if t.Ask(all[0].ID(), freshet.Path(fmt.Sprintf("/data/dir/file-%05d", i%50_000))).Grant(time.Minute) == 0 {
			b.Fatal("refused")
		}
	}
}
