package fault_test

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/fault"
	"github.com/freshet-io/freshet/ufs/mem"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

func TestWithoutRulesConforms(t *testing.T) {
	ufstest.Run(t, ufstest.InMemory(mem.Object, func(_ *testing.T, fs ufs.FS) ufs.FS { return fault.New(fs) }))
}

func write(t *testing.T, fs ufs.FS, key, data string) (ufs.Status, error) {
	t.Helper()
	w, err := fs.Create(t.Context(), key, ufs.CreateOptions{Size: int64(len(data))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, data); err != nil {
		t.Fatal(err)
	}
	return w.Commit(t.Context())
}

func TestUncertainCommitHappens(t *testing.T) {
	t.Parallel()
	store := mem.New(mem.Options{})
	fs := fault.New(store.FS(""))
	fs.Add(fault.Rule{Op: fault.OpCommit, Prefix: "a/", Skip: 1, Times: 1, Err: freshet.KindDeadline, Uncertain: true})
	for i, want := range []freshet.Kind{freshet.KindOK, freshet.KindDeadline, freshet.KindOK} {
		data := string(rune('0' + i))
		if _, err := write(t, fs, "a/f", data); freshet.KindOf(err) != want {
			t.Errorf("commit %d: %v, want kind %v", i, err, want)
		}
		if got := string(store.Snapshot()["a/f"]); got != data {
			t.Errorf("commit %d: the storage holds %q, want %q", i, got, data)
		}
	}
}

func TestLateEffectLandsLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := mem.New(mem.Options{})
		fs := fault.New(store.FS(""))
		land := make(chan struct{})
		fs.Add(fault.Rule{Op: fault.OpCommit, Times: 1, Err: freshet.KindUnavailable, Late: land})
		if _, err := write(t, fs, "f", "late"); !errors.Is(err, freshet.KindUnavailable) {
			t.Fatalf("got %v", err)
		}
		if _, err := write(t, fs, "f", "retry"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := string(store.Snapshot()["f"]); got != "retry" {
			t.Errorf("before it lands: %q", got)
		}
		close(land)
		fs.Wait()
		if got := string(store.Snapshot()["f"]); got != "late" {
			t.Errorf("after it landed: %q", got)
		}
	})
}

func TestGateHoldsACall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := mem.New(mem.Options{})
		store.Put("f", []byte("x"))
		fs := fault.New(store.FS(""))
		gate, entered := make(chan struct{}), make(chan struct{}, 1)
		remove := fs.Add(fault.Rule{Op: fault.OpStat, Gate: gate, Entered: entered})
		done := make(chan error, 1)
		go func() {
			_, err := fs.Stat(t.Context(), "f")
			done <- err
		}()
		<-entered
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("the call passed the closed gate: %v", err)
		default:
		}
		close(gate)
		if err := <-done; err != nil {
			t.Error(err)
		}
		remove()
		if _, err := fs.Stat(t.Context(), "f"); err != nil {
			t.Error(err)
		}
	})
}
