package fill

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
)

// errNotCached ends a fetch for a reason that lies in the cache, not in the
// source: readers go on without it.
var errNotCached = errors.New("the block can't be cached")

const copyBuffer = 256 << 10

// flight is one fetch of a block into the tier, from which any number of readers
// take the bytes as they arrive. The block comes in lanes, several at a time while
// readers wait for it, one at a time otherwise.
type flight struct {
	filler *Filler
	req    freshet.BlockRead // Block and Source count
	keep   bool              // it goes on when no reader is left

	remotes []freshet.Node

	refs   int  // the readers' and the fetch's own; guarded by the filler's mu
	ending bool // all bytes have come, the tier is about to have them; guarded likewise

	mu      sync.Mutex      // taken after the filler's
	readers int             // those that have not left
	soon    bool            // a reader is about to come
	urgent  chan struct{}   // closed when somebody waits for it
	ctx     context.Context //nolint:containedctx // that of the fetch, nil before it and after
	cancel  context.CancelCauseFunc
	crew    int // goroutines that fetch lanes
	workers sync.WaitGroup
	writer  *tier.Writer
	lanes   []lane // in the order in which they are to be fetched
	begun   int    // of them
	source  int    // the index in remotes of the node that is asked, len(remotes) for the storage
	done    bool
	err     error
	origin  freshet.Origin
	more    chan struct{} // closed when any of this changes; nil: nobody waits
}

// lane is a part of the block that is one request to the source.
type lane struct{ start, at, end int64 }

// newFlight returns a flight that begins at off, with a reference for the fetch.
func newFlight(f *Filler, req freshet.BlockRead, off int64) *flight {
	return &flight{
		filler: f, req: req, refs: 1, origin: freshet.OriginUFS, urgent: make(chan struct{}),
		lanes: lanesOf(req.Block.Length, off, f.opts.Range), remotes: f.remotes(req),
	}
}

// lanesOf divides a block: from the chunk of off to the end, then what is before it.
func lanesOf(length, off, size int64) []lane {
	off -= off % tier.ChunkSize
	var all []lane
	cut := func(from, to int64) {
		for ; from < to; from += size {
			all = append(all, lane{from, from, min(from+size, to)})
		}
	}
	cut(off, length)
	cut(0, off)
	return all
}

// serves reports whether the flight brings the bytes that req means: the same
// file version, which an ID that was used again after a restore is not.
func (fl *flight) serves(req freshet.BlockRead) bool {
	return fl.req.Block.Length == req.Block.Length && fl.req.Source.Fingerprint.SameContent(req.Source.Fingerprint)
}

// run fetches the block. It ends with the block in the tier or nothing.
func (fl *flight) run(ctx context.Context) {
	f := fl.filler
	err := fl.fetch(ctx)
	if err != nil && ctx.Err() != nil {
		err = errNotCached // the node is stopping; that is not the source's fault
	}
	f.mu.Lock()
	delete(f.flights, fl.req.Block.ID)
	f.mu.Unlock()
	fl.update(func() { fl.done, fl.err = true, err })
	f.leave(fl, false)
}

// update changes the flight and wakes whoever waits for a change.
func (fl *flight) update(change func()) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	change()
	if fl.more != nil {
		close(fl.more)
		fl.more = nil
	}
}

