package rpc_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// leaseLeader has one session, or is no leader.
type leaseLeader struct {
	err     error
	opening chan freshet.LeaseOpening
	s       *leaseSession
}

func (l *leaseLeader) OpenLeases(_ context.Context, o freshet.LeaseOpening) (rpc.LeaseSession, error) {
	if l.err != nil {
		return nil, l.err
	}
	l.opening <- o
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
				l := &leaseLeader{opening: make(chan freshet.LeaseOpening, 1), s: &leaseSession{breaks: make(chan freshet.LeaseBreak), closed: make(chan struct{})}}
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
				opens, answered := context.WithCancel(t.Context())
				defer answered()
				opening := freshet.LeaseOpening{ID: freshet.LeaseID{4}, Previous: freshet.LeaseID{3}, Unanswered: []freshet.LeaseID{{1}, {2}}}
				held, err := dial(t, rpc.DialOptions{NoRetry: true}, addr).Leases().OpenLeases(opens, opening)
				answered() // how long it may take to open is over, and the session is not
				if err != nil {
					t.Fatal(err)
				}
				if o := <-l.opening; !reflect.DeepEqual(o, opening) || held.ID() != l.s.ID() {
					t.Errorf("session %s was opened by %+v", held.ID(), o)
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

func TestAnOpeningThatIsMalformed(t *testing.T) {
	t.Parallel()
	l := &leaseLeader{err: errors.New("it was asked")}
	addr := serveOnly(t, func(s *rpc.Server) {
		freshetv1.RegisterLeaseServiceServer(s.Registrar(), rpc.NewLeaseServer(l, nil, nil))
	})
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	short, long := make([]byte, 15), make([]byte, 17)
	for name, m := range map[string]*freshetv1.HoldLeasesRequest{
		"previous":   {Previous: short},
		"session":    {Session: long},
		"unanswered": {Unanswered: [][]byte{make([]byte, 16), short}},
		"too many":   {Unanswered: make([][]byte, freshet.MaxUnanswered+1)},
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := freshetv1.NewLeaseServiceClient(conn).HoldLeases(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(m); err != nil {
				t.Fatal(err)
			}
			if _, err = stream.Recv(); !freshet.IsKind(rpc.ErrorOf(err), freshet.KindInvalid) {
				t.Errorf("%v", err)
			}
		})
	}
}
