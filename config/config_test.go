package config_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/ufs"
)

const coordinator = `cluster: eu-west
node: {name: c1, data_dir: /var/lib/freshet}
listen: {client: 127.0.0.1:7400, http: 127.0.0.1:7480}
raft: {bootstrap_expect: 3, join: [127.0.0.1:7500, c3.eu:7600], heartbeat: 300ms}
cross_cluster:
  join: ["127.0.0.1:8402"]
  gossip_key: env:GOSSIP
  peers: [{cluster: us-east, bus: "127.0.0.1:8403"}]
mounts:
  - path: /
    ufs: s3://lake/warehouse
    options: {region: eu-west-1}
    consistency: {level: invalidate, interval: never, degraded_interval: 60s}
sync: [{path: /hot, interval: 10s}, {path: /archive, interval: never}]
`

const cacheNode = `cluster: eu-west
node: {name: n1, data_dir: /var/lib/freshet}
coordinators: ["127.0.0.1:7400"]
cache:
  tiers: [{kind: disk, path: /mnt/nvme, size: 2TiB}]
  block_size: 64MiB
locality: {host: n1, rack: r7, zone: eu-west-1a}
`

type anyUFS struct{}

func (anyUFS) Parse(s ufs.Spec) (ufs.Canonical, error) {
	if !strings.HasPrefix(s.URI, "s3://") {
		return ufs.Canonical{}, freshet.Errorf(freshet.KindInvalid, "parse uri", "", "unknown scheme in %q", s.URI)
	}
	return ufs.Canonical{}, nil
}

func validate(t *testing.T, text string, insecure bool) error {
	t.Helper()
	f, err := config.Parse("f.yaml", []byte(text))
	if err != nil {
		return err
	}
	return f.Validate(config.ValidateOptions{Name: "f.yaml", Role: f.GuessRole(), Insecure: insecure, UFS: anyUFS{}})
}

