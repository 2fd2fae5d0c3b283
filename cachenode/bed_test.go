package cachenode_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode"
	"github.com/freshet-io/freshet/cachenode/store"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
)

const blockSize = 100_000

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, err error, kind freshet.Kind) {
	t.Helper()
	if freshet.KindOf(err) != kind {
		t.Fatalf("got %v of kind %v, want kind %v", err, freshet.KindOf(err), kind)
	}
}

func random(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// leader plays the coordinator.
type leader struct {
	mu    sync.Mutex
	reply freshet.HeartbeatReply
	down  bool          // no call is answered
	slow  time.Duration // before a heartbeat is answered
	beats []freshet.Heartbeat
	calls []string
	// unsatisfied is how many of the next heartbeats are asked for anew as a full report.
	unsatisfied int
	permit      func(op freshet.OpID) error
	complete    func(op freshet.OpID, w freshet.Written) error
	sealed      fingerprint.Fingerprint // as the last permit was asked
}

func newLeader() *leader {
	return &leader{reply: freshet.HeartbeatReply{Cluster: uuid.UUID{7}, Epoch: 4, Term: 2, Lease: 3 * time.Second}}
}

func (l *leader) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

func (l *leader) call(what string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return freshet.Errorf(freshet.KindUnavailable, what, "", "no leader")
	}
	l.calls = append(l.calls, what)
	return nil
}

func (l *leader) Heartbeat(_ context.Context, hb freshet.Heartbeat) (freshet.HeartbeatReply, error) {
	time.Sleep(l.slow)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beats = append(l.beats, hb)
	if l.down {
		return freshet.HeartbeatReply{}, freshet.Errorf(freshet.KindUnavailable, "heartbeat", "", "no leader")
	}
	reply := l.reply
	if l.unsatisfied > 0 {
		l.unsatisfied--
		reply.NeedFull = true
	}
	l.reply.Free, l.reply.Abort, l.reply.Settled, l.reply.NeedFull = nil, nil, nil, false
	return reply, nil
}

func (l *leader) Permit(_ context.Context, q freshet.PermitQuery) error {
	l.mu.Lock()
	last := l.beats[len(l.beats)-1]
	l.sealed = q.Sealed
	l.mu.Unlock()
	if q.Node != last.Node.ID || q.Incarnation != last.Incarnation {
		return freshet.Errorf(freshet.KindInternal, "permit", "", "asked as node %s, incarnation %d", q.Node, q.Incarnation)
	}
	if err := l.call("permit"); err != nil || l.permit == nil {
		return err
	}
	return l.permit(q.Op)
}

func (l *leader) Complete(_ context.Context, op freshet.OpID, w freshet.Written) (freshet.Completed, error) {
	err := l.call("complete")
	if err == nil && l.complete != nil {
		err = l.complete(op, w)
	}
	return freshet.Completed{Info: freshet.Info{Length: w.Length, Fingerprint: w.Fingerprint}}, err
}

func (l *leader) Abort(_ context.Context, _ freshet.OpID, definite bool) error {
	if !definite {
		return l.call("abort, perhaps")
	}
	return l.call("abort")
}

func (l *leader) last() freshet.Heartbeat {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.beats[len(l.beats)-1]
}

func (l *leader) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.beats)
}

func (l *leader) called() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.calls)
}

// storages is a Mounts with one storage.
type storages struct {
	fs ufs.FS

	mu   sync.Mutex
	sets int
	err  error
	uses int
}

func (s *storages) Set([]freshet.Mount) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sets++
	return s.err
}

// fail lets Set fail from now on.
func (s *storages) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// applied returns how often Set was called.
func (s *storages) applied() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sets
}

func (s *storages) Get(id freshet.MountID) (ufs.FS, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id != 1 {
		return nil, nil, freshet.Errorf(freshet.KindNotExist, "get mount", "", "no mount %d", id)
	}
	s.uses++
	return s.fs, func() { s.mu.Lock(); s.uses--; s.mu.Unlock() }, nil
}

// bed is a node with all that is around it.
type bed struct {
	t        testing.TB
	node     *cachenode.Node
	leader   *leader
	store    *mem.Store
	fs       ufs.FS
	mounts   *storages
	blocks   *store.Store
	registry *prometheus.Registry
	dir      string
	stop     func()

	mu     sync.Mutex
	hook   func(step string) error
	points []string
	at     map[string]func()
}

type settings struct {
	dir      string // of node and tier; "": nothing is kept
	capacity int64
	opts     cachenode.Options
	leader   *leader
	store    *mem.Store
	wrap     func(ufs.FS) ufs.FS
	log      *slog.Logger
	net      *network // of other nodes
}

