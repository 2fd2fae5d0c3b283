package ops_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/coordinator/placement"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/fault"
	"github.com/freshet-io/freshet/ufs/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var domain = freshet.DomainID{7}

// world is a cluster in one bubble: one replicated state, which outlives every
// leader, one storage, and leaders that come and go.
type world struct {
	t     *testing.T
	store *mem.Store
	local ufs.FS // if not nil, instead of store
	state *namespace.State

	mu      sync.Mutex
	index   uint64
	term    uint64
	taken   int // steps on the storage
	limit   int // steps after which the storage fails, 0: never
	effects []effect
	engine  *ops.Engine // of the current leader
	failing func(namespace.Command) error
}

// effect is a call that changed the storage, and the head of the log when it
// returned.
type effect struct {
	keys []string
	head uint64
	what string
}

func newWorld(t *testing.T, mode mem.Mode, lifetime time.Duration) *world {
	w := &world{t: t}
	w.store = mem.New(mem.Options{Mode: mode, MaxOpLifetime: lifetime, Hook: func(string, string) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.taken++; w.limit > 0 && w.taken > w.limit {
			return freshet.Errorf(freshet.KindUnavailable, "call", "", "the storage is out of reach")
		}
		return nil
	}})
	var err error
	if w.state, err = namespace.Open(kv.NewMemory(), namespace.Options{}); err != nil {
		t.Fatal(err)
	}
	w.apply(namespace.Command{Bootstrap: &namespace.Bootstrap{Cluster: uuid.UUID{1}, Name: "a", Epoch: 1, At: time.Now(), Mounts: []freshet.Mount{
		{Path: "/m", URI: "mem://s/", Domain: domain, DomainKey: "/", Interval: freshet.Never, CreatedAt: time.Now()},
		{Path: "/m/nested", URI: "mem://n/", Domain: freshet.DomainID{8}, DomainKey: "/", Interval: freshet.Never, CreatedAt: time.Now()},
		{Path: "/ro", URI: "mem://r/", Domain: freshet.DomainID{9}, DomainKey: "/", Interval: freshet.Never, ReadOnly: true, CreatedAt: time.Now()},
	}}})
	w.apply(namespace.Command{SetVersion: &namespace.SetVersion{Version: namespace.Version}})
	return w
}

// apply applies commands as the log would: encoded and decoded.
func (w *world) apply(cmds ...namespace.Command) []namespace.Result {
	b, err := namespace.EncodeBatch(cmds)
	if err != nil {
		w.t.Error(err)
		return nil
	}
	if cmds, err = namespace.DecodeBatch(b); err != nil {
		w.t.Error(err)
		return nil
	}
	w.mu.Lock()
	w.index++
	results, changes := w.state.Apply(w.index, cmds)
	engine := w.engine
	w.mu.Unlock()
	if engine != nil {
		engine.Freed(changes.Freed)
		engine.Withdrawn(changes.Withdrawn)
	}
	return results
}

// leader is one process that leads, or led.
type leader struct {
	w *world
	*ops.Engine
	nodes *placement.Nodes
	fs    *fault.FS
	term  uint64
	dead  chan struct{} // closed: the process has died
	once  sync.Once
	stop  context.CancelFunc
	ended chan error
}

// lead elects a new leader; the one before is deposed but may live on.
func (w *world) lead(opts ops.Options) *leader {
	l := &leader{w: w, dead: make(chan struct{}), ended: make(chan error, 1), nodes: placement.New(placement.Options{})}
	l.fs = fault.New(recorder{w.fs(), w})
	l.Engine = ops.New(ops.Deps{Journal: l, State: w.state, Storage: l, Nodes: l.nodes}, opts)
	w.mu.Lock()
	w.term++
	l.term = w.term
	w.engine = l.Engine
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	go func() { l.ended <- l.Run(ctx, l.term) }()
	synctest.Wait()
	w.t.Cleanup(l.end)
	return l
}

// end lets the process end in order.
func (l *leader) end() {
	l.stop()
	l.once.Do(func() {
		if err := <-l.ended; err != nil {
			l.w.t.Errorf("Run returned %v", err)
		}
	})
}

// die is kill -9: from now on nothing of the process reaches anybody.
func (l *leader) die() {
	l.w.mu.Lock()
	if l.term == l.w.term {
		l.w.term++
	}
	l.w.mu.Unlock()
	select {
	case <-l.dead:
	default:
		close(l.dead)
	}
	l.stop()
}

