// Package ufstest owns the conformance suite of under file systems: what every
// ufs.FS must do, whatever lies below it. Each driver's tests call Run. A case
// that a storage can't pass is left out only by name and with a reason, and the
// suite prints which ones were. It never starts a storage.
package ufstest

import (
	"fmt"
	"maps"
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
	// Large is a length in bytes that needs several parts where uploads have
	// parts, and several reads everywhere; 0 is 1 MiB.
	Large int
	// PageSize is the smallest page that a listing can be asked for; 0 is 3.
	PageSize int
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
	cases := allCases()
	known := make(map[string]bool, len(cases))
	ran := 0
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
			fs := h.New(t)
			t.Cleanup(func() {
				if err := fs.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			c.run(&env{T: t, h: h, fs: fs, feat: fs.Features()})
		})
	}
	var excused []string
	for _, name := range slices.Sorted(maps.Keys(h.Exceptions)) {
		if !known[name] {
			t.Errorf("exception for the unknown case %q", name)
		}
		excused = append(excused, fmt.Sprintf("\n  %s: %s", name, h.Exceptions[name]))
	}
	t.Logf("ufstest: %d of %d cases run; exceptions: %d%s", ran, len(cases), len(excused), strings.Join(excused, ""))
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
	return slices.Concat(statCases(), listCases(), readCases(), writeCases(), uploadCases(), treeCases(), versionCases(), specialCases(), failureCases())
}
