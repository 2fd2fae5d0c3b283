package crosscluster

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
)

// standing is how we stand with one log of a publisher.
type standing struct {
	sub    invalidation.Subscription
	exists bool // sub is durable
	// synced: since this member leads, everything that a verified head named
	// was applied, and no reset is due.
	synced bool
	why    string // it is not synced

	// A sequence number that somebody named and we lack, and since when.
	target uint64
	since  time.Time
	pulled time.Time // when it was last asked for
	moved  time.Time // when the position last advanced
	wait   time.Duration

	// A verified head that waits for being applied, to be confirmed then.
	confirm  uint64
	verified time.Time

	head        invalidation.Head // the last verified
	resets      int
	lastReset   time.Time
	resetReason string
	nextReset   time.Time // not before

	told   bool // the region knows lost
	lost   bool
	reason string
	as     invalidation.Publisher // under which the region knows
}

// contact is what a link knows about its publisher. The session moves it, gossip
// and the watch look at it: it is safe for concurrent use.
type contact struct {
	bus  *Bus
	name string

	mu       sync.Mutex
	verified time.Time // when the last request was sent that a verified leader answered
	heard    time.Time // last gossip
	last     string    // last error
	stream   bool      // a stream is open
	logs     map[freshet.DomainID]*standing
}

