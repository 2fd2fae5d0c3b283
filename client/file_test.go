package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
)

// guarded is a world for several callers at once, of which node "b" is near.
type guarded struct {
	*world

	mu    sync.Mutex
	near  bool
	local int
	ahead []string
}

func (g *guarded) Locate(ctx context.Context, q freshet.LocateQuery) (freshet.Location, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	loc, err := g.world.Locate(ctx, q)
	for i := range loc.Blocks {
		for j := range loc.Blocks[i].Nodes {
			if g.near && loc.Blocks[i].Nodes[j].ID == "b" {
				loc.Blocks[i].Nodes[j].Socket = "/s"
			}
		}
	}
	return loc, err
}

func (g *guarded) ReadBlock(ctx context.Context, n freshet.Node, q freshet.BlockRead) (freshet.BlockStream, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.world.ReadBlock(ctx, n, q)
}

func (g *guarded) Near(_ context.Context, n freshet.Node) bool { return n.Socket != "" }

func (g *guarded) ReadBlockAt(_ context.Context, n *freshet.Node, b *freshet.Block, src *freshet.Source, into []byte, off int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n.Socket == "" || off < 0 || off+int64(len(into)) > b.Length {
		return false
	}
	v := 1
	for !src.Fingerprint.SameContent(version(v)) {
		v++
	}
	copy(into, bytesOf(v, b.Offset+off, int64(len(into))))
	g.local++
	return true
}

func (g *guarded) ReadAhead(_ context.Context, n freshet.Node, q freshet.BlockRead) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ahead = append(g.ahead, string(n.ID)+":"+string(rune('0'+q.Block.ID.Index)))
	return nil
}

