package namespace_test

import (
	"fmt"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// watchedStore calls during at every access of the one that applies, before its batch
// is committed, and committed right after the batch is, before Commit returns.
type watchedStore struct {
	kv.Store
	armed             atomic.Bool // only while one applies and nobody else reads
	during, committed func()
}

func (w *watchedStore) look() {
	if w.during != nil && w.armed.CompareAndSwap(true, false) {
		w.during()
		w.armed.Store(true)
	}
}

func (w *watchedStore) Get(key []byte) ([]byte, bool, error) {
	w.look()
	return w.Store.Get(key)
}

func (w *watchedStore) Scan(start, end []byte, fn func(key, value []byte) bool) error {
	w.look()
	return w.Store.Scan(start, end, fn)
}

func (w *watchedStore) NewBatch() kv.Batch { return &watchedBatch{w.Store.NewBatch(), w} }

type watchedBatch struct {
	kv.Batch
	w *watchedStore
}

func (b *watchedBatch) Set(key, value []byte) error {
	b.w.look()
	return b.Batch.Set(key, value)
}

func (b *watchedBatch) Delete(key []byte) error {
	b.w.look()
	return b.Batch.Delete(key)
}

func (b *watchedBatch) Commit() error {
	b.w.armed.Store(false) // from here on readers wait
	err := b.Batch.Commit()
	if b.w.committed != nil {
		b.w.committed()
	}
	return err
}

// seen is what readers see of a state.
type seen struct {
	lookups  []namespace.Lookup
	children [][]namespace.Child
	live     []bool
	stats    namespace.Stats
	quotas   []namespace.QuotaStatus
	applied  uint64
}

func see(t *testing.T, s *namespace.State) seen {
	t.Helper()
	var all seen
	for _, p := range []freshet.Path{"/m", "/m/big", "/m/big/f00", "/m/big/f07", "/m/big/sub", "/m/big/sub/x", "/m/elsewhere/g", "/m/gone/a/b"} {
		l, err := s.Lookup(p)
		if err != nil {
			t.Errorf("lookup %s: %v", p, err)
		}
		all.lookups = append(all.lookups, l)
		children, err := s.List(p, "", 0)
		if err != nil {
			t.Errorf("list %s: %v", p, err)
		}
		all.children = append(all.children, children)
	}
	ids := make([]freshet.FileID, 40)
	for i := range ids {
		ids[i] = freshet.FileID(1<<40 + i)
	}
	all.live, all.stats, all.applied = s.FileLive(ids), s.Stats(), s.Applied()
	all.stats = namespace.Stats{Entries: all.stats.Entries, Trash: all.stats.Trash}
	var err error
	if all.quotas, err = s.Quotas(); err != nil {
		t.Error(err)
	}
	return all
}

// TestReadersGoOnWhileASyncIsApplied holds up the one that applies at every access of
// the store until somebody else has read the state, who has to see it as it was before.
func TestReadersGoOnWhileASyncIsApplied(t *testing.T) {
	w := &watchedStore{Store: newMemory()}
	c := &cluster{t: t, s: open(t, w)}
	c.found(mountOf("/m", "/"))
	c.must(namespace.Command{SetQuota: &namespace.SetQuota{Path: "/m/big", MaxEntries: 1000, At: epochTime}})
	m, _ := c.s.MountAt("/m")
	files := func(content int, more ...*namespace.Entry) (all []namespace.Entry) {
		for i := range 10 {
			e := fileEntry(fmt.Sprintf("f%02d", i), content+i)
			e.Owner = fmt.Sprint("owner", content+i)
			all = append(all, *e)
		}
		for _, e := range more {
			all = append(all, *e)
		}
		return all
	}
	list := func(dir freshet.Path, removes []string, entries ...namespace.Entry) namespace.Command {
		return namespace.Command{LoadListing: &namespace.LoadListing{
			Mount: m.ID, Generation: m.Generation, Dir: dir, Start: c.i, ListStart: c.i, Complete: true, Upserts: entries, Removes: removes,
		}}
	}
	stat := func(p freshet.Path, e *namespace.Entry) namespace.Command {
		return namespace.Command{LoadEntry: &namespace.LoadEntry{Mount: m.ID, Generation: m.Generation, Path: p, Start: c.i, Entry: e}}
	}
	one := func(cmds ...namespace.Command) func() []namespace.Command {
		return func() []namespace.Command { return cmds }
	}
	steps := []struct {
		name string
		cmds func() []namespace.Command
	}{
		{"elsewhere", func() []namespace.Command {
			return []namespace.Command{list("/m/elsewhere", nil, *fileEntry("g", 1)), stat("/m/big", dirEntry("big"))}
		}},
		{"first listing", func() []namespace.Command {
			return []namespace.Command{list("/m/big", nil, files(1, dirEntry("sub"))...), list("/m/big/sub", nil, *fileEntry("x", 50))}
		}},
		{"listing of what changed", func() []namespace.Command { return []namespace.Command{list("/m/big", nil, files(100)...)} }},
		{"mark of what is not held", one(namespace.Command{Mark: &namespace.Mark{Path: "/m/gone/a/b", Recursive: true}})},
		{"removals", func() []namespace.Command {
			return []namespace.Command{list("/m/big", []string{"f07", "sub"}), stat("/m/big/f00", nil)}
		}},
		{"purge", one(namespace.Command{Purge: &namespace.Purge{}})},
		{"mark of a tree", one(namespace.Command{Mark: &namespace.Mark{Path: "/m/big", Recursive: true}})},
	}
	for _, step := range steps {
		cmds, before := step.cmds(), see(t, c.s)
		times, blocked := 0, false
		w.during = func() {
			if blocked {
				return
			}
			var got seen
			done := make(chan struct{})
			go func() {
				defer close(done)
				got = see(t, c.s)
			}()
			select {
			case <-done:
				if times++; !reflect.DeepEqual(got, before) {
					t.Errorf("%s: readers see a part of it:\n%+v\nbefore it:\n%+v", step.name, got, before)
				}
			case <-time.After(time.Minute):
				blocked = true
				t.Errorf("%s: readers have to wait until it is applied", step.name)
			}
		}
		w.armed.Store(true)
		results := c.batch(cmds...)
		w.armed.Store(false)
		for i, r := range results {
			if r.Err != nil || len(r.Rejected) > 0 {
				t.Errorf("%s: command %d: %+v", step.name, i, r)
			}
		}
		if after := see(t, c.s); times == 0 || reflect.DeepEqual(after, before) {
			t.Errorf("%s: somebody has read %d times meanwhile, and seen afterwards: %+v", step.name, times, after)
		}
	}
}

// TestReadersSeeWholeEntriesOfASync reads files that every log entry replaces by those
// of its index.
func TestReadersSeeWholeEntriesOfASync(t *testing.T) {
	for name, bytes := range map[string]int64{"cached": 64 << 10, "not cached": 1} {
		t.Run(name, func(t *testing.T) { readersSeeWholeEntries(t, bytes) })
	}
}

func readersSeeWholeEntries(t *testing.T, cacheBytes int64) {
	t.Helper()
	yield := func() {
		for range 20 {
			runtime.Gosched()
		}
	}
	s, err := namespace.Open(&watchedStore{Store: newMemory(), committed: yield}, namespace.Options{CacheBytes: cacheBytes})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, s: s}
	c.found(mountOf("/m", "/"))
	const files = 12
	load := func() {
		entries := make([]*namespace.Entry, files)
		for i := range entries {
			entries[i] = fileEntry(fmt.Sprintf("f%02d", i), int(c.i)+1)
		}
		if r := c.listAt("/m", c.i, nil, entries...); len(r.Rejected) > 0 {
			t.Fatalf("%+v", r)
		}
	}
	load()
	done := make(chan struct{})
	var wg sync.WaitGroup
	for r := range 3 {
		wg.Go(func() {
			last := uint64(0)
			for i := r; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				runtime.Gosched() // or one processor would be its own for long
				l, err := c.s.Lookup(freshet.Path(fmt.Sprintf("/m/f%02d", i%files)))
				if err != nil || uint64(l.Info.Length) != l.Applied || l.Applied < last {
					t.Errorf("after %d the state of %d has a file of %d, %v", last, l.Applied, l.Info.Length, err)
					return
				}
				last = l.Applied
				children, err := c.s.List("/m", "", 0)
				if err != nil || len(children) != files {
					t.Errorf("%d files, %v", len(children), err)
					return
				}
				for i := range children {
					if n := children[i].Info.Length; n != children[0].Info.Length || uint64(n) < last {
						t.Errorf("after %d a listing has files of %d and %d", last, children[0].Info.Length, n)
						return
					}
				}
			}
		})
	}
	for range 100 {
		load()
		for i := range files {
			if l := c.look(freshet.Path(fmt.Sprintf("/m/f%02d", i))); uint64(l.Info.Length) != c.i {
				t.Fatalf("after %d file %d is still that of %d", c.i, i, l.Info.Length)
			}
		}
		yield()
	}
	close(done)
	wg.Wait()
}
