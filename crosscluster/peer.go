package crosscluster

import (
	"context"

	"github.com/freshet-io/freshet"
	busv1 "github.com/freshet-io/freshet/proto/freshet/bus/v1"
)

// The protocol versions of freshet.bus.v1 that this build speaks.
const (
	ProtocolMin = 1
	ProtocolMax = 1
)

// Dialer opens a connection to one member of another cluster at its
// cluster-to-cluster address. Errors of it and of the Peer are *freshet.Error;
// the bus acts on their Kind.
type Dialer func(ctx context.Context, addr string) (Peer, error)

// Peer is a connection to one member of another cluster. Its methods are safe
// for concurrent use and return when their context ends.
type Peer interface {
	Hello(ctx context.Context, req *busv1.HelloRequest) (*busv1.HelloResponse, error)
	Poll(ctx context.Context, req *busv1.PollRequest) (*busv1.PollResponse, error)
	// Pull hands each part of the answer to receive, in order.
	Pull(ctx context.Context, req *busv1.PullRequest, receive func(*busv1.PullResponse) error) error
	// Subscribe opens the stream, sends what comes out of requests and hands
	// what arrives to receive, one at a time, until the context ends, receive
	// fails or the stream breaks. A slow receive slows the sender down.
	Subscribe(ctx context.Context, requests <-chan *busv1.SubscribeRequest, receive func(*busv1.SubscribeResponse) error) error
	Goodbye(ctx context.Context, req *busv1.GoodbyeRequest) (*busv1.GoodbyeResponse, error)
	Close() error
}

// Member is a coordinator of any cluster as the gossip pool shows it.
type Member struct {
	Cluster  string // the cluster's name
	ID       freshet.ClusterID
	Epoch    uint64
	Node     string
	Bus      string // cluster-to-cluster address, host:port
	Protocol uint32
}

// Gossip is the pool of all clusters' coordinators: it knows who is there, and
// carries small payloads to all of them, perhaps late, repeated, out of order or
// not at all.
type Gossip interface {
	// Run takes part until ctx ends, then leaves. It hands each payload that
	// arrives to deliver, which does not block.
	Run(ctx context.Context, self Member, deliver func(payload []byte)) error
	// Publish sends a payload of at most invalidation.MaxFrame bytes to all. Of
	// payloads with coalesce, only the newest matters.
	Publish(payload []byte, coalesce bool) error
	// Announce replaces what the pool is told about this member.
	Announce(self Member) error
	// Members returns the members that are alive, and a channel that is closed
	// when that changes.
	Members() ([]Member, <-chan struct{})
}
