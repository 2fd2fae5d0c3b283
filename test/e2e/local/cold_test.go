package local_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/rpc/local"
	"github.com/freshet-io/freshet/test/e2e"
	"github.com/freshet-io/freshet/test/s3test"
)

func newColdWorld(t *testing.T, tier string, nodes int) *e2e.World {
	t.Helper()
	if !local.Supported {
		t.Skip("this system has no local reads")
	}
	return e2e.NewS3World(t, e2e.Options{Coordinators: 1, Nodes: nodes, Lone: true, Sockets: true, Tier: tier})
}

// uncached makes a version of a file past Freshet, and has Freshet look at it.
func uncached(t *testing.T, w *e2e.World, name string, version uint64, size int) []byte {
	t.Helper()
	data := e2e.Content(name, version, size)
	if err := w.Storage.Put(t.Context(), w.A.Prefix+name, data); err != nil {
		t.Fatal(err)
	}
	if _, err := w.A.S.Stat(t.Context(), w.A.At(name), freshet.ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	w.S3.ResetCounts()
	return data
}

// TestColdBlocksAreReadWhileTheyAreFetched by many clients at once, by one request.
func TestColdBlocksAreReadWhileTheyAreFetched(t *testing.T) {
	for _, tier := range []string{"disk", "memory"} {
		t.Run(tier, func(t *testing.T) {
			w := newColdWorld(t, tier, 1)
			data := uncached(t, w, "f", 1, 6<<20)
			w.S3.AddFault(s3test.Rule{Op: "GetObject", Action: s3test.ActionHold, Times: 1})
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() {
					got, _, err := w.A.Read(t.Context(), "f", client.Whole())
					if err != nil || !bytes.Equal(got, data) {
						t.Errorf("reader %d: %d bytes, %v", i, len(got), err)
					}
				})
			}
			release(t, w, 1)
			wg.Wait()
			if n := w.S3.Counts().ByOp["GetObject"]; n != 1 {
				t.Errorf("%d requests", n)
			}
			if st := w.A.S.Local.Stats(); st.Drafts == 0 {
				t.Errorf("%+v", st)
			}
			e2e.AwaitCached(t, w.A, "f", int64(len(data)))
			if out := w.A.CLI(t, "fs", "cat", string(w.A.At("f"))).Want(t, 0); out.Out != string(data) {
				t.Errorf("what was cached: %d bytes", len(out.Out))
			}
			// A part of a longer block is answered at once, not by the whole of it.
			long := uncached(t, w, "long", 1, 40<<20)
			got, _, err := w.A.Read(t.Context(), "long", client.ReadOptions{Offset: 33 << 20, Length: 100})
			if err != nil || !bytes.Equal(got, long[33<<20:][:100]) {
				t.Errorf("a part: %d bytes, %v", len(got), err)
			}
		})
	}
}

// release lets requests go that the storage holds.
func release(t *testing.T, w *e2e.World, n int) {
	t.Helper()
	all := w.S3.WaitHeld(n, e2e.Patience)
	if len(all) < n {
		t.Fatalf("%d requests are held, not %d", len(all), n)
	}
	for _, h := range all {
		w.S3.Release(h.ID)
	}
}

// TestANodeIsKilledInTheMiddleOfAColdRead: what was read is right, and the rest comes
// from another node, of the same version, or the reader is told that there is another.
func TestANodeIsKilledInTheMiddleOfAColdRead(t *testing.T) {
	for _, tier := range []string{"disk", "memory"} {
		for _, changes := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, another version: %t", tier, changes), func(t *testing.T) { killInColdRead(t, tier, changes) })
		}
	}
}

func killInColdRead(t *testing.T, tier string, changes bool) {
	w := newColdWorld(t, tier, 2)
	data := uncached(t, w, "f", 1, 24<<20)
	// Each range breaks off half way, and the rest of it does not come.
	w.S3.AddFault(s3test.Rule{Op: "GetObject", Action: s3test.ActionShortBody, Times: 3}, s3test.Rule{Op: "GetObject", Action: s3test.ActionHold})
	r, err := w.A.S.Files.Open(t.Context(), w.A.At("f"), client.Whole())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, 1<<20) // of the first range
	if _, err := io.ReadFull(r, got); err != nil || w.A.S.Local.Stats().Drafts != 1 {
		t.Fatalf("%v, %+v", err, w.A.S.Local.Stats())
	}
	if held := w.S3.WaitHeld(1, e2e.Patience); len(held) == 0 {
		t.Fatal("all was fetched at once")
	}
	holder := slices.IndexFunc([]int{0, 1}, func(i int) bool { return drafts(t, w.A, i) > 0 })
	if holder < 0 {
		t.Fatal("no node counts the draft")
	}
	if err := w.A.Nodes[holder].Kill(); err != nil {
		t.Fatal(err)
	}
	if changes {
		if err := w.Storage.Put(t.Context(), w.A.Prefix+"f", e2e.Content("f", 2, 24<<20)); err != nil {
			t.Fatal(err)
		}
	}
	w.S3.ClearFaults()
	for _, h := range w.S3.WaitHeld(0, time.Millisecond) {
		w.S3.Release(h.ID)
	}
	rest, err := io.ReadAll(r)
	got = slices.Concat(got, rest)
	switch {
	case !bytes.Equal(got, data[:len(got)]):
		t.Errorf("other bytes among %d, %v", len(got), err)
	case changes && !freshet.IsKind(err, freshet.KindStale), !changes && (err != nil || len(got) != len(data)):
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
