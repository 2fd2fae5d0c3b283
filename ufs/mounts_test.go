package ufs_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
)

// fakeOpener opens memory storages and counts.
type fakeOpener struct {
	mu     sync.Mutex
	opened []string
	closed []string
	fail   error
}

func (o *fakeOpener) Schemes() []string                     { return []string{"fake"} }
func (o *fakeOpener) Parse(ufs.Spec) (ufs.Canonical, error) { return ufs.Canonical{}, nil }
func (o *fakeOpener) Open(s ufs.Spec, _ ufs.Environment) (ufs.FS, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fail != nil {
		return nil, o.fail
	}
	o.opened = append(o.opened, s.URI)
	return &fakeFS{FS: mem.New(mem.Options{}).FS(""), opener: o, uri: s.URI}, nil
}

func (o *fakeOpener) state() (opened, closed string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.opened, " "), strings.Join(o.closed, " ")
}

type fakeFS struct {
	ufs.FS
	opener *fakeOpener
	uri    string
	gone   atomic.Bool
}

func (f *fakeFS) Stat(ctx context.Context, key string) (ufs.Status, error) {
	if f.gone.Load() {
		return ufs.Status{}, errors.New("used after close")
	}
	return f.FS.Stat(ctx, key)
}

func (f *fakeFS) Close() error {
	f.gone.Store(true)
	f.opener.mu.Lock()
	defer f.opener.mu.Unlock()
	f.opener.closed = append(f.opener.closed, f.uri)
	return nil
}

func mount(id, generation uint64, uri string) freshet.Mount {
	return freshet.Mount{ID: freshet.MountID(id), Path: "/m", URI: uri, Generation: generation}
}

func TestMountsCloseWithTheLastUser(t *testing.T) {
	t.Parallel()
	o := &fakeOpener{}
	m := ufs.NewMounts(o, ufs.Environment{}, ufs.MountsOptions{})
	if err := m.Put(mount(1, 1, "one")); err != nil {
		t.Fatal(err)
	}
	old, release, err := m.Get(1)
	if err != nil {
		t.Fatal(err)
	}
	for _, next := range []freshet.Mount{mount(1, 1, "same"), mount(1, 2, "two"), mount(1, 1, "older")} {
		if err := m.Put(next); err != nil {
			t.Fatal(err)
		}
	}
	if opened, closed := o.state(); opened != "one two" || closed != "" {
		t.Errorf("opened %q, closed %q", opened, closed)
	}
	if _, err := old.Stat(t.Context(), ""); err != nil {
		t.Errorf("the old storage is unusable while in use: %v", err)
	}
	_, _, err = m.GetAt(1, 1)
	wantError(t, "old generation", err, freshet.KindStale, "generation 2")
	release()
	release()
	if _, closed := o.state(); closed != "one" {
		t.Errorf("closed %q", closed)
	}
	if _, release, err = m.GetAt(1, 2); err != nil {
		t.Fatal(err)
	}
	m.Remove(1)
	m.Remove(1)
	_, _, err = m.Get(1)
	wantError(t, "removed", err, freshet.KindNotExist, "mount 1 is not known")
	release()
	if _, closed := o.state(); closed != "one two" {
		t.Errorf("closed %q", closed)
	}
}

