package local_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/fill"
	"github.com/freshet-io/freshet/cachenode/store"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/rpc/local"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
)

const mib = 1 << 20

// origin is a node that fetches what it does not hold, with a storage whose bytes come
// when the test lets them.
type origin struct {
	ufs.FS

	t      testing.TB
	data   *mem.Store
	blocks *store.Store
	filler *fill.Filler
	socket string
	node   freshet.Node
	stop   func() // the node dies

	opens, streamed atomic.Int64
	mu              sync.Mutex
	read            func(ctx context.Context, off int64) error // before a byte at off of a file is given
}

func newOrigin(t testing.TB, kind tier.Kind, opts fill.Options) *origin {
	t.Helper()
	run, err := os.MkdirTemp("", "fl-") //nolint:usetesting // a socket's path must be short
	check(t, err)
	o := &origin{t: t, data: mem.New(mem.Options{}), socket: filepath.Join(run, "s")}
	o.FS = o.data.FS("")
	o.node = freshet.Node{ID: "n", Incarnation: 3, Socket: o.socket}
	spec := store.InMemory(64 * mib)
	if kind == tier.Disk {
		spec = store.OnDisk(t.TempDir(), 64*mib)
	}
	o.blocks, err = store.Open([]store.Tier{spec}, store.Options{})
	check(t, err)
	o.filler = fill.New(fill.Deps{
		Blocks: o.blocks, Mounts: o, Identity: func() (freshet.ClusterID, uint64, bool) { return uuid.UUID{1}, 1, true },
		Caching: func(freshet.MountID) ufs.Caching { return ufs.Caching{} },
	}, opts)
	l, err := net.ListenUnix(local.Network, &net.UnixAddr{Name: o.socket, Net: local.Network})
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = o.filler.Run(ctx) })
	wg.Go(func() { _ = local.NewServer(o, local.ServerOptions{Node: "n", Incarnation: 3}).Serve(ctx, l) })
	o.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(func() { o.stop(); _ = o.blocks.Close(); _ = os.RemoveAll(run) })
	o.awaitRunning()
	return o
}

// awaitRunning returns when blocks are fetched, and nothing is left of the first one.
func (o *origin) awaitRunning() {
	req, _ := o.put(0, 10)
	eventually(o.t, "blocks are fetched", func() bool {
		d, _, _, err := o.filler.Draft(o.t.Context(), req)
		if err == nil {
			d.Close()
		}
		return err == nil
	})
	eventually(o.t, "the fetch has ended", func() bool { _, ok := o.blocks.Stat(block(1)); return ok })
	o.idle()
	o.opens.Store(0)
}

func onBothOrigins(t *testing.T, f func(t *testing.T, o *origin)) {
	t.Helper()
	if !local.Supported {
		t.Skip("this system has no local reads")
	}
	for _, kind := range []tier.Kind{tier.Memory, tier.Disk} {
		t.Run(string(kind), func(t *testing.T) { f(t, newOrigin(t, kind, fill.Options{Range: mib, Parallel: 2})) })
	}
}

func (o *origin) pool() *local.Pool {
	p := local.New(network{o}, local.Options{})
	o.t.Cleanup(func() { _ = p.Close() })
	return p
}

// put makes version v of the file, each word of which says where it is and of which
// version, and returns how to read it as one block.
func (o *origin) put(v byte, n int) (freshet.BlockRead, []byte) {
	o.t.Helper()
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>12) ^ byte(i) ^ v<<4
	}
	o.data.Put("f", b)
	st, err := o.FS.Stat(o.t.Context(), "f")
	check(o.t, err)
	return freshet.BlockRead{
		Block: freshet.Block{ID: block(1), Length: int64(n)}, Source: freshet.Source{Mount: 1, Key: "f", Fingerprint: st.Fingerprint}, Length: int64(n),
	}, b
}

func (o *origin) setRead(read func(ctx context.Context, off int64) error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.read = read
}

