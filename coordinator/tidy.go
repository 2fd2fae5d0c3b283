package coordinator

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/invalidation"
)

// Retention says what of the own logs is kept for subscribers. The zero value is
// usable.
type Retention struct {
	// Records are kept in any case; 100,000 by default.
	Records uint64
	// Age: what is younger is kept too; an hour by default. Ages are counted by
	// the leader of the term, so that a new one keeps everything for that long.
	Age time.Duration
	// Most is the number of records that are kept for a live subscriber that has
	// not acknowledged them; 1,000,000 by default. One that is further behind
	// starts over.
	Most uint64
}

func (r *Retention) setDefaults() {
	setDefault(&r.Records, 100_000)
	setDefault(&r.Age, time.Hour)
	setDefault(&r.Most, 1_000_000)
}

// reminder remembers one moment on the clock's Elapsed.
type reminder struct {
	mu sync.Mutex
	at time.Duration
	on bool
}

func (r *reminder) due(at time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at, r.on = at, true
}

// take reports whether the moment has come, once.
func (r *reminder) take(now time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.on || now < r.at {
		return false
	}
	r.on = false
	return true
}

// ages remembers how far the logs were in the past, to tell what is older than
// something.
type ages struct{ marks []ageMark }

type ageMark struct {
	at    time.Duration
	heads map[freshet.DomainID]uint64
}

// maxMarks bounds what ages remembers: the step between two marks is a share of
// the longest age that is asked for.
const maxMarks = 128

func (a *ages) note(m ageMark, step time.Duration) {
	if n := len(a.marks); n > 0 && m.at-a.marks[n-1].at < step {
		return
	}
	a.marks = append(a.marks, m)
	if len(a.marks) > maxMarks {
		a.marks = a.marks[1:]
	}
}

// before returns the newest mark that is at least age old.
func (a *ages) before(now, age time.Duration) (ageMark, bool) {
	for _, m := range slices.Backward(a.marks) {
		if now-m.at >= age {
			return m, true
		}
	}
	return ageMark{}, false
}

// tidy does the leader's housekeeping until ctx ends: entries of detached trees
// are freed and logs compacted.
func (c *Coordinator) tidy(ctx context.Context) error {
	var past ages
	for {
		trash := c.watch.trash.wait()
		more, err := c.tidyOnce(ctx, &past)
		if err != nil && ctx.Err() == nil {
			c.log.Warn("housekeeping failed; it is tried again", "error", err)
		}
		if more && err == nil {
			continue
		}
		select {
		case <-trash:
		case <-c.clock.After(c.opts.Tick):
		case <-ctx.Done():
			return nil
		}
	}
}

// purgeLimit is how many entries of detached trees one command frees: few enough
// that nobody waits for it.
const purgeLimit = 1000

func (c *Coordinator) tidyOnce(ctx context.Context, past *ages) (more bool, err error) {
	if c.state.Stats().Trash > 0 {
		r, err := c.one(ctx, namespace.Command{Purge: &namespace.Purge{Limit: purgeLimit}})
		if err != nil {
			return false, err
		}
		if r.More {
			return true, nil
		}
	}
	if more, err := c.countQuotas(ctx); more || err != nil {
		return more, err
	}
	now := c.clock.Elapsed()
	heads := c.state.Heads()
	m := ageMark{at: now, heads: map[freshet.DomainID]uint64{}}
	for _, h := range heads {
		m.heads[h.Domain] = h.High
	}
	past.note(m, c.opts.Retention.Age/(maxMarks/2))
	if c.again.take(now) {
		if _, err := c.one(ctx, namespace.Command{PublishAll: &namespace.PublishAll{At: c.clock.Now().UTC()}}); err != nil {
			c.again.due(now)
			return false, err
		}
	}
	if err := c.expireOnce(ctx); err != nil {
		return false, err
	}
	if err := c.restLeases(ctx); err != nil {
		return false, err
	}
	return false, c.compact(ctx, past, heads, now)
}

// longestOp is how long an effect on any mounted storage may land after its
// sender died.
func (c *Coordinator) longestOp() time.Duration {
	longest := time.Minute
	mounts, _ := c.state.Mounts()
	for _, m := range mounts {
		longest = max(longest, m.MaxOpLifetime)
	}
	return longest
}

// remindWithin is how far back a new leader looks for word of an earlier one.
const remindWithin = 256

// remind takes over what an earlier leader would have said once more: that
// anything may have changed, when no effect from before can land any more (C16).
// It said so the first time in each log. A wall clock that is wrong makes the
// second time early or late, and one too many costs receivers a look.
func (c *Coordinator) remind() {
	longest := c.longestOp()
	for _, h := range c.state.Heads() {
		after := max(h.Low-1, h.High-min(h.High, remindWithin))
		b, err := c.state.Records(h.Domain, after, remindWithin)
		if err != nil {
			continue // the log is empty, or gone: nothing was said
		}
		for i := range b.Records {
			age := max(c.clock.Now().Sub(b.Records[i].PublishedAt), 0)
			if b.Records[i].Kind == invalidation.KindAll && age < longest {
				c.again.due(c.clock.Elapsed() + longest - age)
			}
		}
	}
}

// compactSlack is how many records beyond what is to be kept gather before a log
// is compacted.
const compactSlack = 1024

func (c *Coordinator) compact(ctx context.Context, past *ages, heads []invalidation.Head, now time.Duration) error {
	old, ok := past.before(now, c.opts.Retention.Age)
	if !ok {
		return nil
	}
	acked := c.hooks.Load().Acked
	for _, h := range heads {
		var ack uint64
		live := false
		if acked != nil {
			ack, live = acked(h.Domain)
		}
		low := c.opts.Retention.low(h, old.heads[h.Domain], ack, live)
		if low < h.Low+compactSlack {
			continue
		}
		if _, err := c.one(ctx, namespace.Command{Compact: &namespace.Compact{Domain: h.Domain, Low: low}}); err != nil {
			return err
		}
	}
	return nil
}

// low returns the first record of a log that has to stay: aged is the head of as
// long ago as records are kept, ack the lowest position of the live subscribers.
func (r Retention) low(h invalidation.Head, aged, ack uint64, live bool) uint64 {
	floor := func(n uint64) uint64 { // the first of the last n
		if h.High < n {
			return 1
		}
		return h.High - n + 1
	}
	low := min(floor(r.Records), aged+1)
	if live {
		low = min(low, ack+1)
	}
	return max(low, floor(r.Most), h.Low)
}
