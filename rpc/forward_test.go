package rpc_test

import (
	"sync/atomic"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

// successor names a leader that is dead, and after some questions the next one.
type successor struct {
	dead, next string
	asked      atomic.Int32
}

// LeaderAddress implements rpc.LeaderFinder.
func (s *successor) LeaderAddress() string {
	switch n := s.asked.Add(1); {
	case n <= 3:
		return s.dead
	case n <= 5:
		return ""
	}
	return s.next
}

// A member that does not know yet that the leader is dead waits for the next one: the
// call was sent to nobody, so that it does not matter whether it may be repeated.
func TestACallWaitsForTheSuccessorOfADeadLeader(t *testing.T) {
	t.Parallel()
	l := start(t, &fake{}, nil, rpc.ServerOptions{})
	follower := &fake{err: freshet.Errorf(freshet.KindNotLeader, "", "", "not me")}
	finder := &successor{dead: deadAddress, next: l.addr}
	m := start(t, follower, finder, rpc.ServerOptions{})
	c := dial(t, rpc.DialOptions{NoRetry: true}, m.addr)
	if _, err := c.BumpEpoch(t.Context(), false); err != nil {
		t.Error(err)
	}
	if n := finder.asked.Load(); n < 6 {
		t.Errorf("the leader was asked for %d times", n)
	}
}
