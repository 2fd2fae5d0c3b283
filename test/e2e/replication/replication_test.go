package replication_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// seen waits until a region, asked without any token or sync, shows what check
// wants, and returns the time it took.
func seen(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	begun := time.Now()
	if err := fleet.Poll(t.Context(), e2e.Patience, what, check); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: seen after %s", what, time.Since(begun).Round(time.Millisecond))
}

func TestOperationsInOneRegionAreSeenInTheOther(t *testing.T) {
	w := e2e.NewS3World(t, e2e.Options{})
	for _, c := range []struct {
		name string
		test func(t *testing.T, w *e2e.World)
	}{
		{"create and overwrite", overwrites},
		{"delete", deletes},
		{"rename a file", renamesFile},
		{"rename a directory", renamesDirectory},
		{"recursive delete", removesTree},
		{"mkdir", mkdirs},
		{"token", tokens},
		{"back from B to A", backwards},
		{"large files never mix versions", neverMixes},
		{"the comparison asks for no sync", comparison},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, w) })
	}
	w.Converged(t)
}

func put(t *testing.T, r *e2e.Region, name string, data []byte) freshet.Completed {
	t.Helper()
	done, err := r.Write(t.Context(), name, data)
	if err != nil {
		t.Fatalf("write %s in %s: %v", name, r.Name, err)
	}
	return done
}

// shows returns nil if the region's file has exactly these bytes.
func shows(r *e2e.Region, name string, data []byte) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		got, _, err := r.Read(ctx, name, client.Whole())
		if err == nil && !bytes.Equal(got, data) {
			err = fmt.Errorf("%s has %.20q… (%d bytes), not %.20q… (%d)", name, got, len(got), data, len(data))
		}
		return err
	}
}

// lacks returns nil if the region says that the path does not exist.
func lacks(r *e2e.Region, name string) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		st, err := r.S.Stat(ctx, r.At(name), freshet.ReadOptions{})
		if freshet.IsKind(err, freshet.KindNotExist) {
			return nil
		}
		return fmt.Errorf("%s: %+v, %w", name, st.Info, err)
	}
}

