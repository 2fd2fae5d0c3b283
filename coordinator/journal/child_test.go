package journal_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-io/freshet/coordinator/journal"
)

// A child is this test binary again, as one member of a cluster with real files and
// sockets that can be killed. It gets its listener as file 3, its directory in
// childEnv and the members in childServers, and while it leads it proposes numbers
// and prints those that were acknowledged.
const (
	childEnv     = "JOURNAL_TEST_CHILD"
	childServers = "JOURNAL_TEST_SERVERS"
)

func child() int {
	if err := runChild(os.Getenv(childEnv), strings.Fields(os.Getenv(childServers))); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	return 0
}

// diskOptions are those of the tests with real files: fast elections and many
// snapshots.
func diskOptions(id, dir string, ln net.Listener) journal.Options {
	o := journal.Options{
		ID: id, Dir: filepath.Join(dir, "raft"), Listener: ln,
		Heartbeat: 400 * time.Millisecond, LeaderLease: 300 * time.Millisecond,
		SnapshotEvery: 100 * time.Millisecond, SnapshotAfter: 100, TrailingLogs: 50,
	}
	if os.Getenv("JOURNAL_TEST_LOG") != "" {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("member", id)
	}
	return o
}

func runChild(dir string, addrs []string) error {
	ln, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	state, err := openRegister(filepath.Join(dir, "state"))
	if err != nil {
		return err
	}
	id := filepath.Base(dir)
	j, err := journal.Open(diskOptions(id, dir, ln), state)
	if err != nil {
		return err
	}
	fmt.Println("clean", j.CleanShutdown())
	if has, err := j.HasState(); err != nil || (!has && id == "m0") {
		if err != nil {
			return err
		}
		var servers []journal.Server
		for i, a := range addrs {
			servers = append(servers, journal.Server{ID: fmt.Sprintf("m%d", i), Addr: a})
		}
		if err := j.Bootstrap(servers); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- j.Run(ctx) }()
	quiet, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() { write(quiet, j) })
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var index uint64
		switch line := in.Text(); {
		case line == "quiet":
			stopWriting()
			writers.Wait()
			fmt.Println("quiet")
		case line == "barrier":
			if index, err := j.ReadBarrier(ctx); err == nil {
				fmt.Println("barrier", index)
			}
		default:
			if _, err := fmt.Sscanf(line, "wait %d", &index); err != nil {
				return err
			}
			if err := journal.WaitApplied(ctx, j, index); err != nil {
				return err
			}
			fmt.Printf("values %x %v\n", state.hash(), state.list())
		}
	}
	cancel()
	stopWriting()
	writers.Wait()
	return <-ended
}

// write proposes numbers while this member leads.
func write(ctx context.Context, j *journal.Journal) {
	for ctx.Err() == nil {
		if _, leads := j.Leading(); !leads {
			_, changed := j.Leadership()
			if _, leads = j.Leading(); !leads {
				select {
				case <-changed:
				case <-ctx.Done():
				}
				continue
			}
		}
		v := 1 + rand.Uint64()>>2
		if _, err := j.Propose(context.WithoutCancel(ctx), put(v)); err == nil { // to its end: then nothing is on its way
			fmt.Printf("ack %d\n", v)
		}
	}
}

// process is a child as its parent sees it.
type process struct {
	id, dir string
	file    *os.File
	addrs   string
	cmd     *exec.Cmd
	in      io.WriteCloser
	lines   chan string // all but acks; closed when the child has ended
	acks    func(id string, v uint64)
}

func (p *process) start(t *testing.T) {
	t.Helper()
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), childEnv+"="+p.dir, childServers+"="+p.addrs)
	p.cmd.ExtraFiles = []*os.File{p.file}
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.in, p.lines = in, make(chan string, 100)
	lines := p.lines
	go func() {
		defer close(lines)
		s := bufio.NewScanner(out)
		s.Buffer(nil, 64<<20)
		for s.Scan() {
			var v uint64
			if _, err := fmt.Sscanf(s.Text(), "ack %d", &v); err == nil {
				p.acks(p.id, v)
				continue
			}
			lines <- s.Text()
		}
	}()
}

// expect returns the rest of the next line with that prefix.
func (p *process) expect(t *testing.T, prefix string) string {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				t.Fatalf("%s ended, %q was expected", p.id, prefix)
			}
			if rest, ok := strings.CutPrefix(line, prefix+" "); ok || line == prefix {
				return rest
			}
		case <-deadline:
			t.Fatalf("%s did not say %q", p.id, prefix)
		}
	}
}

