package namespace_test

import (
	"bytes"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

func TestTheVersionInForceOnlyGrows(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	if v := c.s.Version(); v != 1 {
		t.Errorf("version %d is in force at the beginning", v)
	}
	for _, step := range []struct{ set, want int }{{2, 2}, {1, 2}, {0, 2}} {
		c.must(namespace.Command{SetVersion: &namespace.SetVersion{Version: step.set}})
		if v := c.s.Version(); v != step.want {
			t.Errorf("after %d version %d is in force, want %d", step.set, v, step.want)
		}
	}
}

// A release refuses what a later one has put in force, wherever it meets it.
func TestAVersionOfANewerReleaseIsRefused(t *testing.T) {
	t.Parallel()
	newer := namespace.Command{SetVersion: &namespace.SetVersion{Version: namespace.Version + 1}}
	b, err := namespace.EncodeBatch([]namespace.Command{newer})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := namespace.DecodeBatch(b); !freshet.IsKind(err, freshet.KindUnsupported) {
		t.Errorf("in the log: %v", err)
	}
	store := kv.NewMemory()
	s := open(t, store)
	s.Apply(1, []namespace.Command{{Bootstrap: &namespace.Bootstrap{Cluster: selfID, Name: "self", Epoch: 1, At: epochTime}}, newer})
	var dump bytes.Buffer
	if _, err := s.Dump(&dump); err != nil {
		t.Fatal(err)
	}
	if _, err := namespace.Open(store, namespace.Options{}); !freshet.IsKind(err, freshet.KindUnsupported) {
		t.Errorf("in the store: %v", err)
	}
	if _, err := namespace.InspectDump(bytes.NewReader(dump.Bytes())); !freshet.IsKind(err, freshet.KindUnsupported) {
		t.Errorf("in a snapshot that is looked at: %v", err)
	}
	other := newCluster(t)
	before, err := other.s.Hash()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.s.Restore(bytes.NewReader(dump.Bytes())); !freshet.IsKind(err, freshet.KindUnsupported) {
		t.Errorf("in a copy: %v", err)
	}
	if after, err := other.s.Hash(); err != nil || after != before {
		t.Errorf("a refused copy changed the state: %v", err)
	}
}
