package coordinator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
)

func (w *world) setPolicy(m *member, p freshet.Path, pairs ...string) freshet.Policy {
	w.Helper()
	after, err := m.ChangePolicy(w.Context(), policy(p, pairs...))
	if err != nil {
		w.Fatalf("policy of %s: %v", p, err)
	}
	return after
}

// policy makes a change from names and values in turn.
func policy(p freshet.Path, pairs ...string) freshet.PolicyChange {
	c := freshet.PolicyChange{Path: p}
	for pair := range slices.Chunk(pairs, 2) {
		c.Set = append(c.Set, freshet.Setting{Property: freshet.Property(pair[0]), Value: pair[1]})
	}
	return c
}

func settings2text(all []freshet.Setting) string {
	var out []string
	for _, s := range all {
		out = append(out, fmt.Sprintf("%s=%s@%s by %s", s.Property, s.Value, s.Path, s.Origin))
	}
	return strings.Join(out, "; ")
}

func TestPoliciesShowWhatAppliesAndWhereItComesFrom(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{options: func(o *coordinator.Options) {
		o.Policies = []freshet.PolicyChange{policy("/", "ttl", "24h", "sync_interval", "1h")}
	}}, func(w *world) {
		m := w.leader()
		began := time.Now().UTC()
		time.Sleep(time.Second)
		ch := policy("/data/hot", "sync_interval", "10s", "write_type", "through")
		ch.Origin = "terraform"
		if _, err := m.ChangePolicy(w.Context(), ch); err != nil {
			w.Fatal(err)
		}
		time.Sleep(time.Second)
		after := w.setPolicy(m, "/data/hot", "block_size", "67108864")
		if got, want := settings2text(after.Settings), "sync_interval=10s@/data/hot by terraform; write_type=through@/data/hot by terraform; block_size=64MiB@/data/hot by operator"; got != want {
			w.Errorf("after the change:\n%s, want\n%s", got, want)
		}
		if a, b := after.Settings[0].SetAt, after.Settings[2].SetAt; a != began.Add(time.Second) || b != began.Add(2*time.Second) {
			w.Errorf("set at %s and %s", a, b)
		}
		for p, want := range map[freshet.Path]string{
			"/data/hot/x": "sync_interval=10s@/data/hot by terraform; consistency=invalidate@/data by mount; write_type=through@/data/hot by terraform; " +
				"ttl=24h0m0s@/ by config; ttl_action=free@ by default; pinned=false@ by default; block_size=64MiB@/data/hot by operator; replication_min=0@ by default; replication_max=0@ by default; durable_replicas=1@ by default",
			// The mount's interval hides that of the root; the ttl is inherited through it.
			"/data/x": "sync_interval=never@/data by mount; consistency=invalidate@/data by mount; write_type=cache_through@ by default; " +
				"ttl=24h0m0s@/ by config; ttl_action=free@ by default; pinned=false@ by default; block_size=64MiB@ by default; replication_min=0@ by default; replication_max=0@ by default; durable_replicas=1@ by default",
		} {
			r, err := m.PathPolicies(w.Context(), p)
			if got := settings2text(r.Effective); err != nil || got != want {
				w.Errorf("%s: %v\n%s, want\n%s", p, err, got, want)
			}
		}
		all, err := m.PathPolicies(w.Context(), "")
		var paths []string
		for _, p := range all.Policies {
			paths = append(paths, string(p.Path)+" "+p.Settings[0].Origin)
		}
		if want := []string{"/ config", "/data mount", "/data/hot terraform"}; err != nil || !slices.Equal(paths, want) || all.Effective != nil {
			w.Errorf("all: %v, %v, want %v", paths, err, want)
		}
		// The older view is of the sync intervals alone.
		rules, err := m.Policies(w.Context(), "")
		if err != nil || len(rules) != 3 || rules[2].Origin != "terraform" {
			w.Errorf("sync intervals: %+v, %v", rules, err)
		}
		if _, err := m.RemovePolicy(w.Context(), "/data/hot", false); err != nil {
			w.Error(err)
		}
		if r, err := m.PathPolicies(w.Context(), "/data/hot"); err != nil || len(r.Policies[2].Settings) != 2 {
			w.Errorf("after the interval was unset: %+v, %v", r.Policies, err)
		}
	})
}

