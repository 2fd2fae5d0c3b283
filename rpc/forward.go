package rpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"

	"github.com/freshet-io/freshet"
)

// forwardedKey marks a call that another member forwarded: it is not forwarded
// again, so that two members that each think the other leads do not loop.
const forwardedKey = "freshet-forwarded"

// AfterKey is the metadata key of the session token of faces that have no field
// for it.
const AfterKey = "freshet-after"

// LeaderFinder says where the leader's client port is; "" if nobody knows.
type LeaderFinder interface {
	LeaderAddress() string
}

// Forwarder sends calls that only the leader can answer to the leader.
type Forwarder struct {
	leader LeaderFinder
	conns  *Conns
}

// NewForwarder returns a Forwarder over conns.
func NewForwarder(leader LeaderFinder, conns *Conns) *Forwarder {
	return &Forwarder{leader: leader, conns: conns}
}

// An election takes less than this at the default heartbeat. Calls that can only be
// answered by a leader wait for it rather than fail at every change of leader.
const (
	electionPatience = 3 * time.Second
	electionPoll     = 20 * time.Millisecond
)

// await returns a connection to the leader, nil if there is none for too long. A
// leader that can't be reached may be dead without anybody having noticed: nothing
// was sent yet, so that its successor can still be waited for.
func (f *Forwarder) await(ctx context.Context) (conn *grpc.ClientConn, err error) {
	ctx, cancel := context.WithTimeout(ctx, electionPatience)
	defer cancel()
	for {
		if addr := f.leader.LeaderAddress(); addr == "" {
			conn = nil
		} else if conn, err = f.conns.Get(addr); err != nil || connected(ctx, conn) {
			return conn, err
		}
		select {
		case <-time.After(electionPoll):
		case <-ctx.Done():
			return conn, nil
		}
	}
}

// connected reports whether there is a connection, or within a moment will be.
func connected(ctx context.Context, conn *grpc.ClientConn) bool {
	ctx, cancel := context.WithTimeout(ctx, electionPoll)
	defer cancel()
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return true
		case connectivity.TransientFailure, connectivity.Shutdown:
			return false
		case connectivity.Idle, connectivity.Connecting:
			conn.Connect()
		}
		if !conn.WaitForStateChange(ctx, state) {
			return false
		}
	}
}

// toLeader returns a connection to the leader and a context that marks the call
// as forwarded, or err itself where the call can't be forwarded.
func (f *Forwarder) toLeader(ctx context.Context, err error) (context.Context, *grpc.ClientConn, error) {
	if f == nil || freshet.KindOf(err) != freshet.KindNotLeader {
		return nil, nil, err
	}
	if md, ok := metadata.FromIncomingContext(ctx); ok && len(md.Get(forwardedKey)) > 0 {
		return nil, nil, err
	}
	conn, derr := f.await(ctx)
	if derr != nil {
		return nil, nil, derr
	}
	if conn == nil {
		return nil, nil, freshet.Errorf(freshet.KindUnavailable, "find leader", "", "the cluster has no leader at the moment; try again")
	}
	out := metadata.Pairs(forwardedKey, "1")
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		for _, key := range []string{AfterKey, UserKey} {
			out.Append(key, md.Get(key)...)
		}
	}
	return metadata.NewOutgoingContext(ctx, out), conn, nil
}

// serve answers a unary call locally or by the leader.
func serve[Req, Resp any](
	ctx context.Context, f *Forwarder, req Req,
	local func(context.Context, Req) (Resp, error),
	remote func(grpc.ClientConnInterface, context.Context, Req) (Resp, error),
) (Resp, error) {
	resp, err := local(ctx, req)
	if err == nil {
		return resp, nil
	}
	var zero Resp
	tellWhetherToRepeat(ctx, err)
	fctx, conn, err := f.toLeader(ctx, err)
	if err != nil {
		return zero, StatusOf(err)
	}
	return remote(conn, fctx, req)
}

// pushbackKey is the trailer by which gRPC servers tell clients when to try again;
// a negative number is never.
const pushbackKey = "grpc-retry-pushback-ms"

// tellWhetherToRepeat keeps clients from repeating a call whose storage was asked
// as often as its budget allows: an outage must not multiply the load.
func tellWhetherToRepeat(ctx context.Context, err error) {
	if r, ok := errors.AsType[interface {
		error
		Repeated() bool
	}](err); ok && r.Repeated() {
		_ = grpc.SetTrailer(ctx, metadata.Pairs(pushbackKey, "-1")) // outside of a call nobody repeats
	}
}

// after returns the session token of a request: its own field, or the metadata
// that a face set.
func after(ctx context.Context, field string) string {
	if field != "" {
		return field
	}
	if v := metadata.ValueFromIncomingContext(ctx, AfterKey); len(v) > 0 {
		return v[0]
	}
	return ""
}

// forwarded is a Namespace that lets the leader do what this member can't.
type forwarded struct {
	Namespace

	forward *Forwarder
}

// NewForwarded returns ns with its Sync forwarded to the leader; all else is the
// business of the servers.
func NewForwarded(ns Namespace, forward *Forwarder) Namespace { return forwarded{ns, forward} }

// Sync implements Namespace.
func (f forwarded) Sync(ctx context.Context, p freshet.Path, recursive bool, report func(freshet.SyncProgress) error) error {
	err := f.Namespace.Sync(ctx, p, recursive, report)
	if err == nil {
		return nil
	}
	fctx, conn, err := f.forward.toLeader(ctx, err)
	if err != nil {
		return err
	}
	return NewCoordinator(conn).Sync(fctx, p, recursive, report)
}
