package rpc_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// leaseLeader has one session, or is no leader.
type leaseLeader struct {
	err      error
	previous chan freshet.LeaseID
	s        *leaseSession
}

func (l *leaseLeader) OpenLeases(_ context.Context, previous freshet.LeaseID) (rpc.LeaseSession, error) {
	if l.err != nil {
		return nil, l.err
	}
	l.previous <- previous
	return l.s, nil
}

type leaseSession struct {
	breaks chan freshet.LeaseBreak
	closed chan struct{}

	mu   sync.Mutex
	said []string
}

func (s *leaseSession) say(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, what)
}

func (s *leaseSession) ID() freshet.LeaseID { return freshet.LeaseID{7} }
func (s *leaseSession) Ack(uint64) error    { s.say("acknowledged"); return nil }
func (s *leaseSession) End()                { s.say("ended") }
func (s *leaseSession) Close()              { s.say("closed"); close(s.closed) }
func (s *leaseSession) Next(ctx context.Context) (freshet.LeaseBreak, error) {
	select {
	case b := <-s.breaks:
		return b, nil
	case <-ctx.Done():
		return freshet.LeaseBreak{}, ctx.Err()
	}
}

// A leader, asked directly or by way of another member, learns whether a client said that
// it keeps nothing, or is gone.
func TestTheEndOfASession(t *testing.T) {
	t.Parallel()
	for _, relayed := range []bool{false, true} {
		for how, want := range map[string][]string{"in order": {"acknowledged", "ended", "closed"}, "broken": {"acknowledged", "closed"}} {
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				l := &leaseLeader{previous: make(chan freshet.LeaseID, 1), s: &leaseSession{breaks: make(chan freshet.LeaseBreak), closed: make(chan struct{})}}
				addr := serveOnly(t, func(s *rpc.Server) {
					freshetv1.RegisterLeaseServiceServer(s.Registrar(), rpc.NewLeaseServer(l, nil, nil))
				})
				if relayed {
					conns := rpc.NewConns(rpc.DialOptions{NoRetry: true})
					t.Cleanup(func() { _ = conns.Close() })
					follower := &leaseLeader{err: freshet.Errorf(freshet.KindNotLeader, "", "", "not me")}
					forward := rpc.NewForwarder(leaderAt(addr), conns)
					addr = serveOnly(t, func(s *rpc.Server) {
						freshetv1.RegisterLeaseServiceServer(s.Registrar(), rpc.NewLeaseServer(follower, forward, nil))
					})
				}
				held, err := dial(t, rpc.DialOptions{NoRetry: true}, addr).Leases().OpenLeases(t.Context(), freshet.LeaseID{3})
				if err != nil {
					t.Fatal(err)
				}
				if p := <-l.previous; p != (freshet.LeaseID{3}) || held.ID() != l.s.ID() {
					t.Errorf("session %s follows %s", held.ID(), p)
				}
				l.s.breaks <- freshet.LeaseBreak{Number: 1, Paths: []freshet.Path{"/a"}}
				if b, err := held.Next(t.Context()); err != nil || !slices.Equal(b.Paths, []freshet.Path{"/a"}) {
					t.Errorf("%+v, %v", b, err)
				}
				if err := held.Ack(1); err != nil {
					t.Error(err)
				}
				if how == "in order" {
					held.End()
					if b, err := held.Next(t.Context()); err == nil || errors.Is(err, context.Canceled) {
						t.Errorf("a session that ended says %+v, %v", b, err)
					}
				} else {
					for l.s.heard() < 1 { // else it may be lost with the stream
						time.Sleep(time.Millisecond)
					}
				}
				held.Close()
				<-l.s.closed
				l.s.mu.Lock()
				defer l.s.mu.Unlock()
				if !slices.Equal(l.s.said, want) {
					t.Errorf("the leader heard %q, want %q", l.s.said, want)
				}
			})
		}
	}
}

func (s *leaseSession) heard() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.said)
}
