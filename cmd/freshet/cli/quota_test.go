package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/freshet-io/freshet"
)

type quotas struct{ *cluster }

func (quotas) some() []freshet.Quota {
	return []freshet.Quota{
		{Path: "/d", MaxEntries: 100, MaxBytes: 4 << 30, UsedEntries: 20, UsedBytes: 3 << 30, ReservedBytes: 1 << 29, Origin: "operator"},
		{Path: "/d/big", MaxBytes: 10, UsedEntries: 3, UsedBytes: 20, Counting: true, Origin: "apply"},
	}
}

func (q quotas) Quotas(_ context.Context, p freshet.Path) ([]freshet.Quota, error) {
	return slices.DeleteFunc(q.some(), func(o freshet.Quota) bool { return p != "" && !o.Path.Contains(p) }), q.err
}

func (q quotas) SetQuota(_ context.Context, c freshet.QuotaChange) (freshet.Quota, error) {
	out := freshet.Quota{Path: c.Path, MaxEntries: c.MaxEntries, MaxBytes: c.MaxBytes, Origin: "operator"}
	if c.DryRun {
		return out, q.err
	}
	return out, q.change("quota %s %d %d", c.Path, c.MaxEntries, c.MaxBytes)
}

func (q quotas) RemoveQuota(_ context.Context, r freshet.QuotaRemoval) (freshet.Quota, error) {
	if r.DryRun {
		return q.some()[0], q.err
	}
	return q.some()[0], q.change("no quota %s", r.Path)
}

func (c *cluster) PlanRename(_ context.Context, q freshet.RenameQuery) (freshet.RenamePlan, error) {
	i, err := c.info(q.Path)
	i.Path = q.Target
	return freshet.RenamePlan{Info: i, Objects: 12, Bytes: 3 << 20}, err
}

// endlessPath is a tree whose removal ends with its caller.
const endlessPath = freshet.Path("/endless")

func (c *cluster) RemoveTree(ctx context.Context, q freshet.RemoveQuery, report func(freshet.RemoveProgress) error) error {
	if err := c.change("rm -r %s", q.Path); err != nil {
		return err
	}
	if err := report(freshet.RemoveProgress{Entries: 1000, Current: q.Path}); err != nil {
		return err
	}
	if q.Path == endlessPath {
		<-ctx.Done()
		return ctx.Err()
	}
	return report(freshet.RemoveProgress{Entries: 1500, Done: true})
}

