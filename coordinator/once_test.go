package coordinator_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs/mem"
)

// mutation is a call that changes something, how to undo it by other calls, and what
// tells whether it was done again.
type mutation struct {
	name string
	do   func(ctx context.Context, m *member, op freshet.OpID) (freshet.Token, error)
	undo func(ctx context.Context, m *member) error
	// undone reports whether the state is still that which undo left.
	undone func(ctx context.Context, m *member) bool
}

func exists(ctx context.Context, m *member, p freshet.Path) bool {
	always := freshet.Always
	_, err := m.Stat(ctx, p, freshet.ReadOptions{SyncInterval: &always})
	return err == nil
}

// token is what an acknowledged change is known by.
func token(done freshet.Completed, err error) (freshet.Token, error) { return done.Token, err }

func (w *world) mutations() []mutation {
	put := func(key string) func(context.Context, *member) error {
		return func(context.Context, *member) error { w.store.Put(key, []byte("again")); return nil }
	}
	there := func(p freshet.Path) func(context.Context, *member) bool {
		return func(ctx context.Context, m *member) bool { return exists(ctx, m, p) }
	}
	none := freshet.Token{}
	mode, other := uint32(0o600), uint32(0o640)
	interval, never := freshet.Interval(time.Minute), freshet.Never
	second := mount("/second", "mem://lake/second", freshet.Never)
	return append(w.settingMutations(), []mutation{
		{
			"mkdir", func(ctx context.Context, m *member, op freshet.OpID) (freshet.Token, error) {
				return token(m.Mkdir(ctx, freshet.MkdirQuery{Op: op, Path: "/data/made"}))
			},
			func(ctx context.Context, m *member) error {
				_, err := m.Remove(ctx, freshet.RemoveQuery{Path: "/data/made"})
				return err
			},
			func(ctx context.Context, m *member) bool { return !exists(ctx, m, "/data/made") },
		},
		{"rename", func(ctx context.Context, m *member, op freshet.OpID) (freshet.Token, error) {
			return token(m.Rename(ctx, freshet.RenameQuery{Op: op, Path: "/data/from", Target: "/data/to", Overwrite: true}))
		}, put("data/from"), there("/data/from")},
		{"remove", func(ctx context.Context, m *member, op freshet.OpID) (freshet.Token, error) {
			return token(m.Remove(ctx, freshet.RemoveQuery{Op: op, Path: "/data/file"}))
		}, put("data/file"), there("/data/file")},
		{"remove tree", func(ctx context.Context, m *member, op freshet.OpID) (t freshet.Token, err error) {
			err = m.RemoveTree(ctx, freshet.RemoveQuery{Op: op, Path: "/data/tree"}, func(p freshet.RemoveProgress) error { t = p.Token; return nil })
			return t, err
		}, put("data/tree/f"), there("/data/tree/f")},
		{
			"setattr", func(ctx context.Context, m *member, op freshet.OpID) (freshet.Token, error) {
				return token(m.SetAttr(ctx, freshet.SetAttrQuery{Op: op, Path: "/data/attr", Mode: &mode}))
			},
			func(ctx context.Context, m *member) error {
				_, err := m.SetAttr(ctx, freshet.SetAttrQuery{Path: "/data/attr", Mode: &other})
				return err
			},
			func(ctx context.Context, m *member) bool {
				st, err := m.Stat(ctx, "/data/attr", freshet.ReadOptions{})
				return err == nil && st.Info.Mode == other
			},
		},
		{
			"mount add", func(ctx context.Context, m *member, op freshet.OpID) (freshet.Token, error) {
				_, err := m.AddMount(freshet.WithOp(ctx, op), second)
				return none, err
			},
			func(ctx context.Context, m *member) error {
				_, err := m.RemoveMount(ctx, "/second", freshet.RemoveMountOptions{})
				return err
			},
			func(ctx context.Context, m *member) bool {
				_, _, err := m.Mounts(ctx, "/second")
				return freshet.IsKind(err, freshet.KindNotExist)
			},
		},
		{
			"mount update", func(ctx context.Context, m *member, op freshet.OpID) (freshet.Token, error) {
				_, err := m.UpdateMount(freshet.WithOp(ctx, op), freshet.MountChange{Path: "/data", Interval: &interval})
				return none, err
			},
			func(ctx context.Context, m *member) error {
				_, err := m.UpdateMount(ctx, freshet.MountChange{Path: "/data", Interval: &never})
				return err
			},
			func(ctx context.Context, m *member) bool {
				all, _, err := m.Mounts(ctx, "/data")
				return err == nil && all[0].Mount.Interval == never
			},
		},
		{
			"mount remove", func(ctx context.Context, m *member, op freshet.OpID) (freshet.Token, error) {
				_, err := m.RemoveMount(freshet.WithOp(ctx, op), "/extra", freshet.RemoveMountOptions{})
				return none, err
			},
			func(ctx context.Context, m *member) error {
				_, err := m.AddMount(ctx, mount("/extra", "mem://lake/extra", freshet.Never))
				return err
			},
			func(ctx context.Context, m *member) bool {
				_, _, err := m.Mounts(ctx, "/extra")
				return err == nil
			},
		},
		{
			"sync set", func(ctx context.Context, m *member, op freshet.OpID) (freshet.Token, error) {
				_, err := m.SetPolicy(freshet.WithOp(ctx, op), freshet.SyncPolicy{Path: "/data/p", Interval: interval}, false)
				return none, err
			},
			func(ctx context.Context, m *member) error {
				_, err := m.SetPolicy(ctx, freshet.SyncPolicy{Path: "/data/p", Interval: never}, false)
				return err
			},
			func(ctx context.Context, m *member) bool {
				all, err := m.Policies(ctx, "/data/p")
				return err == nil && all[0].Interval == never
			},
		},
		{
			"sync unset", func(ctx context.Context, m *member, op freshet.OpID) (freshet.Token, error) {
				_, err := m.RemovePolicy(freshet.WithOp(ctx, op), "/data/u", false)
				return none, err
			},
			func(ctx context.Context, m *member) error {
				_, err := m.SetPolicy(ctx, freshet.SyncPolicy{Path: "/data/u", Interval: interval}, false)
				return err
			},
			func(ctx context.Context, m *member) bool {
				all, err := m.Policies(ctx, "/data/u")
				return err == nil && all[0].Interval == interval
			},
		},
		{
			"quota set", func(ctx context.Context, m *member, op freshet.OpID) (freshet.Token, error) {
				_, err := m.SetQuota(ctx, freshet.QuotaChange{Op: op, Path: "/data/q", MaxEntries: 10})
				return none, err
			},
			func(ctx context.Context, m *member) error {
				_, err := m.SetQuota(ctx, freshet.QuotaChange{Path: "/data/q", MaxEntries: 20})
				return err
			},
			func(ctx context.Context, m *member) bool {
				all, err := m.Quotas(ctx, "/data/q")
				return err == nil && len(all) == 1 && all[0].MaxEntries == 20
			},
		},
		{
			"quota unset", func(ctx context.Context, m *member, op freshet.OpID) (freshet.Token, error) {
				_, err := m.RemoveQuota(ctx, freshet.QuotaRemoval{Op: op, Path: "/data/r"})
				return none, err
			},
			func(ctx context.Context, m *member) error {
				_, err := m.SetQuota(ctx, freshet.QuotaChange{Path: "/data/r", MaxEntries: 20})
				return err
			},
			func(ctx context.Context, m *member) bool {
				all, err := m.Quotas(ctx, "/data/r")
				return err == nil && len(all) == 1
			},
		},
	}...)
}

