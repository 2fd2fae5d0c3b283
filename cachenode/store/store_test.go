package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/store"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/test/child"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	length = 100_000
	room   = 110_000 // what such a block takes at most
)

func block(n int) freshet.BlockID { return freshet.BlockID{File: freshet.FileID(n)} }

func meta() tier.Meta {
	return tier.Meta{Cluster: uuid.UUID{7}, Epoch: 1, Fingerprint: fingerprint.S3("etag", length)}
}

func want() tier.Want {
	m := meta()
	return tier.Want{Cluster: m.Cluster, Epoch: m.Epoch, Fingerprint: m.Fingerprint, Length: length}
}

func content(id freshet.BlockID) []byte {
	b := make([]byte, length)
	_, _ = rand.NewChaCha8([32]byte{byte(id.File), byte(id.File >> 8)}).Read(b)
	return b
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a store with an observer that knows which blocks the node has.
type world struct {
	t     testing.TB
	s     *store.Store
	clock *clock.Fake
	mu    sync.Mutex
	have  map[freshet.BlockID]bool
	went  map[tier.Reason]int
	moves []string
	fault map[string]error // by directory and operation: "dir op" or "dir"
}

func newWorld(t testing.TB, tiers ...store.Tier) *world {
	t.Helper()
	w := &world{t: t, clock: clock.NewFake(time.Unix(1_000_000, 0)), fault: map[string]error{}}
	w.open(tiers...)
	t.Cleanup(func() { check(t, w.s.Close()) })
	return w
}

func (w *world) open(tiers ...store.Tier) {
	w.t.Helper()
	var err error
	w.s, err = store.Open(tiers, store.Options{Clock: w.clock, Fault: w.failing})
	check(w.t, err)
	w.have, w.went = map[freshet.BlockID]bool{}, map[tier.Reason]int{}
	for _, b := range w.s.List() {
		w.have[b.ID] = true
	}
	w.s.Observe(func(c tier.Change) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.have[c.Block.ID] == c.Added {
			w.t.Errorf("told twice: %+v", c)
		}
		w.have[c.Block.ID] = c.Added
		if !c.Added {
			w.went[c.Reason]++
		}
	})
	w.s.ObserveMoves(func(from, to store.Kind) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.moves = append(w.moves, fmt.Sprintf("%s to %s", from, to))
	})
}

func (w *world) failing(dir, op string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.fault[dir]; err != nil {
		return err
	}
	return w.fault[dir+" "+op]
}

func (w *world) setFault(key string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault[key] = err
}

func (w *world) gone(why tier.Reason) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.went[why]
}

func (w *world) tryPut(id freshet.BlockID) error {
	dst, err := w.s.Create(id, length)
	if err != nil {
		return err
	}
	defer dst.Close()
	if _, err := dst.Write(content(id)); err != nil {
		return err
	}
	return dst.Commit(meta())
}

func (w *world) put(ids ...int) {
	w.t.Helper()
	for _, n := range ids {
		if err := w.tryPut(block(n)); err != nil {
			w.t.Fatalf("block %d: %v", n, err)
		}
	}
}

// read fails the test if it gets other bytes, and returns an error if it gets none.
func (w *world) read(id freshet.BlockID) error {
	r, err := w.s.Open(id, want())
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	var b bytes.Buffer
	if _, err := r.CopyTo(&b, 0, length); err != nil {
		return err
	}
	if !bytes.Equal(b.Bytes(), content(id)) {
		w.t.Errorf("block %v has other bytes", id)
	}
	return nil
}

func (w *world) mustRead(ids ...int) {
	w.t.Helper()
	for _, n := range ids {
		if err := w.read(block(n)); err != nil {
			w.t.Fatalf("block %d: %v", n, err)
		}
	}
}

// used returns how many blocks each tier has.
func (w *world) used() (blocks []int64) {
	for _, st := range w.s.Status() {
		blocks = append(blocks, st.Used/length)
	}
	return blocks
}

func (w *world) wantUsed(blocks ...int64) {
	w.t.Helper()
	if got := w.used(); fmt.Sprint(got) != fmt.Sprint(blocks) {
		w.t.Fatalf("the tiers have %v blocks, want %v", got, blocks)
	}
}

