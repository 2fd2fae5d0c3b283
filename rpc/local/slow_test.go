package local_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/rpc/local"
)

// slowLender waits for the disk of one block.
type slowLender struct {
	*world

	asked, answers chan struct{}
	once           sync.Once
	lent, out      atomic.Int64 // loans, ever and now
}

type countedLoan struct {
	local.Loan

	out *atomic.Int64
}

func (l countedLoan) Close() {
	l.Loan.Close()
	l.out.Add(-1)
}

func (l *slowLender) Lend(ctx context.Context, q freshet.BlockRead) (local.Loan, error) {
	if q.Block.ID.File == 1 {
		l.once.Do(func() { close(l.asked) })
		<-l.answers
	}
	loan, err := l.world.Lend(ctx, q)
	if err != nil {
		return nil, err
	}
	l.out.Add(1)
	l.lent.Add(1)
	return countedLoan{loan, &l.out}, nil
}

func (l *slowLender) Inspect(q freshet.BlockRead, chunk int64) {
	<-l.answers
	l.world.Inspect(q, chunk)
}

// TestADiskThatHangsHoldsUpItsBlocksAlone: others are lent over the same connection,
// which is not given up either.
func TestADiskThatHangsHoldsUpItsBlocksAlone(t *testing.T) {
	t.Parallel()
	l := &slowLender{asked: make(chan struct{}), answers: make(chan struct{})}
	w := newWorldOf(t, tier.Memory, func(w *world) local.Lender { l.world = w; return l })
	for i := 1; i <= 3; i++ {
		w.put(block(i))
	}
	p := w.pool(local.Options{Clock: clock.NewFake(time.Unix(1, 0))}) // what failed is left alone for ever
	at := func(file int) bool {
		b := make([]byte, 10)
		return w.readAt(p, w.node, read(block(file), 5, 10), b) && bytes.Equal(b, content(block(file))[5:15])
	}
	first := make(chan bool, 1)
	go func() { first <- at(1) }()
	<-l.asked
	if !at(2) {
		t.Error("a block waits for the disk of another one")
	}
	if <-first {
		t.Error("a block is read that does not come")
	}
	if !at(3) {
		t.Error("the connection was given up")
	}
	close(l.answers)
	eventually(t, "what came too late to be given back", func() bool { return l.lent.Load() == 3 && l.out.Load() == 2 })
	check(t, p.Close())
	eventually(t, "all to be given back", func() bool { return l.out.Load() == 0 })
}

// TestAWriteWaitsForANodeThatRuns, however long, and ends when the node does not even
// greet any more.
func TestAWriteWaitsForANodeThatRuns(t *testing.T) {
	t.Parallel()
	const silence = time.Second
	for _, runs := range []bool{true, false} {
		begun, goOn := make(chan struct{}), make(chan struct{})
		n := newTaker(t, func(ctx context.Context, body shared) error {
			close(begun)
			<-goOn
			_, err := inPlace(ctx, body)
			return err
		})
		p := n.pool(local.Options{})
		local.SetSilence(p, silence)
		ended := make(chan error, 1)
		go func() {
			_, err := p.WriteFile(context.Background(), n.ticket(), bytes.NewReader(noise(5<<20)), 5<<20)
			ended <- err
		}()
		<-begun
		if !runs {
			check(t, os.Remove(n.socket)) // nobody answers there
			if err := <-ended; !freshet.IsKind(err, freshet.KindUnavailable) {
				t.Errorf("nobody runs: %v", err)
			}
			close(goOn)
			continue
		}
		select {
		case err := <-ended:
			t.Errorf("the node runs: %v", err)
		case <-time.After(2 * silence):
		}
		close(goOn)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		n.wantFar(0)
	}
}

// TestAWriteEndsWithItsContext while it waits for the node.
func TestAWriteEndsWithItsContext(t *testing.T) {
	t.Parallel()
	begun, goOn := make(chan struct{}), make(chan struct{})
	n := newTaker(t, func(context.Context, shared) error {
		close(begun)
		<-goOn
		return errors.New("too late")
	})
	p := n.pool(local.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := p.WriteFile(ctx, n.ticket(), bytes.NewReader(noise(5<<20)), 5<<20)
		ended <- err
	}()
	<-begun
	cancel()
	if err := <-ended; !freshet.IsKind(err, freshet.KindDeadline) {
		t.Error(err)
	}
	close(goOn)
}
