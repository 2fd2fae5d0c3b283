package rpc

import (
	"context"
	"errors"
	"io"
	"iter"

	"google.golang.org/grpc"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// ListStream implements the service. A page is asked for when the one before it
// was taken by the transport, whose flow control holds the server up: what waits
// for a slow reader is bounded by the windows of the connection.
func (s *NamespaceServer) ListStream(request *freshetv1.ListStreamRequest, stream grpc.ServerStreamingServer[freshetv1.ListStreamResponse]) error {
	ctx, req := stream.Context(), request.GetList()
	token := req.GetPageToken()
	for {
		page, err := s.list(ctx, &freshetv1.ListRequest{
			Path: req.GetPath(), PageSize: req.GetPageSize(), PageToken: token, Recursive: req.GetRecursive(),
			SyncInterval: req.GetSyncInterval(), After: req.GetAfter(), Prefix: req.GetPrefix(), StartAfter: req.GetStartAfter(),
		})
		if err != nil && token == req.GetPageToken() {
			return s.relayList(ctx, request, stream, err)
		}
		if err != nil {
			return StatusOf(err) // the caller goes on behind the last token, elsewhere
		}
		if err := stream.SendMsg(&answerPage{page: page, streamed: true}); err != nil {
			return err
		}
		if token = page.NextPageToken; token == "" {
			return nil
		}
	}
}

// relayList lets the leader answer what this member can't.
func (s *NamespaceServer) relayList(ctx context.Context, req *freshetv1.ListStreamRequest, stream grpc.ServerStreamingServer[freshetv1.ListStreamResponse], cause error) error {
	fctx, conn, err := s.forward.toLeader(ctx, cause)
	if err != nil {
		return StatusOf(err)
	}
	from, err := ns(conn).ListStream(fctx, req)
	if err != nil {
		return err
	}
	return relay(from, stream)
}

// resumeTimes is how often in a row a listing whose stream broke is begun again
// behind the last page, without any page in between.
const resumeTimes = 5

// ListStream yields the pages of a whole listing as one stream, with the memory of
// a few pages, whatever the size of the directory. A stream that breaks because
// its server, or the leader, went away is begun again behind the last page. After
// an error the sequence ends.
func (c *Coordinator) ListStream(ctx context.Context, q freshet.ListQuery) iter.Seq2[freshet.ListPage, error] {
	return func(yield func(freshet.ListPage, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // ends a stream that is not read to its end
		for failures := 0; ; failures++ {
			got, done, err := c.listOnce(ctx, &q, yield)
			if done {
				return
			}
			if got {
				failures = 0
			}
			if !freshet.IsKind(err, freshet.KindUnavailable, freshet.KindNotLeader) || failures == resumeTimes || ctx.Err() != nil {
				yield(freshet.ListPage{}, err)
				return
			}
		}
	}
}

// listOnce yields the pages of one stream and moves q behind each. done says that
// the listing, or its reader, is at the end.
func (c *Coordinator) listOnce(ctx context.Context, q *freshet.ListQuery, yield func(freshet.ListPage, error) bool) (got, done bool, err error) {
	interval, token := readOptionsToWire(q.Options)
	stream, err := c.ns.ListStream(ctx, &freshetv1.ListStreamRequest{List: &freshetv1.ListRequest{
		Path: string(q.Path), PageToken: q.PageToken, PageSize: int32(q.PageSize), Recursive: q.Recursive,
		SyncInterval: interval, After: token, Prefix: q.Prefix, StartAfter: q.StartAfter,
	}}, c.direct...)
	if err != nil {
		return false, false, ErrorOf(err)
	}
	for {
		a := answerPage{streamed: true}
		err := stream.RecvMsg(&a)
		if errors.Is(err, io.EOF) {
			return got, true, nil
		}
		if err != nil {
			return got, false, ErrorOf(err)
		}
		if a.err != nil {
			return got, false, a.err
		}
		got = true
		if q.PageToken = a.page.NextPageToken; !yield(a.page, nil) || q.PageToken == "" {
			return got, true, nil
		}
	}
}
