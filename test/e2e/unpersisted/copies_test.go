package unpersisted_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

// block is the length of the blocks of the files of these tests.
const block = 256 << 10

// keepOn writes a file that is durable on so many nodes when it is acknowledged.
func keepOn(t *testing.T, r *e2e.Region, name string, data []byte, w freshet.WriteType, replicas int) {
	t.Helper()
	keepWith(t, r, name, data, client.WriteOptions{Write: w, BlockSize: block, DurableReplicas: replicas})
}

type copyStatus struct {
	Short, Lost int `json:",string"`
	Files       []struct {
		Path, State                   string
		Nodes                         []string
		DurableReplicas, LiveReplicas int
	}
}

// copies returns the files that are not in the storage. Who is asked may not have a
// leader at the moment.
func copies(t *testing.T, r *e2e.Region) (s copyStatus) {
	t.Helper()
	e2e.Seen(t, "the files are listed", func(context.Context) error {
		ran := r.CLI(t, "persist", "status", "-o", "json")
		if ran.Code != 0 {
			return fmt.Errorf("exit code %d: %s", ran.Code, ran.Err)
		}
		s = copyStatus{}
		ran.JSON(t, &s)
		return nil
	})
	return s
}

func nodeOf(t *testing.T, r *e2e.Region, name string) *fleet.Process {
	t.Helper()
	i := slices.IndexFunc(r.Nodes, func(p *fleet.Process) bool { return p.Name == "a-"+name })
	if i < 0 {
		t.Fatalf("no node %q", name)
	}
	return r.Nodes[i]
}

// wipe ends a node by force and removes all that it kept.
func wipe(t *testing.T, p *fleet.Process) {
	t.Helper()
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"blocks", "data"} {
		if err := os.RemoveAll(filepath.Join(filepath.Dir(p.Config), dir)); err != nil {
			t.Fatal(err)
		}
	}
}

// held returns the versions that a node promised to keep.
func held(p *fleet.Process) []os.DirEntry {
	entries, _ := os.ReadDir(filepath.Join(filepath.Dir(p.Config), "blocks", "held"))
	return entries
}

func nothingHeld(r *e2e.Region) func(context.Context) error {
	return func(context.Context) error {
		for _, p := range r.Nodes {
			if all := held(p); len(all) > 0 {
				return fmt.Errorf("%s keeps %v", p.Name, all)
			}
		}
		return nil
	}
}

// copiedAgain is nil when a third node keeps the only file, so that two live ones have it.
func copiedAgain(t *testing.T, r *e2e.Region) func(context.Context) error {
	return func(context.Context) error {
		ran := r.CLI(t, "persist", "status", "-o", "json")
		if ran.Code != 0 {
			return fmt.Errorf("exit code %d: %s", ran.Code, ran.Err)
		}
		var s copyStatus
		ran.JSON(t, &s)
		if s.Lost > 0 {
			t.Errorf("told as lost: %+v", s)
		}
		if len(s.Files) != 1 || s.Files[0].LiveReplicas != 2 || s.Files[0].DurableReplicas != 2 || len(s.Files[0].Nodes) != 3 || s.Short != 0 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	}
}

// TestTheNodeThatWroteIsLost with its disk, right after the acknowledgement: the file is
// read and persisted from the other node, and a further copy is made before that.
func TestTheNodeThatWroteIsLost(t *testing.T) {
	w, dir := world(t, e2e.Options{Lone: true, Nodes: 3})
	r := w.A
	r.CLI(t, "policy", "set", string(r.Root), "--durable-replicas", "2").Want(t, 0, "durable_replicas")
	kept, soon := e2e.Content("d/kept", 1, 3*block+1000), e2e.Content("d/soon", 1, 2*block+1)
	keepOn(t, r, "d/kept", kept, freshet.MustCache, 0)
	s := copies(t, r)
	if len(s.Files) != 1 || len(s.Files[0].Nodes) != 2 || s.Files[0].DurableReplicas != 2 {
		t.Fatalf("after the acknowledgement: %+v", s)
	}
	lost := nodeOf(t, r, s.Files[0].Nodes[0])
	wipe(t, lost)
	e2e.Seen(t, "the file is read from the other node", e2e.Shows(r, "d/kept", kept))
	e2e.Seen(t, "a further copy is made", copiedAgain(t, r))
	r.CLI(t, "explain", string(r.At("d/kept"))).Want(t, 0, "2 live nodes have all of it, of the 2")

	keepOn(t, r, "d/soon", soon, freshet.AsyncThrough, 2)
	leader, err := r.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := leader.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := r.AwaitLeader(t.Context(), leader); err != nil {
		t.Fatal(err)
	}
	// Three nodes are too few for four copies, and two for three.
	e2e.Seen(t, "a write for which there are too few nodes is refused", func(context.Context) error {
		ran := r.CLI(t, "fs", "cp", "--write-type", "must_cache", "--durable-replicas", "3", "file:"+leader.Config, string(r.At("few")))
		if ran.Code != freshet.ExitUnavailable || !strings.Contains(ran.Err, "asks for 3 cache nodes with a cache tier on a disk, and 2 live") {
			return fmt.Errorf("exit code %d: %s", ran.Code, ran.Err) // there may be no leader at the moment
		}
		if ran = r.CLI(t, "fs", "stat", string(r.At("few"))); ran.Code != freshet.ExitNotFound {
			return fmt.Errorf("the file is there, or nobody knows: exit code %d: %s", ran.Code, ran.Err)
		}
		return nil
	})
	for _, p := range []*fleet.Process{lost, leader} {
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
	}
	e2e.Seen(t, "the other file gets to the storage by itself", inStorage(dir, "d/soon", soon))
	e2e.Seen(t, "everything is persisted", func(context.Context) error { // who is asked may be starting
		if ran := r.CLI(t, "persist", "--recursive", "--wait", string(r.Root)); ran.Code != 0 {
			return fmt.Errorf("exit code %d: %s", ran.Code, ran.Err)
		}
		return nil
	})
	if err := inStorage(dir, "d/kept", kept)(t.Context()); err != nil {
		t.Error(err)
	}
	e2e.Seen(t, "all nodes let the blocks go", nothingHeld(r))
}

