package rpc_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// inProcess calls the methods of a server without a network.
type inProcess struct{ server any }

func (c inProcess) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	b, err := c.answer(ctx, method, args)
	if err != nil {
		return err
	}
	return c.read(b, reply)
}

// answer returns an answer as it is on the wire.
func (c inProcess) answer(ctx context.Context, method string, args any) ([]byte, error) {
	out := reflect.ValueOf(c.server).MethodByName(method[strings.LastIndexByte(method, '/')+1:]).
		Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(args)})
	if err, _ := reflect.TypeAssert[error](out[1]); err != nil {
		return nil, err
	}
	return proto.Marshal(out[0].Interface().(proto.Message)) //nolint:forcetypeassert // generated
}

// read reads an answer as a connection does.
func (inProcess) read(b []byte, reply any) error {
	return rpc.Codec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, reply)
}

func (inProcess) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("no streams")
}

// canned answers every call with the same bytes.
type canned struct{ inProcess }

func (c canned) Invoke(_ context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	return c.read(c.server.([]byte), reply) //nolint:forcetypeassert // the test's own
}

// FuzzAnswers reads arbitrary bytes as the answer to every call: an error or a
// value, never a panic.
func FuzzAnswers(f *testing.F) {
	src := &fake{}
	for _, method := range methods() {
		var b []byte
		c := rpc.NewCoordinator(keep{inProcess: everything(src), last: &b})
		if _, _, err := invoke(context.Background(), c, method, 1); err != nil {
			f.Fatalf("%s: %v", method, err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := rpc.NewCoordinator(canned{inProcess{b}})
		for _, method := range methods() {
			_, _, err := invoke(t.Context(), c, method, 1)
			if err != nil && freshet.KindOf(err) == freshet.KindOK {
				t.Errorf("%s: an error without a kind: %v", method, err)
			}
		}
	})
}

// FuzzRequests reads arbitrary bytes as every request.
func FuzzRequests(f *testing.F) {
	for _, m := range []proto.Message{
		&freshetv1.StatRequest{Path: "/a", SyncInterval: "5s", After: "x"}, &freshetv1.BeginWriteRequest{Path: "/a", Op: make([]byte, 16)},
		&freshetv1.HeartbeatRequest{Active: [][]byte{{1}}, Finished: []*freshetv1.FinishedOp{{Written: &freshetv1.Written{Fingerprint: "x"}}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		src := &fake{}
		s := everything(src)
		v := reflect.ValueOf(s.server)
		for i := range v.NumMethod() {
			typ := v.Type().Method(i).Type // receiver, context, request
			if typ.NumIn() != 3 || typ.NumOut() != 2 {
				continue
			}
			req := reflect.New(typ.In(2).Elem())
			if proto.Unmarshal(b, req.Interface().(proto.Message)) != nil { //nolint:forcetypeassert // generated
				continue
			}
			v.Method(i).Call([]reflect.Value{reflect.ValueOf(t.Context()), req})
		}
	})
}

// keep remembers the last answer as it was on the wire.
type keep struct {
	inProcess

	last *[]byte
}

func (k keep) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) (err error) {
	if *k.last, err = k.answer(ctx, method, args); err != nil {
		return err
	}
	return k.read(*k.last, reply)
}

// The servers under names of their own, so that all can be embedded in one.
type (
	nsServer      struct{ *rpc.NamespaceServer }
	mountServer   struct{ *rpc.MountServer }
	policyServer  struct{ *rpc.PolicyServer }
	clusterServer struct{ *rpc.ClusterServer }
	eventServer   struct{ *rpc.EventServer }
	nodeServer    struct{ *rpc.NodeServer }
	quotaServer   struct{ *rpc.QuotaServer }
)

// everything serves all calls of f.
func everything(f *fake) inProcess {
	return inProcess{struct {
		nsServer
		mountServer
		policyServer
		clusterServer
		eventServer
		nodeServer
		quotaServer
	}{
		nsServer{rpc.NewNamespaceServer(f, nil)},
		mountServer{rpc.NewMountServer(f, nil)},
		policyServer{rpc.NewPolicyServer(f, nil)},
		clusterServer{rpc.NewClusterServer(f, f, nil)},
		eventServer{rpc.NewEventServer(f, nil)},
		nodeServer{rpc.NewNodeServer(f, nil)},
		quotaServer{rpc.NewQuotaServer(f, nil)},
	}}
}
