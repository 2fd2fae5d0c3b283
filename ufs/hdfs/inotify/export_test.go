package inotify

import (
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/freshet-io/freshet/invalidation"
	hadoopv1 "github.com/freshet-io/freshet/proto/hadoop/v1"
)

// MaxRecords is maxRecords.
const MaxRecords = maxRecords

// AppendFrame is appendFrame.
func AppendFrame(buf []byte, messages ...proto.Message) ([]byte, error) {
	return appendFrame(buf, messages...)
}

// ReadFrame is readFrame.
func ReadFrame(r io.Reader) ([]byte, error) { return readFrame(r) }

// ParseResponse is parseResponse.
func ParseResponse(frame []byte) (*hadoopv1.RpcResponseHeader, []byte, error) {
	return parseResponse(frame)
}

// CutDelimited is cutDelimited.
func CutDelimited(b []byte) (message, rest []byte, err error) { return cutDelimited(b) }

// Decode decodes the body of an answer of getEditsFromTxid.
func Decode(body []byte) (first, last int64, records []invalidation.Record, unread []string, err error) {
	var res hadoopv1.GetEditsFromTxidResponse
	if err := proto.Unmarshal(body, &res); err != nil {
		return 0, 0, nil, nil, err
	}
	e, err := newEdits(res.GetList())
	for _, b := range e.batches {
		records = append(records, b.records...)
		if b.unread != "" {
			unread = append(unread, b.unread)
		}
	}
	return e.first, e.last, records, unread, err
}

// RoundTrip parses a cursor and writes it again.
func RoundTrip(cursor []byte) ([]byte, error) {
	p, err := parseCursor(cursor)
	return p.cursor(), err
}
