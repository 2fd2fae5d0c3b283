package rpc

import (
	"context"

	"google.golang.org/grpc"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// maxCalls bounds the calls that are made together.
const maxCalls = 128

// Batches is what a coordinator does of what every new file needs, for many files
// at once. The error of a method is that of all its calls, such as
// freshet.KindNotLeader.
type Batches interface {
	BeginWrites(ctx context.Context, qs []freshet.BeginWriteQuery) ([]freshet.Each[freshet.BeginWriteAnswer], error)
	Permits(ctx context.Context, qs []freshet.PermitQuery) ([]error, error)
	Completes(ctx context.Context, qs []freshet.CompleteQuery) ([]freshet.Each[freshet.Completed], error)
}

// BatchServer adapts Batches to the wire.
type BatchServer struct {
	freshetv1.UnimplementedBatchServiceServer
	batches Batches
	forward *Forwarder
}

// NewBatchServer returns the adapter; forward may be nil where the member always
// leads.
func NewBatchServer(b Batches, forward *Forwarder) *BatchServer {
	return &BatchServer{batches: b, forward: forward}
}

func batches(c grpc.ClientConnInterface) freshetv1.BatchServiceClient {
	return freshetv1.NewBatchServiceClient(c)
}

// together translates calls, makes those of them that can be understood, and
// returns the places of those that did not succeed: their callers make them alone,
// and have the error, its repetition and its remedy from there. A call that only the
// leader can make is one of all of them.
func together[W, Q, A any](calls []W, of func(W) (Q, error), do func([]Q) ([]freshet.Each[A], error), answer func(place int, a *A)) (again []uint32, err error) {
	if len(calls) > maxCalls {
		return nil, freshet.Errorf(freshet.KindInvalid, "batch", "", "%d calls at once, more than %d", len(calls), maxCalls)
	}
	failed := make([]bool, len(calls))
	qs, at := make([]Q, 0, len(calls)), make([]int, 0, len(calls))
	for i, w := range calls {
		q, err := of(w)
		if err != nil {
			failed[i] = true
			continue
		}
		qs, at = append(qs, q), append(at, i)
	}
	each, err := do(qs)
	if err != nil {
		return nil, err
	}
	for k := range each {
		switch e := &each[k]; {
		case e.Err == nil:
			answer(at[k], &e.Answer)
		case freshet.IsKind(e.Err, freshet.KindNotLeader):
			return nil, e.Err
		default:
			failed[at[k]] = true
		}
	}
	for i, f := range failed {
		if f {
			again = append(again, uint32(i))
		}
	}
	return again, nil
}

// BeginWrites implements the service.
func (s *BatchServer) BeginWrites(ctx context.Context, req *freshetv1.BeginWritesRequest) (*freshetv1.BeginWritesResponse, error) {
	return serve(ctx, s.forward, req, s.beginWrites,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.BeginWritesRequest) (*freshetv1.BeginWritesResponse, error) {
			return batches(c).BeginWrites(ctx, req)
		})
}

func (s *BatchServer) beginWrites(ctx context.Context, req *freshetv1.BeginWritesRequest) (_ *freshetv1.BeginWritesResponse, err error) {
	out := &freshetv1.BeginWritesResponse{Answers: blank[freshetv1.BeginWriteResponse](len(req.GetCalls()))}
	out.Again, err = together(req.GetCalls(), beginWriteOfWire,
		func(qs []freshet.BeginWriteQuery) ([]freshet.Each[freshet.BeginWriteAnswer], error) {
			return s.batches.BeginWrites(ctx, qs)
		},
		func(i int, a *freshet.BeginWriteAnswer) { beginAnswerToWire(a, out.GetAnswers()[i]) })
	return out, err
}

// blank returns n messages in one allocation.
func blank[M any](n int) []*M {
	all, out := make([]M, n), make([]*M, n)
	for i := range all {
		out[i] = &all[i]
	}
	return out
}

// Permits implements the service.
func (s *BatchServer) Permits(ctx context.Context, req *freshetv1.PermitsRequest) (*freshetv1.PermitsResponse, error) {
	return serve(ctx, s.forward, req, s.permits,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.PermitsRequest) (*freshetv1.PermitsResponse, error) {
			return batches(c).Permits(ctx, req)
		})
}

func (s *BatchServer) permits(ctx context.Context, req *freshetv1.PermitsRequest) (*freshetv1.PermitsResponse, error) {
	again, err := together(req.GetCalls(), permitOfWire,
		func(qs []freshet.PermitQuery) ([]freshet.Each[struct{}], error) {
			errs, err := s.batches.Permits(ctx, qs)
			each := make([]freshet.Each[struct{}], len(errs))
			for i, e := range errs {
				each[i].Err = e
			}
			return each, err
		},
		func(int, *struct{}) {})
	return &freshetv1.PermitsResponse{Again: again}, err
}

// Completes implements the service.
func (s *BatchServer) Completes(ctx context.Context, req *freshetv1.CompletesRequest) (*freshetv1.CompletesResponse, error) {
	return serve(ctx, s.forward, req, s.completes,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.CompletesRequest) (*freshetv1.CompletesResponse, error) {
			return batches(c).Completes(ctx, req)
		})
}

func (s *BatchServer) completes(ctx context.Context, req *freshetv1.CompletesRequest) (_ *freshetv1.CompletesResponse, err error) {
	out := &freshetv1.CompletesResponse{Answers: blank[freshetv1.CompleteResponse](len(req.GetCalls()))}
	out.Again, err = together(req.GetCalls(), completeOfWire,
		func(qs []freshet.CompleteQuery) ([]freshet.Each[freshet.Completed], error) {
			return s.batches.Completes(ctx, qs)
		},
		func(i int, a *freshet.Completed) {
			to := out.GetAnswers()[i]
			to.Entry, to.Token = EntryToWire(a.Info), a.Token.String()
		})
	return out, err
}

