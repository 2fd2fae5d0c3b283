package namespace_test

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/kv/pebblekv"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/fingerprint"
)

func stores(b *testing.B) map[string]func() kv.Store {
	b.Helper()
	return map[string]func() kv.Store{
		"memory": func() kv.Store { return kv.NewMemory() },
		"pebble": func() kv.Store {
			s, err := pebblekv.Open(b.TempDir(), pebblekv.Options{})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { s.Close() })
			return s
		},
	}
}

// localEntry is a file as local storage describes it.
func localEntry(name string, i int) namespace.Entry {
	mod := epochTime.Add(time.Duration(i) * 1234567)
	e := namespace.Entry{Name: name, Length: int64(4096 + i%100000), ModTime: mod, Owner: "data", Group: "users", Mode: 0o644}
	e.Fingerprint = fingerprint.Local(fingerprint.LocalFile{
		Inode: uint64(10_000_000 + i), Size: e.Length, ModTime: mod, ChangeTime: mod.Add(time.Duration(i%7) * 1000),
		Owner: e.Owner, Group: e.Group, Mode: e.Mode,
	})
	return e
}

func s3Entry(name string, i int) namespace.Entry {
	return namespace.Entry{
		Name: name, Length: int64(4096 + i%100000), ModTime: epochTime.Add(time.Duration(i) * time.Second),
		Fingerprint: fingerprint.S3(fmt.Sprintf("%016x%016x", uint64(i)*0x9E3779B97F4A7C15, uint64(i)*0xC2B2AE3D27D4EB4F), int64(4096+i%100000)),
	}
}

// fill lists dirs directories with perDir files each, a page to a log entry.
func fill(tb testing.TB, s *namespace.State, dirs, perDir int, entry func(string, int) namespace.Entry) {
	tb.Helper()
	c := &cluster{t: tb, s: s}
	c.found(mountOf("/m", "/"))
	m, _ := s.MountAt("/m")
	for d := range dirs {
		start := c.i
		cmd := &namespace.LoadListing{Mount: m.ID, Generation: m.Generation, Dir: freshet.Path(fmt.Sprintf("/m/dir%05d", d)), Start: start, ListStart: start, Complete: true}
		for f := range perDir {
			cmd.Upserts = append(cmd.Upserts, entry(fmt.Sprintf("part-%05d.parquet", f), d*perDir+f))
		}
		c.i++
		if r, _ := s.Apply(c.i, []namespace.Command{{LoadListing: cmd}}); r[0].Err != nil || len(r[0].Rejected) != 0 {
			tb.Fatalf("%+v", r[0])
		}
	}
}

func BenchmarkLookupHot(b *testing.B) {
	for name, open := range stores(b) {
		b.Run(name, func(b *testing.B) {
			s, err := namespace.Open(open(), namespace.Options{})
			if err != nil {
				b.Fatal(err)
			}
			fill(b, s, 10, 1000, localEntry)
			paths := make([]freshet.Path, 1000)
			for i := range paths {
				paths[i] = freshet.Path(fmt.Sprintf("/m/dir%05d/part-%05d.parquet", i%10, i))
			}
			b.ReportAllocs()
			defer measure(b)()
			for i := 0; b.Loop(); i++ {
				l, err := s.Lookup(paths[i%len(paths)])
				if err != nil || !l.Found {
					b.Fatal(l, err)
				}
			}
		})
	}
}

