package namespace_test

import (
	"bytes"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

func blockSize(v string) namespace.PolicySetting { return setting(freshet.PropertyBlockSize, v) }

// What older members would not heed needs the version that does.
func TestSettingsOfBlocksNeedTheirVersion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		set  []namespace.PolicySetting
		need int
	}{
		{[]namespace.PolicySetting{blockSize("1MiB")}, 4},
		{[]namespace.PolicySetting{setting(freshet.PropertyTTL, "1h0m0s"), blockSize("64KiB")}, 4},
		{[]namespace.PolicySetting{blockSize("64MiB")}, 1},
		{[]namespace.PolicySetting{setting(freshet.PropertyReplicationMin, "2")}, 4},
		{[]namespace.PolicySetting{setting(freshet.PropertyReplicationMin, "0"), setting(freshet.PropertyReplicationMax, "3")}, 4},
		{[]namespace.PolicySetting{setting(freshet.PropertyReplicationMin, "0"), setting(freshet.PropertyReplicationMax, "0")}, 1},
		{[]namespace.PolicySetting{setting(freshet.PropertyTTL, "1h0m0s")}, 1},
		{nil, 1},
	} {
		cmd := namespace.Command{ChangePolicy: &namespace.ChangePolicy{Path: "/m", Set: c.set}}
		if got := namespace.Needs(&cmd); got != c.need {
			t.Errorf("%+v needs version %d, want %d", c.set, got, c.need)
		}
	}
}

// A cluster may be founded with the policy before its members know of each other what
// they apply.
func TestAFoundingBlockSizeCountsFromItsVersionOn(t *testing.T) {
	t.Parallel()
	c := &cluster{t: t, s: open(t, kv.NewMemory())}
	boot := namespace.Command{Bootstrap: &namespace.Bootstrap{
		Cluster: selfID, Name: "self", Epoch: 1, At: epochTime, Mounts: []freshet.Mount{mountOf("/m", "/")},
		Policies: []namespace.Policy{{Path: "/", Bare: true, Settings: []namespace.PolicySetting{blockSize("128KiB")}}},
	}}
	if n := namespace.Needs(&boot); n != 1 {
		t.Errorf("founding needs version %d", n)
	}
	c.must(boot)
	c.load("/m/early", fileEntry("early", 1))
	c.must(namespace.Command{SetVersion: &namespace.SetVersion{Version: 3}})
	if n := c.begin(1, namespace.OpWrite, "/m/w").BlockSize; n != freshet.DefaultBlockSize {
		t.Errorf("a write before the version has blocks of %d", n)
	}
	c.must(namespace.Command{SetVersion: &namespace.SetVersion{Version: 4}})
	c.load("/m/late", fileEntry("late", 1))
	for p, want := range map[freshet.Path]int64{"/m/early": freshet.DefaultBlockSize, "/m/late": 128 << 10} {
		if got := c.look(p).Info.BlockSize; got != want {
			t.Errorf("%s has blocks of %d, want %d", p, got, want)
		}
	}
	if e, _ := c.s.EffectiveAt("/m/x"); e.BlockSize != 128<<10 {
		t.Errorf("%+v applies", e)
	}
}

func TestAWriteMayNameItsBlockSize(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.must(namespace.Command{SetVersion: &namespace.SetVersion{Version: 4}})
	c.policy("/m", blockSize("1MiB"))
	begin := func(op int, named int64, length *int64) int64 {
		t.Helper()
		b := &namespace.Begin{Op: opID(op), Kind: namespace.OpWrite, Path: "/m/w", BlockSize: named, Length: length, At: epochTime}
		size := c.must(namespace.Command{Begin: b}).Intent.BlockSize
		c.must(namespace.Command{Abort: &namespace.Abort{Op: opID(op), Definite: true}})
		return size
	}
	one, huge := int64(1), int64(1)<<53
	for i, s := range []struct {
		named  int64
		length *int64
		want   int64
	}{{0, nil, 1 << 20}, {0, &one, 1 << 20}, {100_000, &one, 100_000}, {freshet.DefaultBlockSize, nil, freshet.DefaultBlockSize}, {0, &huge, 2 << 20}} {
		if got := begin(i+1, s.named, s.length); got != s.want {
			t.Errorf("%+v: blocks of %d", s, got)
		}
	}
	if in := c.begin(9, namespace.OpMkdir, "/m/dir"); in.BlockSize != freshet.DefaultBlockSize {
		t.Errorf("a directory has blocks of %d", in.BlockSize)
	}
}

// A file that has more blocks of the policy's size than can be numbered has larger ones.
func TestBlocksCanBeNumbered(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.must(namespace.Command{SetVersion: &namespace.SetVersion{Version: 4}})
	for _, s := range []struct {
		policy string
		length int64
		want   int64
	}{
		{"64KiB", 0, 64 << 10},
		{"64KiB", 1 << 48, 64 << 10},
		{"64KiB", 1<<48 + 1, 128 << 10},
		{"64KiB", 1<<63 - 1, 1 << 30}, // more than any storage takes: reading its end is refused
		{"192KiB", 3<<48 + 1, 384 << 10},
		{"1GiB", 1 << 62, 1 << 30},
		{"768MiB", 1 << 62, 1 << 30},
	} {
		c.policy("/m", blockSize(s.policy))
		e := fileEntry("f", 1)
		e.Length = s.length
		if !c.load("/m/f", e) {
			t.Fatalf("%+v was not loaded", s)
		}
		if got := c.look("/m/f").Info.BlockSize; got != s.want {
			t.Errorf("%+v: blocks of %d", s, got)
		}
		c.load("/m/f", nil)
	}
}

func TestBlockSizesSurviveARestartAndADump(t *testing.T) {
	t.Parallel()
	store := kv.NewMemory()
	c := &cluster{t: t, s: open(t, store)}
	c.found(mountOf("/m", "/"))
	c.must(namespace.Command{SetVersion: &namespace.SetVersion{Version: 4}})
	c.policy("/m/d", blockSize("64KiB"))
	c.load("/m/d/f", fileEntry("f", 1))
	c.begin(1, namespace.OpWrite, "/m/d/w")
	c.policy("/m/d", blockSize("1MiB"))
	var dump bytes.Buffer
	if _, err := c.s.Dump(&dump); err != nil {
		t.Fatal(err)
	}
	other := open(t, kv.NewMemory())
	if err := other.Restore(&dump); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*namespace.State{"opened again": open(t, store), "restored": other} {
		after := &cluster{t: t, s: s, i: c.i}
		after.complete(1, fileEntry("w", 2))
		after.load("/m/d/g", fileEntry("g", 3))
		for p, want := range map[freshet.Path]int64{"/m/d/f": 64 << 10, "/m/d/w": 64 << 10, "/m/d/g": 1 << 20} {
			if got := after.look(p).Info.BlockSize; got != want {
				t.Errorf("%s: %s has blocks of %d, want %d", name, p, got, want)
			}
		}
	}
}
