package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/rpc"
)

// counted counts the questions to coordinators where files are.
type counted struct {
	rpc.Namespace

	n atomic.Int64
}

func (c *counted) Locate(ctx context.Context, q freshet.LocateQuery) (freshet.Location, error) {
	c.n.Add(1)
	return c.Namespace.Locate(ctx, q)
}

// leases measures hot reads under a lease against the same block without any metadata,
// and what the leases of others cost who changes a file.
func (b *bench) leases(ctx context.Context) error {
	f, storage, err := b.cluster(ctx, clusterOptions{name: "lease", clusters: 1, coordinators: 1, tier: "memory"})
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := f.Clusters[0].Connect()
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // nothing to be done about it
	conns := rpc.NewConns(rpc.DialOptions{MaxMessage: rpc.MaxDataMessage, NoRetry: true})
	defer func() { _ = conns.Close() }() // as above
	for _, file := range []struct {
		name string
		size int64
	}{{"4KiB", 4 << 10}, {"1MiB", 1 << 20}} {
		if err := os.WriteFile(filepath.Join(storage, file.name), make([]byte, file.size), 0o600); err != nil {
			return err
		}
		if err := b.hotRead(ctx, s, rpc.NewNodePool(conns), file.name, file.size); err != nil {
			return err
		}
	}
	for _, sessions := range []int{0, 1, 1000} {
		if err := b.breaks(ctx, s, sessions); err != nil {
			return err
		}
	}
	return nil
}

// holding runs leases of s until the returned function is called, and waits for the
// sessions to begin, which they do when something is asked.
func holding(ctx context.Context, s *fleet.Session, n int) (all []*client.Leases, stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	stop = func() { cancel(); running.Wait() }
	for range n {
		l := client.NewLeases(s.Coordinator.Leases(), client.LeaseOptions{})
		all = append(all, l)
		running.Go(func() { _ = l.Run(ctx) })
	}
	err = fleet.Poll(ctx, time.Minute, "sessions", func(ctx context.Context) error {
		for _, l := range all {
			if l.Holds() {
				continue
			}
			if _, err := l.Stat(ctx, s.Coordinator, "/", freshet.ReadOptions{}); err != nil {
				return err
			}
			return fmt.Errorf("not all of %d sessions have begun", n)
		}
		return nil
	})
	if err != nil {
		stop()
	}
	return all, stop, err
}

// reading is a way to read, and the same without metadata.
type reading struct {
	what     string
	do, bare func(context.Context) error
}

func (b *bench) hotRead(ctx context.Context, s *fleet.Session, nodes *rpc.NodePool, name string, size int64) error {
	held, stop, err := holding(ctx, s, 1)
	if err != nil {
		return err
	}
	defer stop()
	ns := &counted{Namespace: s.Coordinator}
	path, reads := freshet.Path("/"+name), 0
	read := func(files *client.Client) func(context.Context) error {
		return func(ctx context.Context) error {
			reads++
			r, err := files.Open(ctx, path, client.Whole())
			if err != nil {
				return err
			}
			_, err = r.WriteTo(io.Discard)
			_ = r.Close() // read only
			return err
		}
	}
	kept, asks := read(client.New(ns, nodes, client.Options{Leases: held[0]})), read(client.New(ns, nodes, client.Options{}))
	if err := asks(ctx); err != nil {
		return err
	}
	if err := s.AwaitCached(ctx, path, size, time.Minute); err != nil {
		return err
	}
	loc, err := s.Coordinator.Locate(ctx, freshet.LocateQuery{Path: path, Length: -1})
	if err != nil {
		return err
	}
	block := loc.Blocks[0]
	node := append(block.Nodes, block.Fetch)[0]
	bare := func(ctx context.Context) error {
		body, err := nodes.ReadBlock(ctx, node, freshet.BlockRead{Block: block, Source: loc.Source, Length: block.Length})
		if err != nil {
			return err
		}
		_, err = body.WriteTo(io.Discard)
		_ = body.Close() // read only
		return err
	}
	show := func(d time.Duration) string { return fmt.Sprintf("%.0f/s", float64(time.Second)/float64(d)) }
	ways := []reading{{"under a lease", kept, bare}, {"with a question to the coordinator each", asks, bare}}
	if block.Length <= pageSize && len(block.Nodes) > 0 {
		ours, theirs := positioned(client.New(ns, nodes, client.Options{Leases: held[0]}), nodes, path, loc)
		ways = append(ways, reading{"by its position under a lease", func(ctx context.Context) error { reads++; return ours(ctx) }, theirs})
	}
	for _, way := range ways {
		reads = 0
		ns.n.Store(0)
		our, their, err := b.duel(ctx, "hot read of "+name+" "+way.what, b.turnLength(), way.do, way.bare)
		if err != nil {
			return err
		}
		b.addDuel(fmt.Sprintf("hot read of %s %s, %.4f questions a read", name, way.what, float64(ns.n.Load())/float64(reads)), our, their, show)
	}
	return nil
}

// breaks measures a change of a file that sessions keep an answer about.
func (b *bench) breaks(ctx context.Context, s *fleet.Session, sessions int) error {
	held, stop, err := holding(ctx, s, sessions)
	if err != nil {
		return err
	}
	defer stop()
	const path = "/4KiB"
	var all []time.Duration
	for i := range max(b.rounds/10, 5) {
		group, gctx := errgroup.WithContext(ctx)
		group.SetLimit(32)
		for _, l := range held {
			group.Go(func() error {
				_, err := l.Stat(gctx, s.Coordinator, path, freshet.ReadOptions{})
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		mode := uint32(0o600 + i%2*0o40)
		begun := time.Now()
		if _, err := s.SetAttr(ctx, freshet.SetAttrQuery{Path: path, Mode: &mode}); err != nil {
			return err
		}
		all = append(all, time.Since(begun))
	}
	slices.Sort(all)
	b.add(fmt.Sprintf("chmod of a file that %d sessions keep an answer about: median, slowest", sessions), all[len(all)/2].Round(10*time.Microsecond).String(), all[len(all)-1].Round(10*time.Microsecond).String(), "")
	return nil
}

// positioned reads a file of one block by messages that many reads share, from its opening
// to its closing and without metadata.
func positioned(files *client.Client, nodes *rpc.NodePool, path freshet.Path, loc freshet.Location) (ours, bare func(context.Context) error) {
	block := loc.Blocks[0]
	to := make([]byte, block.Length)
	ours = func(ctx context.Context) error {
		f, err := files.OpenFile(ctx, path, client.ReadOptions{})
		if err != nil {
			return err
		}
		_, err = f.ReadAt(to, 0)
		return err
	}
	return ours, func(ctx context.Context) error {
		return nodes.ReadRange(ctx, block.Nodes[0], rpc.RangeRead{Block: block, Source: loc.Source, To: to})
	}
}
