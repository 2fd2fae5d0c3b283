package crosscluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/run"
	"github.com/freshet-io/freshet/invalidation"
	busv1 "github.com/freshet-io/freshet/proto/freshet/bus/v1"
)

// follow takes what the stream and pulls bring, in order, until something ends
// the session.
func (s *session) follow(ctx context.Context, g *run.Group, dirChanged <-chan struct{}) error {
	if err := s.solicit(true); err != nil {
		return err
	}
	s.silent = s.bus().clock.Now()
	beat := s.bus().clock.NewTimer(heartbeatInterval)
	defer beat.Stop()
	tick := s.bus().clock.NewTimer(watchTick)
	defer tick.Stop()
	for {
		if m := s.kept; m != nil {
			s.kept = nil
			if err := s.take(ctx, m); err != nil {
				return err
			}
			continue
		}
		var err error
		select {
		case m := <-s.inbox:
			err = s.take(ctx, m)
		case b := <-s.pulled:
			err = s.apply(ctx, b)
		case d := <-s.pullEnded:
			delete(s.pulling, d)
		case <-beat.C():
			beat.Reset(heartbeatInterval)
			err = s.solicit(false)
		case <-tick.C():
			tick.Reset(watchTick)
			err = s.tick(ctx, g)
		case <-s.link.nudged:
			s.pull(g)
		case <-dirChanged:
			dirChanged, err = s.compare()
		case <-s.rootsChanged:
			err = errResync
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// tick does what is due: pulls, resets that had to wait, giving up a silent stream.
func (s *session) tick(ctx context.Context, g *run.Group) error {
	if s.bus().clock.Since(s.silent) > contactTimeout {
		return fmt.Errorf("no heartbeat for %s", contactTimeout)
	}
	s.pull(g)
	for d, reason := range s.resets {
		if s.mayReset(d) {
			return s.reset(ctx, d, reason)
		}
	}
	return nil
}

// compare ends the session if the publisher is another one now, or what concerns
// us of it has changed.
func (s *session) compare() (<-chan struct{}, error) {
	_, changed := s.bus().dir.list()
	k, ok := s.bus().dir.lookup(s.link.name)
	if !ok || k.id != s.publisher.Cluster || k.epoch != s.publisher.Epoch {
		return changed, errResync
	}
	now := s.link.contact.interest(k)
	if len(now) != len(s.domains) {
		return changed, errResync
	}
	for d := range now {
		if !s.domains[d] {
			return changed, errResync
		}
	}
	return changed, nil
}

func (s *session) take(ctx context.Context, m *busv1.SubscribeResponse) error {
	switch body := m.GetBody().(type) {
	case *busv1.SubscribeResponse_Batch:
		return s.takeBatch(ctx, body.Batch)
	case *busv1.SubscribeResponse_Heartbeat:
		return s.takeHeartbeat(ctx, body.Heartbeat)
	case *busv1.SubscribeResponse_Reset_:
		d, err := domainOf(body.Reset_.GetDomain())
		if err != nil {
			return err
		}
		if s.domains[d] {
			return s.reset(ctx, d, body.Reset_.GetReason())
		}
	}
	return nil // of a newer version
}

// takeBatch applies a batch, together with those of the same log that arrived
// meanwhile.
func (s *session) takeBatch(ctx context.Context, m *busv1.Batch) error {
	b, err := batchFromWire(m)
	if err != nil {
		return s.takeCorrupt(ctx, m, err)
	}
	delete(s.corrupt, b.Domain)
	for len(b.Records) < maxBatch {
		var next *busv1.SubscribeResponse
		select {
		case next = <-s.inbox:
		default:
			return s.apply(ctx, b)
		}
		more := next.GetBatch()
		if more == nil {
			s.kept = next
			break
		}
		nb, err := batchFromWire(more)
		last := b.After + uint64(len(b.Records))
		if err != nil || nb.Domain != b.Domain || nb.Publisher != b.Publisher || nb.Epoch != b.Epoch || nb.After != last {
			s.kept = next
			break
		}
		b.Records = append(b.Records, nb.Records...)
	}
	return s.apply(ctx, b)
}

// takeCorrupt has a batch that can't be read sent again; the second time the log
// is started over.
func (s *session) takeCorrupt(ctx context.Context, m *busv1.Batch, cause error) error {
	d, err := domainOf(m.GetDomain())
	if err != nil || !s.domains[d] {
		return errors.Join(cause, err)
	}
	s.corrupt[d]++
	s.bus().metrics.count(s.link.name, "corrupt", 1)
	s.bus().log.Error("a batch of records can't be read", "cluster", s.link.name, "error", cause)
	if s.corrupt[d] < 2 {
		return s.restart(d)
	}
	s.corrupt[d] = 0
	return s.reset(ctx, d, "records can't be read")
}

// apply hands a batch to the region in commands of bounded size.
func (s *session) apply(ctx context.Context, b invalidation.Batch) error {
	if !s.domains[b.Domain] || b.Publisher != s.publisher.Cluster {
		return nil
	}
	if _, waits := s.resets[b.Domain]; waits {
		return s.link.hints.markNow(ctx, b.Domain, b.Records) // they mark, and advance nothing
	}
	for {
		part := cut(b, maxBatch, maxBatchSize)
		more, err := s.applyPart(ctx, part)
		if err != nil || !more || len(part.Records) == len(b.Records) {
			return err
		}
		b.Records = b.Records[len(part.Records):]
		b.After += uint64(len(part.Records))
		for i := range part.Records {
			b.AfterHash = b.AfterHash.Next(part.Records[i])
		}
	}
}

// applyPart applies one command's worth, and reports whether what follows it may
// be applied too.
func (s *session) applyPart(ctx context.Context, b invalidation.Batch) (bool, error) {
	before, _ := s.link.contact.position(b.Domain)
	if b.Epoch == before.Publisher.Epoch && b.After > before.Applied {
		return false, s.gap(b.Domain)
	}
	verdict, sub, err := s.bus().region.Apply(ctx, b)
	if err != nil {
		return false, freshet.Wrap("apply records", "", err)
	}
	m := s.bus().metrics
	switch verdict {
	case invalidation.VerdictApply:
		delete(s.restarts, b.Domain)
		news := b.Records[min(len(b.Records), int(max(before.Applied, b.After)-b.After)):]
		m.count(s.link.name, "applied", len(news))
		m.count(s.link.name, "duplicate", len(b.Records)-len(news))
		now := s.bus().clock.Now()
		for i := range news {
			if at := news[i].PublishedAt; !at.IsZero() {
				m.lag.WithLabelValues(s.link.name).Observe(max(0, now.Sub(at).Seconds()))
			}
		}
		s.link.contact.moved(sub)
	case invalidation.VerdictIgnore:
		delete(s.restarts, b.Domain)
		m.count(s.link.name, "duplicate", len(b.Records))
		s.link.contact.moved(sub)
	case invalidation.VerdictGap:
		s.link.contact.moved(sub)
		return false, s.gap(b.Domain)
	case invalidation.VerdictReset:
		return false, s.reset(ctx, b.Domain, "a batch does not fit: epoch or chain")
	}
	return true, nil
}

// gap has the missing records sent again, once for all batches that were on the
// way behind them.
func (s *session) gap(d freshet.DomainID) error {
	if asked, ok := s.restarts[d]; ok && s.bus().clock.Since(asked) < stallWait {
		return nil
	}
	s.bus().metrics.gaps.Inc()
	return s.restart(d)
}

// takeHeartbeat takes a proof of leadership with the heads of the logs.
func (s *session) takeHeartbeat(ctx context.Context, m *busv1.Heartbeat) error {
	h, err := headsFromWire(m.GetClusterId(), m.GetEpoch(), m.GetHeads())
	if err != nil {
		return err
	}
	if h.cluster == s.publisher.Cluster && h.epoch > s.publisher.Epoch {
		return errResync
	}
	if err := s.check(h); err != nil {
		return err
	}
	c := s.link.contact
	s.silent = s.bus().clock.Now()
	c.mu.Lock()
	c.stream = true
	c.mu.Unlock()
	q, ok := s.asked(m.GetAnswers())
	if !ok {
		return nil // older than what we still remember
	}
	c.answered(q.sent)
	for d := range s.domains {
		at, pushed := q.at[d]
		if _, waits := s.resets[d]; waits || !pushed {
			continue
		}
		head := h.head(d)
		now, _ := c.position(d)
		if at.Behind(h.epoch, head) == invalidation.VerdictReset && now.Publisher == at.Publisher {
			if err := s.reset(ctx, d, "the publisher's log lies behind us, or is another"); err != nil {
				return err
			}
			continue
		}
		if now.Applied == head.High && now.Hash != head.Hash {
			if err := s.reset(ctx, d, "the publisher's log is another at our position"); err != nil {
				return err
			}
			continue
		}
		c.proved(head, q.sent)
	}
	for d, head := range h.of {
		if !s.domains[d] && head.High > 0 {
			c.with(d, func(st *standing) { st.head = head })
		}
	}
	if _, err := s.compare(); err != nil {
		return err
	}
	return nil
}

// asked returns the solicit that a heartbeat answers, and forgets older ones.
func (s *session) asked(number uint64) (solicit, bool) {
	for i, q := range s.solicits {
		if q.number == number {
			s.solicits = s.solicits[i:]
			return q, true
		}
	}
	return solicit{}, false
}

// pull starts pulls of the domains that are wanted now, beside the stream.
func (s *session) pull(g *run.Group) {
	for _, d := range s.link.takeWanted() {
		if !s.domains[d] || s.pulling[d] {
			continue
		}
		s.pulling[d] = true
		sub, _ := s.link.contact.position(d)
		g.Go("pull", func(ctx context.Context) error {
			err := s.pullFrom(ctx, sub, func(b invalidation.Batch) error {
				select {
				case s.pulled <- b:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			if err != nil {
				s.bus().log.Debug("a pull failed", "cluster", s.link.name, "error", err)
			}
			select {
			case s.pullEnded <- d:
			case <-ctx.Done():
			}
			return nil
		})
	}
}

// pullNow pulls and applies what is missing, without a stream.
func (s *session) pullNow(ctx context.Context, d freshet.DomainID) error {
	sub, exists := s.link.contact.position(d)
	if !exists || sub.State != invalidation.StateSynced {
		return nil
	}
	if s.domains == nil {
		s.begin()
	}
	s.domains = map[freshet.DomainID]bool{d: true}
	return s.pullFrom(ctx, sub, func(b invalidation.Batch) error {
		verdict, sub, err := s.bus().region.Apply(ctx, b)
		if err != nil {
			return err
		}
		switch verdict {
		case invalidation.VerdictReset:
			s.link.contact.unsynced(d, "a pulled batch does not fit: epoch or chain")
			return errors.New("a pulled batch does not fit")
		case invalidation.VerdictApply:
			s.bus().metrics.count(s.link.name, "applied", len(b.Records))
		case invalidation.VerdictIgnore, invalidation.VerdictGap:
		}
		s.link.contact.moved(sub)
		return nil
	})
}

// pullFrom reads records after a position and hands them on in order.
func (s *session) pullFrom(ctx context.Context, sub invalidation.Subscription, take func(invalidation.Batch) error) error {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	req := &busv1.PullRequest{
		ClusterId: sub.Publisher.Cluster[:], Epoch: sub.Publisher.Epoch, Domain: sub.Domain[:], After: sub.Applied, Limit: maxPull,
	}
	return s.peer.Pull(ctx, req, func(resp *busv1.PullResponse) error {
		b, err := batchFromWire(resp.GetBatch())
		if err != nil {
			return err
		}
		if len(b.Records) == 0 {
			return nil
		}
		return take(b)
	})
}

// pullTimeout bounds one pull of at most maxPull records.
const pullTimeout = 10 * time.Second
