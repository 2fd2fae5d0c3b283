package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

// pages is how many pages one time of a side is.
const pages = 4000

// randoms measures remote reads of 4 KiB at random places.
func (b *bench) randoms(ctx context.Context) error {
	for _, tier := range []string{"disk", "memory"} {
		for _, callers := range []int{1, 16} {
			if err := b.random(ctx, tier, callers); err != nil {
				return fmt.Errorf("%s tier: %w", tier, err)
			}
		}
	}
	return nil
}

func (b *bench) random(ctx context.Context, tier string, callers int) (err error) {
	h, err := b.heat(ctx, fmt.Sprint("random", callers), tier)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if err := h.session.AwaitCached(ctx, "/big", readSize, time.Minute); err != nil {
		return err
	}
	loc, err := h.session.Locate(ctx, freshet.LocateQuery{Path: "/big", Length: readSize})
	if err != nil {
		return err
	}
	conns := rpc.NewConns(rpc.DialOptions{MaxMessage: rpc.MaxDataMessage, NoRetry: true})
	defer func() { _ = conns.Close() }() // nothing to be done about it
	pool := rpc.NewNodePool(conns)
	our := &side{others: servers(h.fleet), at: h.fleet.Clusters[0].NodeHTTP[0], do: each(callers, func(_ int, off int64, page []byte) error {
		for _, block := range loc.Blocks {
			if off < block.Offset+block.Length {
				return pool.ReadRange(ctx, block.Nodes[0], rpc.RangeRead{Block: block, Source: loc.Source, Offset: off - block.Offset, To: page})
			}
		}
		return fmt.Errorf("no block at %d", off)
	})}
	all := make([]net.Conn, callers)
	for i := range all {
		var d net.Dialer
		if all[i], err = d.DialContext(ctx, "tcp", h.bare.tcp); err != nil {
			return err
		}
		defer func() { _ = all[i].Close() }() // nothing to be done about it
	}
	their := &side{others: pids{h.bare.pid}, do: each(callers, func(caller int, off int64, page []byte) error {
		if _, err := all[caller].Write(requestOf(wayPage, off)); err != nil {
			return err
		}
		_, err := io.ReadFull(all[caller], page)
		return err
	})}
	what := fmt.Sprintf("4 KiB at random places, remote, %s tier, %d caller(s)", tier, callers)
	if err := b.contest(ctx, fmt.Sprintf("random-%s-%d", tier, callers), b.turnLength(), our, their); err != nil {
		return err
	}
	b.under("limit in the same run", "per CPU-second, client and servers")
	cpu, low, high := ratios(our.cpu, their.cpu)
	b.add(what, rate(perSecond(pages, middle(our.wall))), rate(perSecond(pages, middle(our.cpu))),
		fmt.Sprintf("frames over a connection for each caller %s: **%.2f** of it (%.2f–%.2f)", rate(perSecond(pages, middle(their.cpu))), cpu, low, high))
	return nil
}

// each has callers read pages, so many together.
func each(callers int, read func(caller int, off int64, page []byte) error) func(context.Context) error {
	return func(context.Context) error {
		var wg sync.WaitGroup
		errs := make([]error, callers)
		for c := range callers {
			wg.Go(func() {
				page := make([]byte, pageSize)
				for range pages / callers {
					if errs[c] = read(c, rand.Int64N(readSize/pageSize)*pageSize, page); errs[c] != nil { //nolint:gosec // places to read from
						return
					}
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	}
}
