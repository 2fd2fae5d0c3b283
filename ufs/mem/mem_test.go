package mem_test

import (
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

func TestObjectStoreConforms(t *testing.T) { ufstest.Run(t, ufstest.InMemory(mem.Object, nil)) }

func TestLocalConforms(t *testing.T) { ufstest.Run(t, ufstest.InMemory(mem.Local, nil)) }

func TestOpener(t *testing.T) {
	t.Parallel()
	store := mem.New(mem.Options{})
	o := ufs.Openers{mem.Opener{"lake": store}}
	c, err := o.Parse(ufs.Spec{URI: "mem://lake/a/b"})
	if err != nil || c != (ufs.Canonical{Scheme: "mem", Authority: "mem://lake", DomainKey: "/a/b"}) {
		t.Errorf("got %+v, %v", c, err)
	}
	if c, err = o.Parse(ufs.Spec{URI: "mem://lake"}); err != nil || c.DomainKey != "/" {
		t.Errorf("got %+v, %v", c, err)
	}
	fs, err := o.Open(ufs.Spec{URI: "mem://lake/a"}, ufs.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	store.Put("a/f", []byte("x"))
	if st, err := fs.Stat(t.Context(), "f"); err != nil || st.Length != 1 {
		t.Errorf("got %+v, %v", st, err)
	}
	for uri, want := range map[string]freshet.Kind{"mem:///a": freshet.KindInvalid, "mem://pond": freshet.KindNotExist, "mem://lake/..": freshet.KindInvalid} {
		if _, err := o.Open(ufs.Spec{URI: uri}, ufs.Environment{}); freshet.KindOf(err) != want {
			t.Errorf("%s: %v, want kind %v", uri, err, want)
		}
	}
}

// TestHookSeesEveryStep: a listing costs one step per page, a rename on an object
// store one copy and one delete per object.
func TestHookSeesEveryStep(t *testing.T) {
	t.Parallel()
	store := mem.New(mem.Options{PageSize: 2})
	for _, key := range []string{"d/a", "d/b", "d/c", "d/e", "d/f"} {
		store.Put(key, nil)
	}
	fs := store.FS("")
	n := 0
	for _, err := range fs.List(t.Context(), "d", ufs.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if _, err := fs.Rename(t.Context(), "d", "e"); err != nil {
		t.Fatal(err)
	}
	if calls := store.Calls(); n != 5 || calls["list"] != 3 || calls["stat"] != 0 || calls["copy"] != 5 || calls["delete"] != 5 {
		t.Errorf("%d entries, calls %v", n, calls)
	}
}
