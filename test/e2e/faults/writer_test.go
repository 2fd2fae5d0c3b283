package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/test/e2e"
)

// patience of a single operation; what takes longer has an unknown outcome.
const patience = 20 * time.Second

// writer writes, renames and removes files of one directory in one region.
type writer struct {
	l     *lake
	r     *e2e.Region
	dir   freshet.Path
	types []freshet.WriteType
	rand  *rand.Rand
	acks  *atomic.Int64 // of all writers
	names int
	most  int // live files
	http  bool

	mu    sync.Mutex // held to change live
	live  []*file
	all   []*file
	tally tally
}

var errOtherBytes = errors.New("other bytes")

// tally counts what became of operations.
type tally struct {
	mu  sync.Mutex
	n   map[string]int
	say map[string]error // one of each kind
}

func (t *tally) add(what string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n, t.say = map[string]int{}, map[string]error{}
	}
	key := what + " " + freshet.KindOf(err).String()
	t.n[key]++
	if t.say[key] == nil {
		t.say[key] = err
	}
}

func (t *tally) count(key string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n[key]
}

func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out strings.Builder
	for _, key := range slices.Sorted(maps.Keys(t.n)) {
		fmt.Fprintf(&out, "\n%8d  %s", t.n[key], key)
		if err := t.say[key]; err != nil {
			fmt.Fprintf(&out, "  e.g. %.300s", err)
		}
	}
	return out.String()
}

func allTypes() []freshet.WriteType {
	return []freshet.WriteType{freshet.Through, freshet.CacheThrough, freshet.MustCache, freshet.AsyncThrough}
}

func newWriter(l *lake, r *e2e.Region, dir freshet.Path, seed uint64, acks *atomic.Int64) *writer {
	return &writer{l: l, r: r, dir: dir, types: allTypes(), most: 8, acks: acks, rand: rand.New(rand.NewPCG(seed, 11))} //nolint:gosec // repeatable on purpose
}

// some returns a live file, nil if there is none.
func (w *writer) some(n int) *file {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.live) == 0 {
		return nil
	}
	return w.live[n%len(w.live)]
}

func (w *writer) retire(f *file) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.live = slices.DeleteFunc(w.live, func(x *file) bool { return x == f })
}

func (w *writer) next() freshet.Path {
	w.names++
	return freshet.Path(fmt.Sprintf("%s/f%d", w.dir, w.names))
}

// run works until ctx ends or a rule is broken.
func (w *writer) run(ctx context.Context) error {
	for ctx.Err() == nil {
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		err := w.step(one)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) step(ctx context.Context) error {
	p := w.rand.IntN(100)
	f := w.some(w.rand.Int())
	switch {
	case f == nil, p < 30 && len(w.live) < w.most:
		f = newFile(w.r, w.next())
		w.mu.Lock()
		w.live, w.all = append(w.live, f), append(w.all, f)
		w.mu.Unlock()
		return w.write(ctx, f)
	case f.acked == 0, p < 75:
		return w.write(ctx, f)
	case p < 85:
		return w.rename(ctx, f)
	case p < 95:
		return w.remove(ctx, f)
	default:
		out, code := command(ctx, w.r, "persist", string(f.path))
		return told("persist "+string(f.path), out, code)
	}
}

// definite reports whether an error says that nothing was done and never will be.
func definite(err error) bool {
	return freshet.IsKind(err, freshet.KindInvalid, freshet.KindNotExist, freshet.KindExist, freshet.KindConflict, freshet.KindPermission,
		freshet.KindUnsupported, freshet.KindStale, freshet.KindCorrupt, freshet.KindInternal)
}

// refusedElse is the error of what may fail for the moment, or in the way that is given.
func (w *writer) refusedElse(what string, f *file, err error, expected ...freshet.Kind) error {
	w.tally.add(what, err)
	if definite(err) && !freshet.IsKind(err, expected...) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return fmt.Errorf("%s %s in %s was refused: %w\n%s", what, f.path, w.r.Name, err, strings.Join(f.history, "\n"))
	}
	return nil
}

func (w *writer) write(ctx context.Context, f *file) error {
	kind := w.types[w.rand.IntN(len(w.types))]
	f.mu.Lock()
	f.issued++
	v := f.issued
	f.note("version %d is written with %s", v, kind)
	f.mu.Unlock()
	data := f.content(v)
	var err error
	if w.http && w.rand.IntN(4) == 0 {
		err = w.put(ctx, f.path, data, kind)
	} else {
		_, err = w.r.S.Files.Write(ctx, f.path, bytes.NewReader(data), client.WriteOptions{Length: int64(len(data)), Write: kind})
	}
	w.tally.add(kind.String(), err)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("the write of version %d ended: %v", v, err)
	switch {
	case err == nil:
		f.acked, f.write = v, kind
		w.acks.Add(1)
		return w.acknowledged(ctx, f, data)
	case freshet.IsKind(err, freshet.KindUnavailable, freshet.KindExhausted, freshet.KindNotLeader):
		f.refused[v], f.refusedAt = err, time.Now()
		return nil
	case definite(err):
		return fmt.Errorf("write of %s (%s) in %s was refused: %w", f.path, kind, w.r.Name, err)
	}
	f.doubt.version = v
	w.retire(f)
	return nil
}

// acknowledged looks for what was acknowledged where its write type says it is.
func (w *writer) acknowledged(ctx context.Context, f *file, data []byte) error {
	if f.write == freshet.MustCache || f.write == freshet.AsyncThrough {
		return nil // the nodes that have it may be gone for the moment; the end shows it
	}
	got, exists, err := w.l.stored(ctx, f.path)
	if err != nil {
		return fmt.Errorf("the storage at %s: %w", f.path, err)
	}
	if !exists || !bytes.Equal(got, data) {
		v, err := e2e.VersionOf(f.id, 0, got)
		return fmt.Errorf("version %d of %s (%s) was acknowledged, and the storage has version %d, %d bytes: %w", f.acked, f.path, f.write, v, len(got), errors.Join(errOtherBytes, err))
	}
	return nil
}

// put writes by HTTP to any node of the region.
func (w *writer) put(ctx context.Context, p freshet.Path, data []byte, kind freshet.WriteType) error {
	node := w.r.NodeHTTP[w.rand.IntN(len(w.r.NodeHTTP))]
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+node+"/v1/data"+string(p)+"?write_type="+kind.String(), bytes.NewReader(data))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return freshet.Errorf(freshet.KindDeadline, "put", p, "%w", err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode == http.StatusCreated {
		return nil
	}
	if err != nil {
		return freshet.Errorf(freshet.KindDeadline, "put", p, "%w", err)
	}
	return httpError(p, resp.StatusCode, body)
}

func (w *writer) rename(ctx context.Context, f *file) error {
	to := w.next()
	f.leave()
	_, err := w.r.S.Rename(ctx, freshet.RenameQuery{Path: f.path, Target: to})
	if bad := w.refusedElse("rename", f, err, f.mayBeWritten()...); bad != nil {
		return bad
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("its rename to %s ended: %v", to, err)
	if err == nil {
		f.path, f.moving = to, false
		clear(f.there) // elsewhere the news may be on its way
		return nil
	}
	f.doubt.path = to
	w.retire(f)
	return nil
}

func (w *writer) remove(ctx context.Context, f *file) error {
	f.leave()
	_, err := w.r.S.Remove(ctx, freshet.RemoveQuery{Path: f.path})
	if bad := w.refusedElse("remove", f, err); bad != nil {
		return bad
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removed, f.doubt.removed = err == nil, err != nil
	w.retire(f)
	return nil
}
