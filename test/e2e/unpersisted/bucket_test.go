package unpersisted_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/e2e"
)

// TestABucket: what is new and what replaces an object gets to a bucket, and the other
// region sees it then, also where it has read the version before.
func TestABucket(t *testing.T) {
	w := e2e.NewS3World(t, e2e.Options{Coordinators: 1, Nodes: 1})
	small, large := e2e.Content("small", 1, 10_000), e2e.Content("large", 1, 9<<20)
	before := e2e.Content("small", 0, 20_000)
	e2e.Put(t, w.A, "small", before)
	e2e.Seen(t, "the other region has the version before", e2e.Shows(w.B, "x/small", before))
	keep(t, w.A, "small", small, freshet.AsyncThrough)
	keep(t, w.A, "dir/large", large, freshet.AsyncThrough)
	e2e.Seen(t, "everything gets to the bucket", drained(t, w.A))
	for name, want := range map[string][]byte{"small": small, "dir/large": large} {
		e2e.Seen(t, name+" is in the bucket", func(ctx context.Context) error {
			tree, err := w.Storage.Tree(ctx, "x/")
			if err != nil {
				return err
			}
			if !bytes.Equal(tree[name].Data, want) {
				return fmt.Errorf("the bucket has %d bytes at %s", len(tree[name].Data), name)
			}
			return nil
		})
		e2e.Seen(t, "the other region has "+name, e2e.Shows(w.B, "x/"+name, want))
		e2e.Seen(t, "its own region has "+name, e2e.Shows(w.A, name, want))
	}
}