func TestPoliciesThatHaveNoEffectAreRefused(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		m := w.leader()
		for _, c := range []struct {
			change freshet.PolicyChange
			kind   freshet.Kind
			text   string
		}{
			{policy("/data", "consistency", "bounded"), freshet.KindUnsupported, "not built"},
			{policy("/data", "consistency", "strict"), freshet.KindUnsupported, "not built"},
			{policy("/data", "consistency", "interval"), freshet.KindInvalid, "needs a sync interval"},
			{policy("/data", "consistency", ""), freshet.KindInvalid, "use one of"},
			{policy("/data", "write_type", ""), freshet.KindInvalid, "use one of"},
			{policy("/data", "ttl", "1ms"), freshet.KindInvalid, "1s or more"},
			{policy("/data", "ttl", "always"), freshet.KindInvalid, "1s or more"},
			{policy("/data", "ttl_action", "delete"), freshet.KindUnsupported, "not built"},
			{policy("/data", "ttl_action", "drop"), freshet.KindInvalid, "free"},
			{policy("/data", "block_size", "32KiB"), freshet.KindInvalid, "a multiple of 64KiB up to 1GiB"},
			{policy("/data", "block_size", "2GiB"), freshet.KindInvalid, "a multiple of 64KiB up to 1GiB"},
			{policy("/data", "block_size", "100000"), freshet.KindInvalid, "a multiple of 64KiB up to 1GiB"},
			{policy("/data", "replication_min", "65"), freshet.KindInvalid, "from 0 to 64"},
			{policy("/data", "replication_max", "-1"), freshet.KindInvalid, "from 0 to 64"},
			{policy("/data", "replication_max", "many"), freshet.KindInvalid, "from 0 to 64"},
			{policy("/data", "replication_min", "3", "replication_max", "2"), freshet.KindInvalid, "at least 3 and at most 2"},
			{policy("/data", "owner", "me"), freshet.KindInvalid, "not a property"},
			{policy("/data", "ttl", "1h", "ttl", "2h"), freshet.KindInvalid, "twice"},
			{policy("/data"), freshet.KindInvalid, "no property"},
			{policy("/data/../x", "ttl", "1h"), freshet.KindInvalid, ".."},
			{freshet.PolicyChange{Path: "/data", Unset: []freshet.Property{"ttl"}}, freshet.KindNotExist, "no policy"},
			{freshet.PolicyChange{Path: "/data", Replace: true}, freshet.KindNotExist, "no policy"},
			{freshet.PolicyChange{Path: "/data", Origin: "mount", Unset: []freshet.Property{"ttl"}}, freshet.KindInvalid, "own"},
			{freshet.PolicyChange{Path: "/data", Origin: "Me!", Unset: []freshet.Property{"ttl"}}, freshet.KindInvalid, "lower-case"},
		} {
			_, err := m.ChangePolicy(w.Context(), c.change)
			w.wantKind(err, c.kind)
			if err != nil && !strings.Contains(err.Error(), c.text) {
				w.Errorf("%+v: %q does not say %q", c.change, err, c.text)
			}
		}
		// A dry run checks the same, and changes nothing.
		dry := policy("/data", "consistency", "interval", "sync_interval", "5m")
		dry.DryRun = true
		if n := w.entries(m, func() {
			if after, err := m.ChangePolicy(w.Context(), dry); err != nil || len(after.Settings) != 2 {
				w.Errorf("dry run: %+v, %v", after, err)
			}
		}); n != 0 {
			w.Errorf("a dry run made %d log entries", n)
		}
		if r, err := m.PathPolicies(w.Context(), ""); err != nil || len(r.Policies) != 1 {
			w.Errorf("set after all: %+v, %v", r, err)
		}
	})
}

func TestWritesThatNameNoTypeTakeThatOfThePolicy(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		m := w.leader()
		w.beat(m, freshet.Heartbeat{Node: freshet.Node{ID: "n1"}, Incarnation: 1, Full: true})
		w.setPolicy(m, "/data/logs", "write_type", "through")
		for _, c := range []struct {
			path  freshet.Path
			named freshet.WriteType
			want  freshet.WriteType
		}{
			{"/data/logs/a", freshet.ByPolicy, freshet.Through},
			{"/data/logs/b", freshet.CacheThrough, freshet.CacheThrough},
			{"/data/c", freshet.ByPolicy, freshet.CacheThrough},
			{"/data/d", freshet.Through, freshet.Through},
		} {
			a, err := m.BeginWrite(w.Context(), freshet.BeginWriteQuery{Path: c.path, Write: c.named})
			if err != nil || a.Ticket.Write != c.want {
				w.Errorf("%s: %v, %v, want %v", c.path, a.Ticket.Write, err, c.want)
			}
		}
	})
}

