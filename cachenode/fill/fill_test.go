package fill_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/fill"
	"github.com/freshet-io/freshet/cachenode/store"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const self freshet.NodeID = "self"

// bed is a Filler over a storage in memory.
type bed struct {
	t      testing.TB
	store  *mem.Store
	fs     ufs.FS
	blocks *store.Store
	filler *fill.Filler
	stop   func()
	added  chan freshet.BlockID
	refs   atomic.Int64 // uses of the mount that were not released

	mu   sync.Mutex
	hook func(step string) error
}

type settings struct {
	mode     mem.Mode
	dir      string // a disk tier there; "": memory
	capacity int64
	tiers    []store.Tier // instead of these
	opts     fill.Options
	remote   fill.Remote
	idle     bool // Run is not started
	caching  func(freshet.MountID) ufs.Caching
	watch    fill.Watch
	fault    func(dir, op string) error
}

func newBed(t testing.TB, s settings) *bed {
	t.Helper()
	b := &bed{t: t, added: make(chan freshet.BlockID, 1000)}
	b.store = mem.New(mem.Options{Mode: s.mode, Hook: func(step, _ string) error {
		b.mu.Lock()
		hook := b.hook
		b.mu.Unlock()
		if hook == nil {
			return nil
		}
		return hook(step)
	}})
	b.fs = b.store.FS("")
	var err error
	if s.capacity == 0 {
		s.capacity = 64 << 20
	}
	if s.tiers == nil {
		s.tiers = []store.Tier{store.InMemory(s.capacity)}
		if s.dir != "" {
			s.tiers = []store.Tier{store.OnDisk(s.dir, s.capacity)}
		}
	}
	b.blocks, err = store.Open(s.tiers, store.Options{Fault: s.fault})
	check(t, err)
	b.blocks.Observe(func(c tier.Change) {
		if c.Added {
			b.added <- c.Block.ID
		}
	})
	identity := func() (freshet.ClusterID, uint64, bool) { return uuid.UUID{1}, 1, true }
	b.filler = fill.New(fill.Deps{Blocks: b.blocks, Mounts: b, Remote: s.remote, Identity: identity, Self: self, Caching: s.caching, Watch: s.watch}, s.opts)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	if s.idle {
		close(done)
	} else {
		go func() { defer close(done); check(t, b.filler.Run(ctx)) }()
		b.awaitRunning()
	}
	b.stop = func() { cancel(); <-done }
	t.Cleanup(func() {
		b.stop()
		check(t, b.blocks.Close())
		if n := b.refs.Load(); n != 0 {
			t.Errorf("%d uses of the mount were not released", n)
		}
	})
	return b
}

// awaitRunning reads a small file until it is cached: then Run has begun. It returns
// when nothing is left of it.
func (b *bed) awaitRunning() {
	req := b.put("warm", []byte("warm"), 999)
	for len(b.added) == 0 {
		if got, _, err := b.read(req); err != nil || string(got) != "warm" {
			b.t.Fatal(string(got), err)
		}
	}
	<-b.added
	b.blocks.Remove(req.Block.ID)
	for b.blocks.Used() > 0 { // what is fetched is held until the fetch has ended
		<-time.After(time.Microsecond)
	}
}

func (b *bed) Get(freshet.MountID) (ufs.FS, func(), error) {
	b.refs.Add(1)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fs, func() { b.refs.Add(-1) }, nil
}

// setFS replaces the storage and returns the old one.
func (b *bed) setFS(fs ufs.FS) (old ufs.FS) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old, b.fs = b.fs, fs
	return old
}

