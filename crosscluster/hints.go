package crosscluster

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/invalidation"
)

// hinter marks what one publisher's gossip names. Where a stream is open, it gives
// the stream the chance to bring the same first, which spares a command.
type hinter struct {
	bus     *Bus
	contact *contact
	marks   *rate.Limiter // bounds what a holder of the gossip key can cause
	wide    *rate.Limiter // the same for marks of everything
	woken   chan struct{}

	mu    sync.Mutex
	queue []hint
}

type hint struct {
	domain freshet.DomainID
	record invalidation.Record
	epoch  uint64
	due    time.Time
}

func newHinter(b *Bus, c *contact) *hinter {
	return &hinter{
		bus: b, contact: c, woken: make(chan struct{}, 1),
		marks: rate.NewLimiter(hintsPerSecond, hintsPerSecond),
		wide:  rate.NewLimiter(rate.Every(time.Minute), 1),
	}
}

// add queues the changes of a frame and reports whether the limits allowed it.
func (h *hinter) add(f invalidation.Frame) bool {
	now := h.bus.clock.Now()
	if !h.marks.AllowN(now, len(f.Hints)) {
		return false
	}
	h.contact.mu.Lock()
	due := now
	if h.contact.stream {
		due = now.Add(reorderWait)
	}
	h.contact.mu.Unlock()
	allowed := true
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, hinted := range f.Hints {
		everything := hinted.Kind == invalidation.KindAll || hinted.Key == "/" || hinted.Key2 == "/"
		if everything && !h.wide.AllowN(now, 1) {
			allowed = false
			continue
		}
		if len(h.queue) >= inboxSize {
			return false
		}
		h.queue = append(h.queue, hint{domain: f.Domain, epoch: f.Epoch, record: hinted.Record(f.First + uint64(i)), due: due})
	}
	select {
	case h.woken <- struct{}{}:
	default:
	}
	return allowed
}

// run marks what is due until ctx ends.
func (h *hinter) run(ctx context.Context) error {
	for {
		var timer clock.Timer
		var fires <-chan time.Time
		batches, next := h.take()
		for d, records := range batches {
			if err := h.markNow(ctx, d, records); err != nil && ctx.Err() == nil {
				h.bus.log.Warn("gossiped changes were not marked", "cluster", h.contact.name, "error", err)
			}
		}
		if !next.IsZero() {
			timer = h.bus.clock.NewTimer(next.Sub(h.bus.clock.Now()))
			fires = timer.C()
		}
		select {
		case <-h.woken:
		case <-fires:
		case <-ctx.Done():
			return nil
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// take removes what is due, without what was applied since, and returns when the
// next will be.
func (h *hinter) take() (map[freshet.DomainID][]invalidation.Record, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[freshet.DomainID][]invalidation.Record{}
	now := h.bus.clock.Now()
	for len(h.queue) > 0 {
		q := h.queue[0]
		if q.due.After(now) {
			return out, q.due
		}
		h.queue = h.queue[1:]
		sub, exists := h.contact.position(q.domain)
		applied := exists && sub.State == invalidation.StateSynced && q.epoch == sub.Publisher.Epoch && q.record.Seq <= sub.Applied
		if !applied {
			out[q.domain] = append(out[q.domain], q.record)
		}
	}
	h.queue = nil
	return out, time.Time{}
}

// markNow marks records without advancing anything.
func (h *hinter) markNow(ctx context.Context, d freshet.DomainID, records []invalidation.Record) error {
	if !h.mounted(d) {
		return nil
	}
	for len(records) > 0 {
		n := min(len(records), maxBatch)
		if err := h.bus.region.Hint(ctx, d, records[:n]); err != nil {
			h.bus.metrics.count(h.contact.name, "dropped", len(records))
			return err
		}
		h.bus.metrics.count(h.contact.name, "hinted", n)
		records = records[n:]
	}
	return nil
}

func (h *hinter) mounted(d freshet.DomainID) bool {
	roots, _ := h.bus.region.Roots()
	for _, r := range roots {
		if r.Domain == d {
			return true
		}
	}
	return false
}