// TestALevelOfAPathDecidesWhetherLostNewsCount: under interval a path does not
// depend on other clusters, so that their silence changes nothing.
func TestALevelOfAPathDecidesWhetherLostNewsCount(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("feed/f", []byte("x"))
		m := w.leader()
		w.setPolicy(m, "/data/feed", "consistency", "interval", "sync_interval", "30s")
		if st := w.stat(m, "/data/feed/f"); st.Freshness.Level != freshet.LevelInterval || st.Freshness.Interval != freshet.Interval(30*time.Second) {
			w.Errorf("below the policy: %+v", st.Freshness)
		}
		if st := w.stat(m, "/data"); st.Freshness.Level != freshet.LevelInvalidate {
			w.Errorf("of the mount: %+v", st.Freshness)
		}
		roots, changed := m.Roots()
		if len(roots) != 1 || roots[0].Level != freshet.LevelInvalidate {
			w.Errorf("others are told %+v", roots)
		}
		// A whole mount under interval listens to nobody, unless a path in it asks.
		w.setPolicy(m, "/data", "consistency", "interval", "sync_interval", "30s")
		<-changed
		if roots, changed = m.Roots(); roots[0].Level != freshet.LevelInterval {
			w.Errorf("others are told %+v", roots)
		}
		w.setPolicy(m, "/data/shared", "consistency", "invalidate")
		<-changed
		if roots, _ = m.Roots(); roots[0].Level != freshet.LevelInvalidate {
			w.Errorf("others are told %+v", roots)
		}
	})
}

func TestTTLDropsWhatNobodyUsed(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		for _, key := range []string{"tmp/used", "tmp/left", "tmp/listed/a", "tmp/kept/f", "tmp/d/e/x", "other"} {
			w.store.Put(key, []byte("x"))
		}
		m := w.leader()
		w.setPolicy(m, "/data/tmp", "ttl", "10m")
		w.setPolicy(m, "/data/tmp/kept", "ttl", "never")
		n := freshet.Node{ID: "n1", Name: "n1", GRPC: "n1:7410"}
		w.beat(m, freshet.Heartbeat{Node: n, Incarnation: 1, Full: true})
		for _, p := range []string{"/data/tmp/used", "/data/tmp/left", "/data/tmp/kept/f", "/data/tmp/d/e/x", "/data/other"} {
			w.stat(m, p)
		}
		w.list(m, "/data/tmp/listed")
		block := freshet.BlockReport{ID: freshet.BlockID{File: w.stat(m, "/data/tmp/left").Info.FileID}, Length: 1}
		free := w.beat(m, freshet.Heartbeat{Node: n, Incarnation: 1, Full: true, Added: []freshet.BlockReport{block}}).Free
		began := time.Now()
		freed := time.Duration(0)
		for time.Since(began) < 30*time.Minute {
			time.Sleep(20 * time.Second)
			w.stat(m, "/data/tmp/used")
			w.list(m, "/data/tmp/listed")
			free = append(free, w.beat(m, freshet.Heartbeat{Node: n, Incarnation: 1}).Free...)
			if freed == 0 && slices.Contains(free, block.ID) {
				freed = time.Since(began)
			}
		}
		if freed < 10*time.Minute || freed > 14*time.Minute {
			w.Errorf("the block was freed after %s, with a ttl of 10m", freed)
		}
		for p, looks := range map[string]int{
			"/data/tmp/used": 0, "/data/tmp/listed/a": 0, "/data/tmp/kept/f": 0, "/data/other": 0,
			"/data/tmp/left": 1, "/data/tmp/d/e/x": 1,
		} {
			if got := w.asked(func() { w.stat(m, p) }); got != looks {
				w.Errorf("%s: %d looks, want %d", p, got, looks)
			}
		}
	})
}