func beginWriteOfWire(req *freshetv1.BeginWriteRequest) (freshet.BeginWriteQuery, error) {
	p, err := freshet.ParsePath(req.GetPath())
	if err != nil {
		return freshet.BeginWriteQuery{}, err
	}
	op, err := opOfWire(req.GetOp())
	if err != nil {
		return freshet.BeginWriteQuery{}, err
	}
	w, err := freshet.ParseWriteType(req.GetWriteType())
	return freshet.BeginWriteQuery{
		Op: op, Path: p, Write: w, BlockSize: req.GetBlockSize(), Host: req.GetHost(), Rack: req.GetRack(), Zone: req.GetZone(),
		Node: freshet.NodeID(req.GetNodeId()), DurableReplicas: int(req.GetDurableReplicas()),
		Length: req.Length, //nolint:protogetter // one that is not told is not 0
	}, err
}

func beginWriteToWire(q freshet.BeginWriteQuery) *freshetv1.BeginWriteRequest {
	op := newOp(q.Op)
	return &freshetv1.BeginWriteRequest{
		Path: string(q.Path), WriteType: q.Write.String(), Op: op[:], Host: q.Host, Rack: q.Rack, Zone: q.Zone,
		BlockSize: q.BlockSize, NodeId: string(q.Node), Length: q.Length, DurableReplicas: int32(q.DurableReplicas), //nolint:gosec // checked, or refused by who reads it
	}
}

func beginAnswerToWire(a *freshet.BeginWriteAnswer, to *freshetv1.BeginWriteResponse) {
	if to.Done = a.Done; a.Done {
		to.Entry, to.Token = EntryToWire(a.Completed.Info), a.Completed.Token.String()
	} else {
		to.Ticket = ticketToWire(a.Ticket)
	}
}

func beginAnswerOfWire(r *freshetv1.BeginWriteResponse) (out freshet.BeginWriteAnswer, err error) {
	if out.Done = r.GetDone(); out.Done {
		out.Completed, err = completedOfWire(r.GetEntry(), r.GetToken())
	} else {
		out.Ticket, err = ticketOfWire(r.GetTicket())
	}
	return out, err
}

func permitOfWire(req *freshetv1.PermitRequest) (freshet.PermitQuery, error) {
	op, err := opOfWire(req.GetOp())
	if err != nil {
		return freshet.PermitQuery{}, err
	}
	sealed, err := fingerprintOfWire(req.GetSealed())
	return freshet.PermitQuery{
		Op: op, Node: freshet.NodeID(req.GetNodeId()), Incarnation: req.GetIncarnation(), Sealed: sealed,
		Length: lengthOfWire(req.Length), //nolint:protogetter // one that is not told is not 0
	}, err
}

func completeOfWire(req *freshetv1.CompleteRequest) (freshet.CompleteQuery, error) {
	op, err := opOfWire(req.GetOp())
	if err != nil {
		return freshet.CompleteQuery{}, err
	}
	w, err := writtenOfWire(req.GetWritten())
	return freshet.CompleteQuery{Op: op, Written: w}, err
}

// gathered are the calls of a Coordinator that are made together.
type gathered struct {
	begins    gather[*freshetv1.BeginWriteRequest, *freshetv1.BeginWriteResponse]
	permits   gather[*freshetv1.PermitRequest, *freshetv1.PermitResponse]
	completes gather[*freshetv1.CompleteRequest, *freshetv1.CompleteResponse]
}

func newGathered(c grpc.ClientConnInterface) *gathered {
	b, names, uploads := batches(c), ns(c), nodes(c)
	g := &gathered{}
	g.begins.alone = func(ctx context.Context, q *freshetv1.BeginWriteRequest) (*freshetv1.BeginWriteResponse, error) {
		r, err := names.BeginWrite(ctx, q)
		return r, ErrorOf(err)
	}
	g.begins.many = func(ctx context.Context, qs []*freshetv1.BeginWriteRequest) ([]*freshetv1.BeginWriteResponse, []uint32, error) {
		r, err := b.BeginWrites(ctx, &freshetv1.BeginWritesRequest{Calls: qs})
		return r.GetAnswers(), r.GetAgain(), ErrorOf(err)
	}
	g.permits.alone = func(ctx context.Context, q *freshetv1.PermitRequest) (*freshetv1.PermitResponse, error) {
		r, err := uploads.Permit(ctx, q)
		return r, ErrorOf(err)
	}
	g.permits.many = func(ctx context.Context, qs []*freshetv1.PermitRequest) ([]*freshetv1.PermitResponse, []uint32, error) {
		r, err := b.Permits(ctx, &freshetv1.PermitsRequest{Calls: qs})
		return make([]*freshetv1.PermitResponse, len(qs)), r.GetAgain(), ErrorOf(err)
	}
	g.completes.alone = func(ctx context.Context, q *freshetv1.CompleteRequest) (*freshetv1.CompleteResponse, error) {
		r, err := uploads.Complete(ctx, q)
		return r, ErrorOf(err)
	}
	g.completes.many = func(ctx context.Context, qs []*freshetv1.CompleteRequest) ([]*freshetv1.CompleteResponse, []uint32, error) {
		r, err := b.Completes(ctx, &freshetv1.CompletesRequest{Calls: qs})
		return r.GetAnswers(), r.GetAgain(), ErrorOf(err)
	}
	return g
}
