// Package join_test tests what a large state costs those who write while it is
// copied: into a snapshot, and to a member that joins. Real stores on disk and real
// connections, in one process; make scale runs it with a million inodes.
package join_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/kv/pebblekv"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/fingerprint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scaleEnv is set by make scale; the numbers of inodes with and without.
const (
	scaleEnv = "FRESHET_SCALE_INODES"
	large    = 1_000_000
	small    = 200_000
)

// pauseLimit is generous: the promise is a second, which is reported; but the machine
// may have better things to do than this test.
const pauseLimit = 20 * time.Second

// patience is how long something that must happen may take.
const patience = 10 * time.Minute

// member is a coordinator's state, store and log.
type member struct {
	server journal.Server
	store  *pebblekv.Store
	state  *namespace.State
	j      *journal.Journal
	cancel context.CancelFunc
	ended  chan error
}

func start(t *testing.T, id string, found bool, others ...*member) *member {
	t.Helper()
	dir := t.TempDir()
	m := &member{ended: make(chan error, 1)}
	var err error
	if m.store, err = pebblekv.Open(filepath.Join(dir, "state"), pebblekv.Options{CacheBytes: 32 << 20}); err != nil {
		t.Fatal(err)
	}
	if m.state, err = namespace.Open(m.store, namespace.Options{CacheBytes: 32 << 20}); err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.server = journal.Server{ID: id, Addr: l.Addr().String()}
	m.j, err = journal.Open(journal.Options{
		ID: id, Dir: filepath.Join(dir, "raft"), Listener: l, Heartbeat: 4 * time.Second,
		Identity:      func() freshet.ClusterID { return m.state.Identity().Cluster },
		SnapshotEvery: time.Second, SnapshotAfter: 64, TrailingLogs: 32,
	}, m.state)
	if err != nil {
		t.Fatal(err)
	}
	if found {
		servers := []journal.Server{m.server}
		for _, o := range others {
			servers = append(servers, o.server)
		}
		if err := m.j.Bootstrap(servers); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go func() { m.ended <- m.j.Run(ctx) }()
	return m
}

func (m *member) stop(t *testing.T) {
	m.cancel()
	if err := <-m.ended; err != nil {
		t.Errorf("%s: %v", m.server.ID, err)
	}
	if err := m.store.Close(); err != nil {
		t.Errorf("%s: %v", m.server.ID, err)
	}
}

// cluster is the members and what is written to them.
type cluster struct {
	t       *testing.T
	members []*member
	// founders are the first two, for goroutines that run while a third one joins.
	founders []*member
	files    int
}

// await polls until done says so.
func (c *cluster) await(what string, done func() bool) {
	c.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

func (c *cluster) leader() *member {
	c.t.Helper()
	var l *member
	c.await("a leader", func() bool {
		l = c.leads()
		return l != nil
	})
	return l
}

// leads returns the member that leads, nil if none does.
func (c *cluster) leads() *member {
	for _, m := range c.founders {
		if _, ok := m.j.Leading(); ok {
			return m
		}
	}
	return nil
}

// must has a command applied that may be so twice: a busy machine may make another
// member lead before it is acknowledged.
func (c *cluster) must(cmd namespace.Command) {
	c.t.Helper()
	c.await("an acknowledgement", func() bool {
		res, err := c.leader().j.Propose(c.t.Context(), cmd)
		switch {
		case freshet.IsKind(err, freshet.KindNotLeader, freshet.KindUnavailable):
			return false
		case err != nil:
			c.t.Fatal(err)
		case res[0].Err != nil && !freshet.IsKind(res[0].Err, freshet.KindExist): // founded twice
			c.t.Fatal(res[0].Err)
		}
		return true
	})
}

var at = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func entry(name string, n int) namespace.Entry {
	return namespace.Entry{Name: name, Length: int64(n), ModTime: at.Add(time.Duration(n)), Owner: "ada", Group: "staff", Mode: 0o644, Fingerprint: fingerprint.S3(fmt.Sprintf("%032x", n), int64(n))}
}

// fill loads n files, a thousand in each directory.
func (c *cluster) fill(n int) {
	c.t.Helper()
	const perDir = 1000
	for d := range n / perDir {
		l := &namespace.LoadListing{
			Mount: 1, Generation: 1, Dir: freshet.Path(fmt.Sprintf("/m/d%06d", d)), Complete: true,
			Start: c.leader().state.Applied(), ListStart: c.leader().state.Applied(),
		}
		for f := range perDir {
			l.Upserts = append(l.Upserts, entry(fmt.Sprintf("file-%06d", f), d*perDir+f))
		}
		c.must(namespace.Command{LoadListing: l})
	}
}

// write makes one small change after another until the result is called, and at least
// one; the result is how many there were and how long the slowest took, of which the
// last may have ended after what was done meanwhile.
func (c *cluster) write() (result func() (n int, longest time.Duration)) {
	var enough atomic.Bool
	var wg sync.WaitGroup
	var n int
	var longest time.Duration
	var failed error // the last one: a busy machine may make another member lead
	wg.Go(func() {
		first := time.Now()
		for begun := first; !enough.Load() || n == 0; {
			if time.Since(first) > patience && n == 0 {
				return
			}
			l := c.leads()
			if l == nil {
				time.Sleep(time.Millisecond) // until the next look
				continue
			}
			c.files++
			load := &namespace.LoadEntry{Mount: 1, Generation: 1, Path: freshet.Path(fmt.Sprintf("/m/new/%d", c.files)), Start: l.state.Applied()}
			e := entry(load.Path.Base(), c.files)
			load.Entry = &e
			if _, err := l.j.Propose(c.t.Context(), namespace.Command{LoadEntry: load}); err != nil {
				failed = err
				continue // the pause goes on
			}
			n++
			longest = max(longest, time.Since(begun))
			begun = time.Now()
		}
	})
	return func() (int, time.Duration) {
		enough.Store(true)
		wg.Wait()
		if n == 0 {
			c.t.Errorf("no write succeeded within %s: %v", patience, failed)
		}
		if longest > pauseLimit {
			c.t.Errorf("a write was held up for %s", longest)
		}
		return n, longest
	}
}

// compare holds the members to one state at one index ahead, also while writes go on.
func (c *cluster) compare(ahead uint64) {
	c.t.Helper()
	c.await("an index that no member has passed", func() bool {
		ahead *= 2
		return c.compareAt(c.leader().state.Applied() + ahead)
	})
}

// compareAt reports whether no member was past the index when it was asked.
func (c *cluster) compareAt(index uint64) bool {
	c.t.Helper()
	type answer struct {
		frozen *namespace.Frozen
		err    error
	}
	answers := make([]chan answer, len(c.members))
	for i, m := range c.members {
		answers[i] = make(chan answer, 1)
		m.state.At(index, func(f *namespace.Frozen, err error) { answers[i] <- answer{f, err} })
	}
	hashes := map[[32]byte]bool{}
	indexes := map[uint64]bool{}
	for i := range c.members {
		a := <-answers[i]
		if a.err != nil {
			c.t.Fatal(a.err)
		}
		h, err := a.frozen.Hash()
		if err != nil {
			c.t.Error(err)
		}
		hashes[h], indexes[a.frozen.Applied] = true, true
		if err := a.frozen.Close(); err != nil {
			c.t.Error(err)
		}
	}
	if len(indexes) == 1 && len(hashes) > 1 {
		c.t.Errorf("the members have different states at index %d", index)
	}
	return len(indexes) == 1
}

func TestWritesGoOnWhileAMemberJoins(t *testing.T) {
	inodes := small
	if os.Getenv(scaleEnv) != "" {
		inodes = large
	}
	c := &cluster{t: t}
	defer func() {
		for _, m := range c.members {
			m.stop(t)
		}
	}()
	follower := start(t, "m1", false)
	c.members = append(c.members, follower)
	c.members = append(c.members, start(t, "m0", true, follower))
	c.founders = c.members
	c.must(namespace.Command{Bootstrap: &namespace.Bootstrap{Cluster: freshet.ClusterID{1}, Name: "eu", Epoch: 1, At: at, Mounts: []freshet.Mount{
		{Path: "/m", URI: "s3://b", Domain: freshet.DomainID{7}, DomainKey: "/", Interval: freshet.Never, CreatedAt: at},
	}}})
	begun := time.Now()
	c.fill(inodes)
	t.Logf("%d inodes loaded in %s", c.leader().state.Stats().Entries, time.Since(begun).Round(time.Millisecond))

	quiet := c.write()
	begun = time.Now()
	c.await("writes alone", func() bool { return time.Since(begun) > 2*time.Second })
	n, longest := quiet()
	t.Logf("alone: %d writes in 2 s, the longest took %s", n, longest.Round(time.Microsecond))
	c.save()

	// The log that a new member would need is gone by now: it gets a copy.
	l := c.leader()
	if err := l.j.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	late := start(t, "m2", false)
	c.members = append(c.members, late)
	writing := c.write()
	begun = time.Now()
	c.await("the change of the members", func() bool {
		l = c.leader()
		err := l.j.AddVoter(t.Context(), late.server)
		if err != nil && !freshet.IsKind(err, freshet.KindNotLeader, freshet.KindUnavailable) {
			t.Fatal(err)
		}
		return err == nil
	})
	target := l.state.Applied()
	c.await("the new member", func() bool { return late.state.Applied() >= target })
	joined := time.Since(begun)
	c.compare(20)
	n, longest = writing()
	c.founders = c.members
	t.Logf("a member with %d inodes joined in %s; %d writes meanwhile, the longest took %s", late.state.Stats().Entries, joined.Round(time.Millisecond), n, longest.Round(time.Microsecond))
	c.await("one index", func() bool { // the last write may be on its way still
		index := c.leader().state.Applied()
		for _, m := range c.members {
			if m.state.Applied() != index {
				return false
			}
		}
		return true
	})
	c.compare(0)
	if got := late.state.Stats().Entries; got < uint64(inodes) {
		t.Errorf("the new member has %d entries", got)
	}
}

// save writes a snapshot as an operator gets it, into a file, while writes go on.
func (c *cluster) save() {
	c.t.Helper()
	l := c.leader()
	f, err := os.Create(filepath.Join(c.t.TempDir(), "snapshot"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	writing := c.write()
	begun := time.Now()
	w := bufio.NewWriterSize(f, 1<<20)
	info, err := journal.WriteDump(w, l.state.Identity().Cluster, l.state.Dump)
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	took := time.Since(begun)
	n, longest := writing()
	c.t.Logf("a snapshot of %d bytes was saved in %s; %d writes meanwhile, the longest took %s", info.Bytes, took.Round(time.Millisecond), n, longest.Round(time.Microsecond))
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		c.t.Fatal(err)
	}
	if _, err := journal.CheckDump(f, l.state.Identity().Cluster); err != nil {
		c.t.Error(err)
	}
	begun = time.Now()
	if _, err := l.state.Hash(); err != nil {
		c.t.Error(err)
	}
	c.t.Logf("the hash of the state took %s", time.Since(begun).Round(time.Millisecond))
}
