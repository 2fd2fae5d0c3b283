package rpc

import (
	"context"
	"errors"
	"io"

	"github.com/google/uuid"
	"google.golang.org/grpc"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// Coordinator calls the coordinators of one cluster. It satisfies Namespace,
// Mounts, Policies, Cluster, Peers and Nodes, so that a face can't tell whether
// it talks to a coordinator in its own process or to another one. Safe for
// concurrent use.
type Coordinator struct {
	conn     grpc.ClientConnInterface
	direct   []grpc.CallOption
	ns       freshetv1.NamespaceServiceClient
	mounts   freshetv1.MountServiceClient
	policies freshetv1.PolicyServiceClient
	cluster  freshetv1.ClusterServiceClient
	events   freshetv1.EventServiceClient
	nodes    freshetv1.NodeServiceClient
	access   freshetv1.AccessServiceClient
	check    freshetv1.CheckServiceClient
	quotas   freshetv1.QuotaServiceClient
	gathered *gathered
}

// NewCoordinator returns a Coordinator over a connection made by Dial.
func NewCoordinator(c grpc.ClientConnInterface) *Coordinator {
	return &Coordinator{conn: c, direct: direct(), ns: ns(c), mounts: mounts(c), policies: policies(c), cluster: cluster(c), events: freshetv1.NewEventServiceClient(c), nodes: nodes(c), access: access(c), check: freshetv1.NewCheckServiceClient(c), quotas: quotas(c), gathered: newGathered(c)}
}

// newOp makes an operation ID where the caller gave none, so that every call can
// be repeated safely.
func newOp(op freshet.OpID) freshet.OpID {
	if !op.IsZero() {
		return op
	}
	return freshet.OpID(uuid.Must(uuid.NewV7()))
}

// Stat implements Namespace.
func (c *Coordinator) Stat(ctx context.Context, p freshet.Path, opts freshet.ReadOptions) (freshet.Status, error) {
	interval, token := readOptionsToWire(opts)
	req := &freshetv1.StatRequest{Path: string(p), SyncInterval: interval, After: token, Lease: leaseToWire(opts.Lease)}
	var a answerStat
	if err := c.conn.Invoke(ctx, freshetv1.NamespaceService_Stat_FullMethodName, req, &a, c.direct...); err != nil {
		return freshet.Status{}, ErrorOf(err)
	}
	return a.status, a.err
}

// List implements Namespace.
func (c *Coordinator) List(ctx context.Context, q freshet.ListQuery) (freshet.ListPage, error) {
	interval, token := readOptionsToWire(q.Options)
	req := &freshetv1.ListRequest{
		Path: string(q.Path), PageToken: q.PageToken, PageSize: int32(q.PageSize), Recursive: q.Recursive,
		SyncInterval: interval, After: token, Prefix: q.Prefix, StartAfter: q.StartAfter,
	}
	var a answerPage
	if err := c.conn.Invoke(ctx, freshetv1.NamespaceService_List_FullMethodName, req, &a, c.direct...); err != nil {
		return freshet.ListPage{}, ErrorOf(err)
	}
	return a.page, a.err
}

// Mkdir implements Namespace.
func (c *Coordinator) Mkdir(ctx context.Context, q freshet.MkdirQuery) (freshet.Completed, error) {
	r, err := c.ns.Mkdir(ctx, &freshetv1.MkdirRequest{Path: string(q.Path), Parents: q.Parents, Mode: q.Mode, OpId: newOp(q.Op).String()})
	if err != nil {
		return freshet.Completed{}, ErrorOf(err)
	}
	return completedOfWire(r.GetEntry(), r.GetToken())
}

// Rename implements Namespace.
func (c *Coordinator) Rename(ctx context.Context, q freshet.RenameQuery) (freshet.Completed, error) {
	r, err := c.ns.Rename(ctx, &freshetv1.RenameRequest{
		Path: string(q.Path), Target: string(q.Target), Overwrite: q.Overwrite, OpId: newOp(q.Op).String(),
	})
	if err != nil {
		return freshet.Completed{}, ErrorOf(err)
	}
	return completedOfWire(r.GetEntry(), r.GetToken())
}

// Remove implements Namespace.
func (c *Coordinator) Remove(ctx context.Context, q freshet.RemoveQuery) (freshet.Completed, error) {
	r, err := c.ns.Remove(ctx, &freshetv1.RemoveRequest{Path: string(q.Path), Recursive: q.Recursive, OpId: newOp(q.Op).String()})
	if err != nil {
		return freshet.Completed{}, ErrorOf(err)
	}
	return completedOfWire(nil, r.GetToken())
}

// SetAttr implements Namespace.
func (c *Coordinator) SetAttr(ctx context.Context, q freshet.SetAttrQuery) (freshet.Completed, error) {
	req := &freshetv1.SetAttrRequest{Path: string(q.Path), Mode: q.Mode, OpId: newOp(q.Op).String()}
	if q.Owner != nil {
		req.Owner = *q.Owner
	}
	if q.Group != nil {
		req.Group = *q.Group
	}
	r, err := c.ns.SetAttr(ctx, req)
	if err != nil {
		return freshet.Completed{}, ErrorOf(err)
	}
	return completedOfWire(r.GetEntry(), r.GetToken())
}

// Locate implements Namespace.
func (c *Coordinator) Locate(ctx context.Context, q freshet.LocateQuery) (freshet.Location, error) {
	interval, token := readOptionsToWire(q.Options)
	r, err := c.ns.Locate(ctx, &freshetv1.LocateRequest{
		Path: string(q.Path), Offset: q.Offset, Length: q.Length, SyncInterval: interval, After: token,
		Host: q.Host, Rack: q.Rack, Zone: q.Zone, StaleFingerprint: q.StaleFingerprint, Lease: leaseToWire(q.Options.Lease),
	})
	if err != nil {
		return freshet.Location{}, ErrorOf(err)
	}
	return locationOfWire(r)
}

// BeginWrite implements Namespace. Calls that run at the same time may be made
// together.
func (c *Coordinator) BeginWrite(ctx context.Context, q freshet.BeginWriteQuery) (freshet.BeginWriteAnswer, error) {
	r, err := c.gathered.begins.do(ctx, beginWriteToWire(q))
	if err != nil {
		return freshet.BeginWriteAnswer{}, err
	}
	return beginAnswerOfWire(r)
}

// AbortWrite implements Namespace.
func (c *Coordinator) AbortWrite(ctx context.Context, op freshet.OpID) error {
	_, err := c.ns.AbortWrite(ctx, &freshetv1.AbortWriteRequest{Op: op[:]})
	return ErrorOf(err)
}

// Explain implements Namespace.
func (c *Coordinator) Explain(ctx context.Context, p freshet.Path, check bool) (freshet.Explanation, error) {
	r, err := c.ns.Explain(ctx, &freshetv1.ExplainRequest{Path: string(p), Check: check})
	if err != nil {
		return freshet.Explanation{}, ErrorOf(err)
	}
	return explanationOfWire(r)
}

// Sync implements Namespace.
func (c *Coordinator) Sync(ctx context.Context, p freshet.Path, recursive bool, report func(freshet.SyncProgress) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream if report fails
	stream, err := c.ns.Sync(ctx, &freshetv1.SyncRequest{Path: string(p), Recursive: recursive})
	if err != nil {
		return ErrorOf(err)
	}
	return drain(stream, func(m *freshetv1.SyncResponse) error { return report(progressOfWire(m)) })
}

// drain gives each message of a stream to take, until the stream ends or take fails.
func drain[M any](stream grpc.ServerStreamingClient[M], take func(*M) error) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return ErrorOf(err)
		}
		if err := take(m); err != nil {
			return err
		}
	}
}

