package local_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/store"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/fingerprint"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc/local"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const size = 3*tier.ChunkSize + 12345

func version(n int) fingerprint.Fingerprint { return fingerprint.S3(fmt.Sprintf("etag-%d", n), 1<<40) }

func content(id freshet.BlockID) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(id.File), byte(id.Index), 3}).Read(b)
	return b
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a node with its blocks, its socket and a client.
type world struct {
	t      testing.TB
	dir    string
	blocks *store.Store
	socket string
	node   freshet.Node
	stop   func()

	inspected atomic.Int64
	streamed  atomic.Int64
	streams   error // of the next ones
}

func newWorld(t testing.TB, kind tier.Kind, users ...uint32) *world {
	t.Helper()
	return newWorldOf(t, kind, func(w *world) local.Lender { return w }, users...)
}

// newWorldOf starts a world whose socket serves what node returns.
func newWorldOf(t testing.TB, kind tier.Kind, node func(*world) local.Lender, users ...uint32) *world {
	t.Helper()
	run, err := os.MkdirTemp("", "fl-") //nolint:usetesting // a socket's path must be short
	check(t, err)
	w := &world{t: t, dir: t.TempDir(), socket: filepath.Join(run, "s"), node: freshet.Node{ID: "n", Incarnation: 3}}
	w.node.Socket = w.socket
	spec := store.InMemory(8 * size)
	if kind == tier.Disk {
		spec = store.OnDisk(w.dir, 8*size)
	}
	w.blocks, err = store.Open([]store.Tier{spec}, store.Options{})
	check(t, err)
	l, err := net.ListenUnix(local.Network, &net.UnixAddr{Name: w.socket, Net: local.Network})
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	srv := local.NewServer(node(w), local.ServerOptions{Node: "n", Incarnation: 3, Users: users})
	go func() { ended <- srv.Serve(ctx, l) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { w.stop(); _ = w.blocks.Close(); _ = os.RemoveAll(run) })
	return w
}

func (w *world) pool(opts local.Options) *local.Pool {
	p := local.New(w, opts)
	w.t.Cleanup(func() { _ = p.Close() })
	return p
}

func block(file int) freshet.BlockID { return freshet.BlockID{File: freshet.FileID(file)} }

func (w *world) put(id freshet.BlockID) {
	w.t.Helper()
	wr, err := w.blocks.Create(id, size)
	check(w.t, err)
	defer wr.Close()
	_, err = wr.Write(content(id))
	check(w.t, err)
	check(w.t, wr.Commit(tier.Meta{Cluster: uuid.UUID{1}, Epoch: 1, Fingerprint: version(1)}))
}

func read(id freshet.BlockID, off, n int64) freshet.BlockRead {
	return freshet.BlockRead{
		Block: freshet.Block{ID: id, Length: size}, Source: freshet.Source{Mount: 1, Key: "k", Fingerprint: version(1)}, Offset: off, Length: n,
	}
}

func (w *world) open(req freshet.BlockRead) (*tier.Reader, error) {
	return w.blocks.Open(req.Block.ID, tier.Want{Cluster: uuid.UUID{1}, Epoch: 1, Fingerprint: req.Source.Fingerprint, Length: req.Block.Length})
}

// Lend, Inspect and the methods below make the world the node itself, and the way to
// it over the network.
func (w *world) Lend(_ context.Context, req freshet.BlockRead) (local.Loan, error) {
	r, err := w.open(req)
	if err != nil {
		return nil, err
	}
	l, err := r.Lend()
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	return l, nil
}

func (w *world) Inspect(freshet.BlockRead, int64) { w.inspected.Add(1) }

func (w *world) ReadBlock(_ context.Context, _ freshet.Node, q freshet.BlockRead) (freshet.BlockStream, error) {
	w.streamed.Add(1)
	if w.streams != nil {
		return nil, w.streams
	}
	return body{bytes.NewReader(content(q.Block.ID)[q.Offset : q.Offset+q.Length])}, nil
}

func (w *world) ReadAhead(context.Context, freshet.Node, freshet.BlockRead) error { return nil }

func (w *world) WriteFile(context.Context, freshet.Ticket, io.Reader, int64) (freshet.Completed, error) {
	return freshet.Completed{}, errors.New("not here")
}

// readAt fills b from the place that q names.
func (w *world) readAt(p *local.Pool, n freshet.Node, q freshet.BlockRead, b []byte) bool {
	return p.ReadBlockAt(w.t.Context(), &n, &q.Block, &q.Source, b, q.Offset)
}

type body struct{ *bytes.Reader }

