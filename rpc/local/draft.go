package local

import (
	"context"
	"errors"
	"io"
	"math"
	"sync/atomic"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// wholeFrom is up to which length a node fetches a block as a whole, whatever part of
// it is asked for; of a longer one this is done if the part is half of it.
const wholeFrom = 1 << 20

// draft is a block that is read while the node fetches it. Its descriptor is closed
// when its reader has let it go or the node wants it back.
type draft struct {
	from   *conn
	loan   uint64
	fd     int
	offset int64 // of the block in the file
	length int64
	origin freshet.Origin
	refs   atomic.Int64
}

func (d *draft) acquire() bool {
	for {
		n := d.refs.Load()
		if n <= 0 {
			return false
		}
		if d.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (d *draft) release() {
	if d.refs.Add(-1) == 0 {
		closeAll([]int{d.fd})
		d.from.release(d.loan)
	}
}

// await returns up to where the bytes from off can be read.
func (d *draft) await(ctx context.Context, off int64) (int64, error) {
	a, err := d.from.askLong(ctx, &freshetv1.LocalRequest{What: &freshetv1.LocalRequest_Await{
		Await: &freshetv1.LocalAwait{Loan: d.loan, Offset: off, Want: min(streamBuffer, d.length-off)},
	}})
	if err == nil && (!a.isHave || a.have <= off || a.have > d.length) {
		d.from.giveBack(a)
		err = errOtherAnswer()
	}
	return a.have, err
}

// setDraft accepts only what describes a block.
func (a *answer) setDraft(m *freshetv1.LocalDraft) error {
	a.loan, a.isDraft, a.from, a.have = m.GetLoan(), true, m.GetFrom(), m.GetHave()
	a.layout = freshet.BlockLayout{Offset: m.GetOffset(), Length: m.GetLength()}
	at := &a.layout
	if at.Offset < 0 || at.Length <= 0 || at.Length > freshet.MaxBlockSize || at.Offset > math.MaxInt64-at.Length || a.have < 0 || a.have > at.Length {
		return freshet.Errorf(freshet.KindCorrupt, "read block", "", "the node describes an impossible block")
	}
	return nil
}

// readAhead has the node begin to fetch a block.
func (c *conn) readAhead(ctx context.Context, q freshet.BlockRead) error {
	q.Offset, q.Length = 0, q.Block.Length
	a, err := c.ask(ctx, &freshetv1.LocalRequest{What: &freshetv1.LocalRequest_Fetch{
		Fetch: &freshetv1.LocalFetch{Read: rpc.ReadBlockToWire(q), Ahead: true},
	}})
	c.giveBack(a)
	return err
}

// fetches reports whether a read is one for which the node fetches the whole block, so
// that it is worth asking at the socket although the block may not be there.
func (p *Pool) fetches(n *freshet.Node, q *freshet.BlockRead) bool {
	if p.opts.Off || n.Socket == "" || n.Incarnation == 0 || q.Type == freshet.ReadNoCache || q.Cached || q.Length <= 0 ||
		q.Block.Length > wholeFrom && q.Length < q.Block.Length/2 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open[key{host{n.ID, n.Incarnation}, q.Block.ID}] == nil
}

// fetch asks for a block that may have to be fetched; nil without an error if it is to
// be streamed. KindStale: the storage holds another version.
func (p *Pool) fetch(ctx context.Context, n freshet.Node, q freshet.BlockRead) (freshet.BlockStream, error) {
	c := p.reach(ctx, n)
	if c == nil {
		return nil, nil //nolint:nilnil // the doc says so
	}
	a, err := c.askLong(ctx, &freshetv1.LocalRequest{What: &freshetv1.LocalRequest_Fetch{Fetch: &freshetv1.LocalFetch{Read: rpc.ReadBlockToWire(q)}}})
	if err != nil {
		if freshet.IsKind(err, freshet.KindStale) {
			return nil, err
		}
		return nil, nil //nolint:nilnil // as above
	}
	s := stream{pool: p, ctx: ctx, node: n, req: q}
	switch {
	case !a.lends() || a.layout.Length != q.Block.Length || a.isDraft && a.have <= q.Offset:
		c.giveBack(a)
		return nil, nil //nolint:nilnil // as above
	case a.isLoan:
		d := p.accept(key{host{n.ID, n.Incarnation}, q.Block.ID}, q.Source.Fingerprint, c, a)
		if d == nil {
			return nil, nil //nolint:nilnil // as above
		}
		d.release()
		s.desc = d
		return &s, nil
	}
	d := &draft{from: c, loan: a.loan, fd: a.fd, offset: a.layout.Offset, length: a.layout.Length, origin: originOf(a.from)}
	d.refs.Store(1)
	p.noteDraft(d)
	return &cold{stream: s, draft: d, origin: d.origin, have: a.have}, nil
}

func originOf(s string) freshet.Origin {
	for _, o := range []freshet.Origin{freshet.OriginHit, freshet.OriginRemote} {
		if o.String() == s {
			return o
		}
	}
	return freshet.OriginUFS
}

// noteDraft remembers a draft for the case that the node wants it back; if it does
// already, it is given back.
func (p *Pool) noteDraft(d *draft) {
	p.mu.Lock()
	keep := !p.closed && !d.from.isRecalled(d.loan)
	if keep {
		p.drafts[d] = struct{}{}
		p.stats.Drafts++
	}
	p.mu.Unlock()
	if !keep {
		d.release()
	}
}

// dropDraft ends the use of a draft.
func (p *Pool) dropDraft(d *draft) {
	p.mu.Lock()
	_, held := p.drafts[d]
	delete(p.drafts, d)
	p.mu.Unlock()
	if held {
		d.release()
	}
}

// recallDrafts gives drafts back that the node wants.
func (p *Pool) recallDrafts(from *conn, loans map[uint64]struct{}) {
	var out []*draft
	p.mu.Lock()
	for d := range p.drafts {
		if _, ok := loans[d.loan]; ok && d.from == from {
			delete(p.drafts, d)
			out = append(out, d)
		}
	}
	p.mu.Unlock()
	for _, d := range out {
		d.release()
	}
}

// cold reads a range of a block while the node fetches it, and goes on as any other
// read of the block where that fails.
type cold struct {
	stream

	draft  *draft // nil: it has failed
	origin freshet.Origin
	have   int64 // all bytes of the block from where the stream is up to there can be read
}

// Origin implements freshet.BlockStream.
func (c *cold) Origin() freshet.Origin { return c.origin }

// Close implements io.Closer.
func (c *cold) Close() error {
	c.drop()
	return c.stream.Close()
}

func (c *cold) drop() {
	if c.draft != nil {
		c.pool.dropDraft(c.draft)
		c.draft = nil
	}
}

// Read implements io.Reader.
func (c *cold) Read(p []byte) (int, error) {
	n := min(int64(len(p)), c.req.Length-c.done)
	if c.draft == nil || n == 0 {
		return c.stream.Read(p)
	}
	n, err := c.readDraft(p[:n])
	switch {
	case err == nil:
		c.done += n
		return int(n), nil
	case freshet.IsKind(err, freshet.KindStale):
		return 0, err // no other way leads to these bytes
	}
	c.drop()
	return c.stream.Read(p)
}

// readDraft reads bytes that are there, waiting for the first of them.
func (c *cold) readDraft(p []byte) (int64, error) {
	if !c.draft.acquire() {
		return 0, errRecalled
	}
	defer c.draft.release()
	off := c.req.Offset + c.done
	if off >= c.have {
		have, err := c.draft.await(c.ctx, off)
		if err != nil {
			return 0, err
		}
		c.have = have
	}
	n := min(int64(len(p)), c.have-off)
	return n, readFull(c.draft.fd, p[:n], c.draft.offset+off)
}

var errRecalled = errors.New("the node wants the block back")

// WriteTo implements io.WriterTo.
func (c *cold) WriteTo(w io.Writer) (int64, error) {
	buf, free := c.pool.buffer(c.req.Length - c.done)
	defer free()
	var total int64
	for c.draft != nil {
		n, err := c.Read(buf)
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		m, err := w.Write(buf[:n])
		total += int64(m)
		if err != nil {
			return total, err
		}
	}
	n, err := c.stream.WriteTo(w)
	return total + n, err
}