func (w *world) states() string {
	var all []string
	for _, st := range w.s.Status() {
		for _, d := range st.Dirs {
			all = append(all, d.State)
		}
	}
	return strings.Join(all, " ")
}

func (w *world) wantStates(want string) {
	w.t.Helper()
	if got := w.states(); got != want {
		w.t.Fatalf("the directories are %s, want %s", got, want)
	}
}

func dirs(kind store.Kind, capacity int64, paths ...string) store.Tier {
	t := store.Tier{Kind: kind, High: 0.8, Low: 0.5}
	for _, p := range paths {
		t.Dirs = append(t.Dirs, store.Dir{Path: p, Capacity: capacity})
	}
	return t
}

func memory(capacity int64) store.Tier {
	t := store.InMemory(capacity)
	t.High, t.Low = 0.8, 0.5
	return t
}

func TestNewBlocksGoToTheFastestTierWithFreeSpace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, memory(4*room), dirs(store.SSD, 4*room, t.TempDir()), dirs(store.HDD, 4*room, t.TempDir()))
	w.put(1, 2, 3, 4, 5, 6)
	w.wantUsed(4, 2, 0)
	w.mustRead(1, 2, 3, 4, 5, 6)
	w.put(7, 8, 9, 10, 11, 12)
	w.wantUsed(4, 4, 4)
	w.put(13) // nothing is free: the slowest tier makes space
	w.wantUsed(4, 4, 4)
	if w.gone(tier.ReasonCapacity) != 1 || len(w.s.List()) != 12 {
		t.Errorf("%d blocks were evicted, %d are there", w.gone(tier.ReasonCapacity), len(w.s.List()))
	}
	if err := w.tryPut(block(13)); !freshet.IsKind(err, freshet.KindExist) {
		t.Errorf("a second time: %v", err)
	}
}

func TestBlocksMoveDownAndStayCached(t *testing.T) {
	t.Parallel()
	w := newWorld(t, memory(10*room), dirs(store.SSD, 10*room, t.TempDir()), dirs(store.HDD, 10*room, t.TempDir()))
	for n := 1; n <= 9; n++ {
		w.put(n)
	}
	w.s.Shed(t.Context())
	if got := w.used(); got[0] > 5 || got[0]+got[1] != 9 {
		t.Fatalf("the tiers have %v blocks", got)
	}
	for n := 10; n <= 18; n++ {
		w.put(n)
		w.s.Shed(t.Context())
	}
	if got := w.used(); got[0]+got[1]+got[2] != 18 || got[1] > 8 || got[2] == 0 {
		t.Fatalf("the tiers have %v blocks", got)
	}
	for n := 1; n <= 18; n++ {
		w.mustRead(n)
	}
	if len(w.went) != 0 || len(w.s.List()) != 18 {
		t.Errorf("the node was told of %v", w.went)
	}
	if !strings.Contains(strings.Join(w.moves, ","), "ssd to hdd") {
		t.Errorf("moves: %v", w.moves)
	}
	for n := 19; n <= 60; n++ { // more than all tiers hold: the last one evicts
		w.put(n)
		w.s.Shed(t.Context())
	}
	if w.gone(tier.ReasonCapacity) == 0 {
		t.Error("nothing was evicted")
	}
}

func TestBlocksThatAreReadMoveUp(t *testing.T) {
	t.Parallel()
	ssd, hdd := t.TempDir(), t.TempDir()
	tiers := []store.Tier{memory(4 * room), dirs(store.SSD, 4*room, ssd), dirs(store.HDD, 4*room, hdd)}
	w := newWorld(t, tiers...)
	w.put(1, 2, 3, 4, 5, 6, 7, 8, 9)
	w.wantUsed(4, 4, 1)
	w.s.Remove(block(1), block(2), block(5), block(6))
	w.wantUsed(2, 2, 1)

	w.mustRead(9, 9, 9, 9) // one read in pieces
	if n := w.s.Promote(); n != 0 {
		t.Errorf("%d blocks moved after one read", n)
	}
	w.clock.Advance(2 * time.Second)
	w.mustRead(9)
	w.s.Promote()
	w.wantUsed(2, 3, 0) // from disk to disk it leaves where it was
	for range 2 {
		w.clock.Advance(2 * time.Second)
		w.mustRead(9)
	}
	w.s.Promote()
	w.wantUsed(3, 3, 0) // in memory it is a copy
	w.mustRead(9)
	if len(w.s.List()) != 5 {
		t.Errorf("blocks: %v", w.s.List())
	}
	// A restart finds it.
	check(t, w.s.Close())
	w.open(tiers...)
	w.wantUsed(0, 3, 0)
	w.mustRead(7, 8, 9)
	w.s.Remove(block(9))
	if err := w.read(block(9)); !freshet.IsKind(err, freshet.KindNotExist) {
		t.Errorf("a removed block: %v", err)
	}
}