// gate stops the storage at the byte at off until it is opened.
func (o *origin) gate(off int64) (open func()) {
	c := make(chan struct{})
	o.setRead(func(ctx context.Context, at int64) error {
		if at >= off {
			select {
			case <-c:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	open = sync.OnceFunc(func() { close(c) })
	o.t.Cleanup(open)
	return open
}

func (o *origin) Get(freshet.MountID) (ufs.FS, func(), error) { return o, func() {}, nil }

func (o *origin) Open(ctx context.Context, key string, opts ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	o.opens.Add(1)
	rc, st, err := o.FS.Open(ctx, key, opts)
	if err != nil {
		return nil, st, err
	}
	return &held{rc, ctx, o, opts.Offset}, st, nil
}

type held struct {
	io.ReadCloser

	ctx context.Context //nolint:containedctx // that of the body
	o   *origin
	off int64
}

func (h *held) Read(p []byte) (int, error) {
	h.o.mu.Lock()
	read := h.o.read
	h.o.mu.Unlock()
	if read != nil {
		if err := read(h.ctx, h.off); err != nil {
			return 0, err
		}
	}
	n, err := h.ReadCloser.Read(p[:min(len(p), 64<<10)])
	h.off += int64(n)
	return n, err
}

func (o *origin) Lend(_ context.Context, req freshet.BlockRead) (local.Loan, error) {
	r, err := o.blocks.Open(req.Block.ID, tier.Want{Cluster: uuid.UUID{1}, Epoch: 1, Fingerprint: req.Source.Fingerprint, Length: req.Block.Length})
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

func (o *origin) Inspect(freshet.BlockRead, int64) {}

func (o *origin) Fetch(ctx context.Context, req freshet.BlockRead) (local.Loan, int64, error) {
	for {
		if l, err := o.Lend(ctx, req); err == nil {
			return l, 0, nil
		}
		d, have, again, err := o.filler.Draft(ctx, req)
		switch {
		case again:
			continue
		case err != nil:
			return nil, 0, err
		}
		return d, have, nil
	}
}

func (o *origin) ReadAhead(_ context.Context, req freshet.BlockRead) bool { return o.filler.Ahead(req) }

// network is the way to the same node over the network.
type network struct{ *origin }

func (o network) ReadAhead(context.Context, freshet.Node, freshet.BlockRead) error {
	return errors.New("not here")
}

func (o *origin) ReadBlock(ctx context.Context, _ freshet.Node, q freshet.BlockRead) (freshet.BlockStream, error) {
	o.streamed.Add(1)
	s, err := o.filler.Read(ctx, q)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (o *origin) WriteFile(context.Context, freshet.Ticket, io.Reader, int64) (freshet.Completed, error) {
	return freshet.Completed{}, errors.New("not here")
}

// want reads the rest of s.
func (o *origin) want(s freshet.BlockStream, data []byte) {
	o.t.Helper()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, data) {
		o.t.Errorf("%d of %d bytes, right: %v, %v", len(got), len(data), bytes.Equal(got, data[:len(got)]), err)
	}
}

// idle waits until nobody has the block.
func (o *origin) idle() {
	o.blocks.Remove(block(1))
	eventually(o.t, "all is given back", func() bool { return o.blocks.Used() == 0 })
}

func TestABlockIsReadWhileItIsFetched(t *testing.T) {
	onBothOrigins(t, func(t *testing.T, o *origin) {
		req, data := o.put(1, 5*mib+77)
		open := o.gate(2*mib + 5)
		p := o.pool()
		s, err := p.ReadBlock(t.Context(), o.node, req)
		check(t, err)
		got := make([]byte, 2*mib) // they have come, and no more
		_, err = io.ReadFull(s, got)
		if err != nil || !bytes.Equal(got, data[:2*mib]) || s.Origin() != freshet.OriginUFS || s.Length() != req.Length {
			t.Errorf("other bytes, %v", err)
		}
		open()
		var rest bytes.Buffer
		if _, err := s.WriteTo(&rest); err != nil || !bytes.Equal(rest.Bytes(), data[2*mib:]) {
			t.Errorf("%d bytes, %v", rest.Len(), err)
		}
		check(t, s.Close())
		if st := p.Stats(); st.Drafts != 1 || o.streamed.Load() != 0 || o.opens.Load() != 6 {
			t.Errorf("%+v, %d streams, %d requests", st, o.streamed.Load(), o.opens.Load())
		}
		eventually(t, "the block is cached", func() bool { _, ok := o.blocks.Stat(block(1)); return ok })
		for range 2 { // now it is lent as a whole, and verified
			s, err = p.ReadBlock(t.Context(), o.node, req)
			check(t, err)
			o.want(s, data)
			check(t, s.Close())
		}
		if st := p.Stats(); st.Drafts != 1 || st.Descriptors != 1 || s.Origin() != freshet.OriginHit {
			t.Errorf("%+v, from %v", st, s.Origin())
		}
		check(t, p.Close())
		o.idle()
	})
}

// TestOneFetchForAllLocalReaders: one request, of several clients, by the socket and
// over the network.
func TestOneFetchForAllLocalReaders(t *testing.T) {
	onBothOrigins(t, func(t *testing.T, o *origin) {
		req, data := o.put(1, mib)
		open := o.gate(100_000)
		pools := []*local.Pool{o.pool(), o.pool(), o.pool()}
		var wg, begun sync.WaitGroup
		begun.Add(100)
		for i := range 100 {
			wg.Go(func() {
				var s freshet.BlockStream
				var err error
				if i%10 == 9 {
					s, err = o.ReadBlock(t.Context(), o.node, req)
				} else {
					s, err = pools[i%3].ReadBlock(t.Context(), o.node, req)
				}
				begun.Done()
				if err != nil {
					t.Error(err)
					return
				}
				o.want(s, data)
				_ = s.Close()
			})
		}
		begun.Wait()
		open()
		wg.Wait()
		if n := o.opens.Load(); n != 1 {
			t.Errorf("%d requests", n)
		}
		for _, p := range pools {
			check(t, p.Close())
		}
		o.idle()
	})
}

// TestAFetchThatFailsInTheMiddle goes on over the network where another way may help.
func TestAFetchThatFailsInTheMiddle(t *testing.T) {
	for _, kind := range []freshet.Kind{freshet.KindUnavailable, freshet.KindStale} {
		t.Run(kind.String(), func(t *testing.T) {
			onBothOrigins(t, func(t *testing.T, o *origin) {
				req, data := o.put(1, 3*mib)
				p := o.pool()
				const at = 2*mib + 200_000
				reached := make(chan struct{})
				var failed atomic.Bool
				o.setRead(func(_ context.Context, off int64) error {
					if off < at || failed.Load() && kind == freshet.KindUnavailable {
						return nil
					}
					<-reached
					failed.Store(true)
					if kind == freshet.KindStale {
						return freshet.Errorf(kind, "read", "", "by the test")
					}
					return freshet.Errorf(freshet.KindInvalid, "read", "", "by the test") // the fetch does not try again
				})
				s, err := p.ReadBlock(t.Context(), o.node, req)
				check(t, err)
				got := make([]byte, mib)
				_, err = io.ReadFull(s, got)
				check(t, err)
				if kind == freshet.KindStale {
					o.put(2, 3*mib)
				}
				close(reached)
				rest, err := io.ReadAll(s)
				got = slices.Concat(got, rest)
				_ = s.Close()
				if kind == freshet.KindStale {
					if !freshet.IsKind(err, freshet.KindStale) || !bytes.Equal(got, data[:len(got)]) || o.streamed.Load() != 0 {
						t.Errorf("%d bytes, %v, %d streams", len(got), err, o.streamed.Load())
					}
				} else if err != nil || !bytes.Equal(got, data) || o.streamed.Load() != 1 {
					t.Errorf("%d bytes, %v, %d streams", len(got), err, o.streamed.Load())
				}
				check(t, p.Close())
				o.idle()
			})
		})
	}
}

// TestTheNodeDiesInTheMiddleOfAFetch: what came is right, the rest is asked for over
// the network.
func TestTheNodeDiesInTheMiddleOfAFetch(t *testing.T) {
	onBothOrigins(t, func(t *testing.T, o *origin) {
		req, data := o.put(1, 3*mib)
		open := o.gate(mib + 200_000)
		p := o.pool()
		s, err := p.ReadBlock(t.Context(), o.node, req)
		check(t, err)
		got := make([]byte, 100_000)
		_, err = io.ReadFull(s, got)
		check(t, err)
		dead := make(chan struct{})
		go func() { defer close(dead); o.stop() }()
		open()
		<-dead
		rest, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(slices.Concat(got, rest), data) {
			t.Errorf("%d bytes, %v", len(got)+len(rest), err)
		}
		check(t, s.Close())
	})
}

// TestAReaderThatLeavesEndsAFetchOfItsOwn: where only whole reads are kept, nobody else
// wants the block; its space is free when the client has gone, however it went.
func TestAReaderThatLeavesEndsAFetchOfItsOwn(t *testing.T) {
	for _, how := range []string{"reader", "client"} {
		t.Run(how, func(t *testing.T) {
			onBothOrigins(t, func(t *testing.T, o *origin) {
				req, _ := o.put(1, 3*mib)
				o.gate(mib + 200_000)
				before := descriptors(t)
				p := o.pool()
				s, err := p.ReadBlock(t.Context(), o.node, req)
				check(t, err)
				if _, err = io.ReadFull(s, make([]byte, 100_000)); err != nil {
					t.Fatal(err)
				}
				if how == "reader" {
					check(t, s.Close())
				} else {
					check(t, p.Close())
				}
				eventually(t, "its space is free", func() bool { return o.blocks.Used() == 0 })
				if how == "reader" {
					check(t, p.Close())
				} else if err := s.Close(); err != nil {
					t.Error(err)
				}
				eventually(t, "its descriptors are closed", func() bool { return descriptors(t) <= before })
			})
		})
	}
}

// TestADraftStaysInTheTierWhileItIsRead: a block that comes cannot be evicted before its
// reader has let it go.
func TestADraftStaysInTheTierWhileItIsRead(t *testing.T) {
	onBothOrigins(t, func(t *testing.T, o *origin) {
		req, data := o.put(1, 3*mib)
		p := o.pool()
		s, err := p.ReadBlock(t.Context(), o.node, req)
		check(t, err)
		eventually(t, "the block is cached", func() bool { _, ok := o.blocks.Stat(block(1)); return ok })
		for i := range 40 { // more than the tier holds
			w, err := o.blocks.Create(block(100+i), 3*mib)
			check(t, err)
			_, err = w.Write(data)
			check(t, err)
			check(t, w.Commit(tier.Meta{Cluster: uuid.UUID{1}, Epoch: 1, Fingerprint: req.Source.Fingerprint}))
			w.Close()
		}
		if _, ok := o.blocks.Stat(block(1)); !ok {
			t.Error("it was evicted")
		}
		used := o.blocks.Used()
		o.blocks.Remove(block(1))
		if o.blocks.Used() != used {
			t.Error("the space of a block that is read was given away")
		}
		o.want(s, data)
		check(t, s.Close())
		eventually(t, "its space is free", func() bool { return o.blocks.Used() < used })
	})
}

// TestReadsThatAreStreamed are those that a fetch of the whole block is not for.
func TestReadsThatAreStreamed(t *testing.T) {
	onBothOrigins(t, func(t *testing.T, o *origin) {
		req, data := o.put(1, 6*mib)
		p := o.pool()
		for i, change := range []func(*freshet.BlockRead){
			func(q *freshet.BlockRead) { q.Type = freshet.ReadNoCache },
			func(q *freshet.BlockRead) { q.Offset, q.Length = 5, 1000 },
			func(q *freshet.BlockRead) { q.Offset, q.Length = 3*mib, 2*mib },
		} {
			q := req
			change(&q)
			s, err := p.ReadBlock(t.Context(), o.node, q)
			check(t, err)
			o.want(s, data[q.Offset:q.Offset+q.Length])
			check(t, s.Close())
			if st := p.Stats(); st.Drafts != 0 || o.streamed.Load() != int64(i+1) {
				t.Errorf("%d: %+v", i, st)
			}
		}
		stale := req
		stale.Source.Fingerprint = version(7)
		if _, err := p.ReadBlock(t.Context(), o.node, stale); !freshet.IsKind(err, freshet.KindStale) {
			t.Errorf("%v", err)
		}
		// Read ahead, it is there for who comes.
		check(t, p.ReadAhead(t.Context(), o.node, req))
	})
}

func TestAwaitRefusesNonsense(t *testing.T) {
	onBothOrigins(t, func(t *testing.T, o *origin) {
		req, _ := o.put(1, 3*mib)
		open := o.gate(mib)
		d, have, _, err := o.filler.Draft(t.Context(), req)
		check(t, err)
		defer d.Close()
		for _, at := range [][2]int64{{-1, 5}, {3 * mib, 1}, {0, -1}} {
			if _, err := d.Await(t.Context(), at[0], at[1]); !freshet.IsKind(err, freshet.KindInvalid) {
				t.Errorf("%v: %v", at, err)
			}
		}
		if got, err := d.Await(t.Context(), 0, 1<<50); err != nil || got < have || !d.Held() {
			t.Errorf("%d after %d, %v", got, have, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := d.Await(ctx, 2*mib, 5); err == nil {
			t.Error("a caller that left was answered")
		}
		open()
		for at := int64(0); at < 3*mib; {
			next, err := d.Await(t.Context(), at, 1<<50)
			if err != nil || next <= at || next > 3*mib {
				t.Fatalf("%d after %d, %v", next, at, err)
			}
			at = next
		}
	})
}