func TestGoodFilesAreAcceptedWithDefaults(t *testing.T) {
	for name, text := range map[string]string{
		"coordinator": coordinator, "cache node": cacheNode, "no auth": coordinator + "auth: {mode: none}\n",
		"auth":                                   coordinator + "auth: {mode: simple, superuser: freshet, supergroup: admins, groups: {alice: [dev, ops], bob: []}}\n",
		"auth of a program that names every key": cacheNode + "auth: {mode: '', superuser: '', supergroup: '', groups: {}}\n",
	} {
		if err := validate(t, text, false); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	f, err := config.Parse("f.yaml", []byte(cacheNode))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Validate(config.ValidateOptions{Name: "f.yaml", Role: config.RoleCacheNode}); err != nil {
		t.Fatal(err)
	}
	if f.Listen.Data != config.DefaultData || f.Cache.Eviction != "s3-fifo" || f.Cache.Tiers[0].Size.Bytes() != 2<<40 {
		t.Errorf("defaults or values are wrong: %+v", f)
	}
}

func TestMistakesAreNamedWithTheirPlace(t *testing.T) {
	const wrong = "n" + "mae" // in two parts, or the spelling would be mended
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"unknown key", "cluster: eu\nnode:\n  " + wrong + ": c1\n", []string{"f.yaml:3:3", `"` + wrong + `"`, "did you mean 'name'"}},
		{"not YAML", "cluster: [\n", []string{"f.yaml:"}},
		{"duplicate key", "cluster: a\ncluster: b\n", []string{"f.yaml:2:1"}},
		{"wrong type", "cluster: eu\nraft: 7\n", []string{"f.yaml:2"}},
		{"alias", "mounts: &a [{path: /}]\nsync: *a\n", []string{"f.yaml:1:9", "anchors and aliases"}},
		{"two documents", "cluster: a\n---\ncluster: b\n", []string{"more than one"}},
		{"duration", strings.Replace(coordinator, "300ms", "5 parsecs", 1), []string{"f.yaml:4", "raft.heartbeat", "5 parsecs"}},
		{"negative duration", strings.Replace(coordinator, "300ms", "-5s", 1), []string{"raft.heartbeat", "-5s"}},
		{"huge duration", strings.Replace(coordinator, "300ms", "1e9h", 1), []string{"raft.heartbeat", "1e9h"}},
		{"interval", strings.Replace(coordinator, "10s", "5 parsecs", 1), []string{"f.yaml:14", "sync[0]", "5 parsecs"}},
		{"size", strings.Replace(cacheNode, "2TiB", "9999999TB", 1), []string{"f.yaml:5", "cache.tiers[0].size"}},
		{"negative size", strings.Replace(cacheNode, "2TiB", "-1", 1), []string{"cache.tiers[0].size", "-1"}},
		{"auth mode", coordinator + "auth: {mode: kerberos}\n", []string{"auth.mode", "kerberos", "not built", `"none"`, `"simple"`}},
		{"auth without a mode", coordinator + "auth: {superuser: root}\n", []string{"auth.mode", "required"}},
		{"auth of mode none", coordinator + "auth: {mode: none, groups: {a: [b]}}\n", []string{"auth", "no effect"}},
		{"auth of nobody", coordinator + "auth: {mode: simple, groups: {a: ['']}}\n", []string{"auth.groups", `"a"`}},
		{"auth of a cache node", cacheNode + "auth: {mode: simple}\n", []string{"auth", "coordinator"}},
		{"slots", coordinator + "sync_engine: {parallel: -1, per_mount: 20000}\n", []string{"sync_engine.parallel", "-1", "sync_engine.per_mount", "20000"}},
		{"metadata", coordinator + "metadata: {absent_paths: -1, absent_memory: 1KiB, prefetch_share: 11, prefetch_memory: 2}\n", []string{"metadata.absent_paths", "-1", "metadata.absent_memory", "1KiB", "metadata.prefetch_share", "11", "metadata.prefetch_memory"}},
		{"metadata of a cache node", cacheNode + "metadata: {prefetch: false}\n", []string{"metadata", "coordinator"}},
		{"audit", coordinator + "audit: {entries_per_second: -1}\n", []string{"audit.entries_per_second", "-1", "10000"}},
		{"audit of a cache node", cacheNode + "audit: {entries_per_second: 1}\n", []string{"audit", "coordinator"}},
		{"slots of a cache node", cacheNode + "sync_engine: {parallel: 3}\n", []string{"sync_engine", "coordinator"}},
		{"no number", strings.Replace(cacheNode, "2TiB", "NaN", 1), []string{"cache.tiers[0].size", "NaN"}},
		{"members", strings.Replace(coordinator, "expect: 3", "expect: 2", 1), []string{"raft.bootstrap_expect", "1, 3 or 5"}},
		{"plain text off loopback", strings.Replace(coordinator, "client: 127.0.0.1", "client: 10.0.0.1", 1), []string{"listen.client", "without TLS", "--insecure"}},
		{"scheme", strings.Replace(coordinator, "s3://", "s33://", 1), []string{"mounts[0]", "s33://"}},
		{"strict", strings.Replace(coordinator, "level: invalidate", "level: strict", 1), []string{"mounts[0].consistency.level", "not built yet"}},
		{"interval without one", strings.Replace(coordinator, "level: invalidate, interval: never", "level: interval", 1), []string{"mounts[0].consistency.interval", "required"}},
		{"secret in place", strings.Replace(coordinator, "env:GOSSIP", "c2VjcmV0LXNlY3JldC0=", 1), []string{"cross_cluster.gossip_key"}},
		{"no coordinators", strings.Replace(cacheNode, "coordinators: [\"127.0.0.1:7400\"]\n", "", 1), []string{"coordinators", "required"}},
		{"block size", strings.Replace(cacheNode, "64MiB", "1MiB", 1), []string{"f.yaml:6", "cache.block_size", "freshet policy set / --block-size"}},
		{"eviction", cacheNode + "  # end\nlog: {level: loud, format: xml}\n", []string{"log.level", "loud", "log.format", "xml"}},
		{"eviction policy", strings.Replace(cacheNode, "block_size", "eviction: clock\n  block_size", 1), []string{"cache.eviction", "clock", "sieve"}},
		{"fetches", strings.Replace(cacheNode, "block_size", "fetch: {blocks: -1, range: 1KiB, parallel: 65, requests: 5000}\n  block_size", 1), []string{"cache.fetch.blocks", "-1", "cache.fetch.range", "1KiB", "cache.fetch.parallel", "65", "cache.fetch.requests"}},
		{"fetches of none", strings.Replace(cacheNode, "block_size", "fetch: {blocks: 0, parallel: }\n  block_size", 1), []string{"cache.fetch.blocks", "0 is out of range"}},
		{"no hot copies", strings.Replace(coordinator, "listen: {", "placement: {hot_copies: 0}\nlisten: {", 1), []string{"placement.hot_copies", "1, which makes none"}},
		{"memory of uploads", strings.Replace(cacheNode, "block_size", "uploads: {memory: 1KiB}\n  block_size", 1), []string{"cache.uploads.memory", "1KiB"}},
		{"background", strings.Replace(cacheNode, "block_size", "background: {blocks: 2000, rate: 1}\n  block_size", 1), []string{"cache.background.blocks", "2000", "cache.background.rate"}},
		{"address", strings.Replace(coordinator, "127.0.0.1:7480", "127.0.0.1", 1), []string{"f.yaml:3", "listen.http", "host:port"}},
		{"port", strings.Replace(coordinator, "127.0.0.1:7480", "127.0.0.1:99999", 1), []string{"listen.http", "99999"}},
		{"half of TLS", coordinator + "tls: {ca: /a}\n", []string{"tls", "belong together"}},
		{"socket of a coordinator", strings.Replace(coordinator, "listen: {", "listen: {socket: /run/s, ", 1), []string{"listen.socket", "cache nodes only"}},
		{"relative socket", strings.Replace(cacheNode, "coordinators", "listen: {socket: s}\ncoordinators", 1), []string{"f.yaml:", "listen.socket", "absolute"}},
		{"long socket", strings.Replace(cacheNode, "coordinators", "listen: {socket: /"+strings.Repeat("s", 90)+"}\ncoordinators", 1), []string{"listen.socket", "91 bytes"}},
		{"mode of a socket", strings.Replace(cacheNode, "coordinators", "listen: {socket: /run/s, socket_mode: rw}\ncoordinators", 1), []string{"listen.socket_mode", "octal"}},
		{"mode without a socket", strings.Replace(cacheNode, "coordinators", "listen: {socket_mode: \"0600\", socket_users: a}\ncoordinators", 1), []string{"listen.socket_mode", "listen.socket_users", "without listen.socket"}},
		{"advertised socket", strings.Replace(cacheNode, "coordinators", "advertise: {socket: /run/s}\ncoordinators", 1), []string{"advertise.socket"}},
		{"wildcard", strings.Replace(cacheNode, "coordinators", "listen: {data: \"0.0.0.0:7410\"}\ncoordinators", 1), []string{"advertise.data", "can't be told"}},
		{"order of tiers", strings.Replace(cacheNode, "2TiB}", "2TiB}, {kind: memory, size: 1GiB}", 1), []string{"cache.tiers[1].kind", `"memory"`, `"disk"`}},
		{"two of a kind", strings.Replace(cacheNode, "2TiB}", "2TiB}, {kind: ssd, path: /b, size: 1GiB}", 1), []string{"cache.tiers[1].kind", `"ssd"`}},
		{"kind of tier", strings.Replace(cacheNode, "kind: disk", "kind: tape", 1), []string{"cache.tiers[0].kind", "tape"}},
		{"nested directories", strings.Replace(cacheNode, "2TiB}", "2TiB}, {kind: hdd, dirs: [{path: /a, size: 1GiB}, {path: /mnt/nvme/b, size: 1GiB}]}", 1), []string{"cache.tiers[1].dirs[1].path", "/mnt/nvme"}},
		{"path and dirs", strings.Replace(cacheNode, "size: 2TiB", "dirs: [{path: /a, size: 1GiB}]", 1), []string{"cache.tiers[0].dirs", "instead"}},
		{"directory without size", strings.Replace(cacheNode, "path: /mnt/nvme, size: 2TiB", "dirs: [{path: /a}]", 1), []string{"cache.tiers[0].dirs[0].size", "required"}},
		{"watermarks", strings.Replace(cacheNode, "2TiB}", "2TiB, high_watermark: 80, low_watermark: 90}", 1), []string{"cache.tiers[0].high_watermark", "80", "90"}},
		{"watermarks of memory", strings.Replace(cacheNode, "kind: disk, path: /mnt/nvme, size: 2TiB", "kind: memory, size: 1GiB, high_watermark: 90, low_watermark: 80", 1), []string{"cache.tiers[0].high_watermark", "no effect"}},
		{"eviction of a tier", strings.Replace(cacheNode, "2TiB}", "2TiB, eviction: clock}", 1), []string{"cache.tiers[0].eviction", "clock"}},
		{"relative directory", strings.Replace(cacheNode, "/var/lib", "var/lib", 1), []string{"node.data_dir", "absolute"}},
		{"mounted twice", strings.Replace(coordinator, "sync:", "  - {path: /, ufs: s3://b}\nsync:", 1), []string{"mounts[1].path", "twice"}},
		{"peer is itself", strings.Replace(coordinator, "us-east,", "eu-west,", 1), []string{"cross_cluster.peers[0].cluster", "another"}},
		{"active sync", strings.Replace(coordinator, "degraded_interval: 60s", "active_sync: sometimes", 1), []string{"f.yaml", "sometimes", "bool"}},
		{"path", strings.Replace(coordinator, "path: /hot", "path: /a/../b", 1), []string{"sync[0]", `".."`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := validate(t, tc.text, false)
			if !errors.Is(err, freshet.KindInvalid) {
				t.Fatalf("got %v, want an invalid error", err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is missing in: %v", want, err)
				}
			}
			if strings.Contains(err.Error(), "c2VjcmV0LXNlY3JldC0=") {
				t.Errorf("the secret is in the message: %v", err)
			}
		})
	}
}

