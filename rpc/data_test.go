package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// stream is a freshet.BlockStream over a reader.
type stream struct {
	io.Reader

	length int64
	origin freshet.Origin
	closed chan struct{}
}

func (s *stream) Close() error {
	if s.closed != nil {
		close(s.closed)
	}
	return nil
}
func (s *stream) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, s.Reader) }
func (s *stream) Length() int64                      { return s.length }
func (s *stream) Origin() freshet.Origin             { return s.origin }

// broken gives some bytes and then an error.
func broken(b []byte, err error) io.Reader {
	return io.MultiReader(bytes.NewReader(b), readerFunc(func([]byte) (int, error) { return 0, err }))
}

// brokenAfter fails with err behind b, but only when begun says so: of an upload
// that ends at once the node may never hear.
func brokenAfter(begun <-chan struct{}, b []byte, err error) io.Reader {
	return io.MultiReader(bytes.NewReader(b), readerFunc(func([]byte) (int, error) {
		<-begun
		return 0, err
	}))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func pool(t testing.TB) *rpc.NodePool {
	t.Helper()
	conns := rpc.NewConns(rpc.DialOptions{MaxMessage: rpc.MaxDataMessage, NoRetry: true})
	t.Cleanup(func() { _ = conns.Close() })
	return rpc.NewNodePool(conns)
}

func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 / 3)
	}
	return b
}

func blockRead(off, n, size int64) freshet.BlockRead {
	return freshet.BlockRead{Block: freshet.Block{ID: freshet.BlockID{File: 7, Index: 2}, Length: size}, Offset: off, Length: n, Type: freshet.ReadNoCache, Cached: true}
}

func TestDownloads(t *testing.T) {
	all := content(3*rpc.ChunkSize + 12345)
	size := int64(len(all))
	var asked freshet.BlockRead
	f := &fake{read: func(q freshet.BlockRead) (freshet.BlockStream, error) {
		asked = q
		return &stream{Reader: bytes.NewReader(all[q.Offset : q.Offset+q.Length]), length: q.Length, origin: freshet.OriginRemote}, nil
	}}
	node := freshet.Node{GRPC: start(t, f, nil, rpc.ServerOptions{MaxMessage: rpc.MaxDataMessage}).addr}
	p := pool(t)
	for _, tc := range []struct{ off, n int64 }{{0, size}, {0, -1}, {1, 1}, {rpc.ChunkSize, rpc.ChunkSize}, {rpc.ChunkSize - 1, rpc.ChunkSize + 2}, {5, 0}, {size, 0}} {
		for _, how := range []string{"Read", "WriteTo"} {
			body, err := p.ReadBlock(t.Context(), node, blockRead(tc.off, tc.n, size))
			if err != nil {
				t.Fatalf("%+v: %v", tc, err)
			}
			var got bytes.Buffer
			if how == "Read" {
				_, err = io.Copy(&got, struct{ io.Reader }{body})
			} else {
				_, err = body.WriteTo(&got)
			}
			n := tc.n
			if n < 0 {
				n = size - tc.off
			}
			if err != nil || !bytes.Equal(got.Bytes(), all[tc.off:tc.off+n]) {
				t.Errorf("%s %+v: %d bytes, %v", how, tc, got.Len(), err)
			}
			if body.Length() != n || body.Origin() != freshet.OriginRemote {
				t.Errorf("%s %+v: length %d, origin %s", how, tc, body.Length(), body.Origin())
			}
			if err := body.Close(); err != nil {
				t.Error(err)
			}
			if asked.Type != freshet.ReadNoCache || !asked.Cached || asked.Block.ID.File != 7 || asked.Block.ID.Index != 2 {
				t.Errorf("the node was asked for %+v", asked)
			}
		}
	}
}

