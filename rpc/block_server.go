package rpc

import (
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// BlockServer adapts Blocks to the wire: what a cache node serves.
type BlockServer struct {
	freshetv1.UnimplementedBlockServiceServer
	blocks Blocks
	room   room
}

// NewBlockServer returns the adapter.
func NewBlockServer(b Blocks) *BlockServer { return &BlockServer{blocks: b} }

// ReadBlock implements the service.
func (s *BlockServer) ReadBlock(req *freshetv1.ReadBlockRequest, stream grpc.ServerStreamingServer[freshetv1.ReadBlockResponse]) error {
	q, err := readBlockOfWire(req)
	if err != nil {
		return StatusOf(err)
	}
	body, err := s.blocks.Read(stream.Context(), q)
	if err != nil {
		return StatusOf(err)
	}
	defer func() { _ = body.Close() }() // read only
	defer s.room.enter()()
	left := body.Length()
	for first := true; ; first = false {
		// One byte more than there should be shows a source that has too many.
		data, err := s.chunk(body, min(s.room.chunk(), max(left, 0)+1))
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		left -= int64(data.Len())
		m := chunkOf(nil)
		m.data = data
		if first && (err == nil || ended) {
			// Only now is it sure where the bytes come from.
			m.head = &freshetv1.ReadBlockResponse{From: body.Origin().String()}
		}
		if m.head != nil || len(data) > 0 {
			if err := stream.SendMsg(m); err != nil {
				return err
			}
		}
		switch {
		case ended:
			return nil
		case err != nil:
			return StatusOf(err)
		}
	}
}

// viewer is a stream that can show bytes where they lie.
type viewer interface {
	// View returns up to n of the next bytes, which are taken from the stream and
	// never change as long as somebody has them; nil if they have to be read.
	View(n int64) []byte
}

// chunk returns the next n bytes, less at the end of the stream, with the errors of
// io.ReadFull.
func (s *BlockServer) chunk(body freshet.BlockStream, n int64) (mem.BufferSlice, error) {
	if v, ok := body.(viewer); ok {
		var all mem.BufferSlice
		for n > 0 {
			b := v.View(n)
			if len(b) == 0 {
				break
			}
			all = append(all, mem.SliceBuffer(b))
			n -= int64(len(b))
		}
		if len(all) > 0 {
			return all, nil
		}
	}
	b, err := s.room.fill(n, func(p []byte) (int, error) { return io.ReadFull(body, p) })
	if b == nil {
		return nil, err
	}
	return mem.BufferSlice{b}, err
}

func readBlockOfWire(req *freshetv1.ReadBlockRequest) (freshet.BlockRead, error) {
	src, err := sourceOfWire(req.GetSource())
	if err != nil {
		return freshet.BlockRead{}, err
	}
	read, err := freshet.ParseReadType(req.GetReadType())
	if err != nil {
		return freshet.BlockRead{}, err
	}
	q := freshet.BlockRead{
		Block: blockOfWire(req.GetBlock()), Source: src, Offset: req.GetOffset(), Length: req.GetLength(),
		Type: read, Cached: req.GetOnlyCached(),
	}
	if q.Offset < 0 || q.Length < 0 || q.Offset > q.Block.Length || q.Length > q.Block.Length-q.Offset {
		return q, freshet.Errorf(freshet.KindInvalid, "read block", "", "range %d+%d is outside the block of %d bytes", q.Offset, q.Length, q.Block.Length)
	}
	return q, nil
}

// WriteFile implements the service.
func (s *BlockServer) WriteFile(stream grpc.ClientStreamingServer[freshetv1.WriteFileRequest, freshetv1.WriteFileResponse]) error {
	body := &uploadReader{stream: stream}
	first, err := body.receive()
	if err != nil {
		return err
	}
	defer body.close()
	if first.GetTicket() == nil {
		return StatusOf(freshet.Errorf(freshet.KindInvalid, "write file", "", "the first message carries no ticket"))
	}
	t, err := ticketOfWire(first.GetTicket())
	if err != nil {
		return StatusOf(err)
	}
	done, err := s.blocks.Write(stream.Context(), t, body, first.GetLength())
	if err != nil {
		return StatusOf(err)
	}
	return stream.SendAndClose(&freshetv1.WriteFileResponse{Entry: EntryToWire(done.Info), Token: done.Token.String()})
}

// uploadReader reads the chunks of an upload. A stream that closes without the
// end mark is a client that died: it must not look like a complete body.
type uploadReader struct {
	stream grpc.ClientStreamingServer[freshetv1.WriteFileRequest, freshetv1.WriteFileResponse]

	mu    sync.Mutex // whoever waits in Read may be left behind
	rest  arrived
	ended bool
	left  bool // nobody wants more
}

// receive takes the next message, and keeps its data.
func (r *uploadReader) receive() (*freshetv1.WriteFileRequest, error) {
	m := new(freshetv1.WriteFileRequest)
	p := partOf(m)
	if err := r.stream.RecvMsg(p); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = m.GetEnd()
	if r.left {
		p.free()
	} else {
		r.rest = arrived{bufs: p.data}
	}
	return m, nil
}

// Read implements io.Reader.
func (r *uploadReader) Read(p []byte) (int, error) {
	for {
		r.mu.Lock()
		n, ended, left := r.rest.read(p), r.ended, r.left
		r.mu.Unlock()
		switch {
		case n > 0 || len(p) == 0:
			return n, nil
		case left:
			return 0, io.ErrClosedPipe
		case ended:
			return 0, io.EOF
		}
		_, err := r.receive()
		if errors.Is(err, io.EOF) {
			return 0, freshet.Errorf(freshet.KindInvalid, "write file", "", "the upload ended without its end mark: %w", io.ErrUnexpectedEOF)
		}
		if err != nil {
			return 0, ErrorOf(err)
		}
	}
}

// close gives up what was received and not read.
func (r *uploadReader) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = true
	r.rest.free()
}
