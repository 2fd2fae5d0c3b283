package journal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// node is a member with real files and sockets in this process.
type node struct {
	id, dir string
	ln      net.Listener
	addr    string
	state   *register
	j       *journal.Journal
	cancel  context.CancelFunc
	ended   chan error
	tune    func(*journal.Options)
}

func newNode(t *testing.T, id, dir string, tune func(*journal.Options)) *node {
	t.Helper()
	n := &node{id: id, dir: dir, state: &register{}, tune: tune, addr: reserve(t)}
	n.listen(t)
	return n
}

// reserve returns an address whose port the kernel gives to nobody else until the
// test ends, also while a member restarts: a socket stays bound to it and does not
// listen.
func reserve(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	syscall.CloseOnExec(fd)
	err = errors.Join(
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1),
		syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
	)
	if err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
}

func (n *node) listen(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	n.ln, n.addr = ln, ln.Addr().String()
}

func (n *node) options() journal.Options {
	o := diskOptions(n.id, n.dir, n.ln)
	if n.tune != nil {
		n.tune(&o)
	}
	return o
}

func (n *node) start(t *testing.T, found ...journal.Server) {
	t.Helper()
	j, err := journal.Open(n.options(), n.state)
	if err != nil {
		t.Fatal(err)
	}
	n.j = j
	if len(found) > 0 {
		if err := j.Bootstrap(found); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.ended = cancel, make(chan error, 1)
	go func() { n.ended <- j.Run(ctx) }()
	t.Cleanup(func() { n.stop(t) })
}

func (n *node) stop(t *testing.T) {
	t.Helper()
	if n.cancel == nil {
		return
	}
	n.cancel()
	n.cancel = nil
	if err := <-n.ended; err != nil {
		t.Errorf("%s: %v", n.id, err)
	}
}

// lead waits until one of the nodes leads.
func lead(t *testing.T, nodes ...*node) *node {
	t.Helper()
	found := make(chan *node, len(nodes))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, n := range nodes {
		wg.Go(func() {
			for {
				view, changed := n.j.Leadership()
				if view.Leading {
					found <- n
					return
				}
				select {
				case <-changed:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	select {
	case n := <-found:
		return n
	case <-ctx.Done():
		t.Fatal("no leader within 30 s")
		return nil
	}
}

func servers(nodes []*node) (all []journal.Server) {
	for _, n := range nodes {
		all = append(all, journal.Server{ID: n.id, Addr: n.addr})
	}
	return all
}

func putAt(t *testing.T, n *node, values ...uint64) {
	t.Helper()
	for _, v := range values {
		if _, err := n.j.Propose(t.Context(), put(v)); err != nil {
			t.Fatal(err)
		}
	}
}

// putAny proposes v at whoever leads until it is acknowledged; it may then be there
// twice.
func putAny(t *testing.T, v uint64, nodes ...*node) {
	t.Helper()
	acknowledged(t, func() error {
		_, err := lead(t, nodes...).j.Propose(t.Context(), put(v))
		return err
	})
}

// acknowledged does a change until it is acknowledged: on a busy machine a leader may
// be lost at any time.
func acknowledged(t *testing.T, change func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := change()
		if err == nil {
			return
		}
		if !freshet.IsKind(err, freshet.KindNotLeader, freshet.KindUnavailable) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func distinct(values []uint64) int {
	slices.Sort(values)
	return len(slices.Compact(values))
}

// calm is for several members in this process, which may be starved.
func calm(o *journal.Options) { o.Heartbeat, o.LeaderLease = time.Second, 900*time.Millisecond }

func TestRestartFromDisk(t *testing.T) {
	for _, size := range []int{1, 3, 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			dir := t.TempDir()
			var nodes []*node
			for i := range size {
				id := fmt.Sprintf("m%d", i)
				nodes = append(nodes, newNode(t, id, filepath.Join(dir, id), calm))
			}
			for i, n := range nodes {
				if i == 0 {
					n.start(t, servers(nodes)...)
				} else {
					n.start(t)
				}
			}
			for v := range uint64(200) { // beyond the snapshot and the trailing log
				putAny(t, v+1, nodes...)
			}
			for _, n := range nodes {
				n.stop(t)
			}
			for _, n := range nodes {
				n.state = n.state.crash() // what it had flushed when it ended
				n.listen(t)
				n.start(t)
				if !n.j.CleanShutdown() {
					t.Errorf("%s ended in order and says that it did not", n.id)
				}
				if err := n.j.Bootstrap(servers(nodes)); err == nil {
					t.Error("a running member was bootstrapped again")
				}
			}
			putAny(t, 1000, nodes...)
			index := lead(t, nodes...).state.Applied()
			for _, n := range nodes {
				if err := journal.WaitApplied(t.Context(), n.j, index); err != nil {
					t.Fatal(err)
				}
				if got := distinct(n.state.list()); got != 201 {
					t.Errorf("%s has %d values, want 201", n.id, got)
				}
			}
		})
	}
}

// fill makes a data directory with a log of some entries and returns the state.
func fill(t *testing.T, tune func(*journal.Options)) *node {
	t.Helper()
	n := newNode(t, "m0", t.TempDir(), tune)
	n.start(t, servers([]*node{n})...)
	lead(t, n)
	for v := range uint64(200) {
		putAt(t, n, v+1)
	}
	if n.options().SnapshotEvery < time.Hour {
		if err := n.j.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	n.stop(t)
	return n
}

func keepLog(o *journal.Options) { o.SnapshotEvery, o.TrailingLogs = time.Hour, 10_000 }

func TestDamagedLogIsRefused(t *testing.T) {
	n := fill(t, keepLog)
	file := filepath.Join(n.dir, "raft", "raft.db")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	damage := map[string]func([]byte) []byte{
		"cut off between pages": func(b []byte) []byte { return b[:len(b)/2/page*page] },
		"cut off inside a page": func(b []byte) []byte { return b[:len(b)/2+100] },
		"both heads zeroed":     func(b []byte) []byte { clear(b[:2*page]); return b },
		"a page zeroed": func(b []byte) []byte {
			at := bytes.Index(b, []byte("forgetops")) / page * page
			clear(b[at : at+page])
			return b
		},
		"not a log":           func([]byte) []byte { return []byte(strings.Repeat("not a log ", 2000)) },
		"a bit of each entry": func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("forgetops"), []byte("forgetopr")) },
		"the list of free pages": func(b []byte) []byte {
			for at := 0; at+page <= len(b); at += page {
				if flags := b[at+8]; flags&0x10 != 0 { // a page of that kind: list pages that are in use
					for i := 16; i < 64; i += 8 {
						b[at+i] = byte(2 + i/8)
					}
				}
			}
			return b
		},
	}
	for name, change := range damage {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, change(append([]byte{}, whole...)), 0o600); err != nil {
				t.Fatal(err)
			}
			n.listen(t)
			defer n.ln.Close()
			n.state = n.state.crash()
			j, err := journal.Open(n.options(), n.state)
			if err == nil {
				// Damage to an entry is found when it is read, before anything starts.
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				err = j.Run(ctx)
			}
			if !freshet.IsKind(err, freshet.KindCorrupt) || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("%v, want a clear KindCorrupt", err)
			}
		})
	}
}