// TestTTLCountsAnewAfterAChangeOfLeader: what an earlier leader saw is not known to
// the next one, which therefore keeps everything for a whole TTL.
func TestTTLCountsAnewAfterAChangeOfLeader(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{members: 3}, func(w *world) {
		w.store.Put("f", []byte("x"))
		m := w.leader()
		w.setPolicy(m, "/data", "ttl", "10m")
		w.stat(m, "/data/f")
		time.Sleep(9 * time.Minute)
		w.halt(m)
		next := w.leader()
		time.Sleep(9 * time.Minute)
		if x, err := next.Explain(w.Context(), "/data/f", false); err != nil || x.Verdict != "fresh" {
			w.Errorf("after 9 minutes of the new leader: %s, %v", x.Verdict, err)
		}
		time.Sleep(6 * time.Minute)
		if x, err := next.Explain(w.Context(), "/data/f", false); err != nil || x.Verdict != "unknown" {
			w.Errorf("after 15 minutes: %s, %v", x.Verdict, err)
		}
	})
}

// TestNodesHearWhatIsPinned follows a node's reports through a policy that comes, a
// file that moves, and a policy that goes.
func TestNodesHearWhatIsPinned(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("hot/a", []byte("a"))
		w.store.Put("cold/b", []byte("b"))
		m := w.leader()
		var added []freshet.BlockReport
		for _, p := range []string{"/data/hot/a", "/data/cold/b"} {
			added = append(added, freshet.BlockReport{ID: freshet.BlockID{File: w.stat(m, p).Info.FileID}, Length: 1})
		}
		hot, cold := added[0].ID.File, added[1].ID.File
		var term uint64
		beat := func(h freshet.Heartbeat) freshet.HeartbeatReply {
			h.Node, h.Incarnation, h.Term = freshet.Node{ID: "n1"}, 1, term
			r := w.beat(m, h)
			term = r.Term
			return r
		}
		first := beat(freshet.Heartbeat{Full: true, Added: added})
		if first.PinRevision != 0 || first.Pinned != nil || first.NeedFull {
			w.Errorf("before there is a policy: %+v", first)
		}
		full := func(revision uint64, want ...freshet.FileID) uint64 {
			w.Helper()
			if r := beat(freshet.Heartbeat{PinRevision: revision}); !r.NeedFull || r.Pinned != nil {
				w.Errorf("a node with the rules of before: %+v", r)
			}
			r := beat(freshet.Heartbeat{Full: true, Added: added, PinRevision: revision})
			if r.NeedFull || r.PinRevision == revision || !slices.Equal(r.Pinned, want) {
				w.Errorf("a full report: %+v, want %v pinned", r, want)
			}
			return r.PinRevision
		}
		w.setPolicy(m, "/data/hot", "pinned", "true")
		rev := full(0, hot)
		if r := beat(freshet.Heartbeat{PinRevision: rev, Added: added}); r.NeedFull || !slices.Equal(r.Pinned, []freshet.FileID{hot}) {
			w.Errorf("what was added: %+v", r)
		}
		w.setPolicy(m, "/data/hot", "ttl", "1h") // pins nothing
		if r := beat(freshet.Heartbeat{PinRevision: rev}); r.NeedFull {
			w.Errorf("after a change of something else: %+v", r)
		}
		if _, err := m.Rename(w.Context(), freshet.RenameQuery{Path: "/data/cold/b", Target: "/data/hot/b"}); err != nil {
			w.Fatal(err)
		}
		if w.stat(m, "/data/hot/b").Info.FileID == cold {
			rev = full(rev, hot, cold)
		} else {
			rev = full(rev, hot)
		}
		w.setPolicy(m, "/data/hot", "pinned", "false")
		full(rev)
	})
}

func TestTTLKeepsWhatIsPinned(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("f", []byte("x"))
		w.store.Put("p/f", []byte("x"))
		m := w.leader()
		w.setPolicy(m, "/data", "ttl", "1m")
		w.setPolicy(m, "/data/p", "pinned", "true")
		w.stat(m, "/data/f")
		w.stat(m, "/data/p/f")
		time.Sleep(5 * time.Minute)
		for p, want := range map[freshet.Path]string{"/data/f": "unknown", "/data/p/f": "fresh"} {
			if x, err := m.Explain(w.Context(), p, false); err != nil || x.Verdict != want {
				w.Errorf("%s is %s, %v, want %s", p, x.Verdict, err, want)
			}
		}
	})
}
