package namespace_test

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

func setting(p freshet.Property, v string) namespace.PolicySetting {
	return namespace.PolicySetting{Property: p, Value: v, Origin: "operator", SetAt: epochTime}
}

func (c *cluster) policy(p freshet.Path, set ...namespace.PolicySetting) {
	c.t.Helper()
	c.must(namespace.Command{ChangePolicy: &namespace.ChangePolicy{Path: p, Set: set}})
}

// TestEachPropertyIsInheritedByItself also sets the same settings in another order:
// the states are equal.
func TestEachPropertyIsInheritedByItself(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	inner := mountOf("/m/x/other", "/")
	inner.Domain, inner.Level, inner.Interval = freshet.DomainID{9}, freshet.LevelInterval, freshet.Always
	c.must(namespace.Command{AddMount: &namespace.AddMount{Mount: inner}})
	c.policy("/", setting(freshet.PropertyTTL, "1h0m0s"), setting(freshet.PropertyConsistency, "interval"), setting(freshet.PropertySyncInterval, "1m0s"))
	c.policy("/m/x", setting(freshet.PropertyWriteType, "through"), setting(freshet.PropertySyncInterval, "10s"))
	c.policy("/m/x/y", setting(freshet.PropertyConsistency, "interval"), setting(freshet.PropertyPinned, "true"))
	c.policy("/m/x/y/z", setting(freshet.PropertyTTL, "never"))
	for p, want := range map[freshet.Path]struct {
		interval freshet.Interval
		at       freshet.Path
		e        namespace.Effective
	}{
		"/q":           {60e9, "/", namespace.Effective{Level: freshet.LevelInterval, TTL: 3600e9}},
		"/m/q":         {freshet.Never, "/m", namespace.Effective{TTL: 3600e9}},
		"/m/x":         {10e9, "/m/x", namespace.Effective{TTL: 3600e9, Write: freshet.Through}},
		"/m/x/y/q":     {10e9, "/m/x", namespace.Effective{TTL: 3600e9, Write: freshet.Through, Level: freshet.LevelInterval, Pinned: true}},
		"/m/x/y/z":     {10e9, "/m/x", namespace.Effective{TTL: freshet.Never, Write: freshet.Through, Level: freshet.LevelInterval, Pinned: true}},
		"/m/x/other/f": {freshet.Always, "/m/x/other", namespace.Effective{TTL: 3600e9, Write: freshet.Through, Level: freshet.LevelInterval}},
		"/m/xy":        {freshet.Never, "/m", namespace.Effective{TTL: 3600e9}},
	} {
		l := c.look(p)
		if l.Policy != want.e || l.Interval != want.interval || l.Rule.Path != want.at {
			t.Errorf("%s: %+v, %s by %s, want %+v, %s by %s", p, l.Policy, l.Interval, l.Rule.Path, want.e, want.interval, want.at)
		}
		if e, i := c.s.EffectiveAt(p); e != want.e || i != want.interval {
			t.Errorf("%s: EffectiveAt says %+v, %s", p, e, i)
		}
	}
}

