package rpc

import (
	"context"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/acl"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

var _ Access = (*Coordinator)(nil)

// Xattrs implements Access.
func (c *Coordinator) Xattrs(ctx context.Context, p freshet.Path) (map[string][]byte, error) {
	r, err := c.access.ListXattrs(ctx, &freshetv1.ListXattrsRequest{Path: string(p)})
	if err != nil {
		return nil, ErrorOf(err)
	}
	all := make(map[string][]byte, len(r.GetXattrs()))
	for _, x := range r.GetXattrs() {
		all[x.GetName()] = x.GetValue()
	}
	return all, nil
}

// SetXattr implements Access.
func (c *Coordinator) SetXattr(ctx context.Context, q freshet.SetXattrQuery) (freshet.Completed, error) {
	req := &freshetv1.SetXattrRequest{Path: string(q.Path), Name: q.Name, Value: q.Value, OpId: newOp(q.Op).String()}
	if int(q.When) < len(whens) {
		req.When = whens[q.When]
	}
	r, err := c.access.SetXattr(ctx, req)
	if err != nil {
		return freshet.Completed{}, ErrorOf(err)
	}
	return completedOfWire(r.GetEntry(), r.GetToken())
}

// RemoveXattr implements Access.
func (c *Coordinator) RemoveXattr(ctx context.Context, q freshet.RemoveXattrQuery) (freshet.Completed, error) {
	r, err := c.access.RemoveXattr(ctx, &freshetv1.RemoveXattrRequest{Path: string(q.Path), Name: q.Name, OpId: newOp(q.Op).String()})
	if err != nil {
		return freshet.Completed{}, ErrorOf(err)
	}
	return completedOfWire(r.GetEntry(), r.GetToken())
}

// ACL implements Access.
func (c *Coordinator) ACL(ctx context.Context, p freshet.Path) (freshet.ACL, error) {
	r, err := c.access.GetACL(ctx, &freshetv1.GetACLRequest{Path: string(p)})
	if err != nil {
		return freshet.ACL{}, ErrorOf(err)
	}
	return ACLOfWire(r)
}

// ACLOfWire reads an access control list.
func ACLOfWire(r *freshetv1.GetACLResponse) (freshet.ACL, error) {
	out := freshet.ACL{Path: freshet.Path(r.GetPath()), Owner: r.GetOwner(), Group: r.GetGroup(), Mode: r.GetMode()}
	if r.GetKind() == freshet.TypeDirectory.String() {
		out.Type = freshet.TypeDirectory
	}
	var err error
	if out.List, err = acl.Parse(strings.Join(r.GetEntries(), "\n")); err != nil {
		return out, freshet.Errorf(freshet.KindInvalid, "read message", out.Path, "%w", err)
	}
	return out, nil
}

// SetACL implements Access.
func (c *Coordinator) SetACL(ctx context.Context, q freshet.SetACLQuery) (freshet.Completed, error) {
	req := &freshetv1.SetACLRequest{Path: string(q.Path), Change: q.Change.Kind.String(), OpId: newOp(q.Op).String()}
	for _, e := range q.Change.Entries {
		req.Entries = append(req.Entries, e.String())
	}
	r, err := c.access.SetACL(ctx, req)
	if err != nil {
		return freshet.Completed{}, ErrorOf(err)
	}
	return completedOfWire(r.GetEntry(), r.GetToken())
}
