package busrpc

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/freshet-io/freshet"
	busv1 "github.com/freshet-io/freshet/proto/freshet/bus/v1"
	"github.com/freshet-io/freshet/rpc"
)

// Handler answers the calls of other clusters: *crosscluster.Bus.
type Handler interface {
	Hello(ctx context.Context, req *busv1.HelloRequest) (*busv1.HelloResponse, error)
	Poll(ctx context.Context, req *busv1.PollRequest) (*busv1.PollResponse, error)
	Pull(ctx context.Context, req *busv1.PullRequest, send func(*busv1.PullResponse) error) error
	Subscribe(ctx context.Context, recv func() (*busv1.SubscribeRequest, error), send func(*busv1.SubscribeResponse) error) error
	Goodbye(ctx context.Context, req *busv1.GoodbyeRequest) (*busv1.GoodbyeResponse, error)
}

// Register serves h on a gRPC server. Where callers have certificates with an
// identity spiffe://DOMAIN/cluster/NAME/…, they may introduce themselves as
// cluster NAME only.
func Register(s grpc.ServiceRegistrar, h Handler) {
	busv1.RegisterBusServiceServer(s, &server{h: h})
}

type server struct {
	busv1.UnimplementedBusServiceServer
	h Handler
}

// Hello implements busv1.BusServiceServer.
func (s *server) Hello(ctx context.Context, req *busv1.HelloRequest) (*busv1.HelloResponse, error) {
	if err := checkCaller(ctx, req.GetCluster()); err != nil {
		return nil, rpc.StatusOf(err)
	}
	resp, err := s.h.Hello(ctx, req)
	return resp, rpc.StatusOf(err)
}

// Poll implements busv1.BusServiceServer.
func (s *server) Poll(ctx context.Context, req *busv1.PollRequest) (*busv1.PollResponse, error) {
	resp, err := s.h.Poll(ctx, req)
	return resp, rpc.StatusOf(err)
}

// Goodbye implements busv1.BusServiceServer.
func (s *server) Goodbye(ctx context.Context, req *busv1.GoodbyeRequest) (*busv1.GoodbyeResponse, error) {
	resp, err := s.h.Goodbye(ctx, req)
	return resp, rpc.StatusOf(err)
}

// Pull implements busv1.BusServiceServer.
func (s *server) Pull(req *busv1.PullRequest, stream grpc.ServerStreamingServer[busv1.PullResponse]) error {
	return rpc.StatusOf(s.h.Pull(stream.Context(), req, stream.Send))
}

// Subscribe implements busv1.BusServiceServer.
func (s *server) Subscribe(stream grpc.BidiStreamingServer[busv1.SubscribeRequest, busv1.SubscribeResponse]) error {
	ctx := stream.Context()
	recv := func() (*busv1.SubscribeRequest, error) {
		req, err := stream.Recv()
		if err == nil && req.GetCluster() != nil {
			err = checkCaller(ctx, req.GetCluster())
		}
		return req, err
	}
	return rpc.StatusOf(s.h.Subscribe(ctx, recv, stream.Send))
}

// checkCaller refuses a cluster that calls itself otherwise than its certificate.
// Connections without certificates pass: whether they are allowed is the
// listener's decision.
func checkCaller(ctx context.Context, info *busv1.ClusterInfo) error {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	tls, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(tls.State.PeerCertificates) == 0 {
		return nil
	}
	for _, uri := range tls.State.PeerCertificates[0].URIs {
		if name, found := clusterOf(uri.Scheme, uri.Path); found {
			if name != info.GetName() {
				return freshet.Errorf(freshet.KindPermission, "hello", "", "the certificate is of cluster %q, the caller says it is %q", name, info.GetName())
			}
			return nil
		}
	}
	return nil
}

// clusterOf returns the cluster's name in the identity /cluster/NAME/….
func clusterOf(scheme, path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, "/cluster/")
	if scheme != "spiffe" || !ok {
		return "", false
	}
	name, _, _ := strings.Cut(rest, "/")
	return name, name != ""
}
