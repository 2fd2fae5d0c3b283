package coordinator

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/invalidation"
)

// contacts is whether the publishers of each domain can be heard. It is memory of
// a term: a new leader holds every publisher that the state knows for lost until
// the bus has heard from it, for what it missed meanwhile it can't know.
type contacts struct {
	clock clock.Clock

	mu    sync.Mutex
	began time.Time
	byKey map[contactKey]contact
	// reasons is what degraded found, until something changes.
	reasons map[freshet.DomainID]string
}

type contactKey struct {
	domain freshet.DomainID
	// publisher is the cluster's ID, or its name while the ID is not known.
	publisher string
}

type contact struct {
	name   string
	lost   bool
	reason string
	fresh  time.Time // when the request was sent whose answer confirmed contact
}

func (k *contacts) init(c clock.Clock) {
	k.clock = c
	k.forget()
}

// forget starts over; the caller holds mu or is alone.
func (k *contacts) forget() {
	k.byKey, k.began, k.reasons = map[contactKey]contact{}, k.clock.Now(), nil
}

// changed says that a position in a publisher's log was changed.
func (k *contacts) changed() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reasons = nil
}

func keyOf(p invalidation.Publisher, d freshet.DomainID) contactKey {
	if p.Cluster == (freshet.ClusterID{}) {
		return contactKey{d, "name:" + p.Name}
	}
	return contactKey{d, p.Cluster.String()}
}

// Confirm says that a verified answer from the publisher's leader to a request
// that was sent at sent showed that everything published before is applied here.
func (c *Coordinator) Confirm(p invalidation.Publisher, domain freshet.DomainID, sent time.Time) {
	k := &c.contacts
	k.mu.Lock()
	defer k.mu.Unlock()
	if sent.Before(k.began) {
		return // heard for an earlier term
	}
	k.reasons = nil
	delete(k.byKey, contactKey{domain, "name:" + p.Name})
	k.byKey[keyOf(p, domain)] = contact{name: p.Name, fresh: sent}
}

// Lost says that a publisher of the domain has been out of contact for longer
// than the bus allows, or came back.
func (c *Coordinator) Lost(p invalidation.Publisher, domain freshet.DomainID, lost bool, reason string) {
	k := &c.contacts
	k.mu.Lock()
	defer k.mu.Unlock()
	key := keyOf(p, domain)
	at := k.byKey[key]
	k.reasons = nil
	if at.lost != lost {
		if lost {
			c.log.Warn("a publisher is out of contact: its mounts are degraded", "publisher", p.Name, "reason", reason)
		} else {
			c.log.Info("a publisher is in contact again", "publisher", p.Name)
		}
	}
	if !lost && p.Name != "" {
		delete(k.byKey, contactKey{domain, "name:" + p.Name})
	}
	k.byKey[key] = contact{name: p.Name, lost: lost, reason: reason, fresh: at.fresh}
}

// drop forgets a publisher.
func (k *contacts) drop(cluster freshet.ClusterID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reasons = nil
	for key := range k.byKey {
		if key.publisher == cluster.String() {
			delete(k.byKey, key)
		}
	}
}

// degraded says why news of the domain may be missing, "" if none is.
func (c *Coordinator) degraded(domain freshet.DomainID) string {
	k := &c.contacts
	k.mu.Lock()
	defer k.mu.Unlock()
	reason, known := k.reasons[domain]
	if !known {
		reason = c.findDegraded(domain)
		if k.reasons == nil {
			k.reasons = map[freshet.DomainID]string{}
		}
		k.reasons[domain] = reason
	}
	return reason
}

// findDegraded is degraded without its memory; the lock of contacts is held.
func (c *Coordinator) findDegraded(domain freshet.DomainID) string {
	var why []string
	k := &c.contacts
	heard := map[contactKey]bool{}
	for key, at := range k.byKey {
		if key.domain != domain {
			continue
		}
		heard[key] = true
		if at.lost {
			why = append(why, fmt.Sprintf("%s is out of contact: %s", nameOr(at.name, key.publisher), at.reason))
		}
	}
	for _, sub := range c.state.Subscriptions() {
		if sub.Domain != domain {
			continue
		}
		name := nameOr(sub.Publisher.Name, sub.Publisher.Cluster.String())
		switch {
		case sub.State == invalidation.StateReset:
			why = append(why, fmt.Sprintf("the position in the log of %s is being reset", name))
		case !heard[keyOf(sub.Publisher, domain)]:
			why = append(why, fmt.Sprintf("%s was not heard yet by this leader", name))
		}
	}
	slices.Sort(why)
	return strings.Join(why, "; ")
}

func nameOr(name, id string) string {
	if name == "" {
		return id
	}
	return name
}

// effective is the interval that applies, and why.
type effective struct {
	interval freshet.Interval
	degraded string // why news of the mount may be missing
	// suspended: the storage itself tells of every change, so that time does not count.
	suspended bool
}

// rule returns the interval for a path: that of the request, or that of the
// policy or mount of the longest prefix. While the mount's own storage is heard and
// tells of every change, the mount's interval is suspended; while news may be
// missing, the mount's degraded interval shortens whatever applies.
func (c *Coordinator) rule(l *namespace.Lookup, override *freshet.Interval) effective {
	if override != nil {
		return effective{interval: *override}
	}
	e := effective{interval: l.Interval}
	if !l.HasMount {
		return e
	}
	complete, heard := c.listens(&l.Mount)
	if complete && heard && l.Rule.Mount {
		e.interval, e.suspended = freshet.Never, true
	}
	degraded := ""
	if l.Policy.Level == freshet.LevelInvalidate {
		if degraded = c.degraded(l.Mount.Domain); degraded != "" || (l.Mount.ActiveSync && !heard) {
			e.interval = shorter(e.interval, l.Mount.DegradedInterval)
		}
	}
	if l.Mount.ActiveSync && !heard {
		degraded = join(degraded, c.unheard(&l.Mount, e.interval))
	}
	e.degraded = degraded
	return e
}

func shorter(a, b freshet.Interval) freshet.Interval {
	switch {
	case a < 0:
		return b
	case b < 0:
		return a
	}
	return min(a, b)
}

// ruleOf makes the rule that looks are made under.
func (c *Coordinator) ruleOf(override *freshet.Interval) func(*namespace.Lookup) freshet.Interval {
	return func(l *namespace.Lookup) freshet.Interval { return c.rule(l, override).interval }
}
