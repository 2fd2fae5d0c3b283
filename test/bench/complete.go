package main

import (
	"context"
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
	if err := n.s.Permit(ctx, freshet.PermitQuery{Op: a.Ticket.Op, Node: n.id, Incarnation: n.incarnation, Length: -1}); err != nil {
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
	return b.changes(ctx, "complete", "create + complete of metadata", func(ctx context.Context, s *fleet.Session) (changer, func(), error) {
		n, err := newFakeNode(ctx, s)
		if err != nil {
			return nil, nil, err
		}
		return n.write, n.close, nil
	})
}
