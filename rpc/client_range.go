package rpc

import (
	"context"
	"io"

	"google.golang.org/grpc/status"

	"github.com/freshet-io/freshet"
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
// is KindUnsupported. An error that is not of the node's says nothing of what To holds.
func (p *NodePool) ReadRange(ctx context.Context, n freshet.Node, r RangeRead) error {
	reads := [1]RangeRead{r}
	errs := [1]error{}
	if err := p.readRanges(ctx, n, reads[:], errs[:]); err != nil {
		return err
	}
	return errs[0]
}

// ReadRanges fills the reads from what node n holds, by as few messages as they fit
// in, and returns the error of each, as ReadRange does, or that of all.
func (p *NodePool) ReadRanges(ctx context.Context, n freshet.Node, reads []RangeRead) ([]error, error) {
	errs := make([]error, len(reads))
	return errs, p.readRanges(ctx, n, reads, errs)
}

func (p *NodePool) readRanges(ctx context.Context, n freshet.Node, reads []RangeRead, errs []error) error {
	for i := range reads {
		if len(reads[i].To) > MaxRangeBytes {
			return freshet.Errorf(freshet.KindInvalid, "read ranges", "", "a range of %d bytes: at most %d are read at once", len(reads[i].To), MaxRangeBytes)
		}
	}
	if len(reads) == 0 {
		return nil
	}
	if ctx.Err() != nil {
		return endOf(ctx)
	}
	return p.lanes.of(p, n.GRPC).read(ctx, reads, errs)
}

// endOf returns the error of reads whose caller waits no more.
func endOf(ctx context.Context) error {
	return ErrorOf(status.FromContextError(ctx.Err()).Err())
}

func shortRange() error {
	return freshet.Errorf(freshet.KindCorrupt, "read ranges", "", "the node sent fewer bytes than it said: %w", io.ErrUnexpectedEOF)
}
