package local

import (
	"context"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// How long a node of this host may take; one that takes longer has been stopped, or
// waits for a disk, and its blocks are streamed.
const (
	dialTimeout   = 2 * time.Second // for the first exchange
	answerTimeout = 2 * time.Second
	sendTimeout   = time.Second // until there is room for a request
)

// conn is a connection to the node of this host.
type conn struct {
	c      *net.UnixConn
	recall func(from *conn, loans []uint64)

	sending sync.Mutex    // orders writes, each of which has its own deadline
	heard   atomic.Uint64 // messages of the node
	silent  atomic.Bool   // it did not answer in time

	mu      sync.Mutex
	waiting map[uint64]chan answer
	last    uint64
	err     error               // the connection has ended
	wanted  map[uint64]struct{} // loans that the node wants back
}

// dial connects to the socket and makes sure that it is node n that answers.
func dial(ctx context.Context, path string, n freshet.Node, recall func(*conn, []uint64)) (*conn, error) {
	info, err := os.Lstat(path)
	if err == nil && info.Mode().Type() != os.ModeSocket {
		err = freshet.Errorf(freshet.KindUnavailable, "connect to local node", "", "%s is not a socket", path)
	}
	if err != nil {
		return nil, freshet.Errorf(freshet.KindUnavailable, "connect to local node", "", "%w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	nc, err := (&net.Dialer{}).DialContext(ctx, Network, path)
	if err != nil {
		return nil, freshet.Errorf(freshet.KindUnavailable, "connect to local node", "", "%w", err)
	}
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		_ = nc.Close()
		return nil, freshet.Errorf(freshet.KindInternal, "connect to local node", "", "%T is no Unix socket", nc)
	}
	c := &conn{c: uc, recall: recall, waiting: map[uint64]chan answer{}, wanted: map[uint64]struct{}{}}
	if err := c.greet(ctx, n); err != nil {
		_ = uc.Close()
		return nil, err
	}
	return c, nil
}

func (c *conn) greet(ctx context.Context, n freshet.Node) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.c.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if err := c.send(&freshetv1.LocalRequest{What: &freshetv1.LocalRequest_Hello{Hello: &freshetv1.LocalHello{Version: version}}}); err != nil {
		return err
	}
	a, err := c.receive(make([]byte, maxMessage), rightsRoom())
	switch {
	case err != nil:
		return err
	case a.err != nil:
		return a.err
	case a.hasDescriptor():
		closeAll([]int{a.fd})
	case a.welcome == nil:
	case a.welcome.GetNodeId() == string(n.ID) && a.welcome.GetIncarnation() == n.Incarnation:
		return c.c.SetDeadline(time.Time{})
	}
	return freshet.Errorf(freshet.KindConflict, "connect to local node", "", "another node, or another start of the node, answers at the socket")
}

// run reads answers until the connection ends.
func (c *conn) run() {
	b, control := make([]byte, maxMessage), rightsRoom()
	for {
		a, err := c.receive(b, control)
		if err != nil {
			c.end(freshet.Errorf(freshet.KindUnavailable, "read from local node", "", "%w", err))
			return
		}
		c.heard.Add(1)
		if a.id == 0 {
			c.noteRecall(a.recall)
			c.recall(c, a.recall)
		} else {
			c.deliver(a)
		}
	}
}

// noteRecall remembers what the node wants back: it may be on its way to the cache.
func (c *conn) noteRecall(loans []uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range loans {
		c.wanted[l] = struct{}{}
	}
	if len(c.wanted) > maxLoans { // most were given back as the node asked for them
		all := slices.Sorted(maps.Keys(c.wanted))
		for _, l := range all[:len(all)-maxLoans/2] {
			delete(c.wanted, l)
		}
	}
}

// isRecalled reports whether the node wants the loan back.
func (c *conn) isRecalled(loan uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.wanted[loan]
	return ok
}

// deliver hands an answer to who waits for it. What nobody waits for any more is
// given back. Who gives up finds the answer in the channel or has left before it came:
// both are decided by mu.
func (c *conn) deliver(a answer) {
	c.mu.Lock()
	ch := c.waiting[a.id]
	delete(c.waiting, a.id)
	if ch != nil {
		ch <- a // has room
	}
	c.mu.Unlock()
	if ch == nil {
		c.giveBack(a)
	}
}

// giveBack returns what an answer lends that nobody wants.
func (c *conn) giveBack(a answer) {
	if a.lends() {
		closeAll([]int{a.fd})
		c.release(a.loan)
	} else if a.room != nil { // nobody asked for it
		closeAll([]int{a.fd})
	}
}

// end closes the connection. It may be called more than once.
func (c *conn) end(why error) {
	_ = c.c.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = why
	}
	for _, ch := range c.waiting {
		close(ch)
	}
	clear(c.waiting)
}

func (c *conn) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil
}

func (c *conn) receive(b, control []byte) (answer, error) {
	n, fds, err := readMessage(c.c, b, control)
	if err != nil {
		return answer{}, err
	}
	if n == 0 {
		closeAll(fds)
		return answer{}, net.ErrClosed
	}
	a, err := decodeAnswer(b[:n])
	want := 0
	if a.hasDescriptor() {
		want = 1
	}
	if err == nil && len(fds) != want {
		err = freshet.Errorf(freshet.KindCorrupt, "read answer", "", "%d descriptors came, not %d", len(fds), want)
	}
	if err != nil {
		closeAll(fds)
		return answer{}, err
	}
	if want == 1 {
		a.fd = fds[0]
	}
	return a, nil
}