func openFile(t *testing.T, w client.Nodes) *client.File {
	t.Helper()
	ns, ok := w.(interface {
		client.Nodes
		Locate(ctx context.Context, q freshet.LocateQuery) (freshet.Location, error)
	})
	if !ok {
		t.Fatal("no coordinator")
	}
	f, err := client.New(&locator{ns: ns}, w, client.Options{}).OpenFile(t.Context(), "/f", client.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestQuestionsSayWhereTheCallerIs, whichever way the file is read.
func TestQuestionsSayWhereTheCallerIs(t *testing.T) {
	w := newWorld(blockSize)
	c := client.New(&locator{ns: w}, w, client.Options{Host: "h", Rack: "r", Zone: "z"})
	if _, err := c.OpenFile(t.Context(), "/f", client.ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := c.Open(t.Context(), "/f", client.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	for i, q := range w.locates {
		if q.Host != "h" || q.Rack != "r" || q.Zone != "z" {
			t.Errorf("question %d: host %q, rack %q, zone %q", i, q.Host, q.Rack, q.Zone)
		}
	}
	if len(w.locates) != 2 {
		t.Errorf("%d questions", len(w.locates))
	}
}

// locator is a coordinator that can only locate.
type locator struct {
	world
	ns interface {
		Locate(ctx context.Context, q freshet.LocateQuery) (freshet.Location, error)
	}
}

func (l *locator) Locate(ctx context.Context, q freshet.LocateQuery) (freshet.Location, error) {
	return l.ns.Locate(ctx, q)
}

func TestFilesAreReadAtAnyPlace(t *testing.T) {
	const size = 3*blockSize + 77
	for _, near := range []bool{false, true} {
		g := &guarded{world: newWorld(size), near: near}
		f := openFile(t, g)
		for _, r := range [][2]int64{{0, 1}, {0, size}, {999, 2}, {size - 1, 1}, {size - 1, 2}, {size, 1}, {size + 9, 3}, {5, 0}} {
			b := make([]byte, r[1])
			n, err := f.ReadAt(b, r[0])
			want := max(0, min(r[1], size-r[0]))
			if int64(n) != want || errors.Is(err, io.EOF) != (want < r[1]) || err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(b[:n], bytesOf(1, r[0], want)) {
				t.Errorf("near %v: %d bytes from %d: %d, %v", near, r[1], r[0], n, err)
			}
		}
		if _, err := f.ReadAt(nil, -1); !freshet.IsKind(err, freshet.KindInvalid) {
			t.Errorf("negative offset: %v", err)
		}
		if len(g.locates) != 1 || near != (g.local > 0) || near != (len(g.reads) == 0) {
			t.Errorf("near %v: %d questions, %d streams, %d local reads", near, len(g.locates), len(g.reads), g.local)
		}
	}
}

func TestManyReadOneFileAtOnce(t *testing.T) {
	const size = 20*blockSize + 77
	for _, near := range []bool{false, true} {
		f := openFile(t, &guarded{world: newWorld(size), near: near})
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				dice := rand.New(rand.NewPCG(2, uint64(g)))
				for range 50 {
					off := dice.Int64N(size - 2500)
					b := make([]byte, 2500)
					if n, err := f.ReadAt(b, off); err != nil || n != len(b) || !bytes.Equal(b, bytesOf(1, off, 2500)) {
						t.Errorf("%d, %v", n, err)
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestRangesOfOneBlockAreAskedForTogether(t *testing.T) {
	const size = 200*blockSize + 5
	for _, near := range []bool{false, true} {
		g := &guarded{world: newWorld(size), near: near}
		f := openFile(t, g)
		ranges := []client.Range{
			{Offset: 150_000, Into: make([]byte, 20)}, {Offset: 10, Into: make([]byte, 20)}, {Offset: 900, Into: make([]byte, 300)}, // over a border
			{Offset: 100, Into: make([]byte, 1)}, {Offset: 15, Into: make([]byte, 20)}, {Offset: size - 1, Into: make([]byte, 1)}, {Offset: 7},
		}
		if err := f.ReadRanges(t.Context(), ranges); err != nil {
			t.Fatal(err)
		}
		for _, r := range ranges {
			if !bytes.Equal(r.Into, bytesOf(1, r.Offset, int64(len(r.Into)))) {
				t.Errorf("wrong bytes at %d", r.Offset)
			}
		}
		// The overlap takes a request of its own.
		if near && len(g.reads) != 0 || !near && len(g.reads) > 6 {
			t.Errorf("read %s", strings.Join(g.reads, " "))
		}
		for _, bad := range []client.Range{{Offset: -1, Into: make([]byte, 1)}, {Offset: size, Into: make([]byte, 1)}, {Offset: 1 << 62, Into: make([]byte, 1)}} {
			if err := f.ReadRanges(t.Context(), []client.Range{bad}); !freshet.IsKind(err, freshet.KindInvalid) {
				t.Errorf("%d: %v", bad.Offset, err)
			}
		}
	}
}

func TestAFileIsOfOneVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(2500)
		f := openFile(t, &guarded{world: w})
		w.version = 2 // before the first byte
		b := make([]byte, 2500)
		if _, err := f.ReadAt(b, 0); err != nil || !bytes.Equal(b, bytesOf(2, 0, 2500)) {
			t.Fatalf("an overwrite before the first byte: %v", err)
		}
		w.version = 3
		if n, err := f.ReadAt(b, 0); n != 0 || !freshet.IsKind(err, freshet.KindStale) {
			t.Errorf("after it: %d, %v", n, err)
		}
		if err := f.ReadRanges(t.Context(), []client.Range{{Into: b}}); !freshet.IsKind(err, freshet.KindStale) {
			t.Errorf("after it: %v", err)
		}
		g := openFile(t, &guarded{world: w})
		if g.Info().Length != 2500 {
			t.Error("wrong length")
		}
		w.version = 4
		if _, err := g.ReadAt(b, 0); !freshet.IsKind(err, freshet.KindStale) {
			t.Errorf("after Info: %v", err)
		}
	})
}

func TestAFileThatBecomesShorterIsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(2500)
		w.strict = true
		f := openFile(t, &guarded{world: w})
		b := make([]byte, 500)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		w.read = func(freshet.Node, freshet.BlockRead, io.Reader) (io.Reader, error) {
			w.version, w.length = 2, 100
			return nil, freshet.Errorf(freshet.KindUnavailable, "read block", "", "the node is gone")
		}
		if _, err := f.ReadAt(b, 2000); !freshet.IsKind(err, freshet.KindStale) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAVectoredReadIsOfOneVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(5000)
		g := &guarded{world: w}
		f := openFile(t, g)
		w.read = func(_ freshet.Node, q freshet.BlockRead, good io.Reader) (io.Reader, error) {
			if q.Block.Offset == 2000 && q.Block.ID.File == 1 {
				w.version = 2 // while blocks of version 1 are read
				return nil, freshet.Errorf(freshet.KindStale, "read block", "", "overwritten")
			}
			return good, nil
		}
		b := make([]byte, 5000)
		if err := f.ReadRanges(t.Context(), []client.Range{{Into: b}}); err != nil || !bytes.Equal(b, bytesOf(2, 0, 5000)) {
			t.Errorf("mixed, or %v", err)
		}
	})
}

func TestAFileIsReadFromAnotherNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(2500)
		down := freshet.Errorf(freshet.KindUnavailable, "read block", "", "connection refused")
		tries := 0
		w.read = func(n freshet.Node, q freshet.BlockRead, good io.Reader) (io.Reader, error) {
			tries++
			switch {
			case tries <= 4, n.ID == "a":
				return nil, down
			case n.ID == "b":
				return io.MultiReader(io.LimitReader(good, q.Length/2), failing{down}), nil
			}
			return good, nil
		}
		b := make([]byte, 2500)
		if _, err := openFile(t, w).ReadAt(b, 0); err != nil || !bytes.Equal(b, bytesOf(1, 0, 2500)) {
			t.Errorf("%v", err)
		}
		// What was kept of the first answer may not be the second one.
		if len(w.locates) != 2 || w.locates[0].Again || !w.locates[1].Again {
			t.Errorf("questions: %+v", w.locates)
		}
		w.read = func(freshet.Node, freshet.BlockRead, io.Reader) (io.Reader, error) { return nil, down }
		if _, err := openFile(t, w).ReadAt(b, 0); !freshet.IsKind(err, freshet.KindUnavailable) {
			t.Errorf("nobody is there: %v", err)
		}
	})
}