func TestActiveSyncIsPartOfTheChange(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{"active_sync: true": true, "active_sync: false": false, "interval: 5m": false} {
		f, err := config.Parse("f.yaml", []byte("mounts:\n  - {path: /a, ufs: s3://b, consistency: {"+text+"}}\n"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := f.Mounts[0].Change("config")
		if err != nil || c.ActiveSync == nil || *c.ActiveSync != want {
			t.Errorf("%s: %+v, %v", text, c, err)
		}
	}
}

func TestPlainTextIsAllowedWhenSaidSo(t *testing.T) {
	text := strings.Replace(coordinator, "client: 127.0.0.1", "client: 10.0.0.1", 1)
	if err := validate(t, text, true); err != nil {
		t.Error(err)
	}
}

func TestLargeFileIsRefused(t *testing.T) {
	_, err := config.Parse("f.yaml", make([]byte, 50<<20))
	if !errors.Is(err, freshet.KindInvalid) || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(coordinator))
	f.Add([]byte(cacheNode))
	f.Fuzz(func(_ *testing.T, b []byte) {
		file, err := config.Parse("f.yaml", b)
		if err != nil {
			return
		}
		_ = file.Validate(config.ValidateOptions{Name: "f.yaml", Role: file.GuessRole(), UFS: anyUFS{}})
	})
}