func (b body) Close() error           { return nil }
func (b body) Length() int64          { return b.Size() }
func (b body) Origin() freshet.Origin { return freshet.OriginUFS }

func onBoth(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	if !local.Supported {
		t.Skip("this system has no local reads")
	}
	for _, kind := range []tier.Kind{tier.Memory, tier.Disk} {
		t.Run(string(kind), func(t *testing.T) { f(t, newWorld(t, kind)) })
	}
}

// wantBytes reads a range in both ways and compares it.
func (w *world) wantBytes(p *local.Pool, id freshet.BlockID, off, n int64) {
	w.t.Helper()
	want := content(id)[off : off+n]
	s, err := p.ReadBlock(w.t.Context(), w.node, read(id, off, n))
	check(w.t, err)
	got, err := io.ReadAll(s)
	check(w.t, err)
	check(w.t, s.Close())
	if !bytes.Equal(got, want) {
		w.t.Fatalf("%d bytes from %d are wrong", n, off)
	}
	b := make([]byte, n)
	if w.readAt(p, w.node, read(id, off, 0), b) && !bytes.Equal(b, want) {
		w.t.Fatalf("%d bytes at %d are wrong", n, off)
	}
}

func (w *world) wantStreams(n int64) {
	w.t.Helper()
	if got := w.streamed.Load(); got != n {
		w.t.Fatalf("%d streams, not %d", got, n)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); ; {
		select {
		case <-tick.C:
			if ok() {
				return
			}
		case <-end:
			t.Fatal("never: " + what)
		}
	}
}

func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(list)
}

func TestBlocksAreReadByTheirDescriptors(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.put(block(1))
		p := w.pool(local.Options{})
		for _, r := range [][2]int64{{0, size}, {0, 1}, {size - 1, 1}, {tier.ChunkSize - 1, 2}, {5, 2 * tier.ChunkSize}, {3 * tier.ChunkSize, 12345}, {7, 0}} {
			w.wantBytes(p, block(1), r[0], r[1])
		}
		w.wantStreams(0)
		if s := p.Stats(); s.Descriptors != 1 || s.Local == 0 {
			t.Errorf("%+v", s)
		}
		if w.readAt(p, w.node, read(block(1), size-1, 0), make([]byte, 2)) {
			t.Error("read beyond the block")
		}
	})
}

func TestWhatCannotBeLentIsStreamed(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.put(block(1))
		other := read(block(1), 0, 10)
		other.Source.Fingerprint = version(2)
		for name, tc := range map[string]struct {
			opts   local.Options
			change func(n *freshet.Node)
			req    freshet.BlockRead
		}{
			"switched off":         {opts: local.Options{Off: true}},
			"no socket":            {change: func(n *freshet.Node) { n.Socket = "" }},
			"nothing there":        {change: func(n *freshet.Node) { n.Socket += "x" }},
			"no socket there":      {change: func(n *freshet.Node) { n.Socket = os.DevNull }},
			"directory elsewhere":  {opts: local.Options{Dir: "/nowhere"}},
			"another node":         {change: func(n *freshet.Node) { n.ID = "m" }},
			"another start of it":  {change: func(n *freshet.Node) { n.Incarnation++ }},
			"unknown start of it":  {change: func(n *freshet.Node) { n.Incarnation = 0 }},
			"block that is absent": {req: read(block(2), 0, 10)},
			"another version":      {req: other},
		} {
			w.streamed.Store(0)
			p, n := w.pool(tc.opts), w.node
			if tc.change != nil {
				tc.change(&n)
			}
			q := tc.req
			if q.Length == 0 {
				q = read(block(1), 0, 10)
			}
			s, err := p.ReadBlock(t.Context(), n, q)
			if err != nil || s.Origin() != freshet.OriginUFS || w.streamed.Load() != 1 {
				t.Errorf("%s: %v, %d streams", name, err, w.streamed.Load())
			}
			if w.readAt(p, n, q, make([]byte, 10)) {
				t.Errorf("%s: read by a descriptor", name)
			}
			_ = p.Close()
			if name == "another version" { // such a block is dropped
				w.put(block(1))
			}
		}
	})
}

func TestOnlySocketUsersMayBorrow(t *testing.T) {
	if !local.Supported {
		t.Skip("this system has no local reads")
	}
	self := uint32(os.Getuid())
	for _, tc := range []struct {
		users   []uint32
		streams int64
	}{{[]uint32{self + 1}, 1}, {[]uint32{self + 1, self}, 0}} {
		w := newWorld(t, tier.Disk, tc.users...)
		w.put(block(1))
		w.wantBytes(w.pool(local.Options{}), block(1), 0, size)
		w.wantStreams(tc.streams)
	}
}

