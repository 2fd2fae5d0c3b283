// Package invalidation owns what a change notice is, the order of the notices of
// one publisher, and when a receiver must repeat, wait, pull or start over. It
// is pure: no clock, goroutine, socket, log or metric; values in, values out.
//
// A publisher (a cluster) keeps one log per UFS domain. Every change that it
// makes to the storage ends in exactly one Record of that log, in the same
// replicated command that makes the change visible at home. Sequence numbers
// are dense from 1. Each record extends a hash chain, so that a log that was
// lost or restored is told from one that merely grew.
package invalidation

import (
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
)

// Kind says what happened. It is a hint: the publisher's view of the storage may
// be old, so a receiver never trusts it to mean that nothing else changed.
type Kind uint8

// The kinds of change.
const (
	KindContent Kind = iota + 1 // the bytes of a file
	KindMeta                    // owner, group or mode only
	KindCreate                  // a file that was not known before
	KindDelete                  // a file or a directory with all below it
	KindRename                  // Key moved to Key2, with all below it
	KindMkdir
	KindSubtree // anything at or below Key
	KindAll     // anything in the domain
)

// String returns the word for k.
func (k Kind) String() string {
	names := []string{"unknown", "content", "meta", "create", "delete", "rename", "mkdir", "subtree", "all"}
	if int(k) < len(names) {
		return names[k]
	}
	return names[0]
}

// Record is one change. Keys are keys of the domain: "/" followed by the
// segments, without a trailing slash.
type Record struct {
	Seq  uint64
	Kind Kind
	Key  string
	Key2 string // target of a rename
	// Recursive: the change covers everything below Key and Key2.
	Recursive bool
	// Fingerprint is the version at Key (of a rename: at Key2) after the
	// change; unknown for a deletion, a directory or an unsure outcome.
	Fingerprint fingerprint.Fingerprint
	Op          freshet.OpID
	// PublishedAt is the publisher's wall clock; for metrics only.
	PublishedAt time.Time

	// raw is the canonical form as received, kept only where the fields above
	// do not tell everything that it says: a record written by a newer version.
	// It is what is stored, sent on and hashed, so that the chain holds.
	raw string
}

// Hash is a position in a hash chain; zero before the first record.
type Hash [16]byte

// Head is the state of one log: records Low..High are there to be read. An
// empty log has Low = High+1. Hash is the chain's value after High.
type Head struct {
	Domain freshet.DomainID
	Low    uint64
	High   uint64
	Hash   Hash
}

// Batch is a run of records of one log, contiguous and in order: the first has
// sequence number After+1 and extends the chain from AfterHash.
type Batch struct {
	Publisher freshet.ClusterID
	Epoch     uint64
	Domain    freshet.DomainID
	After     uint64
	AfterHash Hash
	Records   []Record
}

// Publisher is a cluster as a source of records.
type Publisher struct {
	Cluster freshet.ClusterID
	Name    string
	Epoch   uint64
}

// State is the state of a subscription.
type State uint8

// The states of a subscription. Whether it is degraded (no word from a verified
// leader for too long) is not part of the replicated state.
const (
	StateReset  State = iota // nothing of the log may be trusted yet
	StateSynced              // all records up to Applied are reflected in the stamps
)

// String returns the word for s.
func (s State) String() string {
	if s == StateSynced {
		return "synced"
	}
	return "reset"
}

// Subscription is a receiver's position in one publisher's log of one domain.
// Applied is the contiguous high-water: every record up to it is reflected in
// the receiver's stamps.
type Subscription struct {
	Publisher Publisher
	Domain    freshet.DomainID
	State     State
	Applied   uint64
	Hash      Hash // of the chain after Applied
}

// Verdict is what a receiver does with a batch.
type Verdict uint8

// The verdicts.
const (
	VerdictIgnore Verdict = iota // of an older epoch, or nothing new in it
	VerdictApply                 // mark what it names and advance
	VerdictGap                   // records in between are missing: pull them; marking early is allowed
	VerdictReset                 // epoch, chain or state do not fit: start over
)
