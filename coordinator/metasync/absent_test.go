package metasync_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/invalidation"
)

func TestAnAbsentPathIsLookedAtOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t, metasync.Options{})
	b.store.Put("d/f", []byte("x"))
	b.present("/m/d/f")
	for _, p := range []freshet.Path{"/m/d/none", "/m/none"} {
		if n := b.asked(func() { b.absent(p) }); n != 1 {
			t.Errorf("the first look at %s asked %d times", p, n)
		}
		b.free("the second", func() { b.absent(p) })
		b.free("what would be below it", func() { b.absent(p.Join("x").Join("y")) })
		b.free("its listing", func() {
			if _, _, err := b.Listing(t.Context(), p, b.rule); !freshet.IsKind(err, freshet.KindNotExist) {
				t.Errorf("listing %s: %v", p, err)
			}
		})
	}
	if hits, held := b.metric("freshet_absent_hits_total"), b.metric("freshet_absent_paths"); hits != 6 || held != 2 {
		t.Errorf("%v hits on %v paths", hits, held)
	}
	if n := b.metric("freshet_absent_bytes"); n < 2*200 || n > 2*220 {
		t.Errorf("%v bytes", n)
	}
	b.costs("a sibling", func() { b.absent("/m/d/other") })
	b.costs("one that its name begins", func() { b.absent("/m/nonesuch") })
}

func TestAnAbsentPathIsAsOldAsItsLook(t *testing.T) {
	t.Parallel()
	b := newBed(t, metasync.Options{})
	b.rule = metasync.Fixed(freshet.Interval(time.Minute))
	b.onStep(func(string, string) error { b.clock.Advance(20 * time.Second); return nil }) // the storage takes its time
	b.absent("/m/f")
	b.onStep(nil)
	b.store.Put("f", []byte("by another program"))
	b.clock.Advance(40*time.Second - 1)
	b.free("a moment before", func() { b.absent("/m/f") })
	b.clock.Advance(1)
	b.costs("a minute after the look began", func() { b.present("/m/f") })
	b.store.Remove("f")
	b.clock.Advance(time.Minute)
	b.costs("when it is gone again", func() { b.absent("/m/f") })
	b.free("then", func() { b.absent("/m/f/x") })
	b.rule = metasync.Fixed(freshet.Always)
	b.costs("under always", func() { b.absent("/m/f") })
}

