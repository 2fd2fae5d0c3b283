package hdfs_test

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// fake is a NameNode that answers every call with the same exception: the ones that
// a real one gives only when it is in trouble.
type fake struct {
	addr string

	mu    sync.Mutex
	class string
	text  string
}

func fakeNameNode(t testing.TB, class, text string) *fake {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{addr: l.Addr().String(), class: class, text: text}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return f
}

func (f *fake) answer(class, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.class, f.text = class, text
}

// serve reads the greeting, the connection context and then calls.
func (f *fake) serve(c net.Conn) {
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, 7)); err != nil {
		return
	}
	for first := true; ; first = false {
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(c, frame); err != nil {
			return
		}
		if first {
			continue
		}
		if _, err := c.Write(f.reply(callID(frame))); err != nil {
			return
		}
	}
}

// callID finds field 3 in the header of a call, a zigzag number.
func callID(frame []byte) uint64 {
	header, _ := protowire.ConsumeBytes(frame)
	for len(header) > 0 {
		num, typ, n := protowire.ConsumeTag(header)
		if n < 0 {
			return 0
		}
		header = header[n:]
		if num == 3 && typ == protowire.VarintType {
			id, _ := protowire.ConsumeVarint(header)
			return uint64(protowire.DecodeZigZag(id))
		}
		n = protowire.ConsumeFieldValue(num, typ, header)
		if n < 0 {
			return 0
		}
		header = header[n:]
	}
	return 0
}

func (f *fake) reply(id uint64) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	var h []byte
	h = protowire.AppendVarint(protowire.AppendTag(h, 1, protowire.VarintType), id)
	h = protowire.AppendVarint(protowire.AppendTag(h, 2, protowire.VarintType), 1) // ERROR
	h = protowire.AppendString(protowire.AppendTag(h, 4, protowire.BytesType), f.class)
	h = protowire.AppendString(protowire.AppendTag(h, 5, protowire.BytesType), f.text+"\n\tat java.lang.Thread.run(Thread.java:840)")
	body := protowire.AppendBytes(nil, h)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// TestExceptions: code decides on the Kind, and an exception that nobody has heard of
// is never an absence.
func TestExceptions(t *testing.T) {
	nn := fakeNameNode(t, "", "")
	fs := open(t, nn.addr, "/x", map[string]string{"request_timeout": "5s"})
	defer fs.Close() //nolint:errcheck // end of the test
	for class, want := range map[string]freshet.Kind{
		"java.io.FileNotFoundException":                                                  freshet.KindNotExist,
		"org.apache.hadoop.security.AccessControlException":                              freshet.KindPermission,
		"org.apache.hadoop.security.authorize.AuthorizationException":                    freshet.KindPermission,
		"org.apache.hadoop.hdfs.protocol.NSQuotaExceededException":                       freshet.KindExhausted,
		"org.apache.hadoop.hdfs.protocol.DSQuotaExceededException":                       freshet.KindExhausted,
		"org.apache.hadoop.hdfs.server.namenode.SafeModeException":                       freshet.KindUnavailable,
		"org.apache.hadoop.ipc.StandbyException":                                         freshet.KindUnavailable,
		"org.apache.hadoop.ipc.RetriableException":                                       freshet.KindUnavailable,
		"java.io.IOException":                                                            freshet.KindUnavailable,
		"java.lang.NullPointerException":                                                 freshet.KindUnavailable,
		"example.NobodyKnowsException":                                                   freshet.KindUnavailable,
		"":                                                                               freshet.KindUnavailable,
		"org.apache.hadoop.fs.InvalidPathException":                                      freshet.KindInvalid,
		"org.apache.hadoop.fs.FileAlreadyExistsException":                                freshet.KindExist,
		"org.apache.hadoop.fs.PathIsNotEmptyDirectoryException":                          freshet.KindConflict,
		"org.apache.hadoop.hdfs.protocol.SnapshotException":                              freshet.KindConflict,
		"java.lang.UnsupportedOperationException":                                        freshet.KindUnsupported,
		"org.apache.hadoop.hdfs.protocol.FSLimitException$PathComponentTooLongException": freshet.KindInvalid,
	} {
		nn.answer(class, "because")
		mode := uint32(0o600)
		_, err := fs.SetAttr(t.Context(), "f", ufs.Attr{Mode: &mode})
		wantKind(t, err, want, "")
		if want == freshet.KindUnavailable && freshet.IsKind(err, freshet.KindNotExist) {
			t.Errorf("%s is an absence", class)
		}
		if err == nil || len(err.Error()) > 400 {
			t.Errorf("%s: %v", class, err)
		}
	}
	nn.answer("org.apache.hadoop.security.AccessControlException", "/x/f (is not a directory)")
	_, err := fs.Stat(t.Context(), "f/below")
	wantKind(t, err, freshet.KindNotExist, "")
}
