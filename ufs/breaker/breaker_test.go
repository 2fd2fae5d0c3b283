package breaker_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/breaker"
	"github.com/freshet-io/freshet/ufs/fault"
	"github.com/freshet-io/freshet/ufs/mem"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConforms(t *testing.T) {
	ufstest.Run(t, ufstest.InMemory(mem.Object, func(_ *testing.T, fs ufs.FS) ufs.FS { return breaker.New(fs, breaker.Options{}) }))
}

// world is a storage that can fail, behind a breaker that opens after three
// failures for ten seconds.
type world struct {
	*breaker.FS
	faults *fault.FS
	store  *mem.Store
	reg    *prometheus.Registry
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{store: mem.New(mem.Options{}), reg: prometheus.NewRegistry()}
	m, err := breaker.NewMetrics(w.reg)
	if err != nil {
		t.Fatal(err)
	}
	w.store.Put("f", []byte("hello"))
	w.faults = fault.New(w.store.FS(""))
	w.FS = breaker.New(w.faults, breaker.Options{Failures: 3, Pause: 10 * time.Second, Mount: 7, Metrics: m})
	return w
}

func (w *world) stat(t *testing.T, want freshet.Kind) {
	t.Helper()
	if _, err := w.Stat(t.Context(), "f"); !freshet.IsKind(err, want) {
		t.Fatalf("stat: %v (kind %v), want kind %v", err, freshet.KindOf(err), want)
	}
}

// calls returns how many calls of a kind reached the storage since it was asked
// last.
func (w *world) calls(step string) func() int {
	last := 0
	return func() int {
		n := w.store.Calls()[step]
		defer func() { last = n }()
		return n - last
	}
}

// metric returns the value of a metric of the only mount or kind; -1 if there is
// none.
func (w *world) metric(t *testing.T, name string) float64 {
	t.Helper()
	families, err := w.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "freshet_ufs_breaker_"+name {
			return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return -1
}

func TestOpensAndCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		entered := make(chan struct{}, 100)
		open := make(chan struct{})
		close(open)
		heal := w.faults.Add(fault.Rule{Err: freshet.Errorf(freshet.KindUnavailable, "dial", "", "connection refused"), Gate: open, Entered: entered})
		for range 3 {
			if w.metric(t, "state") != 0 {
				t.Error("it is open too early")
			}
			w.stat(t, freshet.KindUnavailable)
			time.Sleep(time.Second)
		}
		asked := len(entered)
		start := time.Now()
		_, err := w.Stat(t.Context(), "f")
		if time.Since(start) != 0 || len(entered) != asked {
			t.Error("an open breaker asked the storage")
		}
		if !errors.Is(err, ufs.ErrNotSent) {
			t.Errorf("the error %v does not say that nothing was sent", err)
		}
		for _, want := range []string{"connection refused", "down since 2000-01-01T00:00:00Z", "every 10s"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("the error %q lacks %q", err, want)
			}
		}
		if s, o, r := w.metric(t, "state"), w.metric(t, "opened_total"), w.metric(t, "refused_total"); s != 2 || o != 1 || r != 1 {
			t.Errorf("metrics say state %v, opened %v, refused %v", s, o, r)
		}
		time.Sleep(10 * time.Second) // a probe fails: another pause
		if w.metric(t, "state") != 1 {
			t.Error("it is not half-open after the pause")
		}
		w.stat(t, freshet.KindUnavailable)
		if len(entered) != asked+1 {
			t.Errorf("%d probes", len(entered)-asked)
		}
		time.Sleep(9 * time.Second)
		w.stat(t, freshet.KindUnavailable)
		if len(entered) != asked+1 {
			t.Error("the second pause is too short")
		}
		heal()
		time.Sleep(2 * time.Second)
		w.stat(t, freshet.KindOK)
		w.stat(t, freshet.KindOK)
		if w.metric(t, "state") != 0 {
			t.Error("it is not closed after a success")
		}
		if err := w.Close(); err != nil || w.metric(t, "state") != -1 {
			t.Errorf("after Close: %v, state %v", err, w.metric(t, "state"))
		}
	})
}

