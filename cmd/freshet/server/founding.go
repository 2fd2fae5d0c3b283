package server

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/coordinator/journal"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// askEvery is how often a starting member asks the others.
const askEvery = 250 * time.Millisecond

// founding finds out how a member that has no state yet comes into a cluster:
// by founding it together with the others, or by joining one that exists.
type founding struct {
	self    freshet.Member
	cluster string
	expect  int
	join    []string
	dial    rpc.DialOptions
}

// run asks the other members, and answers them, until it is decided. It returns
// the founding members if this one is to found the cluster, and whether it must
// ask to join. While it waits it serves the client port, so that the others find
// it.
func (f *founding) run(ctx context.Context, l net.Listener, opts rpc.ServerOptions) (found []journal.Server, join bool, err error) {
	if f.expect == 1 && len(f.join) == 0 {
		return []journal.Server{{ID: f.self.ID, Addr: f.self.Raft}}, false, nil
	}
	serving, stop := context.WithCancel(ctx)
	srv := rpc.NewServer(opts)
	freshetv1.RegisterClusterServiceServer(srv.Registrar(), rpc.NewClusterServer(waiting{f: f}, nil, nil))
	var served sync.WaitGroup
	served.Go(func() { _ = srv.Serve(serving, keepOpen{l}) }) // its end is of no interest
	defer func() {
		stop()
		_ = keepOpen{l}.Close() // wakes Accept up
		served.Wait()
		if d, ok := l.(interface{ SetDeadline(time.Time) error }); ok {
			err = errors.Join(err, d.SetDeadline(time.Time{}))
		}
	}()
	return f.ask(ctx)
}

func (f *founding) ask(ctx context.Context) ([]journal.Server, bool, error) {
	conns := rpc.NewConns(f.dial)
	defer func() { _ = conns.Close() }() // nothing to be done about it
	known := map[string]string{f.self.ID: f.self.Raft}
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		for _, addr := range f.join {
			status, err := f.askOne(ctx, conns, addr)
			if err != nil {
				continue // not up yet
			}
			if status.Name != f.cluster {
				return nil, false, freshet.Errorf(freshet.KindConflict, "join", "", "%s belongs to cluster %q, not to %q", addr, status.Name, f.cluster)
			}
			if status.ID != (freshet.ClusterID{}) {
				return nil, true, f.checkReturn(status)
			}
			for _, m := range status.Members {
				known[m.ID] = m.Raft
			}
		}
		if f.expect > 0 && len(known) >= f.expect {
			return f.decide(known)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
}

// checkReturn refuses to come back with an empty data directory under the name of
// a member that has been at work before: it would vote again on what it has
// forgotten, and acknowledged entries could be lost. A member without addresses
// is one of the founders that has not started yet.
func (f *founding) checkReturn(status freshet.ClusterStatus) error {
	for _, m := range status.Members {
		if m.ID == f.self.ID && m.GRPC != "" && m.Voter {
			return freshet.Errorf(freshet.KindConflict, "join", "",
				"cluster %q has a voter named %q already, but this data directory is empty: a member that lost its log must not vote again under its name; remove it first with 'freshet cluster raft remove %s', or start under another name",
				status.Name, f.self.ID, f.self.ID)
		}
	}
	return nil
}

func (f *founding) decide(known map[string]string) ([]journal.Server, bool, error) {
	servers := make([]journal.Server, 0, len(known))
	for id, addr := range known {
		servers = append(servers, journal.Server{ID: id, Addr: addr})
	}
	servers, founder, ok, err := journal.Bootstrapper(f.expect, servers)
	if err != nil || !ok || founder != f.self.ID {
		return nil, false, err // the founder's log reaches us
	}
	return servers, false, nil
}

func (f *founding) askOne(ctx context.Context, conns *rpc.Conns, addr string) (freshet.ClusterStatus, error) {
	conn, err := conns.Get(addr)
	if err != nil {
		return freshet.ClusterStatus{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return rpc.NewCoordinator(conn).Cluster(ctx)
}

// waiting answers for a member that is in no cluster yet.
type waiting struct {
	f *founding
}

// Cluster implements rpc.Cluster.
func (w waiting) Cluster(context.Context) (freshet.ClusterStatus, error) {
	return freshet.ClusterStatus{Name: w.f.cluster, Members: []freshet.Member{w.f.self}, Problems: []string{"waiting for the other coordinators"}}, nil
}

func unfounded() error {
	return freshet.Errorf(freshet.KindUnavailable, "cluster", "", "this coordinator waits for the others to found the cluster")
}

// Nodes implements rpc.Cluster.
func (waiting) Nodes(context.Context) ([]freshet.NodeStatus, error) { return nil, unfounded() }

// JoinRaft implements rpc.Cluster.
func (waiting) JoinRaft(context.Context, freshet.Member, string) (freshet.ClusterID, uint64, error) {
	return freshet.ClusterID{}, 0, unfounded()
}

// RemoveRaft implements rpc.Cluster.
func (waiting) RemoveRaft(context.Context, string, bool) error { return unfounded() }

// TransferLeadership implements rpc.Cluster.
func (waiting) TransferLeadership(context.Context, string) (string, error) { return "", unfounded() }

// BumpEpoch implements rpc.Cluster.
func (waiting) BumpEpoch(context.Context, bool) (uint64, error) { return 0, unfounded() }

// keepOpen is a listener whose Close only wakes Accept up: the port stays ours
// for the server that follows.
type keepOpen struct{ net.Listener }

// Close implements net.Listener.
func (k keepOpen) Close() error {
	if d, ok := k.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		return d.SetDeadline(time.Unix(1, 0))
	}
	return nil
}

// newFounding describes this member to the others.
func newFounding(cfg *config.File, self freshet.Member, dial rpc.DialOptions) *founding {
	return &founding{self: self, cluster: cfg.Cluster, expect: cfg.Raft.BootstrapExpect, join: cfg.Raft.Join, dial: dial}
}
