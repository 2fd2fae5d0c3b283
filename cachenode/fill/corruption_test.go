package fill_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/store"
	"github.com/freshet-io/freshet/cachenode/tier"
)

const corruptions = 1000

// TestAThousandCorruptions damages files of the cache in every way that a disk or an
// operator may, each time reads the whole file, and wants the right bytes, the
// damage noticed, and the block fetched again.
func TestAThousandCorruptions(t *testing.T) {
	t.Parallel()
	const files = 4
	ssd, hdd := t.TempDir(), t.TempDir()
	b := newBed(t, settings{tiers: []store.Tier{
		{Kind: store.SSD, Dirs: []store.Dir{{Path: ssd, Capacity: 1 << 20}}},
		{Kind: store.HDD, Dirs: []store.Dir{{Path: hdd, Capacity: 8 << 20}}},
	}})
	damaged := 0
	b.blocks.Observe(func(c tier.Change) {
		switch {
		case c.Added:
		case c.Reason == tier.ReasonCorrupt:
			damaged++ // one reader at a time
		case c.Reason != tier.ReasonCapacity:
			t.Errorf("unexpected: %+v", c)
		}
	})
	rnd := rand.New(rand.NewPCG(11, 12))
	data := make([][]byte, files)
	reqs := make([]freshet.BlockRead, files)
	for i := range files {
		data[i] = make([]byte, tier.ChunkSize+1+rnd.IntN(20_000))
		for k := range data[i] {
			data[i][k] = byte(1 + rnd.IntN(255)) // no zeros, so that zeroing changes something
		}
		reqs[i] = b.put(fmt.Sprintf("f%d", i), data[i], freshet.FileID(i+1))
		b.readUntilCached(t, reqs[i], data[i])
	}
	kinds := map[string]int{}
	for n := 0; n < corruptions; {
		kind, victims := damage(t, rnd, ssd, hdd)
		kinds[kind]++
		n += victims
		before := damaged
		for i, req := range reqs {
			got, _, err := b.read(req)
			if err != nil || !bytes.Equal(got, data[i]) {
				t.Fatalf("corruption %d (%s): file %d: %d bytes, %v", n, kind, i, len(got), err)
			}
			b.readUntilCached(t, req, data[i])
		}
		if damaged != before+victims {
			t.Fatalf("corruption %d (%s): %d of %d damaged blocks were noticed", n, kind, damaged-before, victims)
		}
	}
	if len(kinds) != len(ways()) {
		t.Errorf("only these were tried: %v", kinds)
	}
	kept, err := filepath.Glob(filepath.Join(hdd, "quarantine", "*"))
	check(t, err)
	if len(kept) == 0 || len(kept) > 8 {
		t.Errorf("%d damaged files were set aside", len(kept))
	}
}

// readUntilCached reads a file until its block is cached. One read may not be enough:
// it may get its bytes from the fetch before, which has not quite ended.
func (b *bed) readUntilCached(t *testing.T, req freshet.BlockRead, want []byte) {
	t.Helper()
	for {
		got, _, err := b.read(req)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if _, ok := b.blocks.Stat(req.Block.ID); ok {
			return
		}
	}
}

// ways are the ways in which a block's file can be damaged.
func ways() []string {
	return []string{"flip", "truncate", "extend", "zero", "swap", "replace", "delete"}
}

// damage damages one file of the cache, or two by swapping them, and returns how and
// how many.
func damage(t *testing.T, rnd *rand.Rand, dirs ...string) (way string, victims int) {
	t.Helper()
	var names []string
	for _, dir := range dirs {
		check(t, filepath.WalkDir(filepath.Join(dir, "blocks"), func(name string, de fs.DirEntry, err error) error {
			if err == nil && de.Type().IsRegular() {
				names = append(names, name)
			}
			return err
		}))
	}
	k := rnd.IntN(len(names))
	name, other := names[k], names[(k+1)%len(names)]
	b, err := os.ReadFile(name)
	check(t, err)
	at := rnd.IntN(len(b))
	way, victims = ways()[rnd.IntN(len(ways()))], 1
	switch way {
	case "flip":
		b[at] ^= 1 << rnd.IntN(8)
	case "truncate":
		b = b[:at]
	case "extend":
		b = append(b, make([]byte, 1+rnd.IntN(5000))...)
	case "zero":
		at = 4096 + rnd.IntN(len(b)-4096-16) // of the bytes; the header is zeros for the most part
		clear(b[at:min(len(b), at+1+rnd.IntN(100_000))])
	case "swap":
		check(t, os.Rename(name, name+".x"))
		check(t, os.Rename(other, name))
		check(t, os.Rename(name+".x", other))
		return way, 2
	case "replace":
		_, _ = rand.NewChaCha8([32]byte{byte(at), byte(at >> 8)}).Read(b)
	case "delete":
		check(t, os.Remove(name))
		return way, 1
	}
	if rnd.IntN(2) == 0 { // as another file
		check(t, os.Remove(name))
	}
	check(t, os.WriteFile(name, b, 0o600))
	return way, victims
}
