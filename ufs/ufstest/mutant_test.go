package ufstest_test

import (
	"context"
	"io"
	"iter"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

// mutant is a storage with one defect; what is nil is as it should be.
type mutant struct {
	ufs.FS
	stat   func(ufs.Status, error) (ufs.Status, error)
	list   func(n int, st *ufs.Status) bool // keeps the entry
	open   func(*ufs.OpenOptions)
	read   func(io.ReadCloser) io.ReadCloser
	create func(*ufs.CreateOptions)
	abort  func() bool // happens
	seal   func(fingerprint.Fingerprint) fingerprint.Fingerprint
}

func (m *mutant) Stat(ctx context.Context, key string) (ufs.Status, error) {
	st, err := m.FS.Stat(ctx, key)
	if m.stat != nil {
		return m.stat(st, err)
	}
	return st, err
}

func (m *mutant) List(ctx context.Context, dir string, opts ufs.ListOptions) iter.Seq2[ufs.Status, error] {
	if m.list == nil {
		return m.FS.List(ctx, dir, opts)
	}
	return func(yield func(ufs.Status, error) bool) {
		n := 0
		for st, err := range m.FS.List(ctx, dir, opts) {
			if n++; err == nil && !m.list(n, &st) {
				continue
			}
			if !yield(st, err) {
				return
			}
		}
	}
}

func (m *mutant) Open(ctx context.Context, key string, opts ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	if m.open != nil {
		m.open(&opts)
	}
	r, st, err := m.FS.Open(ctx, key, opts)
	if err == nil && m.read != nil {
		r = m.read(r)
	}
	return r, st, err
}

func (m *mutant) Create(ctx context.Context, key string, opts ufs.CreateOptions) (ufs.Writer, error) {
	if m.create != nil {
		m.create(&opts)
	}
	w, err := m.FS.Create(ctx, key, opts)
	if err == nil && m.abort != nil {
		w = &deafWriter{w, m.abort}
	}
	if err == nil && m.seal != nil {
		w = &liar{w, m.seal}
	}
	return w, err
}

type liar struct {
	ufs.Writer
	seal func(fingerprint.Fingerprint) fingerprint.Fingerprint
}

func (w *liar) Seal(ctx context.Context) (fingerprint.Fingerprint, error) {
	f, err := w.Writer.Seal(ctx)
	return w.seal(f), err
}

type deafWriter struct {
	ufs.Writer
	abort func() bool
}

func (w *deafWriter) Abort(ctx context.Context) error {
	if !w.abort() {
		return nil
	}
	return w.Writer.Abort(ctx)
}

// shortReader ends a long file early, and says that it was all.
type shortReader struct {
	io.ReadCloser
	left int
}

func (r *shortReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, io.EOF
	}
	n, err := r.ReadCloser.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// mutants are storages with one defect each, and the cases that must see it.
func mutants() map[string]struct {
	mutant mutant
	seenBy []string
} {
	absentIf := func(k freshet.Kind) func(ufs.Status, error) (ufs.Status, error) {
		return func(st ufs.Status, err error) (ufs.Status, error) {
			if freshet.IsKind(err, k) {
				err = freshet.Errorf(freshet.KindNotExist, "stat", "", "gone")
			}
			return st, err
		}
	}
	return map[string]struct {
		mutant mutant
		seenBy []string
	}{
		"an outage is an absence":      {mutant{stat: absentIf(freshet.KindUnavailable)}, []string{"failure/down-is-not-absent"}},
		"a refusal is an absence":      {mutant{stat: absentIf(freshet.KindPermission)}, []string{"failure/denied-is-not-absent"}},
		"throttling is an absence":     {mutant{stat: absentIf(freshet.KindExhausted)}, []string{"failure/throttled"}},
		"listings lack one in 1,000":   {mutant{list: func(n int, _ *ufs.Status) bool { return n%1000 != 0 }}, []string{"remove/many-children"}},
		"listings lack the 4th":        {mutant{list: func(n int, _ *ufs.Status) bool { return n != 4 }}, []string{"list/pages", "list/delimiter"}},
		"listings tell other versions": {mutant{list: func(_ int, st *ufs.Status) bool { st.Fingerprint = fingerprint.Fingerprint{}; return true }}, []string{"fingerprint/one-truth"}},
		"any version will do":          {mutant{open: func(o *ufs.OpenOptions) { o.Want = fingerprint.Fingerprint{} }}, []string{"open/want-other-version", "fingerprint/append"}},
		"ranges end late":              {mutant{open: func(o *ufs.OpenOptions) { o.Length = -1 }}, []string{"open/ranges", "open/concurrent-readers"}},
		"long files are cut":           {mutant{read: func(r io.ReadCloser) io.ReadCloser { return &shortReader{r, 1 << 19} }}, []string{"open/whole", "open/concurrent-readers"}},
		"whoever comes last wins":      {mutant{create: func(o *ufs.CreateOptions) { o.IfAbsent = false }}, []string{"create/if-absent", "create/if-absent-race"}},
		"replaces any version":         {mutant{create: func(o *ufs.CreateOptions) { o.IfMatch = fingerprint.Fingerprint{} }}, []string{"create/if-match", "create/if-match-race"}},
		"any length will do":           {mutant{create: func(o *ufs.CreateOptions) { o.Size = -1 }}, []string{"create/other-size-than-announced"}},
		"nothing tells a file":         {mutant{seal: func(fingerprint.Fingerprint) fingerprint.Fingerprint { return fingerprint.Fingerprint{} }}, []string{"upload/sealed"}},
		"something else tells a file":  {mutant{seal: func(f fingerprint.Fingerprint) fingerprint.Fingerprint { f.Content += "0"; return f }}, []string{"upload/sealed"}},
		"uploads are left behind":      {mutant{abort: func() bool { return false }}, []string{"upload/abort", "failure/context-ends-in-a-call"}},
	}
}

// TestMutant is the suite on one mutant; it fails, in a process of its own.
func TestMutant(t *testing.T) {
	defect, ok := mutants()[os.Getenv("FRESHET_TEST_MUTANT")]
	if !ok {
		t.Skip("only TestTheSuiteSees starts it")
	}
	h := ufstest.InMemory(mem.Local, func(_ *testing.T, fs ufs.FS) ufs.FS {
		m := defect.mutant
		m.FS = fs
		return &m
	})
	h.Many = 1500
	ufstest.Run(t, h)
}

// TestTheSuiteSees: each defect makes the cases fail that are about it.
func TestTheSuiteSees(t *testing.T) {
	t.Parallel()
	for _, name := range slices.Sorted(maps.Keys(mutants())) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestMutant$", "-test.timeout", "10m")
			cmd.Env = append(os.Environ(), "FRESHET_TEST_MUTANT="+name)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Error("the suite passed")
			}
			for _, by := range mutants()[name].seenBy {
				if !strings.Contains(string(out), "--- FAIL: TestMutant/"+by+" ") {
					t.Errorf("case %s does not see it:\n%.3000s", by, out)
				}
			}
		})
	}
}
