package scale_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/fingerprint"
)

// perDir is the number of files of an ordinary directory, and of a page of a load.
const perDir = 1000

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// tree is what the storage has: one directory of many objects as S3 describes them,
// and directories of perDir files as local storage does. Content depends on the
// place alone, so that it can be checked without being kept.
type tree struct {
	big  int // files in the big directory
	dirs int
}

func treeOf(inodes int) tree {
	big := min(inodes/2, 1_000_000)
	return tree{big: big, dirs: (inodes - big) / perDir}
}

func (t tree) files() int { return t.big + t.dirs*perDir }

const bigDir freshet.Path = "/m/big"

func dirPath(d int) freshet.Path { return freshet.Path(fmt.Sprintf("/m/table-%05d", d)) }

func fileName(i int) string { return fmt.Sprintf("part-%07d.parquet", i) }

// bigEntry is file i of the big directory, dirEntry file i of directory d.
func bigEntry(i int) namespace.Entry {
	r := rand.New(rand.NewPCG(uint64(i), 1))
	size := int64(4096 + r.IntN(1<<28))
	return namespace.Entry{
		Name: fileName(i), Length: size, ModTime: epoch.Add(time.Duration(i) * time.Second),
		Fingerprint: fingerprint.S3(fmt.Sprintf("%016x%016x", r.Uint64(), r.Uint64()), size),
	}
}

func dirEntry(d, i int) namespace.Entry {
	n := d*perDir + i
	r := rand.New(rand.NewPCG(uint64(n), 2))
	mod := epoch.Add(time.Duration(r.Int64N(1e16)))
	e := namespace.Entry{Name: fileName(i), Length: int64(r.IntN(1 << 28)), ModTime: mod, Owner: "data", Group: "users", Mode: 0o644}
	e.Fingerprint = fingerprint.Local(fingerprint.LocalFile{
		Inode: uint64(10_000_000 + n), Size: e.Length, ModTime: mod, ChangeTime: mod.Add(time.Duration(r.IntN(3)) * time.Microsecond),
		Owner: e.Owner, Group: e.Group, Mode: e.Mode,
	})
	return e
}

// load has everything of the tree loaded as syncs do: page by page, the pages of one
// directory in order, several directories at once.
func (m *member) load(t tree) {
	m.t.Helper()
	mount, ok := m.state.MountAt("/m")
	if !ok {
		m.t.Fatal("there is no mount")
	}
	dirs := make(chan int)
	errs := make(chan error, 5)
	var wg sync.WaitGroup
	wg.Go(func() { errs <- m.loadDir(mount, bigDir, t.big, bigEntry) })
	for range 3 {
		wg.Go(func() {
			var err error
			for d := range dirs {
				if err == nil {
					err = m.loadDir(mount, dirPath(d), perDir, func(i int) namespace.Entry { return dirEntry(d, i) })
				}
			}
			errs <- err
		})
	}
	for d := range t.dirs {
		dirs <- d
	}
	close(dirs)
	wg.Wait()
	for range 4 {
		if err := <-errs; err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *member) loadDir(mount freshet.Mount, dir freshet.Path, files int, entry func(int) namespace.Entry) error {
	start := m.state.Applied()
	for from := 0; from < files; from += perDir {
		to := min(from+perDir, files)
		cmd := &namespace.LoadListing{
			Mount: mount.ID, Generation: mount.Generation, Dir: dir, Start: m.state.Applied(), ListStart: start,
			Upserts: make([]namespace.Entry, 0, to-from), Complete: to == files,
		}
		for i := from; i < to; i++ {
			cmd.Upserts = append(cmd.Upserts, entry(i))
		}
		r, err := m.propose(namespace.Command{LoadListing: cmd})
		if err != nil || len(r.Rejected) > 0 || r.Installed != cmd.Complete {
			return fmt.Errorf("%s from %d: %d rejected, installed %t: %w", dir, from, len(r.Rejected), r.Installed, err)
		}
	}
	return nil
}

// remove has a directory found gone.
func (m *member) remove(dir freshet.Path) {
	m.t.Helper()
	mount, _ := m.state.MountAt("/m")
	r := m.must(namespace.Command{LoadEntry: &namespace.LoadEntry{Mount: mount.ID, Generation: mount.Generation, Path: dir, Start: m.state.Applied()}})
	if !r.Installed {
		m.t.Fatalf("%s was not removed: %+v", dir, r)
	}
}

// purge frees what was removed, as the leader does.
func (m *member) purge() {
	m.t.Helper()
	for m.must(namespace.Command{Purge: &namespace.Purge{Limit: perDir}}).More {
	}
}

// check compares one entry with what the storage has; nil says that it has none.
func (m *member) check(path freshet.Path, want *namespace.Entry) {
	m.t.Helper()
	l, err := m.state.Lookup(path)
	if err != nil {
		m.t.Fatal(err)
	}
	if want == nil {
		if l.Found {
			m.t.Fatalf("%s is there: %+v", path, l.Info)
		}
		return
	}
	if !l.Found || l.Placeholder || !l.Servable(0) {
		m.t.Fatalf("%s: found %t, placeholder %t, %+v", path, l.Found, l.Placeholder, l.Freshness)
	}
	m.same(l.Info, path, want)
}

func (m *member) same(got freshet.Info, path freshet.Path, want *namespace.Entry) {
	m.t.Helper()
	have := namespace.Entry{
		Name: got.Path.Base(), Type: got.Type, Length: got.Length, ModTime: got.ModTime, Owner: got.Owner, Group: got.Group, Mode: got.Mode, Fingerprint: got.Fingerprint,
	}
	expected := *want
	expected.Type = freshet.TypeFile
	if got.Path != path || got.FileID == 0 || !reflect.DeepEqual(have, expected) {
		m.t.Fatalf("%s is\n%+v, want\n%+v", path, have, expected)
	}
}

// checkRandom looks n random entries up, half of them in the big directory, and
// names that are not there. It returns the time of each.
func (m *member) checkRandom(t tree, n int, seed uint64) time.Duration {
	m.t.Helper()
	r := rand.New(rand.NewPCG(seed, 3))
	begun := time.Now()
	for range n {
		i := r.IntN(t.big)
		e := bigEntry(i)
		m.check(bigDir.Join(e.Name), &e)
		d := r.IntN(t.dirs)
		e = dirEntry(d, i%perDir)
		m.check(dirPath(d).Join(e.Name), &e)
		m.check(dirPath(d).Join("absent-"+e.Name), nil)
	}
	return time.Since(begun) / time.Duration(3*n)
}

// checkListing lists the big directory page by page, each entry compared, and
// returns the largest live heap seen on the way.
func (m *member) checkListing(t tree) (heap int64) {
	m.t.Helper()
	after, seen := "", 0
	for {
		page, err := m.state.List(bigDir, after, perDir)
		if err != nil {
			m.t.Fatal(err)
		}
		for i := range page {
			e := bigEntry(seen)
			m.same(page[i].Info, bigDir.Join(e.Name), &e)
			seen++
		}
		if len(page) < perDir {
			break
		}
		after = page[len(page)-1].Name
		if seen%(20*perDir) == 0 {
			heap = max(heap, liveHeap())
		}
	}
	if seen != t.big {
		m.t.Fatalf("%d of %d entries were listed", seen, t.big)
	}
	return heap
}
