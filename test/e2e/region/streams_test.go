package region_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/test/child"
	"github.com/freshet-io/freshet/test/e2e"
)

const (
	streams    = 64
	streamSize = 64 << 20
	// streamMemory is what a node may need beyond what it needs at rest, in bytes.
	streamMemory = 300 << 20
)

// TestManyStreamsNeedLittleMemory reads a file of a disk tier by many streams at once,
// each of which waits in the middle until all others have come as far: what a node
// keeps for readers that are slow is bounded.
func TestManyStreamsNeedLittleMemory(t *testing.T) {
	w := e2e.NewDirWorld(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1})
	content := e2e.Content("streams", 1, streamSize)
	if err := w.Storage.Put(t.Context(), w.A.Prefix+"streams", content); err != nil {
		t.Fatal(err)
	}
	read(t, w.A, "streams", content) // cold
	if err := w.A.S.AwaitCached(t.Context(), w.A.At("streams"), streamSize, e2e.Patience); err != nil {
		t.Fatal(err)
	}
	node := w.A.Nodes[0].PID()
	before, peak := anonymous(t, node), int64(0)
	halfway := make(chan struct{}, streams)
	onward := make(chan struct{})
	group, ctx := errgroup.WithContext(t.Context())
	for range streams {
		group.Go(func() error { return readHalting(ctx, w.A, content, halfway, onward) })
	}
	for range streams {
		select {
		case <-halfway:
		case <-ctx.Done():
			t.Fatal(group.Wait())
		}
		peak = max(peak, anonymous(t, node))
	}
	close(onward)
	done := make(chan error, 1)
	go func() { done <- group.Wait() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		case <-tick.C:
			peak = max(peak, anonymous(t, node))
		}
	}
	t.Logf("%d MiB at rest, at most %d MiB with %d streams", before>>20, peak>>20, streams)
	if peak-before > streamMemory {
		t.Errorf("the node took %d MiB for %d streams, more than %d", (peak-before)>>20, streams, streamMemory>>20)
	}
}

// readHalting reads and compares the file, and halts in the middle.
func readHalting(ctx context.Context, r *e2e.Region, want []byte, halfway chan<- struct{}, onward <-chan struct{}) error {
	f, err := r.S.Files.Open(ctx, r.At("streams"), client.Whole())
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	buf := make([]byte, 256<<10)
	for off := 0; off < len(want); off += len(buf) {
		if off == len(want)/2 {
			halfway <- struct{}{}
			select {
			case <-onward:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if _, err := io.ReadFull(f, buf); err != nil {
			return err
		}
		if string(buf) != string(want[off:off+len(buf)]) {
			return fmt.Errorf("other bytes at %d", off)
		}
	}
	return nil
}

// anonymous returns the memory of a process that is not that of files, in bytes.
func anonymous(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	child.Lacks(t, "RssAnon of a process", errors.ErrUnsupported)
	return 0
}
