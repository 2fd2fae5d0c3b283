// Package crosscluster owns the bus: it carries change notices between clusters
// at least once and in order per publisher, over one gRPC stream per publisher
// with serf gossip as a doorbell and a second way. It never decides whether an
// entry is fresh, never touches a storage, and does not know how its own
// cluster keeps state: it asks a Region.
package crosscluster

import (
	"context"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
)

// Identity is who the own cluster is.
type Identity struct {
	invalidation.Publisher
	// Node is the name of this coordinator, unique within the cluster.
	Node string
}

// Root is one mount of the own cluster, as peers need to know it.
type Root struct {
	Domain   freshet.DomainID
	Key      string // the mount root's key in the domain
	ReadOnly bool
	Level    freshet.Level
	// Authority is the readable name of the domain, such as "s3://lake".
	Authority string
}

// Region is the own cluster as the bus sees it: what it publishes, and what it
// does with what others publish. Methods that say "leader" return KindNotLeader
// on other members. The coordinator implements it.
type Region interface {
	// Identity returns who we are. The epoch may grow.
	Identity() Identity

	// Leading returns a context that lives as long as this member leads and has
	// applied the first barrier of its term, and whether it does now. A new
	// leadership is announced on Leadership.
	Leading() (context.Context, bool)
	// Leadership returns a channel that is closed at the next change of what
	// Leading returns.
	Leadership() <-chan struct{}

	// Roots returns the mounts, and a channel that is closed when they change.
	Roots() ([]Root, <-chan struct{})

	// Heads returns the heads of all own logs, and a channel that is closed
	// when one grows. Any member answers from its applied state.
	Heads() ([]invalidation.Head, <-chan struct{})
	// VerifiedHeads returns the heads as a leader that proved, after the call
	// began, that it leads.
	VerifiedHeads(ctx context.Context) ([]invalidation.Head, error)
	// Records returns up to max records of the own log of the domain from
	// after+1 on, with the chain's value at after. KindStale if the log no
	// longer reaches back to after+1 or never reached after; KindNotExist
	// if no log of the domain was ever begun.
	Records(domain freshet.DomainID, after uint64, limit int) (invalidation.Batch, error)

	// Subscriptions returns the durable positions in the logs of others.
	Subscriptions() ([]invalidation.Subscription, error)
	// Apply marks what the records name and advances the position, in one
	// replicated command; it judges the batch again against the replicated
	// position and returns the position after it. Leader.
	Apply(ctx context.Context, b invalidation.Batch) (invalidation.Verdict, invalidation.Subscription, error)
	// Hint marks what unverified records (from gossip, or those that arrived
	// while their log is being reset) name, and advances nothing. Leader.
	Hint(ctx context.Context, domain freshet.DomainID, records []invalidation.Record) error
	// Reset marks every mount of the domain and sets the position to head, in
	// one command. It creates the subscription if there is none, and replaces
	// one of an older epoch or of a superseded cluster ID. The caller read head
	// from the publisher's verified leader before it calls. Leader.
	Reset(ctx context.Context, p invalidation.Publisher, head invalidation.Head) (invalidation.Subscription, error)
	// Begin creates a subscription at position 0 of a log that still reaches
	// back to its first record; KindExist if there is one. Leader.
	Begin(ctx context.Context, p invalidation.Publisher, domain freshet.DomainID) (invalidation.Subscription, error)
	// Forget resets and drops everything of a publisher; KindNotExist if there is
	// nothing. Leader.
	Forget(ctx context.Context, cluster freshet.ClusterID) error

	// Confirm and Lost are told under a lock of the bus: they don't block, and don't
	// wait for anybody who may be inside a method of the Bus other than Nudge.

	// Confirm says that a verified answer from the publisher's leader to a
	// request sent at the given (monotonic) time showed that everything
	// published before is applied here: the publisher is in contact.
	Confirm(p invalidation.Publisher, domain freshet.DomainID, sent time.Time)
	// Lost says that a publisher of the domain has been out of contact for
	// longer than the bus allows (or came back, when lost is false): mounts
	// of the domain are degraded meanwhile, as long as any publisher of the
	// domain is lost. It is told by changes only, and anew by each leader: a new
	// leader starts with nobody lost, and is told of all publishers that it has
	// subscriptions of or that are configured. Publishers are told apart by
	// Cluster; one that was never heard of has an ID made of its name, which is
	// told as not lost any more when the real one is known.
	Lost(p invalidation.Publisher, domain freshet.DomainID, lost bool, reason string)
}