// interest returns the domains for which we listen to k: those that we mount and
// that it writes to, wrote to, or may write to for all we know.
func (c *contact) interest(k known) map[freshet.DomainID]bool {
	out := map[freshet.DomainID]bool{}
	roots, _ := c.bus.region.Roots()
	mine := map[freshet.DomainID]bool{}
	for _, r := range roots {
		if r.Level != freshet.LevelInterval {
			mine[r.Domain] = true
		}
	}
	if !k.introduced {
		return mine
	}
	for _, r := range k.roots {
		if !r.ReadOnly && mine[r.Domain] {
			out[r.Domain] = true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for d, s := range c.logs {
		if mine[d] && (s.exists || s.head.High > 0) {
			out[d] = true
		}
	}
	return out
}

// load takes the durable positions of the publisher.
func (c *contact) load(id freshet.ClusterID) error {
	subs, err := c.bus.region.Subscriptions()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for d, s := range c.logs {
		if s.exists && s.sub.Publisher.Cluster != id {
			s.exists, s.synced, s.sub = false, false, invalidation.Subscription{}
		}
		c.logs[d] = s
	}
	for _, s := range subs {
		if s.Publisher.Cluster == id {
			st := c.log(s.Domain)
			st.sub, st.exists = s, true
		}
	}
	return nil
}

// log returns the standing in a domain. The lock is held.
func (c *contact) log(d freshet.DomainID) *standing {
	s, ok := c.logs[d]
	if !ok {
		s = &standing{why: "not synchronised since this member leads"}
		c.logs[d] = s
	}
	return s
}

// with calls fn with the standing in a domain under the lock.
func (c *contact) with(d freshet.DomainID, fn func(*standing)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn(c.log(d))
}

func (c *contact) position(d freshet.DomainID) (invalidation.Subscription, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.logs[d]
	if !ok {
		return invalidation.Subscription{}, false
	}
	return s.sub, s.exists
}

// moved notes the position after a command, and confirms what it reached.
func (c *contact) moved(sub invalidation.Subscription) {
	c.mu.Lock()
	s := c.log(sub.Domain)
	if !s.exists || sub.Applied != s.sub.Applied {
		s.moved, s.wait = c.bus.clock.Now(), 0
	}
	s.sub, s.exists = sub, true
	if s.target <= sub.Applied {
		s.target, s.since = 0, time.Time{}
	}
	var sent time.Time
	if !s.verified.IsZero() && s.confirm <= sub.Applied && sub.State == invalidation.StateSynced {
		sent, s.verified = s.verified, time.Time{}
		s.synced, s.why = true, ""
	}
	c.mu.Unlock()
	if !sent.IsZero() {
		c.bus.region.Confirm(sub.Publisher, sub.Domain, sent)
		c.tell(false)
	}
}

// proved notes a verified head that answers a request sent at the given time;
// once it is applied, it confirms that we are level.
func (c *contact) proved(head invalidation.Head, sent time.Time) {
	c.mu.Lock()
	s := c.log(head.Domain)
	s.head = head
	if s.verified.IsZero() { // else an earlier one still waits: it comes first
		s.confirm, s.verified = head.High, sent
	}
	if s.target > head.High && sent.After(s.since) {
		// Somebody named a record that the leader itself did not know later.
		s.target, s.since = 0, time.Time{}
		c.bus.metrics.frames.WithLabelValues("bogus").Inc()
	}
	if head.High > s.sub.Applied && s.target == 0 {
		s.target, s.since = head.High, c.bus.clock.Now()
	}
	sub, exists := s.sub, s.exists
	c.mu.Unlock()
	if exists {
		c.moved(sub)
	}
}

// answered notes that a verified leader answered a request sent at the given time.
func (c *contact) answered(sent time.Time) {
	c.mu.Lock()
	if sent.After(c.verified) {
		c.verified = sent
	}
	c.last = ""
	c.mu.Unlock()
	c.bus.dir.heard(c.name, sent.Add(contactTimeout))
}

// ahead notes that the publisher is said to have records up to seq, and reports
// whether they are news.
func (c *contact) ahead(d freshet.DomainID, epoch, seq uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.bus.clock.Now()
	s, ok := c.logs[d]
	if !ok {
		return true // nothing is known of that log; gossip is no reason to remember it
	}
	if epoch < s.sub.Publisher.Epoch {
		return false
	}
	c.heard = now
	if epoch == s.sub.Publisher.Epoch && seq <= s.sub.Applied && s.exists {
		return false
	}
	if s.target == 0 && seq > s.sub.Applied {
		s.target, s.since, s.wait = seq, now, 0
		c.bus.metrics.gaps.Inc()
	}
	return true
}

// due returns the domains whose missing records should be pulled now. An open
// stream gets the time to bring them itself.
func (c *contact) due() []freshet.DomainID {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.bus.clock.Now()
	patience := reorderWait
	if c.stream {
		patience = stallWait
	}
	var out []freshet.DomainID
	for d, s := range c.logs {
		behind := s.exists && s.target > s.sub.Applied
		if behind && now.Sub(s.since) >= patience && now.Sub(s.moved) >= patience && now.Sub(s.pulled) >= s.wait {
			s.pulled = now
			s.wait = min(max(2*s.wait, minBackOff), maxBackOff)
			out = append(out, d)
		}
	}
	return out
}

// unsynced notes that the log has to be started over.
func (c *contact) unsynced(d freshet.DomainID, why string) {
	c.with(d, func(s *standing) {
		s.synced, s.why, s.verified = false, why, time.Time{}
	})
	c.tell(false)
}

// verdict says why the mounts of a domain can't rely on the publisher, "" if they
// can. The lock is held.
func (c *contact) verdict(s *standing, now time.Time) string {
	switch {
	case !s.synced && c.last != "":
		return s.why + ": " + c.last
	case !s.synced:
		return s.why
	case now.Sub(c.verified) > streamTimeout:
		return fmt.Sprintf("no answer of its leader for %s", streamTimeout)
	case now.Sub(c.verified) > contactTimeout && now.Sub(c.heard) > contactTimeout:
		return fmt.Sprintf("no answer of its leader and no gossip for %s", contactTimeout)
	case s.target > s.sub.Applied && now.Sub(s.since) > contactTimeout:
		return fmt.Sprintf("its changes up to %d can't be had, %d are applied", s.target, s.sub.Applied)
	}
	return ""
}

// word is one call of Region.Lost.
type word struct {
	as     invalidation.Publisher
	domain freshet.DomainID
	lost   bool
	reason string
}

// tell tells the region for which domains the publisher is lost, where that
// changed. With gone, it is lost for none any more.
func (c *contact) tell(gone bool) {
	k, ok := c.bus.dir.lookup(c.name)
	interest := map[freshet.DomainID]bool{}
	if ok && !gone && !k.dismissed {
		interest = c.interest(k)
	}
	as := k.publisher()
	c.mu.Lock()
	defer c.mu.Unlock() // held while telling, so that words keep their order
	for d := range interest {
		c.log(d)
	}
	now := c.bus.clock.Now()
	for d, s := range maps.All(c.logs) {
		for _, w := range c.words(d, s, as, interest[d], now) {
			c.bus.region.Lost(w.as, w.domain, w.lost, w.reason)
			c.bus.log.Info("contact to a publisher changed", "cluster", w.as.Name, "lost", w.lost, "reason", w.reason)
		}
	}
}

func (c *contact) words(d freshet.DomainID, s *standing, as invalidation.Publisher, interesting bool, now time.Time) []word {
	var out []word
	if s.told && s.as.Cluster != as.Cluster && as.Cluster != uuid.Nil {
		if s.lost {
			out = append(out, word{s.as, d, false, "known by another cluster ID now"})
		}
		s.told = false
	}
	reason := ""
	if interesting {
		reason = c.verdict(s, now)
	}
	lost := reason != ""
	switch {
	case !interesting && !(s.told && s.lost):
		return out
	case s.told && s.lost == lost:
		s.reason = reason
		return out
	case !interesting:
		reason = "nobody waits for it any more"
	case !lost:
		reason = "in contact, everything known is applied"
	}
	s.told, s.lost, s.reason, s.as = true, lost, reason, as
	return append(out, word{as, d, lost, reason})
}
