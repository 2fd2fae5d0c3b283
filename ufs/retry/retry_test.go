package retry_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
	"github.com/freshet-io/freshet/ufs/retry"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

func TestConforms(t *testing.T) {
	stores := map[ufs.FS]*mem.Store{}
	failing := func(k freshet.Kind) func(*testing.T) ufs.FS {
		return func(*testing.T) ufs.FS {
			s := mem.New(mem.Options{Hook: func(string, string) error { return k }})
			return retry.New(s.FS(""), retry.Options{First: time.Millisecond, Max: time.Millisecond})
		}
	}
	ufstest.Run(t, ufstest.Harness{
		Quiet: true,
		New: func(*testing.T) ufs.FS {
			s := mem.New(mem.Options{})
			f := retry.New(s.FS(""), retry.Options{})
			stores[f] = s
			return f
		},
		Again: func(_ *testing.T, fs ufs.FS) ufs.FS { return stores[fs].FS("") },
		Outside: func(_ *testing.T, fs ufs.FS) ufstest.Outside {
			return ufstest.Outside{
				Put:    func(key string, data []byte) error { stores[fs].Put(key, data); return nil },
				Remove: func(key string) error { stores[fs].Remove(key); return nil },
			}
		},
		Denied: failing(freshet.KindPermission), Down: failing(freshet.KindUnavailable), Throttled: failing(freshet.KindExhausted),
		Exceptions: map[string]string{
			"failure/context-ends-while-the-storage-is-silent": "waiting is the storage's own affair; TestContextEndsTheWaiting has what this package waits for",
		},
	})
}

// flaky fails the calls of one step, by their number from 1.
func flaky(step string, k freshet.Kind, fails func(n int) bool) *mem.Store {
	n := 0
	return mem.New(mem.Options{PageSize: 2, Hook: func(s, _ string) error {
		if s != step {
			return nil
		}
		if n++; fails(n) {
			return k
		}
		return nil
	}})
}

func TestRepeatsOnlyPassingFailures(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		kind  freshet.Kind
		calls int
	}{
		{freshet.KindUnavailable, 4},
		{freshet.KindExhausted, 4},
		{freshet.KindNotExist, 1},
		{freshet.KindPermission, 1},
		{freshet.KindStale, 1},
		{freshet.KindDeadline, 1},
		{freshet.KindInternal, 1},
		{freshet.KindInvalid, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := flaky("stat", tc.kind, func(int) bool { return true })
			_, err := retry.New(store.FS(""), retry.Options{}).Stat(t.Context(), "f")
			if freshet.KindOf(err) != tc.kind || store.Calls()["stat"] != tc.calls {
				t.Errorf("%v: %d calls, error %v, want %d calls and the same kind", tc.kind, store.Calls()["stat"], err, tc.calls)
			}
		})
	}
}

func TestSucceedsAfterAShortOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := flaky("open", freshet.KindUnavailable, func(n int) bool { return n < 3 })
		store.Put("f", []byte("x"))
		var told []string
		fs := retry.New(store.FS(""), retry.Options{Retried: func(op string, _ error) { told = append(told, op) }})
		r, _, err := fs.Open(t.Context(), "f", ufs.OpenOptions{Length: -1})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if !slices.Equal(told, []string{"open", "open"}) {
			t.Errorf("told of %q", told)
		}
	})
}

func TestNeverRepeatsAChange(t *testing.T) {
	t.Parallel()
	for step, call := range map[string]func(context.Context, ufs.FS) error{
		"mkdir": func(ctx context.Context, fs ufs.FS) error {
			_, err := fs.Mkdir(ctx, "d", ufs.MkdirOptions{})
			return err
		},
		"rename": func(ctx context.Context, fs ufs.FS) error { _, err := fs.Rename(ctx, "f", "g"); return err },
		"delete": func(ctx context.Context, fs ufs.FS) error { return fs.Remove(ctx, "f", ufs.RemoveOptions{}) },
		"create": func(ctx context.Context, fs ufs.FS) error {
			_, err := fs.Create(ctx, "f", ufs.CreateOptions{Size: -1})
			return err
		},
		"commit": func(ctx context.Context, fs ufs.FS) error {
			w, err := fs.Create(ctx, "f", ufs.CreateOptions{Size: -1})
			if err != nil {
				return err
			}
			_, err = w.Commit(ctx)
			return err
		},
	} {
		store := flaky(step, freshet.KindUnavailable, func(int) bool { return true })
		if err := call(t.Context(), retry.New(store.FS(""), retry.Options{})); !freshet.IsKind(err, freshet.KindUnavailable) || store.Calls()[step] != 1 {
			t.Errorf("%s: %d calls, %v, want one call and unavailable", step, store.Calls()[step], err)
		}
	}
}

