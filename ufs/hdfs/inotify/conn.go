package inotify

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"time"

	"google.golang.org/protobuf/proto"

	hadoopv1 "github.com/freshet-io/freshet/proto/hadoop/v1"
)

// Protocols of the NameNode. One connection serves both: the class of each call
// decides which of them answers.
const (
	clientProtocol   = "org.apache.hadoop.hdfs.protocol.ClientProtocol"
	namenodeProtocol = "org.apache.hadoop.hdfs.server.protocol.NamenodeProtocol"
)

const dialTimeout = 5 * time.Second

// conn is a connection to one NameNode. It has one call under way at a time, so
// it needs no goroutine; after an error it is of no use any more.
type conn struct {
	net     net.Conn
	r       *bufio.Reader
	client  []byte
	call    int32
	timeout time.Duration
	pending []byte // what goes out before the next call
}

// open connects to the NameNode at addr.
func (s *Source) open(ctx context.Context, addr string) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, min(s.opts.CallTimeout, dialTimeout))
	defer cancel()
	nc, err := s.opts.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &conn{net: nc, r: bufio.NewReaderSize(nc, 64<<10), client: make([]byte, 16), timeout: s.opts.CallTimeout}
	_, _ = rand.Read(c.client) // never fails
	c.pending, err = appendFrame(preamble(), c.header(contextCallID), &hadoopv1.ConnectionContext{
		User:     &hadoopv1.User{Effective: new(s.opts.User)},
		Protocol: new(clientProtocol),
	})
	if err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

func (c *conn) header(call int32) *hadoopv1.RpcRequestHeader {
	return &hadoopv1.RpcRequestHeader{
		RpcKind: new(int32(protobufRPC)), RpcOp: new(int32(0)), CallId: new(call), ClientId: c.client,
	}
}

func (c *conn) close() { c.net.Close() }

// do calls a method and fills response. An exception of the NameNode is a
// *remoteError.
func (c *conn) do(ctx context.Context, protocol, method string, request, response proto.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.net.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.net.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := c.exchange(protocol, method, request, response)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s at %s: %w", method, c.net.RemoteAddr(), err)
	}
	return nil
}

func (c *conn) exchange(protocol, method string, request, response proto.Message) error {
	c.call++
	out, err := appendFrame(c.pending, c.header(c.call),
		&hadoopv1.RequestHeader{Method: new(method), Protocol: new(protocol), Version: new(uint64(1))}, request)
	if err != nil {
		return err
	}
	c.pending = nil
	if _, err := c.net.Write(out); err != nil {
		return err
	}
	frame, err := readFrame(c.r)
	if err != nil {
		return err
	}
	header, body, err := parseResponse(frame)
	if err != nil {
		return err
	}
	// What ends the connection may come without the number of a call.
	if header.GetStatus() > 1 {
		return newRemoteError(header)
	}
	if header.GetCallId() != uint32(c.call) {
		return fmt.Errorf("%w: it is to call %d, not %d", errFrame, header.GetCallId(), c.call)
	}
	if header.GetStatus() != 0 {
		return newRemoteError(header)
	}
	if err := proto.Unmarshal(body, response); err != nil {
		return fmt.Errorf("%w: body: %w", errFrame, err)
	}
	return nil
}

// lastTxid asks for the last transaction. Only the active NameNode answers.
func (c *conn) lastTxid(ctx context.Context) (int64, error) {
	var res hadoopv1.GetCurrentEditLogTxidResponse
	if err := c.do(ctx, clientProtocol, "getCurrentEditLogTxid", &hadoopv1.GetCurrentEditLogTxidRequest{}, &res); err != nil {
		return 0, err
	}
	if res.Txid == nil || res.GetTxid() < 0 {
		return 0, fmt.Errorf("%w: no last transaction", errFrame)
	}
	return res.GetTxid(), nil
}

// edits asks for the changes from a transaction on.
func (c *conn) edits(ctx context.Context, txid int64) (edits, error) {
	var res hadoopv1.GetEditsFromTxidResponse
	if err := c.do(ctx, clientProtocol, "getEditsFromTxid", &hadoopv1.GetEditsFromTxidRequest{Txid: new(txid)}, &res); err != nil {
		return edits{}, err
	}
	return newEdits(res.GetList())
}

// identity names the name space, so that another one under the same address is
// told apart; "" if the NameNode does not say.
func (c *conn) identity(ctx context.Context) (string, error) {
	var res hadoopv1.VersionResponse
	err := c.do(ctx, namenodeProtocol, "versionRequest", &hadoopv1.VersionRequest{}, &res)
	if unknownMethod(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	info := res.GetInfo()
	return fmt.Sprintf("%s %s %d %d", info.GetStorage().GetClusterId(), info.GetBlockPool(),
		info.GetStorage().GetNamespaceId(), info.GetStorage().GetCtime()), nil
}
