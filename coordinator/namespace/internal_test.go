package namespace

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/fingerprint"
)

func sampleInodes() map[string]*inode {
	mod := time.Date(2026, 1, 2, 3, 4, 5, 6789, time.UTC)
	local := fingerprint.Local(fingerprint.LocalFile{Inode: 123456789, Size: 4096, ModTime: mod, ChangeTime: mod.Add(time.Second), Owner: "data", Group: "users", Mode: 0o644})
	same := fingerprint.Local(fingerprint.LocalFile{Inode: 1, Size: 4096, ModTime: mod, ChangeTime: mod})
	s3 := fingerprint.S3("0123456789abcdef0123456789abcdef", 4096)
	multi := fingerprint.S3("0123456789abcdef0123456789abcdef-12", 4096)
	file := func(fp fingerprint.Fingerprint) *inode {
		return &inode{
			loaded: true, length: 4096, mtime: mod.UnixNano(), content: fp.Content, change: fp.Change,
			attr: attr{owner: "data", group: "users", mode: 0o644, meta: fp.Meta}, file: 1<<40 | 77, validFrom: 1000,
		}
	}
	marked := file(s3)
	marked.self, marked.subtree, marked.blockSize = 2000, 3, 1<<20
	odd := file(fingerprint.Fingerprint{Content: "s3:4096:0123456789ABCDEF0123456789ABCDEF"})
	shifted := file(fingerprint.Fingerprint{Content: "local:007:4096:" + timeText(mod.UnixNano()), Change: "01.5"})
	negative := file(fingerprint.Fingerprint{Content: "local:7:4096:" + timeText(-1), Change: timeText(-1)})
	negative.mtime = -1
	return map[string]*inode{
		"local": file(local), "local, change time is modification time": file(same), "s3": file(s3), "s3 multipart": file(multi),
		"marked": marked, "upper case": odd, "not canonical": shifted, "before 1970": negative, "unknown": file(fingerprint.Fingerprint{}),
		"placeholder": {dir: true, id: 9, mtime: noTime},
		"directory": {
			dir: true, id: 1 << 30, loaded: true, mtime: mod.UnixNano(), validFrom: 5, self: 6, subtree: 7, children: 8, below: 9, missing: 10, complete: true, special: true, listFrom: 11,
			attr: attr{mode: 0o755, meta: "x"},
		},
	}
}

func TestInodeRoundTrip(t *testing.T) {
	for name, n := range sampleInodes() {
		t.Run(name, func(t *testing.T) {
			attrs := []attr{{owner: "other"}, n.attr}
			for _, id := range []uint32{0, 2} {
				b := appendInode(nil, n, id)
				got, err := decodeInode(b, attrs)
				if err != nil || !reflect.DeepEqual(got, n) {
					t.Fatalf("got %+v, %v; want %+v", got, err, n)
				}
				for i := range b {
					if got, err := decodeInode(b[:i], attrs); err == nil {
						t.Fatalf("the first %d of %d bytes were read as %+v", i, len(b), got)
					}
				}
			}
		})
	}
}

func TestInodeIsSmall(t *testing.T) {
	limits := map[string]int{"local": 48, "s3": 44, "placeholder": 12}
	for name, limit := range limits {
		if b := appendInode(nil, sampleInodes()[name], 1); len(b) > limit {
			t.Errorf("%s takes %d bytes, more than %d: %q", name, len(b), limit, b)
		}
	}
}

func FuzzDecodeInode(f *testing.F) {
	for _, n := range sampleInodes() {
		f.Add(appendInode(nil, n, 0))
		f.Add(appendInode(nil, n, 1))
	}
	attrs := []attr{{owner: "o", mode: 1, meta: "m"}}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := decodeInode(b, attrs)
		if err != nil {
			return
		}
		again, err := decodeInode(appendInode(nil, n, 0), attrs)
		if err != nil || !reflect.DeepEqual(again, n) {
			t.Fatalf("%+v became %+v, %v", n, again, err)
		}
	})
}

func TestMissingRingPushesOldMarksDown(t *testing.T) {
	s := &State{store: kv.NewMemory(), index: newIndex(), cache: newCache(1<<20, nil)}
	m := &mount{Mount: freshet.Mount{ID: 1, Path: "/m"}, root: rootPlace(1)}
	s.insertMount(m)
	tx := &txn{State: s, i: 7, b: s.store.NewBatch(), dirty: map[place]*inode{}}
	tx.put(m.root, &inode{dir: true, id: 1})
	tx.remember(mountKey{1, "gone"}, 7, false)
	c := tx.walk(m, "other")
	if got := tx.need(m, "other", &c); got != 0 {
		t.Fatalf("a mark of another path covers this one: %d", got)
	}
	for i := range maxMissing {
		tx.remember(mountKey{1, strings.Repeat("x", i%200+1) + string(rune('a'+i/200))}, 8, false)
	}
	s.missing.take(&tx.marks)
	tx.marks = ringChanges{}
	if len(s.missing.order) != maxMissing || len(s.missing.byKey) != maxMissing || s.missing.first != 2 {
		t.Fatalf("%d marks are remembered", len(s.missing.order))
	}
	c = tx.walk(m, "gone")
	if got := tx.need(m, "gone", &c); got != 7 {
		t.Fatalf("the oldest mark became %d, want 7", got)
	}
}

// TrashHeld returns how many directories of the trash a state holds in memory.
func TrashHeld(s *State) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.burial.dirs)
}

// commitStore calls committing when a batch is about to be committed.
type commitStore struct {
	kv.Store
	committing func()
}

func (c *commitStore) NewBatch() kv.Batch { return commitBatch{c.Store.NewBatch(), c} }

type commitBatch struct {
	kv.Batch
	c *commitStore
}

func (b commitBatch) Commit() error {
	b.c.committing()
	return b.Batch.Commit()
}

// TestNothingOldIsCachedFromTheCommitOn looks into the cache at the moment from which on
// the store may have what is new.
func TestNothingOldIsCachedFromTheCommitOn(t *testing.T) {
	store := &commitStore{Store: kv.NewMemory(), committing: func() {}}
	s, err := Open(store, Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := freshet.Mount{Path: "/m", URI: "mem://m", Domain: freshet.DomainID{1}, DomainKey: "/"}
	s.Apply(1, []Command{{Bootstrap: &Bootstrap{Cluster: freshet.ClusterID{1}, Name: "self", Mounts: []freshet.Mount{m}}}})
	load := func(i uint64) {
		c := &LoadEntry{Mount: 1, Generation: 1, Path: "/m/f", Start: i - 1, Entry: &Entry{Name: "f", Length: int64(i)}}
		if r, _ := s.Apply(i, []Command{{LoadEntry: c}}); len(r) != 1 || !r[0].Installed {
			t.Fatalf("%+v", r)
		}
	}
	load(2)
	root, err := s.inode(rootPlace(1))
	if err != nil {
		t.Fatal(err)
	}
	p, looked := place{root.id, "f"}, false
	cached := func() known { _, what := s.cache.get(p.hash(), p, nil); return what }
	if cached() != held {
		t.Fatal("the entry is not cached")
	}
	store.committing = func() {
		looked = true
		s.cache.fill(p.hash(), p, []byte("old"))
		if what := cached(); what != unknown {
			t.Errorf("the cache says %d of an entry that is about to change", what)
		}
	}
	load(3)
	if l, err := s.Lookup("/m/f"); err != nil || l.Info.Length != 3 || !looked || cached() != held {
		t.Errorf("%t, %d, %+v, %v", looked, cached(), l, err)
	}
}