func (c *conn) send(m *freshetv1.LocalRequest) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return freshet.Errorf(freshet.KindInvalid, "ask local node", "", "%d bytes are too many for a request", len(b))
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	if err := c.c.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil { //nolint:forbidigo // the kernel's clock
		return err
	}
	_, err = c.c.Write(b)
	return err
}

// open asks for a block and returns the loan with its descriptor.
func (c *conn) open(ctx context.Context, q *freshetv1.ReadBlockRequest) (answer, error) {
	a, err := c.ask(ctx, &freshetv1.LocalRequest{What: &freshetv1.LocalRequest_Open{Open: q}})
	if err == nil && !a.isLoan {
		c.giveBack(a)
		err = errOtherAnswer()
	}
	return a, err
}

func errOtherAnswer() error {
	return freshet.Errorf(freshet.KindCorrupt, "ask local node", "", "the answer is to another question")
}

// ask sends a request and returns its answer; a refusal is an error. It is for what a
// node answers at once, unless its disk hangs.
func (c *conn) ask(ctx context.Context, m *freshetv1.LocalRequest) (answer, error) {
	return c.question(ctx, m, false)
}

// askLong is ask for what may take the node as long as the storage takes: it waits
// while the node answers other questions.
func (c *conn) askLong(ctx context.Context, m *freshetv1.LocalRequest) (answer, error) {
	return c.question(ctx, m, true)
}

func (c *conn) question(ctx context.Context, m *freshetv1.LocalRequest, long bool) (answer, error) {
	ch := make(chan answer, 1)
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return answer{}, c.err
	}
	c.last++
	id := c.last
	c.waiting[id] = ch
	c.mu.Unlock()
	m.Id = id
	if err := c.send(m); err != nil {
		c.end(err)
		return answer{}, err
	}
	// An answer that waits for a disk is left alone; a node that says nothing else either
	// is left alone with all that it has.
	heard, pinged, pause := c.heard.Load(), false, answerTimeout
	if !long {
		pause /= 2
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case a, ok := <-ch:
			if !ok {
				return answer{}, errNoAnswer()
			}
			return a, a.err
		case <-ctx.Done():
			c.leave(id, ch)
			return answer{}, context.Cause(ctx)
		case <-timer.C:
		}
		now := c.heard.Load()
		if pinged && (!long || now == heard) {
			if now == heard {
				c.giveUp(id)
			}
			c.leave(id, ch)
			return answer{}, errLate
		}
		if err := c.ping(); err != nil {
			c.end(err)
			return answer{}, err
		}
		if pinged = true; long {
			heard = now
		}
		timer.Reset(pause)
	}
}

var errLate = freshet.Errorf(freshet.KindUnavailable, "ask local node", "", "the node does not answer in time")

func errNoAnswer() error {
	return freshet.Errorf(freshet.KindUnavailable, "ask local node", "", "the connection ended, or the node does not answer")
}

// leave stops waiting for an answer.
func (c *conn) leave(id uint64, ch chan answer) {
	c.mu.Lock()
	delete(c.waiting, id)
	c.mu.Unlock()
	select {
	case a, ok := <-ch: // it came all the same
		if ok {
			c.giveBack(a)
		}
	default:
	}
}

// ping has the node say something: there is no loan 0, which it says at once.
func (c *conn) ping() error {
	c.mu.Lock()
	c.last++
	id := c.last
	c.mu.Unlock()
	return c.send(&freshetv1.LocalRequest{Id: id, What: &freshetv1.LocalRequest_Await{Await: &freshetv1.LocalAwait{}}})
}

// giveUp sends all away who wait, as the node did not answer the one with the ID. The
// connection stays: what it lent can be read on, and is given back when the node is
// awake.
func (c *conn) giveUp(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting[id] == nil {
		return // it was answered just now, or sent away
	}
	c.silent.Store(true)
	for _, ch := range c.waiting {
		close(ch)
	}
	clear(c.waiting)
}

// release says that a descriptor is closed. If that can't be said the connection
// ends, which says it too.
func (c *conn) release(loan uint64) {
	c.mu.Lock()
	delete(c.wanted, loan)
	ended := c.err != nil
	c.mu.Unlock()
	if ended {
		return
	}
	if err := c.send(&freshetv1.LocalRequest{What: &freshetv1.LocalRequest_Release{Release: &freshetv1.LocalRelease{Loans: []uint64{loan}}}}); err != nil {
		c.end(err)
	}
}

// damaged tells the node of a chunk with a wrong checksum.
func (c *conn) damaged(q *freshetv1.ReadBlockRequest, chunk int64) {
	if c.ended() {
		return
	}
	m := &freshetv1.LocalDamage{Block: q.GetBlock(), Source: q.GetSource(), Chunk: uint64(chunk)} //nolint:gosec // an index
	if err := c.send(&freshetv1.LocalRequest{What: &freshetv1.LocalRequest_Damage{Damage: m}}); err != nil {
		c.end(err)
	}
}