func (p *process) say(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

// kill ends the child by SIGKILL; nothing of it is left but its files.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.in.Close()
	for range p.lines { //nolint:revive // what it still had to say is of no interest
	}
	_ = p.cmd.Wait()
}

// acks collects what all children acknowledged.
type acks struct {
	mu     sync.Mutex
	values []uint64
	last   string
	more   chan struct{}
}

func (a *acks) add(id string, v uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.values = append(a.values, v)
	a.last = id
	close(a.more)
	a.more = make(chan struct{})
}

// wait waits for n more acknowledgements by others than not, and returns who gave
// the last.
func (a *acks) wait(t *testing.T, n int, not string) string {
	t.Helper()
	deadline := time.After(60 * time.Second)
	a.mu.Lock()
	seen := len(a.values)
	a.mu.Unlock()
	for got := 0; ; {
		a.mu.Lock()
		if a.last != not {
			got += len(a.values) - seen
		}
		seen = len(a.values)
		last, more := a.last, a.more
		a.mu.Unlock()
		if got >= n {
			return last
		}
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("%d of %d acknowledgements within a minute", got, n)
		}
	}
}

// Members are killed in the middle of writing; what they acknowledged is there.
func TestKilledProcessesLoseNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("runs processes")
	}
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) { killChildren(t, n) })
	}
}

func killChildren(t *testing.T, n int) {
	t.Helper()
	all := &acks{more: make(chan struct{})}
	var members []*process
	var addrs []string
	dir := t.TempDir()
	for i := range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		file, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		addrs = append(addrs, ln.Addr().String())
		_ = ln.Close() // the file keeps the port
		id := fmt.Sprintf("m%d", i)
		members = append(members, &process{id: id, dir: filepath.Join(dir, id), file: file, acks: all.add})
	}
	for _, m := range members {
		m.addrs = strings.Join(addrs, " ")
		m.start(t)
		if got := m.expect(t, "clean"); got != "true" {
			t.Errorf("the first start is not clean: %s", got)
		}
	}
	byID := func(id string) *process {
		return members[slices.IndexFunc(members, func(p *process) bool { return p.id == id })]
	}
	for range 3 {
		leader := byID(all.wait(t, 40, ""))
		start := time.Now()
		leader.kill()
		if n > 1 {
			all.wait(t, 1, leader.id)
			t.Logf("leader killed, next acknowledgement after %v", time.Since(start).Round(time.Millisecond))
		}
		leader.start(t)
		if got := leader.expect(t, "clean"); got != "false" {
			t.Errorf("the start after a kill counts as clean: %s", got)
		}
	}
	all.wait(t, 30, "")
	for _, m := range members {
		m.kill()
	}
	for _, m := range members {
		m.start(t)
	}
	all.wait(t, 30, "")
	checkChildren(t, members, all)
}

// checkChildren stops the writing, compares all members and ends them in order.
func checkChildren(t *testing.T, members []*process, all *acks) {
	t.Helper()
	for _, m := range members {
		m.say(t, "quiet")
		m.expect(t, "quiet")
	}
	index := barrier(t, members)
	var first string
	for _, m := range members {
		m.say(t, "wait "+index)
		values := m.expect(t, "values")
		if first == "" {
			first = values
		}
		if values != first {
			t.Errorf("the states of %s and %s differ", m.id, members[0].id)
		}
	}
	present := map[string]bool{}
	for v := range strings.FieldsSeq(strings.NewReplacer("[", " ", "]", " ").Replace(first)) {
		present[v] = true
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	for _, v := range all.values {
		if !present[fmt.Sprint(v)] {
			t.Errorf("%d was acknowledged and is lost", v)
		}
	}
	t.Logf("%d acknowledged, %d in the state", len(all.values), len(present)-1)
	for _, m := range members {
		_ = m.in.Close()
		if err := m.cmd.Wait(); err != nil {
			t.Errorf("%s: %v", m.id, err)
		}
	}
}

// barrier asks all members until one answers: the leader may be about to change.
func barrier(t *testing.T, members []*process) string {
	t.Helper()
	for range 100 {
		for _, m := range members {
			m.say(t, "barrier")
		}
		for _, m := range members {
			select {
			case line := <-m.lines:
				if index, ok := strings.CutPrefix(line, "barrier "); ok {
					return index
				}
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	t.Fatal("no member answered a read")
	return ""
}
