package setups_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

// TestReplicationPolicies follows the copies of blocks through the life of a policy:
// set, a node killed, changed.
func TestReplicationPolicies(t *testing.T) {
	dir := t.TempDir()
	var names []string
	for i := range 6 {
		name := fmt.Sprintf("hot/f%d", i)
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("content of "+name), 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	w := e2e.NewBareWorld(t, e2e.Dir(dir), nil, e2e.Options{Lone: true, Coordinators: 1, Nodes: 3})
	w.A.Mount(t, "/lake", "file://"+dir, nil)
	for _, name := range names {
		want(t, w.A, name, "content of "+name)
	}
	copies := func(n int) map[string][]string {
		t.Helper()
		held := map[string][]string{}
		if err := fleet.Poll(t.Context(), e2e.Patience, fmt.Sprintf("%d copies of each block", n), func(ctx context.Context) error {
			for _, name := range names {
				x, err := w.A.S.Explain(ctx, w.A.At(name), false)
				if err != nil {
					return err
				}
				if len(x.Blocks) != 1 || len(x.Blocks[0].Nodes) != n {
					return fmt.Errorf("%s: blocks %+v, %+v", name, x.Blocks, x.Replication)
				}
				held[name] = x.Blocks[0].Nodes
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return held
	}
	copies(1)
	w.A.CLI(t, "policy", "set", "/lake/hot", "--replication-min", "2").Want(t, 0, "replication_min", "2")
	w.A.CLI(t, "policy", "set", "/lake/hot", "--replication-max", "1").Want(t, 2, "at least 2 and at most 1")
	w.A.CLI(t, "policy", "show", "/lake/hot/f0").Want(t, 0, "replication_min", "/lake/hot", "operator", "replication_max")
	victim := copies(2)[names[0]][0]
	i := slices.IndexFunc(w.A.Nodes, func(p *fleet.Process) bool { return p.Name == w.A.Name+"-"+victim })
	if i < 0 {
		t.Fatalf("no process of node %s", victim)
	}
	if err := w.A.Nodes[i].Kill(); err != nil {
		t.Fatal(err)
	}
	if err := fleet.Poll(t.Context(), e2e.Patience, "the death of the node", func(ctx context.Context) error {
		c, err := w.A.S.Cluster(ctx)
		if err == nil && c.LiveNodes != 2 {
			err = fmt.Errorf("%d nodes live", c.LiveNodes)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for name, nodes := range copies(2) {
		if slices.Contains(nodes, victim) {
			t.Errorf("%s is still said to be on %s", name, victim)
		}
	}
	e2e.HTTP(t, "GET", "http://"+w.A.HTTP[0]+"/metrics", "").Want(t, 200, "freshet_coordinator_underreplicated_blocks")
	w.A.CLI(t, "policy", "set", "/lake/hot", "--replication-min", "3").Want(t, 0)
	if err := fleet.Poll(t.Context(), e2e.Patience, "word of what is short", func(context.Context) error {
		ran := e2e.HTTP(t, "GET", "http://"+w.A.HTTP[0]+"/metrics", "")
		if !strings.Contains(ran.Body, "\nfreshet_coordinator_underreplicated_blocks 6\n") {
			return errors.New("not all are counted")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	w.A.CLI(t, "explain", "/lake/hot/f0").Want(t, 0, "at least 3", "only 2 cache nodes live")
	e2e.HTTP(t, "PUT", "http://"+w.A.HTTP[0]+"/v1/policies", `{"path":"/lake/hot","properties":{"replication_max":1}}`).Want(t, 200, `"replication_max"`)
	copies(1)
	for _, name := range names {
		want(t, w.A, name, "content of "+name)
	}
}