// Mounts implements Mounts.
func (c *Coordinator) Mounts(ctx context.Context, p freshet.Path) ([]freshet.MountAnswer, uint64, error) {
	r, err := c.mounts.ListMounts(ctx, &freshetv1.ListMountsRequest{Path: string(p)})
	if err != nil {
		return nil, 0, ErrorOf(err)
	}
	out := make([]freshet.MountAnswer, 0, len(r.GetMounts()))
	for _, w := range r.GetMounts() {
		m, err := mountOfWire(w)
		if err != nil {
			return nil, 0, err
		}
		out = append(out, m)
	}
	return out, r.GetIndex(), nil
}

// AddMount implements Mounts.
func (c *Coordinator) AddMount(ctx context.Context, ch freshet.MountChange) (freshet.MountAnswer, error) {
	req := &freshetv1.AddMountRequest{
		Path: string(ch.Path), Options: ch.Options, Consistency: changeConsistencyToWire(ch), DryRun: ch.DryRun, Origin: ch.Origin,
		OpId: newOp(freshet.OpOf(ctx)).String(),
	}
	if ch.URI != nil {
		req.Ufs = *ch.URI
	}
	if ch.ReadOnly != nil {
		req.ReadOnly = *ch.ReadOnly
	}
	r, err := c.mounts.AddMount(ctx, req)
	if err != nil {
		return freshet.MountAnswer{}, ErrorOf(err)
	}
	return answerOfWire(r.GetMount(), r.GetNotes())
}

