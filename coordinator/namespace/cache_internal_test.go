package namespace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-io/freshet/fingerprint"
)

// cacheProbe is a cache with a model of what it may say, and a count of its blocks.
type cacheProbe struct {
	*cache
	t     testing.TB
	limit int64
	taken int64
	model map[place][]byte // nil: not held
}

func newCacheProbe(t testing.TB, limit int64) *cacheProbe {
	t.Helper()
	p := &cacheProbe{t: t, limit: limit, model: map[place][]byte{}}
	p.cache = newCache(limit, func(n int) ([]byte, error) {
		p.taken += int64(n)
		return bytes.Repeat([]byte{0xAA}, n), nil // memory need not be zero
	})
	return p
}

func (c *cacheProbe) put(p place, row []byte) {
	c.t.Helper()
	c.cache.put(p.hash(), p, row)
	c.model[p] = row
	c.bounded()
}

// look checks what the cache says of p and reports whether it knows p.
func (c *cacheProbe) look(p place) bool {
	c.t.Helper()
	row, what := c.get(p.hash(), p, []byte("before"))
	want, put := c.model[p]
	switch {
	case what == unknown:
	case !put || (what == held) != (want != nil):
		c.t.Fatalf("%d/%.20q: the cache says %d, put was %t %x", p.parent, p.name, what, put, want)
	case what == held && string(row) != "before"+string(want):
		c.t.Fatalf("%d/%.20q: got %x, want %x", p.parent, p.name, row, want)
	}
	return what != unknown
}

func (c *cacheProbe) bounded() {
	c.t.Helper()
	if size := c.stats().bytes; size > c.limit || c.taken > size {
		c.t.Fatalf("the cache takes %d bytes, %d of them blocks; it may take %d", size, c.taken, c.limit)
	}
}

func TestCacheIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	c := newCacheProbe(t, 1<<20)
	hot, row := place{1, "hot"}, bytes.Repeat([]byte("x"), 50)
	c.put(hot, []byte("42"))
	for i := range 50_000 {
		c.put(place{uint64(i), "some-name"}, row)
		if !c.look(hot) {
			t.Fatalf("the entry in use was forgotten after %d others", i)
		}
	}
	st := c.stats()
	if st.bytes < 1<<20*9/10 || st.entries < 9_000 || st.hits != 50_000 || st.misses != 0 {
		t.Fatalf("%+v", st)
	}
	c.put(hot, nil)
	if !c.look(hot) {
		t.Fatal("that a name is not held was not kept")
	}
	c.clear()
	if st := c.stats(); st.entries != 0 || c.look(hot) || c.stats().misses != 1 {
		t.Fatalf("%+v after clear", st)
	}
	c.put(hot, row)
	if !c.look(hot) {
		t.Fatal("nothing is cached after clear")
	}
}

// TestCacheKeepsNothingOfAChange has readers fill the cache before, while and after rows
// change in the store.
func TestCacheKeepsNothingOfAChange(t *testing.T) {
	c := newCacheProbe(t, 1<<20)
	for i := range 4 { // the padding is beside the flag
		p, old, now := place{1, fmt.Sprint("name", i)}, bytes.Repeat([]byte("o"), 40+i), bytes.Repeat([]byte("n"), 40+i)
		c.put(p, old)
		c.begin()
		if !c.look(p) {
			t.Fatal("what is not hidden was not found")
		}
		c.hide(p.hash(), p)
		for range 2 {
			if c.look(p) {
				t.Fatal("a hidden row was found")
			}
			c.fill(p.hash(), p, old)
		}
		other := place{2, p.name}
		if c.fill(other.hash(), other, old); c.look(other) {
			t.Fatal("a row was kept that may be about to change")
		}
		c.put(p, now)
		c.end()
		if !c.look(p) {
			t.Fatal("a row that was put after it was hidden was not found")
		}
		c.fill(other.hash(), other, now)
		if c.model[other] = now; !c.look(other) {
			t.Fatal("nothing is filled after the end of a change")
		}
	}
}

