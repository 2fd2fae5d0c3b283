package rpc

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// NodePool calls cache nodes by their addresses. Safe for concurrent use.
type NodePool struct {
	conns *Conns
	room  room
	lanes rangeLanes
	raw   []grpc.CallOption // of calls whose messages are parcels
}

// NewNodePool returns a pool over conns, which should allow messages of
// MaxDataMessage.
func NewNodePool(conns *Conns) *NodePool { return &NodePool{conns: conns, raw: direct()} }

// MaxDataMessage is the largest message of the data port, in bytes.
const MaxDataMessage = maxDataMessage

// ReadBlock reads a range of a block from node n; see Blocks.
func (p *NodePool) ReadBlock(ctx context.Context, n freshet.Node, q freshet.BlockRead) (freshet.BlockStream, error) {
	conn, err := p.conns.Get(n.GRPC)
	if err != nil {
		return nil, err
	}
	if q.Length < 0 {
		q.Length = q.Block.Length - q.Offset
	}
	ctx, cancel := context.WithCancel(ctx)
	req := &freshetv1.ReadBlockRequest{
		Block: blockToWire(q.Block), Source: sourceToWire(q.Source), Offset: q.Offset, Length: q.Length,
		ReadType: q.Type.String(), OnlyCached: q.Cached,
	}
	stream, err := freshetv1.NewBlockServiceClient(conn).ReadBlock(ctx, req, p.raw...)
	if err != nil {
		cancel()
		return nil, ErrorOf(err)
	}
	var first freshetv1.ReadBlockResponse
	m := chunkOf(&first)
	if err := stream.RecvMsg(m); err != nil {
		cancel()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, ErrorOf(err)
	}
	r := &downloadReader{stream: stream, cancel: cancel, left: q.Length, length: q.Length, origin: originOfWire(first.GetFrom())}
	if err := r.take(m); err != nil {
		cancel()
		return nil, err
	}
	return r, nil
}

// downloadReader reads the chunks of one ReadBlock. A stream that ends early is
// an error, never a short success.
type downloadReader struct {
	stream grpc.ServerStreamingClient[freshetv1.ReadBlockResponse]
	cancel context.CancelFunc
	rest   arrived
	left   int64 // bytes that were not delivered
	length int64
	origin freshet.Origin
}

func originOfWire(s string) freshet.Origin {
	for _, o := range []freshet.Origin{freshet.OriginHit, freshet.OriginRemote} {
		if s == o.String() {
			return o
		}
	}
	return freshet.OriginUFS
}

// Length implements freshet.BlockStream.
func (r *downloadReader) Length() int64 { return r.length }

// Origin implements freshet.BlockStream.
func (r *downloadReader) Origin() freshet.Origin { return r.origin }

// Read implements io.Reader.
func (r *downloadReader) Read(p []byte) (int, error) {
	for {
		n := r.rest.read(p)
		r.left -= int64(n)
		switch {
		case n > 0 || len(p) == 0:
			return n, nil
		case r.left <= 0:
			return 0, io.EOF
		}
		if err := r.next(); err != nil {
			return 0, err
		}
	}
}

func (r *downloadReader) next() error {
	m := chunkOf(nil)
	err := r.stream.RecvMsg(m)
	if errors.Is(err, io.EOF) {
		return freshet.Errorf(freshet.KindUnavailable, "read block", "", "%d bytes are missing: %w", r.left, io.ErrUnexpectedEOF)
	}
	if err != nil {
		return ErrorOf(err)
	}
	return r.take(m)
}

// take accepts the bytes of a message; more than were asked for are none of ours.
func (r *downloadReader) take(m *payload) error {
	if n := int64(m.data.Len()); n > r.left {
		m.free()
		return freshet.Errorf(freshet.KindCorrupt, "read block", "", "the node sent %d bytes too many", n-r.left)
	}
	r.rest = arrived{bufs: m.data}
	return nil
}

// WriteTo implements io.WriterTo: chunks go on without another copy.
func (r *downloadReader) WriteTo(w io.Writer) (total int64, err error) {
	for r.left > 0 {
		n, err := r.rest.writeTo(w)
		r.left -= n
		total += n
		if err == nil && r.left > 0 {
			err = r.next()
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// Close ends the stream.
func (r *downloadReader) Close() error {
	r.cancel()
	r.rest.free()
	r.left = 0
	return nil
}

// WriteFile streams body to the node of the ticket; see Blocks. The body's own
// error aborts the upload.
func (p *NodePool) WriteFile(ctx context.Context, t freshet.Ticket, body io.Reader, length int64) (freshet.Completed, error) {
	conn, err := p.conns.Get(t.Node.GRPC)
	if err != nil {
		return freshet.Completed{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // an upload that stops half-way is aborted by the node
	stream, err := freshetv1.NewBlockServiceClient(conn).WriteFile(ctx, p.raw...)
	if err != nil {
		return freshet.Completed{}, ErrorOf(err)
	}
	if err := p.upload(stream, t, body, length); err != nil {
		return freshet.Completed{}, err
	}
	r, err := stream.CloseAndRecv()
	if err != nil {
		return freshet.Completed{}, ErrorOf(err)
	}
	return completedOfWire(r.GetEntry(), r.GetToken())
}

type uploadStream = grpc.ClientStreamingClient[freshetv1.WriteFileRequest, freshetv1.WriteFileResponse]

func (p *NodePool) upload(stream uploadStream, t freshet.Ticket, body io.Reader, length int64) error {
	defer p.room.enter()()
	m := &freshetv1.WriteFileRequest{Ticket: ticketToWire(t), Length: length}
	for !m.GetEnd() {
		size := p.room.chunk()
		if length >= 0 {
			size = min(size-1, length) + 1 // one more, so that a longer body is noticed
		}
		msg := partOf(m)
		b, err := p.room.fill(size, func(buf []byte) (int, error) { return io.ReadFull(body, buf) })
		if b != nil {
			msg.data = mem.BufferSlice{b}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			m.End = true
		default:
			msg.free()
			return freshet.Wrap("read body", t.Path, err)
		}
		if err := stream.SendMsg(msg); err != nil {
			return sendError(stream, err)
		}
		if !m.GetEnd() {
			m = &freshetv1.WriteFileRequest{}
		}
	}
	return nil
}

// sendError returns what the server said: after it ended the stream, Send only
// reports io.EOF.
func sendError(stream uploadStream, err error) error {
	if !errors.Is(err, io.EOF) {
		return ErrorOf(err)
	}
	_, rerr := stream.CloseAndRecv()
	if rerr == nil {
		rerr = io.ErrUnexpectedEOF
	}
	return ErrorOf(rerr)
}