// TestANearNodeIsAskedFirst gives a reader nodes of which the second is on its host.
func TestANearNodeIsAskedFirst(t *testing.T) {
	g := &guarded{world: newWorld(blockSize), near: true}
	r, err := client.New(&locator{ns: g}, g, client.Options{}).Open(t.Context(), "/f", client.Whole())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, struct{ io.Reader }{r}); err != nil || !slices.Equal(g.reads, []string{"b:0+1000"}) {
		t.Errorf("%v, %v", g.reads, err)
	}
	_ = r.Close()
}

// cold is a coordinator whose file of nine large blocks is held by nobody.
type cold struct {
	locator
	length int64
}

const coldBlock = 8 << 20

func (c *cold) Locate(context.Context, freshet.LocateQuery) (freshet.Location, error) {
	loc := freshet.Location{Info: freshet.Info{Length: c.length, Fingerprint: version(1)}, Source: freshet.Source{Fingerprint: version(1)}}
	for off := int64(0); off < c.length; off += coldBlock {
		loc.Blocks = append(loc.Blocks, freshet.Block{
			ID: freshet.BlockID{File: 1, Index: uint32(off / coldBlock)}, Offset: off, Length: min(coldBlock, c.length-off), Fetch: freshet.Node{ID: "c"},
		})
	}
	return loc, nil
}

func TestColdBlocksAreAskedForAhead(t *testing.T) {
	for _, tc := range []struct {
		name string
		opts client.Options
		read client.ReadOptions
		n    int64 // bytes that are read
		want string
	}{
		{"a whole file", client.Options{}, client.Whole(), 5 * coldBlock, "c:1 c:2 c:3 c:4"},
		{"one block ahead", client.Options{ReadAhead: 1}, client.Whole(), 2 * coldBlock, "c:1 c:2"},
		{"its head", client.Options{}, client.Whole(), 1 << 20, ""},
		{"a range", client.Options{}, client.ReadOptions{Length: coldBlock + 1}, coldBlock + 1, "c:1"},
		{"switched off", client.Options{ReadAhead: -1}, client.Whole(), 5 * coldBlock, ""},
		{"no cache", client.Options{}, client.ReadOptions{Length: -1, Read: freshet.ReadNoCache}, 5 * coldBlock, ""},
	} {
		g := &guarded{world: newWorld(5 * coldBlock)}
		g.read = func(_ freshet.Node, q freshet.BlockRead, _ io.Reader) (io.Reader, error) {
			return io.LimitReader(zeros{}, q.Length), nil
		}
		r, err := client.New(&cold{length: 5 * coldBlock}, g, tc.opts).Open(t.Context(), "/f", tc.read)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, struct{ io.Reader }{r}, tc.n); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		_ = r.Close()
		g.mu.Lock()
		got := strings.Join(g.ahead, " ")
		g.mu.Unlock()
		if got != tc.want {
			t.Errorf("%s: asked for %q, want %q", tc.name, got, tc.want)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
