package rpc

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/freshet-io/freshet"
)

// gatherBed is a gather whose calls wait to be let go. Its answer to q is 10 × q.
type gatherBed struct {
	gather[int, int]

	mu    sync.Mutex
	alone []int   // calls that were made alone
	crews [][]int // calls that were made together
	most  int     // that ran at once
	runs  int
	ended int // crews whose context ended
	gate  chan struct{}
	// crew, if set, answers many.
	crew func(qs []int) ([]int, []uint32, error)
}

func newGatherBed() *gatherBed {
	b := &gatherBed{gate: make(chan struct{})}
	b.gather.alone = func(ctx context.Context, q int) (int, error) {
		defer b.enter(func() { b.alone = append(b.alone, q) })()
		select {
		case <-b.gate:
			return 10 * q, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	b.many = func(ctx context.Context, qs []int) ([]int, []uint32, error) {
		defer b.enter(func() { b.crews = append(b.crews, slices.Sorted(slices.Values(qs))) })()
		select {
		case <-b.gate:
		case <-ctx.Done():
			b.mu.Lock()
			defer b.mu.Unlock()
			b.ended++
			return nil, nil, ctx.Err()
		}
		if b.crew != nil {
			return b.crew(qs)
		}
		answers := make([]int, len(qs))
		for i, q := range qs {
			answers[i] = 10 * q
		}
		return answers, nil, nil
	}
	return b
}

func (b *gatherBed) enter(note func()) (leave func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	note()
	b.runs++
	b.most = max(b.most, b.runs)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.runs--
	}
}

// call makes calls from to to and returns how to have their errors.
func (b *gatherBed) call(ctx context.Context, t *testing.T, from, to int) func() []error {
	t.Helper()
	errs := make([]error, to-from)
	var wg sync.WaitGroup
	for q := from; q < to; q++ {
		wg.Go(func() {
			a, err := b.do(ctx, q)
			if errs[q-from] = err; err == nil && a != 10*q {
				t.Errorf("call %d has the answer %d", q, a)
			}
		})
	}
	synctest.Wait()
	return func() []error { wg.Wait(); return errs }
}

// rest checks that nothing is on its way any more.
func (b *gatherBed) rest(t *testing.T) {
	t.Helper()
	synctest.Wait()
	b.gather.mu.Lock()
	defer b.gather.mu.Unlock()
	if b.running != 0 || len(b.queue) != 0 || b.runs != 0 {
		t.Errorf("%d on their way, %d wait, %d run at the end", b.running, len(b.queue), b.runs)
	}
}

func none(t *testing.T, errs []error) {
	t.Helper()
	for i, err := range errs {
		if err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

func TestCallsThatWaitAreMadeTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGatherBed()
		first := b.call(t.Context(), t, 0, abreast)
		others := b.call(t.Context(), t, abreast, abreast+maxCalls+1)
		if len(b.alone) != abreast || len(b.crews) != 0 {
			t.Fatalf("%d calls are made alone, %d together, before one is answered", len(b.alone), len(b.crews))
		}
		close(b.gate)
		none(t, first())
		none(t, others())
		if len(b.crews) != 1 || len(b.crews[0]) != maxCalls || len(b.alone) != abreast+1 || b.most > abreast {
			t.Errorf("made together: %v, alone: %v, at most %d at once", b.crews, b.alone, b.most)
		}
		b.rest(t)
	})
}

func TestACallByItselfIsMadeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGatherBed()
		close(b.gate)
		for q := range 5 {
			none(t, b.call(t.Context(), t, q, q+1)())
		}
		if len(b.alone) != 5 || len(b.crews) != 0 {
			t.Errorf("alone %v, together %v", b.alone, b.crews)
		}
		b.rest(t)
	})
}

// TestWhatFailsTogetherIsMadeAlone: the answer of a call is then the one that it has
// by itself.
func TestWhatFailsTogetherIsMadeAlone(t *testing.T) {
	whole := freshet.Errorf(freshet.KindInternal, "many", "", "no")
	gone := freshet.Errorf(freshet.KindUnavailable, "many", "", "gone")
	for _, c := range []struct {
		name   string
		crew   func(qs []int) ([]int, []uint32, error)
		alone  int // of the calls that were made together
		failed error
	}{
		{"two of them", func(qs []int) ([]int, []uint32, error) {
			answers := make([]int, len(qs))
			for i, q := range qs {
				answers[i] = 10 * q
			}
			answers[1], answers[3] = -1, -1
			return answers, []uint32{3, 1, 999}, nil
		}, 2, nil},
		{"all", func([]int) ([]int, []uint32, error) { return nil, nil, whole }, 6, nil},
		{"answers are missing", func(qs []int) ([]int, []uint32, error) { return make([]int, len(qs)-1), nil, nil }, 6, nil},
		{"nobody answers", func([]int) ([]int, []uint32, error) { return nil, nil, gone }, 0, gone},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newGatherBed()
				b.crew = c.crew
				first, others := b.call(t.Context(), t, 0, abreast), b.call(t.Context(), t, abreast, abreast+6)
				close(b.gate)
				none(t, first())
				for i, err := range others() {
					if !errors.Is(err, c.failed) || (err == nil) != (c.failed == nil) {
						t.Errorf("call %d: %v", i, err)
					}
				}
				if got := len(b.alone) - abreast; got != c.alone {
					t.Errorf("%d are made alone, want %d", got, c.alone)
				}
				b.rest(t)
			})
		})
	}
}

func TestACallerMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGatherBed()
		ctx, cancel := context.WithCancel(t.Context())
		first := b.call(t.Context(), t, 0, abreast)
		left := b.call(ctx, t, abreast, abreast+3)
		cancel()
		for _, err := range left() {
			if !freshet.IsKind(err, freshet.KindDeadline) {
				t.Errorf("a caller that left: %v", err)
			}
		}
		close(b.gate)
		none(t, first())
		if len(b.crews) != 0 {
			t.Errorf("calls of those that left were made: %v", b.crews)
		}
		b.rest(t)
	})
}

// TestCallsEndWhenAllHaveLeft: as long as one waits they go on.
func TestCallsEndWhenAllHaveLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGatherBed()
		ctx, cancel := context.WithCancel(t.Context())
		last, leave := context.WithCancel(t.Context())
		first := b.call(t.Context(), t, 0, abreast)
		some, one := b.call(ctx, t, abreast, abreast+3), b.call(last, t, abreast+3, abreast+4)
		b.gate <- struct{}{} // one of the first is answered, the others take its place
		synctest.Wait()
		cancel()
		some()
		synctest.Wait()
		if len(b.crews) != 1 || b.ended != 0 {
			t.Fatalf("made together: %v, of which %d ended while one waited", b.crews, b.ended)
		}
		leave()
		one()
		synctest.Wait()
		if b.ended != 1 {
			t.Errorf("%d ended when nobody waited", b.ended)
		}
		close(b.gate)
		none(t, first())
		b.rest(t)
	})
}