func overwrites(t *testing.T, w *e2e.World) {
	// Known absent in B, so that the create must undo that.
	if err := lacks(w.B, "x/dir/f")(t.Context()); err != nil {
		t.Fatal(err)
	}
	var etag string
	for v := range uint64(5) {
		data := e2e.Content("f", v, 10_000+int(v))
		done := put(t, w.A, "dir/f", data)
		seen(t, fmt.Sprintf("version %d in B", v), shows(w.B, "x/dir/f", data))
		st, err := w.B.S.Stat(t.Context(), w.B.At("x/dir/f"), freshet.ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		inB := st.Info.Fingerprint.ETag()
		if inA := done.Info.Fingerprint.ETag(); inA != inB || inB == "" || inB == etag {
			t.Errorf("ETag in A %s, in B %s, of the version before %s", inA, inB, etag)
		}
		etag = inB
	}
	seen(t, "B lists it", func(ctx context.Context) error {
		page, err := w.B.S.List(ctx, freshet.ListQuery{Path: w.B.At("x/dir")})
		if err == nil && (len(page.Entries) != 1 || page.Entries[0].Length != 10_004) {
			err = fmt.Errorf("listing: %+v", page.Entries)
		}
		return err
	})
}

func deletes(t *testing.T, w *e2e.World) {
	put(t, w.A, "gone/a", []byte("a"))
	put(t, w.A, "gone/b", []byte("b"))
	seen(t, "a in B", shows(w.B, "x/gone/a", []byte("a")))
	if _, err := w.A.S.Remove(t.Context(), freshet.RemoveQuery{Path: w.A.At("gone/a")}); err != nil {
		t.Fatal(err)
	}
	seen(t, "a is gone in B", lacks(w.B, "x/gone/a"))
	seen(t, "b is not", shows(w.B, "x/gone/b", []byte("b")))
}

func renamesFile(t *testing.T, w *e2e.World) {
	data := e2e.Content("r", 1, 200_000) // written in parts
	put(t, w.A, "ren/from", data)
	seen(t, "from in B", shows(w.B, "x/ren/from", data))
	if err := lacks(w.B, "x/ren/to")(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.A.S.Rename(t.Context(), freshet.RenameQuery{Path: w.A.At("ren/from"), Target: w.A.At("ren/to")}); err != nil {
		t.Fatal(err)
	}
	seen(t, "to in B", shows(w.B, "x/ren/to", data))
	seen(t, "from is gone in B", lacks(w.B, "x/ren/from"))
}

func renamesDirectory(t *testing.T, w *e2e.World) {
	for i := range 8 {
		put(t, w.A, fmt.Sprintf("tree/d%d/f%d", i%3, i), e2e.Content("t", uint64(i), 5000))
	}
	if _, err := w.A.S.Mkdir(t.Context(), freshet.MkdirQuery{Path: w.A.At("tree/empty")}); err != nil {
		t.Fatal(err)
	}
	seen(t, "the tree in B", func(ctx context.Context) error { return count(ctx, w.B, "x/tree", 12) })
	if _, err := w.A.S.Rename(t.Context(), freshet.RenameQuery{Path: w.A.At("tree"), Target: w.A.At("moved")}); err != nil {
		t.Fatal(err)
	}
	seen(t, "the tree at its new place in B", func(ctx context.Context) error { return count(ctx, w.B, "x/moved", 12) })
	seen(t, "the old place is gone in B", lacks(w.B, "x/tree"))
	seen(t, "a file of it", shows(w.B, "x/moved/d1/f7", e2e.Content("t", 7, 5000)))
	if err := lacks(w.B, "x/tree/d1/f7")(t.Context()); err != nil {
		t.Error(err)
	}
}

// count returns nil if exactly n entries are below a directory.
func count(ctx context.Context, r *e2e.Region, name string, n int) error {
	page, err := r.S.List(ctx, freshet.ListQuery{Path: r.At(name), Recursive: true})
	if err == nil && len(page.Entries) != n {
		err = fmt.Errorf("%d entries below %s, not %d", len(page.Entries), name, n)
	}
	return err
}

func removesTree(t *testing.T, w *e2e.World) {
	for i := range 6 {
		put(t, w.A, fmt.Sprintf("rmtree/d%d/f", i), []byte("x"))
	}
	seen(t, "the tree in B", func(ctx context.Context) error { return count(ctx, w.B, "x/rmtree", 12) })
	_, err := w.A.S.Remove(t.Context(), freshet.RemoveQuery{Path: w.A.At("rmtree")})
	if !freshet.IsKind(err, freshet.KindConflict) {
		t.Errorf("removing what is not empty: %v", err)
	}
	if _, err := w.A.S.Remove(t.Context(), freshet.RemoveQuery{Path: w.A.At("rmtree"), Recursive: true}); err != nil {
		t.Fatal(err)
	}
	seen(t, "the tree is gone in B", lacks(w.B, "x/rmtree"))
	if err := lacks(w.B, "x/rmtree/d3/f")(t.Context()); err != nil {
		t.Error(err)
	}
}

func mkdirs(t *testing.T, w *e2e.World) {
	if err := lacks(w.B, "x/new/deep")(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.A.S.Mkdir(t.Context(), freshet.MkdirQuery{Path: w.A.At("new/deep"), Parents: true}); err != nil {
		t.Fatal(err)
	}
	seen(t, "the directory in B", func(ctx context.Context) error {
		st, err := w.B.S.Stat(ctx, w.B.At("x/new/deep"), freshet.ReadOptions{})
		if err == nil && st.Info.Type != freshet.TypeDirectory {
			err = fmt.Errorf("it is a %s", st.Info.Type)
		}
		return err
	})
}

// A read that carries the token of a write needs no waiting by the caller.
func tokens(t *testing.T, w *e2e.World) {
	for v := range uint64(30) {
		data := e2e.Content("tok", v, 6000)
		done := put(t, w.A, "tok", data)
		got, _, err := w.B.Read(t.Context(), "x/tok", e2e.After(done.Token))
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("round %d: %d bytes, %v", v, len(got), err)
		}
	}
}

func backwards(t *testing.T, w *e2e.World) {
	put(t, w.A, "both", []byte("by A"))
	seen(t, "in A", shows(w.A, "both", []byte("by A")))
	put(t, w.B, "x/both", []byte("by B"))
	seen(t, "B's bytes in A", shows(w.A, "both", []byte("by B")))
	put(t, w.B, "outside", []byte("not below A's prefix"))
	seen(t, "its own in B", shows(w.B, "outside", []byte("not below A's prefix")))
	if err := lacks(w.A, "outside")(t.Context()); err != nil {
		t.Error(err)
	}
}

// neverMixes overwrites a large file of many blocks, from either region in turn,
// while both read it.
func neverMixes(t *testing.T, w *e2e.World) {
	const size, block = 6 << 20, 256 << 10
	overwrite := func(r *e2e.Region, name string, version uint64) {
		t.Helper()
		data := e2e.Content("big", version, size+int(version%2))
		_, err := r.S.Files.Write(t.Context(), r.At(name), bytes.NewReader(data), client.WriteOptions{Length: int64(len(data)), BlockSize: block})
		if err != nil {
			t.Fatal(err)
		}
	}
	overwrite(w.A, "big", 1)
	seen(t, "big in B", func(ctx context.Context) error { _, _, err := w.B.Read(ctx, "x/big", client.Whole()); return err })
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	readers := make(chan error, 2)
	type count struct{ whole, changed int }
	counts := make(chan count, 2)
	for _, r := range []struct {
		region *e2e.Region
		name   string
	}{{w.A, "big"}, {w.B, "x/big"}} {
		go func() {
			var n count
			newest := uint64(0)
			for ctx.Err() == nil {
				data, _, err := r.region.Read(t.Context(), r.name, client.Whole())
				if freshet.IsKind(err, freshet.KindStale) {
					n.changed++ // said so rather than mixing
					continue
				}
				var v uint64
				if err == nil && len(data)%size > 1 {
					err = fmt.Errorf("%d bytes", len(data))
				}
				if err == nil {
					v, err = e2e.VersionOf("big", 0, data)
				}
				if err == nil && v < newest {
					err = fmt.Errorf("version %d after version %d", v, newest)
				}
				if err != nil {
					readers <- fmt.Errorf("%s: %w", r.region.Name, err)
					return
				}
				newest = v
				n.whole++
			}
			counts <- n
			readers <- nil
		}()
	}
	for v := uint64(2); v <= 16; v++ {
		if v%4 == 3 {
			overwrite(w.B, "x/big", v)
		} else {
			overwrite(w.A, "big", v)
		}
	}
	stop()
	for range 2 {
		if err := <-readers; err != nil {
			t.Fatal(err)
		}
		t.Logf("reads: %+v", <-counts)
	}
	seen(t, "the last version in B", shows(w.B, "x/big", e2e.Content("big", 16, size)))
	seen(t, "the last version in A", shows(w.A, "big", e2e.Content("big", 16, size)))
}

// comparison checks the judge of all these tests: it must see a difference that
// only a sync would find, and not sync by itself.
func comparison(t *testing.T, w *e2e.World) {
	w.Converged(t)
	for _, name := range []string{"x/judge", "x/dir/f"} { // new, and with other bytes
		if err := w.Storage.Put(t.Context(), name, []byte("behind everybody's back")); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []*e2e.Region{w.A, w.B} {
		err := r.EqualsStorage(t.Context())
		if err == nil || !strings.Contains(err.Error(), "judge") || !strings.Contains(err.Error(), "dir/f") {
			t.Errorf("the difference is not seen in %s: %v", r.Name, err)
		}
		if err := r.S.Sync(t.Context(), r.Root, true, func(freshet.SyncProgress) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if err := r.EqualsStorage(t.Context()); err != nil {
			t.Errorf("after a sync: %v", err)
		}
	}
}
