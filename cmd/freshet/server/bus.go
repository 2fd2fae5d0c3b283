package server

import (
	"context"
	"encoding/base64"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/crosscluster"
	"github.com/freshet-io/freshet/rpc"
	"github.com/freshet-io/freshet/rpc/busrpc"
	"github.com/freshet-io/freshet/ufs"
)

// region is a coordinator as the bus sees it.
type region struct{ *coordinator.Coordinator }

var _ crosscluster.Region = region{}

// Identity implements crosscluster.Region.
func (r region) Identity() crosscluster.Identity {
	return crosscluster.Identity{Publisher: r.Publisher(), Node: r.Node()}
}

// Roots implements crosscluster.Region.
func (r region) Roots() ([]crosscluster.Root, <-chan struct{}) {
	own, changed := r.Coordinator.Roots()
	roots := make([]crosscluster.Root, len(own))
	for i, root := range own {
		roots[i] = crosscluster.Root(root)
	}
	return roots, changed
}

// bus is the bus of a coordinator with what its server needs.
type bus struct {
	*crosscluster.Bus

	region region
	gossip *crosscluster.Serf
	server *rpc.Server
	listen net.Listener
}

// newBus builds the bus, or returns nil where the file has none.
func (p *Process) newBus(cfg *config.File, c *coordinator.Coordinator, id *rpc.Identity, l net.Listener) (*bus, error) {
	if cfg.CrossCluster == nil {
		return nil, nil //nolint:nilnil // no bus, no error
	}
	key, err := gossipKey(cfg, p.Getenv)
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if id != nil {
		creds = credentials.NewTLS(id.Client())
	}
	advertise := advertised(cfg.Advertise.Bus, l)
	gossip := crosscluster.NewSerf(crosscluster.SerfOptions{
		Bind: cfg.Listen.Gossip, Advertise: cfg.Advertise.Gossip, Join: cfg.CrossCluster.Join, Key: key, Logger: p.Log,
	})
	peers := make([]crosscluster.PeerConfig, 0, len(cfg.CrossCluster.Peers))
	for _, peer := range cfg.CrossCluster.Peers {
		i := slices.IndexFunc(peers, func(p crosscluster.PeerConfig) bool { return p.Cluster == peer.Cluster })
		if i < 0 {
			peers = append(peers, crosscluster.PeerConfig{Cluster: peer.Cluster})
			i = len(peers) - 1
		}
		peers[i].Addresses = append(peers[i].Addresses, peer.Bus)
	}
	b := &bus{region: region{c}, gossip: gossip, listen: l, server: rpc.NewServer(rpc.ServerOptions{TLS: id.Mutual(), Log: p.Log})}
	b.Bus = crosscluster.New(region{c}, func(_ context.Context, addr string) (crosscluster.Peer, error) {
		return busrpc.Dial(addr, grpc.WithTransportCredentials(creds))
	}, crosscluster.Options{
		Addresses: c.BusAddresses, Advertise: advertise,
		Peers: peers, Gossip: gossip, Logger: p.Log, Registerer: p.Metrics,
	})
	busrpc.Register(b.server.Registrar(), b.Bus)
	return b, nil
}

// run takes part in the bus from the moment on that the cluster has an identity:
// before it is founded, members of all clusters would go by the same name.
func (b *bus) run(ctx context.Context) error {
	if err := b.region.Founded(ctx); err != nil {
		return nil //nolint:nilerr // the end of ctx is an orderly end
	}
	return b.Bus.Run(ctx)
}

// gossipKey resolves the reference to the gossip key.
func gossipKey(cfg *config.File, getenv func(string) string) ([]byte, error) {
	text := cfg.CrossCluster.GossipKey
	if text == "" {
		return nil, nil // Validate allows that on loopback only
	}
	ref, err := ufs.ParseSecretRef(text)
	if err != nil {
		return nil, err
	}
	secret, err := environment(cfg, getenv).Secret(ref)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(secret.Reveal())
	if err != nil || !slices.Contains([]int{16, 24, 32}, len(key)) {
		return nil, freshet.Errorf(freshet.KindInvalid, "read gossip key", "", "%s does not hold 16, 24 or 32 bytes in base64", ref)
	}
	return key, nil
}

// peers shows the bus to operators.
type peers struct{ b *bus }

var _ rpc.Peers = peers{}

// Peers implements rpc.Peers. Only the leader follows the others, so only it can
// tell how far it has come.
func (p peers) Peers(context.Context) ([]freshet.Peer, error) {
	if _, leading := p.b.region.Leading(); !leading {
		return nil, freshet.Errorf(freshet.KindNotLeader, "list peers", "", "only the leader follows other clusters")
	}
	all := p.b.Bus.Peers()
	out := make([]freshet.Peer, 0, len(all))
	for i := range all {
		out = append(out, peerOf(&all[i]))
	}
	slices.SortFunc(out, func(a, b freshet.Peer) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func peerOf(s *crosscluster.PeerStatus) freshet.Peer {
	out := freshet.Peer{
		Name: s.Name, ID: s.ID, Epoch: s.Epoch, Addresses: s.Addresses, State: "unknown", Reason: s.LastError, SinceContact: since(s.LastContact),
	}
	if s.Gossip {
		out.GossipMembers = 1
	}
	if s.Stream {
		out.State, out.Reason = "connected", ""
	}
	for _, d := range s.Domains {
		out.Domains = append(out.Domains, publisherOf(s, d))
		if d.State == crosscluster.PeerDegraded {
			out.State, out.Reason = "degraded", d.Reason
		}
	}
	return out
}

func since(t time.Time) time.Duration {
	if t.IsZero() {
		return -1
	}
	return time.Since(t)
}

func publisherOf(s *crosscluster.PeerStatus, d crosscluster.PeerDomain) freshet.PublisherStatus {
	states := map[string]string{
		crosscluster.PeerSynced: "synced", crosscluster.PeerGap: "gap", crosscluster.PeerReset: "reset", crosscluster.PeerDegraded: "degraded",
	}
	return freshet.PublisherStatus{
		Cluster: s.Name, ID: s.ID, Epoch: s.Epoch, Domain: d.Domain, Authority: d.Authority, Applied: d.Applied, Head: d.Head,
		State: states[d.State], SinceContact: since(s.LastContact), LastReset: d.LastReset, ResetReason: d.ResetReason,
	}
}

// JoinPeers implements rpc.Peers.
func (p peers) JoinPeers(ctx context.Context, addresses []string) (int, error) {
	return p.b.gossip.Join(ctx, addresses)
}

// ForgetPeer implements rpc.Peers.
func (p peers) ForgetPeer(ctx context.Context, cluster string) error {
	return p.b.Forget(ctx, cluster)
}

// hooks are what the coordinator asks of the bus.
func (b *bus) hooks(h *coordinator.Hooks) {
	h.Nudge = b.Nudge
	h.Publishers = func(domain freshet.DomainID) []freshet.PublisherStatus {
		var out []freshet.PublisherStatus
		all := b.Bus.Peers()
		for i := range all {
			for _, d := range all[i].Domains {
				if d.Domain == domain {
					out = append(out, publisherOf(&all[i], d))
				}
			}
		}
		return out
	}
	h.Acked = func(domain freshet.DomainID) (low uint64, known bool) {
		for _, s := range b.Bus.Peers() {
			for _, d := range s.Domains {
				if d.Domain == domain && s.Stream && (!known || d.Acknowledged < low) {
					low, known = d.Acknowledged, true
				}
			}
		}
		return low, known
	}
}
