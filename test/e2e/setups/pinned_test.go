package setups_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

// TestPinnedFilesOutliveAFullCache writes more than the cache of 256 MiB takes. The
// first two files are the first to go, but for the one that is pinned.
func TestPinnedFilesOutliveAFullCache(t *testing.T) {
	s := example(t, "setup-freshet-only.yaml")
	w := s.world(t, true)
	s.apply(t, w.A)
	big := make([]byte, 16<<20)
	put := func(name string) {
		t.Helper()
		opts := client.WriteOptions{Length: int64(len(big)), Write: freshet.ByPolicy}
		if _, err := w.A.S.Files.Write(t.Context(), w.A.At(name), bytes.NewReader(big), opts); err != nil {
			t.Fatal(err)
		}
	}
	cached := func(ctx context.Context, name string) int64 {
		st, err := w.A.S.Stat(ctx, w.A.At(name), freshet.ReadOptions{})
		if err != nil {
			t.Error(err)
		}
		return st.CachedBytes
	}
	await := func(what string, ok func(ctx context.Context) bool) {
		t.Helper()
		if err := fleet.Poll(t.Context(), e2e.Patience, what, func(ctx context.Context) error {
			if !ok(ctx) {
				return errors.New("not yet")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	put("keep/f")
	put("go/f")
	await("word of the blocks", func(ctx context.Context) bool { return cached(ctx, "keep/f") > 0 && cached(ctx, "go/f") > 0 })
	w.A.CLI(t, "policy", "set", "/lake/keep", "--pinned").Want(t, 0, "pinned", "true")
	// The node reads what it is told at its heartbeats: the third file says that two have passed.
	put("more/first")
	await("a heartbeat", func(ctx context.Context) bool { return cached(ctx, "more/first") > 0 })
	put("more/second")
	await("another", func(ctx context.Context) bool { return cached(ctx, "more/second") > 0 })
	for i := range 24 {
		put(fmt.Sprintf("more/%d", i))
	}
	await("the eviction of what is not pinned", func(ctx context.Context) bool { return cached(ctx, "go/f") == 0 })
	if n := cached(t.Context(), "keep/f"); n != int64(len(big)) {
		t.Errorf("%d bytes of the pinned file are cached", n)
	}
	// Pinned no more, it goes too, for files that are read again are worth more.
	w.A.CLI(t, "policy", "unset", "/lake/keep").Want(t, 0)
	i := 0
	await("its eviction", func(ctx context.Context) bool {
		name := fmt.Sprintf("again/%d", i)
		put(name)
		for range 2 {
			if _, err := read(ctx, w.A, name); err != nil {
				t.Error(err)
			}
		}
		i++
		return cached(ctx, "keep/f") == 0
	})
}
