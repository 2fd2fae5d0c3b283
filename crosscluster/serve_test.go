package crosscluster_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/crosscluster"
	"github.com/freshet-io/freshet/crosscluster/membus"
	"github.com/freshet-io/freshet/invalidation"
	busv1 "github.com/freshet-io/freshet/proto/freshet/bus/v1"
)

var (
	lake = freshet.DomainID{'l'}
	self = uuid.UUID{1}
)

// lone returns a bus that is asked without running: the leader of a cluster with
// ten records of which the first three are gone.
func lone() (*membus.Cluster, *crosscluster.Bus) {
	c := membus.NewCluster(invalidation.Publisher{Cluster: self, Name: "east", Epoch: 5}, &membus.Order{})
	for range 10 {
		c.Write(lake, invalidation.Record{Kind: invalidation.KindContent, Key: "/k"})
	}
	c.Compact(lake, 4)
	c.Lead(0)
	return c, crosscluster.New(c.Member(0, "c1"), nil, crosscluster.Options{})
}

func cluster(change func(*busv1.ClusterInfo)) *busv1.ClusterInfo {
	id := uuid.UUID{2}
	info := &busv1.ClusterInfo{
		ClusterId: id[:], Name: "west", Epoch: 9, ProtocolMin: 1, ProtocolMax: 1, Addresses: []string{"a:1", "b:1"},
	}
	if change != nil {
		change(info)
	}
	return info
}

func TestHelloRefuses(t *testing.T) {
	other := uuid.UUID{3}
	tests := map[string]struct {
		change func(*busv1.ClusterInfo)
		kind   freshet.Kind
		want   string
	}{
		"the same again":     {nil, freshet.KindOK, ""},
		"epoch grown":        {func(i *busv1.ClusterInfo) { i.Epoch = 10 }, freshet.KindOK, ""},
		"newer protocol too": {func(i *busv1.ClusterInfo) { i.ProtocolMax = 7 }, freshet.KindOK, ""},
		"rebuilt":            {func(i *busv1.ClusterInfo) { i.ClusterId, i.Epoch = other[:], 1 }, freshet.KindOK, ""},
		"S12 epoch going back": {
			func(i *busv1.ClusterInfo) { i.Epoch = 7 }, freshet.KindConflict,
			"epoch 7 < known 9: restored without bump? run freshet cluster bump-epoch",
		},
		"unknown protocol":     {func(i *busv1.ClusterInfo) { i.ProtocolMin, i.ProtocolMax = 2, 3 }, freshet.KindUnsupported, "speaks bus protocol 2 to 3, we speak 1 to 1"},
		"no protocol":          {func(i *busv1.ClusterInfo) { i.ProtocolMin, i.ProtocolMax = 0, 0 }, freshet.KindUnsupported, "speaks bus protocol"},
		"our ID":               {func(i *busv1.ClusterInfo) { i.ClusterId = self[:] }, freshet.KindConflict, "our own cluster ID"},
		"our name":             {func(i *busv1.ClusterInfo) { i.Name, i.ClusterId = "east", other[:] }, freshet.KindConflict, "named east like us"},
		"copied ID":            {func(i *busv1.ClusterInfo) { i.Name = "north" }, freshet.KindConflict, "needs an ID of its own"},
		"no ID":                {func(i *busv1.ClusterInfo) { i.ClusterId = make([]byte, 16) }, freshet.KindInvalid, "cluster ID"},
		"short ID":             {func(i *busv1.ClusterInfo) { i.ClusterId = i.GetClusterId()[:3] }, freshet.KindInvalid, "cluster ID"},
		"no name":              {func(i *busv1.ClusterInfo) { i.Name = "" }, freshet.KindInvalid, "cluster name"},
		"name with a newline":  {func(i *busv1.ClusterInfo) { i.Name = "a\nb" }, freshet.KindInvalid, "cluster name"},
		"domain of wrong size": {func(i *busv1.ClusterInfo) { i.Roots = []*busv1.Root{{Domain: []byte("x")}} }, freshet.KindInvalid, "domain ID"},
		"too many addresses":   {func(i *busv1.ClusterInfo) { i.Addresses = make([]string, 65) }, freshet.KindInvalid, "addresses"},
		"nothing at all":       {func(i *busv1.ClusterInfo) { i.Reset() }, freshet.KindInvalid, "cluster ID"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, b := lone()
			ctx := context.Background()
			first, err := b.Hello(ctx, &busv1.HelloRequest{Cluster: cluster(nil)})
			if err != nil || first.GetCluster().GetName() != "east" || first.GetCluster().GetEpoch() != 5 {
				t.Fatalf("%v, %v", first, err)
			}
			_, err = b.Hello(ctx, &busv1.HelloRequest{Cluster: cluster(tt.change)})
			if freshet.KindOf(err) != tt.kind || (err != nil && !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want kind %v and %q", err, tt.kind, tt.want)
			}
		})
	}
}