func (fl *flight) fetch(ctx context.Context) error {
	f, block := fl.filler, fl.req.Block
	w, err := f.deps.Blocks.Create(block.ID, block.Length)
	if err != nil {
		return errNotCached
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	fl.update(func() {
		fl.writer, fl.ctx, fl.cancel, fl.crew = w, ctx, cancel, 1
		fl.stopIfLeft() // the reader may have left already
	})
	fl.widen()
	fl.work(ctx)
	fl.update(func() { fl.ctx = nil }) // no worker begins after this
	fl.workers.Wait()
	if err := fl.failed(); err != nil {
		return err
	}
	// From here on the block is read from the tier, which verifies it.
	f.mu.Lock()
	fl.ending = true
	f.mu.Unlock()
	cluster, epoch, _ := f.deps.Identity()
	// A failure here costs the readers nothing: they have all the bytes.
	_ = w.Commit(tier.Meta{Cluster: cluster, Epoch: epoch, Fingerprint: fl.req.Source.Fingerprint}) //nolint:errcheck // see above
	return nil
}

// failed returns why a lane failed.
func (fl *flight) failed() error {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.err
}

// fail ends the fetch, which has begun, with the lock held. The first reason counts.
func (fl *flight) fail(err error) {
	if fl.err == nil {
		fl.err = err
		fl.cancel(errNotCached)
	}
}

// stopIfLeft ends, with the lock held, a fetch that is only for its readers when none
// is left and not all bytes have come.
func (fl *flight) stopIfLeft() {
	if !fl.needed() && !fl.keep && fl.ctx != nil && slices.ContainsFunc(fl.lanes, func(l lane) bool { return l.at < l.end }) {
		fl.fail(errNotCached)
	}
}

// widen begins more lanes, as many as may be fetched at a time, if readers wait.
func (fl *flight) widen() {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for fl.ctx != nil && fl.needed() && fl.crew < min(fl.filler.opts.Parallel, len(fl.lanes)) && fl.begun < len(fl.lanes) {
		select {
		case fl.filler.extra <- struct{}{}:
		default:
			return // the lane that every fetch has takes them one by one
		}
		ctx := fl.ctx
		fl.crew++
		fl.workers.Go(func() {
			fl.work(ctx)
			<-fl.filler.extra
		})
	}
}

// work fetches lanes until none is left, or one fails.
func (fl *flight) work(ctx context.Context) {
	for {
		l := fl.next()
		if l == nil {
			fl.update(func() { fl.crew-- })
			return
		}
		if err := fl.fetchLane(ctx, l); err != nil {
			fl.update(func() { fl.fail(err) })
		}
		fl.widen()
	}
}

// next returns a lane to fetch, nil if all were begun or the fetch has failed.
func (fl *flight) next() *lane {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.begun == len(fl.lanes) || fl.err != nil {
		return nil
	}
	l := &fl.lanes[fl.begun]
	fl.begun++
	return l
}

// enter adds a reader that wants the bytes from off on, and hastens them.
func (fl *flight) enter(off int64) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.readers++
	fl.hurry()
	for i := fl.begun; i < len(fl.lanes); i++ {
		if l := fl.lanes[i]; off >= l.start && off < l.end {
			copy(fl.lanes[fl.begun+1:], fl.lanes[fl.begun:i])
			fl.lanes[fl.begun] = l
			break
		}
	}
}

// exit takes a reader away.
func (fl *flight) exit() {
	fl.update(func() {
		fl.readers--
		fl.soon = false
		if fl.readers == 0 {
			fl.urgent = make(chan struct{})
		}
		fl.stopIfLeft()
	})
}

// hurry says, with the lock held, that somebody waits.
func (fl *flight) hurry() {
	select {
	case <-fl.urgent:
	default:
		close(fl.urgent)
	}
}

// needed reports, with the lock held, whether somebody waits, or is about to.
func (fl *flight) needed() bool { return fl.readers > 0 || fl.soon }

// urgency reports whether somebody waits; urgent is closed when somebody does.
func (fl *flight) urgency() (urgent <-chan struct{}, needed bool) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.urgent, fl.needed()
}

func (fl *flight) isNeeded() bool {
	_, needed := fl.urgency()
	return needed
}

// fetchLane takes the bytes of a lane from the first source that has them, and goes
// on with the next where one fails: they are the same bytes everywhere. A source that
// breaks off is asked again from where it did.
func (fl *flight) fetchLane(ctx context.Context, l *lane) error {
	section, err := fl.writer.Section(l.start, l.end-l.start)
	if err != nil {
		return errNotCached
	}
	defer section.Close()
	for tries := 0; ; tries++ {
		before := section.Left()
		source := fl.from()
		err := fl.fetchFrom(ctx, source, l, section)
		switch {
		case err == nil || errors.Is(err, errNotCached) || ctx.Err() != nil:
			return err
		case source < len(fl.remotes):
			fl.update(func() { fl.source = max(fl.source, source+1) })
		case tries >= maxTries || section.Left() == before || !freshet.IsKind(err, freshet.KindUnavailable) || errors.Is(err, errStalled):
			return err
		}
	}
}

