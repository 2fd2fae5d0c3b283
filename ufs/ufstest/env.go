package ufstest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

// env is what a case works with. Its methods that have no error result end the
// test on failure.
type env struct {
	*testing.T
	h    Harness
	fs   ufs.FS
	feat ufs.Features
	lack func(reason string)
}

// lacks ends the case, because the storage says that it can't do what it asks.
func (e *env) lacks(reason string) {
	e.Helper()
	e.lack(reason)
	e.Skip(reason)
}

func (e *env) ctx() context.Context { return e.Context() }

func (e *env) outside() Outside {
	e.Helper()
	if e.h.Outside == nil {
		e.Fatal("the harness has no Outside: give it or name this case in Exceptions")
	}
	return e.h.Outside(e.T, e.fs)
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// wantKind ends the test unless err is of one of kinds and an *Error.
func (e *env) wantKind(err error, kinds ...freshet.Kind) {
	e.Helper()
	if !freshet.IsKind(err, kinds...) {
		e.Fatalf("got error %v (kind %v), want kind %v", err, freshet.KindOf(err), kinds)
	}
	if _, ok := err.(*freshet.Error); err != nil && !ok { //nolint:errorlint // the border type itself is demanded
		e.Fatalf("error %v is a %T, want *freshet.Error", err, err)
	}
}

// write creates key with data by opts and returns the first error of the three
// steps.
func (e *env) write(key string, data []byte, opts ufs.CreateOptions) (ufs.Status, error) {
	if opts.Size == 0 {
		opts.Size = int64(len(data))
	}
	w, err := e.fs.Create(e.ctx(), key, opts)
	if err != nil {
		return ufs.Status{}, err
	}
	if _, err := w.Write(data); err != nil {
		return ufs.Status{}, firstError(err, w.Abort(e.ctx()))
	}
	st, err := w.Commit(e.ctx())
	if err != nil {
		return ufs.Status{}, firstError(err, w.Abort(e.ctx()))
	}
	return st, nil
}

func firstError(err, _ error) error { return err }

func (e *env) put(key string, data []byte) ufs.Status {
	e.Helper()
	st, err := e.write(key, data, ufs.CreateOptions{})
	if err != nil {
		e.Fatalf("create %q: %v", key, err)
	}
	return st
}

func (e *env) mkdir(key string) {
	e.Helper()
	if _, err := e.fs.Mkdir(e.ctx(), key, ufs.MkdirOptions{}); err != nil {
		e.Fatalf("mkdir %q: %v", key, err)
	}
}

func (e *env) stat(key string) ufs.Status {
	e.Helper()
	st, err := e.fs.Stat(e.ctx(), key)
	if err != nil {
		e.Fatalf("stat %q: %v", key, err)
	}
	return st
}

func (e *env) wantAbsent(key string) {
	e.Helper()
	st, err := e.fs.Stat(e.ctx(), key)
	if !freshet.IsKind(err, freshet.KindNotExist) {
		e.Fatalf("stat %q: got %+v, %v, want not_exist", key, st, err)
	}
}

func (e *env) open(key string, opts ufs.OpenOptions) ([]byte, ufs.Status, error) {
	r, st, err := e.fs.Open(e.ctx(), key, opts)
	if err != nil {
		return nil, st, err
	}
	data, err := io.ReadAll(r)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	return data, st, err
}

func (e *env) wantContent(key string, want []byte) {
	e.Helper()
	got, _, err := e.open(key, ufs.OpenOptions{Length: -1})
	if err != nil {
		e.Fatalf("open %q: %v", key, err)
	}
	if !bytes.Equal(got, want) {
		e.Fatalf("content of %q: got %d bytes %.20q, want %d bytes %.20q", key, len(got), got, len(want), want)
	}
}

func (e *env) list(dir string, opts ufs.ListOptions) ([]ufs.Status, error) {
	var all []ufs.Status
	for st, err := range e.fs.List(e.ctx(), dir, opts) {
		if err != nil {
			return all, err
		}
		all = append(all, st)
	}
	return all, nil
}

// keys returns the SortKeys of a listing and fails unless they ascend.
func (e *env) keys(dir string, opts ufs.ListOptions) []string {
	e.Helper()
	all, err := e.list(dir, opts)
	if err != nil {
		e.Fatalf("list %q: %v", dir, err)
	}
	names := make([]string, 0, len(all))
	for i, st := range all {
		names = append(names, st.SortKey())
		if i > 0 && names[i-1] >= names[i] {
			e.Errorf("list %q: %q follows %q", dir, names[i], names[i-1])
		}
	}
	return names
}

// wantNothingLeft fails if the storage holds what no listing shows.
func (e *env) wantNothingLeft() {
	e.Helper()
	e.wantNothingLeftAfter(0)
}

// wantNothingLeftAfter fails if the storage still holds, when the time is over, what
// no listing shows.
func (e *env) wantNothingLeftAfter(limit time.Duration) {
	e.Helper()
	if e.h.Outside == nil {
		return
	}
	left := e.outside().Leftovers
	if left == nil {
		return
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); ; <-tick.C {
		names, err := left()
		e.must(err)
		if len(names) == 0 {
			return
		}
		if time.Since(begun) >= limit {
			e.Errorf("%d things are left behind in the storage: %.10q", len(names), names)
			return
		}
	}
}

// fill makes n files of one byte below dir, as fast as the harness lets it, and
// returns their keys in order.
func (e *env) fill(dir string, n int) []string {
	e.Helper()
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("%s/n%05d", dir, i)
	}
	put := func(key string) error {
		_, err := e.write(key, []byte("x"), ufs.CreateOptions{})
		return err
	}
	if e.h.Outside != nil {
		out := e.outside()
		if out.PutMany != nil {
			e.must(out.PutMany(keys))
			return keys
		}
		put = func(key string) error { return out.Put(key, []byte("x")) }
	}
	e.must(put(keys[0])) // makes the directory once
	next := make(chan string)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for key := range next {
				if err := put(key); err != nil {
					e.Errorf("put %q: %v", key, err)
				}
			}
		})
	}
	for _, key := range keys[1:] {
		next <- key
	}
	close(next)
	wg.Wait()
	if e.Failed() {
		e.FailNow()
	}
	return keys
}

func (e *env) isEmpty() bool {
	e.Helper()
	return len(e.keys("", ufs.ListOptions{Recursive: true})) == 0
}

// pattern returns n bytes whose every 4-byte word tells seed and position, so
// that a mix of two versions can be seen.
func pattern(seed byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		switch i % 4 {
		case 0:
			b[i] = seed
		default:
			b[i] = byte(i >> (8 * (i%4 - 1)))
		}
	}
	return b
}

// known fails unless the content of fp is known.
func (e *env) known(fp fingerprint.Fingerprint) fingerprint.Fingerprint {
	e.Helper()
	if !fp.Known() {
		e.Fatalf("fingerprint %q is unknown", fp)
	}
	return fp
}

// soon ends the test unless f returns within a time that is generous for a busy
// machine and far below any network timeout.
func (e *env) soon(what string, f func()) {
	e.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		e.Fatalf("%s did not return within 30 s", what)
	}
}

func opID(n byte) freshet.OpID {
	id := freshet.OpID{0: 0x01, 6: 0x70, 8: 0x80, 15: n}
	return id
}