// settingMutations are those of policies and of the epoch.
func (w *world) settingMutations() []mutation {
	change := func(c freshet.PolicyChange) func(context.Context, *member, freshet.OpID) (freshet.Token, error) {
		return func(ctx context.Context, m *member, op freshet.OpID) (freshet.Token, error) {
			_, err := m.ChangePolicy(freshet.WithOp(ctx, op), c)
			return freshet.Token{}, err
		}
	}
	undo := func(c freshet.PolicyChange) func(context.Context, *member) error {
		return func(ctx context.Context, m *member) error { _, err := m.ChangePolicy(ctx, c); return err }
	}
	ttl := func(p freshet.Path, want string) func(context.Context, *member) bool {
		return func(ctx context.Context, m *member) bool {
			r, err := m.PathPolicies(ctx, p)
			return err == nil && slices.ContainsFunc(r.Effective, func(s freshet.Setting) bool { return s.Property == freshet.PropertyTTL && s.Value == want })
		}
	}
	back := policy("/data/replaced", "ttl", "1h0m0s", "pinned", "true")
	var epoch uint64 // that of the last change by others
	return []mutation{
		{"policy set", change(policy("/data/set", "ttl", "1h")), undo(policy("/data/set", "ttl", "2h")), ttl("/data/set", "2h0m0s")},
		{
			"policy replace", change(freshet.PolicyChange{Path: "/data/replaced", Replace: true, Set: policy("", "pinned", "true").Set}),
			undo(back), ttl("/data/replaced", "1h0m0s"),
		},
		{
			"policy unset", change(freshet.PolicyChange{Path: "/data/unset", Unset: []freshet.Property{freshet.PropertyTTL}}),
			undo(policy("/data/unset", "ttl", "1h")), ttl("/data/unset", "1h0m0s"),
		},
		{
			"bump epoch", func(ctx context.Context, m *member, op freshet.OpID) (freshet.Token, error) {
				_, err := m.BumpEpoch(freshet.WithOp(ctx, op), false)
				return freshet.Token{}, err
			},
			func(ctx context.Context, m *member) (err error) { epoch, err = m.BumpEpoch(ctx, false); return err },
			func(ctx context.Context, m *member) bool {
				st, err := m.Cluster(ctx)
				return err == nil && st.Epoch == epoch
			},
		},
	}
}

