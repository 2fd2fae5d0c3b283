package cachenode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

const (
	opWrite = "write file"
	// maxUpload is the longest file that is taken, beyond what any storage does.
	maxUpload = 1 << 50
	// abortTimeout bounds the cleaning up after an upload.
	abortTimeout = 10 * time.Second
)

// upload is one running upload.
type upload struct {
	node   *Node
	ticket freshet.Ticket
	client context.Context //nolint:containedctx // the request's
	ctx    context.Context //nolint:containedctx // the upload's own: it ends with the client's only up to the commit
	end    context.CancelCauseFunc
	writer ufs.Writer
	tee    *tee
	keep   *keep // of a file that does not go to the storage yet
	length int64
	sealed fingerprint.Fingerprint // what the file will be known by in the storage

	// Guarded by the node's mu.
	epoch      uint64
	committing bool // the effect may have been sent: it is not cancelled any more
}

// Write takes the file that ticket names from body and makes it visible: bytes
// go to the storage, and into the tier if the ticket says so, with a permit of
// the leader the storage is told to commit, and the leader to complete the file.
// declared is the file's length if the client has said it, else < 0.
//
// Unless the error is KindDeadline, a failed Write has changed nothing.
// KindDeadline: the outcome is unknown; the cluster finds it out, and a Write of
// the same operation on this node returns it. Body is not read after Write has
// returned, except for a Read that was waiting then; if body is an io.Closer, it
// is closed to end that.
func (n *Node) Write(ctx context.Context, ticket freshet.Ticket, body io.Reader, declared int64) (freshet.Completed, error) {
	done, err := n.write(ctx, ticket, body, declared)
	if err != nil {
		n.metrics.uploads.WithLabelValues(freshet.KindOf(err).String()).Inc()
		return done, freshet.Wrap(opWrite, ticket.Path, err)
	}
	n.metrics.uploads.WithLabelValues(freshet.KindOK.String()).Inc()
	return done, nil
}

func (n *Node) write(ctx context.Context, ticket freshet.Ticket, body io.Reader, declared int64) (freshet.Completed, error) {
	if err := n.checkTicket(ticket, declared); err != nil {
		return freshet.Completed{}, err
	}
	if f, ok := n.finishedOp(ticket.Op); ok {
		return n.repeat(ctx, f)
	}
	n.opts.Hook("before-begin")
	u, err := n.begin(ctx, ticket)
	if f, ok := n.finishedOp(ticket.Op); err != nil && ok { // it has ended since
		return n.repeat(ctx, f)
	}
	if err != nil {
		return freshet.Completed{}, err
	}
	defer u.end(nil)
	defer context.AfterFunc(ctx, func() {
		n.update(func() { n.cancel(u, errClientLeft()) })
	})()
	if ticket.Write.Keeps() {
		u.keep = &keep{blocks: n.deps.Blocks, ticket: ticket, total: max(declared, -1), room: n.opts.RoomTimeout}
		return n.writeKept(ctx, u, func() error { return u.take(body, declared) })
	}
	fs, release, err := n.deps.Mounts.Get(ticket.Target.Mount)
	if freshet.IsKind(err, freshet.KindNotExist) {
		n.awaitMount(ctx, ticket.Target.Mount)
		fs, release, err = n.deps.Mounts.Get(ticket.Target.Mount)
	}
	if err != nil {
		return freshet.Completed{}, u.abandon(mountError(err))
	}
	defer release()
	if err := u.receive(fs, body, declared); err != nil {
		return freshet.Completed{}, u.abandon(err)
	}
	if err := u.seal(); err != nil {
		return freshet.Completed{}, u.abandon(err)
	}
	if err := u.permit(); err != nil {
		return freshet.Completed{}, u.abandon(err)
	}
	written, err := u.commit(ctx)
	if err != nil {
		return freshet.Completed{}, err
	}
	return n.complete(ctx, ticket.Op, written)
}

func errClientLeft() error {
	return freshet.Errorf(freshet.KindUnavailable, opWrite, "", "the client went away; nothing was written")
}