func (l *leader) died() bool {
	select {
	case <-l.dead:
		return true
	default:
		return false
	}
}

// Propose implements ops.Journal: only the leader of the current term may.
func (l *leader) Propose(ctx context.Context, cmds ...namespace.Command) ([]namespace.Result, error) {
	if ctx.Err() != nil {
		return nil, freshet.Errorf(freshet.KindDeadline, "propose", "", "%w", ctx.Err())
	}
	l.w.mu.Lock()
	current, failing := l.term == l.w.term, l.w.failing
	l.w.mu.Unlock()
	if !current {
		return nil, freshet.Errorf(freshet.KindNotLeader, "propose", "", "deposed")
	}
	if failing != nil {
		for _, c := range cmds {
			if err := failing(c); err != nil {
				return nil, err
			}
		}
	}
	return l.w.apply(cmds...), nil
}

// Get implements ops.Storage.
func (l *leader) Get(freshet.MountID) (ufs.FS, func(), error) { return mortal{l.fs, l}, func() {}, nil }

// mortal is the storage as one process sees it: after the process died it starts
// nothing more. What it had sent before may still land.
type mortal struct {
	ufs.FS
	l *leader
}

func (m mortal) alive() error {
	if m.l.died() {
		return freshet.Errorf(freshet.KindUnavailable, "call", "", "the process is dead")
	}
	return nil
}

func (m mortal) Stat(ctx context.Context, key string) (ufs.Status, error) {
	if err := m.alive(); err != nil {
		return ufs.Status{}, err
	}
	return m.FS.Stat(ctx, key)
}

func (m mortal) Mkdir(ctx context.Context, key string, o ufs.MkdirOptions) (ufs.Status, error) {
	if err := m.alive(); err != nil {
		return ufs.Status{}, err
	}
	return m.FS.Mkdir(ctx, key, o)
}

func (m mortal) Rename(ctx context.Context, from, to string) (ufs.Status, error) {
	if err := m.alive(); err != nil {
		return ufs.Status{}, err
	}
	return m.FS.Rename(ctx, from, to)
}

func (m mortal) Remove(ctx context.Context, key string, o ufs.RemoveOptions) error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.FS.Remove(ctx, key, o)
}

func (m mortal) SetAttr(ctx context.Context, key string, a ufs.Attr) (ufs.Status, error) {
	if err := m.alive(); err != nil {
		return ufs.Status{}, err
	}
	return m.FS.SetAttr(ctx, key, a)
}

func (m mortal) AbortUpload(ctx context.Context, key string, op freshet.OpID) (bool, error) {
	if err := m.alive(); err != nil {
		return false, err
	}
	return m.FS.AbortUpload(ctx, key, op)
}

// recorder notes the effects on the storage.
type recorder struct {
	ufs.FS
	w *world
}

func (r recorder) effect(what string, do func() error, keys ...string) error {
	before := r.w.store.Snapshot()
	err := do()
	if err == nil || !maps.EqualFunc(before, r.w.store.Snapshot(), bytes.Equal) {
		r.w.mu.Lock()
		r.w.effects = append(r.w.effects, effect{keys, r.w.head(), what})
		r.w.mu.Unlock()
	}
	return err
}

func (r recorder) Mkdir(ctx context.Context, key string, o ufs.MkdirOptions) (st ufs.Status, err error) {
	err = r.effect("mkdir", func() error { st, err = r.FS.Mkdir(ctx, key, o); return err }, key)
	return st, err
}

func (r recorder) Rename(ctx context.Context, from, to string) (st ufs.Status, err error) {
	err = r.effect("rename", func() error { st, err = r.FS.Rename(ctx, from, to); return err }, from, to)
	return st, err
}

func (r recorder) Remove(ctx context.Context, key string, o ufs.RemoveOptions) error {
	return r.effect("remove", func() error { return r.FS.Remove(ctx, key, o) }, key)
}

func (r recorder) SetAttr(ctx context.Context, key string, a ufs.Attr) (st ufs.Status, err error) {
	err = r.effect("setattr", func() error { st, err = r.FS.SetAttr(ctx, key, a); return err }, key)
	return st, err
}

func (r recorder) Create(ctx context.Context, key string, o ufs.CreateOptions) (ufs.Writer, error) {
	u, err := r.FS.Create(ctx, key, o)
	return recordedWriter{u, r, key}, err
}

type recordedWriter struct {
	ufs.Writer
	r   recorder
	key string
}

