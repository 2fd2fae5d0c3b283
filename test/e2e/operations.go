package e2e

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
)

// Seen waits until a region, asked without any token or sync, shows what check
// wants, and returns the time it took.
func Seen(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	begun := time.Now()
	if err := fleet.Poll(t.Context(), Patience, what, check); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: seen after %s", what, time.Since(begun).Round(time.Millisecond))
}

// Operations does every kind of operation in one region and demands that the
// other sees it, whatever the storage below; at the end both must equal the
// storage. B's mount must be the root of the storage, A's its directory x.
func Operations(t *testing.T, w *World) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, w *World)
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

// Put writes a file or ends the test.
func Put(t *testing.T, r *Region, name string, data []byte) freshet.Completed {
	t.Helper()
	done, err := r.Write(t.Context(), name, data)
	if err != nil {
		t.Fatalf("write %s in %s: %v", name, r.Name, err)
	}
	return done
}

// Shows returns nil if the region's file has exactly these bytes.
func Shows(r *Region, name string, data []byte) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		got, _, err := r.Read(ctx, name, client.Whole())
		if err == nil && !bytes.Equal(got, data) {
			err = fmt.Errorf("%s has %.20q… (%d bytes), not %.20q… (%d)", name, got, len(got), data, len(data))
		}
		return err
	}
}

// AwaitCached waits until the region's nodes hold so many bytes of the file.
func AwaitCached(t testing.TB, r *Region, name string, size int64) {
	t.Helper()
	if err := r.S.AwaitCached(t.Context(), r.At(name), size, Patience); err != nil {
		t.Fatal(err)
	}
}

// Lacks returns nil if the region says that the path does not exist.
func Lacks(r *Region, name string) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		st, err := r.S.Stat(ctx, r.At(name), freshet.ReadOptions{})
		if freshet.IsKind(err, freshet.KindNotExist) {
			return nil
		}
		return fmt.Errorf("%s: %+v, %w", name, st.Info, err)
	}
}

