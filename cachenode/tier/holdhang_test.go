package tier_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/test/child"
)

// gate lets one kind of access to a directory wait.
type gate struct {
	op      string
	reached chan struct{}
	open    chan struct{}
	err     error
	mu      sync.Mutex
}

func newGate(op string) *gate {
	return &gate{op: op, reached: make(chan struct{}, 10), open: make(chan struct{})}
}

func (g *gate) fault(op string) error {
	if op != g.op {
		return nil
	}
	g.reached <- struct{}{}
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

func openTier(t *testing.T, dir string, opts tier.Options) *tier.Tier {
	t.Helper()
	opts.Capacity = 1 << 20
	ti, err := tier.OpenDisk(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ti.Close() })
	return ti
}

func heldFiles(t *testing.T, dir string) int {
	t.Helper()
	all, err := os.ReadDir(filepath.Join(dir, "held"))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestAHoldThatWaitsForItsDiskHoldsUpNobody: the node reports, reads and releases
// meanwhile.
func TestAHoldThatWaitsForItsDiskHoldsUpNobody(t *testing.T) {
	t.Parallel()
	g := newGate("hold")
	ti := openTier(t, t.TempDir(), tier.Options{Fault: g.fault, Patience: time.Minute})
	held := make(chan error, 2)
	for range 2 {
		go func() { held <- ti.Hold(7) }()
	}
	<-g.reached
	if ti.Used() != 0 || len(ti.List()) != 0 || len(ti.Held()) != 0 || ti.HeldBytes() != 0 {
		t.Error("an empty tier has something")
	}
	ti.Release(7, 8)
	close(g.open)
	for range 2 {
		if err := <-held; err != nil {
			t.Error(err)
		}
	}
	if all := ti.Held(); len(all) != 1 || all[0] != 7 {
		t.Errorf("%v are held", all)
	}
}

// TestNothingStaysOfAHoldThatFails: nobody would ever release it.
func TestNothingStaysOfAHoldThatFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ti := openTier(t, dir, tier.Options{})
	tier.SetPatience(ti, 50*time.Millisecond)
	// A pipe lets whoever opens it wait until somebody reads.
	pipe := filepath.Join(dir, "held", "0000000000000007")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		child.Lacks(t, "a file system with pipes", err)
	}
	if err := ti.Hold(7); !freshet.IsKind(err, freshet.KindUnavailable) {
		t.Fatalf("held by a disk that does not answer: %v", err)
	}
	// On a busy machine it may not even have begun to open it, and then never does.
	f, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	defer f.Close()
	until := time.After(time.Minute)
	for ti.Stuck() {
		select {
		case <-time.After(time.Millisecond):
		case <-until:
			t.Fatal("the disk does not answer any more")
		}
	}
	if n := heldFiles(t, dir); n != 0 || len(ti.Held()) != 0 {
		t.Errorf("%d files of %v stayed", n, ti.Held())
	}
}

// TestAReleaseThatItsDiskRefusesIsRepeated: what the disk still says to be held is.
func TestAReleaseThatItsDiskRefusesIsRepeated(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := newGate("unhold")
	g.err = errors.New("no")
	close(g.open)
	ti := openTier(t, dir, tier.Options{Fault: g.fault})
	for _, id := range []freshet.FileID{7, 8} {
		if err := ti.Hold(id); err != nil {
			t.Fatal(err)
		}
	}
	ti.Release(7, 8)
	if len(ti.Held()) != 2 || heldFiles(t, dir) != 2 {
		t.Fatalf("%v are held, with %d files", ti.Held(), heldFiles(t, dir))
	}
	g.mu.Lock()
	g.err = nil
	g.mu.Unlock()
	if err := os.Remove(filepath.Join(dir, "held", "0000000000000008")); err != nil { // it was late
		t.Fatal(err)
	}
	if ti.Release(7, 8); len(ti.Held()) != 0 || heldFiles(t, dir) != 0 {
		t.Fatalf("%v are held, with %d files", ti.Held(), heldFiles(t, dir))
	}
}

// TestAReleaseDoesNotWaitForLong: with the tier locked, the node would stand still.
func TestAReleaseDoesNotWaitForLong(t *testing.T) {
	t.Parallel()
	g := newGate("unhold")
	ti := openTier(t, t.TempDir(), tier.Options{Fault: g.fault})
	if err := ti.Hold(7); err != nil {
		t.Fatal(err)
	}
	tier.SetPatience(ti, time.Millisecond)
	ti.Release(7)
	if !ti.Stuck() || len(ti.Held()) != 1 {
		t.Errorf("stuck %t, %v are held", ti.Stuck(), ti.Held())
	}
	close(g.open)
}
