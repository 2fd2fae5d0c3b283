package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
)

// dataServerFlag makes this program the server of bare bytes: of a file that is
// named behind it, in as many ways as there are.
const dataServerFlag = "-data-server"

// A request of bare bytes is its way and its length.
const (
	waySendfile = iota // by the kernel, from the file
	wayRead            // read and written
	wayMemory          // written from memory
	wayPage            // one page, at what stands for the length
)

const pageSize = 4 << 10

const rawChunk = 1 << 20

// The buffer and the windows of the product's ports of data (rpc/tuning.go), so that the
// limit has what is gained by these too.
const (
	rawWriteBuffer = 128 << 10
	rawWindow      = 2 << 20
)

// rawCodec hands over bytes: no codec of gRPC can cost less.
type rawCodec struct{}

func (rawCodec) Name() string { return "raw" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) { return *v.(*mem.BufferSlice), nil } //nolint:forcetypeassert // all there is

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	data.Ref()
	*v.(*mem.BufferSlice) = data //nolint:forcetypeassert // all there is
	return nil
}

// rawStream is the one method of the server of bare bytes.
func rawStream() *grpc.StreamDesc { return &grpc.StreamDesc{StreamName: "Read", ServerStreams: true} }

// chunkPool gives buffers of one chunk.
type chunkPool struct{ sync.Pool }

func (p *chunkPool) Get(int) *[]byte {
	if b, ok := p.Pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, rawChunk)
	return &b
}

func (p *chunkPool) Put(b *[]byte) { p.Pool.Put(b) }

// bareServer serves the bytes of a file.
type bareServer struct {
	file    *os.File
	content []byte
	pool    chunkPool
}

// serveData serves until its input ends.
func serveData(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	s := &bareServer{file: f}
	if s.content, err = os.ReadFile(name); err != nil {
		return err
	}
	over, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
	if err != nil {
		return err
	}
	bare, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
	if err != nil {
		return err
	}
	srv := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.WriteBufferSize(rawWriteBuffer),
		grpc.StaticStreamWindowSize(rawWindow), grpc.StaticConnWindowSize(rawWindow))
	desc := rawStream()
	desc.Handler = func(_ any, stream grpc.ServerStream) error { return s.grpc(stream) }
	srv.RegisterService(&grpc.ServiceDesc{ServiceName: "bare.Bytes", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{*desc}}, s)
	fmt.Println(over.Addr(), bare.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is the message
		srv.Stop()
		_ = bare.Close()
	}()
	go s.accept(bare)
	return srv.Serve(over)
}

// request takes a request apart.
func request(b []byte) (way byte, n int64) { return b[0], int64(binary.BigEndian.Uint64(b[1:])) } //nolint:gosec // our own

const requestSize = 9

func requestOf(way byte, n int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{way}, uint64(n)) //nolint:gosec // not negative
}

func (s *bareServer) grpc(stream grpc.ServerStream) error {
	var q mem.BufferSlice
	if err := stream.RecvMsg(&q); err != nil {
		return err
	}
	way, n := request(q.Materialize())
	q.Free()
	for off := int64(0); off < n; off += rawChunk {
		out := mem.BufferSlice{mem.SliceBuffer(s.content[off:min(n, off+rawChunk)])}
		if way == wayRead {
			b := s.pool.Get(rawChunk)
			*b = (*b)[:rawChunk]
			if _, err := s.file.ReadAt(*b, off); err != nil {
				return err
			}
			out = mem.BufferSlice{mem.NewBuffer(b, &s.pool)}
		}
		if err := stream.SendMsg(&out); err != nil {
			return err
		}
	}
	return nil
}

func (s *bareServer) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_ = s.tcp(c) // the client goes away
			_ = c.Close()
		}()
	}
}

func (s *bareServer) tcp(c net.Conn) error {
	q, page := make([]byte, requestSize), make([]byte, pageSize)
	f, err := os.Open(s.file.Name())
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	for {
		if _, err := io.ReadFull(c, q); err != nil {
			return err
		}
		way, n := request(q)
		if way == wayPage {
			if _, err = f.ReadAt(page, n); err == nil {
				_, err = c.Write(page)
			}
			if err != nil {
				return err
			}
			continue
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		switch way {
		case waySendfile:
			_, err = io.Copy(c, io.LimitReader(f, n))
		case wayRead:
			_, err = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{io.LimitReader(f, n)}, make([]byte, 256<<10))
		default:
			_, err = c.Write(s.content[:n])
		}
		if err != nil {
			return err
		}
	}
}

// bare is a running server of bare bytes.
type bare struct {
	pid  int
	conn *grpc.ClientConn
	tcp  string // address of the one without gRPC
	stop func() error
}

// startBare starts a server of the bytes of a file in a process of its own.
func startBare(ctx context.Context, file string) (*bare, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, dataServerFlag, file) //nolint:gosec // this very program
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b := &bare{pid: cmd.Process.Pid, stop: func() error { return errors.Join(in.Close(), cmd.Wait()) }}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		over, tcp, _ := strings.Cut(strings.TrimSpace(line), " ")
		b.tcp = tcp
		b.conn, err = grpc.NewClient(over, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithWriteBufferSize(rawWriteBuffer),
			grpc.WithStaticStreamWindowSize(rawWindow), grpc.WithStaticConnWindowSize(rawWindow),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(2*rawChunk)))
	}
	if err != nil {
		return nil, errors.Join(err, b.stop())
	}
	return b, nil
}

// overGRPC reads n bytes by gRPC.
func (b *bare) overGRPC(ctx context.Context, way byte, n int64) error {
	stream, err := b.conn.NewStream(ctx, rawStream(), "/bare.Bytes/Read")
	if err != nil {
		return err
	}
	q := mem.BufferSlice{mem.SliceBuffer(requestOf(way, n))}
	if err := stream.SendMsg(&q); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		var got mem.BufferSlice
		err := stream.RecvMsg(&got)
		if errors.Is(err, io.EOF) && n == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		n -= int64(got.Len())
		got.Free()
	}
}

// overTCP reads n bytes by a connection of which nothing but the bytes is known.
func overTCP(c net.Conn, buf []byte, way byte, n int64) error {
	if _, err := c.Write(requestOf(way, n)); err != nil {
		return err
	}
	for n > 0 {
		k, err := c.Read(buf[:min(n, int64(len(buf)))])
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}
