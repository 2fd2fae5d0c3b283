package metasync_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
)

// bed is a Syncer between a replicated state, whose log is a counter, and a
// storage in memory that is mounted at /m.
type bed struct {
	testing.TB
	*metasync.Syncer
	state   *namespace.State
	store   *mem.Store
	clock   *clock.Fake
	metrics *prometheus.Registry
	rule    metasync.Rule
	wrap    func(ufs.FS) ufs.FS // if not nil

	mu    sync.Mutex
	index uint64
	hook  func(step, key string) error
	read  func(p freshet.Path) // called between a lookup and its use
}

// slowly is a state whose readers may be held up.
type slowly struct {
	*namespace.State
	b *bed
}

// Lookup implements metasync.State.
func (s slowly) Lookup(p freshet.Path) (namespace.Lookup, error) {
	var l namespace.Lookup
	err := s.LookupInto(p, &l)
	return l, err
}

// LookupInto implements metasync.State.
func (s slowly) LookupInto(p freshet.Path, l *namespace.Lookup) error {
	err := s.State.LookupInto(p, l)
	s.b.mu.Lock()
	read := s.b.read
	s.b.mu.Unlock()
	if read != nil {
		read(p)
	}
	return err
}

var bedDomain = freshet.DomainID{7}

func bedMount(p freshet.Path, key string) freshet.Mount {
	return freshet.Mount{Path: p, URI: "mem://lake" + key, Domain: bedDomain, DomainKey: key, Interval: freshet.Never, Origin: "config"}
}

func newBed(t testing.TB, opts metasync.Options) *bed {
	t.Helper()
	return newBedOn(t, opts, mem.Options{})
}

// newBedOn is newBed over a storage of that kind.
func newBedOn(t testing.TB, opts metasync.Options, storage mem.Options) *bed {
	t.Helper()
	b := &bed{TB: t, clock: clock.NewFake(time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)), metrics: prometheus.NewRegistry(), rule: metasync.Fixed(freshet.Never)}
	b.clock.Advance(time.Hour)
	storage.Hook = func(step, key string) error {
		b.mu.Lock()
		hook := b.hook
		b.mu.Unlock()
		if hook != nil {
			return hook(step, key)
		}
		return nil
	}
	b.store = mem.New(storage)
	var err error
	if b.state, err = namespace.Open(kv.NewMemory(), namespace.Options{}); err != nil {
		t.Fatal(err)
	}
	if opts.Clock == nil {
		opts.Clock = b.clock
	}
	opts.Metrics = b.metrics
	b.Syncer = metasync.New(metasync.Deps{State: slowly{b.state, b}, Propose: b.propose, Storage: b.storage}, opts)
	b.must(namespace.Command{Bootstrap: &namespace.Bootstrap{Cluster: uuid.UUID{1}, Name: "self", Epoch: 1, Mounts: []freshet.Mount{bedMount("/m", "/")}}})
	return b
}

func (b *bed) propose(_ context.Context, cmds ...namespace.Command) ([]namespace.Result, error) {
	data, err := namespace.EncodeBatch(cmds)
	if err != nil {
		return nil, err
	}
	decoded, err := namespace.DecodeBatch(data)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.index++
	results, _ := b.state.Apply(b.index, decoded)
	return results, b.state.Err()
}

func (b *bed) storage(m freshet.Mount) (ufs.FS, func(), error) {
	var fs ufs.FS = b.store.FS(m.DomainKey[1:])
	if b.wrap != nil {
		fs = b.wrap(fs)
	}
	return fs, func() {}, nil
}

func (b *bed) onStep(hook func(step, key string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hook = hook
}

func (b *bed) must(cmd namespace.Command) namespace.Result {
	b.Helper()
	results, err := b.propose(b.Context(), cmd)
	if err == nil {
		err = results[0].Err
	}
	if err != nil {
		b.Fatal(err)
	}
	return results[0]
}

// record has the state apply a record of another cluster.
func (b *bed) record(r invalidation.Record) {
	b.Helper()
	b.must(namespace.Command{Hint: &namespace.Hint{Domain: bedDomain, Records: []invalidation.Record{r}}})
}

func (b *bed) stat(p freshet.Path) error {
	_, err := b.Entry(b.Context(), p, b.rule)
	return err
}

// absent fails if p is there.
func (b *bed) absent(p freshet.Path) {
	b.Helper()
	if err := b.stat(p); !freshet.IsKind(err, freshet.KindNotExist) {
		b.Fatalf("%s: %v, want that it does not exist", p, err)
	}
}

func (b *bed) present(p freshet.Path) {
	b.Helper()
	if err := b.stat(p); err != nil {
		b.Fatal(err)
	}
}

// asked returns how often the storage is asked while fn runs.
func (b *bed) asked(fn func()) int {
	count := func() int {
		n := b.store.Calls()
		return n["stat"] + n["list"]
	}
	before := count()
	fn()
	return count() - before
}

// free fails if fn asks the storage.
func (b *bed) free(what string, fn func()) {
	b.Helper()
	if n := b.asked(fn); n != 0 {
		b.Fatalf("%s: the storage was asked %d times", what, n)
	}
}

// costs fails if fn does not ask the storage.
func (b *bed) costs(what string, fn func()) {
	b.Helper()
	if n := b.asked(fn); n == 0 {
		b.Fatalf("%s: the storage was not asked", what)
	}
}

// until waits for cond; the fake clock stands still meanwhile.
func (b *bed) until(what string, cond func() bool) {
	b.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			b.Fatalf("not within 30 seconds: %s", what)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// prefetches runs prefetching until the test ends.
func (b *bed) prefetches() {
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- b.Prefetch(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	if !b.Prefetches() {
		b.until("prefetching runs", b.Prefetches)
	}
}

// metric returns the sum of a metric over its labels.
func (b *bed) metric(name string) float64 {
	b.Helper()
	families, err := b.metrics.Gather()
	if err != nil {
		b.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

func newOp() freshet.OpID { return freshet.OpID(uuid.New()) }
