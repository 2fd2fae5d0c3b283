package region_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/test/e2e"
)

func TestCostAtTheStorage(t *testing.T) {
	w := e2e.NewS3World(t, e2e.Options{Lone: true, Coordinators: 1})
	for _, c := range []struct {
		name string
		test func(t *testing.T, w *e2e.World)
	}{
		{"nothing changes, nothing is asked", hotIsFree},
		{"unrelated changes cost nothing", unrelatedIsFree},
		{"a range costs its blocks", rangeCostsItsBlocks},
		{"an unchanged file keeps its blocks over a sync", syncKeepsBlocks},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, w) })
	}
}

func write(t *testing.T, r *e2e.Region, name string, data []byte) freshet.Completed {
	t.Helper()
	done, err := r.Write(t.Context(), name, data)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func read(t *testing.T, r *e2e.Region, name string, want []byte) {
	t.Helper()
	got, _, err := r.Read(t.Context(), name, client.Whole())
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%s: %d bytes, want %d, %v", name, len(got), len(want), err)
	}
}

// free fails if f makes any request to the storage.
func free(t *testing.T, w *e2e.World, what string, f func()) {
	t.Helper()
	w.S3.ResetCounts()
	f()
	if n := w.S3.Counts(); n.Total != 0 {
		t.Errorf("%s made %d requests: %v\n%+v", what, n.Total, n.ByOp, w.S3.Requests())
	}
}

// hotIsFree reads everything in every way, once to warm up and then for nothing.
func hotIsFree(t *testing.T, w *e2e.World) {
	const files = 10
	for i := range files {
		write(t, w.A, fmt.Sprintf("hot/f%d", i), e2e.Content("hot", uint64(i), 20_000))
	}
	if err := w.Storage.Put(t.Context(), "x/hot/outside", []byte("put there by somebody else")); err != nil {
		t.Fatal(err)
	}
	all := func() {
		for i := range files {
			read(t, w.A, fmt.Sprintf("hot/f%d", i), e2e.Content("hot", uint64(i), 20_000))
			if _, err := w.A.S.Stat(t.Context(), w.A.At(fmt.Sprintf("hot/f%d", i)), freshet.ReadOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		read(t, w.A, "hot/outside", []byte("put there by somebody else"))
		page, err := w.A.S.List(t.Context(), freshet.ListQuery{Path: w.A.At("hot")})
		if err != nil || len(page.Entries) != files+1 {
			t.Fatalf("%d entries, %v", len(page.Entries), err)
		}
		_, err = w.A.S.Stat(t.Context(), w.A.At("hot/nothing"), freshet.ReadOptions{})
		if !freshet.IsKind(err, freshet.KindNotExist) {
			t.Fatal(err)
		}
	}
	all()
	free(t, w, "hot reads, stats and lists", func() {
		for range 5 {
			all()
		}
	})
}

func unrelatedIsFree(t *testing.T, w *e2e.World) {
	data := e2e.Content("unrelated", 1, 30_000)
	write(t, w.A, "un/related", data)
	read(t, w.A, "un/related", data)
	for i := range 3 {
		write(t, w.A, fmt.Sprintf("other/f%d", i), []byte("x"))
		write(t, w.A, fmt.Sprintf("un/sibling%d", i), []byte("x"))
		free(t, w, "a read after unrelated changes", func() {
			read(t, w.A, "un/related", data)
			if _, err := w.A.S.Stat(t.Context(), w.A.At("un/related"), freshet.ReadOptions{}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// rangeCostsItsBlocks reads a few bytes of cold files.
func rangeCostsItsBlocks(t *testing.T, w *e2e.World) {
	const size, block = 40 << 20, 1 << 20
	data := e2e.Content("cold", 1, size)
	_, err := w.A.S.Files.Write(t.Context(), w.A.At("cold"), bytes.NewReader(data),
		client.WriteOptions{Length: size, Write: freshet.Through, BlockSize: block})
	if err != nil {
		t.Fatal(err)
	}
	// Ranges within one block, across two, and the last bytes.
	cached := int64(0)
	for _, c := range []struct{ off, n, blocks int64 }{
		{5*block + 4096, 4096, 1}, {11*block - 4096, 8192, 2}, {size - 4096, 4096, 1},
	} {
		w.S3.ResetCounts()
		got, _, err := w.A.Read(t.Context(), "cold", client.ReadOptions{Offset: c.off, Length: c.n})
		if err != nil || !bytes.Equal(got, data[c.off:c.off+c.n]) {
			t.Fatalf("at %d: %d bytes, %v", c.off, len(got), err)
		}
		cached += c.blocks * block
		e2e.AwaitCached(t, w.A, "cold", cached)
		counts := w.S3.Counts()
		if out := int64(counts.BytesOut["GetObject"]); out > c.blocks*block || out < c.n {
			t.Errorf("%d bytes at %d cost %d bytes of the storage, more than %d blocks: %v", c.n, c.off, out, c.blocks, counts)
		}
		if n := int64(counts.ByOp["GetObject"]); n == 0 || n > c.blocks {
			t.Errorf("%d requests for %d blocks", n, c.blocks)
		}
		free(t, w, "the same range again", func() {
			got, _, err := w.A.Read(t.Context(), "cold", client.ReadOptions{Offset: c.off, Length: c.n})
			if err != nil || !bytes.Equal(got, data[c.off:c.off+c.n]) {
				t.Fatal(err)
			}
		})
	}
	// A file that Freshet did not write has blocks of the default size.
	big := e2e.Content("big", 1, freshet.DefaultBlockSize+(16<<20))
	if err := w.Storage.Put(t.Context(), "x/outside", big); err != nil {
		t.Fatal(err)
	}
	w.S3.ResetCounts()
	off := int64(freshet.DefaultBlockSize + 4096)
	got, _, err := w.A.Read(t.Context(), "outside", client.ReadOptions{Offset: off, Length: 4096})
	if err != nil || !bytes.Equal(got, big[off:off+4096]) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if out := w.S3.Counts().BytesOut["GetObject"]; out > 4096+(16<<20) {
		t.Errorf("a few bytes of the second block cost %d bytes", out)
	}
	e2e.AwaitCached(t, w.A, "outside", 16<<20) // in the background, and nobody else's requests
}

func syncKeepsBlocks(t *testing.T, w *e2e.World) {
	data := e2e.Content("kept", 1, 300_000)
	write(t, w.A, "sy/kept", data)
	read(t, w.A, "sy/kept", data)
	w.S3.ResetCounts()
	always := freshet.Always
	got, _, err := w.A.Read(t.Context(), "sy/kept", client.ReadOptions{ReadOptions: freshet.ReadOptions{SyncInterval: &always}, Length: -1})
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	n := w.S3.Counts()
	if n.ByOp["GetObject"] != 0 || n.Total == 0 || n.Total > 2 {
		t.Errorf("a sync of an unchanged file: %v\n%+v", n.ByOp, w.S3.Requests())
	}
}
