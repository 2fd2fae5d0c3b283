package fill

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/freshet-io/freshet"
)

// What bounds the parts of blocks that readers share: the bytes of one, and of all.
const (
	maxPart  = 1 << 20
	maxParts = 32 << 20
)

// part is a short range of a block, fetched by itself and once for all readers that
// want bytes of it at the time. Its bytes are in memory until the last of them has
// left.
type part struct {
	filler *Filler
	req    freshet.BlockRead
	span   span
	buf    []byte
	refs   int // the readers; guarded by the filler's mu
	cancel context.CancelFunc

	mu     sync.Mutex
	have   int64
	done   bool
	err    error
	origin freshet.Origin
	more   chan struct{} // closed when any of this changes
}

// shareFrom returns the part that has the bytes, or begins one; nil if they are too
// many, or all parts together are.
func (f *Filler) share(req freshet.BlockRead, want span, noRemote bool) *part {
	if !f.named(req) || want.n > maxPart {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.parts[req.Block.ID] {
		if p.covers(req, want) {
			p.refs++
			return p
		}
	}
	if f.ctx == nil || f.held+want.n > maxParts {
		return nil
	}
	ctx, cancel := context.WithCancel(f.ctx)
	p := &part{
		filler: f, req: req, span: want, buf: make([]byte, want.n), refs: 1, cancel: cancel,
		origin: freshet.OriginUFS, more: make(chan struct{}),
	}
	if !noRemote && len(f.remotes(req)) > 0 {
		p.origin = freshet.OriginRemote
	}
	f.held += want.n
	f.parts[req.Block.ID] = append(f.parts[req.Block.ID], p)
	f.wg.Go(func() {
		err := p.fetch(ctx)
		p.update(func() { p.done, p.err = true, err })
		if err != nil {
			f.mu.Lock()
			f.forget(p) // nobody else gets the error
			f.mu.Unlock()
		}
	})
	return p
}

// covers reports whether the part brings the bytes, of the same version.
func (p *part) covers(req freshet.BlockRead, want span) bool {
	return want.off >= p.span.off && want.off+want.n <= p.span.off+p.span.n &&
		p.req.Block.Length == req.Block.Length && p.req.Source.Fingerprint.SameContent(req.Source.Fingerprint)
}

// forget takes the part away from those who come, with the filler's mu held.
func (f *Filler) forget(p *part) {
	id := p.req.Block.ID
	f.parts[id] = slices.DeleteFunc(f.parts[id], func(q *part) bool { return q == p })
	if len(f.parts[id]) == 0 {
		delete(f.parts, id)
	}
}

func (f *Filler) leavePart(p *part) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.refs--; p.refs > 0 {
		return
	}
	p.cancel()
	f.held -= p.span.n
	f.forget(p)
}

func (p *part) update(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	close(p.more)
	p.more = make(chan struct{})
}

// fetch takes the bytes from the first source that has them.
func (p *part) fetch(ctx context.Context) error {
	f := p.filler
	body, origin, err := f.openDirect(ctx, p.req, p.span, p.origin != freshet.OriginRemote)
	if err != nil {
		return err
	}
	p.update(func() { p.origin = origin })
	for tries := 0; ; tries++ {
		from := p.have
		err = p.fill(body)
		_ = body.Close() //nolint:errcheck // only read from
		if err == nil || ctx.Err() != nil || !again(err, tries, p.have > from || origin == freshet.OriginRemote) {
			return err
		}
		at := span{p.span.off + p.have, p.span.n - p.have}
		if body, origin, err = f.openDirect(ctx, p.req, at, true); err != nil {
			return err
		}
		p.update(func() { p.origin = origin })
	}
}

// again reports whether a source that broke off is to be asked for the rest.
func again(err error, tries int, progress bool) bool {
	return tries < maxTries && progress && freshet.IsKind(err, freshet.KindUnavailable) && !errors.Is(err, errStalled)
}

func (p *part) fill(body io.Reader) error {
	for p.have < p.span.n {
		n, err := body.Read(p.buf[p.have:])
		if n > 0 {
			p.update(func() { p.have += int64(n) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// partSource gives a reader the bytes of a part.
type partSource struct{ p *part }

func (s partSource) read(ctx context.Context, b []byte, off int64) (int, error) {
	p := s.p
	at := off - p.span.off
	for {
		p.mu.Lock()
		have, done, err, more := p.have, p.done, p.err, p.more
		p.mu.Unlock()
		switch {
		case at < have:
			return copy(b, p.buf[at:have]), nil
		case done && err == nil:
			return 0, io.EOF
		case done:
			return 0, err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (s partSource) origin() freshet.Origin {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	return s.p.origin
}

func (s partSource) close() error {
	s.p.filler.leavePart(s.p)
	return nil
}