func overwrites(t *testing.T, w *World) {
	// Known absent in B, so that the create must undo that.
	if err := Lacks(w.B, "x/dir/f")(t.Context()); err != nil {
		t.Fatal(err)
	}
	var etag string
	for v := range uint64(5) {
		data := Content("f", v, 10_000+int(v))
		done := Put(t, w.A, "dir/f", data)
		Seen(t, fmt.Sprintf("version %d in B", v), Shows(w.B, "x/dir/f", data))
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
	Seen(t, "B lists it", func(ctx context.Context) error {
		page, err := w.B.S.List(ctx, freshet.ListQuery{Path: w.B.At("x/dir")})
		if err == nil && (len(page.Entries) != 1 || page.Entries[0].Length != 10_004) {
			err = fmt.Errorf("listing: %+v", page.Entries)
		}
		return err
	})
}

func deletes(t *testing.T, w *World) {
	Put(t, w.A, "gone/a", []byte("a"))
	Put(t, w.A, "gone/b", []byte("b"))
	Seen(t, "a in B", Shows(w.B, "x/gone/a", []byte("a")))
	if _, err := w.A.S.Remove(t.Context(), freshet.RemoveQuery{Path: w.A.At("gone/a")}); err != nil {
		t.Fatal(err)
	}
	Seen(t, "a is gone in B", Lacks(w.B, "x/gone/a"))
	Seen(t, "b is not", Shows(w.B, "x/gone/b", []byte("b")))
}

func renamesFile(t *testing.T, w *World) {
	data := Content("r", 1, 200_000) // written in parts
	Put(t, w.A, "ren/from", data)
	Seen(t, "from in B", Shows(w.B, "x/ren/from", data))
	if err := Lacks(w.B, "x/ren/to")(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.A.S.Rename(t.Context(), freshet.RenameQuery{Path: w.A.At("ren/from"), Target: w.A.At("ren/to")}); err != nil {
		t.Fatal(err)
	}
	Seen(t, "to in B", Shows(w.B, "x/ren/to", data))
	Seen(t, "from is gone in B", Lacks(w.B, "x/ren/from"))
}

func renamesDirectory(t *testing.T, w *World) {
	for i := range 8 {
		Put(t, w.A, fmt.Sprintf("tree/d%d/f%d", i%3, i), Content("t", uint64(i), 5000))
	}
	if _, err := w.A.S.Mkdir(t.Context(), freshet.MkdirQuery{Path: w.A.At("tree/empty")}); err != nil {
		t.Fatal(err)
	}
	Seen(t, "the tree in B", func(ctx context.Context) error { return Count(ctx, w.B, "x/tree", 12) })
	if _, err := w.A.S.Rename(t.Context(), freshet.RenameQuery{Path: w.A.At("tree"), Target: w.A.At("moved")}); err != nil {
		t.Fatal(err)
	}
	Seen(t, "the tree at its new place in B", func(ctx context.Context) error { return Count(ctx, w.B, "x/moved", 12) })
	Seen(t, "the old place is gone in B", Lacks(w.B, "x/tree"))
	Seen(t, "a file of it", Shows(w.B, "x/moved/d1/f7", Content("t", 7, 5000)))
	if err := Lacks(w.B, "x/tree/d1/f7")(t.Context()); err != nil {
		t.Error(err)
	}
}

// Count returns nil if exactly n entries are below a directory.
func Count(ctx context.Context, r *Region, name string, n int) error {
	page, err := r.S.List(ctx, freshet.ListQuery{Path: r.At(name), Recursive: true})
	if err == nil && len(page.Entries) != n {
		err = fmt.Errorf("%d entries below %s, not %d", len(page.Entries), name, n)
	}
	return err
}

func removesTree(t *testing.T, w *World) {
	for i := range 6 {
		Put(t, w.A, fmt.Sprintf("rmtree/d%d/f", i), []byte("x"))
	}
	Seen(t, "the tree in B", func(ctx context.Context) error { return Count(ctx, w.B, "x/rmtree", 12) })
	_, err := w.A.S.Remove(t.Context(), freshet.RemoveQuery{Path: w.A.At("rmtree")})
	if !freshet.IsKind(err, freshet.KindConflict) {
		t.Errorf("removing what is not empty: %v", err)
	}
	if _, err := w.A.S.Remove(t.Context(), freshet.RemoveQuery{Path: w.A.At("rmtree"), Recursive: true}); err != nil {
		t.Fatal(err)
	}
	Seen(t, "the tree is gone in B", Lacks(w.B, "x/rmtree"))
	if err := Lacks(w.B, "x/rmtree/d3/f")(t.Context()); err != nil {
		t.Error(err)
	}
}

func mkdirs(t *testing.T, w *World) {
	if err := Lacks(w.B, "x/new/deep")(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.A.S.Mkdir(t.Context(), freshet.MkdirQuery{Path: w.A.At("new/deep"), Parents: true}); err != nil {
		t.Fatal(err)
	}
	Seen(t, "the directory in B", func(ctx context.Context) error {
		st, err := w.B.S.Stat(ctx, w.B.At("x/new/deep"), freshet.ReadOptions{})
		if err == nil && st.Info.Type != freshet.TypeDirectory {
			err = fmt.Errorf("it is a %s", st.Info.Type)
		}
		return err
	})
}

// A read that carries the token of a write needs no waiting by the caller.
func tokens(t *testing.T, w *World) {
	for v := range uint64(30) {
		data := Content("tok", v, 6000)
		done := Put(t, w.A, "tok", data)
		got, _, err := w.B.Read(t.Context(), "x/tok", After(done.Token))
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("round %d: %d bytes, %v", v, len(got), err)
		}
	}
}

func backwards(t *testing.T, w *World) {
	Put(t, w.A, "both", []byte("by A"))
	Seen(t, "in A", Shows(w.A, "both", []byte("by A")))
	Put(t, w.B, "x/both", []byte("by B"))
	Seen(t, "B's bytes in A", Shows(w.A, "both", []byte("by B")))
	Put(t, w.B, "outside", []byte("not below A's prefix"))
	Seen(t, "its own in B", Shows(w.B, "outside", []byte("not below A's prefix")))
	if err := Lacks(w.A, "outside")(t.Context()); err != nil {
		t.Error(err)
	}
}

// neverMixes overwrites a large file of many blocks, from either region in turn,
// while both read it.
func neverMixes(t *testing.T, w *World) {
	const size, block = 6 << 20, 256 << 10
	overwrite := func(r *Region, name string, version uint64) {
		t.Helper()
		data := Content("big", version, size+int(version%2))
		_, err := r.S.Files.Write(t.Context(), r.At(name), bytes.NewReader(data), client.WriteOptions{Length: int64(len(data)), BlockSize: block})
		if err != nil {
			t.Fatal(err)
		}
	}
	overwrite(w.A, "big", 1)
	Seen(t, "big in B", func(ctx context.Context) error { _, _, err := w.B.Read(ctx, "x/big", client.Whole()); return err })
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	readers := make(chan error, 2)
	type count struct{ whole, changed int }
	counts := make(chan count, 2)
	for _, r := range []struct {
		region *Region
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
					v, err = VersionOf("big", 0, data)
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
	Seen(t, "the last version in B", Shows(w.B, "x/big", Content("big", 16, size)))
	Seen(t, "the last version in A", Shows(w.A, "big", Content("big", 16, size)))
}

// comparison checks the judge of all these tests: it must see a difference that
// only a sync would find, and not sync by itself.
func comparison(t *testing.T, w *World) {
	w.Converged(t)
	for _, name := range []string{"x/judge", "x/dir/f"} { // new, and with other bytes
		if err := w.Storage.Put(t.Context(), name, []byte("behind everybody's back")); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []*Region{w.A, w.B} {
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