func (b *bed) setHook(hook func(step string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hook = hook
}

// put writes a file of one block to the storage and returns the request for it.
func (b *bed) put(key string, data []byte, file freshet.FileID) freshet.BlockRead {
	b.t.Helper()
	b.store.Put(key, data)
	st, err := b.fs.Stat(b.t.Context(), key)
	check(b.t, err)
	return freshet.BlockRead{
		Block:  freshet.Block{ID: freshet.BlockID{File: file}, Length: int64(len(data))},
		Source: freshet.Source{Mount: 1, Key: key, Fingerprint: st.Fingerprint}, Length: -1,
	}
}

func (b *bed) read(req freshet.BlockRead) ([]byte, freshet.Origin, error) {
	s, err := b.filler.Read(b.t.Context(), req)
	if err != nil {
		return nil, 0, err
	}
	data, err := io.ReadAll(s)
	origin := s.Origin()
	return data, origin, errors.Join(err, s.Close())
}

// want reads and compares.
func (b *bed) want(req freshet.BlockRead, data []byte, origin freshet.Origin) {
	b.t.Helper()
	got, from, err := b.read(req)
	if err != nil || !bytes.Equal(got, data) || from != origin {
		b.t.Fatalf("got %d bytes (right: %v) from %v, %v; want %d from %v", len(got), bytes.Equal(got, data), from, err, len(data), origin)
	}
}

func (b *bed) opens() int { return b.store.Calls()["open"] }

func (b *bed) awaitCached(id freshet.BlockID) {
	b.t.Helper()
	for got := range b.added {
		if got == id {
			return
		}
	}
}

func (b *bed) wantNotCached(id freshet.BlockID) {
	b.t.Helper()
	if _, ok := b.blocks.Stat(id); ok {
		b.t.Fatal("the block is cached")
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func random(n int, seed uint64) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

func TestColdReadCachesAndHotReadCostsNoCall(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"", t.TempDir()} {
		b := newBed(t, settings{dir: dir})
		data := random(3<<20+5, 1)
		req := b.put("a", data, 1)
		before := b.opens()
		b.want(req, data, freshet.OriginUFS)
		b.awaitCached(req.Block.ID)
		for range 3 {
			b.want(req, data, freshet.OriginHit)
		}
		req.Offset, req.Length = 1<<20, 100
		b.want(req, data[1<<20:1<<20+100], freshet.OriginHit)
		req.Length = 0
		b.want(req, nil, freshet.OriginHit)
		if got := b.opens() - before; got != 1 {
			t.Errorf("%d calls to the storage", got)
		}
	}
}

func TestOneFetchHoweverManyAsk(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{dir: t.TempDir()})
	data := random(900_000, 2)
	req := b.put("a", data, 1)
	before := b.opens()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			r := req
			r.Offset = int64(i) * 1000
			got, _, err := b.read(r)
			if err != nil || !bytes.Equal(got, data[r.Offset:]) {
				t.Errorf("reader %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	wg.Wait()
	if got := b.opens() - before; got != 1 {
		t.Errorf("%d fetches", got)
	}
}

func TestReaderGetsBytesAsTheyArrive(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{dir: t.TempDir()})
	data := random(2<<20, 3)
	req := b.put("a", data, 1)
	gate, reads := make(chan struct{}), atomic.Int64{}
	b.setHook(func(step string) error {
		if step == "read" && reads.Add(1) > 1 {
			<-gate
		}
		return nil
	})
	s, err := b.filler.Read(t.Context(), req)
	check(t, err)
	got := make([]byte, 1000)
	_, err = io.ReadFull(s, got)
	check(t, err)
	b.wantNotCached(req.Block.ID)
	close(gate)
	rest, err := io.ReadAll(s)
	check(t, err)
	if !bytes.Equal(slices.Concat(got, rest), data) {
		t.Error("wrong bytes")
	}
	check(t, s.Close())
}

func TestFarReaderDoesNotWaitForTheFetch(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{})
	data := random(8<<20, 4)
	req := b.put("a", data, 1)
	reached, gate, reads := make(chan struct{}), make(chan struct{}), atomic.Int64{}
	b.setHook(func(step string) error {
		if step == "read" && reads.Add(1) == 1 {
			close(reached)
			<-gate
		}
		return nil
	})
	first := make(chan error)
	go func() {
		got, _, err := b.read(req)
		if err == nil && !bytes.Equal(got, data) {
			err = errors.New("wrong bytes")
		}
		first <- err
	}()
	<-reached // the fetch stands still at its first byte
	before := b.opens()
	b.want(withRange(req, 5<<20, 4096), data[5<<20:5<<20+4096], freshet.OriginUFS)
	if n := b.opens() - before; n != 1 {
		t.Errorf("4 KiB cost %d calls to the storage", n)
	}
	b.wantNotCached(req.Block.ID)
	close(gate)
	check(t, <-first)
	b.awaitCached(req.Block.ID)
	b.want(withRange(req, 5<<20, 4096), data[5<<20:5<<20+4096], freshet.OriginHit)
}

func withRange(req freshet.BlockRead, off, n int64) freshet.BlockRead {
	req.Offset, req.Length = off, n
	return req
}

func TestReadsThatCacheNothing(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*freshet.BlockRead, *settings){
		"no_cache":              func(r *freshet.BlockRead, _ *settings) { r.Type = freshet.ReadNoCache },
		"no file ID":            func(r *freshet.BlockRead, _ *settings) { r.Block.ID.File = 0 },
		"unknown version":       func(r *freshet.BlockRead, _ *settings) { r.Source.Fingerprint.Content = "" },
		"not running":           func(_ *freshet.BlockRead, s *settings) { s.idle = true },
		"a tier that is small":  func(_ *freshet.BlockRead, s *settings) { s.capacity = 1 << 20 },
		"a tier that is broken": func(_ *freshet.BlockRead, s *settings) { s.dir = "break" },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s settings
			change(new(freshet.BlockRead), &s)
			broken := s.dir != ""
			if broken {
				s.dir = t.TempDir()
			}
			b := newBed(t, s)
			if broken {
				check(t, os.RemoveAll(filepath.Join(s.dir, "tmp")))
			}
			data := random(2<<20, 5)
			req := b.put("a", data, 1)
			change(&req, &s)
			for range 2 {
				b.want(req, data, freshet.OriginUFS)
				b.want(withRange(req, 1<<20+7, 4096), data[1<<20+7:1<<20+7+4096], freshet.OriginUFS)
			}
			b.stop() // no fetch is left
			if len(b.blocks.List()) != 0 || b.blocks.Used() != 0 {
				t.Errorf("cached: %v, %d bytes", b.blocks.List(), b.blocks.Used())
			}
		})
	}
}