func TestRemoveFindsAllCopies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, memory(3*room), dirs(store.SSD, 4*room, t.TempDir()))
	w.put(1, 2, 3, 4)
	w.s.Remove(block(1))
	for range 3 {
		w.clock.Advance(2 * time.Second)
		w.mustRead(4)
	}
	w.s.Promote()
	w.wantUsed(3, 1)
	w.s.Remove(block(4))
	w.wantUsed(2, 0)
	if w.gone(tier.ReasonFreed) != 2 {
		t.Errorf("told of %v", w.went)
	}
}

func TestPinnedBlocksAndThoseInUseStay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, memory(4*room), dirs(store.SSD, 4*room, t.TempDir()))
	w.put(1, 2, 3, 4)
	w.s.Pin(false, 1, 2)
	r, err := w.s.Open(block(3), want())
	check(t, err)
	w.s.Shed(t.Context())
	w.wantUsed(3, 1) // only 4 could go
	check(t, r.Close())
	w.s.Shed(t.Context())
	w.wantUsed(3, 1) // below the high watermark nothing moves
	for n := 5; n < 50; n++ {
		w.put(n)
		w.s.Shed(t.Context())
	}
	w.mustRead(1, 2)
}

func TestPinsMoveUpWithTheirBlocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dirs(store.SSD, 3*room, t.TempDir()), dirs(store.HDD, 4*room, t.TempDir()))
	w.put(1, 2, 3, 4)
	w.s.Pin(false, 4)
	w.s.Remove(block(1), block(2))
	for range 3 {
		w.clock.Advance(2 * time.Second)
		w.mustRead(4)
	}
	w.s.Promote()
	w.wantUsed(2, 0)
	if w.s.Pinned() < length {
		t.Error("the block lost its pin")
	}
	w.s.Pin(true)
	if w.s.Pinned() != 0 {
		t.Error("the block kept its pin")
	}
}

func TestAFailingDirectoryLeavesServiceAndComesBack(t *testing.T) {
	t.Parallel()
	a, b := t.TempDir(), t.TempDir()
	w := newWorld(t, dirs(store.SSD, 10*room, a, b))
	w.put(1, 2, 3, 4, 5, 6)
	w.wantStates("serving serving")
	w.setFault(a, syscall.EIO)
	lost := 0
	for n := 1; n <= 6; n++ {
		if w.read(block(n)) != nil {
			lost++
		}
	}
	if lost != 3 {
		t.Fatalf("%d blocks can't be read", lost)
	}
	w.put(7) // the other directory takes it
	w.s.Check(false)
	w.wantStates("failed serving")
	if n := len(w.s.List()); n != 4 {
		t.Errorf("the node has %d blocks", n)
	}
	if err := w.s.Status()[0].Dirs[0].Err; !errors.Is(err, syscall.EIO) {
		t.Errorf("the status says %v", err)
	}
	if w.s.Capacity() != 10*room {
		t.Errorf("capacity %d", w.s.Capacity())
	}
	w.put(8, 9)
	w.s.Check(true)
	w.wantStates("failed serving")
	w.setFault(a, nil)
	w.s.Check(false)
	w.wantStates("failed serving")
	w.s.Check(true)
	w.wantStates("serving serving")
	w.mustRead(7, 8, 9)
	w.put(10, 11)
}