// TestACreateUncachesAnAbsentPath goes through everything that can make a path
// come to exist, at the path, above it and around it.
func TestACreateUncachesAnAbsentPath(t *testing.T) {
	t.Parallel()
	const p = freshet.Path("/m/a/b/c")
	record := func(kind invalidation.Kind, key string, recursive bool) func(*bed) {
		return func(b *bed) {
			b.record(invalidation.Record{Kind: kind, Key: key, Recursive: recursive})
		}
	}
	for name, change := range map[string]func(*bed){
		"a record of the path": record(invalidation.KindCreate, "/a/b/c", false),
		"a record below it":    record(invalidation.KindCreate, "/a/b/c/d", false),
		"a rename of a directory above": func(b *bed) {
			b.record(invalidation.Record{Kind: invalidation.KindRename, Key: "/x", Key2: "/a", Recursive: true})
		},
		"a subtree":                       record(invalidation.KindSubtree, "/a/b", true),
		"everything":                      record(invalidation.KindAll, "/", true),
		"an operator":                     func(b *bed) { b.must(namespace.Command{Mark: &namespace.Mark{Path: p}}) },
		"an operator, above, recursively": func(b *bed) { b.must(namespace.Command{Mark: &namespace.Mark{Path: "/m/a", Recursive: true}}) },
		"an own write": func(b *bed) {
			op := newOp()
			b.must(namespace.Command{Begin: &namespace.Begin{Op: op, Kind: namespace.OpWrite, Path: p}})
			b.free("while it is on its way", func() { b.absent(p) })
			b.must(namespace.Command{Complete: &namespace.Complete{Op: op, Entry: &namespace.Entry{Name: "c", Type: freshet.TypeFile}}})
		},
		"an own operation whose outcome nobody knows": func(b *bed) {
			op := newOp()
			b.must(namespace.Command{Begin: &namespace.Begin{Op: op, Kind: namespace.OpWrite, Path: p}})
			b.must(namespace.Command{Resolve: &namespace.Resolve{Op: op}})
			b.costs("in quarantine", func() { b.absent(p) })
			b.costs("in quarantine, again", func() { b.absent(p) })
			b.must(namespace.Command{EndQuarantine: &namespace.EndQuarantine{Op: op}})
		},
		"a mkdir above whose outcome nobody knows": func(b *bed) {
			op := newOp()
			b.must(namespace.Command{Begin: &namespace.Begin{Op: op, Kind: namespace.OpRename, Path: "/m/x", Path2: "/m/a/b"}})
			b.must(namespace.Command{Resolve: &namespace.Resolve{Op: op}})
			b.costs("in quarantine", func() { b.absent(p) })
		},
		"an own rename of a directory above": func(b *bed) {
			op := newOp()
			b.must(namespace.Command{Begin: &namespace.Begin{Op: op, Kind: namespace.OpRename, Path: "/m/x", Path2: "/m/a"}})
			b.must(namespace.Command{Complete: &namespace.Complete{Op: op, Entry: &namespace.Entry{Name: "a", Type: freshet.TypeDirectory}}})
		},
		"another mount there": func(b *bed) {
			b.must(namespace.Command{RemoveMount: &namespace.RemoveMount{Path: "/m"}})
			b.must(namespace.Command{AddMount: &namespace.AddMount{Mount: bedMount("/m", "/")}})
		},
		"a mount over a directory above": func(b *bed) {
			m := bedMount("/m/a", "/elsewhere")
			m.Domain = freshet.DomainID{8}
			b.must(namespace.Command{AddMount: &namespace.AddMount{Mount: m}})
			b.store.Put("elsewhere/b/c", []byte("x"))
		},
		"other settings of the mount": func(b *bed) {
			m := bedMount("/m", "/")
			m.Options = map[string]string{"region": "other"}
			b.must(namespace.Command{UpdateMount: &namespace.UpdateMount{Mount: m}})
		},
		"a new term": func(b *bed) { b.Forget() },
		"a listing that has it": func(b *bed) {
			b.store.Put("a/b/c", []byte("x"))
			if _, _, err := b.Listing(b.Context(), "/m/a/b", metasync.Fixed(freshet.Always)); err != nil {
				b.Fatal(err)
			}
			b.free("the entry is held", func() { b.present(p) })
			b.Forget() // of which nothing else is tested here
			b.must(namespace.Command{Mark: &namespace.Mark{Path: "/m", Recursive: true}})
		},
	} {
		for _, at := range []freshet.Path{p, "/m/a/b", "/m/a"} { // where the absence was looked at
			t.Run(fmt.Sprint(name, ", absent at ", at), func(t *testing.T) {
				t.Parallel()
				b := newBed(t, metasync.Options{})
				b.absent(at)
				b.absent(p)
				b.free("known", func() { b.absent(p) })
				change(b)
				b.store.Put("a/b/c", []byte("x"))
				b.present(p)
			})
		}
	}
}

// TestAnAbsenceThatBeganBeforeARecordNeverCounts: the storage's answer is older
// than the record that comes while it is on its way.
func TestAnAbsenceThatBeganBeforeARecordNeverCounts(t *testing.T) {
	t.Parallel()
	began, resume := make(chan struct{}), make(chan struct{})
	b := newBed(t, metasync.Options{})
	b.onStep(func(string, string) error { close(began); <-resume; return nil })
	done := make(chan error)
	go func() { done <- b.stat("/m/f") }()
	<-began
	b.onStep(nil)
	b.record(invalidation.Record{Kind: invalidation.KindCreate, Key: "/f"})
	close(resume)
	if err := <-done; !freshet.IsKind(err, freshet.KindNotExist) {
		t.Fatal(err)
	}
	b.store.Put("f", []byte("x"))
	b.costs("after it", func() { b.present("/m/f") })
}