func TestListGoesOnWhereItBroke(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := flaky("list", freshet.KindUnavailable, func(n int) bool { return n%2 == 0 })
		var want []string
		for _, key := range []string{"a", "a-b", "a/x", "a/y", "a0", "b/c/d", "e"} {
			store.Put(key, nil)
		}
		want = []string{"a", "a-b", "a/", "a/x", "a/y", "a0", "b/", "b/c/", "b/c/d", "e"}
		var got []string
		for st, err := range retry.New(store.FS(""), retry.Options{}).List(t.Context(), "", ufs.ListOptions{Recursive: true}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, st.SortKey())
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestListThatNeverRecoversIsAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := flaky("list", freshet.KindUnavailable, func(n int) bool { return n > 1 })
		for _, key := range []string{"a", "b", "c"} {
			store.Put(key, nil)
		}
		var last error
		n := 0
		for _, err := range retry.New(store.FS(""), retry.Options{}).List(t.Context(), "", ufs.ListOptions{}) {
			last = err
			n++
		}
		if !freshet.IsKind(last, freshet.KindUnavailable) || n != 3 {
			t.Errorf("%d entries, then %v, want 2 entries and unavailable", n-1, last)
		}
	})
}

func TestContextEndsTheWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := flaky("stat", freshet.KindUnavailable, func(int) bool { return true })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := retry.New(store.FS(""), retry.Options{First: time.Hour, Max: time.Hour, Budget: 10 * time.Hour}).Stat(ctx, "f")
		if took := time.Since(start); took != time.Second || !freshet.IsKind(err, freshet.KindUnavailable) {
			t.Errorf("ended after %v with %v, want 1s and the storage's own error", took, err)
		}
	})
}

// An outage costs the quota once, and then one call each; answers earn it back.
func TestQuotaIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := true
		store := flaky("stat", freshet.KindUnavailable, func(int) bool { return down })
		store.Put("f", nil)
		fs := retry.New(store.FS(""), retry.Options{Quota: 10})
		calls := func(n int) int {
			before := store.Calls()["stat"]
			for range n {
				_, _ = fs.Stat(t.Context(), "f")
			}
			return store.Calls()["stat"] - before
		}
		if got := calls(100); got != 100+10 {
			t.Errorf("100 calls during an outage became %d, want 110", got)
		}
		start := time.Now()
		_, err := fs.Stat(t.Context(), "f")
		if took := time.Since(start); took != 0 || !freshet.IsKind(err, freshet.KindUnavailable) || !errors.Is(err, ufs.ErrRepeated) {
			t.Errorf("without quota: %v after %v, want unavailable, marked, at once", err, took)
		}
		down = false
		calls(4) // earn two
		down = true
		if got := calls(10); got != 10+2 {
			t.Errorf("10 calls after 4 answers became %d, want 12", got)
		}
	})
}

// Whoever is called is told that he is repeated, so that he does not repeat too;
// what was given up is marked, and not repeated by another one around it.
func TestOnePlaceRepeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := flaky("stat", freshet.KindUnavailable, func(int) bool { return true })
		var told []bool
		spy := spyFS{store.FS(""), func(ctx context.Context) { told = append(told, ufs.Repeated(ctx)) }}
		_, err := retry.New(retry.New(spy, retry.Options{}), retry.Options{}).Stat(t.Context(), "f")
		if !slices.Equal(told, []bool{true, true, true, true}) {
			t.Errorf("told %v, want four calls that are all repeated", told)
		}
		own, ok := err.(*freshet.Error) //nolint:errorlint // the border type itself is demanded
		if !ok || own.Kind != freshet.KindUnavailable || !errors.Is(err, ufs.ErrRepeated) {
			t.Errorf("error %v", err)
		}
	})
}

type spyFS struct {
	ufs.FS
	see func(context.Context)
}

func (f spyFS) Stat(ctx context.Context, key string) (ufs.Status, error) {
	f.see(ctx)
	return f.FS.Stat(ctx, key)
}

// A storage without what the mount is of will not have it a second later.
func TestMissingRootIsNotRepeated(t *testing.T) {
	t.Parallel()
	n := 0
	store := mem.New(mem.Options{Hook: func(string, string) error {
		n++
		return &freshet.Error{Op: "stat", Kind: freshet.KindUnavailable, Err: fmt.Errorf("bucket: %w", ufs.ErrNoRoot)}
	}})
	fs := retry.New(store.FS(""), retry.Options{})
	_, err := fs.Stat(t.Context(), "f")
	if n != 1 || !freshet.IsKind(err, freshet.KindUnavailable) {
		t.Errorf("%d calls, %v", n, err)
	}
	if err := ufs.Probe(t.Context(), fs); !freshet.IsKind(err, freshet.KindNotExist) {
		t.Errorf("the probe of a mount: %v", err)
	}
}
