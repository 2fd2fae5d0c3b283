package rpc

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// Limits of one call.
const (
	// MaxRanges is how many ranges one call may ask for.
	MaxRanges = 256
	// MaxRangeBytes is how many bytes all its ranges may come to.
	MaxRangeBytes = ChunkSize
	// maxReason is how many characters are said of a range that can't be read: the
	// bytes and all reasons fit in a message.
	maxReason = 40
)

// rangeData is the field of the bytes, as ranges.proto has it.
const rangeData = 2

// RangeServer adapts Blocks to the wire: what a cache node serves of its own tiers
// at once.
type RangeServer struct {
	freshetv1.UnimplementedRangeServiceServer
	blocks Blocks
	room   room
}

// NewRangeServer returns the adapter.
func NewRangeServer(b Blocks) *RangeServer { return &RangeServer{blocks: b} }

// RegisterRanges serves s on r, the Registrar of a Server.
func RegisterRanges(r grpc.ServiceRegistrar, s *RangeServer) {
	desc := freshetv1.RangeService_ServiceDesc
	desc.Methods = slices.Clone(desc.Methods)
	desc.Methods[0].Handler = func(_ any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		req := new(freshetv1.ReadRangesRequest)
		if err := dec(req); err != nil {
			return nil, err
		}
		handle := func(ctx context.Context, _ any) (any, error) { return s.read(ctx, req) }
		if interceptor == nil {
			return handle(ctx, req)
		}
		return interceptor(ctx, req, &grpc.UnaryServerInfo{Server: s, FullMethod: freshetv1.RangeService_ReadRanges_FullMethodName}, handle)
	}
	r.RegisterService(&desc, s)
}

// read answers a call.
func (s *RangeServer) read(ctx context.Context, req *freshetv1.ReadRangesRequest) (*payload, error) {
	total := int64(0)
	for _, r := range req.GetRanges() {
		if r.GetLength() < 0 || r.GetLength() > MaxRangeBytes {
			return nil, freshet.Errorf(freshet.KindInvalid, "read ranges", "", "a range of %d bytes: at most %d are read in a call", r.GetLength(), MaxRangeBytes)
		}
		total += r.GetLength()
	}
	if len(req.GetRanges()) > MaxRanges || total > MaxRangeBytes {
		return nil, freshet.Errorf(freshet.KindInvalid, "read ranges", "", "%d ranges of %d bytes together: at most %d of %d bytes are read in a call",
			len(req.GetRanges()), total, MaxRanges, MaxRangeBytes)
	}
	out := &freshetv1.ReadRangesResponse{Outcomes: make([]*freshetv1.RangeOutcome, len(req.GetRanges()))}
	outcomes := make([]freshetv1.RangeOutcome, len(req.GetRanges()))
	to := joined{room: &s.room, size: int(total)}
	defer to.close()
	from := opened{blocks: s.blocks}
	defer from.close()
	for i, r := range req.GetRanges() {
		out.Outcomes[i] = &outcomes[i]
		body, err := from.at(ctx, r)
		if err == nil {
			err = to.add(body, r.GetLength())
		}
		if err != nil {
			from.close() // whatever it was: the next range begins anew
			outcomes[i].Error = &freshetv1.ErrorDetail{Kind: kindOf(err).String()}
			outcomes[i].Message = strings.ToValidUTF8(fmt.Sprintf("%.*s", maxReason, err.Error()), "\ufffd")
			continue
		}
		outcomes[i].Length = r.GetLength()
	}
	return &payload{head: out, field: rangeData, data: to.take()}, nil
}

// turner is a stream that can go on at another byte of its block.
type turner interface{ Turn(off, n int64) error }

// opened is the block that was read last: ranges of one mostly come together, and
// to open it costs more than to read a page of it.
type opened struct {
	blocks      Blocks
	id          freshet.BlockID
	length      int64
	fingerprint string
	body        freshet.BlockStream
}

// at returns a stream of the range.
func (o *opened) at(ctx context.Context, r *freshetv1.BlockRange) (freshet.BlockStream, error) {
	id := freshet.BlockID{File: freshet.FileID(r.GetFileId()), Index: r.GetIndex()}
	if o.body != nil && o.id == id && o.length == r.GetBlockLength() && o.fingerprint == r.GetFingerprint() {
		if t, ok := o.body.(turner); ok {
			return o.body, t.Turn(r.GetOffset(), r.GetLength())
		}
	}
	o.close()
	fp, err := fingerprintOfWire(r.GetFingerprint())
	if err != nil {
		return nil, err
	}
	q := freshet.BlockRead{
		Block: freshet.Block{ID: id, Length: r.GetBlockLength()}, Source: freshet.Source{Fingerprint: fp},
		Offset: r.GetOffset(), Length: r.GetLength(), Cached: true,
	}
	if q.Block.Length < 0 || q.Offset < 0 || q.Length > q.Block.Length-q.Offset {
		return nil, freshet.Errorf(freshet.KindInvalid, "read ranges", "", "range %d+%d is outside the block of %d bytes", q.Offset, q.Length, q.Block.Length)
	}
	q.Offset, q.Length = 0, q.Block.Length
	if o.body, err = o.blocks.Read(ctx, q); err != nil {
		o.body = nil
		return nil, err
	}
	o.id, o.length, o.fingerprint = id, r.GetBlockLength(), r.GetFingerprint()
	t, ok := o.body.(turner)
	if !ok {
		return nil, freshet.Errorf(freshet.KindUnsupported, "read ranges", "", "the node can't read at any place")
	}
	return o.body, t.Turn(r.GetOffset(), r.GetLength())
}

func (o *opened) close() {
	if o.body != nil {
		_ = o.body.Close() // read only
		o.body = nil
	}
}

// joined are the bytes of several streams behind each other: where they lie, if
// they are in memory, else in one buffer.
type joined struct {
	room *room
	size int // of the buffer
	buf  mem.Buffer
	raw  []byte
	used int
	all  mem.BufferSlice
}

// add takes n bytes of a stream, all or none.
func (g *joined) add(body freshet.BlockStream, n int64) error {
	before := len(g.all)
	if v, ok := body.(viewer); ok {
		for n > 0 {
			b := v.View(n)
			if len(b) == 0 {
				break
			}
			g.all = append(g.all, mem.SliceBuffer(b))
			n -= int64(len(b))
		}
	}
	if n == 0 {
		return nil
	}
	if g.buf == nil {
		buf := g.room.Get(g.size)
		g.raw, g.buf = *buf, mem.NewBuffer(buf, g.room)
	}
	to := g.used + int(n)
	if _, err := io.ReadFull(body, g.raw[g.used:to]); err != nil {
		g.all = g.all[:before] // views: there is nothing to free
		return freshet.Wrap("read ranges", "", err)
	}
	g.all = append(g.all, g.buf.Slice(g.used, to))
	g.used = to
	return nil
}

// take gives the bytes away.
func (g *joined) take() mem.BufferSlice {
	all := g.all
	g.all = nil
	return all
}

// close gives up the buffer; what was taken of it holds it.
func (g *joined) close() {
	g.all.Free()
	if g.buf != nil {
		g.buf.Free()
	}
}
