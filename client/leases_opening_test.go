package client_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/rpc"
)

// namedAll checks that each opening since the last session names all attempts before it,
// and none twice.
func (k *keeper) namedAll() {
	k.Helper()
	k.l.mu.Lock()
	defer k.l.mu.Unlock()
	var tried []freshet.LeaseID
	if len(k.l.opens) < 3 {
		k.Errorf("%d were opened", len(k.l.opens))
	}
	for _, o := range k.l.opens[1:] { // the first was answered
		if !slices.Equal(o.Unanswered, tried) {
			k.Errorf("an opening names %s as unanswered, want %s", o.Unanswered, tried)
		}
		if o.ID.IsZero() || slices.Contains(tried, o.ID) {
			k.Errorf("the name %s is used again", o.ID)
		}
		tried = append(tried, o.ID)
	}
}

// What an older leader answers is the name of the session, and what was not answered is
// named once only; of very many attempts the last are.
func TestWhatIsSaidOfAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &naming{leader: &leader{version: 1, refuse: errors.New("the stream broke")}}
		kept := client.NewLeases(l, client.LeaseOptions{Clock: bubbleClock{start: time.Now()}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- kept.Run(ctx) }()
		ask := func() {
			if _, err := kept.Locate(ctx, l, freshet.LocateQuery{Path: "/f", Length: -1}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		const tries = freshet.MaxUnanswered + 5
		for range 600 {
			if ask(); len(l.opened()) == tries {
				break
			}
			time.Sleep(time.Second) // fake time
		}
		all := l.opened()
		o := all[len(all)-1]
		if len(all) != tries || len(o.Unanswered) != freshet.MaxUnanswered || o.Unanswered[len(o.Unanswered)-1] != all[tries-2].ID {
			t.Fatalf("the attempt of number %d names %d", len(all), len(o.Unanswered))
		}
		l.mu.Lock()
		l.refuse = nil
		l.mu.Unlock()
		for range 10 {
			ask()
			time.Sleep(time.Second) // fake time
		}
		l.mu.Lock()
		first := l.now
		l.mu.Unlock()
		first.end.Do(func() { close(first.over) })
		time.Sleep(10 * time.Second) // fake time
		ask()
		if o := l.lastOpened(); o.Previous != (freshet.LeaseID{99}) || len(o.Unanswered) != 0 {
			t.Errorf("after a session the next says %+v", o)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// naming is a leader of an older release: it names sessions itself.
type naming struct{ *leader }

func (n *naming) OpenLeases(ctx context.Context, o freshet.LeaseOpening) (rpc.LeaseSession, error) {
	s, err := n.leader.OpenLeases(ctx, o)
	if err == nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.now.id = freshet.LeaseID{99}
	}
	return s, err
}

func (n *naming) opened() []freshet.LeaseOpening {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.opens)
}