// TestOneProbe: while one call tries the storage, the others are refused; a probe
// that its caller gives up frees the way for the next.
func TestOneProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		heal := w.faults.Add(fault.Rule{Err: freshet.KindUnavailable})
		for range 3 {
			w.stat(t, freshet.KindUnavailable)
		}
		heal()
		time.Sleep(11 * time.Second)
		gate := make(chan struct{})
		w.faults.Add(fault.Rule{Op: fault.OpStat, Gate: gate, Times: 2})
		stats := w.calls("stat")
		for i, end := range []func(cancel func()){func(cancel func()) { cancel() }, func(func()) { close(gate) }} {
			ctx, cancel := context.WithCancel(t.Context())
			probe := make(chan error, 1)
			go func() {
				_, err := w.Stat(ctx, "f")
				probe <- err
			}()
			synctest.Wait()
			w.stat(t, freshet.KindUnavailable)
			if n := stats(); n != 0 {
				t.Errorf("%d calls passed beside the probe", n)
			}
			end(cancel)
			if err := <-probe; (i == 0) != errors.Is(err, context.Canceled) {
				t.Errorf("probe %d: %v", i, err)
			}
			cancel()
		}
		w.stat(t, freshet.KindOK)
	})
}

// TestWhatCounts: only an outage does, and only in a row.
func TestWhatCounts(t *testing.T) {
	t.Parallel()
	for _, row := range freshet.Kinds() {
		if row.Kind == freshet.KindOK {
			continue
		}
		t.Run(row.Name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.faults.Add(fault.Rule{Op: fault.OpStat, Err: row.Kind})
			down := row.Kind == freshet.KindUnavailable || row.Kind == freshet.KindDeadline
			for range 20 {
				_, _ = w.Stat(t.Context(), "f")
			}
			if got := w.metric(t, "state") == 2; got != down {
				t.Errorf("after 20 times %v: open is %v, want %v", row.Kind, got, down)
			}
		})
	}
	t.Run("no such bucket", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.faults.Add(fault.Rule{Err: freshet.Errorf(freshet.KindUnavailable, "stat", "", "%w", ufs.ErrNoRoot)})
		for range 20 {
			w.stat(t, freshet.KindUnavailable)
		}
		if w.metric(t, "state") != 0 {
			t.Error("answers of the storage opened it")
		}
	})
	t.Run("with answers between", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		for range 20 {
			remove := w.faults.Add(fault.Rule{Err: freshet.KindUnavailable, Times: 2})
			w.stat(t, freshet.KindUnavailable)
			w.stat(t, freshet.KindUnavailable)
			if _, err := w.Stat(t.Context(), "none"); !freshet.IsKind(err, freshet.KindNotExist) {
				t.Fatal(err)
			}
			remove()
		}
		if w.metric(t, "state") != 0 {
			t.Error("it opened although the storage answered every third call")
		}
	})
	t.Run("given up by the caller", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.faults.Add(fault.Rule{Op: fault.OpStat, Gate: make(chan struct{})})
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			if _, err := w.Stat(ctx, "f"); !freshet.IsKind(err, freshet.KindDeadline) {
				t.Error(err)
			}
			cancel()
		}
		if w.metric(t, "state") != 0 {
			t.Error("impatient callers opened it")
		}
	})
}

// TestStreamsCountAndGoOn: what has begun is never refused, and tells of an outage.
func TestStreamsCountAndGoOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r, _, err := w.Open(t.Context(), "f", ufs.OpenOptions{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	upload, err := w.Create(t.Context(), "g", ufs.CreateOptions{Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	heal := w.faults.Add(fault.Rule{Err: freshet.KindUnavailable})
	_, _ = r.Read(make([]byte, 1)) // three calls that fail
	_, _ = io.WriteString(upload, "x")
	for _, err := range w.List(t.Context(), "", ufs.ListOptions{}) {
		if !freshet.IsKind(err, freshet.KindUnavailable) {
			t.Error(err)
		}
	}
	if w.metric(t, "state") != 2 {
		t.Error("failures of streams do not count")
	}
	heal()
	w.stat(t, freshet.KindUnavailable)
	if got, err := io.ReadAll(r); err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := io.WriteString(upload, "x"); err != nil {
		t.Error(err)
	}
	if _, err := upload.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if got := string(w.store.Snapshot()["g"]); got != "x" {
		t.Errorf("the storage holds %q", got)
	}
}