// maxTries bounds how often a source is asked for the rest of what it broke off.
const maxTries = 8

// fetchFrom takes what is left of a lane from one source.
func (fl *flight) fetchFrom(ctx context.Context, source int, l *lane, section *tier.Section) error {
	f := fl.filler
	at, origin := span{l.end - section.Left(), section.Left()}, freshet.OriginUFS
	if source < len(fl.remotes) {
		origin = freshet.OriginRemote
	}
	if err := fl.pace(ctx, 0); err != nil {
		return err
	}
	body, err := f.openWatched(ctx, func(ctx context.Context) (io.ReadCloser, error) {
		defer fl.busy()()
		if origin == freshet.OriginRemote {
			return f.openRemote(ctx, fl.remotes[source], fl.req, at)
		}
		return f.openUFS(ctx, fl.req, at)
	})
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() //nolint:errcheck // only read from
	fl.update(func() { fl.origin = origin })
	for section.Left() > 0 {
		space := section.Space()
		space = space[:min(int64(len(space)), section.Left())]
		if err := fl.pace(ctx, int64(len(space))); err != nil {
			return err
		}
		n, err := fl.readSome(body, space, l.at == l.start)
		if n > 0 {
			if section.Extend(n) != nil {
				return errNotCached
			}
			fl.update(func() { l.at += int64(n) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// minPiece is how many bytes readers are told of at least; less than all of a piece only
// for the first bytes of a lane, or of a source that is slow, for readers may wait for
// just these, and the tier takes whole pieces cheaper.
const minPiece = 64 << 10

// readSome reads a piece that is worth handing on.
func (fl *flight) readSome(body io.Reader, p []byte, first bool) (n int, err error) {
	if !fl.isNeeded() {
		n, err := io.ReadFull(body, p)
		fl.filler.deps.Watch.bytes(int64(n))
		return n, err
	}
	defer fl.filler.pace.busy()()
	clock := fl.filler.deps.Clock
	for begun := clock.Elapsed(); n < len(p) && err == nil; {
		if n >= minPiece && (first || clock.Elapsed()-begun >= gatherFor) {
			return n, nil
		}
		var m int
		m, err = body.Read(p[n:])
		n += m
	}
	if n == len(p) {
		err = nil // what ended with it is told when more is asked for
	}
	return n, err
}

// busy begins an access to the source, which counts if readers wait for it.
func (fl *flight) busy() func() {
	if fl.isNeeded() {
		return fl.filler.pace.busy()
	}
	return func() {}
}

// pace waits until n bytes may be fetched.
func (fl *flight) pace(ctx context.Context, n int64) error {
	urgent, needed := fl.urgency()
	if needed {
		return nil
	}
	return fl.filler.pace.wait(ctx, n, urgent)
}

// near reports whether the byte at off has come, or comes within so many bytes.
func (fl *flight) near(off, far int64) bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for i, l := range fl.lanes {
		if off >= l.start && off < l.end {
			return off < l.at || i < max(fl.begun, 1) && off-l.at <= far
		}
	}
	return false
}

// wait returns up to where the block can be read from off on, as soon as that is
// beyond off; io.EOF when off is its length and all of it has come.
func (fl *flight) wait(ctx context.Context, off int64) (int64, error) {
	for {
		have, more, err := fl.look(off)
		if more == nil {
			return have, err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// look is wait without waiting: more is closed when it is worth looking again.
func (fl *flight) look(off int64) (have int64, more <-chan struct{}, err error) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for _, l := range fl.lanes {
		if off >= l.start && off < l.at {
			return l.at, nil, nil
		}
	}
	switch {
	case fl.done && fl.err == nil:
		return 0, nil, io.EOF
	case fl.done:
		return 0, nil, fl.err
	}
	if fl.more == nil {
		fl.more = make(chan struct{})
	}
	return 0, fl.more, nil
}

func (fl *flight) from() int {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.source
}

func (fl *flight) originNow() freshet.Origin {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.origin
}