func TestTheSocketMayBeElsewhere(t *testing.T) {
	onBoth(t, func(_ *testing.T, w *world) {
		w.put(block(1))
		dir := filepath.Dir(w.socket)
		w.node.Socket = "/run/of/the/host/s"
		w.wantBytes(w.pool(local.Options{Dir: dir}), block(1), 0, size)
		w.wantStreams(0)
	})
}

func TestABlockThatLeavesIsReadOn(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.put(block(1))
		p := w.pool(local.Options{})
		s, err := p.ReadBlock(t.Context(), w.node, read(block(1), 0, size))
		check(t, err)
		got := make([]byte, 1000)
		_, err = io.ReadFull(s, got)
		check(t, err)
		used := w.blocks.Used()
		w.blocks.Remove(block(1))
		if w.blocks.Used() != used {
			t.Error("the space of a lent block was given away")
		}
		rest, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(slices.Concat(got, rest), content(block(1))) {
			t.Errorf("wrong bytes, %v", err)
		}
		w.wantStreams(0)
		check(t, p.Close())
		eventually(t, "the space is free", func() bool { return w.blocks.Used() == 0 })
	})
}

func TestANodeThatDiesLeavesTheDescriptors(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.put(block(1))
		p := w.pool(local.Options{})
		s, err := p.ReadBlock(t.Context(), w.node, read(block(1), 0, size))
		check(t, err)
		got := make([]byte, 1000)
		_, err = io.ReadFull(s, got)
		check(t, err)
		w.stop()
		w.streams = errors.New("the node is dead")
		rest, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(slices.Concat(got, rest), content(block(1))) {
			t.Errorf("wrong bytes, %v", err)
		}
		w.wantStreams(0)
	})
}

// TestDamageIsNeverRead damages a block on the disk while it is open: what was read
// before does not count.
// TestAnAnswerOfBeforeEndsNoConnection: readers that know a node by an earlier life ask
// beside those that know it by its own. Its connection stays, and Close ends it.
func TestAnAnswerOfBeforeEndsNoConnection(t *testing.T) {
	if !local.Supported {
		t.Skip("this system has no local reads")
	}
	w := newWorld(t, tier.Memory)
	p := local.New(w, local.Options{})
	before := w.node
	before.Incarnation--
	for range 3 {
		if !p.Near(t.Context(), w.node) {
			t.Error("the node is not reached")
		}
		if p.Near(t.Context(), before) {
			t.Error("a life that has ended is reached")
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- p.Close() }()
	select {
	case err := <-ended:
		check(t, err)
	case <-time.After(time.Minute):
		t.Fatal("Close waits for a connection that it does not know")
	}
}

func TestDamageIsNeverRead(t *testing.T) {
	if !local.Supported {
		t.Skip("this system has no local reads")
	}
	for name, harm := range map[string]func(f *os.File) error{
		"flip":     func(f *os.File) error { _, err := f.WriteAt([]byte{1}, 4096+100); return err },
		"zero":     func(f *os.File) error { _, err := f.WriteAt(make([]byte, 9000), 4096); return err },
		"truncate": func(f *os.File) error { return f.Truncate(4096 + 50) },
		"empty":    func(f *os.File) error { return f.Truncate(0) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tier.Disk)
			w.put(block(1))
			p := w.pool(local.Options{})
			w.wantBytes(p, block(1), 0, size)
			files, err := filepath.Glob(filepath.Join(w.dir, "blocks", "*", "*"))
			if err != nil || len(files) != 1 {
				t.Fatal(files, err)
			}
			f, err := os.OpenFile(files[0], os.O_RDWR, 0)
			check(t, err)
			check(t, harm(f))
			check(t, f.Close())
			w.wantBytes(p, block(1), 0, 5000)
			w.wantBytes(p, block(1), 0, size)
			if w.streamed.Load() == 0 {
				t.Error("the damaged block was read")
			}
			if name == "flip" {
				eventually(t, "the node was told", func() bool { return w.inspected.Load() > 0 })
			}
		})
	}
}

// TestLentBytesAreBounded asks for more than the cache can lend: what was lent first
// is given back.
func TestLentBytesAreBounded(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		p := w.pool(local.Options{})
		for i := 1; i <= 7; i++ {
			w.put(block(i))
		}
		for i := 1; i <= 7; i++ {
			eventually(t, "block "+fmt.Sprint(i)+" is lent", func() bool {
				w.wantBytes(p, block(i), 0, size)
				return w.readAt(p, w.node, read(block(i), 0, 0), make([]byte, 10))
			})
			if n := p.Stats().Descriptors; n > 4 {
				t.Errorf("%d of 8 blocks are lent", n)
			}
		}
	})
}

