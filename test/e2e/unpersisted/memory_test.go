package unpersisted_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/test/e2e"
)

// keepAt writes a file that stays on the node of that name.
func keepAt(t *testing.T, r *e2e.Region, node, name string, data []byte) {
	t.Helper()
	nodes, err := r.S.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(nodes, func(n freshet.NodeStatus) bool { return n.Node.Name == node })
	if i < 0 {
		t.Fatalf("no node %s in %+v", node, nodes)
	}
	q := freshet.BeginWriteQuery{Op: freshet.OpID(uuid.New()), Path: r.At(name), Write: freshet.MustCache, Node: nodes[i].Node.ID}
	if a, err := r.S.Files.BeginWrite(t.Context(), q); err != nil || a.Ticket.Node.Name != node {
		t.Fatalf("%s is to be written to %q, %v", name, a.Ticket.Node.Name, err)
	}
	keepWith(t, r, name, data, client.WriteOptions{Op: q.Op, Write: q.Write})
}

// refused is nil when a read says why there is no such file any more. That it gives any
// bytes fails the test: nobody has the right ones.
func refused(t *testing.T, r *e2e.Region, name, why string, more ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		if data, _, err := r.Read(ctx, name, client.Whole()); err == nil || len(data) > 0 {
			t.Errorf("%s: %d bytes were read (%.20q…), %v", name, len(data), data, err)
		}
		ran := r.CLI(t, append([]string{"fs", "cat", string(r.At(name))}, more...)...)
		if ran.Code == 0 || ran.Out != "" {
			t.Errorf("%s: exit code %d with %d bytes (%.20q…)", name, ran.Code, len(ran.Out), ran.Out)
		}
		if ran.Code != freshet.ExitUnavailable || !strings.Contains(ran.Err, why) {
			return fmt.Errorf("%s: exit code %d: %s", name, ran.Code, ran.Err)
		}
		return nil
	}
}

// TestMemoryAloneGoesWithItsNode: what a node without a disk acknowledged ends with its
// process. Everybody is told so, and nobody gets other bytes, not even those of the
// version before, which the storage has.
func TestMemoryAloneGoesWithItsNode(t *testing.T) {
	w, dir := world(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 2, Tier: "memory"})
	r := w.A
	before, over := e2e.Content("d/over", 1, 90_000), e2e.Content("d/over", 2, 90_000)
	other := e2e.Content("d/other", 1, 60_000)
	e2e.Put(t, r, "d/over", before)
	keepAt(t, r, "n1", "d/over", over)
	keepAt(t, r, "n1", "d/new", e2e.Content("d/new", 1, 50_000))
	keepAt(t, r, "n2", "d/other", other)
	lost, all := []string{"d/over", "d/new"}, 3
	victim := nodeOf(t, r, "n1")
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, name := range lost {
		e2e.Seen(t, "readers are told of the loss of "+name, refused(t, r, name, "in the memory of n1 alone; unless it still runs"))
		r.CLI(t, "explain", string(r.At(name))).Want(t, 0, "lost", "in the memory of n1 alone", "fs rm")
	}
	e2e.Seen(t, "what another node keeps is read", e2e.Shows(r, "d/other", other))
	told := func(context.Context) error {
		s := pending(t, r)
		for _, f := range s.Files {
			if gone := slices.Contains(lost, r.Root.Rel(freshet.Path(f.Path))); gone != (f.State == freshet.UnpersistedLost) {
				return fmt.Errorf("%+v", f)
			}
		}
		if s.Lost != len(lost) || s.Count != all {
			return fmt.Errorf("%+v", s)
		}
		return nil
	}
	e2e.Seen(t, "operators are told", told)
	r.CLI(t, "cluster", "status").Want(t, freshet.ExitUnhealthy, fmt.Sprintf("in the memory of single cache nodes, which have ended or can't be reached, %d of them", len(lost)))

	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	for _, name := range lost {
		e2e.Seen(t, "its node came back without "+name, refused(t, r, name, "in the memory of n1 alone and are gone, for it was restarted"))
	}
	// A look at the storage, which has the version before, changes nothing.
	r.CLI(t, "sync", "now", string(r.Root), "--recursive").Want(t, 0)
	for _, name := range lost {
		e2e.Seen(t, name+" is no other file after a sync", refused(t, r, name, "are gone", "--sync-interval", "always"))
		if ran := r.CLI(t, "persist", "--wait", string(r.At(name))); ran.Code == 0 {
			t.Errorf("%s was persisted: %s", name, ran.Out)
		}
	}
	if err := inStorage(dir, "d/over", before)(t.Context()); err != nil {
		t.Error(err)
	}
	e2e.Seen(t, "operators are still told", told)

	// What operators are told to do helps.
	again := e2e.Content("d/over", 3, 70_000)
	keep(t, r, "d/over", again, freshet.MustCache)
	r.CLI(t, "fs", "rm", string(r.At("d/new"))).Want(t, 0)
	e2e.Seen(t, "the file that was written again is read", e2e.Shows(r, "d/over", again))
	r.CLI(t, "persist", "--recursive", "--wait", string(r.Root)).Want(t, 0)
	e2e.Seen(t, "nothing is left to be told", drained(t, r))
	for name, want := range map[string][]byte{"d/over": again, "d/other": other} {
		if err := inStorage(dir, name, want)(t.Context()); err != nil {
			t.Error(err)
		}
	}
	notInStorage(t, dir, "d/new")
}