func answerOfWire(m *freshetv1.Mount, notes []string) (freshet.MountAnswer, error) {
	a, err := mountOfWire(m)
	a.Notes = notes
	return a, err
}

// UpdateMount implements Mounts.
func (c *Coordinator) UpdateMount(ctx context.Context, ch freshet.MountChange) (freshet.MountAnswer, error) {
	r, err := c.mounts.UpdateMount(ctx, &freshetv1.UpdateMountRequest{
		Path: string(ch.Path), Ufs: ch.URI, Options: ch.Options, ReadOnly: ch.ReadOnly, Consistency: changeConsistencyToWire(ch),
		DryRun: ch.DryRun, Origin: ch.Origin, IfGeneration: ch.IfGeneration,
		OpId: newOp(freshet.OpOf(ctx)).String(),
	})
	if err != nil {
		return freshet.MountAnswer{}, ErrorOf(err)
	}
	return answerOfWire(r.GetMount(), r.GetNotes())
}

// RemoveMount implements Mounts.
func (c *Coordinator) RemoveMount(ctx context.Context, p freshet.Path, opts freshet.RemoveMountOptions) (freshet.MountAnswer, error) {
	r, err := c.mounts.RemoveMount(ctx, &freshetv1.RemoveMountRequest{Path: string(p), DryRun: opts.DryRun, Force: opts.Force, OpId: newOp(freshet.OpOf(ctx)).String()})
	if err != nil {
		return freshet.MountAnswer{}, ErrorOf(err)
	}
	return answerOfWire(r.GetMount(), nil)
}

// Policies implements Policies.
func (c *Coordinator) Policies(ctx context.Context, p freshet.Path) ([]freshet.SyncPolicy, error) {
	r, err := c.policies.ListSyncPolicies(ctx, &freshetv1.ListSyncPoliciesRequest{Path: string(p)})
	if err != nil {
		return nil, ErrorOf(err)
	}
	out := make([]freshet.SyncPolicy, 0, len(r.GetPolicies()))
	for _, w := range r.GetPolicies() {
		rule, err := policyOfWire(w)
		if err != nil {
			return nil, err
		}
		out = append(out, rule)
	}
	return out, nil
}

// SetPolicy implements Policies.
func (c *Coordinator) SetPolicy(ctx context.Context, rule freshet.SyncPolicy, dryRun bool) (freshet.SyncPolicy, error) {
	r, err := c.policies.SetSyncPolicy(ctx, &freshetv1.SetSyncPolicyRequest{
		Path: string(rule.Path), Interval: rule.Interval.String(), Origin: rule.Origin, DryRun: dryRun,
		OpId: newOp(freshet.OpOf(ctx)).String(),
	})
	if err != nil {
		return freshet.SyncPolicy{}, ErrorOf(err)
	}
	return policyOfWire(r.GetPolicy())
}

// RemovePolicy implements Policies.
func (c *Coordinator) RemovePolicy(ctx context.Context, p freshet.Path, dryRun bool) (freshet.SyncPolicy, error) {
	r, err := c.policies.RemoveSyncPolicy(ctx, &freshetv1.RemoveSyncPolicyRequest{Path: string(p), DryRun: dryRun, OpId: newOp(freshet.OpOf(ctx)).String()})
	if err != nil {
		return freshet.SyncPolicy{}, ErrorOf(err)
	}
	return policyOfWire(r.GetPolicy())
}