// newBed starts a node and waits until it has registered, if a leader answers.
func newBed(t testing.TB, s settings) *bed {
	t.Helper()
	b := &bed{t: t, leader: s.leader, registry: prometheus.NewRegistry(), at: map[string]func(){}, store: s.store, dir: s.dir}
	if b.leader == nil {
		b.leader = newLeader()
	}
	if b.store == nil {
		b.store = mem.New(mem.Options{Hook: func(step, _ string) error {
			b.mu.Lock()
			hook := b.hook
			b.mu.Unlock()
			if hook == nil {
				return nil
			}
			return hook(step)
		}})
	}
	b.fs = b.store.FS("")
	if s.wrap != nil {
		b.fs = s.wrap(b.fs)
	}
	b.mounts = &storages{fs: b.fs}
	if s.capacity == 0 {
		s.capacity = 32 << 20
	}
	identity := cachenode.NewIdentity()
	var err error
	if s.dir == "" {
		b.blocks, err = store.Open([]store.Tier{store.InMemory(s.capacity)}, store.Options{})
	} else {
		identity, err = cachenode.OpenIdentity(s.dir + "/node")
		check(t, err)
		b.blocks, err = store.Open([]store.Tier{store.OnDisk(s.dir+"/blocks", s.capacity)}, store.Options{})
	}
	check(t, err)
	s.opts.Hook = b.point
	deps := cachenode.Deps{
		Coordinator: b.leader, Mounts: b.mounts, Blocks: b.blocks, Identity: identity, Metrics: b.registry, Log: s.log,
	}
	if s.net != nil {
		deps.Remote, deps.Peers = s.net, s.net
	}
	b.node = cachenode.New(deps, s.opts)
	s.net.join(b)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); check(t, b.node.Run(ctx)) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		check(t, b.blocks.Close())
		check(t, identity.Close())
	})
	synctest.Wait()
	return b
}

func (b *bed) point(point string) {
	b.mu.Lock()
	b.points = append(b.points, point)
	fn := b.at[point]
	b.mu.Unlock()
	if fn != nil {
		fn()
	}
}

// on sets what happens at a point of an upload, once.
func (b *bed) on(point string, fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at[point] = sync.OnceFunc(fn)
}

func (b *bed) setHook(hook func(step string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hook = hook
}

// failAt makes a step of the storage fail.
func (b *bed) failAt(step string, kind freshet.Kind) {
	b.setHook(func(s string) error {
		if s == step {
			return freshet.Errorf(kind, s, "", "as the test wants it")
		}
		return nil
	})
}

func (b *bed) ticket(file freshet.FileID) freshet.Ticket {
	return freshet.Ticket{
		Op: freshet.OpID{byte(file), 1}, File: file, Path: "/f", Node: b.node.Node(), BlockSize: blockSize,
		Target: freshet.Source{Mount: 1, Key: "f"},
	}
}

func (b *bed) write(t freshet.Ticket, data []byte) (freshet.Completed, error) {
	return b.node.Write(b.t.Context(), t, bytes.NewReader(data), int64(len(data)))
}

// visible returns the bytes in the storage.
func (b *bed) visible() []byte { return b.store.Snapshot()["f"] }

// wantNothing checks that an upload left nothing behind.
func (b *bed) wantNothing() {
	b.t.Helper()
	if b.visible() != nil || b.store.Uploads() != 0 || len(b.blocks.List()) != 0 || b.blocks.Used() != 0 {
		b.t.Errorf("left behind: %d visible bytes, %d uploads, blocks %v, %d bytes of the cache", len(b.visible()), b.store.Uploads(), b.blocks.List(), b.blocks.Used())
	}
}

// read reads a file version through the node, block by block.
func (b *bed) read(file freshet.FileID, done freshet.Completed) ([]byte, []freshet.Origin) {
	b.t.Helper()
	var data []byte
	var origins []freshet.Origin
	for off := int64(0); off < done.Info.Length; off += blockSize {
		s, err := b.node.Read(b.t.Context(), freshet.BlockRead{
			Block: freshet.Block{
				ID:     freshet.BlockID{File: file, Index: uint32(off / blockSize)},
				Offset: off, Length: min(blockSize, done.Info.Length-off),
			},
			Source: freshet.Source{Mount: 1, Key: "f", Fingerprint: done.Info.Fingerprint}, Length: -1,
		})
		check(b.t, err)
		part, err := io.ReadAll(s)
		check(b.t, err)
		origins = append(origins, s.Origin())
		check(b.t, s.Close())
		data = append(data, part...)
	}
	slices.Sort(origins)
	return data, slices.Compact(origins)
}

func (b *bed) metric(name string) map[string]float64 {
	b.t.Helper()
	families, err := b.registry.Gather()
	check(b.t, err)
	values := map[string]float64{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			values[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	maps.DeleteFunc(values, func(_ string, v float64) bool { return v == 0 })
	return values
}

// nextBeat lets the time of one heartbeat pass and returns the heartbeat.
func (b *bed) nextBeat() freshet.Heartbeat {
	time.Sleep(time.Second) // the bubble's time
	synctest.Wait()
	return b.leader.last()
}

// bubble runs test with a node in a bubble of its own time.
func bubble(t *testing.T, s settings, test func(t *testing.T, b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, s)
		defer func() {
			b.stop()
			synctest.Wait() // writes that were given up return to their callers
			b.mounts.mu.Lock()
			defer b.mounts.mu.Unlock()
			if b.mounts.uses != 0 {
				t.Errorf("%d uses of the mount were not released", b.mounts.uses)
			}
		}()
		test(t, b)
	})
}
