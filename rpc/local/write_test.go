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
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
	"github.com/freshet-io/freshet/rpc/local"
)

// shared is what the node gets as the body.
type shared interface {
	io.ReadCloser
	Next(ctx context.Context, idle time.Duration) ([]byte, error)
}

// taker is a node that takes files.
type taker struct {
	*world

	take func(ctx context.Context, body shared) error

	mu   sync.Mutex
	last freshet.Ticket
	said int64 // the declared length
	far  int   // files that came over the network
}

func (n *taker) Write(ctx context.Context, t freshet.Ticket, body io.Reader, declared int64) (freshet.Completed, error) {
	b, ok := body.(shared)
	if !ok {
		return freshet.Completed{}, errors.New("the body has no bytes in memory")
	}
	n.mu.Lock()
	n.last, n.said = t, declared
	n.mu.Unlock()
	if err := n.take(ctx, b); err != nil {
		return freshet.Completed{}, err
	}
	return freshet.Completed{Info: freshet.Info{Path: t.Path, Length: 77}}, nil
}

func (n *taker) WriteFile(_ context.Context, _ freshet.Ticket, body io.Reader, _ int64) (freshet.Completed, error) {
	n.mu.Lock()
	n.far++
	n.mu.Unlock()
	_, err := io.Copy(io.Discard, body)
	return freshet.Completed{Info: freshet.Info{Length: 88}}, err
}

func newTaker(t testing.TB, take func(ctx context.Context, body shared) error) *taker {
	t.Helper()
	if !local.Supported {
		t.Skip("this system has no local writes")
	}
	n := &taker{take: take}
	n.world = newWorldOf(t, tier.Memory, func(w *world) local.Lender { n.world = w; return n })
	return n
}

// pool returns a client whose network is the taker too.
func (n *taker) pool(opts local.Options) *local.Pool {
	p := local.New(n, opts)
	n.t.Cleanup(func() { _ = p.Close() })
	return p
}

func (n *taker) ticket() freshet.Ticket {
	return freshet.Ticket{Op: freshet.OpID{9}, File: 12, Path: "/f", Node: n.node, Write: freshet.MustCache, BlockSize: 1 << 20}
}

func (n *taker) wantFar(far int) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.far != far {
		n.t.Fatalf("%d files came over the network, not %d", n.far, far)
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(b)
	return b
}

