package rpc

import (
	"context"
	"errors"
	"strconv"

	"google.golang.org/grpc"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// ListPolicies implements the service.
func (s *PolicyServer) ListPolicies(ctx context.Context, req *freshetv1.ListPoliciesRequest) (*freshetv1.ListPoliciesResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.ListPoliciesRequest) (*freshetv1.ListPoliciesResponse, error) {
			p, err := optionalPath(req.GetPath())
			if err != nil {
				return nil, err
			}
			r, err := s.policies.PathPolicies(ctx, p)
			if err != nil {
				return nil, err
			}
			out := &freshetv1.ListPoliciesResponse{Effective: settingsToWire(r.Effective)}
			for _, policy := range r.Policies {
				out.Policies = append(out.Policies, pathPolicyToWire(policy))
			}
			return out, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.ListPoliciesRequest) (*freshetv1.ListPoliciesResponse, error) {
			return policies(c).ListPolicies(ctx, req)
		})
}

// UpdatePolicy implements the service.
func (s *PolicyServer) UpdatePolicy(ctx context.Context, req *freshetv1.UpdatePolicyRequest) (*freshetv1.UpdatePolicyResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.UpdatePolicyRequest) (*freshetv1.UpdatePolicyResponse, error) {
			p, err := s.change(ctx, req, freshet.PolicyChange{
				Set: propertiesOfWire(req.GetProperties()), Unset: propertiesNamed(req.GetUnset()), Origin: req.GetOrigin(), DryRun: req.GetDryRun(),
			})
			return &freshetv1.UpdatePolicyResponse{Policy: p}, err
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.UpdatePolicyRequest) (*freshetv1.UpdatePolicyResponse, error) {
			return policies(c).UpdatePolicy(ctx, req)
		})
}

// ReplacePolicy implements the service.
func (s *PolicyServer) ReplacePolicy(ctx context.Context, req *freshetv1.ReplacePolicyRequest) (*freshetv1.ReplacePolicyResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.ReplacePolicyRequest) (*freshetv1.ReplacePolicyResponse, error) {
			p, err := s.change(ctx, req, freshet.PolicyChange{
				Set: propertiesOfWire(req.GetProperties()), Replace: true, Origin: req.GetOrigin(), DryRun: req.GetDryRun(),
			})
			return &freshetv1.ReplacePolicyResponse{Policy: p}, err
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.ReplacePolicyRequest) (*freshetv1.ReplacePolicyResponse, error) {
			return policies(c).ReplacePolicy(ctx, req)
		})
}

// DeletePolicy implements the service.
func (s *PolicyServer) DeletePolicy(ctx context.Context, req *freshetv1.DeletePolicyRequest) (*freshetv1.DeletePolicyResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.DeletePolicyRequest) (*freshetv1.DeletePolicyResponse, error) {
			unset := propertiesNamed(req.GetProperties())
			p, err := s.change(ctx, req, freshet.PolicyChange{Unset: unset, Replace: len(unset) == 0, DryRun: req.GetDryRun()})
			return &freshetv1.DeletePolicyResponse{Policy: p}, err
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.DeletePolicyRequest) (*freshetv1.DeletePolicyResponse, error) {
			return policies(c).DeletePolicy(ctx, req)
		})
}

// change makes a change of the policy of the path that a request names.
func (s *PolicyServer) change(ctx context.Context, req interface {
	GetPath() string
	GetOpId() string
}, c freshet.PolicyChange,
) (*freshetv1.Policy, error) {
	p, op, err := changeArgs(req.GetPath(), req.GetOpId())
	if err != nil {
		return nil, err
	}
	c.Path = p
	after, err := s.policies.ChangePolicy(freshet.WithOp(ctx, op), c)
	if err != nil {
		return nil, err
	}
	return pathPolicyToWire(after), nil
}

func propertiesNamed(names []string) []freshet.Property {
	var out []freshet.Property
	for _, n := range names {
		out = append(out, freshet.Property(n))
	}
	return out
}

func pathPolicyToWire(p freshet.Policy) *freshetv1.Policy {
	return &freshetv1.Policy{Path: string(p.Path), Settings: settingsToWire(p.Settings)}
}

func pathPolicyOfWire(w *freshetv1.Policy) freshet.Policy {
	return freshet.Policy{Path: freshet.Path(w.GetPath()), Settings: settingsOfWire(w.GetSettings())}
}

func settingsToWire(all []freshet.Setting) []*freshetv1.PolicySetting {
	var out []*freshetv1.PolicySetting
	for _, s := range all {
		out = append(out, &freshetv1.PolicySetting{
			Property: string(s.Property), Value: s.Value, Path: string(s.Path), Origin: s.Origin, SetAt: timeToWire(s.SetAt),
		})
	}
	return out
}

func settingsOfWire(all []*freshetv1.PolicySetting) []freshet.Setting {
	var out []freshet.Setting
	for _, s := range all {
		out = append(out, freshet.Setting{
			Property: freshet.Property(s.GetProperty()), Value: s.GetValue(), Path: freshet.Path(s.GetPath()), Origin: s.GetOrigin(), SetAt: timeOfWire(s.GetSetAt()),
		})
	}
	return out
}

