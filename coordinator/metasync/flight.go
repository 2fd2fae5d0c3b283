package metasync

import (
	"context"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
)

// look is one question to the storage that is on its way, and its answer.
type look[T any] struct {
	index uint64        // applied index before the storage was asked
	at    time.Duration // clock.Elapsed then
	began uint64        // in the order of memory.next
	mem   *memory       // of the term in which it began

	done    chan struct{}
	cancel  context.CancelFunc
	urgency *urgency // rises with those who wait
	walk    *walk    // of a sync
	waiters int
	answer  T
	err     error
}

func (l *look[T]) record() record {
	return record{index: l.index, at: l.at, began: l.began}
}

// flights makes one question of many that are the same, per path.
type flights[T any] struct {
	mu      sync.Mutex
	running map[freshet.Path]*look[T]
}

func newFlights[T any]() *flights[T] { return &flights[T]{running: map[freshet.Path]*look[T]{}} }

// do returns a look at p that may is content with: one that is running, or a new
// one that begin prepares and ask makes. One that may refuses is waited for,
// for a path is looked at once at a time, and who waited shares the next one.
// The question is cancelled when nobody waits for it any more.
func (f *flights[T]) do(ctx context.Context, p freshet.Path, may func(*look[T]) bool,
	begin func() *look[T], ask func(context.Context, *look[T]) (T, error),
) (*look[T], bool, error) {
	for {
		f.mu.Lock()
		l := f.running[p]
		switch {
		case l == nil:
			l = begin()
			l.done, l.waiters = make(chan struct{}), 1
			l.urgency = newUrgency(ClassOf(ctx))
			work, cancel := context.WithCancel(withUrgency(context.WithoutCancel(ctx), l.urgency)) //nolint:gosec // run and wait call it
			l.cancel = cancel
			f.running[p] = l
			f.mu.Unlock()
			go f.run(work, p, l, ask)
			return l, false, f.wait(ctx, p, l)
		case l.waiters > 0 && may(l):
			l.waiters++
			f.mu.Unlock()
			l.urgency.raise(ClassOf(ctx))
			return l, true, f.wait(ctx, p, l)
		}
		f.mu.Unlock()
		l.urgency.raise(ClassOf(ctx))
		select {
		case <-l.done:
		case <-ctx.Done():
			return nil, false, ended(ctx, p)
		}
	}
}

func (f *flights[T]) run(ctx context.Context, p freshet.Path, l *look[T], ask func(context.Context, *look[T]) (T, error)) {
	defer l.cancel()
	l.answer, l.err = ask(ctx, l)
	f.mu.Lock()
	delete(f.running, p)
	f.mu.Unlock()
	close(l.done)
}

// wait waits for the answer. The last one to lose patience cancels the question
// and waits for its end, so that nothing outlives its callers.
func (f *flights[T]) wait(ctx context.Context, p freshet.Path, l *look[T]) error {
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
	}
	f.mu.Lock()
	l.waiters--
	last := l.waiters == 0
	f.mu.Unlock()
	if last {
		l.cancel()
		<-l.done
	}
	return ended(ctx, p)
}

func ended(ctx context.Context, p freshet.Path) error {
	return &freshet.Error{Op: "sync", Path: p, Kind: freshet.KindDeadline, Err: context.Cause(ctx)}
}
