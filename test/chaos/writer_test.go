package chaos_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/test/e2e"
)

// patience of a single operation; what takes longer has an unknown outcome.
const patience = 20 * time.Second

// writer changes paths that nobody else changes, so that it knows what each must
// hold. A path is not used again after an operation whose outcome is unknown.
type writer struct {
	name  string // the directory of its paths, in the storage's names
	own   *e2e.Region
	other *e2e.Region
	rand  *rand.Rand
	steps *atomic.Int64

	next    uint64            // version numbers and names
	files   map[string]uint64 // what is certain: name -> version
	absent  map[string]bool   // what is certainly absent
	either  map[string][2]uint64
	moves   []move
	unknown int
	fault   error
}

// move is a rename whose outcome is unknown: each file is at one of two places.
type move struct {
	from, to string
	version  uint64
}

const none = 0 // the version of what does not exist

func newWriter(name string, own, other *e2e.Region, seed uint64, steps *atomic.Int64) *writer {
	return &writer{
		name: name, own: own, other: other, rand: rand.New(rand.NewPCG(seed, 7)), steps: steps, //nolint:gosec // repeatable on purpose
		files: map[string]uint64{}, absent: map[string]bool{}, either: map[string][2]uint64{},
	}
}

// in returns a name of the storage as a name of the region's mount.
func in(r *e2e.Region, name string) string { return name[len(r.Prefix):] }

// run works until ctx ends or a rule is broken.
func (w *writer) run(ctx context.Context) error {
	for ctx.Err() == nil && w.fault == nil {
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		w.step(one)
		cancel()
		w.steps.Add(1)
	}
	return w.fault
}

func (w *writer) step(ctx context.Context) {
	switch p := w.rand.IntN(100); {
	case p < 55 || len(w.files) < 3:
		w.write(ctx)
	case p < 70:
		w.remove(ctx)
	case p < 82:
		w.rename(ctx)
	case p < 90:
		w.renameTree(ctx)
	default:
		w.readOther(ctx)
	}
}

func (w *writer) fresh() uint64 { w.next++; return w.next }

func (w *writer) pick() (string, uint64) {
	names := slices.Sorted(maps.Keys(w.files))
	name := names[w.rand.IntN(len(names))]
	return name, w.files[name]
}

// identity is what a content is proven with: it stays when a file is renamed.
func (w *writer) content(version uint64) []byte {
	size := 300 + int(version%7)*900
	if version%9 == 0 {
		size = 200_000 // in parts, and several blocks
	}
	return e2e.Content(w.name, version, size)
}

func definite(err error) bool {
	return freshet.IsKind(err, freshet.KindInvalid, freshet.KindNotExist, freshet.KindExist, freshet.KindConflict,
		freshet.KindPermission, freshet.KindUnsupported, freshet.KindStale, freshet.KindCorrupt)
}

func (w *writer) broken(format string, args ...any) {
	if w.fault == nil {
		w.fault = fmt.Errorf("%s in region %s: "+format, append([]any{w.name, w.own.Name}, args...)...)
	}
}

func (w *writer) write(ctx context.Context) {
	name := fmt.Sprintf("%s/f%d", w.name, w.fresh())
	before := uint64(none)
	if len(w.files) > 2 && w.rand.IntN(2) == 0 {
		name, before = w.pick()
	}
	v := w.fresh()
	data := w.content(v)
	done, err := w.own.S.Files.Write(ctx, w.own.At(in(w.own, name)), bytes.NewReader(data), client.WriteOptions{Length: int64(len(data)), BlockSize: freshet.MinBlockSize})
	switch {
	case err == nil:
		w.files[name] = v
		delete(w.absent, name)
		w.readOwn(ctx, name, v, done.Token)
	case freshet.IsKind(err, freshet.KindUnavailable, freshet.KindExhausted):
		// The promise is that nothing was written.
		if before == none {
			w.absent[name] = true
		}
	case definite(err):
		w.broken("write %s was refused: %v", name, err)
	default:
		w.doubt(name, before, v)
	}
}

// doubt notes that a path holds one of two versions; it is left alone from now on.
func (w *writer) doubt(name string, before, after uint64) {
	w.unknown++
	delete(w.files, name)
	delete(w.absent, name)
	w.either[name] = [2]uint64{before, after}
}

// readOwn reads in the region of the writer what was acknowledged there.
func (w *writer) readOwn(ctx context.Context, name string, v uint64, token freshet.Token) {
	w.check(ctx, w.own, name, v, client.Whole())
	if w.rand.IntN(4) == 0 {
		w.check(ctx, w.other, name, v, e2e.After(token))
	}
}

// check reads a file that nobody changes meanwhile: the answer may be an error of
// the moment, but not another version and not "does not exist".
func (w *writer) check(ctx context.Context, r *e2e.Region, name string, v uint64, opts client.ReadOptions) {
	short, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	got, _, err := r.Read(short, in(r, name), opts)
	switch {
	case err == nil:
		if !bytes.Equal(got, w.content(v)) {
			seen, verr := e2e.VersionOf(w.name, 0, got)
			w.broken("%s has version %d (%v), %d bytes, in region %s, and version %d was acknowledged", name, seen, verr, len(got), r.Name, v)
		}
	case definite(err):
		w.broken("read of %s, version %d, in region %s: %v", name, v, r.Name, err)
	}
}

