package local_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

// gauge returns a number of a node.
func gauge(ctx context.Context, r *e2e.Region, node int, name string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.NodeHTTP[node]+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`(?m)^` + name + ` (\d+)$`).FindSubmatch(b)
	if m == nil {
		return 0, fmt.Errorf("node %d does not tell %s", node, name)
	}
	return strconv.Atoi(string(m[1]))
}

// openBlocks returns how many files of blocks a process has open.
func openBlocks(pid int) (n int, err error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	all, err := os.ReadDir(dir)
	for _, fd := range all {
		if to, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && regexp.MustCompile(`/blocks/(tmp|blocks)/|memfd:freshet`).MatchString(to) {
			n++
		}
	}
	return n, err
}

// within fails the test if fn, which has no limit of its own, takes longer than anybody
// waits.
func within(t *testing.T, what string, fn func() error) error {
	t.Helper()
	begun, ended := time.Now(), make(chan error, 1)
	go func() { ended <- fn() }()
	select {
	case err := <-ended:
		t.Logf("%s: %v after %s", what, err, time.Since(begun).Round(time.Millisecond))
		return err
	case <-time.After(2 * e2e.Patience):
		t.Fatalf("%s does not end", what)
		return nil
	}
}

// writeAt begins a write that goes to the node.
func writeAt(t *testing.T, r *e2e.Region, name, node string, w freshet.WriteType) freshet.OpID {
	t.Helper()
	for range 100 {
		op := freshet.OpID(uuid.New())
		length := int64(12 << 20)
		a, err := r.S.Files.BeginWrite(t.Context(), freshet.BeginWriteQuery{Op: op, Path: r.At(name), Write: w, Length: &length})
		if err != nil {
			t.Fatal(err)
		}
		if a.Ticket.Node.Name == node {
			return op
		}
		if err := r.S.Files.AbortWrite(t.Context(), op); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("no write goes to %s", node)
	return freshet.OpID{}
}

// begunWrite is a write in the middle.
type begunWrite struct {
	name  string
	end   chan struct{}
	ended chan error
}

func beginHalf(t *testing.T, r *e2e.Region, s *fleet.Session, node string, w freshet.WriteType) *begunWrite {
	t.Helper()
	b := &begunWrite{name: "half-" + w.String(), end: make(chan struct{}), ended: make(chan error, 1)}
	op := writeAt(t, r, b.name, node, w)
	half, before := make(chan struct{}), s.Local.Stats().Writes
	body := &halfWay{data: random(6<<20, 4), half: func() { close(half) }, end: b.end}
	go func() {
		_, err := s.Files.Write(context.Background(), r.At(b.name), body, client.WriteOptions{Op: op, Length: 12 << 20, Write: w})
		b.ended <- err
	}()
	<-half
	if s.Local.Stats().Writes != before+1 {
		t.Fatal("the write does not go over the socket")
	}
	return b
}

// TestANodeThatStandsStill, as one that is stopped in a debugger or swapped out: what was
// borrowed is read on, all else is read and written another way after a while, and
// writes that it has taken half of end. When it runs again nothing is left of that.
func TestANodeThatStandsStill(t *testing.T) {
	w := newWorld(t, "disk", 2)
	r := w.A
	hot, other := random(4<<20, 1), random(4<<20, 2)
	cached(t, r, "hot", hot)
	s, err := r.Connect()
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			_ = s.Close() // the test has failed
		}
	}()
	f, err := s.Files.OpenFile(t.Context(), r.At("hot"), client.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	readHot := func() error {
		b := make([]byte, len(hot))
		if _, err := f.ReadAt(b, 0); err != nil || !bytes.Equal(b, hot) {
			return fmt.Errorf("wrong bytes, or %w", err)
		}
		return nil
	}
	if err := readHot(); err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(r.Nodes, func(p *fleet.Process) bool {
		n, err := gauge(t.Context(), r, slices.Index(r.Nodes, p), "freshet_local_loans")
		return err == nil && n > 0
	})
	if at < 0 {
		t.Fatal("nobody has lent the hot file")
	}
	node := r.Nodes[at]
	name := node.Name[len("a-"):]
	// The other file is cached there too, and not borrowed yet.
	op := writeAt(t, r, "other", name, freshet.CacheThrough)
	if _, err := r.S.Files.Write(t.Context(), r.At("other"), bytes.NewReader(other), client.WriteOptions{Op: op, Length: int64(len(other)), Write: freshet.CacheThrough}); err != nil {
		t.Fatal(err)
	}
	if err := r.S.AwaitCached(t.Context(), r.At("other"), int64(len(other)), e2e.Patience); err != nil {
		t.Fatal(err)
	}
	writes := []*begunWrite{beginHalf(t, r, s, name, freshet.MustCache), beginHalf(t, r, s, name, freshet.CacheThrough)}

	if err := node.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = node.Signal(syscall.SIGCONT) }() // it may be over
	streams := s.Local.Stats().Local
	if err := within(t, "what was borrowed is read", readHot); err != nil {
		t.Error(err)
	}
	if s.Local.Stats().Local == streams {
		t.Error("what was borrowed is read another way")
	}
	for _, b := range writes {
		close(b.end)
	}
	err = within(t, "what was cached there is read", func() error {
		return e2e.Shows(&e2e.Region{Cluster: r.Cluster, S: s, Root: r.Root}, "other", other)(context.Background())
	})
	if err != nil {
		t.Error(err)
	}
	for _, b := range writes {
		if err := within(t, b.name, func() error { return <-b.ended }); !freshet.IsKind(err, freshet.KindUnavailable, freshet.KindDeadline) {
			t.Errorf("%s: the client was told %v", b.name, err)
		}
	}
	fresh := e2e.Content("fresh", 1, 3<<20)
	e2e.Seen(t, "another file is written", func(ctx context.Context) error {
		_, err := s.Files.Write(ctx, r.At("fresh"), bytes.NewReader(fresh), client.WriteOptions{Length: int64(len(fresh))})
		return err
	})
	if err := within(t, "what was borrowed is read", readHot); err != nil {
		t.Error(err)
	}

	if err := node.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"hot": hot, "other": other, "fresh": fresh} {
		e2e.Seen(t, name+" is read", e2e.Shows(r, name, want))
	}
	for _, b := range writes {
		e2e.Seen(t, b.name+" is not there", func(ctx context.Context) error {
			if _, err := r.S.Files.Stat(ctx, r.At(b.name), freshet.ReadOptions{}); !freshet.IsKind(err, freshet.KindNotExist) {
				return fmt.Errorf("it is there, or cannot be asked for: %w", err)
			}
			return nil
		})
	}
	e2e.Seen(t, "the node is written to over its socket again", func(ctx context.Context) error {
		before := s.Local.Stats().Writes
		op := writeAt(t, r, "again", name, freshet.CacheThrough)
		if _, err := s.Files.Write(ctx, r.At("again"), bytes.NewReader(fresh), client.WriteOptions{Op: op, Length: 12 << 20, Write: freshet.CacheThrough}); err == nil {
			return fmt.Errorf("a file that is shorter than was said was taken")
		}
		if s.Local.Stats().Writes == before {
			return fmt.Errorf("it went over the network")
		}
		return nil
	})
	closed = true
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := r.S.Local.Close(); err != nil { // streams from now on
		t.Error(err)
	}
	dir := filepath.Dir(filepath.Dir(r.Sockets[at]))
	e2e.Seen(t, "nothing is left of it", func(ctx context.Context) error {
		for _, g := range []string{"freshet_local_loans", "freshet_local_clients"} {
			if n, err := gauge(ctx, r, at, g); err != nil || n > 0 {
				return fmt.Errorf("%s is %d, %w", g, n, err)
			}
		}
		for _, sub := range []string{"tmp", "held"} {
			if left, err := filesIn(filepath.Join(dir, "blocks", sub)); err != nil || len(left) > 0 {
				return fmt.Errorf("left: %v, %w", left, err)
			}
		}
		if n, err := openBlocks(node.PID()); err != nil || n > 0 {
			return fmt.Errorf("%d blocks are open, %w", n, err)
		}
		return nil
	})
}