func mountError(err error) error {
	if freshet.IsKind(err, freshet.KindNotExist) { // of the mount, not of the file
		return freshet.Errorf(freshet.KindUnavailable, opWrite, "", "this node does not have the mount yet: %w", err)
	}
	return err
}

func (n *Node) checkTicket(t freshet.Ticket, declared int64) error {
	invalid := func(format string, args ...any) error {
		return freshet.Errorf(freshet.KindInvalid, opWrite, "", format, args...)
	}
	switch {
	case t.Write != freshet.CacheThrough && t.Write != freshet.Through && !t.Write.Keeps():
		return invalid("the ticket's write type is %s", t.Write)
	case t.Write.Keeps() && t.File == 0:
		return invalid("the ticket has no file ID")
	case t.Write == freshet.AsyncThrough && !n.deps.Blocks.Durable():
		return freshet.Errorf(freshet.KindUnsupported, opWrite, "",
			"async_through needs a cache tier on a disk, and this node has memory alone: give it one, or write with cache_through, or with must_cache if what is written may be lost with the node")
	case t.Write.Keeps() && t.DurableReplicas > 1 && (!n.deps.Blocks.Durable() || n.deps.Peers == nil):
		return freshet.Errorf(freshet.KindUnsupported, opWrite, "",
			"durable_replicas=%d needs cache tiers on disks, and this node has memory alone: give it one, or write with cache_through, or with must_cache and one replica if what is written may be lost with the node", t.DurableReplicas)
	case t.Write.Keeps() && declared > n.deps.Blocks.Capacity():
		return freshet.Errorf(freshet.KindExhausted, opWrite, "", "the file of %s does not fit into this node's cache of %s; write it with cache_through or through",
			freshet.FormatSize(declared), freshet.FormatSize(n.deps.Blocks.Capacity()))
	case t.Op.IsZero():
		return invalid("the ticket has no operation ID")
	case t.Node.ID != n.opts.Node.ID:
		return invalid("the ticket is for node %s, this is %s", t.Node.ID, n.opts.Node.ID)
	case t.BlockSize <= 0 || t.BlockSize > freshet.MaxBlockSize:
		return invalid("the ticket's block size is %d bytes", t.BlockSize)
	case declared > longest(t):
		return tooLong(t)
	}
	return nil
}

// longest returns how many bytes a file can have: what a storage may take, in blocks
// that can be numbered.
func longest(t freshet.Ticket) int64 { return min(maxUpload, t.BlockSize*freshet.MaxBlocks) }

func tooLong(t freshet.Ticket) error {
	return freshet.Errorf(freshet.KindInvalid, opWrite, "",
		"the file is longer than %s, the most that can be kept in blocks of %s; nothing was written", freshet.FormatSize(longest(t)), freshet.FormatSize(t.BlockSize))
}

// begin registers the upload, from when on heartbeats report it. An operation that has
// ended here is not begun again: its outcome would be forgotten before the leader has it.
func (n *Node) begin(ctx context.Context, ticket freshet.Ticket) (*upload, error) {
	u := &upload{node: n, ticket: ticket, client: ctx}
	u.ctx, u.end = context.WithCancelCause(context.WithoutCancel(ctx))
	n.awaitJoined(ctx)
	var err error
	n.update(func() {
		_, ended := n.finished[ticket.Op]
		switch {
		case !n.running:
			err = freshet.Errorf(freshet.KindUnavailable, opWrite, "", "the node is stopping; use another one")
		case !n.joined:
			err = freshet.Errorf(freshet.KindUnavailable, opWrite, "", "the node is not registered with a coordinator yet")
		case n.uploads[ticket.Op] != nil:
			err = freshet.Errorf(freshet.KindConflict, opWrite, "", "operation %s is being uploaded by another request", ticket.Op)
		case len(n.uploads) >= n.opts.MaxUploads:
			err = freshet.Errorf(freshet.KindExhausted, opWrite, "", "%d uploads are running, which is the limit of this node", n.opts.MaxUploads)
		case ended:
			err = freshet.Errorf(freshet.KindConflict, opWrite, "", "operation %s has ended on this node", ticket.Op)
		default:
			u.epoch = n.epoch
			n.uploads[ticket.Op] = u
		}
	})
	if err != nil {
		u.end(nil)
		return nil, err
	}
	return u, nil
}

