package setups_test

import (
	"bytes"
	"context"
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
	const whole = 16 << 20
	big := make([]byte, whole)
	put := func(name string) {
		t.Helper()
		opts := client.WriteOptions{Length: int64(len(big)), Write: freshet.ByPolicy}
		if _, err := w.A.S.Files.Write(t.Context(), w.A.At(name), bytes.NewReader(big), opts); err != nil {
			t.Fatal(err)
		}
	}
	// await waits until so many bytes of a file are cached.
	await := func(name string, bytes int64) {
		t.Helper()
		if err := w.A.S.AwaitCached(t.Context(), w.A.At(name), bytes, e2e.Patience); err != nil {
			t.Fatal(err)
		}
	}
	put("keep/f")
	put("go/f")
	await("keep/f", whole)
	await("go/f", whole)
	w.A.CLI(t, "policy", "set", "/lake/keep", "--pinned").Want(t, 0, "pinned", "true")
	// The node is told what is pinned in the answers to its heartbeats: a file of each
	// says that it has passed, and the third that the answer to the second was read.
	for _, name := range []string{"more/first", "more/second", "more/third"} {
		put(name)
		await(name, whole)
	}
	for i := range 24 {
		put(fmt.Sprintf("more/%d", i))
	}
	await("go/f", 0)
	await("keep/f", whole) // nobody reads it: what is gone does not come again
	// Pinned no more, it goes too, for files that are read again are worth more.
	w.A.CLI(t, "policy", "unset", "/lake/keep").Want(t, 0)
	i := 0
	err := fleet.Poll(t.Context(), e2e.Patience, "its eviction", func(context.Context) error {
		name := fmt.Sprintf("again/%d", i)
		put(name)
		for range 2 {
			if _, err := read(t.Context(), w.A, name); err != nil {
				return err
			}
		}
		i++
		st, err := w.A.S.Stat(t.Context(), w.A.At("keep/f"), freshet.ReadOptions{})
		if err == nil && st.CachedBytes > 0 {
			err = fmt.Errorf("%d bytes are cached after %d files", st.CachedBytes, i)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