// TestAcknowledgedOnTwoNodes: what is acknowledged of a stream of files gets to the
// storage, although the node that took each last one is lost with its disk.
func TestAcknowledgedOnTwoNodes(t *testing.T) {
	w, dir := world(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 3})
	r := w.A
	wants := map[string][]byte{}
	for i := range 3 {
		var node *fleet.Process
		for j := range 4 {
			name := fmt.Sprintf("f%d-%d", i, j)
			wants[name] = e2e.Content(name, 1, block+1000*j)
			try := byte(0)
			// As long as the lost node counts as live a write may fail, and says so.
			e2e.Seen(t, name+" is acknowledged", func(ctx context.Context) error {
				try++
				a, err := r.S.Files.BeginWrite(ctx, freshet.BeginWriteQuery{
					Op: freshet.OpID{7, byte(i), byte(j), try}, Path: r.At(name), Write: freshet.AsyncThrough, BlockSize: block, DurableReplicas: 2,
				})
				if err != nil {
					return err
				}
				node = nodeOf(t, r, a.Ticket.Node.Name)
				_, err = r.S.Files.Write(ctx, r.At(name), bytes.NewReader(wants[name]), client.WriteOptions{
					Op: a.Ticket.Op, Length: int64(len(wants[name])), Write: freshet.AsyncThrough, BlockSize: block, DurableReplicas: 2,
				})
				return err
			})
		}
		wipe(t, node)
		e2e.Seen(t, "everything gets to the storage", drained(t, r))
		if err := node.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range wants {
		if err := inStorage(dir, name, want)(t.Context()); err != nil {
			t.Error(err)
		}
	}
	e2e.Seen(t, "all nodes let the blocks go", nothingHeld(r))
}

// TestANodeIsLostInTheMiddleOfAWrite: if it is one of the copies, another node takes its
// place; if it is the writer's, nothing is written, and the other lets its blocks go.
func TestANodeIsLostInTheMiddleOfAWrite(t *testing.T) {
	w, _ := world(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 3})
	r := w.A
	for _, writer := range []bool{false, true} {
		name := fmt.Sprintf("f-%t", writer)
		data := e2e.Content(name, 1, 6*block)
		q := freshet.BeginWriteQuery{
			Op: freshet.OpID{9, 1, byte(len(name))}, Path: r.At(name), Write: freshet.MustCache, BlockSize: block, DurableReplicas: 2,
		}
		a, err := r.S.Files.BeginWrite(t.Context(), q)
		if err != nil || len(a.Ticket.Keepers) != 2 {
			t.Fatalf("%+v, %v", a, err)
		}
		victim, other := nodeOf(t, r, a.Ticket.Keepers[0].Name), nodeOf(t, r, a.Ticket.Node.Name)
		if writer {
			victim, other = other, victim
		}
		body, in := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			_, err := r.S.Files.Write(t.Context(), q.Path, body, client.WriteOptions{
				Op: q.Op, Length: int64(len(data)), Write: q.Write, BlockSize: block, DurableReplicas: 2,
			})
			_ = body.CloseWithError(io.ErrClosedPipe)
			ended <- err
		}()
		if _, err := in.Write(data[:4*block]); err != nil {
			t.Fatal(err)
		}
		e2e.Seen(t, "the copy begins while the file is written", func(context.Context) error {
			if len(held(victim)) == 0 || len(held(other)) == 0 {
				return fmt.Errorf("%v and %v are kept", held(victim), held(other))
			}
			return nil
		})
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		_, _ = in.Write(data[4*block:]) // nobody takes it if the writer's node is gone
		_ = in.Close()
		err = <-ended
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
		if writer {
			if err == nil {
				t.Fatal("the write succeeded without its node")
			}
			r.CLI(t, "fs", "stat", string(q.Path)).Want(t, freshet.ExitNotFound)
			e2e.Seen(t, "the blocks are let go", nothingHeld(r))
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if s := copies(t, r); len(s.Files) != 1 || !slices.Equal(s.Files[0].Nodes, []string{a.Ticket.Node.Name, a.Ticket.Keepers[1].Name}) {
			t.Errorf("kept by %+v, the ticket named %+v", s, a.Ticket.Keepers)
		}
		e2e.Seen(t, "the file is read", e2e.Shows(r, name, data))
		r.CLI(t, "fs", "rm", string(q.Path)).Want(t, 0)
		e2e.Seen(t, "the blocks of what was removed are let go", nothingHeld(r))
	}
}