// cancel ends an upload whose effect was not sent yet. The caller holds mu.
func (n *Node) cancel(u *upload, cause error) {
	if u != nil && !u.committing {
		u.end(cause)
	}
}

// receive takes the body to the storage and the tier.
func (u *upload) receive(fs ufs.FS, body io.Reader, declared int64) (err error) {
	t := u.ticket
	u.writer, err = fs.Create(u.ctx, t.Target.Key, ufs.CreateOptions{Op: t.Op, Size: max(declared, -1), Owner: t.Owner, Group: t.Group})
	if err != nil {
		return u.causeOf(err)
	}
	u.node.opts.Hook("after-create")
	if !u.node.draining.Load() {
		u.tee = newTee(u.node.deps.Blocks, t, max(declared, -1))
	}
	return u.take(body, declared)
}

// take takes the body to where it goes.
func (u *upload) take(body io.Reader, declared int64) (err error) {
	// Where the storage and the tier must have the same bytes, they are copied first.
	if s, ok := body.(Shared); ok && u.keep != nil {
		return u.copyFrom(inPlace{s}, declared)
	}
	p := startPump(body, declared)
	defer func() {
		p.end()
		if c, ok := body.(io.Closer); ok && err != nil {
			_ = c.Close() //nolint:errcheck // only to end a Read that is waiting
		}
	}()
	return u.copyFrom(p, declared)
}

func (u *upload) copyFrom(p source, declared int64) error {
	var b []byte
	for {
		var end error
		b, end = p.next(u.ctx, b, u.node.opts.UploadIdle)
		u.length += int64(len(b))
		if u.length > longest(u.ticket) {
			return tooLong(u.ticket)
		}
		if declared >= 0 && u.length > declared {
			return freshet.Errorf(freshet.KindInvalid, opWrite, "", "the body is longer than the %d bytes that were declared; nothing was written", declared)
		}
		if len(b) > 0 {
			if err := u.put(b); err != nil {
				return u.causeOf(err)
			}
		}
		if end == nil {
			continue
		}
		var e *freshet.Error
		switch {
		case end == io.EOF && declared >= 0 && u.length < declared: //nolint:errorlint // io.Reader promises io.EOF itself
			return freshet.Errorf(freshet.KindInvalid, opWrite, "", "the body ended after %d of %d bytes; nothing was written", u.length, declared)
		case end == io.EOF: //nolint:errorlint // as above
			return nil
		case u.client.Err() != nil:
			return errClientLeft()
		case errors.As(end, &e):
			return end
		}
		return freshet.Errorf(freshet.KindInvalid, opWrite, "", "reading the upload: %w; nothing was written", end)
	}
}

func (u *upload) put(b []byte) error {
	if u.keep != nil {
		return u.keep.write(u.ctx, b)
	}
	wait := u.tee.beside(b)
	_, err := u.writer.Write(b)
	wait()
	return err
}

// causeOf returns why the upload was ended, if it was, else err.
func (u *upload) causeOf(err error) error {
	if cause := context.Cause(u.ctx); cause != nil {
		return cause
	}
	return err
}

// seal has the storage complete what is still hidden, and learns what the file will be
// known by there.
func (u *upload) seal() (err error) {
	ctx, cancel := context.WithTimeout(u.ctx, u.node.opts.CommitTimeout)
	defer cancel()
	u.sealed, err = u.writer.Seal(ctx)
	if freshet.IsKind(err, freshet.KindDeadline) { // which would say that the outcome is unknown
		err = freshet.Errorf(freshet.KindUnavailable, opWrite, "", "the storage did not complete the upload in time; nothing was written: %w", err)
	}
	if err != nil {
		return u.causeOf(err)
	}
	return nil
}

