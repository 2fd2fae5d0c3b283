package inotify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	hadoopv1 "github.com/freshet-io/freshet/proto/hadoop/v1"
)

// maxFrame is the longest response that is read, in bytes: Hadoop's own default
// (ipc.maximum.response.length). A NameNode tells about a thousand changes at once.
const maxFrame = 128 << 20

// Numbers of the first request, which only carries the connection context, and
// of the one protocol that all others use.
const (
	contextCallID = -3
	protobufRPC   = 2
)

var errFrame = errors.New("not a response of Hadoop RPC")

// preamble opens a connection: version 9, service class 0, no SASL.
func preamble() []byte { return []byte{'h', 'r', 'p', 'c', 9, 0, 0} }

// appendFrame appends one frame: its length, then each message with its own.
func appendFrame(buf []byte, messages ...proto.Message) ([]byte, error) {
	start := len(buf)
	buf = append(buf, 0, 0, 0, 0)
	for _, m := range messages {
		buf = binary.AppendUvarint(buf, uint64(proto.Size(m)))
		var err error
		if buf, err = (proto.MarshalOptions{}).MarshalAppend(buf, m); err != nil {
			return nil, err
		}
	}
	binary.BigEndian.PutUint32(buf[start:], uint32(len(buf)-start-4))
	return buf, nil
}

// readFrame reads one frame. It allocates as bytes arrive, whatever the length
// that the frame claims to have.
func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	switch {
	case string(head[:]) == "HTTP":
		return nil, fmt.Errorf("%w but of HTTP: give the RPC port of the NameNode, not that of its web pages", errFrame)
	case n == 0 || n > maxFrame:
		return nil, fmt.Errorf("%w: it claims %d bytes, allowed are 1 to %d", errFrame, n, maxFrame)
	}
	var buf bytes.Buffer
	if _, err := io.CopyN(&buf, r, int64(n)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("response of %d bytes ended after %d: %w", n, buf.Len(), err)
	}
	return buf.Bytes(), nil
}

// parseResponse splits a frame into its header and the body that follows where
// the call succeeded.
func parseResponse(frame []byte) (*hadoopv1.RpcResponseHeader, []byte, error) {
	head, rest, err := cutDelimited(frame)
	if err != nil {
		return nil, nil, err
	}
	header := &hadoopv1.RpcResponseHeader{}
	if err := proto.Unmarshal(head, header); err != nil {
		return nil, nil, fmt.Errorf("%w: header: %w", errFrame, err)
	}
	if header.CallId == nil || header.Status == nil {
		return nil, nil, fmt.Errorf("%w: header without call or status", errFrame)
	}
	if header.GetStatus() != 0 {
		return header, nil, nil
	}
	body, rest, err := cutDelimited(rest)
	if err != nil {
		return nil, nil, err
	}
	if len(rest) != 0 {
		return nil, nil, fmt.Errorf("%w: %d bytes after its end", errFrame, len(rest))
	}
	return header, body, nil
}

func cutDelimited(b []byte) (message, rest []byte, err error) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return nil, nil, fmt.Errorf("%w: a message is longer than its frame", errFrame)
	}
	return b[used : used+int(n)], b[used+int(n):], nil
}
