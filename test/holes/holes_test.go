// Package holes_test holds one test for each way in which caches over a shared
// storage are known to go wrong, named after what must not happen. Two clusters,
// each the real state and the real looks at the storage, share a storage in
// memory; the records of one are handed to the other by hand, so that a test
// decides what has arrived. What happens on the way is tested with the bus.
package holes_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var domain = freshet.DomainID{7}

// cluster is one of two, with the storage mounted at /m.
type cluster struct {
	*testing.T
	*metasync.Syncer
	state *namespace.State
	store *mem.Store
	clock *clock.Fake
	rule  metasync.Rule
	after uint64 // of the other's log
	other *cluster

	mu    sync.Mutex
	index uint64
	hook  *atomic.Pointer[func()] // called at each step on the storage
}

// two returns two clusters over one storage that know each other.
func two(t *testing.T) (a, b *cluster) {
	t.Helper()
	var hook atomic.Pointer[func()]
	store := mem.New(mem.Options{Hook: func(string, string) error {
		if h := hook.Load(); h != nil {
			(*h)()
		}
		return nil
	}})
	a, b = one(t, 1, store), one(t, 2, store)
	a.other, b.other = b, a
	for _, c := range []*cluster{a, b} {
		c.hook = &hook
		id := c.other.state.Identity()
		pub := invalidation.Publisher{Cluster: id.Cluster, Name: id.Name, Epoch: id.Epoch}
		c.must(namespace.Command{BeginSub: &namespace.BeginSub{Publisher: pub, Domain: domain}})
	}
	return a, b
}

func one(t *testing.T, id byte, store *mem.Store) *cluster {
	t.Helper()
	c := &cluster{T: t, store: store, clock: clock.NewFake(time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)), rule: metasync.Fixed(freshet.Never)}
	c.clock.Advance(time.Hour)
	var err error
	if c.state, err = namespace.Open(kv.NewMemory(), namespace.Options{CacheBytes: 64 << 10}); err != nil {
		t.Fatal(err)
	}
	storage := func(freshet.Mount) (ufs.FS, func(), error) { return store.FS(""), func() {}, nil }
	c.Syncer = metasync.New(metasync.Deps{State: c.state, Propose: c.propose, Storage: storage}, metasync.Options{Clock: c.clock})
	m := freshet.Mount{Path: "/m", URI: "mem://lake", Domain: domain, DomainKey: "/", Interval: freshet.Never, Origin: "config"}
	c.must(namespace.Command{Bootstrap: &namespace.Bootstrap{Cluster: uuid.UUID{id}, Name: fmt.Sprint("c", id), Epoch: 1, Mounts: []freshet.Mount{m}}})
	return c
}

func (c *cluster) propose(_ context.Context, cmds ...namespace.Command) ([]namespace.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	results, _ := c.state.Apply(c.index, cmds)
	return results, c.state.Err()
}

func (c *cluster) must(cmd namespace.Command) namespace.Result {
	c.Helper()
	results, err := c.propose(c.Context(), cmd)
	if err == nil {
		err = results[0].Err
	}
	if err != nil {
		c.Fatal(err)
	}
	return results[0]
}

func op() freshet.OpID { return freshet.OpID(uuid.New()) }

// begin begins an operation, complete ends it with what the storage then has.
func (c *cluster) begin(kind namespace.OpKind, p, to freshet.Path) freshet.OpID {
	c.Helper()
	id := op()
	c.must(namespace.Command{Begin: &namespace.Begin{Op: id, Kind: kind, Path: p, Path2: to, Recursive: kind == namespace.OpRemove}})
	return id
}

func (c *cluster) complete(id freshet.OpID, at string) freshet.Token {
	c.Helper()
	var e *namespace.Entry
	if at != "" {
		st, err := c.store.FS("").Stat(c.Context(), at)
		if err != nil {
			c.Fatal(err)
		}
		e = &namespace.Entry{Name: freshet.Path("/" + at).Base(), Type: st.Type, Length: st.Length, ModTime: st.ModTime, Fingerprint: st.Fingerprint}
	}
	return c.must(namespace.Command{Complete: &namespace.Complete{Op: id, Entry: e}}).Completed.Token
}

// write writes a file through the cluster.
func (c *cluster) write(key, data string) freshet.Token {
	c.Helper()
	id := c.begin(namespace.OpWrite, freshet.Path("/m/"+key), "")
	c.store.Put(key, []byte(data))
	return c.complete(id, key)
}

// hear applies what the other cluster has published, and returns how many records.
func (c *cluster) hear() int {
	c.Helper()
	batch, err := c.other.state.Records(domain, c.after, 100_000)
	if err != nil {
		c.Fatal(err)
	}
	if len(batch.Records) == 0 {
		return 0
	}
	r := c.must(namespace.Command{Invalidate: &namespace.Invalidate{Batch: batch}})
	c.after = r.Position.Applied
	return len(batch.Records)
}

