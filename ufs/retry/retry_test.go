package retry_test

import (
	"context"
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
		Denied: failing(freshet.KindPermission), Down: failing(freshet.KindUnavailable),
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
