package local

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// minShared is from how many bytes on it pays to share memory for a write.
const minShared = 256 << 10

// WriteFile writes a file through memory that the node of the ticket shares, if it is
// on this host, and over the network if not. A write that has begun ends as it does
// over the network: one that the node did not answer has an outcome that the caller
// has to ask for. Body is read into the shared memory itself.
func (p *Pool) WriteFile(ctx context.Context, t freshet.Ticket, body io.Reader, length int64) (freshet.Completed, error) {
	if length < 0 || length >= minShared {
		if w := p.share(ctx, t, length); w != nil {
			return w.write(ctx, t.Path, body)
		}
	}
	return p.next.WriteFile(ctx, t, body, length)
}

// outgoing is a file on its way to the node of this host.
type outgoing struct {
	c     *conn
	room  []byte
	slots int
	size  int // of a slot
	first int // bytes that go into the first one at most

	b, control []byte // for answers

	path   string // of the socket
	node   freshet.Node
	silent time.Duration // see silentFor
}

// share asks the node for memory; nil: there is none.
func (p *Pool) share(ctx context.Context, t freshet.Ticket, length int64) *outgoing {
	if p.opts.Off || t.Node.Socket == "" || t.Node.Incarnation == 0 {
		return nil
	}
	h := host{t.Node.ID, t.Node.Incarnation}
	now := p.opts.Clock.Elapsed()
	p.mu.Lock()
	out := p.closed || now < p.unshared[h]
	p.mu.Unlock()
	if out {
		return nil
	}
	w, err := p.openRoom(ctx, t, length)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		delete(p.unshared, h)
		p.stats.Writes++
		return w
	}
	if ctx.Err() == nil {
		if len(p.unshared) >= maxRefused {
			clear(p.unshared)
		}
		pause := redialAfter
		if freshet.IsKind(err, freshet.KindExhausted) {
			pause = reaskAfter
		}
		p.unshared[h] = now + pause
	}
	return nil
}

// openRoom makes a connection of its own for the write: the node learns by its end
// that the client has gone.
func (p *Pool) openRoom(ctx context.Context, t freshet.Ticket, length int64) (_ *outgoing, err error) {
	c, err := dial(ctx, p.path(t.Node), t.Node, nil)
	if err != nil {
		return nil, err
	}
	w := &outgoing{c: c, b: make([]byte, smallAnswer), control: rightsRoom(), path: p.path(t.Node), node: t.Node, silent: p.silent}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if err := c.c.SetDeadline(time.Now().Add(dialTimeout)); err != nil { //nolint:forbidigo // the kernel's clock
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = c.c.SetDeadline(time.Unix(1, 0)) })() //nolint:errcheck // it has ended then
	if err := c.send(&freshetv1.LocalRequest{Id: 1, What: &freshetv1.LocalRequest_Write{
		Write: &freshetv1.LocalWrite{Ticket: rpc.TicketToWire(t), Length: length},
	}}); err != nil {
		return nil, err
	}
	a, err := c.receive(w.b, w.control)
	if err != nil {
		return nil, err
	}
	if a.room == nil {
		if a.lends() {
			closeAll([]int{a.fd})
		}
		return nil, errors.Join(a.err, errAnswer)
	}
	defer closeAll([]int{a.fd})
	w.slots, w.size, w.first = int(a.room.GetSlots()), int(a.room.GetSlotSize()), int(a.room.GetFirst())
	if w.first == 0 {
		w.first = w.size
	}
	if w.room, err = mapRoom(a.fd, w.slots*w.size); err != nil {
		return nil, err
	}
	return w, c.c.SetDeadline(time.Time{})
}

// smallAnswer is more than what a node says of a write.
const smallAnswer = 64 << 10

var errAnswer = errors.New("the answer is to another question")

func (w *outgoing) close() {
	_ = w.c.c.Close() // the node has said what it had to say, or its word is not wanted
	if w.room != nil {
		unmapRoom(w.room)
	}
}

// write fills the room with body, a slot after the other, and returns what the node
// says at the end.
func (w *outgoing) write(ctx context.Context, path freshet.Path, body io.Reader) (freshet.Completed, error) {
	defer w.close()
	defer context.AfterFunc(ctx, func() { _ = w.c.c.SetDeadline(time.Unix(1, 0)) })() //nolint:errcheck // it has ended then
	free, most := w.slots, w.first
	for slot, end := 0, false; !end; slot = (slot + 1) % w.slots {
		for free == 0 {
			a, err := w.answer(ctx)
			if err != nil || a.outcome != nil {
				return w.outcome(a, err)
			}
			free += a.taken
		}
		n, err := io.ReadFull(body, w.room[slot*w.size:slot*w.size+most])
		most = w.size
		end = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return freshet.Completed{}, freshet.Wrap("read body", path, err)
		}
		m := &freshetv1.LocalFilled{Bytes: uint32(n), End: end} //nolint:gosec // at most a slot
		if err := w.c.send(&freshetv1.LocalRequest{Id: 1, What: &freshetv1.LocalRequest_Filled{Filled: m}}); err != nil {
			break // the node may have said why
		}
		free--
	}
	for {
		a, err := w.answer(ctx)
		if err != nil || a.outcome != nil {
			return w.outcome(a, err)
		}
	}
}

// answer waits for a word of the node. KindUnavailable: it has gone, or does not run.
func (w *outgoing) answer(ctx context.Context) (answer, error) {
	a, err := w.hear(ctx)
	switch {
	case ctx.Err() != nil:
		return a, &freshet.Error{Op: "write file", Kind: freshet.KindDeadline, Err: context.Cause(ctx)}
	case err != nil:
		return a, freshet.Errorf(freshet.KindUnavailable, "write file", "", "the node on this host went away: %w", err)
	case a.hasDescriptor():
		closeAll([]int{a.fd})
	case a.err != nil:
		return a, a.err
	case a.outcome != nil, a.taken > 0 && a.taken <= w.slots:
		return a, nil
	}
	return a, freshet.Errorf(freshet.KindUnavailable, "write file", "", "the node on this host says what makes no sense")
}

func (w *outgoing) outcome(a answer, err error) (freshet.Completed, error) {
	if err != nil {
		return freshet.Completed{}, err
	}
	return rpc.OutcomeOfWire(a.outcome)
}