func (c *cluster) length(p freshet.Path) int64 {
	c.Helper()
	e, err := c.Entry(c.Context(), p, c.rule)
	if freshet.IsKind(err, freshet.KindNotExist) {
		return -1
	}
	if err != nil {
		c.Fatal(err)
	}
	return e.Info.Length
}

func (c *cluster) list(dir freshet.Path) []string {
	c.Helper()
	infos, _, err := c.Children(c.Context(), dir, "", 1000, c.rule)
	if err != nil {
		c.Fatal(err)
	}
	var names []string
	for i := range infos {
		names = append(names, infos[i].Path.Base())
	}
	return names
}

// asks returns how often the storage is asked while fn runs.
func (c *cluster) asks(fn func()) int {
	count := func() int { n := c.store.Calls(); return n["stat"] + n["list"] }
	before := count()
	fn()
	return count() - before
}

func TestH1AReaderWithATokenNeverSeesTheNeighboursOlderVersion(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	a.write("d/f", "one")
	b.hear()
	if n := b.length("/m/d/f"); n != 3 {
		t.Fatal(n)
	}
	tok := a.write("d/f", "three")
	if b.after >= tok.Seq {
		t.Fatal("the token is covered before its record arrived")
	}
	b.hear()
	if n := b.length("/m/d/f"); b.after < tok.Seq || n != 5 {
		t.Errorf("at %d of %d: %d bytes", b.after, tok.Seq, n)
	}
}

func TestH2NoInvalidationIsLostToEviction(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	a.write("d/f", "one")
	b.hear()
	b.length("/m/d/f")
	b.length("/m/d/none")
	a.write("d/f", "three")
	a.write("d/none", "new")
	b.hear()
	var flood []invalidation.Record
	for i := range 9000 { // more than any table of marks, and any cache, holds
		flood = append(flood, invalidation.Record{Kind: invalidation.KindCreate, Key: fmt.Sprintf("/z/%d/%d", i%90, i)})
	}
	b.must(namespace.Command{Hint: &namespace.Hint{Domain: domain, Records: flood}})
	if n, m := b.length("/m/d/f"), b.length("/m/d/none"); n != 5 || m != 3 {
		t.Errorf("%d and %d bytes", n, m)
	}
}

func TestH3AHotDirectoryDoesNotStayInvalid(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	for i := range 20 {
		a.write(fmt.Sprintf("hot/f%02d", i), "one")
	}
	b.hear()
	b.list("/m/hot")
	for i := range 5000 {
		b.must(namespace.Command{Hint: &namespace.Hint{Domain: domain, Records: []invalidation.Record{{Kind: invalidation.KindCreate, Key: fmt.Sprintf("/hot/new%d", i)}}}})
	}
	b.list("/m/hot") // once
	if n := b.asks(func() { b.list("/m/hot"); b.length("/m/hot/f03"); b.length("/m/hot/new7") }); n != 0 {
		t.Errorf("asked %d times for what was looked at after the last mark", n)
	}
}

func TestH4AClockThatGoesBackDropsNoInvalidation(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	b.rule = metasync.Fixed(freshet.Interval(time.Minute))
	a.write("f", "one")
	b.hear()
	b.length("/m/f")
	for _, c := range []*cluster{a, b} {
		c.clock.SetWall(c.clock.Now().Add(-24 * time.Hour))
	}
	a.write("f", "three")
	b.hear()
	if n := b.length("/m/f"); n != 5 {
		t.Errorf("%d bytes", n)
	}
	a.store.Put("f", []byte("by another program"))
	b.clock.Advance(time.Minute)
	if n := b.length("/m/f"); n != 18 {
		t.Errorf("%d bytes a minute later", n)
	}
}

func TestH5AfterAPauseOnlyWhatChangedIsLookedAt(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	for i := range 50 {
		a.write(fmt.Sprintf("d%d/f", i), "one")
	}
	b.hear()
	all := func() {
		for i := range 50 {
			b.length(freshet.Path(fmt.Sprintf("/m/d%d/f", i)))
		}
	}
	all()
	a.write("d7/f", "three") // while b does not hear
	a.write("d9/f", "three")
	b.hear()
	if n := b.asks(all); n != 2 {
		t.Errorf("%d questions for 2 changes", n)
	}
}

