package region_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/test/e2e"
)

const (
	uploads    = 64
	uploadSize = 16<<20 + 12345
	// uploadMemory is for the parts of all uploads; without it they would take 64 times 16 MiB.
	uploadMemory = "96MiB"
	// uploadsMemory is what a node may need beyond what it needs at rest, in bytes: the
	// parts, and of each upload what has come and waits, a window and two messages, and as
	// much again that is not collected yet.
	uploadsMemory = 96<<20 + uploads*8<<20
)

// TestManyUploadsShareMemory writes many files to S3 at once: what they take together is
// bounded, all end, and each has its own bytes.
func TestManyUploadsShareMemory(t *testing.T) {
	w := e2e.NewS3World(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1, UploadMemory: uploadMemory})
	node := w.A.Nodes[0].PID()
	before, peak := anonymous(t, node), int64(0)
	group, ctx := errgroup.WithContext(t.Context())
	for i := range uploads {
		group.Go(func() error { return uploadAndRead(ctx, w.A, fmt.Sprintf("upload-%d", i)) })
	}
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
	t.Logf("%d MiB at rest, at most %d MiB with %d uploads", before>>20, peak>>20, uploads)
	if peak-before > uploadsMemory {
		t.Errorf("the node took %d MiB for %d uploads, more than %d", (peak-before)>>20, uploads, uploadsMemory>>20)
	}
}

func uploadAndRead(ctx context.Context, r *e2e.Region, name string) error {
	const version = 7
	opts := client.WriteOptions{Length: uploadSize, Write: freshet.CacheThrough}
	if _, err := r.S.Files.Write(ctx, r.At(name), e2e.Reader(name, version, uploadSize), opts); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	f, err := r.S.Files.Open(ctx, r.At(name), client.Whole())
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer func() { _ = f.Close() }() // read only
	want, got, wanted := e2e.Reader(name, version, uploadSize), make([]byte, e2e.PageSize), make([]byte, e2e.PageSize)
	for off := 0; ; off += len(got) {
		n, err := io.ReadFull(f, got)
		m, _ := io.ReadFull(want, wanted) // what it has is compared
		switch {
		case n != m || !bytes.Equal(got[:n], wanted[:m]):
			return fmt.Errorf("%s: other bytes at %d: %w", name, off, err)
		case n < len(got):
			return nil
		}
	}
}
