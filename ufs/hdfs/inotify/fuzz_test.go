package inotify_test

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/freshet-io/freshet/invalidation"
	hadoopv1 "github.com/freshet-io/freshet/proto/hadoop/v1"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/hdfs/inotify"
)

func FuzzFrame(f *testing.F) {
	good, err := inotify.AppendFrame(nil,
		&hadoopv1.RpcResponseHeader{CallId: new(uint32(1)), Status: new(uint32(0))},
		&hadoopv1.GetCurrentEditLogTxidResponse{Txid: new(int64(7))})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte("HTTP/1.1 400"))
	f.Add([]byte{0x07, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		frame, err := inotify.ReadFrame(bytes.NewReader(data))
		if err != nil {
			return
		}
		if len(frame) == 0 || len(frame) > len(data)-4 {
			t.Fatalf("frame of %d bytes out of %d", len(frame), len(data))
		}
		header, body, err := inotify.ParseResponse(frame)
		if err != nil {
			return
		}
		if header.CallId == nil || len(body) > len(frame) || header.GetStatus() != 0 && body != nil {
			t.Fatalf("header %v, body of %d bytes", header, len(body))
		}
	})
}

func FuzzEdits(f *testing.F) {
	n := newNameNode()
	n.add(created("/a", 0), closed("/a"), renamed("/a", "/b"), changed("/b", 0, 5))
	n.add(event(9, &hadoopv1.CloseEvent{}))
	good, err := proto.Marshal(&hadoopv1.GetEditsFromTxidResponse{List: n.edits(1)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Fuzz(func(t *testing.T, body []byte) {
		first, last, records, _, err := inotify.Decode(body)
		if err != nil {
			return
		}
		if last >= 0 && first > last {
			t.Fatalf("transactions %d to %d", first, last)
		}
		for i := range records {
			checkRecord(t, &records[i])
		}
	})
}

func checkRecord(t *testing.T, r *invalidation.Record) {
	t.Helper()
	keys := []string{r.Key}
	if r.Kind == invalidation.KindRename {
		keys = append(keys, r.Key2)
	}
	for _, k := range keys {
		if !strings.HasPrefix(k, "/") || k != "/" && strings.HasSuffix(k, "/") || !utf8.ValidString(k) || ufs.IsTemp(strings.TrimPrefix(k, "/")) {
			t.Fatalf("key %q", k)
		}
	}
}

func FuzzCursor(f *testing.F) {
	f.Add([]byte{})
	f.Add(append([]byte{1}, make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, cursor []byte) {
		again, err := inotify.RoundTrip(cursor)
		if err == nil && !bytes.Equal(again, cursor) {
			t.Fatalf("%x became %x", cursor, again)
		}
	})
}
