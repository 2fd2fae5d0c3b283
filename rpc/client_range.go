package rpc

import (
	"context"
	"io"
	"sync"

	"google.golang.org/grpc/mem"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// RangeRead is a positioned read of a block: bytes from Offset on into To.
type RangeRead struct {
	Block  freshet.Block
	Source freshet.Source
	Offset int64 // in the block
	To     []byte
}

// ReadRange fills r.To from what node n holds; it does not wait for a storage. Reads
// of one node that come while another is on its way travel together. The range is
// at most MaxRangeBytes. KindNotExist: the node does not hold the block; ReadBlock
// gets it all the same. So it does where the node is older than this call, which
// is KindUnsupported.
func (p *NodePool) ReadRange(ctx context.Context, n freshet.Node, r RangeRead) error {
	answer, err := p.ranges.of(p, n).do(ctx, r)
	if err != nil {
		return err
	}
	defer answer.data.free()
	if answer.err == nil && answer.data.read(r.To) != len(r.To) {
		return shortRange()
	}
	return answer.err
}

// ReadRanges fills the reads from what node n holds, by as few calls as they fit in,
// and returns the error of each, as ReadRange does, or that of all.
func (p *NodePool) ReadRanges(ctx context.Context, n freshet.Node, reads []RangeRead) ([]error, error) {
	answers, err := p.readRanges(ctx, n, reads)
	if err != nil {
		return nil, err
	}
	errs := make([]error, len(reads))
	for i := range answers {
		a := &answers[i]
		if errs[i] = a.err; a.err == nil && a.data.read(reads[i].To) != len(reads[i].To) {
			errs[i] = shortRange()
		}
		a.data.free()
	}
	return errs, nil
}

func shortRange() error {
	return freshet.Errorf(freshet.KindCorrupt, "read ranges", "", "the node sent fewer bytes than it said: %w", io.ErrUnexpectedEOF)
}

// rangeAnswer is what one read came to. Its bytes are copied by whoever asked for
// them, and by nobody else: he may have gone.
type rangeAnswer struct {
	data arrived
	err  error
}

// rangeGathers are the reads of each node.
type rangeGathers struct {
	mu sync.Mutex
	by map[string]*gather[RangeRead, rangeAnswer]
}

func (g *rangeGathers) of(p *NodePool, n freshet.Node) *gather[RangeRead, rangeAnswer] {
	g.mu.Lock()
	defer g.mu.Unlock()
	if known, ok := g.by[n.GRPC]; ok {
		return known
	}
	made := &gather[RangeRead, rangeAnswer]{
		alone: func(ctx context.Context, r RangeRead) (rangeAnswer, error) {
			answers, err := p.readRanges(ctx, n, []RangeRead{r})
			if err != nil {
				return rangeAnswer{}, err
			}
			return answers[0], nil
		},
		many: func(ctx context.Context, reads []RangeRead) ([]rangeAnswer, []uint32, error) {
			answers, err := p.readRanges(ctx, n, reads)
			return answers, nil, err
		},
	}
	if g.by == nil {
		g.by = map[string]*gather[RangeRead, rangeAnswer]{}
	}
	g.by[n.GRPC] = made
	return made
}

// readRanges makes the calls.
func (p *NodePool) readRanges(ctx context.Context, n freshet.Node, reads []RangeRead) ([]rangeAnswer, error) {
	conn, err := p.conns.Get(n.GRPC)
	if err != nil {
		return nil, err
	}
	answers := make([]rangeAnswer, 0, len(reads))
	for len(reads) > 0 {
		req, k := rangesToWire(reads)
		var out freshetv1.ReadRangesResponse
		m := payload{head: &out, field: rangeData}
		if err := conn.Invoke(ctx, freshetv1.RangeService_ReadRanges_FullMethodName, req, &m, p.raw...); err != nil {
			return nil, ErrorOf(err)
		}
		if answers, err = appendAnswers(answers, reads[:k], &out, &m); err != nil {
			return nil, err
		}
		reads = reads[k:]
	}
	return answers, nil
}

// rangesToWire makes a request of as many of the reads as fit in one, at least of
// the first.
func rangesToWire(reads []RangeRead) (req *freshetv1.ReadRangesRequest, n int) {
	room := MaxRangeBytes
	for n < min(len(reads), MaxRanges) && (n == 0 || len(reads[n].To) <= room) {
		room -= len(reads[n].To)
		n++
	}
	ranges := make([]freshetv1.BlockRange, n)
	req = &freshetv1.ReadRangesRequest{Ranges: make([]*freshetv1.BlockRange, n)}
	for i := range ranges {
		r, to := &reads[i], &ranges[i]
		to.FileId, to.Index, to.BlockLength = uint64(r.Block.ID.File), r.Block.ID.Index, r.Block.Length
		to.Fingerprint, to.Offset, to.Length = r.Source.Fingerprint.String(), r.Offset, int64(len(r.To))
		req.Ranges[i] = to
	}
	return req, n
}

// appendAnswers takes an answer apart.
func appendAnswers(answers []rangeAnswer, reads []RangeRead, out *freshetv1.ReadRangesResponse, m *payload) ([]rangeAnswer, error) {
	defer m.free()
	if len(out.GetOutcomes()) != len(reads) {
		return nil, freshet.Errorf(freshet.KindInternal, "read ranges", "", "%d answers to %d ranges", len(out.GetOutcomes()), len(reads))
	}
	in := segments{rest: m.data, left: m.data.Len()}
	for i, o := range out.GetOutcomes() {
		var a rangeAnswer
		switch {
		case o.GetError() != nil:
			kind, known := freshet.ParseKind(o.GetError().GetKind())
			if !known {
				kind = freshet.KindInternal
			}
			a.err = &freshet.Error{Kind: kind, Err: &remoteError{kind: kind, message: o.GetMessage()}}
		case o.GetLength() != int64(len(reads[i].To)):
			a.err = shortRange()
		default:
			var err error
			var bufs mem.BufferSlice
			if bufs, err = in.take(uint64(o.GetLength())); err != nil { //nolint:gosec // not negative
				a.err = shortRange()
			}
			a.data.bufs = bufs
		}
		answers = append(answers, a)
	}
	return answers, nil
}