// TestCacheEqualsAMap compares a random history with a map: the cache may forget,
// but what it says is what was put last.
func TestCacheEqualsAMap(t *testing.T) {
	sizes := map[string]func(*rand.Rand) int{
		"of files":      func(r *rand.Rand) int { return 30 + r.IntN(40) },
		"tiny":          func(r *rand.Rand) int { return r.IntN(4) },
		"large":         func(r *rand.Rand) int { return 2_000 + r.IntN(10_000) },
		"mixed":         func(r *rand.Rand) int { return 1 << r.IntN(15) },
		"more than fit": func(r *rand.Rand) int { return 1 << (10 + r.IntN(9)) },
	}
	noise := make([]byte, 300<<10)
	for i := range noise {
		noise[i] = byte(i * i >> 7)
	}
	for name, size := range sizes {
		for _, limit := range []int64{0, 10 << 10, 64 << 10, 1 << 20, 3 << 20} {
			t.Run(fmt.Sprintf("%s/%d", name, limit), func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(uint64(limit), 7))
				c := newCacheProbe(t, max(limit, 10<<10))
				hits := 0
				for range 8_000 {
					p := place{uint64(r.IntN(3)) << r.IntN(64), strings.Repeat("n", r.IntN(300)/(1+r.IntN(50))) + fmt.Sprint(r.IntN(300))}
					switch n := r.IntN(100); {
					case n < 40:
						c.put(p, noise[n*7:n*7+size(r)])
					case n < 45:
						c.put(p, nil)
					case n < 50:
						c.drop(p.hash(), p)
						if c.look(p) {
							t.Fatal("what was dropped is cached")
						}
						delete(c.model, p)
					case n == 99 && r.IntN(200) == 0:
						c.clear()
						clear(c.model)
					default:
						if c.look(p) {
							hits++
						}
					}
				}
				if hits == 0 && limit >= 1<<20 && name != "more than fit" {
					t.Fatal("nothing was ever found")
				}
				checkShards(t, c.cache)
			})
		}
	}
}

// checkShards compares index and ring: each live row once, under its own hash.
func checkShards(t *testing.T, c *cache) {
	t.Helper()
	for i := range c.shards {
		s := &c.shards[i]
		rows := 0
		for pos := s.tail; pos < s.head; {
			at := pos % uint64(s.size)
			row := s.row(at)
			pos += uint64(len(row))
			if row[2]&rowDead != 0 {
				continue
			}
			rows++
			parent, name, _ := cutRow(row)
			if _, found, ok := s.find(hashKey(parent, name), place{parent, string(name)}); !ok || found != at {
				t.Fatalf("the row at %d is not in the index", at)
			}
		}
		inUse := len(s.index.slots) - len(slices.DeleteFunc(slices.Clone(s.index.slots), func(v uint64) bool { return v != 0 }))
		if rows != s.index.used || inUse != rows {
			t.Fatalf("%d live rows, %d slots in use, %d counted", rows, inUse, s.index.used)
		}
	}
}

// TestCacheSurvivesEqualHashes: names that were chosen to collide are cached up to
// a bound, and cost no more than that bound.
func TestCacheSurvivesEqualHashes(t *testing.T) {
	c := newCacheProbe(t, 1<<20)
	s := &c.shards[0]
	const hash = 0xFFFF_FFFF_FFFF_FF00 // the last home, so that probes go around the end
	for i := range 1_000 {
		p := place{7, fmt.Sprint(i)}
		s.put(hash, p, []byte(p.name))
		row, what := s.get(hash, p, nil)
		if (what == held) != (i < maxProbes) || (what == held && string(row) != p.name) {
			t.Fatalf("%d: %d %q", i, what, row)
		}
	}
	if s.index.used != maxProbes {
		t.Fatalf("%d rows of one hash", s.index.used)
	}
	for i := range maxProbes {
		p := place{7, fmt.Sprint(i)}
		slot, _, ok := s.find(hash, p)
		if !ok {
			t.Fatalf("%d was lost", i)
		}
		s.index.remove(slot)
	}
	if i := slices.IndexFunc(s.index.slots, func(v uint64) bool { return v != 0 }); i >= 0 || s.index.used != 0 {
		t.Fatalf("slot %d is still in use", i)
	}
}