func TestABrokenDownloadIsNeverAShortSuccess(t *testing.T) {
	const half, size = rpc.ChunkSize + 100, 2*rpc.ChunkSize - 50
	for name, tc := range map[string]struct {
		body  io.Reader
		start error
		want  freshet.Kind
	}{
		"error at the start":  {start: freshet.Errorf(freshet.KindStale, "read", "", "other version"), want: freshet.KindStale},
		"error half-way":      {body: broken(content(half), freshet.Errorf(freshet.KindCorrupt, "read", "", "bit rot")), want: freshet.KindCorrupt},
		"plain error":         {body: broken(content(half), errors.New("boom")), want: freshet.KindInternal},
		"early end":           {body: bytes.NewReader(content(half)), want: freshet.KindUnavailable},
		"nothing at all":      {body: strings.NewReader(""), want: freshet.KindUnavailable},
		"too many bytes":      {body: bytes.NewReader(content(size + 1)), want: freshet.KindCorrupt},
		"panic of the source": {body: readerFunc(func([]byte) (int, error) { panic("x") }), want: freshet.KindInternal},
	} {
		for _, how := range []string{"Read", "WriteTo"} {
			f := &fake{read: func(freshet.BlockRead) (freshet.BlockStream, error) {
				return &stream{Reader: tc.body, length: size}, tc.start
			}}
			s := start(t, f, nil, rpc.ServerOptions{MaxMessage: rpc.MaxDataMessage})
			body, err := pool(t).ReadBlock(t.Context(), freshet.Node{GRPC: s.addr}, blockRead(0, size, size))
			if err == nil {
				if how == "Read" {
					_, err = io.Copy(io.Discard, struct{ io.Reader }{body})
				} else {
					_, err = body.WriteTo(io.Discard)
				}
				_ = body.Close()
			}
			if freshet.KindOf(err) != tc.want {
				t.Errorf("%s, %s: got %v", name, how, err)
			}
			s.stop()
			if tc.body != nil && how == "Read" {
				if r, ok := tc.body.(*bytes.Reader); ok {
					_, _ = r.Seek(0, io.SeekStart)
				} else if tc.start == nil && name != "panic of the source" {
					break // a MultiReader can't be read again
				}
			}
		}
	}
}