func TestHelloBoundsTheNumberOfClusters(t *testing.T) {
	_, b := lone()
	var err error
	n := 0
	for ; n < 1000 && err == nil; n++ {
		id := uuid.New()
		_, err = b.Hello(context.Background(), &busv1.HelloRequest{Cluster: cluster(func(i *busv1.ClusterInfo) {
			i.ClusterId, i.Name = id[:], "c"+strings.ReplaceAll(id.String(), "-", "")
		})})
	}
	if freshet.KindOf(err) != freshet.KindExhausted {
		t.Errorf("%d clusters: %v", n, err)
	}
}

// Security 96: what is not in the log is refused, never guessed.
func TestPullRefuses(t *testing.T) {
	unknown := freshet.DomainID{'u'}
	tests := map[string]struct {
		change func(*busv1.PullRequest)
		kind   freshet.Kind
		count  int
	}{
		"all there is":     {func(r *busv1.PullRequest) { r.After = 3 }, freshet.KindOK, 7},
		"a part":           {func(r *busv1.PullRequest) { r.After, r.Limit = 5, 2 }, freshet.KindOK, 2},
		"nothing new":      {func(r *busv1.PullRequest) { r.After = 10 }, freshet.KindOK, 0},
		"an empty log":     {func(r *busv1.PullRequest) { r.Domain = unknown[:] }, freshet.KindOK, 0},
		"compacted":        {func(r *busv1.PullRequest) { r.After = 2 }, freshet.KindStale, 0},
		"beyond the end":   {func(r *busv1.PullRequest) { r.After = 11 }, freshet.KindStale, 0},
		"far beyond":       {func(r *busv1.PullRequest) { r.After = 1<<64 - 1 }, freshet.KindStale, 0},
		"another epoch":    {func(r *busv1.PullRequest) { r.Epoch = 4 }, freshet.KindStale, 0},
		"another cluster":  {func(r *busv1.PullRequest) { r.ClusterId = make([]byte, 15) }, freshet.KindInvalid, 0},
		"malformed domain": {func(r *busv1.PullRequest) { r.Domain = nil }, freshet.KindInvalid, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, b := lone()
			req := &busv1.PullRequest{ClusterId: self[:], Epoch: 5, Domain: lake[:], Limit: 100}
			tt.change(req)
			count := 0
			err := b.Pull(context.Background(), req, func(resp *busv1.PullResponse) error {
				count += len(resp.GetBatch().GetRecords())
				return nil
			})
			if freshet.KindOf(err) != tt.kind || count != tt.count {
				t.Errorf("%d records and %v, want %d and %v", count, err, tt.count, tt.kind)
			}
		})
	}
}

func TestOnlyTheLeaderSpeaksForTheCluster(t *testing.T) {
	c, b := lone()
	c.Lead(1)
	ctx := context.Background()
	if _, err := b.Poll(ctx, &busv1.PollRequest{}); freshet.KindOf(err) != freshet.KindNotLeader {
		t.Errorf("poll: %v", err)
	}
	err := b.Subscribe(ctx, func() (*busv1.SubscribeRequest, error) { return nil, errors.New("never asked") }, nil)
	if freshet.KindOf(err) != freshet.KindNotLeader {
		t.Errorf("subscribe: %v", err)
	}
	if err := b.Leave(ctx); freshet.KindOf(err) != freshet.KindNotLeader {
		t.Errorf("leave: %v", err)
	}
	c.Lead(0)
	resp, err := b.Poll(ctx, &busv1.PollRequest{Domains: [][]byte{lake[:]}})
	if err != nil || len(resp.GetHeads()) != 1 || resp.GetHeads()[0].GetHigh() != 10 || resp.GetHeads()[0].GetLow() != 4 {
		t.Errorf("poll of the leader: %v, %v", resp, err)
	}
	_, err = b.Goodbye(ctx, &busv1.GoodbyeRequest{ClusterId: make([]byte, 16)})
	if freshet.KindOf(err) != freshet.KindInvalid {
		t.Errorf("goodbye of nobody: %v", err)
	}
	id := uuid.New()
	if _, err = b.Goodbye(ctx, &busv1.GoodbyeRequest{ClusterId: id[:]}); freshet.KindOf(err) != freshet.KindNotExist {
		t.Errorf("goodbye of a stranger: %v", err)
	}
}
