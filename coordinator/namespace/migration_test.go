package namespace

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
)

// The tests here upgrade by two invented formats: 3 appends a byte to the name of
// each place in the table of files, few rows a step, and 4 does the same once more.
// A row that is left out or changed twice shows.

const stepRows = 3

func suffix(mark byte) func(b kv.Batch, k keys, from []byte) ([]byte, error) {
	return func(b kv.Batch, k keys, from []byte) ([]byte, error) {
		start, end := k.bounds(tableFile)
		if from != nil {
			start = append([]byte{k.gen}, from...)
		}
		var next []byte
		n := 0
		changed := map[string][]byte{}
		err := b.Scan(start, end, func(key, value []byte) bool {
			if n == stepRows {
				next = bytes.Clone(key[1:])
				return false
			}
			n++
			changed[string(key)] = append(bytes.Clone(value), mark)
			return true
		})
		for key, value := range changed {
			err = errors.Join(err, b.Set([]byte(key), value))
		}
		return next, err
	}
}

func laterFormats() formats {
	f := ownFormats()
	f.current = 4
	f.steps = append(f.steps, migration{to: 3, step: suffix('x')}, migration{to: 4, step: suffix('y')})
	return f
}

const testFiles = 20

func filled(t *testing.T, store kv.Store) *State {
	t.Helper()
	s, err := Open(store, Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := s.store.NewBatch()
	for i := range uint64(testFiles) {
		if err := b.Set(s.keys.u64(tableFile, i), place{7, fmt.Sprint(i)}.encode()); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	s.Apply(1, []Command{{Bootstrap: &Bootstrap{Cluster: freshet.ClusterID{1}, Name: "c", Epoch: 1}}})
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	return s
}

func wantUpgraded(t *testing.T, s *State) {
	t.Helper()
	for i := range uint64(testFiles) {
		b, ok, err := s.store.Get(s.keys.u64(tableFile, i))
		p, perr := decodePlace(b)
		if err != nil || perr != nil || !ok || p.name != fmt.Sprint(i)+"xy" {
			t.Fatalf("file %d is %q, %t, %v", i, p.name, ok, errors.Join(err, perr))
		}
	}
	l, err := readLayout(s.store)
	if err != nil || l.format != 4 {
		t.Fatalf("format %d, %v", l.format, err)
	}
	if _, ok, err := s.store.Get(keyProgress); ok || err != nil {
		t.Fatalf("the place of the migration was left behind: %v", err)
	}
	if s.Applied() != 1 || s.Identity().Name != "c" {
		t.Fatalf("%+v at %d", s.Identity(), s.Applied())
	}
}

// dying is a store whose process dies after a number of batches.
type dying struct {
	*kv.Memory
	left  int
	flush bool // each batch reaches the disk
}

var errDied = errors.New("the process died")

type dyingBatch struct {
	kv.Batch
	of *dying
}

func (d *dying) NewBatch() kv.Batch { return &dyingBatch{d.Memory.NewBatch(), d} }

func (b *dyingBatch) Commit() error {
	if b.of.left == 0 {
		return errDied
	}
	b.of.left--
	if err := b.Batch.Commit(); err != nil || !b.of.flush {
		return err
	}
	return b.of.Memory.Flush()
}

// TestUpgradeGoesOnAfterACrash ends the process after each number of batches, with
// everything so far on disk and with nothing of it.
func TestUpgradeGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	for _, flush := range []bool{true, false} {
		crashes := 0
		for after := 0; ; after++ {
			memory := kv.NewMemory()
			filled(t, memory)
			_, err := openFormats(&dying{memory, after, flush}, Options{}, laterFormats())
			if err == nil {
				break
			}
			if !errors.Is(err, errDied) || !freshet.IsKind(err, freshet.KindUnavailable) {
				t.Fatal(err)
			}
			crashes++
			memory = memory.Crash()
			s, err := openFormats(memory, Options{}, laterFormats())
			if err != nil {
				t.Fatal(err)
			}
			wantUpgraded(t, s)
		}
		if crashes < 2*testFiles/stepRows {
			t.Fatalf("only %d crashes: the steps are not bounded", crashes)
		}
	}
}

func TestRestoreUpgradesADump(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if _, err := filled(t, kv.NewMemory()).Dump(&b); err != nil {
		t.Fatal(err)
	}
	store := kv.NewMemory()
	s, err := openFormats(store, Options{}, laterFormats())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(&b); err != nil {
		t.Fatal(err)
	}
	wantUpgraded(t, s)
	again, err := openFormats(store.Crash(), Options{}, laterFormats())
	if err != nil {
		t.Fatal(err)
	}
	wantUpgraded(t, again)
}

func TestHeadOfADump(t *testing.T) {
	t.Parallel()
	for head, want := range map[string]int{
		"freshet-state-1\n": 1, dumpHead(Format): Format, "freshet-state-255\n": 255,
		"freshet-state-0\n": 0, "freshet-state-01\n": 0, "freshet-state-\n": 0, "freshet-state--1\n": 0, "freshet-state-1": 0, "freshet-state-1000\n": 0, "": 0,
	} {
		if got, ok := parseDumpHead([]byte(head)); ok != (want != 0) || (ok && got != want) {
			t.Errorf("%q: %d, %t", head, got, ok)
		}
	}
}
