package membus

import (
	"context"
	"sync"
	"time"

	"github.com/freshet-io/freshet/crosscluster"
	busv1 "github.com/freshet-io/freshet/proto/freshet/bus/v1"
)

// guard puts faults between a caller and a peer.
type guard struct {
	network    *Network
	from, addr string
	inner      crosscluster.Peer
}

// pass waits for what one message has to wait for.
func (g *guard) pass(ctx context.Context) error {
	for {
		f, changed := g.network.between(g.from, g.addr)
		switch {
		case f.Cut:
			return unavailable("the way to " + g.addr + " is cut")
		case f.Hang:
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		case f.Delay > 0:
			t := time.NewTimer(f.Delay)
			defer t.Stop()
			select {
			case <-t.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return ctx.Err()
	}
}

// watched returns a context that ends when the way is cut.
func (g *guard) watched(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for {
			f, changed := g.network.between(g.from, g.addr)
			if f.Cut {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, cancel
}

func through[Q, R any](ctx context.Context, g *guard, fn func(context.Context, Q) (R, error), req Q) (R, error) {
	var zero R
	outer := ctx
	ctx, cancel := g.watched(ctx)
	defer cancel()
	if err := g.pass(ctx); err != nil {
		return zero, g.reason(outer, err)
	}
	resp, err := fn(ctx, req)
	if perr := g.pass(ctx); perr != nil {
		return zero, g.reason(outer, perr)
	}
	return resp, err
}

func (g *guard) reason(outer context.Context, err error) error {
	if outer.Err() != nil {
		return outer.Err()
	}
	if f, _ := g.network.between(g.from, g.addr); f.Cut {
		return unavailable("the way to " + g.addr + " was cut")
	}
	return err
}

// Hello implements crosscluster.Peer.
func (g *guard) Hello(ctx context.Context, req *busv1.HelloRequest) (*busv1.HelloResponse, error) {
	return through(ctx, g, g.inner.Hello, req)
}

// Poll implements crosscluster.Peer.
func (g *guard) Poll(ctx context.Context, req *busv1.PollRequest) (*busv1.PollResponse, error) {
	return through(ctx, g, g.inner.Poll, req)
}

// Goodbye implements crosscluster.Peer.
func (g *guard) Goodbye(ctx context.Context, req *busv1.GoodbyeRequest) (*busv1.GoodbyeResponse, error) {
	return through(ctx, g, g.inner.Goodbye, req)
}

// Pull implements crosscluster.Peer.
func (g *guard) Pull(ctx context.Context, req *busv1.PullRequest, receive func(*busv1.PullResponse) error) error {
	_, err := through(ctx, g, func(ctx context.Context, req *busv1.PullRequest) (struct{}, error) {
		return struct{}{}, g.inner.Pull(ctx, req, receive)
	}, req)
	return err
}

// late is a message on its way.
type late struct {
	at time.Time
	m  *busv1.SubscribeResponse
}

// Subscribe implements crosscluster.Peer. Messages keep their order and arrive
// after the delay; what hangs arrives after it was healed.
func (g *guard) Subscribe(ctx context.Context, requests <-chan *busv1.SubscribeRequest, receive func(*busv1.SubscribeResponse) error) error {
	outer := ctx
	ctx, cancel := g.watched(ctx)
	defer cancel()
	there, back := make(chan *busv1.SubscribeRequest), make(chan late, 256)
	var parts sync.WaitGroup
	parts.Go(func() { g.forth(ctx, requests, there) })
	parts.Go(func() {
		defer cancel()
		g.back(ctx, back, receive)
	})
	err := g.inner.Subscribe(ctx, there, func(m *busv1.SubscribeResponse) error {
		f, _ := g.network.between(g.from, g.addr)
		times := 1
		if m.GetBatch() != nil && g.network.chance(f.Drop) {
			times = 0
		} else if m.GetBatch() != nil && g.network.chance(f.Repeat) {
			times = 2
		}
		for range times {
			select {
			case back <- late{time.Now().Add(f.Delay), m}: //nolint:forbidigo // the fake or real time of a test
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	cancel()
	parts.Wait()
	return g.reason(outer, err)
}

// forth passes requests on until ctx ends.
func (g *guard) forth(ctx context.Context, requests <-chan *busv1.SubscribeRequest, there chan<- *busv1.SubscribeRequest) {
	for {
		select {
		case req := <-requests:
			if g.pass(ctx) != nil {
				return
			}
			select {
			case there <- req:
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// back passes messages on until ctx ends or receive fails.
func (g *guard) back(ctx context.Context, back <-chan late, receive func(*busv1.SubscribeResponse) error) {
	for {
		select {
		case l := <-back:
			if g.arrive(ctx, l.at) != nil || receive(l.m) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// arrive waits until a message that is due at the given time gets through. A way
// that is cut lets nothing more through, even before its stream was told to end.
func (g *guard) arrive(ctx context.Context, at time.Time) error {
	t := time.NewTimer(time.Until(at)) //nolint:forbidigo // the fake or real time of a test
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		f, changed := g.network.between(g.from, g.addr)
		switch {
		case f.Cut:
			return unavailable("the way to " + g.addr + " is cut")
		case !f.Hang:
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close implements crosscluster.Peer.
func (g *guard) Close() error { return g.inner.Close() }