func TestClosingADownloadEndsItAtTheNode(t *testing.T) {
	closed := make(chan struct{})
	f := &fake{read: func(freshet.BlockRead) (freshet.BlockStream, error) {
		endless := readerFunc(func(p []byte) (int, error) { return len(p), nil })
		return &stream{Reader: endless, length: 1 << 40, closed: closed}, nil
	}}
	s := start(t, f, nil, rpc.ServerOptions{MaxMessage: rpc.MaxDataMessage})
	body, err := pool(t).ReadBlock(t.Context(), freshet.Node{GRPC: s.addr}, blockRead(0, 1<<40, 1<<40))
	if err != nil {
		t.Fatal(err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
	<-closed // the test's own time limit is the bound
}

func TestRangesOutsideTheBlockAreRefused(t *testing.T) {
	f := &fake{read: func(freshet.BlockRead) (freshet.BlockStream, error) { panic("must not be asked") }}
	s := start(t, f, nil, rpc.ServerOptions{})
	p := pool(t)
	for _, q := range []freshet.BlockRead{
		blockRead(-1, 1, 10), blockRead(11, 0, 10), blockRead(0, 11, 10), blockRead(5, 6, 10), blockRead(1, math.MaxInt64, 10), blockRead(0, -5, -1),
	} {
		if _, err := p.ReadBlock(t.Context(), freshet.Node{GRPC: s.addr}, q); !freshet.IsKind(err, freshet.KindInvalid) {
			t.Errorf("%d+%d: got %v", q.Offset, q.Length, err)
		}
	}
}

// upload is what the node got of one.
type upload struct {
	ticket freshet.Ticket
	length int64
	body   []byte
	err    error
}

// uploads returns a node that tells, without waiting, that an upload begins, and
// then what it got.
func uploads(t *testing.T) (<-chan struct{}, *server, <-chan upload) {
	t.Helper()
	begun := make(chan struct{}, 1)
	got := make(chan upload, 1)
	f := &fake{write: func(ticket freshet.Ticket, body io.Reader, length int64) (freshet.Completed, error) {
		select {
		case begun <- struct{}{}:
		default:
		}
		u := upload{ticket: ticket, length: length}
		u.body, u.err = io.ReadAll(body)
		got <- u
		return freshet.Completed{Info: freshet.Info{Path: ticket.Path, Length: int64(len(u.body))}}, u.err
	}}
	return begun, start(t, f, nil, rpc.ServerOptions{MaxMessage: rpc.MaxDataMessage}), got
}

func TestUploads(t *testing.T) {
	_, s, got := uploads(t)
	p := pool(t)
	ticket := freshet.Ticket{Path: "/a", Node: freshet.Node{GRPC: s.addr}, File: 5, Write: freshet.Through, Op: freshet.OpID{3}, BlockSize: 1 << 20}
	for _, size := range []int{0, 1, rpc.ChunkSize - 1, rpc.ChunkSize, rpc.ChunkSize + 1, 3*rpc.ChunkSize + 5} {
		for _, declared := range []int64{-1, int64(size), int64(size) + 3, int64(size) - 1, math.MaxInt64} {
			if declared < -1 {
				continue
			}
			want := content(size)
			done, err := p.WriteFile(t.Context(), ticket, bytes.NewReader(want), declared)
			u := <-got
			if err != nil || u.err != nil || !bytes.Equal(u.body, want) || u.length != declared || done.Info.Length != int64(size) {
				t.Fatalf("%d bytes, %d declared: %d arrived, %d declared there, %v, %v", size, declared, len(u.body), u.length, u.err, err)
			}
			if u.ticket.Op != ticket.Op || u.ticket.File != 5 || u.ticket.Write != freshet.Through || u.ticket.Path != "/a" {
				t.Fatalf("ticket %+v", u.ticket)
			}
		}
	}
}

func TestAnUploadThatStopsHalfWayIsNoWholeBody(t *testing.T) {
	begun, s, got := uploads(t)
	ticket := freshet.Ticket{Path: "/a", Node: freshet.Node{GRPC: s.addr}}
	t.Run("error of the body", func(t *testing.T) {
		own := freshet.Errorf(freshet.KindInvalid, "read body", "", "too slow")
		_, err := pool(t).WriteFile(t.Context(), ticket, brokenAfter(begun, content(rpc.ChunkSize+5), own), -1)
		if !freshet.IsKind(err, freshet.KindInvalid) {
			t.Errorf("got %v", err)
		}
		if u := <-got; u.err == nil {
			t.Errorf("the node took %d bytes for the whole", len(u.body))
		}
	})
	t.Run("the client goes away", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		body := readerFunc(func(p []byte) (int, error) {
			if n++; n == 3 {
				<-begun // else the node may never hear of it
				cancel()
			}
			return len(p), nil
		})
		_, err := pool(t).WriteFile(ctx, ticket, body, -1)
		if !freshet.IsKind(err, freshet.KindDeadline) {
			t.Errorf("got %v", err)
		}
		if u := <-got; u.err == nil {
			t.Errorf("the node took %d bytes for the whole", len(u.body))
		}
	})
	t.Run("no end mark", func(t *testing.T) {
		conns := rpc.NewConns(rpc.DialOptions{NoRetry: true})
		defer func() { _ = conns.Close() }()
		conn, err := conns.Get(s.addr)
		if err != nil {
			t.Fatal(err)
		}
		up, err := freshetv1.NewBlockServiceClient(conn).WriteFile(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := up.Send(&freshetv1.WriteFileRequest{Ticket: &freshetv1.Ticket{Path: "/a"}, Data: []byte("half"), Length: -1}); err != nil {
			t.Fatal(err)
		}
		if _, err := up.CloseAndRecv(); !freshet.IsKind(rpc.ErrorOf(err), freshet.KindInvalid) {
			t.Errorf("got %v", err)
		}
		if u := <-got; !errors.Is(u.err, io.ErrUnexpectedEOF) || string(u.body) != "half" {
			t.Errorf("the node got %q and %v", u.body, u.err)
		}
	})
	t.Run("no ticket", func(t *testing.T) {
		conns := rpc.NewConns(rpc.DialOptions{NoRetry: true})
		defer func() { _ = conns.Close() }()
		conn, err := conns.Get(s.addr)
		if err != nil {
			t.Fatal(err)
		}
		up, err := freshetv1.NewBlockServiceClient(conn).WriteFile(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = up.Send(&freshetv1.WriteFileRequest{Data: []byte("x"), End: true})
		if _, err := up.CloseAndRecv(); !freshet.IsKind(rpc.ErrorOf(err), freshet.KindInvalid) {
			t.Errorf("got %v", err)
		}
	})
}

func TestANodeMayRefuseAnUploadInItsMiddle(t *testing.T) {
	f := &fake{write: func(_ freshet.Ticket, body io.Reader, _ int64) (freshet.Completed, error) {
		_, err := io.ReadFull(body, make([]byte, 100))
		return freshet.Completed{}, errors.Join(freshet.Errorf(freshet.KindExhausted, "write", "/a", "the disk is full"), err)
	}}
	s := start(t, f, nil, rpc.ServerOptions{MaxMessage: rpc.MaxDataMessage})
	endless := readerFunc(func(p []byte) (int, error) { return len(p), nil })
	_, err := pool(t).WriteFile(t.Context(), freshet.Ticket{Path: "/a", Node: freshet.Node{GRPC: s.addr}}, endless, -1)
	if !freshet.IsKind(err, freshet.KindExhausted) {
		t.Errorf("got %v", err)
	}
}
