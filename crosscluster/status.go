package crosscluster

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
)

// The states of a domain in a PeerStatus.
const (
	PeerSynced   = "SYNCED"   // everything known is applied
	PeerGap      = "GAP"      // records are known that are not applied yet
	PeerReset    = "RESET"    // the log is being started over, or has not been begun
	PeerDegraded = "DEGRADED" // the publisher is out of contact
)

// PeerStatus is what this member knows of another cluster. What it listens to is
// known on the leader only.
type PeerStatus struct {
	Name       string
	ID         freshet.ClusterID // nil UUID until it introduced itself
	Epoch      uint64
	Addresses  []string
	Configured bool
	Gossip     bool // a member of it is alive in the gossip pool
	Stream     bool // its leader's stream is open
	// LastContact is the time of the last request that its verified leader
	// answered, zero if there was none.
	LastContact time.Time
	LastError   string
	Domains     []PeerDomain
}

// PeerDomain is how we stand with one log of a cluster, and it with ours.
type PeerDomain struct {
	Domain      freshet.DomainID
	Authority   string
	State       string
	Reason      string // for DEGRADED and RESET
	Applied     uint64
	Head        uint64 // the highest sequence number that it is known to have
	Behind      uint64 // records known and not applied
	LastReset   time.Time
	ResetReason string
	// Acknowledged is how much of our own log the other cluster applied.
	Acknowledged uint64
}

// Peers returns the known clusters, by name.
func (b *Bus) Peers() []PeerStatus {
	all, _ := b.dir.list()
	authority := map[freshet.DomainID]string{}
	roots, _ := b.region.Roots()
	for _, r := range roots {
		authority[r.Domain] = r.Authority
	}
	out := make([]PeerStatus, 0, len(all))
	for _, k := range all {
		p := PeerStatus{
			Name: k.name, ID: k.id, Epoch: k.epoch, Addresses: k.addresses(), Configured: k.configured, Gossip: len(k.gossiped) > 0,
		}
		seen := map[freshet.DomainID]bool{}
		if l := b.link(k.name); l != nil {
			p.Domains = l.contact.status(&p)
		}
		for i := range p.Domains {
			d := &p.Domains[i]
			seen[d.Domain] = true
			d.Acknowledged = k.acked[d.Domain]
		}
		for d, applied := range k.acked {
			if !seen[d] {
				p.Domains = append(p.Domains, PeerDomain{Domain: d, Acknowledged: applied})
			}
		}
		for i := range p.Domains {
			p.Domains[i].Authority = authority[p.Domains[i].Domain]
		}
		slices.SortFunc(p.Domains, func(x, y PeerDomain) int {
			if c := strings.Compare(x.Authority, y.Authority); c != 0 {
				return c
			}
			return bytes.Compare(x.Domain[:], y.Domain[:])
		})
		out = append(out, p)
	}
	return out
}

func (c *contact) status(p *PeerStatus) []PeerDomain {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.Stream, p.LastContact, p.LastError = c.stream, c.verified, c.last
	var out []PeerDomain
	for d, s := range c.logs {
		if !s.exists && !s.lost {
			continue
		}
		row := PeerDomain{
			Domain: d, Applied: s.sub.Applied, Head: max(s.head.High, s.target, s.sub.Applied),
			LastReset: s.lastReset, ResetReason: s.resetReason, State: PeerSynced,
		}
		row.Behind = row.Head - row.Applied
		switch {
		case s.sub.State == invalidation.StateReset || (!s.synced && p.ID != uuid.Nil && s.exists && s.lost && c.stream):
			row.State, row.Reason = PeerReset, s.reason
		case s.lost:
			row.State, row.Reason = PeerDegraded, s.reason
		case row.Behind > 0:
			row.State = PeerGap
		}
		out = append(out, row)
	}
	return out
}
