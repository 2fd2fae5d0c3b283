package journal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

func bigRegister(n int) *register {
	r := &register{applied: 99}
	for range n {
		r.values = append(r.values, rand.Uint64())
	}
	return r
}

func TestDumpRoundTrip(t *testing.T) {
	t.Parallel()
	id := uuid.New()
	for _, n := range []int{0, 1, 40_000, 100_000} { // around and above the size of a chunk
		r, copied := bigRegister(n), &register{}
		dump := dumpOf(r, id)
		info, err := journal.ReadDump(bytes.NewReader(dump), id, copied.Restore)
		if err != nil || info.Applied != 99 || info.Cluster != id || info.Bytes != int64(8+8*n) {
			t.Errorf("%d values: %+v, %v", n, info, err)
		}
		if copied.hash() != r.hash() {
			t.Errorf("%d values: the copy differs", n)
		}
	}
}

func TestDamagedDumpsAreRefused(t *testing.T) {
	t.Parallel()
	id := uuid.New()
	whole := dumpOf(bigRegister(40), id)
	check := func(b []byte, what string, at int, want freshet.Kind) {
		t.Helper()
		if _, err := journal.CheckDump(bytes.NewReader(b), id); !freshet.IsKind(err, want) {
			t.Errorf("%s at %d: %v, want %v", what, at, err, want)
		}
	}
	for at := range whole {
		check(whole[:at], "cut", at, freshet.KindCorrupt)
		b := slices.Clone(whole)
		b[at] ^= 1 << (at % 8)
		want := freshet.KindCorrupt
		switch {
		case at >= 8 && at < 12:
			want = freshet.KindUnsupported
		case at >= 12 && at < 28:
			want = freshet.KindConflict
		}
		check(b, "flip", at, want)
	}
	check(append(slices.Clone(whole), 0), "tail", len(whole), freshet.KindCorrupt)
	newer := slices.Clone(whole)
	binary.BigEndian.PutUint32(newer[8:], 3)
	check(newer, "newer version", 0, freshet.KindUnsupported)
	if _, err := journal.CheckDump(bytes.NewReader(whole), freshet.ClusterID{}); err != nil {
		t.Errorf("a member without a cluster: %v", err)
	}
}

func TestDumpReportsWhatRestoreSays(t *testing.T) {
	t.Parallel()
	full := errors.New("the disk is full")
	_, err := journal.ReadDump(bytes.NewReader(dumpOf(bigRegister(10), uuid.New())), freshet.ClusterID{}, func(io.Reader) error { return full })
	if !errors.Is(err, full) || freshet.IsKind(err, freshet.KindCorrupt) {
		t.Errorf("%v", err)
	}
}

func FuzzReadDump(f *testing.F) {
	f.Add(dumpOf(bigRegister(3), uuid.New()))
	f.Add([]byte("FRSHDUMP\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &register{}
		info, err := journal.ReadDump(bytes.NewReader(b), freshet.ClusterID{}, r.Restore)
		if err != nil {
			return
		}
		// What is accepted is exactly what would be written, up to the size of chunks.
		if info.Bytes != int64(8+8*len(r.values)) {
			t.Errorf("%d bytes, %d values", info.Bytes, len(r.values))
		}
	})
}

func FuzzDecodeEntry(f *testing.F) {
	one, err := namespace.EncodeBatch([]namespace.Command{put(1), put(2)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(journal.EncodeEntry(one))
	f.Add(journal.EncodeEntry(one, one))
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := journal.DecodeEntry(b); err != nil && !freshet.IsKind(err, freshet.KindCorrupt, freshet.KindUnsupported) {
			t.Errorf("%v is not KindCorrupt", err)
		}
	})
}

func TestEntryKeepsOrder(t *testing.T) {
	t.Parallel()
	var parts [][]byte
	for i := range uint64(5) {
		b, err := namespace.EncodeBatch([]namespace.Command{put(2*i + 1), put(2*i + 2)})
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, b)
	}
	cmds, err := journal.DecodeEntry(journal.EncodeEntry(parts...))
	if err != nil || len(cmds) != 10 {
		t.Fatalf("%d commands, %v", len(cmds), err)
	}
	for i, c := range cmds {
		if c.ForgetOps.Index != uint64(i+1) {
			t.Errorf("command %d is %d", i, c.ForgetOps.Index)
		}
	}
}

func FuzzCheckBolt(f *testing.F) {
	path := filepath.Join(f.TempDir(), "log")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: 1024})
	if err != nil {
		f.Fatal(err)
	}
	if err := db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("logs"))
		for i := range 40 {
			err = errors.Join(err, b.Put([]byte{byte(i)}, bytes.Repeat([]byte{1}, 60)))
		}
		return err
	}); err != nil {
		f.Fatal(err)
	}
	if err := db.Close(); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	if err := journal.CheckBolt(whole); err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Fuzz(func(_ *testing.T, b []byte) { _ = journal.CheckBolt(b) }) // must not panic or hang
}