func (u recordedWriter) Commit(ctx context.Context) (st ufs.Status, err error) {
	err = u.r.effect("commit", func() error { st, err = u.Writer.Commit(ctx); return err }, u.key)
	return st, err
}

// head returns the number of the last record.
func (w *world) head() uint64 {
	for _, h := range w.state.Heads() {
		if h.Domain == domain {
			return h.High
		}
	}
	return 0
}

func (w *world) records() []invalidation.Record {
	b, err := w.state.Records(domain, 0, 1<<20)
	if freshet.IsKind(err, freshet.KindNotExist) {
		return nil
	}
	if err != nil {
		w.t.Error(err)
	}
	return b.Records
}

// recordsOf returns how many records name the key.
func (w *world) recordsOf(key string) int {
	n := 0
	for _, r := range w.records() {
		if r.Key == "/"+key || r.Key2 == "/"+key {
			n++
		}
	}
	return n
}

// checkPublished is S2: at least one record follows every effect.
func (w *world) checkPublished() {
	w.t.Helper()
	records := w.records()
	for _, e := range w.effects {
		for _, key := range e.keys {
			if !published(records, e.head, "/"+key) {
				w.t.Errorf("the %s of %q happened at record %d and no later record names it: %v", e.what, key, e.head, records)
			}
		}
	}
}

func published(records []invalidation.Record, after uint64, key string) bool {
	covers := func(r invalidation.Record, k string) bool {
		return k == key || (r.Recursive && strings.HasPrefix(key, k+"/"))
	}
	for _, r := range records {
		if r.Seq > after && (covers(r, r.Key) || (r.Key2 != "" && covers(r, r.Key2))) {
			return true
		}
	}
	return false
}

// checkServable is S1 with nothing under way: what is servable is what the
// storage holds.
func (w *world) checkServable(keys ...string) {
	w.t.Helper()
	for _, key := range keys {
		l, err := w.state.Lookup(freshet.Path("/m/" + key))
		if err != nil {
			w.t.Fatal(err)
		}
		st, err := w.fs().Stat(context.Background(), key)
		switch {
		case l.Uncachable:
		case l.Found && !l.Placeholder && l.Servable(0):
			if err != nil || l.Info.Type != st.Type || (!st.IsDir() && !l.Info.Fingerprint.SameContent(st.Fingerprint)) {
				w.t.Errorf("%s is served as %+v, the storage says %+v %v", key, l.Info, st, err)
			}
		case l.KnownAbsent && l.Absent.Servable(0):
			if err == nil && !w.belowFile(key) {
				w.t.Errorf("%s is served as absent, the storage has %+v", key, st)
			}
		}
	}
}

// belowFile reports whether a parent of key is a file, as object stores allow: what
// is below a file is not shown.
func (w *world) belowFile(key string) bool {
	for up := ufs.ParentKey(key); up != ""; up = ufs.ParentKey(up) {
		if st, err := w.fs().Stat(context.Background(), up); err == nil && !st.IsDir() {
			return true
		}
	}
	return false
}

// until lets time pass until what holds, at most for d.
func (w *world) until(d time.Duration, what string, holds func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(d); !holds(); {
		if time.Now().After(deadline) {
			w.t.Fatalf("not within %v: %s; intents: %+v", d, what, w.state.Intents())
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (w *world) quiet(d time.Duration) {
	w.t.Helper()
	w.until(d, "all operations have ended", func() bool { return len(w.state.Intents()) == 0 })
}

// steps returns how many steps were taken on the storage so far.
func (w *world) steps() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.taken
}

// freezeAfter has the storage fail after that many steps, 0: never.
func (w *world) freezeAfter(limit int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limit = limit
}

// fs returns the storage, without faults.
func (w *world) fs() ufs.FS {
	if w.local != nil {
		return w.local
	}
	return w.store.FS("")
}

func (w *world) put(key, data string) { w.store.Put(key, []byte(data)) }

func kind(t *testing.T, err error, want freshet.Kind, text string) {
	t.Helper()
	if !freshet.IsKind(err, want) || !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("got %v (%v), want %v with %q", err, freshet.KindOf(err), want, text)
	}
}

// each runs the test on both kinds of storage, each in a bubble of its own.
func each(t *testing.T, test func(t *testing.T, mode mem.Mode)) {
	for name, mode := range map[string]mem.Mode{"object": mem.Object, "local": mem.Local} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, mode) })
		})
	}
}