// propertiesOfWire returns what is given, in the order of freshet.Properties.
func propertiesOfWire(w *freshetv1.PolicyProperties) []freshet.Setting {
	var out []freshet.Setting
	text := func(p freshet.Property, given bool, v string) {
		if given {
			out = append(out, freshet.Setting{Property: p, Value: v})
		}
	}
	if w == nil {
		return nil
	}
	text(freshet.PropertySyncInterval, w.SyncInterval != nil, w.GetSyncInterval())
	text(freshet.PropertyConsistency, w.Consistency != nil, w.GetConsistency())
	text(freshet.PropertyWriteType, w.WriteType != nil, w.GetWriteType())
	text(freshet.PropertyTTL, w.Ttl != nil, w.GetTtl())
	text(freshet.PropertyTTLAction, w.TtlAction != nil, w.GetTtlAction())
	text(freshet.PropertyPinned, w.Pinned != nil, strconv.FormatBool(w.GetPinned()))
	text(freshet.PropertyBlockSize, w.BlockSize != nil, w.GetBlockSize())
	text(freshet.PropertyReplicationMin, w.ReplicationMin != nil, strconv.Itoa(int(w.GetReplicationMin())))
	text(freshet.PropertyReplicationMax, w.ReplicationMax != nil, strconv.Itoa(int(w.GetReplicationMax())))
	text(freshet.PropertyDurableReplicas, w.DurableReplicas != nil, strconv.Itoa(int(w.GetDurableReplicas())))
	return out
}

// PropertiesToWire is for requests that set properties. KindInvalid for a property
// or a value that can't be sent.
func PropertiesToWire(all []freshet.Setting) (*freshetv1.PolicyProperties, error) {
	w := &freshetv1.PolicyProperties{}
	for _, s := range all {
		var err error
		number := func() *int32 {
			var n int64
			if n, err = strconv.ParseInt(s.Value, 10, 32); err != nil {
				err = errors.New("use a whole number")
			}
			return new(int32(n))
		}
		switch s.Property {
		case freshet.PropertySyncInterval:
			w.SyncInterval = &s.Value
		case freshet.PropertyConsistency:
			w.Consistency = &s.Value
		case freshet.PropertyWriteType:
			w.WriteType = &s.Value
		case freshet.PropertyTTL:
			w.Ttl = &s.Value
		case freshet.PropertyTTLAction:
			w.TtlAction = &s.Value
		case freshet.PropertyPinned:
			var b bool
			if b, err = strconv.ParseBool(s.Value); err != nil {
				err = errors.New("use true or false")
			}
			w.Pinned = &b
		case freshet.PropertyBlockSize:
			w.BlockSize = &s.Value
		case freshet.PropertyReplicationMin:
			w.ReplicationMin = number()
		case freshet.PropertyReplicationMax:
			w.ReplicationMax = number()
		case freshet.PropertyDurableReplicas:
			w.DurableReplicas = number()
		default:
			return nil, freshet.Errorf(freshet.KindInvalid, "set policy", "", "%q is not a property of a policy: use one of %q", string(s.Property), freshet.Properties())
		}
		if err != nil {
			return nil, freshet.Errorf(freshet.KindInvalid, "set policy", "", "%s is %q: %w", s.Property, s.Value, err)
		}
	}
	return w, nil
}

// PathPolicies implements Policies.
func (c *Coordinator) PathPolicies(ctx context.Context, p freshet.Path) (freshet.PolicyReport, error) {
	r, err := c.policies.ListPolicies(ctx, &freshetv1.ListPoliciesRequest{Path: string(p)})
	if err != nil {
		return freshet.PolicyReport{}, ErrorOf(err)
	}
	out := freshet.PolicyReport{Effective: settingsOfWire(r.GetEffective())}
	for _, w := range r.GetPolicies() {
		out.Policies = append(out.Policies, pathPolicyOfWire(w))
	}
	return out, nil
}

// ChangePolicy implements Policies.
func (c *Coordinator) ChangePolicy(ctx context.Context, ch freshet.PolicyChange) (freshet.Policy, error) {
	props, err := PropertiesToWire(ch.Set)
	if err != nil {
		return freshet.Policy{}, err
	}
	op := newOp(freshet.OpOf(ctx)).String()
	if ch.Replace && len(ch.Set) > 0 {
		r, err := c.policies.ReplacePolicy(ctx, &freshetv1.ReplacePolicyRequest{Path: string(ch.Path), Properties: props, Origin: ch.Origin, DryRun: ch.DryRun, OpId: op})
		return pathPolicyOfWire(r.GetPolicy()), ErrorOf(err)
	}
	if ch.Replace {
		r, err := c.policies.DeletePolicy(ctx, &freshetv1.DeletePolicyRequest{Path: string(ch.Path), DryRun: ch.DryRun, OpId: op})
		return pathPolicyOfWire(r.GetPolicy()), ErrorOf(err)
	}
	var unset []string
	for _, p := range ch.Unset {
		unset = append(unset, string(p))
	}
	r, err := c.policies.UpdatePolicy(ctx, &freshetv1.UpdatePolicyRequest{
		Path: string(ch.Path), Properties: props, Unset: unset, Origin: ch.Origin, DryRun: ch.DryRun, OpId: op,
	})
	return pathPolicyOfWire(r.GetPolicy()), ErrorOf(err)
}
