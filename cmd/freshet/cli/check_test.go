package cli_test

import (
	"bufio"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
)

// checker finds one difference of each kind below /d, none elsewhere, and repairs
// what it may.
type checker struct{ *cluster }

func (c checker) Check(_ context.Context, q freshet.CheckQuery, report func(freshet.CheckReport) error) error {
	if c.err != nil {
		return c.err
	}
	p := freshet.CheckProgress{Directories: 2, Entries: 10, Elapsed: time.Second, Done: true}
	if q.Path == "/d" {
		old, now := freshet.Info{Path: "/d/f", Length: 3, Owner: "a", Mode: 0o644}, freshet.Info{Path: "/d/f", Length: 5, Owner: "b", Mode: 0o600}
		for _, d := range []freshet.Difference{
			{Path: "/d/f", Class: freshet.DifferenceContent, Served: true, Reason: "nothing told of it", Cached: &old, Storage: &now},
			{Path: "/d/g\x1b", Class: freshet.DifferenceOnlyStorage, Reason: "it was invalidated", Storage: &freshet.Info{Type: freshet.TypeDirectory}},
		} {
			d.Repaired = q.Repair
			if d.Served {
				p.Served++
			} else {
				p.Excused++
			}
			if !d.Served && !q.All && !q.Repair {
				continue
			}
			if err := report(freshet.CheckReport{Difference: &d}); err != nil {
				return err
			}
		}
	}
	if q.Path == "/partly" {
		p.Failed = 1
		if err := report(freshet.CheckReport{Progress: p}); err != nil {
			return err
		}
		return freshet.Errorf(freshet.KindPermission, "list", q.Path, "denied")
	}
	return report(freshet.CheckReport{Progress: p})
}

func TestCheck(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for _, tc := range []struct {
		args  []string
		code  int
		words []string
		not   string
	}{
		{[]string{"/empty"}, 0, []string{"ENTRIES"}, "SERVED    c"},
		{[]string{"/d"}, 7, []string{"SERVED", "content", "/d/f", "3 B", "5 B", "a: 0644", "b: 0600", "nothing told of it", "--repair"}, "/d/g"},
		{[]string{"/d", "--all"}, 7, []string{"excused", "only-storage", `/d/g\u001b`, "nothing", "directory"}, "\x1b"},
		{[]string{"/d", "--repair"}, 0, []string{"repaired", "/d/g"}, "SERVED    content"},
		{[]string{"/d", "--repair", "--dry-run"}, 7, []string{"would", "mark it"}, "repaired "},
		{[]string{"/d", "--dry-run"}, 2, []string{"--repair"}, "ENTRIES"},
		{[]string{"/partly"}, 8, []string{"ENTRIES", "denied", "1 entries"}, "ended early"},
	} {
		r := run(c, "", append([]string{"check"}, tc.args...)...)
		all := r.out + r.err
		if r.code != tc.code || strings.Contains(all, tc.not) {
			t.Errorf("check %q: exit code %d, want %d\n%s", tc.args, r.code, tc.code, all)
		}
		for _, word := range tc.words {
			if !strings.Contains(all, word) {
				t.Errorf("check %q does not say %q:\n%s", tc.args, word, all)
			}
		}
	}
	r := run(c, "", "check", "/d", "--all", "-o", "json")
	var paths []string
	done := false
	for in := bufio.NewScanner(strings.NewReader(r.out)); in.Scan(); {
		var m struct {
			Difference *struct{ Path string }
			Progress   *struct {
				Done   bool
				Served string
			}
		}
		if err := json.Unmarshal(in.Bytes(), &m); err != nil {
			t.Fatalf("%v: %s", err, in.Text())
		}
		if m.Difference != nil {
			paths = append(paths, m.Difference.Path)
		}
		done = m.Progress != nil && m.Progress.Done && m.Progress.Served == "1"
	}
	if r.code != 7 || len(paths) != 2 || !done {
		t.Errorf("exit code %d: %s", r.code, r.out)
	}
	if r := run(c, "", "check", "/d", "-o", "yaml"); r.code != 7 || strings.Count(r.out, "---\n") != 2 || !strings.Contains(r.out, "class: content") {
		t.Errorf("exit code %d: %s", r.code, r.out)
	}
	c.err = freshet.Errorf(freshet.KindUnavailable, "check", "/d", "the storage is away")
	if r := run(c, "", "check", "/d"); r.code != freshet.ExitUnavailable || !strings.Contains(r.err, "the storage is away") {
		t.Errorf("%+v", r)
	}
}