func TestMountsSet(t *testing.T) {
	t.Parallel()
	o := &fakeOpener{}
	m := ufs.NewMounts(o, ufs.Environment{}, ufs.MountsOptions{Wrap: func(fs ufs.FS) ufs.FS { return fs }})
	if err := m.Set([]freshet.Mount{mount(1, 1, "a"), mount(2, 1, "b")}); err != nil {
		t.Fatal(err)
	}
	if err := m.Set([]freshet.Mount{mount(2, 1, "b"), mount(3, 1, "c")}); err != nil {
		t.Fatal(err)
	}
	if opened, closed := o.state(); opened != "a b c" || closed != "a" || len(m.All()) != 2 {
		t.Errorf("opened %q, closed %q, %d mounts", opened, closed, len(m.All()))
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	wantError(t, "put after close", m.Put(mount(4, 1, "d")), freshet.KindUnavailable, "shutting down")
}

// TestMissingRootIsAnOutage: a root that can't be opened says nothing about the
// files in it.
func TestMissingRootIsAnOutage(t *testing.T) {
	t.Parallel()
	o := &fakeOpener{fail: freshet.Errorf(freshet.KindNotExist, "open", "", "no such directory")}
	m := ufs.NewMounts(o, ufs.Environment{}, ufs.MountsOptions{})
	wantError(t, "put", m.Put(mount(1, 1, "a")), freshet.KindUnavailable, "no such directory")
	_, _, err := m.Get(1)
	wantError(t, "get", err, freshet.KindUnavailable, "no such directory")
	wantError(t, "reopen", m.Reopen(), freshet.KindUnavailable, "no such directory")
	o.mu.Lock()
	o.fail = nil
	o.mu.Unlock()
	if err := m.Reopen(); err != nil {
		t.Fatal(err)
	}
	_, release, err := m.Get(1)
	if err != nil {
		t.Fatal(err)
	}
	release()
}

func TestMountsUnderLoad(t *testing.T) {
	t.Parallel()
	o := &fakeOpener{}
	m := ufs.NewMounts(o, ufs.Environment{}, ufs.MountsOptions{})
	if err := m.Put(mount(1, 1, "0")); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2000 {
				fs, release, err := m.Get(1)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := fs.Stat(t.Context(), ""); err != nil {
					t.Error(err)
				}
				release()
			}
		})
	}
	for g := uint64(2); g < 200; g++ {
		if err := m.Put(mount(1, g, "x")); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if opened, closed := o.state(); len(strings.Fields(opened)) != 199 || len(strings.Fields(closed)) != 199 {
		t.Errorf("%d opened, %d closed", len(strings.Fields(opened)), len(strings.Fields(closed)))
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	for k, text := range map[freshet.Kind]string{
		freshet.KindNotExist: "does not exist in the storage", freshet.KindPermission: "check the credentials", freshet.KindUnavailable: "can't be reached",
		freshet.KindDeadline: "did not answer in time", freshet.KindExhausted: "throttling", freshet.KindInternal: "can't be used",
	} {
		for _, step := range []string{"stat", "list"} {
			store := mem.New(mem.Options{Hook: func(s, _ string) error {
				if s == step {
					return k
				}
				return nil
			}})
			wantError(t, step, ufs.Probe(t.Context(), store.FS("")), k, text)
		}
	}
	store := mem.New(mem.Options{})
	if err := ufs.Probe(t.Context(), store.FS("")); err != nil {
		t.Error(err)
	}
}

// adjustable is a storage that takes bounds.
type adjustable struct {
	ufs.FS
	given *[]ufs.Guards
}

func (f adjustable) Adjust(g ufs.Guards) { *f.given = append(*f.given, g) }

type around struct{ ufs.FS }

func (f around) Unwrap() ufs.FS { return f.FS }

func TestBoundsReachAnOpenStorage(t *testing.T) {
	t.Parallel()
	var given []ufs.Guards
	opener := &fakeOpener{}
	m := ufs.NewMounts(opener, ufs.Environment{}, ufs.MountsOptions{Wrap: func(fs ufs.FS) ufs.FS { return around{adjustable{fs, &given}} }})
	mount := func(gen uint64, options ...string) freshet.Mount {
		out := freshet.Mount{ID: 1, Generation: gen, URI: "a", Options: map[string]string{}}
		for i := 0; i < len(options); i += 2 {
			out.Options[options[i]] = options[i+1]
		}
		return out
	}
	const rate = ufs.OptionMaxRequestsPerSecond
	for _, at := range []freshet.Mount{
		mount(2), mount(2, rate, "5"), mount(2, rate, "5"), mount(2, rate, "7", "region", "x"), mount(1, rate, "9"), mount(2),
	} {
		if err := m.Set([]freshet.Mount{at}); err != nil {
			t.Fatal(err)
		}
	}
	if opened, _ := opener.state(); opened != "a" {
		t.Errorf("opened %q", opened)
	}
	if len(given) != 2 || given[0].RequestsPerSecond != 5 || given[1].RequestsPerSecond != 0 {
		t.Errorf("given %+v", given)
	}
	if err := m.Set([]freshet.Mount{mount(2, rate, "many")}); !freshet.IsKind(err, freshet.KindUnavailable, freshet.KindInvalid) {
		t.Errorf("a bound that is none: %v", err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}