// permit asks the leader for the permit and makes sure, as the last thing before
// the effect, that it still holds (C15): under a valid lease of the term and
// epoch that gave it.
func (u *upload) permit() error {
	n := u.node
	n.opts.Hook("before-permit")
	ctx, cancel := context.WithTimeoutCause(u.ctx, n.opts.LeaderTimeout, freshet.Errorf(freshet.KindUnavailable, opWrite, "",
		"no leader has permitted the upload within %s; nothing was written", n.opts.LeaderTimeout))
	defer cancel()
	for {
		if err := n.await(ctx, n.leased); err != nil {
			return err
		}
		n.mu.Lock()
		term := n.term
		n.mu.Unlock()
		err := n.retry(ctx, func() error {
			return n.deps.Coordinator.Permit(ctx, freshet.PermitQuery{
				Op: u.ticket.Op, Node: n.opts.Node.ID, Incarnation: n.deps.Identity.Incarnation(), Length: u.length, Sealed: u.sealed,
			})
		})
		if freshet.IsKind(err, freshet.KindNotExist) { // of the operation, not of the path
			return freshet.Errorf(freshet.KindUnavailable, opWrite, "",
				"the cluster gave the upload up, as it does when it has not heard of this node for some seconds; nothing was written: write it again: %w", err)
		}
		if freshet.IsKind(err, freshet.KindConflict) { // this run of the node has done nothing; what became of it, the client asks
			return freshet.Errorf(freshet.KindUnavailable, opWrite, "",
				"the node was restarted after the write began, or the cluster gave it up; write it again: %w", err)
		}
		if err != nil {
			return err
		}
		n.opts.Hook("after-permit")
		again := false
		n.update(func() {
			switch {
			case u.ctx.Err() != nil:
				err = context.Cause(u.ctx)
			case n.epoch != u.epoch:
				err = freshet.Errorf(freshet.KindConflict, opWrite, "", "the cluster was restored while the file was written: write it again")
			case n.term != term || !n.leased():
				again = true
			default:
				u.committing = true
			}
		})
		if !again {
			return err
		}
	}
}

// retry calls fn until it is answered or ctx ends.
func (n *Node) retry(ctx context.Context, fn func() error) error {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := fn()
		if err == nil || !freshet.IsKind(err, freshet.KindUnavailable, freshet.KindNotLeader, freshet.KindDeadline) {
			return err
		}
		n.deps.Log.Debug("the leader did not answer", "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w; the last answer was: %w", context.Cause(ctx), err)
		}
	}
}

// definite reports whether a failed commit certainly had no effect. "There is no
// such upload" is not among it: that is also what a repetition inside a storage
// client hears when the first attempt succeeded and its answer was lost. What the
// storage can't have seen, because nobody was reached, has had none.
func definite(err error) bool {
	return errors.Is(err, ufs.ErrNotSent) || freshet.IsKind(err, freshet.KindInvalid, freshet.KindPermission, freshet.KindUnauthenticated,
		freshet.KindConflict, freshet.KindUnsupported, freshet.KindExhausted)
}

// commit sends the effect. The client's going away does not stop it any more.
func (u *upload) commit(ctx context.Context) (freshet.Written, error) {
	n := u.node
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.opts.CommitTimeout)
	defer cancel()
	defer context.AfterFunc(n.kill, cancel)()
	st, err := u.writer.Commit(ctx)
	if err != nil && definite(err) {
		return freshet.Written{}, u.abandon(err)
	}
	if err != nil {
		u.tee.drop()
		n.finish(u, freshet.FinishedOp{Uncertain: true})
		_ = u.abortWriter() //nolint:errcheck // the leader finds out what is left and ends it
		return freshet.Written{}, freshet.Errorf(freshet.KindDeadline, opWrite, "", "the outcome is unknown; the cluster finds it out: %w", err)
	}
	n.opts.Hook("after-commit")
	w := freshet.Written{
		Length: st.Length, ModTime: st.ModTime, Fingerprint: st.Fingerprint, Owner: st.Owner, Group: st.Group, Mode: st.Mode,
	}
	n.finish(u, freshet.FinishedOp{Written: &w})
	if st.Length != u.length || !st.Fingerprint.Known() {
		n.deps.Log.Error("the storage acknowledged another file than the one that was written", "op", u.ticket.Op.String(), "length", st.Length, "written", u.length)
		u.tee.drop()
		return w, nil
	}
	cluster, _, _ := n.identity()
	u.tee.commit(tier.Meta{Cluster: cluster, Epoch: u.epoch, Fingerprint: st.Fingerprint})
	return w, nil
}

