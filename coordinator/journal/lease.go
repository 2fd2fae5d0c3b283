package journal

import (
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/freshet-io/freshet/internal/clock"
)

// contacts knows when the calls were *sent* that the other members answered last,
// and from that how old the word of a quorum is.
type contacts struct {
	self  raft.ServerID
	clock clock.Clock
	raft  atomic.Pointer[raft.Raft] // nil until it was made

	mu      sync.Mutex
	term    uint64
	sent    map[raft.ServerID]time.Duration // by clock.Elapsed
	barred  uint64                          // term in which there is no lease any more
	newest  atomic.Pointer[confirmation]
	changed chan struct{} // closed at each new confirmation; nil while nobody waits
}

// confirmation says that at or after the time at, a quorum took this member for
// the leader of the term.
type confirmation struct {
	term   uint64
	at     time.Duration
	barred bool // it proves leadership at that time, and promises nothing beyond
}

func newContacts(self raft.ServerID, c clock.Clock) *contacts {
	return &contacts{self: self, clock: c, sent: map[raft.ServerID]time.Duration{}}
}

// answered records that a member took us for the leader of the term when it got
// the call that was sent at the given time.
func (c *contacts) answered(id raft.ServerID, term uint64, sent time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.enter(term) {
		return
	}
	if before, ok := c.sent[id]; !ok || sent > before { // times may be negative
		c.sent[id] = sent
	}
	c.compute()
}

// recompute is called when the term begins and after each change of the members.
func (c *contacts) recompute(term uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.enter(term) {
		c.compute()
	}
}

// bar ends the lease for the rest of the term: a voter may now pass over us.
func (c *contacts) bar(term uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.barred = max(c.barred, term)
	if c.enter(term) {
		c.compute()
	}
}

// enter reports whether term is the current one, and makes it so if it is newer.
// The caller holds mu.
func (c *contacts) enter(term uint64) bool {
	if term > c.term {
		c.term = term
		clear(c.sent)
		c.newest.Store(nil)
	}
	return term == c.term
}

// compute derives the confirmation from the voters' last answers. The caller
// holds mu.
func (c *contacts) compute() {
	r := c.raft.Load()
	if r == nil {
		return
	}
	voters, need := 0, 0
	var sent []time.Duration
	// The latest configuration, committed or not, which also decides elections.
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if s.ID == c.self {
			need-- // our own word is always fresh
		} else if at, ok := c.sent[s.ID]; ok {
			sent = append(sent, at)
		}
	}
	need += voters/2 + 1
	next := &confirmation{term: c.term, barred: c.barred == c.term}
	switch {
	case voters == 0 || need > len(sent):
		next = nil
	case need == 0:
		next.at = math.MaxInt64 // nobody else can be elected
	default:
		slices.Sort(sent)
		next.at = sent[len(sent)-need]
	}
	c.newest.Store(next)
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// leased reports whether no other leader can have been elected before now. It
// costs one reading of the clock.
func (c *contacts) leased(term uint64, lease time.Duration) bool {
	p := c.newest.Load()
	if p == nil || p.term != term || p.barred {
		return false
	}
	return p.at == math.MaxInt64 || c.clock.Elapsed()-p.at < lease
}

// confirmed reports whether a quorum took us for the leader of the term at some
// time not before since.
func (c *contacts) confirmed(term uint64, since time.Duration) bool {
	p := c.newest.Load()
	return p != nil && p.term == term && p.at >= since
}

// next returns a channel that is closed at the next confirmation.
func (c *contacts) next() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return c.changed
}

// last returns how long ago the call to the member was sent that it answered
// last, in the current term.
func (c *contacts) last(id raft.ServerID) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.sent[id]
	return c.clock.Elapsed() - at, ok
}

// timed wraps the transport and reports to contacts. Answers to pipelined appends
// are left out: heartbeats run beside them all the time.
type timed struct {
	transport
	to *contacts
	// reachable is how recently a member must have answered to be sent a dump.
	reachable time.Duration
	holds     *holds // of the log
}

// transport is what every transport of Raft that we use can do.
type transport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// AppendEntries implements raft.Transport.
func (t *timed) AppendEntries(id raft.ServerID, addr raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	sent := t.to.clock.Elapsed()
	if err := t.transport.AppendEntries(id, addr, req, resp); err != nil {
		return err
	}
	// Only success renews the follower's promise, see raft.appendEntries.
	if resp.Success && resp.Term == req.Term {
		t.to.answered(id, req.Term, sent)
	}
	return nil
}

// InstallSnapshot implements raft.Transport.
func (t *timed) InstallSnapshot(id raft.ServerID, addr raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	live, ok := data.(*liveDump)
	if !ok {
		return t.transport.InstallSnapshot(id, addr, req, resp, data)
	}
	if ago, ok := t.to.last(id); !ok || ago > t.reachable {
		return fmt.Errorf("member %s lags behind the log and does not answer; no snapshot is made for it", id)
	}
	defer t.holds.keep(req.LastLogIndex + 1)()
	dump, size, err := live.make()
	if err != nil {
		return err
	}
	defer dump.Close()
	req.Size = size
	return t.transport.InstallSnapshot(id, addr, req, resp, dump)
}

// TimeoutNow implements raft.Transport. It is the only call that makes a follower
// stand for election, and voters vote, while they hear from the leader.
func (t *timed) TimeoutNow(id raft.ServerID, addr raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	if r := t.to.raft.Load(); r != nil {
		t.to.bar(r.CurrentTerm())
	}
	return t.transport.TimeoutNow(id, addr, req, resp)
}