// TestC17RunningFetchOfAnotherVersionIsNotJoined: an ID that was used again after
// a restore names two versions for a moment.
func TestC17RunningFetchOfAnotherVersionIsNotJoined(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{})
	first := b.put("a", random(1000, 1), 1)
	data := random(1000, 2)
	second := b.put("b", data, 1)
	gate, reached, reads := make(chan struct{}), make(chan struct{}), atomic.Int64{}
	b.setHook(func(step string) error {
		if step == "read" && reads.Add(1) == 1 {
			close(reached)
			<-gate
		}
		return nil
	})
	done := make(chan error)
	go func() { _, _, err := b.read(first); done <- err }()
	<-reached
	b.want(second, data, freshet.OriginUFS)
	close(gate)
	check(t, <-done)
}

// short is a storage whose bodies end early without saying so.
type short struct{ ufs.FS }

func (s short) Open(ctx context.Context, key string, opts ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	opts.Length -= 10
	return s.FS.Open(ctx, key, opts)
}

func TestBodyThatEndsEarlyIsStale(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{})
	req := b.put("a", random(1000, 1), 1)
	fs := b.setFS(short{b.fs})
	for _, typ := range []freshet.ReadType{freshet.ReadCache, freshet.ReadNoCache} {
		req.Type = typ
		if got, _, err := b.read(req); !freshet.IsKind(err, freshet.KindStale) {
			t.Errorf("%v: %d bytes, %v", typ, len(got), err)
		}
		b.wantNotCached(req.Block.ID)
	}
	b.setFS(fs)
}

func TestFetchBeyondTheLimitIsServedUncached(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{opts: fill.Options{MaxFills: 1}})
	req := b.put("a", random(1000, 1), 1)
	gate, reached := make(chan struct{}), make(chan struct{})
	var opens atomic.Int64
	b.setHook(func(step string) error {
		if step == "open" && opens.Add(1) == 1 {
			close(reached)
			<-gate
		}
		return nil
	})
	done := make(chan error)
	go func() { _, _, err := b.read(req); done <- err }()
	<-reached
	data := random(1000, 2)
	other := b.put("b", data, 2)
	b.want(other, data, freshet.OriginUFS)
	b.wantNotCached(other.Block.ID)
	close(gate)
	check(t, <-done)
}

