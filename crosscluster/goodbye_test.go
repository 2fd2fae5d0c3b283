package crosscluster_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet/crosscluster"
	"github.com/freshet-io/freshet/crosscluster/membus"
	"github.com/freshet-io/freshet/invalidation"
	busv1 "github.com/freshet-io/freshet/proto/freshet/bus/v1"
)

func writer(i *busv1.ClusterInfo) { i.Roots = []*busv1.Root{{Domain: lake[:], Key: "/"}} }

// slowAnswer is a peer whose answer to the first introduction is on its way until
// the test lets it arrive; it has left the bus by then.
type slowAnswer struct {
	crosscluster.Peer
	asked  chan struct{}
	arrive chan struct{}
	calls  int
}

func (p *slowAnswer) Hello(context.Context, *busv1.HelloRequest) (*busv1.HelloResponse, error) {
	if p.calls++; p.calls > 1 {
		return nil, errors.New("this cluster has left the bus")
	}
	close(p.asked)
	<-p.arrive
	return &busv1.HelloResponse{Cluster: cluster(writer)}, nil
}

func (p *slowAnswer) Poll(context.Context, *busv1.PollRequest) (*busv1.PollResponse, error) {
	return nil, errors.New("this cluster has left the bus")
}

func (p *slowAnswer) Close() error { return nil }

// An answer to our introduction that arrives after its cluster said goodbye does
// not take the goodbye back.
func TestGoodbyeOutlivesAnAnswerOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := membus.NewCluster(invalidation.Publisher{Cluster: self, Name: "east", Epoch: 5}, &membus.Order{})
		c.Mount(crosscluster.Root{Domain: lake, Key: "/"})
		c.Lead(0)
		defer c.Lead(-1)
		peer := &slowAnswer{asked: make(chan struct{}), arrive: make(chan struct{})}
		b := crosscluster.New(c.Member(0, "c1"), func(context.Context, string) (crosscluster.Peer, error) { return peer, nil },
			crosscluster.Options{Peers: []crosscluster.PeerConfig{{Cluster: "west", Addresses: []string{"a:1"}}}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx) }()
		<-peer.asked
		west := cluster(writer)
		if _, err := b.Hello(ctx, &busv1.HelloRequest{Cluster: west}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Goodbye(ctx, &busv1.GoodbyeRequest{ClusterId: west.GetClusterId(), Epoch: west.GetEpoch()}); err != nil {
			t.Fatal(err)
		}
		close(peer.arrive)
		for range 100 {
			time.Sleep(100 * time.Millisecond) // of the bubble
			if lost := c.AnyLost(lake); len(lost) > 0 {
				t.Fatalf("waited for a cluster that left: %q", lost)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
