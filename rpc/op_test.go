package rpc_test

import (
	"context"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// withoutOp are the calls of clients whose requests have no operation ID, and why a
// repetition does no harm, or does not happen.
func withoutOp() map[string]string {
	m := map[string]string{}
	add := func(why string, methods ...string) {
		for _, method := range methods {
			m[method] = why
		}
	}
	add("reads", "Stat", "BatchStat", "List", "ListStream", "Explain", "Locate", "ListXattrs", "GetACL", "ListMounts",
		"ListSyncPolicies", "ListPolicies", "ListQuotas", "ListSyncs", "ListWarms", "GetDrain", "InspectCache", "GetCluster", "ListNodes", "ListPeers", "GetStateHash", "SaveSnapshot", "ReadBlock", "ReadRanges", "ListUnpersisted")
	add("looks at the storage, and looks again", "Sync", "Check")
	add("each call in it carries its own", "BeginWrites", "Permits", "Completes")
	add("marks, and marks again", "PostEvents")
	add("a block that is there or on its way is not fetched again", "ReadAhead", "KeepBlock")
	add("the operation is named by its ticket", "WriteFile")
	add("says what shall be: done again, it changes nothing", "CancelSync", "CancelWarm", "FreeCache", "Persist", "DrainNode", "DecommissionNode", "JoinPeers", "LeavePeers", "JoinRaft")
	add("the members of the log are not part of the state; a second removal says that there is no such member", "RemoveRaft")
	add("never repeated by the connection: it might hand over twice", "TransferLeadership")
	add("changes nothing that is kept", "HoldLeases")
	add("a stream of the client is never repeated by the connection", "RestoreSnapshot")
	return m
}

// TestEveryChangeCarriesAnOperationID holds new calls to it: a change that the
// connection repeats without being asked must not be done twice.
func TestEveryChangeCarriesAnOperationID(t *testing.T) {
	t.Parallel()
	excused := withoutOp()
	protoregistry.GlobalFiles.RangeFilesByPackage("freshet.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			if s.Name() == "NodeService" { // between the leader and its nodes: operations have IDs of their own
				continue
			}
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				_, ok := excused[string(m.Name())]
				delete(excused, string(m.Name()))
				fields := m.Input().Fields()
				if has := fields.ByName("op_id") != nil || fields.ByName("op") != nil; has == ok {
					t.Errorf("%s: operation ID %v, excused %v", m.FullName(), has, ok)
				}
			}
		}
		return true
	})
	if len(excused) > 0 {
		t.Errorf("these calls are gone: %v", slices.Sorted(maps.Keys(excused)))
	}
}

// heard notes the operation IDs with which policies and the epoch are changed.
type heard struct {
	*fake
	ops chan freshet.OpID
}

func (h heard) ChangePolicy(ctx context.Context, _ freshet.PolicyChange) (freshet.Policy, error) {
	h.ops <- freshet.OpOf(ctx)
	return freshet.Policy{}, nil
}

func (h heard) BumpEpoch(ctx context.Context, _ bool) (uint64, error) {
	h.ops <- freshet.OpOf(ctx)
	return 1, nil
}

func TestOperationIDsOfSettingsArrive(t *testing.T) {
	t.Parallel()
	h := heard{&fake{}, make(chan freshet.OpID, 1)}
	policies, cluster := rpc.NewPolicyServer(h, nil), rpc.NewClusterServer(h, nil, nil)
	op := freshet.OpID{1, 2, 3}
	for name, call := range map[string]func(id string) error{
		"update": func(id string) error {
			_, err := policies.UpdatePolicy(t.Context(), &freshetv1.UpdatePolicyRequest{Path: "/a", OpId: id})
			return err
		},
		"replace": func(id string) error {
			_, err := policies.ReplacePolicy(t.Context(), &freshetv1.ReplacePolicyRequest{Path: "/a", OpId: id})
			return err
		},
		"delete": func(id string) error {
			_, err := policies.DeletePolicy(t.Context(), &freshetv1.DeletePolicyRequest{Path: "/a", OpId: id})
			return err
		},
		"epoch": func(id string) error {
			_, err := cluster.BumpEpoch(t.Context(), &freshetv1.BumpEpochRequest{OpId: id})
			return err
		},
	} {
		if err := call(op.String()); err != nil || <-h.ops != op {
			t.Errorf("%s: %v, or another operation arrived", name, err)
		}
		if err := call("x"); !freshet.IsKind(rpc.ErrorOf(err), freshet.KindInvalid) {
			t.Errorf("%s: with a wrong ID: %v", name, err)
		}
	}
}