func TestNewerVersionInTheStorageIsStale(t *testing.T) {
	t.Parallel()
	changes := map[string]func(b *bed){
		"overwritten": func(b *bed) { b.store.Put("a", random(2<<20, 99)) },
		"shortened":   func(b *bed) { b.store.Put("a", nil) },
		"deleted":     func(b *bed) { b.store.Remove("a") },
	}
	for name, change := range changes {
		for _, typ := range []freshet.ReadType{freshet.ReadCache, freshet.ReadNoCache} {
			t.Run(fmt.Sprint(name, " ", typ), func(t *testing.T) {
				t.Parallel()
				b := newBed(t, settings{})
				req := b.put("a", random(2<<20, 6), 1)
				req.Type = typ
				change(b)
				_, _, err := b.read(req)
				if !freshet.IsKind(err, freshet.KindStale) {
					t.Errorf("%v", err)
				}
				b.wantNotCached(req.Block.ID)
			})
		}
	}
}

func TestFileChangedInTheMiddleOfAFetch(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{mode: mem.Local, dir: t.TempDir()})
	data := random(2<<20, 7)
	req := b.put("a", data, 1)
	var reads atomic.Int64
	b.setHook(func(step string) error {
		if step == "read" && reads.Add(1) == 3 {
			b.store.Rewrite("a", random(2<<20, 8))
		}
		return nil
	})
	got, _, err := b.read(req)
	if err == nil {
		t.Fatalf("%d bytes of two versions", len(got))
	}
	if !freshet.IsKind(err, freshet.KindStale) {
		t.Errorf("%v", err)
	}
	b.wantNotCached(req.Block.ID)
	if b.stop(); b.blocks.Used() != 0 {
		t.Errorf("%d bytes are left of the fetch", b.blocks.Used())
	}
}

// TestOverwrittenWhileRead overwrites two files in a loop while readers read them, each
// by what the storage said last: what they get is that version of that file, every page
// in its place, or KindStale.
func TestOverwrittenWhileRead(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{mode: mem.Local, dir: t.TempDir(), capacity: 4 << 20})
	const versions, size = 60, 700_000
	names := []string{"a", "b"}
	// The pages carry the ID, and no version of one file has an ID that the other has.
	content := func(id freshet.FileID) []byte { return pages(uint64(id), size) }
	var mu sync.Mutex
	current := make([]freshet.BlockRead, len(names))
	good := make([]atomic.Int64, len(names))
	for i, name := range names {
		current[i] = b.put(name, content(freshet.FileID(i+1)), freshet.FileID(i+1))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for reader := range 4 {
		i := reader % len(names)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				req := current[i]
				mu.Unlock()
				got, _, err := b.read(req)
				id := req.Block.ID.File
				if err != nil {
					if !freshet.IsKind(err, freshet.KindStale) {
						t.Errorf("%s, version %d: %v", names[i], id, err)
					}
					continue
				}
				good[i].Add(1)
				if v, err := versionOf(0, got); err != nil || v != uint64(id) || !bytes.Equal(got, content(id)) {
					t.Errorf("%s, version %d: %d bytes of version %d, %v", names[i], id, len(got), v, err)
				}
			}
		})
	}
	for v := len(names) + 1; v <= versions*len(names); v++ {
		i, id := (v-1)%len(names), freshet.FileID(v)
		for before := good[i].Load(); good[i].Load() == before; { // at least one read of each version
			<-time.After(time.Microsecond)
		}
		b.store.Rewrite(names[i], content(id))
		st, err := b.fs.Stat(t.Context(), names[i])
		check(t, err)
		mu.Lock()
		current[i].Block.ID.File, current[i].Source.Fingerprint = id, st.Fingerprint
		mu.Unlock()
	}
	close(stop)
	wg.Wait()
}

func TestErrorIsNotRemembered(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{})
	data := random(1000, 9)
	req := b.put("a", data, 1)
	for _, step := range []string{"open", "read"} {
		b.setHook(func(s string) error {
			if s == step {
				return freshet.Errorf(freshet.KindUnavailable, s, "", "the storage is down")
			}
			return nil
		})
		if _, _, err := b.read(req); !freshet.IsKind(err, freshet.KindUnavailable) {
			t.Fatalf("%s: %v", step, err)
		}
		b.wantNotCached(req.Block.ID)
	}
	b.setHook(nil)
	b.want(req, data, freshet.OriginUFS)
}

func TestFetchGoesOnWithoutItsReaders(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{})
	data := random(3<<20, 10)
	req := b.put("a", data, 1)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := b.filler.Read(ctx, req)
	check(t, err)
	cancel()
	check(t, s.Close())
	b.awaitCached(req.Block.ID)
	b.want(req, data, freshet.OriginHit)
}