func TestH7ATreeIsOneRecord(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	for i := range 100 {
		a.write(fmt.Sprintf("t/d%d/f", i), "one")
	}
	b.hear()
	b.length("/m/t/d1/f")
	id := a.begin(namespace.OpRename, "/m/t", "/m/u")
	if _, err := a.store.FS("").Rename(t.Context(), "t", "u"); err != nil {
		t.Fatal(err)
	}
	a.complete(id, "u")
	if n := b.hear(); n != 1 {
		t.Errorf("a rename is %d records", n)
	}
	if old, now := b.length("/m/t/d1/f"), b.length("/m/u/d1/f"); old != -1 || now != 3 {
		t.Errorf("%d bytes at the old place, %d at the new one", old, now)
	}
	id = a.begin(namespace.OpRemove, "/m/u", "")
	if err := a.store.FS("").Remove(t.Context(), "u", ufs.RemoveOptions{Recursive: true}); err != nil {
		t.Fatal(err)
	}
	a.complete(id, "")
	if n := b.hear(); n != 1 || b.length("/m/u/d1/f") != -1 {
		t.Errorf("a removal is %d records", n)
	}
}

func TestH11WhatNobodyTellsIsFoundByTime(t *testing.T) {
	t.Parallel()
	a, _ := two(t)
	a.rule = metasync.Fixed(freshet.Interval(time.Minute))
	a.write("f", "one")
	a.length("/m/g")
	a.store.Put("f", []byte("three"))
	a.store.Put("g", []byte("new"))
	a.clock.Advance(time.Minute)
	if f, g := a.length("/m/f"), a.length("/m/g"); f != 5 || g != 3 {
		t.Errorf("%d and %d bytes", f, g)
	}
}

func TestH12ANameIsNotThePrefixOfAnother(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	a.write("data/f", "one")
	a.write("database/f", "one")
	b.hear()
	b.length("/m/data/f")
	b.length("/m/database/f")
	id := a.begin(namespace.OpRemove, "/m/data", "")
	if err := a.store.FS("").Remove(t.Context(), "data", ufs.RemoveOptions{Recursive: true}); err != nil {
		t.Fatal(err)
	}
	a.complete(id, "")
	b.hear()
	if n := b.asks(func() { b.length("/m/database/f") }); n != 0 {
		t.Errorf("/m/database was marked with /m/data: %d questions", n)
	}
	if n := b.length("/m/data/f"); n != -1 {
		t.Errorf("%d bytes", n)
	}
}

func TestH13ConcurrentLooksKeepTheirOwnStarts(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	a.write("f", "one")
	b.hear()
	var once sync.Once
	began, resume := make(chan struct{}), make(chan struct{})
	b.onStep(func() { once.Do(func() { close(began); <-resume }) })
	first := make(chan int64, 1)
	go func() { first <- b.length("/m/f") }()
	<-began
	a.store.Put("f", []byte("three"))
	b.must(namespace.Command{Hint: &namespace.Hint{Domain: domain, Records: []invalidation.Record{{Kind: invalidation.KindContent, Key: "/f"}}}})
	second := make(chan int64, 1)
	go func() { second <- b.length("/m/f") }() // must not share the first one's look
	close(resume)
	<-first
	if n := <-second; n != 5 {
		t.Errorf("the second reader got %d bytes", n)
	}
	if n := b.length("/m/f"); n != 5 {
		t.Errorf("%d bytes afterwards", n)
	}
}

func TestH14TwoWritersOfOnePathLeaveNeitherStale(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	first := a.begin(namespace.OpWrite, "/m/f", "")
	second := b.begin(namespace.OpWrite, "/m/f", "")
	a.store.Put("f", []byte("of a"))
	st, err := a.store.FS("").Stat(t.Context(), "f")
	if err != nil {
		t.Fatal(err)
	}
	b.store.Put("f", []byte("of b, the last"))
	b.complete(second, "f")
	a.hear() // before a's own completion
	a.must(namespace.Command{Complete: &namespace.Complete{Op: first, Entry: &namespace.Entry{Name: "f", Type: st.Type, Length: st.Length, ModTime: st.ModTime, Fingerprint: st.Fingerprint}}})
	b.hear()
	if x, y := a.length("/m/f"), b.length("/m/f"); x != 14 || y != 14 {
		t.Errorf("a has %d bytes, b %d, the storage 14", x, y)
	}
}

func TestH15OneListingEndsTheInvalidityOfADirectory(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	a.write("d/e/f", "one")
	b.hear()
	b.list("/m/d")
	b.length("/m/d")
	a.write("d/g", "new")
	b.hear()
	if names := b.list("/m/d"); !slices.Equal(names, []string{"e", "g"}) {
		t.Errorf("%v", names)
	}
	if n := b.asks(func() { b.list("/m/d"); b.length("/m/d/g"); b.length("/m/d") }); n != 0 {
		t.Errorf("a listing that was made fresh was asked for again: %d questions", n)
	}
}

func (c *cluster) onStep(hook func()) { c.hook.Store(&hook) }