func TestApplyChangesQuotas(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	file := filepath.Join(t.TempDir(), "f.yaml")
	for _, x := range []struct {
		text string
		args []string
		did  []string
		says string
	}{
		{"quotas: [{path: /d, entries: 100, bytes: 4GiB}]", nil, nil, "0 changes"},
		{
			"quotas: [{path: /new, bytes: 1TiB}, {path: /d, entries: 100, bytes: 5GiB}]", nil,
			[]string{"quota /d 100 5368709120", "quota /new 0 1099511627776"},
			"entries: 100, bytes: 4GiB -> entries: 100, bytes: 5GiB",
		},
		// Only what apply made is removed.
		{"quotas: [{path: /new, entries: 1}]", []string{"--prune"}, []string{"no quota /d/big", "quota /new 1 0"}, "bytes: 10B"},
		{"quotas: [{path: /new, entries: 1}]", []string{"--prune", "--dry-run"}, nil, "2 changes; nothing changed"},
	} {
		if err := os.WriteFile(file, []byte(x.text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c.changes = nil
		r := run(c, "", append([]string{"apply", "-f", file}, x.args...)...)
		did := slices.DeleteFunc(c.changes, func(s string) bool { return !strings.Contains(s, "quota") })
		if r.code != 0 || !slices.Equal(did, x.did) {
			t.Errorf("%s %v: exit code %d, did %q, want %q\n%s%s", x.text, x.args, r.code, did, x.did, r.out, r.err)
		}
		if !strings.Contains(r.out+r.err, x.says) && x.args == nil {
			t.Errorf("%s does not say %q: %s%s", x.text, x.says, r.out, r.err)
		}
	}
}

func TestQuotasOnTheCommandLine(t *testing.T) {
	c := newCluster(t)
	for _, tc := range []struct {
		args, change string
		want         []string
		code         int
	}{
		{"quota ls", "", []string{"/d ", "20", "100", "3.5 GiB", "4.0 GiB", "88%", "ok", "/d/big", "200%", "counting", "apply"}, 0},
		{"quota show /d/f", "", []string{"/d "}, 0},
		{"quota show /elsewhere", "", nil, 3},
		{"quota show relative", "", nil, 2},
		{"quota set /d --bytes 2GiB --entries 7", "quota /d 7 2147483648", []string{"2.0 GiB"}, 0},
		{"quota set /d --bytes 2GiB --dry-run", "", []string{"2.0 GiB"}, 0},
		{"quota set /d", "", nil, 2},
		{"quota set /d --bytes lots", "", nil, 2},
		{"quota set /d --entries -1", "", nil, 2},
		{"quota unset /d", "no quota /d", []string{"4.0 GiB"}, 0},
		{"quota unset /d --dry-run", "", []string{"4.0 GiB"}, 0},
	} {
		c.changes = nil
		r := run(c, "", strings.Fields(tc.args)...)
		if r.code != tc.code || strings.Join(c.changes, ";") != tc.change {
			t.Errorf("%s: exit %d, %q, %s", tc.args, r.code, c.changes, r.err)
		}
		for _, w := range tc.want {
			if !strings.Contains(r.out, w) {
				t.Errorf("%s: %q is not in\n%s", tc.args, w, r.out)
			}
		}
	}
	var out struct {
		Quotas []struct {
			Path, UsedBytes, ReservedBytes string
			Counting                       bool
		}
	}
	r := run(c, "", "quota", "ls", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &out); err != nil || len(out.Quotas) != 2 || out.Quotas[0].ReservedBytes != "536870912" || !out.Quotas[1].Counting {
		t.Errorf("%+v, %v\n%s", out, err, r.out)
	}
}

func TestATreeIsRemovedAndMovedWithAWordOnItsCost(t *testing.T) {
	c := newCluster(t)
	r := run(c, "", "fs", "rm", "-r", "/d")
	if r.code != 0 || !strings.Contains(r.err, "1000 entries so far") || !strings.Contains(r.err, "removed /d: 1500 entries") || c.changes[0] != "rm -r /d" {
		t.Errorf("exit %d, %q, %s", r.code, c.changes, r.err)
	}
	c.err = freshet.Errorf(freshet.KindNotExist, "remove", "/no", "does not exist")
	if r := run(c, "", "fs", "rm", "-rf", "/no"); r.code != 0 {
		t.Errorf("exit %d, %s", r.code, r.err)
	}
	if r := run(c, "", "fs", "rm", "-r", "/no"); r.code != freshet.ExitNotFound {
		t.Errorf("exit %d, %s", r.code, r.err)
	}
	c.err = nil
	r = run(c, "", "fs", "mv", "/d/f", "/e", "--dry-run")
	if r.code != 0 || !strings.Contains(r.out, "12") || !strings.Contains(r.out, "3.0 MiB") || !strings.Contains(r.out, "copied and deleted") {
		t.Errorf("exit %d, %s %s", r.code, r.out, r.err)
	}
	var plan struct {
		Objects, Bytes int64 `json:",string"`
	}
	r = run(c, "", "fs", "mv", "/d/f", "/e", "--dry-run", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &plan); err != nil || plan.Objects != 12 || plan.Bytes != 3<<20 {
		t.Errorf("%+v, %v", plan, err)
	}
}

func TestAStreamedListingIsOneDocument(t *testing.T) {
	c := newCluster(t)
	for i := range 5 {
		c.put(freshet.Path(fmt.Sprintf("/d/x%d", i)), "x")
	}
	type doc struct {
		Entries []struct {
			Path string `json:"path" yaml:"path"`
			Mode int    `json:"mode" yaml:"mode"`
		} `json:"entries" yaml:"entries"`
		NextPageToken string `json:"nextPageToken" yaml:"nextPageToken"`
	}
	for _, tc := range []struct {
		args []string
		want int
	}{
		{[]string{"/d"}, 6},
		{[]string{"/d", "--limit", "2"}, 2},
		{[]string{"/empty-dir"}, 0},
		{[]string{"/d", "-R", "--prefix", "", "--start-after", ""}, 6},
	} {
		for _, form := range []string{"json", "yaml"} {
			r := run(c, "", append([]string{"fs", "ls", "-o", form}, tc.args...)...)
			var d doc
			read := yaml.Unmarshal
			if form == "json" {
				read = json.Unmarshal
			}
			if err := read([]byte(r.out), &d); err != nil || r.code != 0 || len(d.Entries) != tc.want {
				t.Errorf("%v -o %s: exit %d, %d entries, %v\n%s%s", tc.args, form, r.code, len(d.Entries), err, r.out, r.err)
				continue
			}
			for _, e := range d.Entries {
				if !strings.HasPrefix(e.Path, "/d/") || e.Mode != 0o640 {
					t.Errorf("%v -o %s: %+v", tc.args, form, e)
				}
			}
			if tc.want == 2 && !strings.Contains(r.err, "--start-after") {
				t.Errorf("nothing says how to go on: %s", r.err)
			}
		}
	}
	if r := run(c, "", "fs", "ls", "/d", "--limit", "-1"); r.code != 2 {
		t.Errorf("exit %d", r.code)
	}
}
