package rpc

import (
	"context"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/acl"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// Access is what a coordinator does about extended attributes and access control
// lists. Methods return freshet.KindNotLeader on a member that does not lead; the
// server forwards.
type Access interface {
	Xattrs(ctx context.Context, p freshet.Path) (map[string][]byte, error)
	SetXattr(ctx context.Context, q freshet.SetXattrQuery) (freshet.Completed, error)
	RemoveXattr(ctx context.Context, q freshet.RemoveXattrQuery) (freshet.Completed, error)
	ACL(ctx context.Context, p freshet.Path) (freshet.ACL, error)
	SetACL(ctx context.Context, q freshet.SetACLQuery) (freshet.Completed, error)
}

// AccessServer adapts an Access to the wire.
type AccessServer struct {
	freshetv1.UnimplementedAccessServiceServer
	access  Access
	forward *Forwarder
}

// NewAccessServer returns the adapter; forward may be nil where the member always
// leads.
func NewAccessServer(access Access, forward *Forwarder) *AccessServer {
	return &AccessServer{access: access, forward: forward}
}

func access(c grpc.ClientConnInterface) freshetv1.AccessServiceClient {
	return freshetv1.NewAccessServiceClient(c)
}

// whens are the names of the conditions on the wire.
var whens = [...]string{freshet.XattrAlways: "always", freshet.XattrCreate: "create", freshet.XattrReplace: "replace"}

func parseWhen(s string) (freshet.XattrWhen, error) {
	if s == "" {
		return freshet.XattrAlways, nil
	}
	if i := slices.Index(whens[:], s); i >= 0 {
		return freshet.XattrWhen(i), nil //nolint:gosec // an index of whens
	}
	return 0, freshet.Errorf(freshet.KindInvalid, "read message", "", "%q is no condition for an attribute; known are %q", s, whens)
}

// ListXattrs implements the service.
func (s *AccessServer) ListXattrs(ctx context.Context, req *freshetv1.ListXattrsRequest) (*freshetv1.ListXattrsResponse, error) {
	return serve(ctx, s.forward, req, s.listXattrs,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.ListXattrsRequest) (*freshetv1.ListXattrsResponse, error) {
			return access(c).ListXattrs(ctx, req)
		})
}

func (s *AccessServer) listXattrs(ctx context.Context, req *freshetv1.ListXattrsRequest) (*freshetv1.ListXattrsResponse, error) {
	p, err := freshet.ParsePath(req.GetPath())
	if err != nil {
		return nil, err
	}
	if req.GetName() != "" {
		if err := freshet.CheckXattrName("read attribute", p, req.GetName()); err != nil {
			return nil, err
		}
	}
	all, err := s.access.Xattrs(ctx, p)
	if err != nil {
		return nil, err
	}
	out := &freshetv1.ListXattrsResponse{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if req.GetName() == "" || req.GetName() == name {
			// A storage takes any bytes for a name, the wire only text.
			out.Xattrs = append(out.Xattrs, &freshetv1.Xattr{Name: strings.ToValidUTF8(name, "\uFFFD"), Value: all[name]})
		}
	}
	if req.GetName() != "" && len(out.GetXattrs()) == 0 {
		return nil, freshet.Errorf(freshet.KindNotExist, "read attribute", p, "has no attribute %s", req.GetName())
	}
	return out, nil
}

// SetXattr implements the service.
func (s *AccessServer) SetXattr(ctx context.Context, req *freshetv1.SetXattrRequest) (*freshetv1.SetXattrResponse, error) {
	return serve(ctx, s.forward, req, s.setXattr,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.SetXattrRequest) (*freshetv1.SetXattrResponse, error) {
			return access(c).SetXattr(ctx, req)
		})
}

