package ops_test

import (
	"context"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/fault"
)

// node is a cache node: it sends heartbeats and uploads under tickets.
type node struct {
	w        *world
	id       freshet.NodeID
	inc      uint64
	term     uint64
	to       *leader
	fs       *fault.FS
	active   map[freshet.OpID]bool
	finished map[freshet.OpID]freshet.FinishedOp
	blocks   map[freshet.BlockID]int64
	told     bool
	keeps    bool // on a disk
	inMemory bool // it keeps, but not on a disk
	took     []freshet.FileID
	reply    freshet.HeartbeatReply
}

func (w *world) node(id freshet.NodeID, to *leader) *node {
	n := &node{w: w, id: id, inc: 1, to: to, active: map[freshet.OpID]bool{}, finished: map[freshet.OpID]freshet.FinishedOp{}, blocks: map[freshet.BlockID]int64{}}
	n.fs = fault.New(recorder{w.fs(), w})
	n.beat()
	return n
}

// restart is the next process of the node, which knows nothing of the uploads of
// the one before.
func (n *node) restart() {
	n.inc++
	n.term, n.told = 0, false
	n.active, n.finished = map[freshet.OpID]bool{}, map[freshet.OpID]freshet.FinishedOp{}
}

// beat sends one heartbeat.
func (n *node) beat() {
	n.w.t.Helper()
	h := freshet.Heartbeat{
		Node: freshet.Node{ID: n.id, Name: string(n.id), Host: "host-" + string(n.id)}, Incarnation: n.inc, Term: n.term, Full: !n.told,
		Capacity: 1 << 30, Tier: "memory", MountRevision: n.reply.MountRevision,
		Keeps: n.keeps || n.inMemory, Durable: n.keeps, Took: n.took,
	}
	for op := range n.active {
		h.Active = append(h.Active, op)
	}
	for _, f := range n.finished {
		h.Finished = append(h.Finished, f)
	}
	if h.Full {
		for b, length := range n.blocks {
			h.Added = append(h.Added, freshet.BlockReport{ID: b, Length: length})
		}
	}
	reply, err := n.to.Heartbeat(context.Background(), h)
	if err != nil {
		n.w.t.Fatalf("heartbeat of %s: %v", n.id, err)
	}
	n.reply, n.term, n.told = reply, reply.Term, !reply.NeedFull
	for _, op := range reply.Settled {
		delete(n.finished, op)
	}
	for _, op := range reply.Abort {
		delete(n.active, op)
	}
}

// beatFor sends a heartbeat each second.
func (n *node) beatFor(d time.Duration) {
	n.w.t.Helper()
	for ; d > 0; d -= time.Second {
		<-time.After(time.Second)
		n.beat()
	}
}

// upload is one upload of a node, to be taken step by step.
type upload struct {
	n      *node
	ticket freshet.Ticket
	writer ufs.Writer
}

func (n *node) begin(q freshet.BeginWriteQuery) *upload {
	n.w.t.Helper()
	a, err := n.to.BeginWrite(context.Background(), q)
	if err != nil || a.Done {
		n.w.t.Fatalf("begin of %s: %+v %v", q.Path, a, err)
	}
	if a.Ticket.Node.ID != n.id {
		n.w.t.Fatalf("the ticket names node %s", a.Ticket.Node.ID)
	}
	return &upload{n: n, ticket: a.Ticket}
}

func (u *upload) send(data string) {
	u.n.w.t.Helper()
	u.n.active[u.ticket.Op] = true
	var err error
	u.writer, err = u.n.fs.Create(context.Background(), u.ticket.Target.Key, ufs.CreateOptions{Op: u.ticket.Op, Size: int64(len(data))})
	if err == nil {
		_, err = u.writer.Write([]byte(data))
	}
	if err != nil {
		u.n.w.t.Fatal(err)
	}
}

func createOptions(op freshet.OpID) ufs.CreateOptions { return ufs.CreateOptions{Op: op, Size: -1} }

func (u *upload) permit() error {
	var sealed fingerprint.Fingerprint
	if u.writer != nil {
		var err error
		if sealed, err = u.writer.Seal(context.Background()); err != nil {
			return err
		}
	}
	return u.n.to.Permit(context.Background(), freshet.PermitQuery{Op: u.ticket.Op, Node: u.n.id, Incarnation: u.n.inc, Length: -1, Sealed: sealed})
}

func (u *upload) commit() (freshet.Written, error) {
	st, err := u.writer.Commit(context.Background())
	return freshet.Written{Length: st.Length, ModTime: st.ModTime, Owner: st.Owner, Group: st.Group, Mode: st.Mode, Fingerprint: st.Fingerprint}, err
}

// write takes an upload through all of its steps.
func (n *node) write(path, data string) freshet.Completed {
	n.w.t.Helper()
	u := n.begin(freshet.BeginWriteQuery{Path: freshet.Path(path), Node: n.id})
	u.send(data)
	if err := u.permit(); err != nil {
		n.w.t.Fatal(err)
	}
	wr, err := u.commit()
	if err != nil {
		n.w.t.Fatal(err)
	}
	done, err := n.to.Complete(context.Background(), u.ticket.Op, wr)
	if err != nil {
		n.w.t.Fatal(err)
	}
	delete(n.active, u.ticket.Op)
	return done
}