func TestCacheWithoutMemoryStaysSmall(t *testing.T) {
	for _, blocks := range []int{0, 1, 5} {
		left := blocks
		c := newCache(1<<20, func(n int) ([]byte, error) {
			if left == 0 {
				return nil, errors.New("no memory")
			}
			left--
			return make([]byte, n), nil
		})
		missed := 0
		for round := range 3 {
			for i := range 20_000 {
				p := place{1, fmt.Sprint(i)}
				row := []byte(fmt.Sprint(i, round))
				c.put(p.hash(), p, row)
				switch got, what := c.get(p.hash(), p, nil); {
				case what == unknown:
					missed++
				case !bytes.Equal(got, row):
					t.Fatalf("%d blocks: %d %q, want %q", blocks, what, got, row)
				}
			}
		}
		if (blocks == 0) != (missed == 60_000) || (blocks > 0 && missed > 10) { // one when memory ended, and the rarest of probes
			t.Errorf("%d blocks: %d rows were not cached", blocks, missed)
		}
	}
}

// TestCacheShowsWholeRows has readers and a writer of the same few names, which are
// forgotten and put again all the time.
func TestCacheShowsWholeRows(t *testing.T) {
	c := newCache(64<<10, nil)
	name := func(i int) place { return place{uint64(i), "name"} }
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, 2))
			for {
				select {
				case <-stop:
					return
				default:
				}
				i := r.IntN(500)
				row, what := c.get(name(i).hash(), name(i), nil)
				if what == held && (len(row) < 8 || int(row[0]) != i%251 || !bytes.Equal(row, bytes.Repeat(row[:1], len(row)))) {
					t.Errorf("%d: a torn row %x", i, row)
					return
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 100_000 {
		i := r.IntN(500)
		c.put(name(i).hash(), name(i), bytes.Repeat([]byte{byte(i % 251)}, 8+r.IntN(200)))
	}
	close(stop)
	wg.Wait()
}

// FuzzCache drives a small cache by the bytes of its input.
func FuzzCache(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07"))
	f.Add(bytes.Repeat([]byte{0x13, 0xF0, 0x7F}, 500))
	f.Fuzz(func(t *testing.T, in []byte) {
		in = in[:min(len(in), 3_000)]
		c := newCacheProbe(t, 24<<10)
		for ; len(in) >= 3; in = in[3:] {
			p := place{uint64(in[0] & 3), strings.Repeat("a", int(in[1])) + string(in[1:2])}
			switch in[0] >> 6 {
			case 0:
				c.look(p)
			case 1:
				c.put(p, nil)
			default:
				c.put(p, bytes.Repeat(in[:1], int(binary.LittleEndian.Uint16(in[1:]))%3000))
			}
		}
		checkShards(t, c.cache)
	})
}

func TestHashSpreadsNames(t *testing.T) {
	const n, buckets = 1 << 16, 1 << 12
	families := map[string]func(i int) place{
		"one directory":    func(i int) place { return place{7, fmt.Sprintf("part-%05d.parquet", i)} },
		"many directories": func(i int) place { return place{uint64(i), "_SUCCESS"} },
		"short":            func(i int) place { return place{1, fmt.Sprintf("%x", i)} },
		"long": func(i int) place {
			return place{1, strings.Repeat("x", 40) + fmt.Sprintf("%08d", i) + strings.Repeat("y", i%9)}
		},
	}
	for name, family := range families {
		var high, low [buckets]int
		for i := range n {
			h := family(i).hash()
			high[h>>52]++
			low[h%buckets]++
		}
		for _, counts := range [][buckets]int{high, low} {
			// 16 are expected in each; with even chances one of 4,096 has 45 once in a million.
			if most := slices.Max(counts[:]); most > 45 {
				t.Errorf("%s: %d of %d names in one of %d buckets", name, most, n, buckets)
			}
		}
	}
}

func TestFrontCacheKeepsDirectoriesOnly(t *testing.T) {
	c := newFrontCache(1 << 20)
	dir, p := &inode{dir: true, id: 5}, place{1, "d"}
	h := p.hash()
	c.put(h, p, dir)
	if c.get(h, p) != dir || c.get(h, place{2, "d"}) != nil {
		t.Fatal("a directory was not kept")
	}
	for name, n := range map[string]*inode{
		"removed": nil, "a file now": {}, "too large": {dir: true, content: strings.Repeat("x", hotTexts)},
	} {
		c.put(h, p, dir)
		c.put(h, place{9, "other"}, n)
		if c.get(h, p) != dir {
			t.Errorf("%s: something else was forgotten", name)
		}
		if c.put(h, p, n); c.get(h, p) != nil {
			t.Errorf("%s: what was kept is outdated", name)
		}
	}
	c.put(h, p, dir)
	if c.clear(); c.get(h, p) != nil {
		t.Error("kept after clear")
	}
}

// TestCachedInodeIsSmall measures the heap that a full cache takes, index and all,
// per entry with a name of 20 bytes.
func TestCachedInodeIsSmall(t *testing.T) {
	const most = 120
	mod := time.Date(2026, 1, 2, 3, 4, 5, 6789, time.UTC)
	kinds := map[string]func(i int) *inode{
		"local": func(i int) *inode {
			at := mod.Add(time.Duration(i) * 1234567)
			fp := fingerprint.Local(fingerprint.LocalFile{Inode: uint64(10_000_000 + i), Size: int64(i), ModTime: at, ChangeTime: at.Add(time.Duration(i % 7))})
			return &inode{loaded: true, length: int64(i), mtime: at.UnixNano(), content: fp.Content, change: fp.Change, file: 1<<40 | 77, validFrom: uint64(i)}
		},
		"s3": func(i int) *inode {
			fp := fingerprint.S3(fmt.Sprintf("%032x", i), int64(i))
			return &inode{loaded: true, length: int64(i), mtime: mod.Unix() * 1e9, content: fp.Content, file: 1<<40 | 77, validFrom: uint64(i)}
		},
	}
	for name, kind := range kinds {
		for _, n := range []int{60_000, 200_000} { // half full, and twice what fits
			before := liveHeap()
			c := newCache(8<<20, nil)
			var row []byte
			for i := range n {
				p := place{uint64(1_000_000 + i/1000), fmt.Sprintf("part-%07d.parquet", i)}
				row = appendInode(row[:0], kind(i), 1)
				c.put(p.hash(), p, row)
			}
			took := liveHeap() - before
			st := c.stats()
			each := float64(took) / float64(st.entries)
			t.Logf("%s: %d entries of %d, %d bytes of heap (%d by stats), %.1f for each", name, st.entries, n, took, st.bytes, each)
			if took > 8<<20+64<<10 || each > most {
				t.Errorf("%s: %d entries take %d bytes, %.1f each; at most %d", name, st.entries, took, each, most)
			}
			runtime.KeepAlive(c)
		}
	}
}

func liveHeap() int64 {
	runtime.GC()
	runtime.GC() // what pools keep is gone after the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func BenchmarkCacheHit(b *testing.B) {
	c := newCache(64<<20, nil)
	places := make([]place, 100_000)
	row := make([]byte, 48)
	for i := range places {
		places[i] = place{uint64(i / 1000), fmt.Sprintf("part-%07d.parquet", i)}
		c.put(places[i].hash(), places[i], row)
	}
	var buf [256]byte
	i := 0
	for b.Loop() {
		p := places[i*7919%len(places)]
		i++
		if _, what := c.get(p.hash(), p, buf[:0]); what != held {
			b.Fatal(what)
		}
	}
}

func BenchmarkDecodeInode(b *testing.B) {
	for name, n := range sampleInodes() {
		b.Run(name, func(b *testing.B) {
			row := appendInode(nil, n, 1)
			attrs := []attr{n.attr}
			b.ReportAllocs()
			var into inode
			for b.Loop() {
				if err := into.decode(row, attrs); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
