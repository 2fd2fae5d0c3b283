package setups_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/freshet-io/freshet/test/e2e"
)

// TestPoliciesByEveryFace sets policies by configuration file, REST and command
// line: all see the same.
func TestPoliciesByEveryFace(t *testing.T) {
	s := example(t, "setup-freshet-only.yaml")
	s.direct(t, "hot/f", "x")
	w := s.world(t, true)
	s.apply(t, w.A)
	url := "http://" + w.A.HTTP[0] + "/v1/policies"
	e2e.HTTP(t, "PATCH", url+"?path=/lake/hot", `{"properties":{"sync_interval":"10s","ttl":"1h"},"origin":"terraform"}`).
		Want(t, 200, `"property":"ttl"`, `"value":"1h0m0s"`, `"origin":"terraform"`)
	e2e.HTTP(t, "PATCH", url, `{"path":"/lake/hot","properties":{"writeType":"through"},"unset":["ttl"]}`).Want(t, 200, `"write_type"`, `"sync_interval"`)
	e2e.HTTP(t, "PATCH", url, `{"path":"/lake/hot","properties":{"block_size":"1048576"}}`).Want(t, 200, `"block_size"`, `"value":"1MiB"`)
	e2e.HTTP(t, "GET", url+"?path=/lake/hot/f", "").Want(t, 200, `"effective"`, `"10s"`, `"origin":"mount"`)
	e2e.HTTP(t, "PUT", url, `{"path":"/lake/hot","properties":{"sync_interval":"20s"},"dryRun":true}`).Want(t, 200, `"20s"`)
	w.A.CLI(t, "policy", "show", "/lake/hot/f").Want(t, 0, "10s", "terraform", "through", "operator")
	w.A.CLI(t, "sync", "get", "/lake/hot/f").Want(t, 0, "10s", "terraform")
	w.A.CLI(t, "sync", "unset", "/lake/hot").Want(t, 0, "never")
	w.A.CLI(t, "policy", "ls").Want(t, 0, "write_type", "/lake/hot", "/lake/logs", "apply")
	for body, code := range map[string]int{
		`{"path":"/lake","properties":{"consistency":"strict"}}`:      501,
		`{"path":"/lake","properties":{"consistency":"interval"}}`:    400,
		`{"path":"/lake","properties":{"block_size":"1000"}}`:         400,
		`{"path":"/lake","properties":{"block_size":"2GiB"}}`:         400,
		`{"path":"/lake","properties":{"replication_min":65}}`:        400,
		`{"path":"/lake","properties":{"ttl_action":"delete"}}`:       501,
		`{"path":"/lake","properties":{"colour":"red"}}`:              400,
		`{"path":"/lake","properties":{}}`:                            400,
		`{"path":"lake","properties":{"ttl":"1h"}}`:                   400,
		`{"path":"/lake","properties":{"ttl":"1h"},"origin":"mount"}`: 400,
	} {
		e2e.HTTP(t, "PATCH", url, body).Want(t, code)
	}
	e2e.HTTP(t, "DELETE", url+"?path=/lake/hot&properties=ttl", "").Want(t, 404, "not set")
	e2e.HTTP(t, "DELETE", url+"?path=/lake/hot", "").Want(t, 200)
	e2e.HTTP(t, "DELETE", url+"?path=/lake/hot", "").Want(t, 404)

	// A file without the policy, with --prune: what apply made goes, what others made stays.
	w.A.CLI(t, "policy", "set", "/lake/logs", "--sync-interval", "7s").Want(t, 0)
	file := filepath.Join(t.TempDir(), "pruned.yaml")
	text := "mounts:\n  - path: /lake\n    ufs: file://" + s.dir + "\n    consistency: {level: invalidate, interval: never}\n"
	quotas := filepath.Join(t.TempDir(), "quotas.yaml")
	if err := os.WriteFile(quotas, []byte("quotas: [{path: /lake/logs, entries: 1}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.A.CLI(t, "apply", "-f", quotas).Want(t, 0, "quota", "entries: 1", "1 change made")
	e2e.HTTP(t, "GET", "http://"+w.A.HTTP[0]+"/v1/quotas", "").Want(t, 200, `"/lake/logs"`, `"origin":"apply"`)
	w.A.CLI(t, "fs", "mkdir", "--parents", "/lake/logs/a/b").Want(t, 5, "the quota of /lake/logs is exceeded")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.A.CLI(t, "plan", "-f", file).Want(t, 0, "0 changes")
	w.A.CLI(t, "apply", "-f", file, "--prune").Want(t, 0, "write_type: through -> inherited", "-  quota", "2 changes made")
	w.A.CLI(t, "policy", "show", "/lake/logs/f").Want(t, 0, "7s", "operator", "cache_through")
}
