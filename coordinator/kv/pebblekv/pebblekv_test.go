package pebblekv_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/kv/kvtest"
	"github.com/freshet-io/freshet/coordinator/kv/pebblekv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestPebbleConforms uses tables so small that a crash falls between flushes
// that pebble makes on its own.
func TestPebbleConforms(t *testing.T) {
	crashed := map[kv.Store]*vfs.MemFS{}
	open := func(t *testing.T, fs *vfs.MemFS) kv.Store {
		t.Helper()
		s, err := pebblekv.Open("state", pebblekv.Options{FS: fs, CacheBytes: 1 << 20, MemTableBytes: 128 << 10})
		if err != nil {
			t.Fatal(err)
		}
		crashed[s] = fs
		return s
	}
	kvtest.Run(t, kvtest.Maker{
		New: func(t *testing.T) kv.Store { t.Helper(); return open(t, vfs.NewCrashableMem()) },
		Crash: func(t *testing.T, s kv.Store) kv.Store {
			t.Helper()
			fs := crashed[s].CrashClone(vfs.CrashCloneCfg{})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, fs)
		},
	})
}

func TestPebbleOnDiskReopens(t *testing.T) {
	dir := t.TempDir()
	s, err := pebblekv.Open(dir, pebblekv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	if err := b.Set([]byte("k"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if m := s.Metrics(); m.Flushes == 0 || m.DiskBytes == 0 {
		t.Fatalf("%+v", m)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = pebblekv.Open(dir, pebblekv.Options{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if v, ok, err := s.Get([]byte("k")); string(v) != "v" || !ok || err != nil {
		t.Fatalf("%q, %t, %v", v, ok, err)
	}
}
