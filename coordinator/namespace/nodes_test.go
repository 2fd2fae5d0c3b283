package namespace_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// TestRolesOfNodesAreKeptAndBounded: they are the same after the state was opened again,
// and of too many those that were decommissioned first are forgotten.
func TestRolesOfNodesAreKeptAndBounded(t *testing.T) {
	t.Parallel()
	store := kv.NewMemory()
	s, err := namespace.Open(store, namespace.Options{})
	if err != nil {
		t.Fatal(err)
	}
	index := uint64(0)
	set := func(id string, role freshet.NodeRole) (error, bool) {
		index++
		cmd := namespace.Command{SetNodeRole: &namespace.NodeRole{
			ID: freshet.NodeID(id), Name: "name-" + id, Role: role, At: time.Unix(int64(index), 0),
		}}
		if n := namespace.Needs(&cmd); n != 5 {
			t.Fatalf("needs version %d", n)
		}
		results, changes := s.Apply(index, []namespace.Command{cmd})
		return results[0].Err, changes.Nodes
	}
	if err, _ := set("", freshet.RoleDraining); !freshet.IsKind(err, freshet.KindInvalid) {
		t.Errorf("without an ID: %v", err)
	}
	if err, _ := set("a", "resting"); !freshet.IsKind(err, freshet.KindInvalid) {
		t.Errorf("with another role: %v", err)
	}
	for _, id := range []string{"a", "b"} {
		if err, changed := set(id, freshet.RoleDraining); err != nil || !changed {
			t.Fatalf("%s: %v, changed %v", id, err, changed)
		}
	}
	if err, changed := set("a", freshet.RoleServing); err != nil || !changed {
		t.Fatalf("%v, changed %v", err, changed)
	}
	if err, changed := set("a", freshet.RoleServing); err != nil || changed {
		t.Fatalf("again: %v, changed %v", err, changed)
	}
	for i := range 1023 {
		if err, _ := set(fmt.Sprint("gone", i), freshet.RoleDecommissioned); err != nil {
			t.Fatal(err)
		}
	}
	if err, _ := set("last", freshet.RoleDecommissioned); err != nil {
		t.Fatal(err)
	}
	rows := s.NodeRoles()
	has := map[freshet.NodeID]freshet.NodeRole{}
	for _, r := range rows {
		has[r.ID] = r.Role
	}
	if len(rows) != 1024 || has["b"] != freshet.RoleDraining || has["gone0"] != "" || has["gone1"] == "" || has["last"] == "" {
		t.Errorf("%d rows, b is %q", len(rows), has["b"])
	}
	again, err := namespace.Open(store, namespace.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := again.NodeRoles(); fmt.Sprint(got) != fmt.Sprint(rows) {
		t.Error("the state that was opened again has other roles")
	}
}
