package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/fingerprint"
)

// fakeNode is a cache node without a storage: it lives, and acknowledges uploads
// that never took place. With it the coordinators' part of a write is measured
// alone.
type fakeNode struct {
	id          freshet.NodeID
	incarnation uint64
	s           *fleet.Session

	stop context.CancelFunc
	wg   sync.WaitGroup
}

func newFakeNode(ctx context.Context, s *fleet.Session) (*fakeNode, error) {
	n := &fakeNode{id: freshet.NodeID(uuid.NewString()), incarnation: 1, s: s}
	reply, err := n.beat(ctx, 0)
	if err == nil {
		reply, err = n.beat(ctx, reply.Term)
	}
	if err != nil {
		return nil, err
	}
	ctx, n.stop = context.WithCancel(ctx)
	n.wg.Go(func() {
		for tick := time.NewTicker(500 * time.Millisecond); ; {
			select {
			case <-tick.C:
				if r, err := n.beat(ctx, reply.Term); err == nil {
					reply = r
				}
			case <-ctx.Done():
				tick.Stop()
				return
			}
		}
	})
	return n, nil
}

func (n *fakeNode) beat(ctx context.Context, term uint64) (freshet.HeartbeatReply, error) {
	return n.s.Heartbeat(ctx, freshet.Heartbeat{
		Node:        freshet.Node{ID: n.id, Name: "none", GRPC: "127.0.0.1:1", HTTP: "127.0.0.1:1", Host: "none"},
		Incarnation: n.incarnation, Term: term, Full: true, Capacity: 1 << 30, Tier: "memory",
	})
}

func (n *fakeNode) close() { n.stop(); n.wg.Wait() }

// write begins, permits and completes a file, as a client and its node do.
func (n *fakeNode) write(ctx context.Context, p freshet.Path) error {
	a, err := n.s.BeginWrite(ctx, freshet.BeginWriteQuery{Path: p, Write: freshet.Through, Node: n.id})
	if err != nil {
		return err
	}
	if err := n.s.Permit(ctx, a.Ticket.Op, n.id, n.incarnation); err != nil {
		return err
	}
	now := time.Now()
	fp := fingerprint.Local(fingerprint.LocalFile{Inode: uint64(a.Ticket.File), ModTime: now, ChangeTime: now, Mode: 0o644})
	_, err = n.s.Complete(ctx, a.Ticket.Op, freshet.Written{ModTime: now, Fingerprint: fp, Mode: 0o644})
	return err
}

// completes measures create and complete at the coordinators alone: three calls
// and three durable changes for each file, and no storage.
func (b *bench) completes(ctx context.Context) error {
	for _, coordinators := range []int{1, 3} {
		if err := b.complete(ctx, coordinators); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) complete(ctx context.Context, coordinators int) error {
	f, _, err := b.cluster(ctx, clusterOptions{name: fmt.Sprintf("complete%d", coordinators), clusters: 1, coordinators: coordinators})
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := f.Clusters[0].Connect()
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // nothing to be done about it
	n, err := newFakeNode(ctx, s)
	if err != nil {
		return err
	}
	defer n.close()
	for _, callers := range []int{1, 64, 256} {
		wall, cpu, err := b.measure(ctx, servers(f), callers, func(ctx context.Context, c int, i int64) error {
			return n.write(ctx, path("/d%d/c%d-%d", callers, c, i))
		})
		if err != nil {
			return err
		}
		b.add(fmt.Sprintf("create + complete of metadata, %d member(s), %d callers", coordinators, callers), rate(wall), rate(cpu), "")
	}
	return nil
}