func TestPoliciesOfAPathAreMergedAndTakenApart(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	at := func() []freshet.Property {
		var all []freshet.Property
		for _, p := range c.s.Policies() {
			if !p.Bare {
				all = append(all, freshet.PropertySyncInterval)
			}
			for _, s := range p.Settings {
				all = append(all, s.Property)
			}
		}
		return all
	}
	want := func(props ...freshet.Property) {
		t.Helper()
		if got := at(); !reflect.DeepEqual(got, props) {
			t.Fatalf("%v is set, want %v", got, props)
		}
	}
	change := func(ch namespace.ChangePolicy) namespace.Command {
		ch.Path = "/m/d"
		return namespace.Command{ChangePolicy: &ch}
	}
	c.policy("/m/d", setting(freshet.PropertyWriteType, "through"))
	c.policy("/m/d", setting(freshet.PropertyTTL, "1h0m0s"))
	want(freshet.PropertyTTL, freshet.PropertyWriteType)
	// The commands that know of sync intervals only leave the rest alone.
	c.must(namespace.Command{SetPolicy: &namespace.Policy{Path: "/m/d", Interval: freshet.Always, Origin: "operator", SetAt: epochTime}})
	want(freshet.PropertySyncInterval, freshet.PropertyTTL, freshet.PropertyWriteType)
	c.must(namespace.Command{RemovePolicy: &namespace.RemovePolicy{Path: "/m/d"}})
	want(freshet.PropertyTTL, freshet.PropertyWriteType)
	c.kind(namespace.Command{RemovePolicy: &namespace.RemovePolicy{Path: "/m/d"}}, freshet.KindNotExist)
	// A change that fails changes nothing, not even what it names first.
	c.kind(change(namespace.ChangePolicy{Unset: []freshet.Property{freshet.PropertyTTL, freshet.PropertyPinned}}), freshet.KindNotExist)
	c.kind(change(namespace.ChangePolicy{Set: []namespace.PolicySetting{setting(freshet.PropertyTTL, "2h0m0s"), setting(freshet.PropertySyncInterval, "soon")}}), freshet.KindInvalid)
	want(freshet.PropertyTTL, freshet.PropertyWriteType)
	if got := c.look("/m/d").Policy.TTL; got != 3600e9 {
		t.Errorf("the ttl is %s", got)
	}
	c.must(change(namespace.ChangePolicy{Unset: []freshet.Property{freshet.PropertyWriteType}}))
	want(freshet.PropertyTTL)
	c.must(change(namespace.ChangePolicy{Replace: true, Set: []namespace.PolicySetting{setting(freshet.PropertySyncInterval, "5s")}}))
	want(freshet.PropertySyncInterval)
	c.must(change(namespace.ChangePolicy{Replace: true}))
	want()
	c.kind(change(namespace.ChangePolicy{Replace: true}), freshet.KindNotExist)
	if got := c.look("/m/d"); got.Interval != freshet.Never || got.Policy.TTL != freshet.Never {
		t.Errorf("after all was removed: %s, %+v", got.Interval, got.Policy)
	}
}

// TestPoliciesSurviveARestartAndADump, those of a kind that this release does not
// know too.
func TestPoliciesSurviveARestartAndADump(t *testing.T) {
	t.Parallel()
	store := kv.NewMemory()
	c := &cluster{t: t, s: open(t, store)}
	c.must(namespace.Command{Bootstrap: &namespace.Bootstrap{
		Cluster: selfID, Name: "self", Epoch: 1, At: epochTime, Mounts: []freshet.Mount{mountOf("/m", "/")},
		Policies: []namespace.Policy{{Path: "/m/seed", Bare: true, Settings: []namespace.PolicySetting{setting(freshet.PropertyTTL, "1h0m0s")}}},
		Quotas:   []namespace.SetQuota{{Path: "/m/q", MaxEntries: 3, Origin: "config", At: epochTime}},
	}})
	c.policy("/m/d", setting("zz_of_the_future", "x"), setting(freshet.PropertyWriteType, "through"), setting(freshet.PropertySyncInterval, "5s"))
	c.policy("/m/gone", setting(freshet.PropertyTTL, "1h0m0s"))
	c.must(namespace.Command{ChangePolicy: &namespace.ChangePolicy{Path: "/m/gone", Unset: []freshet.Property{freshet.PropertyTTL}}})
	want := c.s.Policies()
	if len(want) != 2 {
		t.Fatalf("policies: %+v", want)
	}
	var dump bytes.Buffer
	if _, err := c.s.Dump(&dump); err != nil {
		t.Fatal(err)
	}
	other := open(t, kv.NewMemory())
	if err := other.Restore(&dump); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*namespace.State{"opened again": open(t, store), "restored": other} {
		if got := s.Policies(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
		if e, i := s.EffectiveAt("/m/d/x"); e.Write != freshet.Through || i != 5e9 {
			t.Errorf("%s: %+v, %s applies", name, e, i)
		}
		if q, err := s.Quotas(); err != nil || len(q) != 1 || q[0].Path != "/m/q" || q[0].MaxEntries != 3 || q[0].Origin != "config" {
			t.Errorf("%s: quotas %+v, %v", name, q, err)
		}
	}
}

func TestMalformedPoliciesAreRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for name, cmd := range map[string]namespace.Command{
		"path":       {ChangePolicy: &namespace.ChangePolicy{Path: "/m/../x", Set: []namespace.PolicySetting{setting(freshet.PropertyTTL, "1h")}}},
		"no name":    {ChangePolicy: &namespace.ChangePolicy{Path: "/m", Set: []namespace.PolicySetting{setting("", "1h")}}},
		"old path":   {SetPolicy: &namespace.Policy{Path: "m"}},
		"old, order": {SetPolicy: &namespace.Policy{Path: "/m", Settings: []namespace.PolicySetting{setting("b", ""), setting("a", "")}}},
	} {
		if r := c.do(cmd); !freshet.IsKind(r.Err, freshet.KindInvalid) {
			t.Errorf("%s: %v", name, r.Err)
		}
	}
	if got := c.s.Policies(); len(got) != 0 {
		t.Errorf("policies: %+v", got)
	}
}

