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
		e2e.Seen(t, name+" is in the bucket", inBucket(w, name, want))
		e2e.Seen(t, "the other region has "+name, e2e.Shows(w.B, "x/"+name, want))
		e2e.Seen(t, "its own region has "+name, e2e.Shows(w.A, name, want))
	}
}

// inBucket is nil if the bucket holds these very bytes.
func inBucket(w *e2e.World, name string, want []byte) func(context.Context) error {
	return func(ctx context.Context) error {
		tree, err := w.Storage.Tree(ctx, "x/")
		if err == nil && !bytes.Equal(tree[name].Data, want) {
			err = fmt.Errorf("the bucket has %d other bytes at %s", len(tree[name].Data), name)
		}
		return err
	}
}

// TestADirectoryOfABucketMoves with a file that is newer than what the bucket has of it: the
// bucket copies that, under another ETag, and the newer version is written over the copy.
func TestADirectoryOfABucketMoves(t *testing.T) {
	w := e2e.NewS3World(t, e2e.Options{Coordinators: 1, Nodes: 1})
	older, newer := e2e.Content("f", 1, 9<<20), e2e.Content("f", 2, 10_000)
	keep(t, w.A, "d/s/f", older, freshet.CacheThrough)
	keep(t, w.A, "d/s/f", newer, freshet.MustCache)
	ran := w.A.CLI(t, "fs", "mv", string(w.A.At("d")), string(w.A.At("e")))
	if ran.Code != 0 {
		t.Fatalf("mv: exit code %d: %s", ran.Code, ran.Err)
	}
	e2e.Seen(t, "the copy is in the bucket", inBucket(w, "e/s/f", older))
	if ran := w.A.CLI(t, "persist", "--wait", string(w.A.At("e/s/f"))); ran.Code != 0 {
		t.Fatalf("persist: exit code %d: %s", ran.Code, ran.Err)
	}
	e2e.Seen(t, "the newer version is in the bucket", inBucket(w, "e/s/f", newer))
	e2e.Seen(t, "the other region has it", e2e.Shows(w.B, "x/e/s/f", newer))
}
