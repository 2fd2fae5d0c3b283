package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/rpc"
)

// measure runs do by callers goroutines for the length of a measurement.
func (b *bench) measure(ctx context.Context, others pids, callers int, do func(ctx context.Context, caller int, i int64) error) (perWall, perCPU float64, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var n atomic.Int64
	var wg sync.WaitGroup
	defer b.profiled(others)()
	cpu, begun := cpuTime(others), time.Now()
	for c := range callers {
		wg.Go(func() {
			for i := int64(0); time.Since(begun) < b.length && ctx.Err() == nil; i++ {
				if err := do(ctx, c, i); err != nil {
					cancel(err)
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	wall, used := time.Since(begun), cpuTime(others)-cpu
	if err := context.Cause(ctx); err != nil {
		return 0, 0, err
	}
	return perSecond(n.Load(), wall), perSecond(n.Load(), used), nil
}

// metadata measures cached stat and list.
func (b *bench) metadata(ctx context.Context) error {
	f, storage, err := b.cluster(ctx, clusterOptions{name: "meta", clusters: 1, coordinators: 1})
	if err != nil {
		return err
	}
	defer f.Close()
	for i := range 1000 {
		if err := os.WriteFile(filepath.Join(storage, fmt.Sprintf("f%04d", i)), []byte("x"), 0o600); err != nil {
			return err
		}
	}
	s, err := f.Clusters[0].Connect()
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // nothing to be done about it
	if _, err := s.List(ctx, freshet.ListQuery{Path: "/"}); err != nil {
		return err
	}
	for _, callers := range []int{1, 64} {
		limit, err := b.emptyCall(ctx, callers)
		if err != nil {
			return err
		}
		wall, cpu, err := b.measure(ctx, servers(f), callers, func(ctx context.Context, c int, i int64) error {
			_, err := s.Stat(ctx, path("/f%04d", (int64(c)*131+i)%1000), freshet.ReadOptions{})
			return err
		})
		if err != nil {
			return err
		}
		b.add(fmt.Sprintf("cached stat, unary gRPC, %d callers", callers), rate(wall), rate(cpu), fmt.Sprintf("empty call %s: %.2f of it", rate(limit), cpu/limit))
	}
	wall, cpu, err := b.measure(ctx, servers(f), 4, func(ctx context.Context, _ int, _ int64) error {
		page, err := s.List(ctx, freshet.ListQuery{Path: "/"})
		if err == nil && len(page.Entries) != 1000 {
			err = fmt.Errorf("%d entries", len(page.Entries))
		}
		return err
	})
	if err != nil {
		return err
	}
	b.add("list a directory of 1,000, entries, 4 callers", rate(wall*1000), rate(cpu*1000), "")
	return b.batches(ctx, f)
}

// batches measures stat in batches of 100 paths.
func (b *bench) batches(ctx context.Context, f *fleet.Fleet) error {
	conn, err := rpc.Dial(f.Clusters[0].Clients, rpc.DialOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing to be done about it
	c := rpc.NewCoordinator(conn)
	const size = 100
	wall, cpu, err := b.measure(ctx, servers(f), 4, func(ctx context.Context, caller int, i int64) error {
		paths := make([]freshet.Path, size)
		for k := range paths {
			paths[k] = path("/f%04d", (int64(caller)*131+i*size+int64(k))%1000)
		}
		outcomes, err := c.BatchStat(ctx, paths, freshet.ReadOptions{})
		for i := range outcomes {
			if outcomes[i].Err != nil {
				return outcomes[i].Err
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	b.add("cached stat in batches of 100, 4 callers, entries", rate(wall*size), rate(cpu*size), "")
	return nil
}

// creates measures whole writes of empty files: begin, upload, permit, effect,
// complete; every one durable and in the storage when acknowledged.
func (b *bench) creates(ctx context.Context) error {
	return b.changes(ctx, "create", "create an empty file in the storage", func(_ context.Context, s *fleet.Session) (changer, func(), error) {
		return func(ctx context.Context, p freshet.Path) error {
			_, err := s.Files.Write(ctx, p, strings.NewReader(""), client.WriteOptions{Write: freshet.Through})
			return err
		}, func() {}, nil
	})
}

// changer makes one file.
type changer func(ctx context.Context, p freshet.Path) error

// changes measures how many files are made, for 1 and 3 members and several
// numbers of callers; open says how to make one, and how to end that.
func (b *bench) changes(ctx context.Context, name, what string, open func(ctx context.Context, s *fleet.Session) (changer, func(), error)) error {
	for _, coordinators := range []int{1, 3} {
		if err := b.changesWith(ctx, clusterOptions{name: fmt.Sprint(name, coordinators), clusters: 1, coordinators: coordinators}, what, open); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) changesWith(ctx context.Context, o clusterOptions, what string, open func(ctx context.Context, s *fleet.Session) (changer, func(), error)) error {
	f, _, err := b.cluster(ctx, o)
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := f.Clusters[0].Connect()
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // nothing to be done about it
	do, end, err := open(ctx, s)
	if err != nil {
		return err
	}
	defer end()
	for _, callers := range []int{1, 64, 256} {
		wall, cpu, err := b.measure(ctx, servers(f), callers, func(ctx context.Context, c int, i int64) error {
			return do(ctx, path("/d%d/c%d-%d", callers, c, i))
		})
		if err != nil {
			return err
		}
		b.add(fmt.Sprintf("%s, %d member(s), %d callers", what, o.coordinators, callers), rate(wall), rate(cpu), "")
	}
	return nil
}