func TestMixedUpDirectoriesAreRefused(t *testing.T) {
	n := fill(t, nil) // with snapshots
	n.listen(t)
	for name, state := range map[string]*register{
		"a state that lost what the log no longer has": {},
		"a state that is ahead of the log":             {applied: 1 << 40},
	} {
		if _, err := journal.Open(n.options(), state); !freshet.IsKind(err, freshet.KindCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	first, err := journal.Open(n.options(), n.state)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := journal.Open(n.options(), n.state); !freshet.IsKind(err, freshet.KindConflict) {
		t.Errorf("a second process on the directory: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(filepath.Join(n.dir, "raft"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v; want 0700", info.Mode(), err)
	}
	for _, name := range []string{"snapshot.json"} {
		path := filepath.Join(n.dir, "raft", name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := journal.Open(n.options(), n.state); !freshet.IsKind(err, freshet.KindCorrupt) {
			t.Errorf("a damaged %s: %v", name, err)
		}
	}
}

// The store of the state fails while it applies: the member stops, acknowledges
// nothing and leaves no clean mark.
func TestFailingStateStopsTheMember(t *testing.T) {
	n := newNode(t, "m0", t.TempDir(), nil)
	n.start(t, servers([]*node{n})...)
	lead(t, n)
	putAt(t, n, 1)
	_, err := n.j.Propose(t.Context(), put(poison))
	if !freshet.IsKind(err, freshet.KindUnavailable) || !journal.OutcomeUnknown(err) {
		t.Errorf("propose: %v", err)
	}
	n.cancel = nil
	if err := <-n.ended; err == nil || !strings.Contains(err.Error(), "disk of the state") {
		t.Errorf("run: %v", err)
	}
	if _, err := n.j.Propose(t.Context(), put(2)); !freshet.IsKind(err, freshet.KindUnavailable) || journal.OutcomeUnknown(err) {
		t.Errorf("propose after the end: %v", err)
	}
	n.state = n.state.crash()
	n.listen(t)
	j, err := journal.Open(n.options(), n.state)
	if err != nil {
		t.Fatal(err)
	}
	if j.CleanShutdown() {
		t.Error("the failure counts as a clean end")
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

func TestLargeCommands(t *testing.T) {
	n := newNode(t, "m0", t.TempDir(), nil)
	n.start(t, servers([]*node{n})...)
	lead(t, n)
	listing := func(entries int) namespace.Command {
		l := &namespace.LoadListing{Dir: "/d"}
		for i := range entries {
			l.Upserts = append(l.Upserts, namespace.Entry{Name: fmt.Sprintf("file-%08d", i), Length: int64(i), Owner: "someone", Group: "everyone"})
		}
		return namespace.Command{LoadListing: l}
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			res, err := n.j.Propose(t.Context(), listing(10_000), put(3))
			if err != nil || res[0].Epoch != 10_000 || res[1].Epoch != 3 {
				t.Errorf("10,000 entries: %v", err)
			}
		})
	}
	wg.Wait()
	_, err := n.j.Propose(t.Context(), listing(100_000))
	if !freshet.IsKind(err, freshet.KindInvalid) || journal.OutcomeUnknown(err) {
		t.Errorf("100,000 entries: %v", err)
	}
}

// A backup is restored into an empty member, which founds a cluster anew.
func TestFoundingFromABackup(t *testing.T) {
	n := newNode(t, "m0", t.TempDir(), calm)
	n.state = &register{applied: 5000, values: []uint64{1, 2, 3}}
	n.start(t, servers([]*node{n})...)
	lead(t, n)
	putAt(t, n, 4)
	n.stop(t)
	n.state = n.state.crash()
	n.listen(t)
	n.start(t)
	lead(t, n)
	if got := n.state.list(); len(got) != 4 || n.state.Applied() <= 5000 {
		t.Errorf("values %v, applied %d", got, n.state.Applied())
	}
	// A member that joins gets the state that no log has.
	joiner := newNode(t, "m1", t.TempDir(), calm)
	joiner.start(t)
	acknowledged(t, func() error {
		return lead(t, n, joiner).j.AddVoter(t.Context(), journal.Server{ID: joiner.id, Addr: joiner.addr})
	})
	putAny(t, 5, n, joiner)
	if err := journal.WaitApplied(t.Context(), joiner.j, lead(t, n, joiner).state.Applied()); err != nil {
		t.Fatal(err)
	}
	if got := joiner.state.list(); distinct(got) != 5 {
		t.Errorf("the joiner has %v", got)
	}
}

// A dump that was received and not restored when the process died is restored at
// the next start, before Raft; a damaged or foreign one leaves the state alone.
func TestReceivedDumpIsRestoredAtStart(t *testing.T) {
	cluster := uuid.New()
	source := &register{applied: 70, values: []uint64{7, 8}}
	write := func(t *testing.T, n *node, dump []byte) {
		t.Helper()
		raftDir := filepath.Join(n.dir, "raft")
		marker, err := json.Marshal(map[string]any{
			"version": 1, "index": 72, "term": 3, "config_index": 1, "applied": 70,
			"config": map[string]any{"Servers": []map[string]any{{"Suffrage": 0, "ID": n.id, "Address": n.addr}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		marker = append(marker, '\n')
		for name, b := range map[string][]byte{
			"received.dump": dump, "received.json": fmt.Appendf(marker, "%08x\n", journal.Checksum(marker)), "tmp-1": nil,
		} {
			if err := os.MkdirAll(raftDir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(raftDir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	whole := dumpOf(source, cluster)
	flipped := append([]byte{}, whole...)
	flipped[len(flipped)/2] ^= 4
	for name, c := range map[string]struct {
		dump []byte
		kind freshet.Kind
	}{
		"whole":   {whole, freshet.KindOK},
		"foreign": {dumpOf(source, uuid.New()), freshet.KindConflict},
		"flipped": {flipped, freshet.KindCorrupt},
		"cut":     {whole[:len(whole)-1], freshet.KindCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "m0", t.TempDir(), func(o *journal.Options) {
				o.Identity = func() freshet.ClusterID { return cluster }
			})
			write(t, n, c.dump)
			j, err := journal.Open(n.options(), n.state)
			if freshet.KindOf(err) != c.kind {
				t.Fatalf("open: %v, want %v", err, c.kind)
			}
			if err != nil {
				if n.state.Applied() != 0 {
					t.Error("the state was touched")
				}
				_ = n.ln.Close()
				return
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			if got := n.state.Applied(); got != 70 {
				t.Errorf("applied %d, want 70", got)
			}
			left, err := filepath.Glob(filepath.Join(n.dir, "raft", "*"))
			if err != nil || len(left) != 2 {
				t.Errorf("left %v", left)
			}
			n.listen(t)
			n.start(t)
			lead(t, n)
			putAt(t, n, 9)
		})
	}
}

func TestMetricsAndSettings(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	n := newNode(t, "m0", t.TempDir(), func(o *journal.Options) { o.Metrics = reg })
	n.start(t, servers([]*node{n})...)
	lead(t, n)
	putAt(t, n, 1, 2, 3)
	if _, err := n.j.ReadBarrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			values[f.GetName()] += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"freshet_raft_commands_total": 3, "freshet_raft_members": 1,
		"freshet_raft_reads_total": 1, "freshet_raft_terms_led_total": 1,
	} {
		if values[name] != want {
			t.Errorf("%s is %v, want %v", name, values[name], want)
		}
	}
	n.stop(t)
	if families, err = reg.Gather(); err != nil || len(families) != 0 {
		t.Errorf("%d families are left, %v", len(families), err)
	}
	for name, o := range map[string]journal.Options{
		"no ID":              {Dir: t.TempDir(), Listener: n.ln},
		"no directory":       {ID: "a", Listener: n.ln},
		"no listener":        {ID: "a", Dir: t.TempDir()},
		"lease too long":     {ID: "a", Dir: t.TempDir(), Listener: n.ln, LeaseFor: time.Second},
		"memory without net": {ID: "a", Memory: journal.NewMemory()},
		"negative limit":     {ID: "a", Dir: t.TempDir(), Listener: n.ln, MaxBatch: -1},
		"odd heartbeat":      {ID: "a", Dir: t.TempDir(), Listener: n.ln, Heartbeat: time.Millisecond},
	} {
		if _, err := journal.Open(o, &register{}); !freshet.IsKind(err, freshet.KindInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBootstrapper(t *testing.T) {
	t.Parallel()
	s := func(ids ...string) (all []journal.Server) {
		for _, id := range ids {
			all = append(all, journal.Server{ID: id, Addr: id + ":7401"})
		}
		return all
	}
	for name, c := range map[string]struct {
		expect  int
		known   []journal.Server
		founder string
		kind    freshet.Kind
	}{
		"alone":          {1, s("b"), "b", freshet.KindOK},
		"lowest of all":  {3, s("c", "a", "b"), "a", freshet.KindOK},
		"repeats":        {3, s("c", "a", "c", "b", "a"), "a", freshet.KindOK},
		"not all known":  {3, s("c", "a"), "", freshet.KindOK},
		"more than that": {3, s("a", "b", "c", "d"), "", freshet.KindInvalid},
		"even":           {2, s("a", "b"), "", freshet.KindInvalid},
		"one ID twice":   {3, append(s("a", "b"), journal.Server{ID: "a", Addr: "elsewhere:1"}), "", freshet.KindInvalid},
	} {
		all, founder, ok, err := journal.Bootstrapper(c.expect, c.known)
		if freshet.KindOf(err) != c.kind || founder != c.founder || ok != (founder != "") || (ok && len(all) != c.expect) {
			t.Errorf("%s: %v, %q, %v, %v", name, all, founder, ok, err)
		}
	}
}

var errDial = errors.New("this address is not for us")

// Random bytes and foreign connections on the Raft port do no harm.
func TestRubbishOnThePort(t *testing.T) {
	n := newNode(t, "m0", t.TempDir(), func(o *journal.Options) {
		o.Dial = func(context.Context, string) (net.Conn, error) { return nil, errDial }
	})
	n.start(t, servers([]*node{n})...)
	lead(t, n)
	for _, rubbish := range []string{"", "GET / HTTP/1.1\r\n\r\n", "\x00\x00\x00", "\x03\xff\xff\xff\xff\xff\xff\xff\xff", strings.Repeat("\xde\xff\xff\xff\xff", 1000)} {
		c, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, rubbish); err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}
	putAt(t, n, 1)
}