func BenchmarkList1000(b *testing.B) {
	for name, open := range stores(b) {
		b.Run(name, func(b *testing.B) {
			s, err := namespace.Open(open(), namespace.Options{})
			if err != nil {
				b.Fatal(err)
			}
			fill(b, s, 10, 1000, localEntry)
			b.ReportAllocs()
			defer measure(b)()
			for b.Loop() {
				l, err := s.List("/m/dir00003", "", 1000)
				if err != nil || len(l) != 1000 {
					b.Fatal(len(l), err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/entry")
		})
	}
}

// BenchmarkCreate measures begin, permit and complete of one file, as decoded from log
// entries of 128 operations each.
func BenchmarkCreate(b *testing.B) {
	for name, open := range stores(b) {
		for _, encoded := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/encoded=%t", name, encoded), func(b *testing.B) {
				s, err := namespace.Open(open(), namespace.Options{})
				if err != nil {
					b.Fatal(err)
				}
				c := &cluster{t: b, s: s}
				c.found(mountOf("/m", "/"))
				const batch = 128
				apply := func(cmds []namespace.Command) {
					if encoded {
						raw, err := namespace.EncodeBatch(cmds)
						if err != nil {
							b.Fatal(err)
						}
						if cmds, err = namespace.DecodeBatch(raw); err != nil {
							b.Fatal(err)
						}
					}
					c.i++
					r, _ := s.Apply(c.i, cmds)
					for i := range r {
						if r[i].Err != nil {
							b.Fatal(r[i].Err)
						}
					}
				}
				b.ReportAllocs()
				n := 0
				defer measure(b)()
				for b.Loop() {
					if n++; n%batch != 0 {
						continue
					}
					begin, permit, done := make([]namespace.Command, batch), make([]namespace.Command, batch), make([]namespace.Command, batch)
					for i := range batch {
						k := n - batch + i
						op := freshet.OpID{1, byte(k >> 24), byte(k >> 16), byte(k >> 8), byte(k)}
						e := s3Entry(fmt.Sprintf("f%09d", k), k)
						begin[i].Begin = &namespace.Begin{Op: op, Kind: namespace.OpWrite, Path: freshet.Path(fmt.Sprintf("/m/d%04d/f%09d", k/1000, k)), Node: "node-1", Incarn: 1, At: epochTime}
						permit[i].Permit = &namespace.Permit{Op: op, Node: "node-1", Incarn: 1}
						done[i].Complete = &namespace.Complete{Op: op, Entry: &e, At: epochTime}
					}
					apply(begin)
					apply(permit)
					apply(done)
				}
			})
		}
	}
}

// BenchmarkMillion reports the cost of an inode at a million entries, on disk
// and in the cache, and the time of a restart.
func BenchmarkMillion(b *testing.B) {
	if testing.Short() {
		b.Skip("long")
	}
	for name, entry := range map[string]func(string, int) namespace.Entry{"local": localEntry, "s3": s3Entry} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				million(b, entry)
			}
		})
	}
}

func million(b *testing.B, entry func(string, int) namespace.Entry) {
	const dirs, perDir = 1000, 1000
	dir := b.TempDir()
	store, err := pebblekv.Open(dir, pebblekv.Options{})
	if err != nil {
		b.Fatal(err)
	}
	s, err := namespace.Open(store, namespace.Options{CacheBytes: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	started := time.Now()
	fill(b, s, dirs, perDir, entry)
	loaded := time.Since(started)
	if err := store.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := store.Compact(b.Context(), []byte{0}, []byte{255}); err != nil {
		b.Fatal(err)
	}
	files := store.Metrics()
	disk := files.DiskBytes - files.ObsoleteBytes
	if err := store.Close(); err != nil {
		b.Fatal(err)
	}
	started = time.Now()
	// A small block cache, for it is on the heap that is measured.
	if store, err = pebblekv.Open(dir, pebblekv.Options{CacheBytes: 4 << 20}); err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	if s, err = namespace.Open(store, namespace.Options{CacheBytes: 2 << 30}); err != nil {
		b.Fatal(err)
	}
	restart := time.Since(started)
	before := heap()
	for d := range dirs {
		for f := range perDir {
			if _, err := s.Lookup(freshet.Path(fmt.Sprintf("/m/dir%05d/part-%05d.parquet", d, f))); err != nil {
				b.Fatal(err)
			}
		}
	}
	after := heap()
	st := s.Stats()
	b.ReportMetric(float64(disk)/(dirs*perDir), "disk-B/inode")
	b.ReportMetric(float64(after-before)/float64(st.CacheEntries), "heap-B/cached-inode")
	b.ReportMetric(float64(st.CacheBytes)/float64(st.CacheEntries), "said-B/cached-inode")
	b.ReportMetric(float64(restart.Milliseconds()), "restart-ms")
	b.ReportMetric(float64(loaded.Nanoseconds())/(dirs*perDir), "load-ns/inode")
}

// measure reports the processor time of what runs until the returned function
// is called, which on a busy machine says more than the wall clock.
func measure(b *testing.B) func() {
	b.Helper()
	before := cpuTime(b)
	return func() {
		b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
	}
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // what pools keep is gone after the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkLoadListing measures a cold sync: pages of 1,000 new entries.
func BenchmarkLoadListing(b *testing.B) {
	for name, open := range stores(b) {
		b.Run(name, func(b *testing.B) {
			s, err := namespace.Open(open(), namespace.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer measure(b)()
			fill(b, s, (b.N+999)/1000, 1000, localEntry)
		})
	}
}