// A directory that fails only to be written is noticed, and its blocks come back
// with it.
func TestBlocksOfADirectoryComeBackWithIt(t *testing.T) {
	t.Parallel()
	a, b := t.TempDir(), t.TempDir()
	w := newWorld(t, dirs(store.SSD, 10*room, a), dirs(store.HDD, 10*room, b))
	w.put(1, 2, 3)
	w.setFault(a+" write", syscall.EROFS)
	w.setFault(b+" write", syscall.EIO)
	err := w.tryPut(block(4))
	if !freshet.IsKind(err, freshet.KindUnavailable) {
		t.Fatalf("a write to a failing disk: %v", err)
	}
	w.mustRead(1, 2, 3) // nobody has looked yet
	w.s.Check(false)
	w.wantStates("failed serving") // nothing was written to the other one yet
	if w.gone(tier.ReasonFailed) != 3 {
		t.Errorf("told of %v", w.went)
	}
	_ = w.tryPut(block(4))
	w.s.Check(false)
	w.wantStates("failed failed")
	err = w.tryPut(block(4))
	if !freshet.IsKind(err, freshet.KindUnavailable) || !strings.Contains(err.Error(), a) {
		t.Errorf("a write without a directory: %v", err)
	}
	w.setFault(a+" write", nil)
	w.s.Check(true)
	w.wantStates("serving failed")
	w.mustRead(1, 2, 3)
	w.put(4)
}

func TestADirectoryThatCanNotBeOpenedIsOutOfService(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(bad, nil, 0o600))
	good := t.TempDir()
	w := newWorld(t, dirs(store.SSD, 10*room, filepath.Join(bad, "below"), good))
	w.wantStates("failed serving")
	w.put(1)
	check(t, os.Remove(bad))
	w.s.Check(true)
	w.wantStates("serving serving")
	w.put(2, 3)

	_, err := store.Open([]store.Tier{dirs(store.SSD, room, filepath.Join(good, "LOCK", "below"))}, store.Options{})
	if !freshet.IsKind(err, freshet.KindUnavailable) {
		t.Errorf("without any directory: %v", err)
	}
	_, err = store.Open([]store.Tier{dirs(store.SSD, room, good)}, store.Options{})
	if !freshet.IsKind(err, freshet.KindConflict) {
		t.Errorf("a directory in use: %v", err)
	}
	_, err = store.Open(nil, store.Options{})
	if !freshet.IsKind(err, freshet.KindInvalid) {
		t.Errorf("without a tier: %v", err)
	}
}

// TestFullDisk lets a real disk run full: another program takes its space.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=8m"); err != nil {
		child.Lacks(t, "the right to mount", err)
	}
	w := newWorld(t, dirs(store.SSD, 64<<20, filepath.Join(dir, "cache")))
	t.Cleanup(func() { check(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	for n := 1; n <= 40; n++ {
		w.put(n)
	}
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, make([]byte, 16<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("16 MiB on a disk of 8: %v", err)
	}
	if err := w.tryPut(block(41)); !freshet.IsKind(err, freshet.KindExhausted) {
		t.Fatalf("a write to a full disk: %v", err)
	}
	for n := 1; n <= 40; n++ {
		w.mustRead(n)
	}
	w.s.Check(false) // some blocks give way, so that there is space
	w.wantStates("serving")
	if n := len(w.s.List()); n == 0 || n == 40 {
		t.Errorf("%d blocks are left", n)
	}
	w.put(41)
	for _, b := range w.s.List() {
		check(t, w.read(b.ID))
	}
}

// TestFullDirectoryServesAndTakesNothing has a disk that stays full.
func TestFullDirectoryServesAndTakesNothing(t *testing.T) {
	t.Parallel()
	a, b := t.TempDir(), t.TempDir()
	w := newWorld(t, dirs(store.SSD, 64<<20, a), dirs(store.HDD, 64<<20, b))
	for n := 1; n <= 40; n++ {
		w.put(n)
	}
	w.setFault(a+" write", syscall.ENOSPC)
	if err := w.tryPut(block(41)); !freshet.IsKind(err, freshet.KindExhausted) {
		t.Fatalf("a write to a full disk: %v", err)
	}
	w.s.Check(false)
	w.wantStates("full serving")
	w.put(41, 42) // in the other one
	if got := w.used(); got[0] == 0 || got[0] >= 40 || got[1] != 2 {
		t.Errorf("the tiers have %v blocks", got)
	}
	for _, b := range w.s.List() {
		check(t, w.read(b.ID))
	}
	w.setFault(a+" write", nil)
	w.s.Check(false)
	w.wantStates("full serving")
	w.s.Check(true)
	w.wantStates("serving serving")
	w.put(43)
	w.mustRead(41, 42, 43)
}