// readOther reads in the other region without a token: any version that was ever
// acknowledged may come, but only one of them at a time.
func (w *writer) readOther(ctx context.Context) {
	name, _ := w.pick()
	short, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	got, _, err := w.other.Read(short, in(w.other, name), client.Whole())
	if err != nil {
		return // it may not have heard of it yet
	}
	if v, err := e2e.VersionOf(w.name, 0, got); err != nil || !bytes.Equal(got, w.content(v)) {
		w.broken("%s in region %s: %d bytes of version %d: %v", name, w.other.Name, len(got), v, err)
	}
}

func (w *writer) remove(ctx context.Context) {
	name, v := w.pick()
	_, err := w.own.S.Remove(ctx, freshet.RemoveQuery{Path: w.own.At(in(w.own, name))})
	switch {
	case err == nil:
		delete(w.files, name)
		w.absent[name] = true
	case definite(err):
		w.broken("remove %s was refused: %v", name, err)
	default:
		w.doubt(name, v, none)
	}
}

func (w *writer) rename(ctx context.Context) {
	name, v := w.pick()
	to := fmt.Sprintf("%s/m%d", w.name, w.fresh())
	_, err := w.own.S.Rename(ctx, freshet.RenameQuery{Path: w.own.At(in(w.own, name)), Target: w.own.At(in(w.own, to))})
	switch {
	case err == nil:
		delete(w.files, name)
		w.absent[name] = true
		w.files[to] = v
	case definite(err):
		w.broken("rename %s was refused: %v", name, err)
	default:
		w.unknown++
		delete(w.files, name)
		w.moves = append(w.moves, move{name, to, v})
	}
}

// renameTree fills a directory and renames it.
func (w *writer) renameTree(ctx context.Context) {
	n := w.fresh()
	from, to := fmt.Sprintf("%s/d%d", w.name, n), fmt.Sprintf("%s/e%d", w.name, n)
	if _, err := w.own.S.Mkdir(ctx, freshet.MkdirQuery{Path: w.own.At(in(w.own, from)), Parents: true}); err != nil {
		if definite(err) {
			w.broken("mkdir %s was refused: %v", from, err)
		}
		return
	}
	files := map[string]uint64{}
	for i := range 3 {
		v, name := w.fresh(), fmt.Sprintf("/s%d/f", i)
		_, err := w.own.Write(ctx, in(w.own, from+name), w.content(v))
		if err != nil {
			w.doubt(from+name, none, v)
			continue
		}
		files[name] = v
	}
	if len(files) < 3 {
		maps.Copy(w.files, prefixed(from, files))
		return
	}
	_, err := w.own.S.Rename(ctx, freshet.RenameQuery{Path: w.own.At(in(w.own, from)), Target: w.own.At(in(w.own, to))})
	for name, v := range files {
		switch {
		case err == nil:
			w.files[to+name] = v
			w.absent[from+name] = true
		case definite(err):
			w.broken("rename of directory %s was refused: %v", from, err)
		default:
			w.unknown++
			w.moves = append(w.moves, move{from + name, to + name, v})
		}
	}
}

func prefixed(prefix string, files map[string]uint64) map[string]uint64 {
	out := map[string]uint64{}
	for name, v := range files {
		out[prefix+name] = v
	}
	return out
}

// verdict compares the storage with what the writer knows.
func (w *writer) verdict(tree map[string]e2e.Object) []string {
	var out []string
	holds := func(name string, v uint64) bool {
		o, ok := tree[name]
		if v == none {
			return !ok
		}
		return ok && bytes.Equal(o.Data, w.content(v))
	}
	say := func(name, want string) {
		o, ok := tree[name]
		got, err := e2e.VersionOf(w.name, 0, o.Data)
		out = append(out, fmt.Sprintf("%s (region %s): want %s; exists %v, version %d (%v)", name, w.own.Name, want, ok, got, err))
	}
	for name, v := range w.files {
		if !holds(name, v) {
			say(name, fmt.Sprintf("acknowledged version %d", v))
		}
	}
	for name := range w.absent {
		if !holds(name, none) {
			say(name, "nothing")
		}
	}
	for name, v := range w.either {
		if !holds(name, v[0]) && !holds(name, v[1]) {
			say(name, fmt.Sprintf("version %d or %d", v[0], v[1]))
		}
	}
	for _, m := range w.moves {
		// Its outcome was never told. A copy that was on its way when the leader
		// died may land after everything else, and the file is at both then; it
		// is never at neither.
		if !holds(m.from, m.version) && !holds(m.to, m.version) {
			say(m.from, fmt.Sprintf("version %d here or at %s", m.version, m.to))
		}
	}
	return out
}
