package local_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/clock"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc/local"
)

// TestNoAnswerIsMissed: one that nobody takes would keep its descriptor open.
func TestNoAnswerIsMissed(t *testing.T) {
	if local.AnswersCanBeMissed() {
		t.Error("who gives up while its answer comes leaves a descriptor behind")
	}
}

// peer greets clients as a node does, and then does what the test says with each
// request. It is also the way to the node over the network, which works.
type peer struct {
	node  freshet.Node
	asked atomic.Int64
	far   atomic.Int64 // what came over the network
}

// newPeer: a nil serve leaves requests in the socket, as a process that stands still.
func newPeer(t *testing.T, serve func(c *net.UnixConn, m *freshetv1.LocalRequest)) (*peer, *local.Pool) {
	t.Helper()
	if !local.Supported {
		t.Skip("this system has no local reads")
	}
	run, err := os.MkdirTemp("", "fl-") //nolint:usetesting // a socket's path must be short
	check(t, err)
	n := &peer{node: freshet.Node{ID: "n", Incarnation: 3, Socket: filepath.Join(run, "s")}}
	l, err := net.ListenUnix(local.Network, &net.UnixAddr{Name: n.node.Socket, Net: local.Network})
	check(t, err)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			wg.Go(func() { n.talk(c, serve, stop) })
		}
	})
	p := local.New(n, local.Options{Clock: clock.NewFake(time.Unix(1, 0))}) // what failed is left alone for ever
	t.Cleanup(func() { _ = p.Close(); close(stop); _ = l.Close(); wg.Wait(); _ = os.RemoveAll(run) })
	return n, p
}

func (n *peer) talk(c *net.UnixConn, serve func(c *net.UnixConn, m *freshetv1.LocalRequest), stop <-chan struct{}) {
	defer c.Close()
	defer context.AfterFunc(ended{stop}, func() { _ = c.Close() })()
	b := make([]byte, 1<<17)
	for {
		size, err := c.Read(b)
		if err != nil || size == 0 {
			return
		}
		m := new(freshetv1.LocalRequest)
		if proto.Unmarshal(b[:size], m) != nil {
			return
		}
		if m.GetHello() != nil {
			say(c, &freshetv1.LocalAnswer{What: &freshetv1.LocalAnswer_Welcome{Welcome: &freshetv1.LocalWelcome{NodeId: "n", Incarnation: 3}}})
			if serve == nil {
				<-stop
				return
			}
			continue
		}
		n.asked.Add(1)
		serve(c, m)
	}
}

// ended is a context that ends with a channel.
type ended struct{ c <-chan struct{} }

func (e ended) Deadline() (time.Time, bool) { return time.Time{}, false }
func (e ended) Done() <-chan struct{}       { return e.c }
func (e ended) Value(any) any               { return nil }
func (e ended) Err() error {
	select {
	case <-e.c:
		return context.Canceled
	default:
		return nil
	}
}

func say(c *net.UnixConn, a *freshetv1.LocalAnswer) {
	if b, err := proto.Marshal(a); err == nil {
		_, _ = c.Write(b)
	}
}

func refuse(c *net.UnixConn, id uint64, kind freshet.Kind) {
	say(c, &freshetv1.LocalAnswer{Id: id, What: &freshetv1.LocalAnswer_Refusal{Refusal: &freshetv1.LocalRefusal{Kind: kind.String()}}})
}

func (n *peer) ReadBlock(_ context.Context, _ freshet.Node, q freshet.BlockRead) (freshet.BlockStream, error) {
	n.far.Add(1)
	return body{bytes.NewReader(make([]byte, q.Length))}, nil
}

func (n *peer) ReadAhead(context.Context, freshet.Node, freshet.BlockRead) error {
	n.far.Add(1)
	return nil
}

func (n *peer) WriteFile(context.Context, freshet.Ticket, io.Reader, int64) (freshet.Completed, error) {
	n.far.Add(1)
	return freshet.Completed{}, nil
}

