package rpc

import (
	"context"
	"slices"

	"google.golang.org/grpc"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// RegisterNamespace serves s on r, the Registrar of a Server, with answers that are
// written without a message in between, see wire.go. The generated function serves
// the same, more slowly.
func RegisterNamespace(r grpc.ServiceRegistrar, s *NamespaceServer) {
	desc := freshetv1.NamespaceService_ServiceDesc
	desc.Methods = slices.Clone(desc.Methods)
	for i := range desc.Methods {
		m := &desc.Methods[i]
		switch m.MethodName {
		case "Stat":
			m.Handler = directly(s, freshetv1.NamespaceService_Stat_FullMethodName, s.answerStat)
		case "BatchStat":
			m.Handler = directly(s, freshetv1.NamespaceService_BatchStat_FullMethodName, s.answerBatch)
		case "List":
			m.Handler = directly(s, freshetv1.NamespaceService_List_FullMethodName, s.answerList)
		}
	}
	r.RegisterService(&desc, s)
}

// directly is the handler of a method whose answer is an encoder.
func directly[Req any](s *NamespaceServer, method string, local func(context.Context, *Req) (encoder, error)) grpc.MethodHandler {
	remote := func(c grpc.ClientConnInterface, ctx context.Context, req *Req) (encoder, error) {
		a := new(answerBytes)
		return a, c.Invoke(ctx, method, req, a, s.direct...)
	}
	return func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		req := new(Req)
		if err := dec(req); err != nil {
			return nil, err
		}
		if interceptor == nil {
			return serve(ctx, s.forward, req, local, remote)
		}
		info := &grpc.UnaryServerInfo{Server: srv, FullMethod: method}
		return interceptor(ctx, req, info, func(ctx context.Context, _ any) (any, error) {
			return serve(ctx, s.forward, req, local, remote)
		})
	}
}

// direct are the options of calls whose answers are decoders.
func direct() []grpc.CallOption {
	return []grpc.CallOption{grpc.StaticMethod(), grpc.ForceCodecV2(Codec())}
}

func (s *NamespaceServer) answerStat(ctx context.Context, req *freshetv1.StatRequest) (encoder, error) {
	st, err := s.stat(ctx, req)
	if err != nil {
		return nil, err
	}
	return &answerStat{status: st}, nil
}

func (s *NamespaceServer) answerBatch(ctx context.Context, req *freshetv1.BatchStatRequest) (encoder, error) {
	outcomes, err := s.batchStat(ctx, req)
	if err != nil {
		return nil, err
	}
	return &answerBatch{outcomes: outcomes, paths: req.GetPaths()}, nil
}

func (s *NamespaceServer) answerList(ctx context.Context, req *freshetv1.ListRequest) (encoder, error) {
	page, err := s.list(ctx, req)
	if err != nil {
		return nil, err
	}
	return &answerPage{page: page}, nil
}

// answerBytes is an answer of another member that is passed on.
type answerBytes struct{ b []byte }

func (a *answerBytes) size() int                         { return len(a.b) }
func (a *answerBytes) appendTo(b []byte) ([]byte, error) { return append(b, a.b...), nil }

func (a *answerBytes) readFrom(b []byte) error { //nolint:unparam // a decoder
	a.b = slices.Clone(b)
	return nil
}

// BatchStat returns what is known of each of up to 1,000 paths, in their order, by
// one call.
func (c *Coordinator) BatchStat(ctx context.Context, paths []freshet.Path, opts freshet.ReadOptions) ([]freshet.StatOutcome, error) {
	interval, token := readOptionsToWire(opts)
	req := &freshetv1.BatchStatRequest{Paths: make([]string, len(paths)), SyncInterval: interval, After: token}
	for i, p := range paths {
		req.Paths[i] = string(p)
	}
	a := answerBatch{outcomes: make([]freshet.StatOutcome, 0, len(paths))}
	if err := c.conn.Invoke(ctx, freshetv1.NamespaceService_BatchStat_FullMethodName, req, &a, c.direct...); err != nil {
		return nil, ErrorOf(err)
	}
	if a.err == nil && len(a.outcomes) != len(paths) {
		a.err = freshet.Errorf(freshet.KindInternal, "batch stat", "", "%d answers to %d paths", len(a.outcomes), len(paths))
	}
	return a.outcomes, a.err
}
