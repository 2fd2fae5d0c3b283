package kv_test

import (
	"errors"
	"testing"

	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/kv/kvtest"
)

func TestMemoryConforms(t *testing.T) {
	kvtest.Run(t, kvtest.Maker{
		New: func(*testing.T) kv.Store { return kv.NewMemory() },
		Crash: func(t *testing.T, s kv.Store) kv.Store {
			t.Helper()
			m, ok := s.(*kv.Memory)
			if !ok {
				t.Fatalf("%T", s)
			}
			return m.Crash()
		},
	})
}

func TestMemoryHasOneWriter(t *testing.T) {
	s := kv.NewMemory()
	a, b := s.NewBatch(), s.NewBatch()
	if err := errors.Join(a.Set([]byte("a"), nil), b.Set([]byte("b"), nil), a.Commit()); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); !errors.Is(err, kv.ErrConflict) {
		t.Fatalf("a batch that did not see another was committed: %v", err)
	}
}
