package crosscluster

import (
	"context"
	"sync"
	"time"

	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/invalidation"
)

// verifyTimeout bounds one proof of leadership. It is shorter than the time
// after which subscribers count us as lost.
const verifyTimeout = 2 * time.Second

// verifier shares proofs of leadership between those who ask at the same time.
type verifier struct {
	region Region
	clock  clock.Clock
	turn   chan struct{} // held by whoever runs a round

	mu   sync.Mutex
	next *round // not yet begun
	last *round // the last that succeeded
}

type round struct {
	done  chan struct{}
	began time.Time
	epoch uint64
	heads []invalidation.Head
	err   error
}

func newVerifier(region Region, c clock.Clock) *verifier {
	return &verifier{region: region, clock: c, turn: make(chan struct{}, 1)}
}

// after returns heads that were verified after the call began.
func (v *verifier) after(ctx context.Context) (*round, error) {
	v.mu.Lock()
	if v.next == nil {
		v.next = &round{done: make(chan struct{})}
	}
	r := v.next
	v.mu.Unlock()
	select {
	case <-r.done:
	case v.turn <- struct{}{}:
		v.run(ctx, r)
		<-v.turn
		<-r.done
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return r, r.err
}

// recent returns heads whose verification began at most age ago.
func (v *verifier) recent(ctx context.Context, age time.Duration) (*round, error) {
	v.mu.Lock()
	last := v.last
	v.mu.Unlock()
	if last != nil && v.clock.Since(last.began) <= age {
		return last, nil
	}
	return v.after(ctx)
}

// run executes r unless another has: then r is done, for rounds run one by one.
func (v *verifier) run(ctx context.Context, r *round) {
	v.mu.Lock()
	mine := v.next == r
	if mine {
		v.next = nil
	}
	v.mu.Unlock()
	if !mine {
		return
	}
	// Others wait for this round too: the end of one caller must not fail it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verifyTimeout)
	defer cancel()
	r.began = v.clock.Now()
	for same := false; !same; { // heads of a new epoch must not go under the old one
		r.epoch = v.region.Identity().Epoch
		r.heads, r.err = v.region.VerifiedHeads(ctx)
		same = r.err != nil || v.region.Identity().Epoch == r.epoch
	}
	if r.err == nil {
		v.mu.Lock()
		v.last = r
		v.mu.Unlock()
	}
	close(r.done)
}
