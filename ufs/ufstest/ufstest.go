// Package ufstest owns the conformance suite of under file systems: what every
// ufs.FS must do, whatever lies below it. Each driver's tests call Run. A case
// that a storage can't pass is left out only by name and with a reason, and the
// suite prints which ones were. It never starts a storage.
package ufstest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-io/freshet/ufs"
)

// Harness says how to get an FS and what this storage is excused from.
type Harness struct {
	// New returns an FS over a fresh and empty root. The suite closes it.
	New func(t *testing.T) ufs.FS
	// Outside, if not nil, returns ways to change what lies below fs without
	// going through it, as other programs do.
	Outside func(t *testing.T, fs ufs.FS) Outside
	// Again, if not nil, opens a second FS over the root of fs, as another
	// process would. The suite closes it.
	Again func(t *testing.T, fs ufs.FS) ufs.FS
	// Denied, if not nil, returns an FS to which the storage denies everything,
	// and Down one whose storage can't be reached. Both hold nothing.
	Denied, Down func(t *testing.T) ufs.FS
	// Throttled, if not nil, returns an FS whose storage answers every call by its
	// own way to say "slow down", and Stalled one whose storage takes every call
	// and never answers. Both hold nothing, and neither may repeat a call for
	// longer than a few seconds.
	Throttled, Stalled func(t *testing.T) ufs.FS
	// Many is how many children the largest directory of the suite has; 0 is
	// 300. A storage that is quick to fill should say 10,000.
	Many int
	// Large is a length in bytes that needs several parts where uploads have
	// parts, and several reads everywhere; 0 is 1 MiB.
	Large int
	// PageSize is the smallest page that a listing can be asked for; 0 is 3.
	PageSize int
	// Quiet keeps the run out of the report: a wrapper, not a storage.
	Quiet bool
	// Exceptions maps names of cases to the reason why they do not apply.
	Exceptions map[string]string
}

// Outside changes a storage behind the back of an FS. Keys are relative to the
// root of the FS and taken as they are.
type Outside struct {
	// Put creates or replaces what is at key, with its parents.
	Put func(key string, data []byte) error
	// Rewrite changes the bytes of the file in place, keeping all that the
	// storage lets it keep; nil where Put is the only way.
	Rewrite func(key string, data []byte) error
	// Remove removes the file.
	Remove func(key string) error
	// PutMany, if not nil, puts one byte at each of keys faster than Put does.
	PutMany func(keys []string) error
	// Touch, if not nil, changes metadata of the file and none of its bytes, so
	// that the storage shows which of the two it was.
	Touch func(key string) error
	// Leftovers, if not nil, names what lies in the storage below the root and in
	// no listing: temporary files and uploads that have not ended.
	Leftovers func() ([]string, error)
	// Warned, if not nil, reports whether the driver logged a warning since it
	// was asked last.
	Warned func() bool
	// Special, if the storage can hold what is neither a regular file nor a
	// directory, or links, has ways to make each. Links lead to nothing, to a
	// file that they make, or out of the root.
	Special map[string]func(key string) error
}

// testCase is one demand on a driver.
type testCase struct {
	name string
	run  func(*env)
}

// Run runs all cases on the storage of h, each on a root of its own.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if h.Large == 0 {
		h.Large = 1 << 20
	}
	if h.PageSize == 0 {
		h.PageSize = 3
	}
	if h.Many == 0 {
		h.Many = 300
	}
	cases := allCases()
	known := make(map[string]bool, len(cases))
	ran, lacks := 0, map[string]string{}
	for _, c := range cases {
		known[c.name] = true
		if reason, ok := h.Exceptions[c.name]; ok {
			if strings.TrimSpace(reason) == "" {
				t.Errorf("exception %q has no reason", c.name)
			}
			continue
		}
		ran++
		t.Run(c.name, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Skipped() && lacks[c.name] == "" {
					t.Error("skipped without a reason that the suite knows")
				}
			})
			fs := h.New(t)
			t.Cleanup(func() {
				if err := fs.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			c.run(&env{T: t, h: h, fs: fs, feat: fs.Features(), lack: func(why string) { lacks[c.name] = why }})
		})
	}
	for _, name := range slices.Sorted(maps.Keys(h.Exceptions)) {
		if !known[name] {
			t.Errorf("exception for the unknown case %q", name)
		}
	}
	report(t, h.Quiet, fmt.Sprintf("%d of %d cases run\n not asked of this storage by its Features: %d%s\n exceptions: %d%s",
		ran-len(lacks), len(cases), len(lacks), reasons(lacks), len(h.Exceptions), reasons(h.Exceptions)))
}

// ReportEnv names a file to which each run of the suite adds what it ran and what
// it left out, for `make test` to print: go test shows no log of what passes.
const ReportEnv = "FRESHET_TEST_REPORT"

func report(t *testing.T, quiet bool, text string) {
	t.Helper()
	t.Log("ufstest: " + text)
	name := os.Getenv(ReportEnv)
	if name == "" || quiet {
		return
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // named by whoever runs the tests
	if err == nil {
		outcome := "passed"
		if t.Failed() {
			outcome = "FAILED"
		}
		dir, _ := os.Getwd()
		_, err = fmt.Fprintf(f, "%s %s %s: %s\n", outcome, filepath.Base(dir), t.Name(), text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Errorf("report: %v", err)
	}
}

func reasons(by map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(by)) {
		fmt.Fprintf(&b, "\n  %s: %s", name, by[name])
	}
	return b.String()
}

// Cases returns the names of all cases.
func Cases() []string {
	var names []string
	for _, c := range allCases() {
		names = append(names, c.name)
	}
	return names
}

func allCases() []testCase {
	return slices.Concat(statCases(), listCases(), inferredCases(), readCases(), writeCases(), uploadCases(), treeCases(), renameCases(),
		versionCases(), specialCases(), failureCases(), contextCases(), accessCases())
}
