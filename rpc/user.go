package rpc

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/freshet-io/freshet"
)

// UserKey is the metadata key under which a caller says who it is. It is a claim,
// not a proof: whoever reaches the port may claim any name.
const UserKey = "freshet-user"

const maxUser = 255 // bytes

// CheckUser returns a KindInvalid error for what can't be the name of a user.
func CheckUser(name string) error {
	bad := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`:,/"`, r) }
	if name == "" || len(name) > maxUser || strings.ContainsFunc(name, bad) {
		return freshet.Errorf(freshet.KindInvalid, "identify caller", "", "%.40q is not the name of a user: give up to %d printable ASCII characters without space, ':', ',', '/' and quotes", name, maxUser)
	}
	return nil
}

// User returns who the caller of a request says it is, "" if it does not say.
func User(ctx context.Context) (string, error) {
	md, ok := metadata.FromIncomingContext(ctx)
	if !ok {
		return "", nil
	}
	names := slices.Compact(slices.Clone(md.Get(UserKey)))
	switch {
	case len(names) == 0:
		return "", nil
	case len(names) > 1:
		return "", freshet.Errorf(freshet.KindInvalid, "identify caller", "", "the call names %d users: give one", len(names))
	}
	return names[0], CheckUser(names[0])
}

// WithUsers returns a context whose calls to other processes are made in the name of
// a user. A call that was made in several names keeps them, for the other side to
// refuse; none changes nothing.
func WithUsers(ctx context.Context, names ...string) (context.Context, error) {
	pairs := make([]string, 0, 2*len(names))
	for _, name := range names {
		if err := CheckUser(name); err != nil {
			return ctx, err
		}
		pairs = append(pairs, UserKey, name)
	}
	if len(pairs) == 0 {
		return ctx, nil
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...), nil
}

// FromUsers returns the context of a request that came in another form than gRPC, in
// the names that the caller gave.
func FromUsers(ctx context.Context, names ...string) context.Context {
	if len(names) == 0 {
		return ctx
	}
	return metadata.NewIncomingContext(ctx, metadata.MD{UserKey: names})
}

// inName makes all calls of a connection in the name of a user, but for those that
// have one.
func inName(user string) []grpc.DialOption {
	if user == "" {
		return nil
	}
	name := func(ctx context.Context) context.Context {
		if md, ok := metadata.FromOutgoingContext(ctx); ok && len(md.Get(UserKey)) > 0 {
			return ctx
		}
		return metadata.AppendToOutgoingContext(ctx, UserKey, user)
	}
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(name(ctx), method, req, reply, cc, opts...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return stream(name(ctx), desc, cc, method, opts...)
		}),
	}
}
