package rpc

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/freshet-io/freshet"
)

// abreast is how many calls of one kind are on their way at once, before others wait
// to be made together. With one the log would rest while answers travel.
const abreast = 1

// gather makes calls of one kind. A call that finds few others on their way is made
// at once and alone; those that come meanwhile wait until one of these is answered,
// and are then made together, for a call and a change of the log cost the same
// however much is in them. Nothing waits for more to come. The calls must be such
// that they may be repeated. Safe for concurrent use; it runs nothing while no call
// is on its way.
type gather[Q, A any] struct {
	alone func(ctx context.Context, q Q) (A, error)
	// many returns the places of the calls that are to be made alone, beside the
	// answers of the others.
	many func(ctx context.Context, qs []Q) (answers []A, again []uint32, err error)

	mu      sync.Mutex
	running int
	queue   []*caller[Q, A]
}

// caller waits for its call to be made by somebody else.
type caller[Q, A any] struct {
	q    Q
	told chan verdict[A] // of length 1
	of   *crowd          // nil while it is queued; protected by the gather's mu
}

// verdict is what a caller is told.
type verdict[A any] struct {
	answer A
	err    error
	again  bool // make the call alone
	turn   bool // as one of those that may be on their way
}

// crowd is those whose calls are made together; when all have left it ends.
type crowd struct {
	left   int // protected by the gather's mu
	cancel context.CancelFunc
}

func (g *gather[Q, A]) do(ctx context.Context, q Q) (A, error) {
	if _, own := metadata.FromOutgoingContext(ctx); own { // nobody else's
		return g.alone(ctx, q)
	}
	g.mu.Lock()
	if g.running < abreast {
		g.running++
		g.mu.Unlock()
		defer g.next()
		return g.alone(ctx, q)
	}
	c := &caller[Q, A]{q: q, told: make(chan verdict[A], 1)}
	g.queue = append(g.queue, c)
	g.mu.Unlock()
	var v verdict[A]
	select {
	case v = <-c.told:
	case <-ctx.Done():
		g.leave(c)
		return v.answer, ErrorOf(status.FromContextError(ctx.Err()).Err())
	}
	if v.turn {
		defer g.next()
	}
	if v.again {
		return g.alone(ctx, q)
	}
	return v.answer, v.err
}

// leave is called by a caller that waits no more.
func (g *gather[Q, A]) leave(c *caller[Q, A]) {
	g.mu.Lock()
	if c.of == nil {
		if i := slices.Index(g.queue, c); i >= 0 {
			g.queue = slices.Delete(g.queue, i, i+1)
			g.mu.Unlock()
			return
		}
	} else if c.of.left--; c.of.left == 0 {
		c.of.cancel()
	}
	g.mu.Unlock()
	select {
	case v := <-c.told:
		if v.turn {
			g.next()
		}
	default: // it will be answered, and nobody listens
	}
}

// next is called when a call is answered: those that wait take its place.
func (g *gather[Q, A]) next() {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.queue), maxCalls)
	switch n {
	case 0:
		g.running--
		return
	case 1:
		g.queue[0].told <- verdict[A]{again: true, turn: true}
		g.queue = nil
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	of := &crowd{left: n, cancel: cancel}
	callers := g.queue[:n:n]
	if g.queue = g.queue[n:]; len(g.queue) == 0 {
		g.queue = nil
	}
	for _, c := range callers {
		c.of = of
	}
	go g.send(ctx, of, callers)
}

// send makes calls together and tells their callers.
func (g *gather[Q, A]) send(ctx context.Context, of *crowd, callers []*caller[Q, A]) {
	defer of.cancel()
	defer g.next()
	qs := make([]Q, len(callers))
	for i, c := range callers {
		qs[i] = c.q
	}
	answers, again, err := g.many(ctx, qs)
	// An error of another kind may be the fault of one of them, or of a server that
	// does not know such calls yet.
	ofAll := freshet.IsKind(err, freshet.KindUnavailable, freshet.KindNotLeader, freshet.KindDeadline, freshet.KindPermission)
	verdicts := make([]verdict[A], len(callers))
	for i := range verdicts {
		switch {
		case ofAll:
			verdicts[i].err = err
		case err != nil || len(answers) != len(callers):
			verdicts[i].again = true
		default:
			verdicts[i].answer = answers[i]
		}
	}
	for _, i := range again {
		if int(i) < len(verdicts) {
			verdicts[i] = verdict[A]{again: true}
		}
	}
	for i, c := range callers {
		c.told <- verdicts[i]
	}
}
