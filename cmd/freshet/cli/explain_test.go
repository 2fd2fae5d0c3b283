package cli_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
)

const (
	explainedPath  = freshet.Path("/explained")
	connectingPath = "/connecting" // of a mount whose storage was only just asked to tell
)

func operation(n byte) freshet.Operation {
	return freshet.Operation{
		ID: freshet.OpID{n}, Kind: "write", Path: explainedPath, State: "quarantine", Node: "n7",
		Since: time.Unix(1_700_000_000, 0), Until: time.Unix(1_700_000_960, 0), Remedy: "wait for it",
	}
}

// explained is an explanation with everything in it.
func explained() freshet.Explanation {
	info := freshet.Info{Path: explainedPath, Length: 3 << 20, BlockSize: 128 << 10, Owner: "o", Group: "g", Mode: 0o640, Fingerprint: fingerprint.Fingerprint{Content: "old"}}
	now := info
	now.Length, now.Mode, now.Fingerprint.Content = 5<<20, 0o600, "new"
	x := freshet.Explanation{
		Path: explainedPath, Verdict: "stale", Reason: "the reason", Info: &info, LastValidation: "long ago", NextCheck: "soon",
		ValidFrom: 7, Need: 9, RuleOrigin: "policy by terraform", Remedy: "do this",
		Freshness:  freshet.Freshness{Interval: freshet.Interval(time.Minute), Rule: "/", Degraded: true, DegradedReason: strings.Repeat("x", 1000)},
		Mount:      &freshet.Mount{Path: "/", URI: "s3://b"},
		ActiveSync: &freshet.ActiveSyncStatus{Source: "sqs:q", Reason: "not heard since yesterday: " + strings.Repeat("y", 1000), SinceNotice: -1, Lag: -1},
		Stamps: []freshet.ExplainedStamp{
			{Kind: freshet.StampSelf, Path: explainedPath, Index: 9, Cause: "because", At: time.Unix(1_700_000_000, 0)},
			{Kind: freshet.StampRecursive, Path: "/", Index: 4, Cause: "not known"},
		},
		Publishers: []freshet.PublisherStatus{{Cluster: "us-east", State: "synced", Applied: 9, Head: 12, SinceContact: 2 * time.Second}},
		Operations: []freshet.Operation{operation(1), operation(2)},
		Storage:    &freshet.StorageView{Exists: true, Info: now},
		Effective: []freshet.Setting{
			{Property: freshet.PropertyTTL, Value: "24h0m0s", Path: "/explained", Origin: "terraform"},
			{Property: freshet.PropertyPinned, Value: "false", Origin: freshet.OriginDefault},
		},
		Replication: &freshet.ReplicationStatus{Replication: freshet.Replication{Min: 2, Max: 4}, Short: 3, Reason: "a node died"},
		Quotas:      []freshet.Quota{{Path: "/", MaxBytes: 1 << 30, UsedBytes: 1 << 29, UsedEntries: 7, Origin: "apply"}},
	}
	for i := range uint32(100) {
		b := freshet.ExplainedBlock{Index: i, Length: 1 << 20, Nodes: []string{"n1"}}
		if i == 50 {
			b.Nodes = []string{"n2"}
		}
		x.Blocks = append(x.Blocks, b)
	}
	x.MoreBlocks = 777
	return x
}

func TestExplainIsReadable(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	r := run(c, "", "explain", string(explainedPath))
	for _, want := range []string{
		`/explained +STALE`, `why +the reason`, `rule +1m0s, set for / \(policy by terraform\)`, `active sync +sqs:q, not heard\n`, `degraded +x{160}…\n`, `remedy +do this`,
		`CACHED +STORAGE`, `size +3.0 MiB +5.0 MiB`, `owner, mode +o:g 0640 +o:g 0600`, `block size +128KiB +-\n`, `and 777 more blocks`, `in all +another version`,
		`from log index 7 on, last invalidated at 9`, `self +/explained +9 +2023-11-14T22:13:20Z +because`, `recursive +/ +4 +- +not known`,
		`ttl +24h0m0s +/explained +terraform\n`, `pinned +false +- +default\n`, `/ +7 +- +512.0 MiB +1.0 GiB +50% +ok +apply\n`,
		`copies +at least 2, at most 4; 3 blocks have fewer: a node died\n`,
		`us-east +synced +9 +12 +3 +2s ago`,
		`quarantine +2023-11-14T22:13:20Z +2023-11-14T22:29:20Z +/explained +\(node n7\)`,
		`n1 +99 +99.0 MiB +0-49, 51-99`, `n2 +1 +1.0 MiB +50\n`,
	} {
		if !regexp.MustCompile(want).MatchString(r.out) {
			t.Errorf("does not say %q:\n%s", want, r.out)
		}
	}
	lines := strings.Split(r.out, "\n")
	if n := strings.Count(r.out, "wait for it"); n != 1 || len(lines) > 50 {
		t.Errorf("%d lines, the remedy %d times:\n%s", len(lines), n, r.out)
	}
	for _, line := range lines {
		if len(line) > 200 {
			t.Errorf("a line of %d bytes: %s", len(line), line)
		}
	}
	var all struct {
		Stamps, Operations []map[string]any
		Blocks             []any
		RuleOrigin         string
		Freshness          struct{ DegradedReason string }
	}
	r = run(c, "", "explain", string(explainedPath), "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &all); err != nil || len(all.Stamps) != 2 || len(all.Operations) != 2 || len(all.Blocks) != 100 ||
		len(all.Freshness.DegradedReason) != 1000 || all.Operations[0]["id"] != "01000000000000000000000000000000" {
		t.Errorf("%v: %+v", err, all)
	}
}

func TestClusterStatusListsWhatIsInQuarantine(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	if r := run(c, "", "cluster", "status"); strings.Contains(r.out, "OPERATION") {
		t.Errorf("nothing is in quarantine:\n%s", r.out)
	}
	c = newCluster(t)
	c.quarantined = []freshet.Operation{operation(1)}
	r := run(c, "", "cluster", "status")
	if r.code != 0 || !strings.Contains(r.out, "01000000000000000000000000000000") || !strings.Contains(r.out, "wait for it") || !strings.Contains(r.out, "/explained") {
		t.Errorf("%d:\n%s", r.code, r.out)
	}
}

func TestAMountThatIsStillConnectingIsNotCalledDegraded(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for _, args := range [][]string{{"mount", "add", connectingPath, "s3://b", "--active-sync"}, {"mount", "add", connectingPath, "s3://b", "--active-sync", "--dry-run"}} {
		if r := run(c, "", args...); r.code != 0 || strings.Contains(r.out, "DEGRADED") || !strings.Contains(r.out, "connecting") {
			t.Errorf("%d:\n%s", r.code, r.out)
		}
	}
}
