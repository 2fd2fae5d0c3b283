package fill

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freshet-io/freshet/internal/clock"
)

// What the background keeps to while readers wait for sources: it looks every
// paceLook whether they still do, and each paceFloor it fetches one piece all the
// same, so that it comes to its end. A source that was used by a reader within
// paceQuiet is used by one still.
const (
	paceLook  = 5 * time.Millisecond
	paceQuiet = 20 * time.Millisecond
	paceFloor = 100 * time.Millisecond
)

// pacer makes what nobody waits for give way to what somebody does, and keeps it
// within a rate.
type pacer struct {
	clock clock.Clock
	rate  int64 // bytes a second; 0: none is set

	active atomic.Int64 // accesses to sources that readers wait for
	ended  atomic.Bool  // one has
	last   atomic.Int64 // when the last of them ended, on the clock's Elapsed

	mu    sync.Mutex
	begun bool          // the times below are set
	floor time.Duration // when a piece may be fetched in spite of them
	next  time.Duration // when the rate allows the next piece
}

// busy begins an access that a reader waits for, and returns what ends it.
func (p *pacer) busy() func() {
	p.active.Add(1)
	return p.idle
}

func (p *pacer) idle() {
	p.last.Store(int64(p.clock.Elapsed()))
	p.ended.Store(true)
	p.active.Add(-1)
}

// wait returns when n bytes may be fetched in the background, when urgent is closed,
// because a reader waits for them now, or when ctx ends.
func (p *pacer) wait(ctx context.Context, n int64, urgent <-chan struct{}) error {
	for {
		pause := p.pause(n)
		if pause <= 0 {
			return nil
		}
		t := p.clock.NewTimer(pause)
		select {
		case <-t.C():
		case <-urgent:
			t.Stop()
			return nil
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}

// pause returns how long to wait before n bytes are asked for anew; 0: they were
// granted.
func (p *pacer) pause(n int64) time.Duration {
	now := p.clock.Elapsed()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.begun {
		p.begun, p.floor, p.next = true, now, now
	}
	switch {
	case p.next > now:
		return p.next - now
	case p.floor > now && p.wanted(now):
		return min(paceLook, p.floor-now)
	}
	p.floor = now + paceFloor
	if p.rate > 0 {
		p.next = now + time.Duration(n*int64(time.Second)/p.rate)
	}
	return 0
}

// wanted reports whether readers wait for sources.
func (p *pacer) wanted(now time.Duration) bool {
	return p.active.Load() > 0 || p.ended.Load() && now-time.Duration(p.last.Load()) < paceQuiet
}
