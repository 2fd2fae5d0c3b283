package crosscluster

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
)

// Bounds of gossip. What exceeds them is left to the streams.
const (
	inboxSize       = 8192
	framesPerSecond = 20
	frameBurst      = 5
	// maxBacklog is how many records are gossiped late; older ones are left to
	// the digest.
	maxBacklog     = 200
	digestInterval = time.Second
	hintsPerSecond = 1000 // marks by gossip, per publisher
)

// deliver takes a payload from the pool. It never blocks: what does not fit is
// dropped, and made up for by asking for everything.
func (b *Bus) deliver(payload []byte) {
	select {
	case b.inbox <- payload:
	default:
		b.metrics.frames.WithLabelValues("overflow").Inc()
		b.mu.Lock()
		b.overflow = true
		b.mu.Unlock()
	}
}

// watchPool keeps the directory up to date with the pool, and the pool with us.
func (b *Bus) watchPool(ctx context.Context) error {
	told := b.member()
	for {
		members, changed := b.gossip.Members()
		b.dir.pool(members)
		if now := b.member(); now != told {
			if err := b.gossip.Announce(now); err != nil {
				b.log.Warn("the gossip pool was not told of our change", "error", err)
			} else {
				told = now
			}
		}
		if b.awake(ctx, changed) {
			return nil
		}
	}
}

// awake waits for a change, at most a second, and reports whether ctx has ended.
func (b *Bus) awake(ctx context.Context, changed <-chan struct{}) (ended bool) {
	timer := b.clock.NewTimer(heartbeatInterval)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C():
	case <-ctx.Done():
		return true
	}
	return false
}

// receive reads the payloads of others. They mark and wake; they never advance a
// position.
func (b *Bus) receive(ctx context.Context) error {
	for {
		select {
		case payload := <-b.inbox:
			b.read(payload)
		case <-ctx.Done():
			return nil
		}
		for _, l := range b.overflown() {
			l.nudgeAll()
		}
	}
}

// overflown returns all links if payloads were dropped and the rest is read.
func (b *Bus) overflown() []*link {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.overflow || len(b.inbox) > 0 {
		return nil
	}
	b.overflow = false
	return slices.Collect(maps.Values(b.links))
}

// read takes one payload. Corrupt ones and those of strangers are dropped.
func (b *Bus) read(payload []byte) {
	result := "corrupt"
	if f, err := invalidation.DecodeFrame(payload); err == nil {
		result = b.readFrame(f)
	} else if g, err := invalidation.DecodeDigest(payload); err == nil {
		result = b.readDigest(g)
	}
	if result != "" {
		b.metrics.frames.WithLabelValues(result).Inc()
	}
}

// source returns the link to whom a payload is from; nil if it is not to be taken,
// with the reason.
func (b *Bus) source(id freshet.ClusterID) (*link, string) {
	if id == b.region.Identity().Cluster {
		return nil, "" // our own, back again
	}
	k, ok := b.dir.byID(id)
	if !ok || !k.greeted {
		return nil, "unknown"
	}
	return b.link(k.name), "" // nil on a member that does not lead
}

func (b *Bus) readFrame(f invalidation.Frame) string {
	l, why := b.source(f.Publisher)
	if l == nil {
		return why
	}
	if !l.contact.ahead(f.Domain, f.Epoch, f.Last()) {
		return "repeated"
	}
	if !l.hints.add(f) {
		return "limited"
	}
	return "taken"
}

func (b *Bus) readDigest(g invalidation.Digest) string {
	l, why := b.source(g.Publisher)
	if l == nil {
		return why
	}
	for _, h := range g.Heads {
		l.contact.ahead(h.Domain, g.Epoch, h.High)
	}
	l.contact.alive(g.Epoch)
	return "taken"
}

// alive notes that the publisher gossips, even if it says nothing new.
func (c *contact) alive(epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.logs {
		if epoch < s.sub.Publisher.Epoch {
			return
		}
	}
	c.heard = c.bus.clock.Now()
}

// nudgeAll asks for everything of the publisher.
func (l *link) nudgeAll() {
	l.contact.mu.Lock()
	var all []freshet.DomainID
	for d, s := range l.contact.logs {
		if s.exists {
			all = append(all, d)
		}
	}
	l.contact.mu.Unlock()
	for _, d := range all {
		l.nudge(d)
	}
}

// publish gossips our new records and log heads while this member leads.
func (b *Bus) publish(ctx context.Context) error {
	limit := rate.NewLimiter(framesPerSecond, frameBurst)
	sent := map[freshet.DomainID]uint64{}
	all, _ := b.region.Heads()
	for _, h := range all {
		sent[h.Domain] = h.High
	}
	next := b.clock.NewTimer(0)
	defer next.Stop()
	for {
		_, grown := b.region.Heads()
		more := b.publishFrames(limit, sent)
		retry := b.clock.NewTimer(time.Second / framesPerSecond)
		if !more {
			retry.Stop()
		}
		select {
		case <-grown:
		case <-retry.C():
		case <-next.C():
			b.publishDigest()
			next.Reset(digestInterval*4/5 + rand.N(digestInterval*2/5)) //nolint:gosec // jitter is no secret
		case <-ctx.Done():
		}
		retry.Stop()
		if ctx.Err() != nil {
			return nil
		}
		if more { // the limiter decides, not the growth
			if !b.pause(ctx, time.Second/framesPerSecond) {
				return nil
			}
		}
	}
}

// publishFrames gossips what the limit allows, and reports whether something is
// left.
func (b *Bus) publishFrames(limit *rate.Limiter, sent map[freshet.DomainID]uint64) (more bool) {
	all, _ := b.region.Heads()
	for _, h := range all {
		if h.High > sent[h.Domain]+maxBacklog {
			sent[h.Domain] = h.High - maxBacklog
		}
		for sent[h.Domain] < h.High {
			if !limit.AllowN(b.clock.Now(), 1) {
				more = true
				break
			}
			batch, err := b.region.Records(h.Domain, sent[h.Domain], maxBatch)
			if err != nil || len(batch.Records) == 0 {
				sent[h.Domain] = h.High
				break
			}
			payload, n := invalidation.PackFrame(batch, invalidation.MaxFrame)
			if n == 0 {
				sent[h.Domain]++ // too long for a frame
				continue
			}
			b.gossipOut(payload, false)
			sent[h.Domain] += uint64(n)
		}
	}
	return more
}

func (b *Bus) publishDigest() {
	all, _ := b.region.Heads()
	self := b.region.Identity()
	for first := true; first || len(all) > 0; first = false {
		payload, n := invalidation.PackDigest(invalidation.Digest{Publisher: self.Cluster, Epoch: self.Epoch, Heads: all}, invalidation.MaxFrame)
		// Only a digest that holds all heads may be replaced by a newer one.
		b.gossipOut(payload, first && n == len(all))
		all = all[n:]
	}
}

func (b *Bus) gossipOut(payload []byte, coalesce bool) {
	if err := b.gossip.Publish(payload, coalesce); err != nil {
		b.log.Warn("a payload was not gossiped", "error", err, "bytes", len(payload))
		return
	}
	b.metrics.frames.WithLabelValues("sent").Inc()
}