func (c *cluster) expire(dir freshet.Path, before uint64, names ...string) int {
	c.t.Helper()
	return c.must(namespace.Command{Expire: &namespace.Expire{Mount: 1, Generation: c.look("/m").Mount.Generation, Dir: dir, Names: names, Before: before}}).Dropped
}

func TestExpireDropsWhatIsOldAndNothingElse(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.listAt("/m/d", c.i, nil, fileEntry("f", 1), fileEntry("g", 2), fileEntry("w", 3), dirEntry("e"))
	c.listAt("/m/d/e", c.i, nil, fileEntry("x", 4))
	old := c.i
	c.load("/m/d/g", fileEntry("g", 20))
	c.begin(1, namespace.OpWrite, "/m/d/w")
	if n := c.expire("/m/d", 1, "f", "g", "e"); n != 0 {
		t.Errorf("%d are as old as the cluster", n)
	}
	file := c.look("/m/d/f").Info.FileID
	if n := c.expire("/m/d", c.i-1, "f", "w", "e", "nothing"); n != 1 {
		t.Errorf("%d were dropped, want f: w is being written, e has an entry", n)
	}
	if l := c.look("/m/d/f"); l.Found || l.KnownAbsent || c.s.FileLive([]freshet.FileID{file})[0] {
		t.Errorf("f after it expired: %+v", l)
	}
	if !reflect.DeepEqual(c.last.Freed, []freshet.FileID{file}) {
		t.Errorf("freed %v, want %v", c.last.Freed, file)
	}
	if l := c.look("/m/d"); l.Listing.Complete {
		t.Error("the listing of d counts as complete without f")
	}
	if n := c.expire("/m/d", old, "g"); n != 0 || !c.look("/m/d/g").Found {
		t.Errorf("g was loaded since, and %d were dropped", n)
	}
	if n := c.expire("/m/d/e", c.i, "x"); n != 1 {
		t.Errorf("%d dropped in e", n)
	}
	if n := c.expire("/m/d", c.i, "e"); n != 1 || c.look("/m/d/e").Found {
		t.Errorf("e is empty: %d dropped", n)
	}
	r := c.must(namespace.Command{Expire: &namespace.Expire{Mount: 1, Generation: 99, Dir: "/m/d", Names: []string{"g"}, Before: c.i}})
	if r.Dropped != 0 {
		t.Error("a mount of another generation")
	}
}
