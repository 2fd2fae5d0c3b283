package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv/pebblekv"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/fingerprint"
)

// inodes measures what a million entries of a local storage cost a coordinator:
// on disk, in its cache, and in the time of a restart.
func (b *bench) inodes(ctx context.Context) error {
	dir := filepath.Join(b.dir, "inodes")
	disk, err := b.fill(ctx, dir)
	if err != nil {
		return err
	}
	begun := time.Now()
	// A small block cache, for it is on the heap that is measured.
	store, err := pebblekv.Open(dir, pebblekv.Options{CacheBytes: 4 << 20})
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }() // nothing to be done about it
	s, err := namespace.Open(store, namespace.Options{CacheBytes: 2 << 30})
	if err != nil {
		return err
	}
	restart := time.Since(begun)
	before, resident := heap(), residentBytes(os.Getpid())
	for d := range b.inodeDirs {
		for i := range perDir {
			if _, err := s.Lookup(path("/m/dir-%05d/part-%05d.parquet", d, i)); err != nil {
				return err
			}
		}
	}
	after, st := heap(), s.Stats()
	n := float64(b.inodeDirs * perDir)
	b.add(fmt.Sprintf("disk per entry of local storage, %.1f million", n/1e6), fmt.Sprintf("%.0f B", float64(disk)/n), "", "")
	b.add("memory per entry in the cache (entries not cached need none)", fmt.Sprintf("%.0f B", float64(after-before)/float64(st.CacheEntries)), "",
		fmt.Sprintf("resident memory grew by %d MiB with %d entries", (residentBytes(os.Getpid())-resident)>>20, st.CacheEntries))
	b.add(fmt.Sprintf("opening the state with %.1f million entries", n/1e6), millis(restart), "", "")
	return b.lookups(s)
}

const perDir = 1000

// fill writes the entries as a cold sync does and returns their bytes on disk.
func (b *bench) fill(ctx context.Context, dir string) (int64, error) {
	store, err := pebblekv.Open(dir, pebblekv.Options{})
	if err != nil {
		return 0, err
	}
	s, err := namespace.Open(store, namespace.Options{CacheBytes: 1 << 20})
	if err != nil {
		return 0, err
	}
	s.Apply(1, []namespace.Command{{Bootstrap: &namespace.Bootstrap{
		Cluster: freshet.ClusterID{1}, Name: "bench", Epoch: 1,
		Mounts: []freshet.Mount{{Path: "/m", URI: "file:///m", Level: freshet.LevelInterval, Interval: freshet.Never, DomainKey: "/"}},
	}}})
	m, ok := s.MountAt("/m")
	if !ok {
		return 0, fmt.Errorf("the mount is missing")
	}
	for d := range b.inodeDirs {
		index := uint64(d + 2)
		cmd := &namespace.LoadListing{
			Mount: m.ID, Generation: m.Generation, Dir: path("/m/dir-%05d", d), Start: index - 1, ListStart: index - 1, Complete: true,
		}
		for i := range perDir {
			cmd.Upserts = append(cmd.Upserts, entry(d*perDir+i, fmt.Sprintf("part-%05d.parquet", i)))
		}
		if r, _ := s.Apply(index, []namespace.Command{{LoadListing: cmd}}); r[0].Err != nil || len(r[0].Rejected) > 0 {
			return 0, fmt.Errorf("directory %d: %d entries rejected: %w", d, len(r[0].Rejected), r[0].Err)
		}
	}
	if err := store.Flush(); err != nil {
		return 0, err
	}
	if err := store.Compact(ctx, []byte{0}, []byte{255}); err != nil {
		return 0, err
	}
	files := store.Metrics()
	return files.DiskBytes - files.ObsoleteBytes, store.Close()
}

func entry(i int, name string) namespace.Entry {
	at := time.Unix(1_700_000_000, int64(i)*1_234_567).UTC()
	e := namespace.Entry{Name: name, Length: int64(4096 + i%100_000), ModTime: at, Owner: "data", Group: "users", Mode: 0o644}
	e.Fingerprint = fingerprint.Local(fingerprint.LocalFile{
		Inode: uint64(10_000_000 + i), Size: e.Length, ModTime: at, ChangeTime: at.Add(time.Duration(i%7) * time.Microsecond),
		Owner: e.Owner, Group: e.Group, Mode: e.Mode,
	})
	return e
}

// lookups measures cached lookups in process, by one goroutine.
func (b *bench) lookups(s *namespace.State) error {
	paths := make([]freshet.Path, 10_000)
	for i := range paths {
		paths[i] = path("/m/dir-%05d/part-%05d.parquet", i*7%b.inodeDirs, i*13%perDir)
	}
	n, cpu, begun := int64(0), cpuTime(nil), time.Now()
	for time.Since(begun) < b.length {
		for _, p := range paths {
			if _, err := s.Lookup(p); err != nil {
				return err
			}
		}
		n += int64(len(paths))
	}
	wall, used := time.Since(begun), cpuTime(nil)-cpu
	b.add("cached lookup in the state, in process, 1 core", rate(perSecond(n, wall)), rate(perSecond(n, used)), "")
	return nil
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // what pools keep is gone after the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
