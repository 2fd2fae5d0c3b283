package rpc_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

// manyPages lists a directory of so many pages of full size.
type manyPages struct {
	fake

	pages   int64
	served  atomic.Int64
	failAt  int64 // the page that fails once, with err
	failErr error
	failed  atomic.Bool
}

func (f *manyPages) List(_ context.Context, q freshet.ListQuery) (freshet.ListPage, error) {
	at := int64(0)
	if q.PageToken != "" {
		at, _ = strconv.ParseInt(q.PageToken, 10, 64)
	}
	if f.failErr != nil && at == f.failAt && f.failed.CompareAndSwap(false, true) {
		return freshet.ListPage{}, f.failErr
	}
	f.served.Add(1)
	page := freshet.ListPage{Entries: make([]freshet.Info, freshet.MaxListPage)}
	for i := range page.Entries {
		page.Entries[i] = freshet.Info{Path: freshet.Path(fmt.Sprintf("%s/entry-%09d", q.Path, at*freshet.MaxListPage+int64(i))), Length: 1}
	}
	if at+1 < f.pages {
		page.NextPageToken = strconv.FormatInt(at+1, 10)
	}
	return page, nil
}

// serveNamespace serves nothing but a namespace.
func serveNamespace(t *testing.T, ns rpc.Namespace) *server {
	t.Helper()
	srv := rpc.NewServer(rpc.ServerOptions{})
	rpc.RegisterNamespace(srv.Registrar(), rpc.NewNamespaceServer(ns, nil))
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return &server{addr: l.Addr().String(), stop: stop}
}

// TestAListingOfAMillionEntriesIsHeldUpByItsReader: what is between a server and a
// reader never is more than the largest window of a connection, 16 MiB, whatever the
// size of the directory.
func TestAListingOfAMillionEntriesIsHeldUpByItsReader(t *testing.T) {
	const pages, window = 1000, 520 // of pages of 33 kB
	f := &manyPages{pages: pages}
	s := serveNamespace(t, f)
	c := dial(t, rpc.DialOptions{}, s.addr)
	got, entries := int64(0), 0
	var most int64
	for page, err := range c.ListStream(t.Context(), freshet.ListQuery{Path: "/d"}) {
		if err != nil {
			t.Fatal(err)
		}
		got++
		if want := freshet.Path(fmt.Sprintf("/d/entry-%09d", entries)); page.Entries[0].Path != want {
			t.Fatalf("page %d begins with %s, not %s", got, page.Entries[0].Path, want)
		}
		entries += len(page.Entries)
		most = max(most, f.served.Load()-got)
	}
	if got != pages || entries != pages*freshet.MaxListPage {
		t.Errorf("%d pages with %d entries", got, entries)
	}
	if most > window {
		t.Errorf("%d pages were on their way at once", most)
	}
}

func TestAListingThatNobodyReadsOnStops(t *testing.T) {
	f := &manyPages{pages: 1 << 40}
	s := serveNamespace(t, f)
	c := dial(t, rpc.DialOptions{}, s.addr)
	for _, err := range c.ListStream(t.Context(), freshet.ListQuery{Path: "/d"}) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	s.stop() // waits for the calls to end
	if n := f.served.Load(); n > 1000 {
		t.Errorf("%d pages were made for a reader of one", n)
	}
}

func TestAListingGoesOnBehindTheLastPage(t *testing.T) {
	for _, kind := range []freshet.Kind{freshet.KindUnavailable, freshet.KindNotLeader} {
		f := &manyPages{pages: 20, failAt: 7, failErr: freshet.Errorf(kind, "list", "", "the leader went away")}
		s := serveNamespace(t, f)
		c := dial(t, rpc.DialOptions{NoRetry: true}, s.addr)
		n := 0
		for page, err := range c.ListStream(t.Context(), freshet.ListQuery{Path: "/d"}) {
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			n += len(page.Entries)
		}
		if n != 20*freshet.MaxListPage || !f.failed.Load() {
			t.Errorf("%s: %d entries", kind, n)
		}
	}
	f := &manyPages{pages: 20, failAt: 7, failErr: freshet.Errorf(freshet.KindPermission, "list", "/d", "no")}
	s := serveNamespace(t, f)
	c := dial(t, rpc.DialOptions{NoRetry: true}, s.addr)
	var last error
	for _, err := range c.ListStream(t.Context(), freshet.ListQuery{Path: "/d"}) {
		last = err
	}
	if !freshet.IsKind(last, freshet.KindPermission) {
		t.Errorf("got %v, want the refusal", last)
	}
}
