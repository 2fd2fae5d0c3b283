package rpc

import (
	"context"

	"google.golang.org/grpc"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// EventServer adapts Events to the wire.
type EventServer struct {
	freshetv1.UnimplementedEventServiceServer
	events  Events
	forward *Forwarder
}

// NewEventServer returns the adapter.
func NewEventServer(e Events, forward *Forwarder) *EventServer {
	return &EventServer{events: e, forward: forward}
}

// PostEvents implements the service.
func (s *EventServer) PostEvents(ctx context.Context, req *freshetv1.PostEventsRequest) (*freshetv1.PostEventsResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.PostEventsRequest) (*freshetv1.PostEventsResponse, error) {
			a, err := s.events.PostEvents(ctx, freshet.EventPost{
				Body: req.GetBody(), Token: req.GetToken(), Trusted: req.GetTrusted(),
			})
			if err != nil {
				return nil, err
			}
			return &freshetv1.PostEventsResponse{
				Marked: int64(a.Marked), Ignored: int64(a.Ignored), Unread: int64(a.Unread), Validation: a.Validation, Confirm: a.Confirm,
			}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.PostEventsRequest) (*freshetv1.PostEventsResponse, error) {
			return freshetv1.NewEventServiceClient(c).PostEvents(ctx, req)
		})
}
