package inotify_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	hadoopv1 "github.com/freshet-io/freshet/proto/hadoop/v1"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/hdfs/inotify"
)

func TestRefusals(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name   string
		refuse exception
		kind   freshet.Kind
		text   string
		waits  bool // tried again before
	}{
		{
			name: "not the superuser", kind: freshet.KindPermission, text: "dfs.permissions.superusergroup",
			refuse: exception{class: "org.apache.hadoop.security.AccessControlException", message: "Access denied for user hdfs. Superuser privilege is required"},
		},
		{
			name: "not authorized", kind: freshet.KindPermission, text: `"hdfs"`,
			refuse: exception{class: "org.apache.hadoop.security.authorize.AuthorizationException", message: "User hdfs is not authorized", fatal: true},
		},
		{
			name: "Kerberos", kind: freshet.KindUnsupported, text: "Kerberos",
			refuse: exception{class: "org.apache.hadoop.security.AccessControlException", message: "SIMPLE authentication is not enabled.  Available:[TOKEN, KERBEROS]", fatal: true},
		},
		{
			name: "too old", kind: freshet.KindUnsupported, text: "Hadoop 2.7",
			refuse: exception{class: "org.apache.hadoop.ipc.RpcNoSuchMethodException", message: "Unknown method"},
		},
		{
			name: "all on standby", kind: freshet.KindUnavailable, text: "no NameNode of nn1:8020 is active", waits: true,
			refuse: exception{class: "org.apache.hadoop.ipc.StandbyException", message: "Operation category READ is not supported in state standby"},
		},
		{
			name: "starting", kind: freshet.KindUnavailable, text: "RetriableException: NameNode still not started", waits: true,
			refuse: exception{class: "org.apache.hadoop.ipc.RetriableException", message: "NameNode still not started"},
		},
		{
			name: "broken storage", kind: freshet.KindUnavailable, text: "IOException: disk", waits: true,
			refuse: exception{class: "java.io.IOException", message: "disk"},
		},
		{name: "without a name", kind: freshet.KindUnavailable, text: "unnamed exception", waits: true},
	}
	for _, row := range rows {
		bubble(t, row.name, func(t *testing.T, n *nameNode) {
			n.refuse = &row.refuse
			start := time.Now()
			err := listen(t, source(n), nil).failure()
			if freshet.KindOf(err) != row.kind || !strings.Contains(err.Error(), row.text) || strings.Contains(err.Error(), "java.Stack") {
				t.Errorf("got %v: %v", freshet.KindOf(err), err)
			}
			if d := time.Since(start); (d > 0) != row.waits || d > 15*time.Second {
				t.Errorf("gave up after %v", d)
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name string
		raw  []byte
		kind freshet.Kind
		text string
	}{
		{"HTTP", []byte("HTTP/1.1 400 Bad Request\r\n"), freshet.KindCorrupt, "web pages"},
		{"no length", []byte{0, 0, 0, 0}, freshet.KindCorrupt, "claims 0 bytes"},
		{"oversized", []byte{0xff, 0xff, 0xff, 0xff, 1}, freshet.KindCorrupt, "claims 4294967295 bytes"},
		{"truncated", []byte{0, 0, 1, 0, 1, 2}, freshet.KindUnavailable, "ended after 2"},
		{"truncated length", []byte{0, 0}, freshet.KindUnavailable, "EOF"},
		{"header longer than the frame", []byte{0, 0, 0, 2, 9, 8}, freshet.KindCorrupt, "longer than its frame"},
		{"header is garbage", []byte{0, 0, 0, 3, 2, 0xff, 0xff}, freshet.KindCorrupt, "header"},
		{"header is empty", []byte{0, 0, 0, 1, 0}, freshet.KindCorrupt, "without call"},
		{"no body", []byte{0, 0, 0, 5, 4, 8, 1, 16, 0}, freshet.KindCorrupt, "longer than its frame"},
		{"more after the body", []byte{0, 0, 0, 7, 4, 8, 1, 16, 0, 0, 9}, freshet.KindCorrupt, "after its end"},
		{"another call", []byte{0, 0, 0, 6, 4, 8, 9, 16, 0, 0}, freshet.KindCorrupt, "call 9"},
		{"body is garbage", []byte{0, 0, 0, 8, 4, 8, 1, 16, 0, 2, 0xff, 0xff}, freshet.KindCorrupt, "body"},
	}
	for _, row := range rows {
		bubble(t, row.name, func(t *testing.T, n *nameNode) {
			n.raw = row.raw
			err := listen(t, source(n), nil).failure()
			if freshet.KindOf(err) != row.kind || !strings.Contains(err.Error(), row.text) {
				t.Errorf("got %v: %v", freshet.KindOf(err), err)
			}
		})
	}
}

// Lists of changes that no NameNode sends.
func TestImpossibleBounds(t *testing.T) {
	t.Parallel()
	list := func(first, last int64, txids ...int64) *hadoopv1.EventsList {
		l := &hadoopv1.EventsList{FirstTxid: &first, LastTxid: &last, SyncTxid: &last}
		for _, id := range txids {
			l.Batches = append(l.Batches, &hadoopv1.EventBatch{Txid: &id})
		}
		return l
	}
	for name, l := range map[string]*hadoopv1.EventsList{
		"no list":                      nil,
		"no bounds":                    {},
		"last before first":            list(9, 8),
		"negative first":               list(-1, 8),
		"changes without transactions": list(-1, -1, 1),
		"transaction before the first": list(5, 8, 4),
		"transaction after the last":   list(5, 8, 9),
		"out of order":                 list(5, 8, 7, 6),
		"behind the question":          list(1, 1, 1),
	} {
		bubble(t, name, func(t *testing.T, n *nameNode) {
			n.list = func() *hadoopv1.EventsList { return l }
			if err := listen(t, source(n), nil).failure(); freshet.KindOf(err) != freshet.KindCorrupt {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestStandbyToNext(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, a *nameNode) {
		b, down := newNameNode(), true
		defer b.cut()
		a.refuse = &exception{class: "org.apache.hadoop.ipc.StandbyException", message: "standby"}
		var tried []string
		s := inotify.New(inotify.Options{
			Addrs: []string{"a:1", "down:1", "b:1"}, User: "hdfs",
			Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				tried = append(tried, addr)
				switch {
				case addr == "a:1":
					return a.dial(ctx, network, addr)
				case addr == "b:1" && !down:
					return b.dial(ctx, network, addr)
				}
				return nil, errors.New("connection refused")
			},
		})
		if err := listen(t, s, nil).failure(); !strings.Contains(err.Error(), "refused") {
			t.Errorf("with one standby and two down: %v", err)
		}
		down = false
		tried = nil
		start := time.Now()
		l := listen(t, s, nil)
		l.notice()
		if len(tried) > 3 || tried[len(tried)-1] != "b:1" || time.Since(start) > 0 {
			t.Errorf("tried %q in %v", tried, time.Since(start))
		}
		tried = nil
		listen(t, s, nil).notice()
		if len(tried) != 1 {
			t.Errorf("a second watch tried %q, want the one that answered", tried)
		}
		b.add(closed("/f"))
		l.notice()
		// Fail over: b becomes standby, a active, with the same history.
		a.set(func(a *nameNode) { a.refuse, a.log, a.last = nil, b.log, b.last })
		b.set(func(b *nameNode) {
			b.refuse = &exception{class: "org.apache.hadoop.ipc.StandbyException", message: "standby"}
		})
		a.add(closed("/g"))
		if n := l.notice(); n.Gap != "" || len(n.Changes) != 1 || n.Changes[0].Key != "/g" {
			t.Errorf("after the fail-over: %+v", n)
		}
	})
}

func TestCutConnectionsLoseNothing(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, n *nameNode) {
		l := listen(t, source(n), nil)
		l.notice()
		for i := range 50 {
			n.add(closed("/f"))
			n.set(func(n *nameNode) { n.cutAfter = i%7 + 1 })
			if i%3 == 0 {
				n.cut()
			}
			if got := changes(l); got.Gap != "" || len(got.Changes) != 1 {
				t.Fatalf("round %d: %+v", i, got)
			}
		}
	})
}

// changes returns the next notice that is more than a heartbeat.
func changes(l *listener) ufs.Notice {
	l.t.Helper()
	for {
		if n := l.notice(); len(n.Changes) > 0 || n.Gap != "" {
			return n
		}
	}
}

func TestSilentNameNode(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, n *nameNode) {
		n.silent = true
		start := time.Now()
		err := listen(t, source(n), nil).failure()
		if freshet.KindOf(err) != freshet.KindUnavailable || time.Since(start) > ufs.WatchSilence {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestWithoutAddressOrUser(t *testing.T) {
	t.Parallel()
	for _, o := range []inotify.Options{{User: "hdfs"}, {Addrs: []string{"nn:1"}}} {
		if err := listen(t, inotify.New(o), nil).failure(); freshet.KindOf(err) != freshet.KindInvalid {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