// abandon ends an upload that had no effect and returns why.
func (u *upload) abandon(why error) error {
	n := u.node
	u.tee.drop()
	u.keep.drop()
	uncertain := u.writer != nil && u.abortWriter() != nil
	if uncertain {
		n.leave(u)
	}
	n.finish(u, freshet.FinishedOp{Uncertain: uncertain})
	if uncertain {
		return why
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.ctx), abortTimeout)
	defer cancel()
	if err := n.deps.Coordinator.Abort(ctx, u.ticket.Op, true); err == nil {
		n.settle(u.ticket.Op)
	}
	return why
}

func (u *upload) abortWriter() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.ctx), abortTimeout)
	defer cancel()
	err := u.writer.Abort(ctx)
	if err != nil {
		u.node.deps.Log.Warn("an upload could not be cleaned up yet", "op", u.ticket.Op.String(), "error", err)
	}
	return err
}

// finish turns a running upload into a finished one, which heartbeats report
// until the leader has settled it.
func (n *Node) finish(u *upload, f freshet.FinishedOp) {
	f.Op = u.ticket.Op
	n.update(func() {
		delete(n.uploads, f.Op)
		n.finished[f.Op] = f
	})
}

func (n *Node) settle(op freshet.OpID) {
	n.update(func() { delete(n.finished, op) })
}

func (n *Node) finishedOp(op freshet.OpID) (freshet.FinishedOp, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f, ok := n.finished[op]
	return f, ok
}

// repeat answers a client that asks again for an upload that has ended here.
func (n *Node) repeat(ctx context.Context, f freshet.FinishedOp) (freshet.Completed, error) {
	switch {
	case f.Written != nil:
		return n.complete(ctx, f.Op, *f.Written)
	case f.Uncertain:
		return freshet.Completed{}, freshet.Errorf(freshet.KindDeadline, opWrite, "", "the outcome is not known yet; the cluster is finding it out")
	}
	return freshet.Completed{}, freshet.Errorf(freshet.KindConflict, opWrite, "", "the upload was aborted: start again")
}

// complete tells the leader of a file that is in the storage. If no leader
// answers in time, heartbeats go on telling it.
func (n *Node) complete(ctx context.Context, op freshet.OpID, w freshet.Written) (done freshet.Completed, err error) {
	const unconfirmed = "the file is in the storage but no leader has confirmed it; the cluster completes it"
	ctx, cancel := context.WithTimeoutCause(ctx, n.opts.LeaderTimeout, freshet.Errorf(freshet.KindDeadline, opWrite, "", unconfirmed))
	defer cancel()
	err = n.retry(ctx, func() (err error) {
		done, err = n.deps.Coordinator.Complete(ctx, op, w)
		return err
	})
	if err != nil {
		n.heartbeatNow()
		if ctx.Err() != nil {
			return done, freshet.Errorf(freshet.KindDeadline, opWrite, "", "%s: %w", unconfirmed, err)
		}
		return done, err
	}
	n.opts.Hook("after-complete")
	n.settle(op)
	return done, nil
}

// drain waits for the node to be told to stop, and then for the uploads to end.
func (n *Node) drain(ctx context.Context) error {
	<-ctx.Done()
	n.update(func() { n.running = false })
	none := func() bool { return len(n.uploads) == 0 }
	grace, cancel := context.WithTimeout(context.Background(), n.opts.StopTimeout)
	defer cancel()
	if n.await(grace, none) == nil {
		return nil
	}
	n.deps.Log.Warn("uploads are aborted because the node stops")
	n.killAll()
	n.update(func() {
		for _, u := range n.uploads {
			n.cancel(u, freshet.Errorf(freshet.KindUnavailable, opWrite, "", "the node stops; nothing was written"))
		}
	})
	// Bounded: a storage that does not even answer an abort is left behind.
	grace, cancel = context.WithTimeout(context.Background(), 2*abortTimeout)
	defer cancel()
	_ = n.await(grace, none) //nolint:errcheck // whatever is left, the leader resolves
	return nil
}
