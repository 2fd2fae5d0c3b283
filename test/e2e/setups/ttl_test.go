package setups_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

// TestTTLFreesWhatNobodyUses: facts and blocks go, and come again with the next read.
func TestTTLFreesWhatNobodyUses(t *testing.T) {
	s := example(t, "setup-freshet-only.yaml")
	w := s.world(t, true)
	s.apply(t, w.A)
	for _, name := range []string{"tmp/f", "other/f"} {
		write(t, w.A, name, "content of "+name)
		want(t, w.A, name, "content of "+name)
	}
	// Explain is no use of a file.
	has := func(name string, verdict string, blocks bool) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			x, err := w.A.S.Explain(ctx, w.A.At(name), false)
			if err == nil && (x.Verdict != verdict || (len(x.Blocks) > 0) != blocks) {
				err = fmt.Errorf("%s is %s with %d blocks", name, x.Verdict, len(x.Blocks))
			}
			return err
		}
	}
	for _, name := range []string{"tmp/f", "other/f"} {
		if err := fleet.Poll(t.Context(), e2e.Patience, "word of the blocks", has(name, "fresh", true)); err != nil {
			t.Fatal(err)
		}
	}
	w.A.CLI(t, "policy", "set", "/lake/tmp", "--ttl", "2s").Want(t, 0)
	if err := fleet.Poll(t.Context(), e2e.Patience, "the end of the ttl", has("tmp/f", "unknown", false)); err != nil {
		t.Fatal(err)
	}
	if err := has("other/f", "fresh", true)(t.Context()); err != nil {
		t.Error(err)
	}
	want(t, w.A, "tmp/f", "content of tmp/f")
}