func TestDescriptorsDoNotLeak(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		for i := 1; i <= 4; i++ {
			w.put(block(i))
		}
		p := w.pool(local.Options{Descriptors: 1})
		w.wantBytes(p, block(1), 0, size)
		before := 0
		for round := range 20 {
			for i := 1; i <= 4; i++ {
				w.wantBytes(p, block(i), int64(round), 1000)
			}
			if round == 0 { // blocks in memory have their files now
				before = descriptors(t)
			}
		}
		eventually(t, "no more descriptors than before", func() bool { return descriptors(t) <= before+1 })
		if n := p.Stats().Descriptors; n > 1 {
			t.Errorf("%d are kept open", n)
		}
	})
}

func TestIdleDescriptorsAreClosed(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.put(block(1))
		p := w.pool(local.Options{Idle: 20 * time.Millisecond})
		w.wantBytes(p, block(1), 0, size)
		eventually(t, "it is closed", func() bool { return p.Stats().Descriptors == 0 })
		w.wantBytes(p, block(1), 0, size)
	})
}

func TestManyReadAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		for i := 1; i <= 5; i++ {
			w.put(block(i))
		}
		p := w.pool(local.Options{Descriptors: 2})
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				dice := rand.New(rand.NewPCG(1, uint64(g))) //nolint:gosec // a test
				for range 100 {
					id := block(1 + dice.IntN(5))
					off := dice.Int64N(size - 5000)
					b := make([]byte, 5000)
					if w.readAt(p, w.node, read(id, off, 0), b) && !bytes.Equal(b, content(id)[off:off+5000]) {
						t.Error("wrong bytes")
					}
				}
			})
		}
		wg.Wait()
		if p.Stats().Local == 0 {
			t.Error("nothing was read by a descriptor")
		}
	})
}

// TestStrangersAreCutOff sends what no client sends.
func TestStrangersAreCutOff(t *testing.T) {
	if !local.Supported {
		t.Skip("this system has no local reads")
	}
	w := newWorld(t, tier.Disk)
	w.put(block(1))
	hello, err := proto.Marshal(&freshetv1.LocalRequest{What: &freshetv1.LocalRequest_Hello{Hello: &freshetv1.LocalHello{Version: 1}}})
	check(t, err)
	bad, err := proto.Marshal(&freshetv1.LocalRequest{Id: 1, What: &freshetv1.LocalRequest_Open{Open: &freshetv1.ReadBlockRequest{Offset: -1}}})
	check(t, err)
	for name, messages := range map[string][][]byte{
		"rubbish":         {[]byte("GET / HTTP/1.1")},
		"no hello":        {bad},
		"rubbish later":   {hello, {0xff, 0xff}},
		"second hello":    {hello, hello},
		"impossible read": {hello, bad},
		"nothing":         {hello, {}},
	} {
		c, err := net.DialUnix(local.Network, nil, &net.UnixAddr{Name: w.socket, Net: local.Network})
		check(t, err)
		for _, m := range messages {
			if _, err := c.Write(m); err != nil && !strings.Contains(err.Error(), "pipe") {
				t.Errorf("%s: %v", name, err)
			}
		}
		check(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
		b := make([]byte, 1<<16)
		for err == nil {
			_, err = c.Read(b)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection stays", name)
		}
		_ = c.Close()
	}
	w.wantBytes(w.pool(local.Options{}), block(1), 0, size)
	w.wantStreams(0)
}

func FuzzAnswer(f *testing.F) {
	for _, m := range []*freshetv1.LocalAnswer{
		{What: &freshetv1.LocalAnswer_Welcome{Welcome: &freshetv1.LocalWelcome{NodeId: "n", Incarnation: 1}}},
		{Id: 3, What: &freshetv1.LocalAnswer_Loan{Loan: &freshetv1.LocalLoan{Loan: 1, Length: 5, ChunkSize: 4, Sums: make([]byte, 16), Verified: make([]byte, 8)}}},
		{Id: 3, What: &freshetv1.LocalAnswer_Refusal{Refusal: &freshetv1.LocalRefusal{Kind: "not_found"}}},
		{What: &freshetv1.LocalAnswer_Recall{Recall: &freshetv1.LocalRecall{Loans: []uint64{1}}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = local.DecodeRequest(b) //nolint:errcheck // that it does not panic is all
		isLoan, chunks, length, size, err := local.DecodeAnswer(b)
		if err == nil && isLoan && (length <= 0 || size <= 0 || int64(chunks) != (length+size-1)/size) {
			t.Errorf("%d chunks of %d for %d bytes", chunks, size, length)
		}
	})
}
