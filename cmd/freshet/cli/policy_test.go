package cli_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
)

// PathPolicies has one path with settings of three origins.
func (p policies) PathPolicies(_ context.Context, path freshet.Path) (freshet.PolicyReport, error) {
	at := func(p freshet.Path, prop freshet.Property, v, origin string) freshet.Setting {
		return freshet.Setting{Property: prop, Value: v, Path: p, Origin: origin}
	}
	r := freshet.PolicyReport{Policies: []freshet.Policy{
		{Path: "/", Settings: []freshet.Setting{at("/", freshet.PropertySyncInterval, "never", "mount"), at("/", freshet.PropertyConsistency, "invalidate", "mount")}},
		{Path: "/d", Settings: []freshet.Setting{
			at("/d", freshet.PropertySyncInterval, "10s", "apply"), at("/d", freshet.PropertyWriteType, "through", "apply"),
			at("/d", freshet.PropertyTTL, "1h0m0s", "operator"),
		}},
		{Path: "/old", Settings: []freshet.Setting{at("/old", freshet.PropertyTTL, "1h0m0s", "apply"), at("/old", freshet.PropertySyncInterval, "5s", "terraform")}},
	}}
	if path != "" {
		r.Effective = append(freshet.DefaultSettings(), r.Policies[1].Settings[2])
	}
	return r, p.err
}

func (p policies) ChangePolicy(_ context.Context, c freshet.PolicyChange) (freshet.Policy, error) {
	if err := c.Normalize(); err != nil {
		return freshet.Policy{}, err
	}
	if c.DryRun {
		return freshet.Policy{Path: c.Path, Settings: c.Set}, p.err
	}
	var parts []string
	for _, s := range c.Set {
		parts = append(parts, string(s.Property)+"="+s.Value)
	}
	for _, u := range c.Unset {
		parts = append(parts, "-"+string(u))
	}
	if c.Replace {
		parts = append(parts, "replace")
	}
	return freshet.Policy{Path: c.Path, Settings: c.Set}, p.change("policy %s %s by %s", c.Path, strings.Join(parts, " "), c.Origin)
}

func TestPolicyCommands(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for _, x := range []struct {
		args string
		code int
		out  string // on stdout or stderr
		did  string // "" if nothing may change
	}{
		{"policy set /d --ttl 2h --write-type through", 0, "2h0m0s", "policy /d write_type=through ttl=2h0m0s by operator"},
		{"policy set /d --sync-interval 0 --origin terraform --replace", 0, "always", "policy /d sync_interval=always replace by terraform"},
		{"policy set /d --ttl 2h --dry-run", 0, "2h0m0s", ""},
		{"policy set /d", 2, "at least one property", ""},
		{"policy set /d --consistency strict", 1, "not built yet", ""},
		{"policy set /d --ttl-action delete", 1, "not built yet", ""},
		{"policy set /d --ttl 5ms", 2, "1s or more", ""},
		{"policy set /d --origin mount --ttl 1h", 2, "another word", ""},
		{"policy unset /d", 0, "nothing is left", "policy /d replace by operator"},
		{"policy unset /d --property ttl --property write-type", 0, "nothing is left", "policy /d -ttl -write_type by operator"},
		{"policy unset /d --property colour", 2, "not a property", ""},
		{"policy show /d/x", 0, "64MiB", ""},
		{"policy ls", 0, "terraform", ""},
		{"policy ls -o json", 0, `"origin"`, ""},
	} {
		c.changes = nil
		r := run(c, "", strings.Fields(x.args)...)
		if r.code != x.code || !strings.Contains(r.out+r.err, x.out) || strings.Join(c.changes, "; ") != x.did {
			t.Errorf("%s: exit code %d, did %q, want %d and %q\nstdout: %s\nstderr: %s", x.args, r.code, c.changes, x.code, x.did, r.out, r.err)
		}
	}
}

func TestApplyChangesPoliciesPropertyByProperty(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	file := filepath.Join(t.TempDir(), "f.yaml")
	text := "sync: [{path: /d, interval: 10s}]\npolicies: [{path: /d, ttl: 2h}, {path: /new, write_type: through}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		args []string
		did  []string
	}{
		// What has the wanted value stays, whoever set it.
		{nil, []string{"policy /d ttl=2h0m0s by apply", "policy /new write_type=through by apply"}},
		// Only what apply made is removed.
		{[]string{"--prune"}, []string{"policy /d ttl=2h0m0s -write_type by apply", "policy /new write_type=through by apply", "policy /old -ttl by apply", "no quota /d/big"}},
		{[]string{"--prune", "--dry-run"}, nil},
	} {
		c.changes = nil
		r := run(c, "", append([]string{"apply", "-f", file}, x.args...)...)
		if r.code != 0 || !slices.Equal(c.changes, x.did) {
			t.Errorf("%v: exit code %d, did %q, want %q\n%s%s", x.args, r.code, c.changes, x.did, r.out, r.err)
		}
		if want := "ttl: 1h0m0s -> 2h0m0s"; !strings.Contains(r.out, want) {
			t.Errorf("%v does not say %q: %s", x.args, want, r.out)
		}
	}
}