func TestStopEndsFetchesAndReadsGoOn(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{})
	data := random(2<<20, 11)
	req := b.put("a", data, 1)
	gate, reads := make(chan struct{}), atomic.Int64{}
	b.setHook(func(step string) error {
		if step == "read" && reads.Add(1) == 3 {
			<-gate
		}
		return nil
	})
	s, err := b.filler.Read(t.Context(), req)
	check(t, err)
	go close(gate)
	b.stop()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	check(t, s.Close())
	b.want(req, data, s2(b, req))
}

// s2 is where the second read of a block comes from: the cache if the fetch won
// the race with the stop.
func s2(b *bed, req freshet.BlockRead) freshet.Origin {
	if _, ok := b.blocks.Stat(req.Block.ID); ok {
		return freshet.OriginHit
	}
	return freshet.OriginUFS
}

// TestSourceThatHangsIsGivenUp, and one that is slow but alive is not.
func TestSourceThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	for _, bytes := range []int{0, 10, 1000} {
		synctest.Test(t, func(t *testing.T) {
			b := newBed(t, settings{opts: fill.Options{Stall: time.Minute}})
			defer b.stop()
			req := b.put("a", random(1000, 12), 1)
			b.setFS(&slow{FS: b.fs, bytes: bytes})
			start := time.Now()
			_, _, err := b.read(req)
			took := time.Duration(bytes)*40*time.Second + time.Minute
			switch {
			case bytes == 1000 && err != nil:
				t.Errorf("a slow source was given up: %v", err)
			case bytes < 1000 && (!freshet.IsKind(err, freshet.KindUnavailable) || time.Since(start) != took):
				t.Errorf("after %v: %v", time.Since(start), err)
			}
		})
	}
}

// slow is a storage that gives a byte each 40 seconds, and after some bytes no
// more.
type slow struct {
	ufs.FS
	bytes int
}

func (s *slow) Open(ctx context.Context, _ string, _ ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	return &slowBody{ctx, s.bytes}, ufs.Status{}, nil
}

type slowBody struct {
	ctx   context.Context
	bytes int
}

func (s *slowBody) Read([]byte) (int, error) {
	if s.bytes == 0 {
		<-s.ctx.Done()
		return 0, s.ctx.Err()
	}
	s.bytes--
	time.Sleep(40 * time.Second)
	return 1, nil
}

func (s *slowBody) Close() error { return nil }

func TestUnknownMountIsNotAMissingFile(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{idle: true})
	f := fill.New(fill.Deps{
		Blocks: b.blocks, Mounts: noMounts{}, Identity: func() (freshet.ClusterID, uint64, bool) { return uuid.UUID{1}, 1, true },
	}, fill.Options{})
	_, err := f.Read(t.Context(), b.put("a", []byte("a"), 1))
	if !freshet.IsKind(err, freshet.KindUnavailable) {
		t.Errorf("%v", err)
	}
}

type noMounts struct{}

func (noMounts) Get(freshet.MountID) (ufs.FS, func(), error) {
	return nil, nil, freshet.KindNotExist
}

func TestImpossibleRangesAreInvalid(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{idle: true})
	good := b.put("a", random(100, 1), 1)
	tests := map[string]func(*freshet.BlockRead){
		"negative offset":   func(r *freshet.BlockRead) { r.Offset = -1 },
		"offset after end":  func(r *freshet.BlockRead) { r.Offset = 101 },
		"too long":          func(r *freshet.BlockRead) { r.Offset, r.Length = 50, 51 },
		"overflow":          func(r *freshet.BlockRead) { r.Offset, r.Length = 50, 1<<63-1 },
		"negative block":    func(r *freshet.BlockRead) { r.Block.Length = -1 },
		"huge block":        func(r *freshet.BlockRead) { r.Block.Length = freshet.MaxBlockSize + 1 },
		"block at infinity": func(r *freshet.BlockRead) { r.Block.Offset = 1<<63 - 5 },
		"block before file": func(r *freshet.BlockRead) { r.Block.Offset = -5 },
	}
	for name, change := range tests {
		req := good
		change(&req)
		if _, _, err := b.read(req); !freshet.IsKind(err, freshet.KindInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.want(withRange(good, 100, -1), nil, freshet.OriginHit)
}