func (s *AccessServer) setXattr(ctx context.Context, req *freshetv1.SetXattrRequest) (*freshetv1.SetXattrResponse, error) {
	p, op, err := changeArgs(req.GetPath(), req.GetOpId())
	if err != nil {
		return nil, err
	}
	when, err := parseWhen(req.GetWhen())
	if err != nil {
		return nil, err
	}
	done, err := s.access.SetXattr(ctx, freshet.SetXattrQuery{Op: op, Path: p, Name: req.GetName(), Value: req.GetValue(), When: when})
	if err != nil {
		return nil, err
	}
	return &freshetv1.SetXattrResponse{Entry: EntryToWire(done.Info), Token: done.Token.String()}, nil
}

// RemoveXattr implements the service.
func (s *AccessServer) RemoveXattr(ctx context.Context, req *freshetv1.RemoveXattrRequest) (*freshetv1.RemoveXattrResponse, error) {
	return serve(ctx, s.forward, req, s.removeXattr,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.RemoveXattrRequest) (*freshetv1.RemoveXattrResponse, error) {
			return access(c).RemoveXattr(ctx, req)
		})
}

func (s *AccessServer) removeXattr(ctx context.Context, req *freshetv1.RemoveXattrRequest) (*freshetv1.RemoveXattrResponse, error) {
	p, op, err := changeArgs(req.GetPath(), req.GetOpId())
	if err != nil {
		return nil, err
	}
	done, err := s.access.RemoveXattr(ctx, freshet.RemoveXattrQuery{Op: op, Path: p, Name: req.GetName()})
	if err != nil {
		return nil, err
	}
	return &freshetv1.RemoveXattrResponse{Entry: EntryToWire(done.Info), Token: done.Token.String()}, nil
}

// GetACL implements the service.
func (s *AccessServer) GetACL(ctx context.Context, req *freshetv1.GetACLRequest) (*freshetv1.GetACLResponse, error) {
	return serve(ctx, s.forward, req, s.getACL,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.GetACLRequest) (*freshetv1.GetACLResponse, error) {
			return access(c).GetACL(ctx, req)
		})
}

func (s *AccessServer) getACL(ctx context.Context, req *freshetv1.GetACLRequest) (*freshetv1.GetACLResponse, error) {
	p, err := freshet.ParsePath(req.GetPath())
	if err != nil {
		return nil, err
	}
	a, err := s.access.ACL(ctx, p)
	if err != nil {
		return nil, err
	}
	out := &freshetv1.GetACLResponse{Path: string(p), Kind: a.Type.String(), Owner: a.Owner, Group: a.Group, Mode: a.Mode}
	for _, e := range a.List {
		out.Entries = append(out.Entries, e.String())
	}
	return out, nil
}

// SetACL implements the service.
func (s *AccessServer) SetACL(ctx context.Context, req *freshetv1.SetACLRequest) (*freshetv1.SetACLResponse, error) {
	return serve(ctx, s.forward, req, s.setACL,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.SetACLRequest) (*freshetv1.SetACLResponse, error) {
			return access(c).SetACL(ctx, req)
		})
}

func (s *AccessServer) setACL(ctx context.Context, req *freshetv1.SetACLRequest) (*freshetv1.SetACLResponse, error) {
	p, op, err := changeArgs(req.GetPath(), req.GetOpId())
	if err != nil {
		return nil, err
	}
	change, err := changeOfWire(req.GetChange(), req.GetEntries())
	if err != nil {
		return nil, freshet.Errorf(freshet.KindInvalid, "set access control list", p, "%w", err)
	}
	done, err := s.access.SetACL(ctx, freshet.SetACLQuery{Op: op, Path: p, Change: change})
	if err != nil {
		return nil, err
	}
	return &freshetv1.SetACLResponse{Entry: EntryToWire(done.Info), Token: done.Token.String()}, nil
}

func changeOfWire(kind string, entries []string) (c acl.Change, err error) {
	if c.Kind, err = acl.ParseKind(kind); err != nil {
		return c, err
	}
	parse := acl.Parse
	if c.Kind == acl.Remove {
		parse = acl.ParseNames
	}
	c.Entries, err = parse(strings.Join(entries, "\n"))
	return c, err
}
