// Package rest owns the REST face of a region: the JSON API of a coordinator,
// generated from the gRPC services and called in process, and the hand-written
// data routes of a cache node. It decides nothing about freshness or placement.
package rest

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// Names of headers.
const (
	HeaderAfter       = "X-Freshet-After"
	HeaderToken       = "X-Freshet-Token" //nolint:gosec // the name of a header
	HeaderFingerprint = "X-Freshet-Fingerprint"
	HeaderSource      = "X-Freshet-Source"
	HeaderRequestID   = "X-Request-Id"
	// HeaderUser is in whose name a request is made. It is believed: see rpc.UserKey.
	HeaderUser = "X-Freshet-User"
)

// maxJSONBody bounds the body of a JSON request, in bytes.
const maxJSONBody = 1 << 20

// Services are the server implementations that the gateway calls in process.
type Services struct {
	Namespace freshetv1.NamespaceServiceServer
	Mounts    freshetv1.MountServiceServer
	Policies  freshetv1.PolicyServiceServer
	Cluster   freshetv1.ClusterServiceServer
	Access    freshetv1.AccessServiceServer
	Quotas    freshetv1.QuotaServiceServer
	Syncs     freshetv1.SyncServiceServer
	Cache     freshetv1.CacheServiceServer
	Fleet     freshetv1.FleetServiceServer
	Persist   freshetv1.PersistServiceServer
	// Events is called by NewEvents, not by the API.
	Events freshetv1.EventServiceServer
	// Check is called by NewCheck, not by the API.
	Check rpc.Checker
}

// NewAPI returns the handler of /v1/… on a coordinator, but for /v1/data and
// /v1/sync.
func NewAPI(ctx context.Context, s Services) (http.Handler, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.JSONPb{
			MarshalOptions:   protojson.MarshalOptions{EmitUnpopulated: true},
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: false},
		}),
		// No header of a caller becomes metadata by itself.
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(callMetadata),
		runtime.WithErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
			writeError(w, r, rpc.ErrorOf(err))
		}),
		runtime.WithRoutingErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
			writeRoutingError(w, r, code)
		}),
		runtime.WithForwardResponseOption(setToken),
		runtime.SetQueryParameterParser(strictQuery{}),
		runtime.WithMiddlewares(mergePaths),
		runtime.WithDisablePathLengthFallback(), // a POST is never read as a GET
	)
	for _, register := range []func() error{
		func() error { return freshetv1.RegisterNamespaceServiceHandlerServer(ctx, mux, s.Namespace) },
		func() error { return freshetv1.RegisterMountServiceHandlerServer(ctx, mux, s.Mounts) },
		func() error { return freshetv1.RegisterPolicyServiceHandlerServer(ctx, mux, s.Policies) },
		func() error { return freshetv1.RegisterClusterServiceHandlerServer(ctx, mux, s.Cluster) },
		func() error { return freshetv1.RegisterQuotaServiceHandlerServer(ctx, mux, s.Quotas) },
		func() error { return freshetv1.RegisterSyncServiceHandlerServer(ctx, mux, s.Syncs) },
		func() error { return freshetv1.RegisterCacheServiceHandlerServer(ctx, mux, s.Cache) },
		func() error { return freshetv1.RegisterFleetServiceHandlerServer(ctx, mux, s.Fleet) },
		func() error { return freshetv1.RegisterPersistServiceHandlerServer(ctx, mux, s.Persist) },
		func() error { return freshetv1.RegisterAccessServiceHandlerServer(ctx, mux, s.Access) },
	} {
		if err := register(); err != nil {
			return nil, freshet.Errorf(freshet.KindInternal, "build REST gateway", "", "%w", err)
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refuseEncoding(w, r) {
			return
		}
		if r.ContentLength > maxJSONBody {
			// The gateway would take the end of its patience for a mistake in the JSON.
			writeStatus(w, r, http.StatusRequestEntityTooLarge, freshet.Errorf(freshet.KindInvalid, "read request", "",
				"a body of %d bytes is larger than %d", r.ContentLength, maxJSONBody))
			return
		}
		limitJSON(w, r)
		mux.ServeHTTP(w, r)
	}), nil
}

// callMetadata hands the session token of a request, and who its caller says it is,
// to the service.
func callMetadata(_ context.Context, r *http.Request) metadata.MD {
	md := metadata.MD{}
	if v := r.Header.Get(HeaderAfter); v != "" {
		md.Set(rpc.AfterKey, v)
	}
	md.Append(rpc.UserKey, r.Header.Values(HeaderUser)...)
	return md
}

// setToken repeats the session token of a change as a header.
func setToken(_ context.Context, w http.ResponseWriter, m proto.Message) error {
	if t, ok := m.(interface{ GetToken() string }); ok && t.GetToken() != "" {
		w.Header().Set(HeaderToken, t.GetToken())
	}
	return nil
}

// strictQuery refuses query parameters that the request does not have: a
// misspelt sync_interval must not be ignored.
type strictQuery struct{}

// Parse implements runtime.QueryParameterParser.
func (strictQuery) Parse(msg proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	fields := msg.ProtoReflect().Descriptor().Fields()
	for key, v := range values {
		name, _, _ := strings.Cut(key, ".")
		if name, _, ok := strings.Cut(name, "["); ok {
			return queryError(name)
		}
		field := fields.ByTextName(name)
		if field == nil {
			field = fields.ByJSONName(name)
		}
		if field == nil {
			return unknownParameter(name, fields)
		}
		if len(v) > 1 && !field.IsList() {
			return freshet.Errorf(freshet.KindInvalid, "read query", "", "query parameter %q is given %d times", name, len(v))
		}
	}
	return (&runtime.DefaultQueryParser{}).Parse(msg, values, filter)
}

func queryError(name string) error {
	return freshet.Errorf(freshet.KindInvalid, "read query", "", "query parameter %q can't be given as a map", name)
}

func unknownParameter(name string, fields protoreflect.FieldDescriptors) error {
	known := make([]string, 0, fields.Len())
	for i := range fields.Len() {
		known = append(known, string(fields.Get(i).Name()))
	}
	return freshet.Errorf(freshet.KindInvalid, "read query", "", "%s", fmt.Sprintf("unknown query parameter %q; known are %q", name, known))
}
