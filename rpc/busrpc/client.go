// Package busrpc owns the wire of the bus: freshet.bus.v1 over gRPC, as client
// and as server, with the translation of errors and the check that a cluster is
// the one that its certificate names. It decides nothing about the protocol: it
// hands messages on.
package busrpc

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/freshet-io/freshet"
	busv1 "github.com/freshet-io/freshet/proto/freshet/bus/v1"
	"github.com/freshet-io/freshet/rpc"
)

// maxMessage bounds a message in bytes. A batch is cut to half a mebibyte unless
// one record alone is larger, which two longest paths can't make it.
const maxMessage = 4 << 20

// Peer is a connection to one member of another cluster. It implements
// crosscluster.Peer.
type Peer struct {
	conn   *grpc.ClientConn
	client busv1.BusServiceClient
}

// Dial prepares a connection to a cluster-to-cluster address; it is made at the
// first call. The options carry the credentials.
func Dial(addr string, options ...grpc.DialOption) (*Peer, error) {
	all := []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		// A peer that vanished without a word is noticed by the bus's own
		// heartbeat; this ends the connection below it.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, append(all, options...)...)
	if err != nil {
		return nil, &freshet.Error{Op: "dial " + addr, Kind: freshet.KindInvalid, Err: err}
	}
	return &Peer{conn: conn, client: busv1.NewBusServiceClient(conn)}, nil
}

// Hello introduces the own cluster.
func (p *Peer) Hello(ctx context.Context, req *busv1.HelloRequest) (*busv1.HelloResponse, error) {
	resp, err := p.client.Hello(ctx, req)
	return resp, rpc.ErrorOf(err)
}

// Poll asks for verified heads.
func (p *Peer) Poll(ctx context.Context, req *busv1.PollRequest) (*busv1.PollResponse, error) {
	resp, err := p.client.Poll(ctx, req)
	return resp, rpc.ErrorOf(err)
}

// Goodbye announces that the own cluster leaves.
func (p *Peer) Goodbye(ctx context.Context, req *busv1.GoodbyeRequest) (*busv1.GoodbyeResponse, error) {
	resp, err := p.client.Goodbye(ctx, req)
	return resp, rpc.ErrorOf(err)
}

// Pull hands each part of the answer to receive.
func (p *Peer) Pull(ctx context.Context, req *busv1.PullRequest, receive func(*busv1.PullResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream when receive fails
	stream, err := p.client.Pull(ctx, req)
	if err != nil {
		return rpc.ErrorOf(err)
	}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return rpc.ErrorOf(err)
		}
		if err := receive(resp); err != nil {
			return err
		}
	}
}

// Subscribe keeps the stream until ctx ends, receive fails or the stream breaks.
func (p *Peer) Subscribe(ctx context.Context, requests <-chan *busv1.SubscribeRequest, receive func(*busv1.SubscribeResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := p.client.Subscribe(ctx)
	if err != nil {
		cancel()
		return rpc.ErrorOf(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for {
			select {
			case req := <-requests:
				if stream.Send(req) != nil {
					return // Recv returns the reason
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() {
		cancel()
		<-sent
	}()
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return rpc.ErrorOf(err)
		}
		if err := receive(resp); err != nil {
			return err
		}
	}
}

// Close ends the connection and its calls.
func (p *Peer) Close() error { return p.conn.Close() }