// inPlace returns all bytes as they are in the shared memory.
func inPlace(ctx context.Context, body shared) ([]byte, error) {
	var all []byte
	for {
		b, err := body.Next(ctx, time.Hour)
		all = append(all, b...)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

func copied(_ context.Context, body shared) ([]byte, error) {
	return io.ReadAll(io.MultiReader(iotest.OneByteReader(io.LimitReader(body, 5)), iotest.HalfReader(body)))
}

// wantNoRoom fails if memory of a write is still mapped.
func wantNoRoom(t *testing.T) {
	t.Helper()
	eventually(t, "all shared memory to be given back", func() bool {
		b, err := os.ReadFile("/proc/self/maps")
		return err == nil && !strings.Contains(string(b), "freshet-write")
	})
}

func TestAFileGoesThroughSharedMemory(t *testing.T) {
	for how, read := range map[string]func(context.Context, shared) ([]byte, error){
		"in place": inPlace,
		"copied":   copied,
		"read":     func(_ context.Context, b shared) ([]byte, error) { return io.ReadAll(b) },
	} {
		t.Run(how, func(t *testing.T) {
			came := make(chan []byte, 1)
			n := newTaker(t, func(ctx context.Context, body shared) error {
				got, err := read(ctx, body)
				came <- got
				return err
			})
			p := n.pool(local.Options{})
			lengths := []int{256 << 10, 1<<20 - 1, 1 << 20, 1<<20 + 1, 4 << 20, 4<<20 + 1, 9<<20 + 17}
			for i, length := range append(lengths, 0, 1, 1<<20, 3<<20) {
				declared := int64(length)
				if i >= len(lengths) {
					declared = -1
				}
				want := noise(length)
				done, err := p.WriteFile(t.Context(), n.ticket(), bytes.NewReader(want), declared)
				if got := <-came; err != nil || !bytes.Equal(got, want) || done.Info.Length != 77 || done.Info.Path != "/f" {
					t.Fatalf("%d bytes, declared %d: %d came, %+v, %v", length, declared, len(got), done, err)
				}
				n.mu.Lock()
				if n.last.File != 12 || n.last.Op != n.ticket().Op || n.said != declared {
					t.Errorf("the node was told %+v, %d bytes", n.last, n.said)
				}
				n.mu.Unlock()
				if s := p.Stats().Writes; s != int64(i+1) {
					t.Fatalf("%d writes are counted", s)
				}
			}
			n.wantFar(0)
			wantNoRoom(t)
		})
	}
}

// TestWritesGoOverTheNetwork where nothing can be shared, or it does not pay.
func TestWritesGoOverTheNetwork(t *testing.T) {
	n := newTaker(t, func(context.Context, shared) error { return errors.New("taken") })
	write := func(p *local.Pool, length int, change func(*freshet.Ticket)) {
		t.Helper()
		ticket := n.ticket()
		change(&ticket)
		n.mu.Lock()
		before := n.far
		n.mu.Unlock()
		done, err := p.WriteFile(t.Context(), ticket, bytes.NewReader(noise(length)), int64(length))
		if err != nil || done.Info.Length != 88 {
			t.Fatalf("%+v, %v", done, err)
		}
		n.wantFar(before + 1)
	}
	as := func(*freshet.Ticket) {}
	write(n.pool(local.Options{}), 100_000, as)
	write(n.pool(local.Options{Off: true}), 1<<20, as)
	write(n.pool(local.Options{}), 1<<20, func(t *freshet.Ticket) { t.Node.Socket = "" })
	write(n.pool(local.Options{}), 1<<20, func(t *freshet.Ticket) { t.Node.Socket = "/nowhere" })
	write(n.pool(local.Options{}), 1<<20, func(t *freshet.Ticket) { t.Node.Incarnation++ })
	write(n.pool(local.Options{}), 1<<20, func(t *freshet.Ticket) { t.Node.ID = "other" })

	// A node that only lends, as those before.
	old := newWorldOf(t, tier.Memory, func(w *world) local.Lender { return struct{ local.Lender }{w} })
	write(n.pool(local.Options{}), 1<<20, func(t *freshet.Ticket) { t.Node = old.node })
	// A user who may not.
	strict := newWorldOf(t, tier.Memory, func(w *world) local.Lender { return w }, 1<<30)
	write(n.pool(local.Options{}), 1<<20, func(t *freshet.Ticket) { t.Node = strict.node })
	wantNoRoom(t)
}

func TestTheNodesRefusalIsTheClients(t *testing.T) {
	for _, after := range []int{0, 1, 3, 9} {
		t.Run(fmt.Sprintf("after %d pieces", after), func(t *testing.T) {
			n := newTaker(t, func(ctx context.Context, body shared) error {
				for range after {
					if _, err := body.Next(ctx, time.Hour); err != nil {
						return err
					}
				}
				return freshet.Errorf(freshet.KindExhausted, "write file", "/f", "no room for you")
			})
			_, err := n.pool(local.Options{}).WriteFile(t.Context(), n.ticket(), bytes.NewReader(noise(16<<20)), 16<<20)
			if !freshet.IsKind(err, freshet.KindExhausted) || !strings.Contains(err.Error(), "no room for you") {
				t.Errorf("%v", err)
			}
			n.wantFar(0)
			wantNoRoom(t)
		})
	}
}

// TestTheNodeLearnsThatTheClientWent while it waits for bytes that never come.
func TestTheNodeLearnsThatTheClientWent(t *testing.T) {
	waits := map[string]func(context.Context, shared) error{
		"next": func(ctx context.Context, b shared) error { _, err := inPlace(ctx, b); return err },
		"read": func(_ context.Context, b shared) error { _, err := io.Copy(io.Discard, b); return err },
	}
	for how, wait := range waits {
		t.Run(how, func(t *testing.T) {
			ended := make(chan error, 2)
			n := newTaker(t, func(ctx context.Context, body shared) error {
				err := wait(ctx, body)
				ended <- err
				return err
			})
			broken := errors.New("the disk of the client")
			body := io.MultiReader(bytes.NewReader(noise(1500<<10)), iotest.ErrReader(broken))
			if _, err := n.pool(local.Options{}).WriteFile(t.Context(), n.ticket(), body, 3<<20); !errors.Is(err, broken) {
				t.Errorf("%v", err)
			}
			if err := <-ended; err == nil {
				t.Error("half a body looked like a whole one")
			}
			ctx, cancel := context.WithCancel(t.Context())
			body = io.MultiReader(bytes.NewReader(noise(1300<<10)), readFunc(func([]byte) (int, error) { cancel(); return 0, context.Canceled }))
			if _, err := n.pool(local.Options{}).WriteFile(ctx, n.ticket(), body, 3<<20); err == nil {
				t.Error("half a body was written")
			}
			cancel()
			if err := <-ended; err == nil {
				t.Error("half a body looked like a whole one")
			}
			wantNoRoom(t)
		})
	}
}

// TestAClientGoesWhileTheNodeEndsTheFile, of which it has all bytes.
func TestAClientGoesWhileTheNodeEndsTheFile(t *testing.T) {
	for how, read := range map[string]func(context.Context, shared) ([]byte, error){
		"in place": inPlace, "read": func(_ context.Context, b shared) ([]byte, error) { return io.ReadAll(b) },
	} {
		t.Run(how, func(t *testing.T) {
			all := make(chan struct{})
			n := newTaker(t, func(ctx context.Context, body shared) error {
				if _, err := read(ctx, body); err != nil {
					return err
				}
				close(all)
				<-ctx.Done()
				return context.Cause(ctx)
			})
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-all; cancel() }()
			_, err := n.pool(local.Options{}).WriteFile(ctx, n.ticket(), bytes.NewReader(noise(3<<20)), 3<<20)
			if !freshet.IsKind(err, freshet.KindDeadline) {
				t.Error(err)
			}
			wantNoRoom(t)
		})
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// TestAReadMayStayBehind when the node has given a write up.
func TestAReadMayStayBehind(t *testing.T) {
	behind := make(chan error, 1)
	n := newTaker(t, func(_ context.Context, body shared) error {
		if _, err := io.ReadFull(body, make([]byte, 1<<19)); err != nil {
			return err
		}
		go func() {
			_, err := io.ReadFull(body, make([]byte, 1<<20))
			behind <- err
		}()
		return freshet.Errorf(freshet.KindConflict, "write file", "", "given up")
	})
	hang := make(chan struct{})
	body := io.MultiReader(bytes.NewReader(noise(1<<20)), readFunc(func([]byte) (int, error) { <-hang; return 0, io.EOF }))
	ended := make(chan error, 1)
	go func() {
		_, err := n.pool(local.Options{}).WriteFile(context.Background(), n.ticket(), body, 3<<20)
		ended <- err
	}()
	if err := <-behind; err == nil {
		t.Error("it read what was never written")
	}
	close(hang)
	if err := <-ended; !freshet.IsKind(err, freshet.KindConflict, freshet.KindUnavailable) {
		t.Error(err)
	}
	wantNoRoom(t)
}

// TestAWriteOutlivesTheServer: what has begun is the node's to end.
func TestAWriteOutlivesTheServer(t *testing.T) {
	begun, stopped := make(chan struct{}), make(chan struct{})
	n := newTaker(t, func(ctx context.Context, body shared) error {
		close(begun)
		<-stopped
		_, err := inPlace(ctx, body)
		return err
	})
	p := n.pool(local.Options{})
	ended := make(chan error, 1)
	go func() {
		_, err := p.WriteFile(context.Background(), n.ticket(), bytes.NewReader(noise(5<<20)), 5<<20)
		ended <- err
	}()
	<-begun
	done := make(chan struct{})
	go func() { n.stop(); close(done) }()
	eventually(t, "the server to take no more", func() bool {
		c, err := net.DialUnix(local.Network, nil, &net.UnixAddr{Name: n.socket, Net: local.Network})
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(stopped)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-done
	wantNoRoom(t)
}

func TestTheServerBoundsWrites(t *testing.T) {
	const most = 32
	begun, finish := make(chan struct{}, most), make(chan struct{})
	n := newTaker(t, func(ctx context.Context, body shared) error {
		begun <- struct{}{}
		<-finish
		_, err := inPlace(ctx, body)
		return err
	})
	p := n.pool(local.Options{})
	ended := make(chan error, most)
	for range most {
		go func() {
			_, err := p.WriteFile(context.Background(), n.ticket(), bytes.NewReader(noise(300<<10)), 300<<10)
			ended <- err
		}()
	}
	for range most {
		<-begun
	}
	if done, err := p.WriteFile(t.Context(), n.ticket(), bytes.NewReader(noise(300<<10)), 300<<10); err != nil || done.Info.Length != 88 {
		t.Errorf("%+v, %v", done, err)
	}
	n.wantFar(1)
	close(finish)
	for range most {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	wantNoRoom(t)
}

// raw is a client of the socket that does what it likes.
type raw struct {
	t  *testing.T
	c  *net.UnixConn
	fd int // of the room
}

func (n *taker) raw(t *testing.T, length int64) *raw {
	t.Helper()
	c, err := net.DialUnix(local.Network, nil, &net.UnixAddr{Name: n.socket, Net: local.Network})
	check(t, err)
	t.Cleanup(func() { _ = c.Close() })
	check(t, c.SetDeadline(time.Now().Add(time.Minute)))
	r := &raw{t: t, c: c, fd: -1}
	r.send(&freshetv1.LocalRequest{Id: 1, What: &freshetv1.LocalRequest_Hello{Hello: &freshetv1.LocalHello{Version: 1}}})
	_, err = c.Read(make([]byte, 1000))
	check(t, err)
	r.send(&freshetv1.LocalRequest{Id: 2, What: &freshetv1.LocalRequest_Write{Write: &freshetv1.LocalWrite{Ticket: rpc.TicketToWire(n.ticket()), Length: length}}})
	control := make([]byte, 100)
	_, cn, _, _, err := c.ReadMsgUnix(make([]byte, 1000), control)
	check(t, err)
	messages, err := syscall.ParseSocketControlMessage(control[:cn])
	check(t, err)
	fds, err := syscall.ParseUnixRights(&messages[0])
	check(t, err)
	r.fd = fds[0]
	t.Cleanup(func() { _ = unix.Close(r.fd) })
	return r
}

func (r *raw) send(m *freshetv1.LocalRequest) {
	r.t.Helper()
	b, err := proto.Marshal(m)
	check(r.t, err)
	_, err = r.c.Write(b)
	check(r.t, err)
}

func (r *raw) fill(bytes uint32, end bool) {
	r.t.Helper()
	r.send(&freshetv1.LocalRequest{Id: 2, What: &freshetv1.LocalRequest_Filled{Filled: &freshetv1.LocalFilled{Bytes: bytes, End: end}}})
}

// TestAClientCannotHarmTheNode by the size of the memory, or by what it says of it.
func TestAClientCannotHarmTheNode(t *testing.T) {
	ended := make(chan error, 1)
	n := newTaker(t, func(ctx context.Context, body shared) error {
		_, err := inPlace(ctx, body)
		ended <- err
		return err
	})
	r := n.raw(t, 3<<20)
	for what, err := range map[string]error{
		"shorter": unix.Ftruncate(r.fd, 4096), "longer": unix.Ftruncate(r.fd, 8<<20),
		"punched": unix.Fallocate(r.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096),
	} {
		if (err == nil) != (what == "punched") { // that makes zeros, no fault
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := unix.FcntlInt(uintptr(r.fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err == nil {
		t.Error("the client sealed it")
	}
	for name, lie := range map[string]func(r *raw){
		"more than a slot": func(r *raw) { r.fill(1<<20, false); r.fill(1<<20+1, true) },
		"a short one":      func(r *raw) { r.fill(1<<20, false); r.fill(5, false) },
		"a short first":    func(r *raw) { r.fill(1<<20-4096, false); r.fill(1<<20-4096, false) },
		"another request": func(r *raw) {
			r.fill(1<<20, false)
			r.send(&freshetv1.LocalRequest{Id: 3, What: &freshetv1.LocalRequest_Release{Release: &freshetv1.LocalRelease{}}})
		},
		"nothing that is known": func(r *raw) { r.fill(1<<20, false); _, _ = r.c.Write([]byte("?")) },
		"it goes":               func(r *raw) { r.fill(1<<20, false); _ = r.c.Close() },
	} {
		lie(n.raw(t, 3<<20))
		if err := <-ended; err == nil {
			t.Errorf("%s: the node took the file", name)
		}
	}
	// More than it has room for.
	many := n.raw(t, 3<<20)
	for range 20 {
		many.fill(1<<20, false)
	}
	_, _ = many.c.Close(), r.c.Close()
	if err := <-ended; err == nil {
		t.Error("the node took a file without an end")
	}
	wantNoRoom(t)
}
