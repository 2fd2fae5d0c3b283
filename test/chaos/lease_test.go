package chaos_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

// hotFile is one that is written and read all the time. Its name goes with the first
// write whose outcome is unknown: an effect may still land then.
type hotFile struct {
	name  string
	acked atomic.Int64 // the last version that was acknowledged
}

// leaseTrial has nodes that keep answers serve files that change.
type leaseTrial struct {
	w     *e2e.World
	files [3]atomic.Pointer[hotFile]
	names atomic.Int64
	reads atomic.Int64
	bad   chan string
}

func (l *leaseTrial) fresh(i int) {
	l.files[i].Store(&hotFile{name: fmt.Sprintf("hot-%d", l.names.Add(1))})
}

// write writes one version after the other.
func (l *leaseTrial) write(ctx context.Context, i int) {
	for v := int64(1); ctx.Err() == nil; v++ {
		f := l.files[i].Load()
		to, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		_, err := l.w.A.Write(to, f.name, []byte(strconv.FormatInt(v, 10)))
		cancel()
		if err != nil {
			l.fresh(i)
			continue
		}
		f.acked.Store(v)
		pause(ctx, 150*time.Millisecond)
	}
}

// read reads through a node, and judges.
func (l *leaseTrial) read(ctx context.Context, node string, i int) {
	hc := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{}}
	defer hc.CloseIdleConnections()
	for ; ctx.Err() == nil; pause(ctx, 3*time.Millisecond) {
		f := l.files[i].Load()
		least := f.acked.Load()
		if least == 0 {
			continue
		}
		v, err := get(ctx, hc, "http://"+node+"/v1/data"+string(l.w.A.At(f.name)))
		if err != nil {
			continue // the node or the leader is away
		}
		l.reads.Add(1)
		if v < least {
			select {
			case l.bad <- fmt.Sprintf("%s gave version %d of %s after %d had been acknowledged", node, v, f.name, least):
			default:
			}
		}
	}
}

func get(ctx context.Context, hc *http.Client, url string) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, b)
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(b), 10, 64)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// hits returns how many questions kept answers saved a node.
func hits(t *testing.T, node string) float64 {
	t.Helper()
	for line := range strings.Lines(e2e.HTTP(t, http.MethodGet, "http://"+node+"/metrics", "").Want(t, http.StatusOK).Body) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == "freshet_lease_hits_total" {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatal("the node does not count kept answers")
	return 0
}

// TestKeptAnswersAreNeverStale: nodes keep answers while files change, nodes and leaders
// stand still and leaders are killed; no read that begins after a write was acknowledged
// may return an older version.
func TestKeptAnswersAreNeverStale(t *testing.T) {
	w := e2e.NewDirWorld(t, e2e.Options{Lone: true})
	l := &leaseTrial{w: w, bad: make(chan string, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for i := range l.files {
		l.fresh(i)
		work.Go(func() { l.write(ctx, i) })
		for _, node := range w.A.NodeHTTP {
			work.Go(func() { l.read(ctx, node, i) })
		}
	}
	defer work.Wait()
	defer cancel()
	progress := func() {
		t.Helper()
		from := l.reads.Load()
		if err := fleet.Poll(t.Context(), 2*e2e.Patience, "reads", func(context.Context) error {
			if n := l.reads.Load() - from; n < 100 {
				return fmt.Errorf("%d reads", n)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	still := func(p *fleet.Process) {
		t.Helper()
		if err := p.Signal(sigStop); err != nil {
			t.Fatal(err)
		}
		pause(t.Context(), 4*time.Second) // longer than a lease and an election
		if err := p.Signal(sigCont); err != nil {
			t.Fatal(err)
		}
	}
	leader := func() *fleet.Process {
		t.Helper()
		var p *fleet.Process
		if err := fleet.Poll(t.Context(), e2e.Patience, "a leader", func(ctx context.Context) (err error) {
			p, err = w.A.Leader(ctx)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return p
	}
	progress()
	for _, fault := range []func(){
		func() { still(w.A.Nodes[0]) },
		func() {
			p := leader()
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
			progress() // under another leader
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
		},
		func() { still(leader()) },
		func() { still(w.A.Nodes[1]) },
	} {
		fault()
		progress()
	}
	select {
	case why := <-l.bad:
		t.Error(why)
	default:
	}
	total := 0.0
	for _, node := range w.A.NodeHTTP {
		total += hits(t, node)
	}
	if total < 100 {
		t.Errorf("only %.0f of %d reads asked nobody: leases do not work", total, l.reads.Load())
	}
	t.Logf("%d reads, %.0f of them asked nobody", l.reads.Load(), total)
}
