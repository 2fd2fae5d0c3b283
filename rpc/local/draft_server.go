package local

import (
	"context"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// Fetcher is what a Lender can do besides, whose blocks can be read while they are
// fetched.
type Fetcher interface {
	// Fetch opens a block for a read, fetching it if the node does not hold it: then
	// the loan is a Draft, and the bytes that are wanted are there up to have.
	// KindStale: the storage holds another version. All else: it is to be streamed.
	Fetch(ctx context.Context, req freshet.BlockRead) (l Loan, have int64, err error)
	// ReadAhead begins to fetch a block, and reports whether it is there or on its way.
	ReadAhead(ctx context.Context, req freshet.BlockRead) bool
}

// Draft is the loan of a block that is being fetched.
type Draft interface {
	Loan
	// Await returns when the byte at off can be read, up to where all can.
	Await(ctx context.Context, off, want int64) (have int64, err error)
	Origin() freshet.Origin
}

// maxPending bounds the answers that one client waits for at a time.
const maxPending = 1024

// answerLater has do answer while other requests of the client are served. It ends
// with the connection.
func (s *Server) answerLater(n *session, id uint64, do func() error) error {
	return s.later(n, do, func() error {
		return s.send(n, refusal(id, freshet.Errorf(freshet.KindExhausted, "serve local client", "", "this client waits for %d answers", maxPending)), nil)
	})
}

// later has do done, or tooMany at once.
func (s *Server) later(n *session, do, tooMany func() error) error {
	if n.busy.Add(1) > maxPending {
		n.busy.Add(-1)
		return tooMany()
	}
	n.work.Go(func() {
		defer n.busy.Add(-1)
		if do() != nil {
			_ = n.conn.Close() // it does not read, or has gone
		}
	})
	return nil
}

// fetch answers a request for a block that may have to be fetched.
func (s *Server) fetch(ctx context.Context, n *session, id uint64, q *freshetv1.LocalFetch) error {
	req, err := rpc.ReadBlockOfWire(q.GetRead())
	if err != nil {
		return err
	}
	f, ok := s.lender.(Fetcher)
	switch {
	case !ok:
		return s.lend(ctx, n, id, q.GetRead())
	case q.GetAhead():
		f.ReadAhead(ctx, req)
		return s.send(n, progress(id, 0), nil)
	}
	return s.answerLater(n, id, func() error {
		loan, have, err := s.borrow(n, req, func() (Loan, int64, error) { return f.Fetch(ctx, req) })
		d, isDraft := loan.(Draft)
		s.results.WithLabelValues(result(err, isDraft)).Inc()
		switch {
		case err != nil:
			return s.send(n, refusal(id, err), nil)
		case !isDraft:
			return s.passLoan(n, id, loan)
		}
		return s.pass(n, loan, func(number uint64) *freshetv1.LocalAnswer {
			at := d.Layout()
			return &freshetv1.LocalAnswer{Id: id, What: &freshetv1.LocalAnswer_Draft{Draft: &freshetv1.LocalDraft{
				Loan: number, Offset: at.Offset, Length: at.Length, From: d.Origin().String(), Have: have,
			}}}
		})
	})
}

func progress(id uint64, have int64) *freshetv1.LocalAnswer {
	return &freshetv1.LocalAnswer{Id: id, What: &freshetv1.LocalAnswer_Progress{Progress: &freshetv1.LocalProgress{Have: have}}}
}

// await answers how far a draft has come.
func (s *Server) await(ctx context.Context, n *session, id uint64, q *freshetv1.LocalAwait) error {
	s.mu.Lock()
	h := n.loans[q.GetLoan()]
	s.mu.Unlock()
	if h == nil {
		return s.send(n, refusal(id, freshet.Errorf(freshet.KindNotExist, "fetch block", "", "the block is not lent any more")), nil)
	}
	d, ok := h.Loan.(Draft)
	if !ok {
		return freshet.Errorf(freshet.KindInvalid, "serve local client", "", "it waits for a block that is whole")
	}
	return s.answerLater(n, id, func() error {
		have, err := d.Await(ctx, q.GetOffset(), q.GetWant())
		if err != nil {
			return s.send(n, refusal(id, err), nil)
		}
		return s.send(n, progress(id, have), nil)
	})
}