// TestARepeatedCallIsNotDoneTwice makes each change, undoes it by others, and repeats
// it under its operation ID: by the same leader, and by the next one. The answer is
// that of the first call, and what undid it stays.
func TestARepeatedCallIsNotDoneTwice(t *testing.T) {
	t.Parallel()
	seeds := []freshet.MountChange{mount("/data", "mem://lake/data", freshet.Never), mount("/extra", "mem://lake/extra", freshet.Never)}
	inBubble(t, settings{members: 3, mode: mem.Local, seeds: seeds}, func(w *world) {
		ctx := w.Context()
		for _, key := range []string{"data/from", "data/file", "data/tree/f", "data/attr", "extra/f", "second/f"} {
			w.store.Put(key, []byte("first"))
		}
		m := w.leader()
		synctest.Wait() // until it carries out operations
		if _, err := m.SetPolicy(ctx, freshet.SyncPolicy{Path: "/data/u", Interval: freshet.Interval(time.Minute)}, false); err != nil {
			t.Fatal(err)
		}
		w.mustQuota(m, "/data/r", 20, 0)
		for _, p := range []freshet.Path{"/data/replaced", "/data/unset"} {
			if _, err := m.ChangePolicy(ctx, policy(p, "ttl", "1h")); err != nil {
				t.Fatal(err)
			}
		}
		all := w.mutations()
		tokens := make([]freshet.Token, len(all))
		repeat := func(m *member, when string) {
			for i, c := range all {
				got, err := c.do(ctx, m, freshet.OpID{7, byte(i)})
				if err != nil || got != tokens[i] {
					t.Errorf("%s, repeated %s: token %v, want %v; %v", c.name, when, got, tokens[i], err)
				}
				if !c.undone(ctx, m) {
					t.Errorf("%s was done again %s", c.name, when)
				}
			}
		}
		for i, c := range all {
			var err error
			if tokens[i], err = c.do(ctx, m, freshet.OpID{7, byte(i)}); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if err := c.undo(ctx, m); err != nil {
				t.Fatalf("undo %s: %v", c.name, err)
			}
			if !c.undone(ctx, m) {
				t.Fatalf("%s was not undone", c.name)
			}
		}
		repeat(m, "by the same leader")
		w.halt(m)
		m = w.leader()
		synctest.Wait()
		repeat(m, "by the next leader")
	})
}