func TestAnErrorIsNeverAnAbsence(t *testing.T) {
	t.Parallel()
	b := newBed(t, metasync.Options{})
	down := freshet.Errorf(freshet.KindUnavailable, "call", "", "the storage is down")
	for _, cause := range []error{down, context.DeadlineExceeded, errors.New("odd"), freshet.Errorf(freshet.KindPermission, "call", "", "denied")} {
		b.onStep(func(string, string) error { return cause })
		for _, p := range []freshet.Path{"/m/f", "/m/f/below"} {
			if err := b.stat(p); err == nil || freshet.IsKind(err, freshet.KindNotExist) {
				t.Errorf("%s under %v: %v", p, cause, err)
			}
		}
		b.onStep(nil)
	}
	if n := b.metric("freshet_absent_paths"); n != 0 {
		t.Errorf("%v paths are known to be absent", n)
	}
	b.absent("/m/g")
	b.must(namespace.Command{Mark: &namespace.Mark{Path: "/m/g"}})
	b.onStep(func(string, string) error { return down })
	if err := b.stat("/m/g"); !freshet.IsKind(err, freshet.KindUnavailable) {
		t.Errorf("after a mark, with the storage down: %v", err)
	}
}

func TestAbsentPathsAreBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		limits metasync.AbsentLimits
		most   float64
	}{
		{"in number", metasync.AbsentLimits{Entries: 20}, 20},
		{"in bytes", metasync.AbsentLimits{Bytes: 20 * (200 + 9)}, 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, metasync.Options{Absent: c.limits})
			b.absent("/m/hotone")
			for i := range 300 {
				b.absent(freshet.Path(fmt.Sprintf("/m/p%05d", i)))
				b.free("what is used stays", func() { b.absent("/m/hotone") })
				if n := b.metric("freshet_absent_paths"); n > c.most {
					t.Fatalf("%v paths", n)
				}
			}
			b.free("the last", func() { b.absent("/m/p00299") })
			b.costs("the first", func() { b.absent("/m/p00000") })
			if c.limits.Bytes > 0 {
				if n := b.metric("freshet_absent_bytes"); n > float64(c.limits.Bytes) {
					t.Errorf("%v bytes", n)
				}
				long := freshet.Path("/m/" + strings.Repeat("x/", 2500) + "y")
				b.absent(long)
				b.costs("a path that is larger than all", func() { b.absent(long) })
			}
		})
	}
	b := newBed(t, metasync.Options{Absent: metasync.AbsentLimits{Off: true}})
	b.absent("/m/f")
	b.costs("switched off", func() { b.absent("/m/f") })
}

// TestAnAbsentPathTakesWhatItIsCountedAs holds the bound in bytes to the truth.
func TestAnAbsentPathTakesWhatItIsCountedAs(t *testing.T) {
	const n = 200_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	a := metasync.NewAbsences(metasync.AbsentLimits{Entries: n, Bytes: 1 << 40})
	for i := range n {
		a.Add(freshet.Path(fmt.Sprintf("/data/part-%011d", i)), uint64(i))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	counted := a.Bytes()
	used := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	if used > counted*5/4 || used < counted/2 {
		t.Errorf("%d paths take %d bytes, and are counted as %d", n, used, counted)
	}
	runtime.KeepAlive(a)
}

func TestALookBelowFindsThatADirectoryExistsAgain(t *testing.T) {
	t.Parallel()
	b := newBed(t, metasync.Options{})
	b.rule = metasync.Fixed(freshet.Interval(time.Minute))
	b.absent("/m/d")
	b.store.Put("d/f", []byte("x"))
	_, err := b.Entry(t.Context(), "/m/d/f", metasync.Fixed(freshet.Always))
	if err != nil {
		t.Fatal(err)
	}
	b.clock.Advance(time.Second)
	b.present("/m/d")
	b.present("/m/d/f")
	if n := b.metric("freshet_absent_paths"); n != 0 {
		t.Errorf("%v paths are known to be absent", n)
	}
}
