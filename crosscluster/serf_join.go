package crosscluster

import (
	"context"

	"github.com/freshet-io/freshet"
)

// Join joins the pool at addresses, host:port, besides those of the options, and
// returns how many answered. KindUnavailable if none did or the pool does not
// run.
func (s *Serf) Join(ctx context.Context, addresses []string) (int, error) {
	const op = "join gossip pool"
	s.mu.Lock()
	pool := s.serf
	s.mu.Unlock()
	if pool == nil {
		return 0, freshet.Errorf(freshet.KindUnavailable, op, "", "this member does not take part in the pool at the moment")
	}
	if err := ctx.Err(); err != nil {
		return 0, &freshet.Error{Op: op, Kind: freshet.KindDeadline, Err: err}
	}
	n, err := pool.Join(addresses, true)
	if n == 0 && err != nil {
		return 0, &freshet.Error{Op: op, Kind: freshet.KindUnavailable, Err: err}
	}
	return n, nil
}