// TestASilentNodeBlocksNobody: no caller sets a limit.
func TestASilentNodeBlocksNobody(t *testing.T) {
	ignore := func(*net.UnixConn, *freshetv1.LocalRequest) {}
	whole := func(t *testing.T, p *local.Pool, n *peer, file int) {
		t.Helper()
		s, err := p.ReadBlock(t.Context(), n.node, read(block(file), 0, size))
		check(t, err)
		got, err := io.ReadAll(s)
		if err != nil || len(got) != size {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		_ = s.Close()
	}
	for name, do := range map[string]func(t *testing.T, p *local.Pool, n *peer, file int){
		"fetch": whole,
		"open": func(t *testing.T, p *local.Pool, n *peer, file int) {
			t.Helper()
			q := read(block(file), 0, 0)
			if !p.ReadBlockAt(t.Context(), &n.node, &q.Block, &q.Source, make([]byte, 10), 0) {
				n.far.Add(1) // the caller does it
			}
		},
		"read ahead": func(t *testing.T, p *local.Pool, n *peer, file int) {
			t.Helper()
			check(t, p.ReadAhead(t.Context(), n.node, read(block(file), 0, size)))
		},
		"write": func(t *testing.T, p *local.Pool, n *peer, _ int) {
			t.Helper()
			_, err := p.WriteFile(t.Context(), freshet.Ticket{Node: n.node, Path: "/f"}, bytes.NewReader(nil), -1)
			check(t, err)
		},
	} {
		for how, serve := range map[string]func(*net.UnixConn, *freshetv1.LocalRequest){"reads": ignore, "stands still": nil} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				n, p := newPeer(t, serve)
				var wg sync.WaitGroup
				for i := range 5 {
					wg.Go(func() { do(t, p, n, 1+i%2) })
				}
				wg.Wait()
				do(t, p, n, 3)
				asked := n.asked.Load()
				do(t, p, n, 4)
				if n.asked.Load() != asked || n.far.Load() != 7 {
					t.Errorf("%d of 7 over the network; %d questions, then %d", n.far.Load(), asked, n.asked.Load())
				}
			})
		}
	}
}

// TestAFullSocketBlocksNobody asks a node that stands still for more than its socket
// has room for.
func TestAFullSocketBlocksNobody(t *testing.T) {
	t.Parallel()
	n, p := newPeer(t, nil)
	var wg sync.WaitGroup
	for i := range 3000 {
		wg.Go(func() {
			q := read(block(1+i), 0, 0)
			if p.ReadBlockAt(t.Context(), &n.node, &q.Block, &q.Source, make([]byte, 10), 0) {
				t.Error("a block was lent")
			}
		})
	}
	wg.Wait()
	check(t, p.Close())
}

// TestAFetchMayTakeAsLongAsItTakes while the node answers other questions.
func TestAFetchMayTakeAsLongAsItTakes(t *testing.T) {
	t.Parallel()
	var fetch uint64
	pings := 0
	n, p := newPeer(t, func(c *net.UnixConn, m *freshetv1.LocalRequest) {
		switch {
		case m.GetFetch() != nil:
			fetch = m.GetId()
		case m.GetAwait() != nil && m.GetAwait().GetLoan() == 0:
			refuse(c, m.GetId(), freshet.KindNotExist)
			if pings++; pings == 2 {
				refuse(c, fetch, freshet.KindStale) // no stream would say so
			}
		}
	})
	if _, err := p.ReadBlock(t.Context(), n.node, read(block(1), 0, size)); !freshet.IsKind(err, freshet.KindStale) || n.far.Load() != 0 {
		t.Errorf("%v, %d streams", err, n.far.Load())
	}
}

// TestRecallsThatCrossAReleaseAreForgotten recalls what was never lent.
func TestRecallsThatCrossAReleaseAreForgotten(t *testing.T) {
	t.Parallel()
	n, p := newPeer(t, func(c *net.UnixConn, m *freshetv1.LocalRequest) {
		for i := range uint64(5) {
			r := &freshetv1.LocalRecall{}
			for l := range uint64(3000) {
				r.Loans = append(r.Loans, 1+i*3000+l)
			}
			say(c, &freshetv1.LocalAnswer{What: &freshetv1.LocalAnswer_Recall{Recall: r}})
		}
		refuse(c, m.GetId(), freshet.KindNotExist)
	})
	q := read(block(1), 0, 0)
	p.ReadBlockAt(t.Context(), &n.node, &q.Block, &q.Source, make([]byte, 10), 0)
	if w := local.Wanted(p); w == 0 || w > 4096 {
		t.Errorf("%d loans are remembered", w)
	}
}
