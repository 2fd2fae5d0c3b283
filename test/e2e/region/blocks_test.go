package region_test

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

const (
	smallBlock = 64 << 10
	smallFile  = 1 << 20
)

// TestSmallBlocks keeps what is below one path of A in blocks of 64KiB, and what is
// there in B in blocks of another size.
func TestSmallBlocks(t *testing.T) {
	w := e2e.NewS3World(t, e2e.Options{Coordinators: 1, Nodes: 1})
	w.A.CLI(t, "policy", "set", "/mnt/a/small", "--block-size", "64KiB").Want(t, 0, "block_size", "64KiB")
	w.B.CLI(t, "policy", "set", "/data/x/small", "--block-size", "256KiB").Want(t, 0)
	for _, c := range []struct {
		name string
		test func(t *testing.T, w *e2e.World)
	}{
		{"reads and writes fill them", smallBlocksAreFilled},
		{"a range costs its blocks", smallBlocksAreRead},
		{"an invalidation evicts them all", smallBlocksAreEvicted},
		{"a long file is located in parts", manySmallBlocks},
		{"another size applies to the next version", smallBlocksChange},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, w) })
	}
}

// wantBlocks waits until the region's nodes hold all of a file, in blocks of a size.
func wantBlocks(t *testing.T, r *e2e.Region, name string, size int64) {
	t.Helper()
	err := fleet.Poll(t.Context(), e2e.Patience, "the blocks of "+name, func(ctx context.Context) error {
		x, err := r.S.Explain(ctx, r.At(name), false)
		switch {
		case err != nil:
			return err
		case x.Info == nil || x.Info.BlockSize != size || int64(len(x.Blocks)) != (x.Info.Length+size-1)/size:
			return fmt.Errorf("%d blocks of %+v", len(x.Blocks), x.Info)
		}
		for i, b := range x.Blocks {
			if int64(b.Index) != int64(i) || b.Length != min(size, x.Info.Length-int64(i)*size) {
				return fmt.Errorf("block %d is %+v", i, b)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// held waits until the region's node holds so many blocks of all files.
func held(t *testing.T, r *e2e.Region, blocks int64) {
	t.Helper()
	err := fleet.Poll(t.Context(), e2e.Patience, strconv.FormatInt(blocks, 10)+" blocks", func(ctx context.Context) error {
		nodes, err := r.S.Nodes(ctx)
		if err == nil && (len(nodes) != 1 || nodes[0].Blocks != blocks) {
			err = fmt.Errorf("%+v", nodes)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func smallBlocksAreFilled(t *testing.T, w *e2e.World) {
	written, direct := e2e.Content("written", 1, smallFile), e2e.Content("direct", 1, smallFile)
	write(t, w.A, "small/written", written)
	wantBlocks(t, w.A, "small/written", smallBlock)
	if err := w.Storage.Put(t.Context(), "x/small/direct", direct); err != nil {
		t.Fatal(err)
	}
	read(t, w.A, "small/direct", direct)
	wantBlocks(t, w.A, "small/direct", smallBlock)
	held(t, w.A, 32)
	free(t, w, "reads of what is cached", func() {
		read(t, w.A, "small/written", written)
		read(t, w.A, "small/direct", direct)
	})
	w.A.CLI(t, "fs", "stat", "/mnt/a/small/written").Want(t, 0, "64KiB")
	w.A.CLI(t, "explain", "/mnt/a/small/written").Want(t, 0, "block size", "64KiB", "0-15")
	read(t, w.B, "x/small/written", written)
	wantBlocks(t, w.B, "x/small/written", 256<<10)
}

func smallBlocksAreRead(t *testing.T, w *e2e.World) {
	cold := e2e.Content("cold", 1, smallFile+77)
	if err := w.Storage.Put(t.Context(), "x/small/cold", cold); err != nil {
		t.Fatal(err)
	}
	cached := int64(0)
	for _, c := range []struct{ off, n, blocks, bytes int64 }{
		{3*smallBlock - 10, 20, 2, 2 * smallBlock}, {5*smallBlock - 1, 2*smallBlock + 2, 4, 4 * smallBlock}, {smallFile + 7, 70, 1, 77},
	} {
		w.S3.ResetCounts()
		got, _, err := w.A.Read(t.Context(), "small/cold", client.ReadOptions{Offset: c.off, Length: c.n})
		if err != nil || !bytes.Equal(got, cold[c.off:c.off+c.n]) {
			t.Fatalf("at %d: %d bytes, %v", c.off, len(got), err)
		}
		cached += c.bytes
		e2e.AwaitCached(t, w.A, "small/cold", cached)
		if n := w.S3.Counts(); int64(n.ByOp["GetObject"]) != c.blocks || int64(n.BytesOut["GetObject"]) > c.bytes {
			t.Errorf("%d bytes at %d: %v, %v", c.n, c.off, n.ByOp, n.BytesOut)
		}
	}
	// Over HTTP, and every border of a file of which some blocks are cached.
	url := "http://" + w.A.NodeHTTP[0] + "/v1/data/mnt/a/small/cold"
	for at := int64(smallBlock); at < int64(len(cold)); at += smallBlock {
		first, last := at-3, min(at+3, int64(len(cold))-1)
		got := e2e.HTTP(t, "GET", url, "", "Range", fmt.Sprintf("bytes=%d-%d", first, last)).Want(t, 206)
		if got.Body != string(cold[first:last+1]) {
			t.Errorf("other bytes around %d", at)
		}
	}
	read(t, w.A, "small/cold", cold)
	wantBlocks(t, w.A, "small/cold", smallBlock)
	held(t, w.A, 32+17)
}

func smallBlocksAreEvicted(t *testing.T, w *e2e.World) {
	now := e2e.Content("written", 2, 3*smallBlock+1)
	write(t, w.B, "x/small/written", now)
	held(t, w.A, 16+17) // before anybody reads the new version
	e2e.Seen(t, "the new version in A", e2e.Shows(w.A, "small/written", now))
	wantBlocks(t, w.A, "small/written", smallBlock)
	held(t, w.A, 16+17+4)
	if _, err := w.A.S.Remove(t.Context(), freshet.RemoveQuery{Path: w.A.At("small/cold")}); err != nil {
		t.Fatal(err)
	}
	held(t, w.A, 16+4)
}

// manySmallBlocks reads a file of more blocks than one answer names.
func manySmallBlocks(t *testing.T, w *e2e.World) {
	long := e2e.Content("long", 1, 600*smallBlock+9)
	write(t, w.A, "small/long", long)
	wantBlocks(t, w.A, "small/long", smallBlock)
	free(t, w, "a read of many blocks", func() { read(t, w.A, "small/long", long) })
	if _, err := w.A.S.Remove(t.Context(), freshet.RemoveQuery{Path: w.A.At("small/long")}); err != nil {
		t.Fatal(err)
	}
	held(t, w.A, 16+4)
}

func smallBlocksChange(t *testing.T, w *e2e.World) {
	direct := e2e.Content("direct", 1, smallFile)
	w.A.CLI(t, "policy", "set", "/mnt/a/small", "--block-size", "100000").Want(t, 2, "a multiple of 64KiB up to 1GiB")
	w.A.CLI(t, "policy", "set", "/mnt/a/small", "--block-size", "1MiB").Want(t, 0, "1MiB")
	w.A.CLI(t, "policy", "show", "/mnt/a/small/direct").Want(t, 0, "1MiB")
	w.A.CLI(t, "sync", "now", "/mnt/a/small/direct").Want(t, 0)
	free(t, w, "a read after the policy changed", func() { read(t, w.A, "small/direct", direct) })
	wantBlocks(t, w.A, "small/direct", smallBlock)
	write(t, w.A, "small/direct", direct)
	wantBlocks(t, w.A, "small/direct", 1<<20)
	held(t, w.A, 4+1)
}
