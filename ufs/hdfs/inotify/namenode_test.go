package inotify_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"google.golang.org/protobuf/proto"

	hadoopv1 "github.com/freshet-io/freshet/proto/hadoop/v1"
	"github.com/freshet-io/freshet/ufs/hdfs/inotify"
)

// exception is what a NameNode answers instead of a result.
type exception struct {
	class, message string
	fatal          bool
}

// nameNode speaks Hadoop RPC and answers from a made-up edit log.
type nameNode struct {
	mu       sync.Mutex
	pool     string
	first    int64 // lowest transaction that is still there
	log      []*hadoopv1.EventBatch
	last     int64 // transactions without events count too
	unread   bool  // durable edits can't be read
	perCall  int   // events per answer, like dfs.namenode.inotify.max.events.per.rpc
	refuse   *exception
	raw      []byte                      // sent instead of an answer, then the connection ends
	cutAfter int                         // answers before connections are cut, 0 for never
	silent   bool                        // never answers
	list     func() *hadoopv1.EventsList // instead of the edits, if set
	calls    map[string]int
	users    []string
	conns    []net.Conn
}

func newNameNode() *nameNode {
	return &nameNode{pool: "BP-1", first: 1, last: 1, perCall: 1000, calls: map[string]int{}}
}

// add appends a transaction with events.
func (n *nameNode) add(events ...*hadoopv1.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last++
	if len(events) > 0 {
		n.log = append(n.log, &hadoopv1.EventBatch{Txid: new(n.last), Events: events})
	}
}

// set changes the NameNode under its lock.
func (n *nameNode) set(change func(n *nameNode)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n)
}

// cut ends all connections.
func (n *nameNode) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		c.Close()
	}
	n.conns = nil
}

func (n *nameNode) count(method string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls[method]
}

func (n *nameNode) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	n.mu.Lock()
	n.conns = append(n.conns, server)
	n.mu.Unlock()
	go n.serve(server)
	return client, nil
}

func (n *nameNode) serve(c net.Conn) {
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, 7)); err != nil {
		return
	}
	frame, err := inotify.ReadFrame(c)
	if err != nil {
		return
	}
	var hello hadoopv1.ConnectionContext
	if parse(frame, &hadoopv1.RpcRequestHeader{}, &hello) != nil {
		return
	}
	n.set(func(n *nameNode) { n.users = append(n.users, hello.GetUser().GetEffective()) })
	for n.answer(c) == nil {
	}
}

// parse reads delimited messages.
func parse(frame []byte, into ...proto.Message) error {
	for _, m := range into {
		b, rest, err := inotify.CutDelimited(frame)
		if err != nil {
			return err
		}
		if err := proto.Unmarshal(b, m); err != nil {
			return err
		}
		frame = rest
	}
	return nil
}

var errHangUp = errors.New("hang up")

func (n *nameNode) answer(c net.Conn) error {
	frame, err := inotify.ReadFrame(c)
	if err != nil {
		return err
	}
	var header hadoopv1.RpcRequestHeader
	var call hadoopv1.RequestHeader
	var request hadoopv1.GetEditsFromTxidRequest // the others are empty
	if err := parse(frame, &header, &call, &request); err != nil {
		return err
	}
	response, refused, raw, silent := n.handle(&call, &request)
	if silent {
		_, err := io.Copy(io.Discard, c)
		return errors.Join(errHangUp, err)
	}
	if raw != nil {
		_, _ = c.Write(raw)
		return errHangUp
	}
	head := &hadoopv1.RpcResponseHeader{CallId: new(uint32(header.GetCallId())), Status: new(uint32(0))}
	out := []proto.Message{head, response}
	if refused != nil {
		head.Status = new(uint32(1))
		if refused.fatal {
			head.Status, head.CallId = new(uint32(2)), new(uint32(1<<32-1))
		}
		head.Exception, head.Message = new(refused.class), new(refused.message+"\n\tat a.java.Stack")
		out = out[:1]
	}
	b, err := inotify.AppendFrame(nil, out...)
	if err != nil {
		return err
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	if refused != nil && refused.fatal {
		return errHangUp
	}
	return nil
}

func (n *nameNode) handle(call *hadoopv1.RequestHeader, request *hadoopv1.GetEditsFromTxidRequest) (response proto.Message, refused *exception, raw []byte, silent bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls[call.GetMethod()]++
	if n.cutAfter > 0 {
		if n.cutAfter--; n.cutAfter == 0 {
			return nil, nil, []byte{0, 0, 1, 0, 7}, false
		}
	}
	if n.refuse != nil || n.raw != nil || n.silent {
		return nil, n.refuse, n.raw, n.silent
	}
	switch call.GetProtocol() + "/" + call.GetMethod() {
	case "org.apache.hadoop.hdfs.server.protocol.NamenodeProtocol/versionRequest":
		return &hadoopv1.VersionResponse{Info: &hadoopv1.NamespaceInfo{BlockPool: &n.pool}}, nil, nil, false
	case "org.apache.hadoop.hdfs.protocol.ClientProtocol/getCurrentEditLogTxid":
		return &hadoopv1.GetCurrentEditLogTxidResponse{Txid: new(n.last)}, nil, nil, false
	case "org.apache.hadoop.hdfs.protocol.ClientProtocol/getEditsFromTxid":
		return &hadoopv1.GetEditsFromTxidResponse{List: n.edits(request.GetTxid())}, nil, nil, false
	}
	return nil, &exception{class: "org.apache.hadoop.ipc.RpcNoSuchMethodException", message: "Unknown method " + call.GetMethod()}, nil, false
}

// edits answers as FSEditLog does.
func (n *nameNode) edits(from int64) *hadoopv1.EventsList {
	list := &hadoopv1.EventsList{FirstTxid: new(int64(-1)), LastTxid: new(int64(-1)), SyncTxid: new(n.last)}
	if n.list != nil {
		return n.list()
	}
	if from > n.last || n.unread {
		return list
	}
	list.FirstTxid, list.LastTxid = new(max(from, n.first)), new(n.last)
	events := 0
	for _, b := range n.log {
		if b.GetTxid() < list.GetFirstTxid() {
			continue
		}
		list.Batches = append(list.Batches, b)
		if events += len(b.GetEvents()); events >= n.perCall {
			list.LastTxid = b.Txid
			break
		}
	}
	return list
}

// purge forgets all before the transaction first.
func (n *nameNode) purge(first int64) { n.set(func(n *nameNode) { n.first = first }) }

// event makes one of the type.
func event(typ uint32, contents proto.Message) *hadoopv1.Event {
	b, err := proto.Marshal(contents)
	if err != nil {
		panic(err)
	}
	return &hadoopv1.Event{Type: &typ, Contents: b}
}

func closed(path string) *hadoopv1.Event {
	return event(1, &hadoopv1.CloseEvent{Path: &path, Timestamp: new(int64(1700000000123))})
}

func created(path string, typ uint32) *hadoopv1.Event {
	return event(0, &hadoopv1.CreateEvent{Path: &path, Type: &typ})
}

func renamed(from, to string) *hadoopv1.Event {
	return event(3, &hadoopv1.RenameEvent{Source: &from, Destination: &to})
}

func changed(path string, typ uint32, mtime int64) *hadoopv1.Event {
	return event(4, &hadoopv1.MetadataEvent{Path: &path, Type: &typ, Mtime: &mtime})
}
