package hdfs_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/hdfstest"
	"github.com/freshet-io/freshet/ufs"
)

// slowly is a way to a server on which one request can be held up. It arrives all
// the same, also when its sender has long gone.
type slowly struct {
	addr     string
	armed    atomic.Bool   // the next request is held up
	held     chan struct{} // closed when it is
	release  chan struct{} // closed when it may go on
	let      func()        // closes release
	arrived  chan struct{} // closed when the server has it and has hung up
	answered atomic.Int64  // answers that passed
}

func newSlowly(t *testing.T, target string) *slowly {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &slowly{
		addr: l.Addr().String(), held: make(chan struct{}), release: make(chan struct{}), arrived: make(chan struct{}),
	}
	s.let = sync.OnceFunc(func() { close(s.release) })
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.carry(in, target) })
		}
	})
	t.Cleanup(func() {
		s.let()
		l.Close()
		wg.Wait()
	})
	return s
}

func (s *slowly) carry(in net.Conn, target string) {
	defer in.Close()
	out, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer out.Close()
	var answers sync.WaitGroup
	answers.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := out.Read(buf)
			if err != nil {
				in.Close()
				return
			}
			s.answered.Add(1)
			_, _ = in.Write(buf[:n]) // nobody may wait for it any more
		}
	})
	buf, held := make([]byte, 64<<10), false
	for {
		n, err := in.Read(buf)
		if n > 0 && s.armed.CompareAndSwap(true, false) {
			held = true
			close(s.held)
			<-s.release
		}
		if _, werr := out.Write(buf[:n]); err != nil || werr != nil {
			break
		}
	}
	_ = out.(*net.TCPConn).CloseWrite() // what was written arrives
	answers.Wait()
	if held {
		close(s.arrived)
	}
}

// TestAFileThatIsMadeLate: the caller has given up, and what he asked for was looked
// for in vain, when the NameNode makes it.
func TestAFileThatIsMadeLate(t *testing.T) {
	r := newRoot(t, hdfstest.Shared(t))
	way := newSlowly(t, r.cluster.Addr())
	fs := open(t, way.addr, r.dir, map[string]string{"replication": "1"}) // nothing is asked before
	defer fs.Close()                                                      //nolint:errcheck // end of the test
	if _, err := fs.Stat(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	given := make(chan error, 1)
	way.armed.Store(true)
	go func() {
		_, err := fs.Create(ctx, "f", ufs.CreateOptions{Op: freshet.OpID{1}, Size: -1, Vouched: true})
		given <- err
	}()
	soon(t, way.held, "the NameNode is asked")
	before := way.answered.Load()
	cancel()
	wantKind(t, <-given, freshet.KindDeadline, "")
	eventually(t, "it is looked for", func() error {
		if way.answered.Load() == before {
			return errors.New("no answer came")
		}
		return nil
	})
	way.let()
	soon(t, way.arrived, "the request arrives")
	eventually(t, "it is removed", func() error {
		left, err := r.leftovers()
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left behind: %q", left)
		}
		return err
	})
}

func soon(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Fatalf("%s: not within a minute", what)
	}
}
