package ufs_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/acl"
	"github.com/freshet-io/freshet/ufs"
)

// attributes is a storage that has nothing but attributes.
type attributes struct {
	ufs.FS

	values map[string][]byte
	list   acl.List
}

func (a *attributes) Xattrs(context.Context, string) (map[string][]byte, error) {
	return maps.Clone(a.values), nil
}

func (a *attributes) SetXattr(_ context.Context, _, name string, value []byte, _ freshet.XattrWhen) error {
	a.values[name] = value
	return nil
}

func (a *attributes) RemoveXattr(_ context.Context, _, name string) error {
	delete(a.values, name)
	return nil
}

func (a *attributes) ACL(context.Context, string) (acl.List, error) { return a.list, nil }

func (a *attributes) ChangeACL(_ context.Context, _ string, c acl.Change) (err error) {
	a.list, err = c.Apply(a.list, false)
	return err
}

// wrapper keeps a record of what passes.
type wrapper struct {
	ufs.FS

	name string
	log  *[]string
	err  error
}

func (w wrapper) Unwrap() ufs.FS { return w.FS }

func (w wrapper) Intercept(ctx context.Context, c ufs.Call, call func(context.Context) error) error {
	text := w.name + " " + c.Op + " " + c.Key
	if c.Repeatable {
		text += " again"
	}
	*w.log = append(*w.log, text)
	if w.err != nil {
		return w.err
	}
	return call(ctx)
}

// silent is a wrapper that knows nothing of optional interfaces.
type silent struct{ ufs.FS }

func (s silent) Unwrap() ufs.FS { return s.FS }

func TestOptionalInterfacesPassThroughWrappers(t *testing.T) {
	t.Parallel()
	ctx, log := t.Context(), []string{}
	driver := &attributes{values: map[string][]byte{}, list: acl.FromMode(0o640)}
	fs := wrapper{FS: silent{wrapper{FS: driver, name: "inner", log: &log}}, name: "outer", log: &log}
	x, ok := ufs.XattrsOf(fs)
	if !ok {
		t.Fatal("no attributes")
	}
	a, ok := ufs.ACLsOf(fs)
	if !ok {
		t.Fatal("no access control lists")
	}
	err := errors.Join(x.SetXattr(ctx, "f", "user.a", []byte("1"), freshet.XattrAlways), x.SetXattr(ctx, "f", "user.b", nil, freshet.XattrAlways), x.RemoveXattr(ctx, "f", "user.b"),
		a.ChangeACL(ctx, "f", acl.Change{Entries: acl.List{{Tag: acl.Other, Perm: acl.Read}}}))
	if err != nil {
		t.Fatal(err)
	}
	if all, err := x.Xattrs(ctx, "f"); err != nil || len(all) != 1 || string(all["user.a"]) != "1" {
		t.Errorf("attributes %q, %v", all, err)
	}
	if l, err := a.ACL(ctx, "f"); err != nil || l.Mode() != 0o644 {
		t.Errorf("list %s, %v", l, err)
	}
	var want []string
	for _, op := range []string{"set_xattr f", "set_xattr f", "remove_xattr f", "change_acl f", "xattrs f again", "acl f again"} {
		want = append(want, "outer "+op, "inner "+op)
	}
	if !slices.Equal(log, want) {
		t.Errorf("the wrappers saw %q, want %q", log, want)
	}
}

func TestOptionalInterfacesThatAWrapperRefuses(t *testing.T) {
	t.Parallel()
	log := []string{}
	driver := &attributes{values: map[string][]byte{}}
	fs := wrapper{FS: driver, log: &log, err: freshet.KindUnavailable}
	x, _ := ufs.XattrsOf(fs)
	if err := x.SetXattr(t.Context(), "f", "user.a", nil, freshet.XattrAlways); !freshet.IsKind(err, freshet.KindUnavailable) || len(driver.values) > 0 {
		t.Errorf("set: %v, %q", err, driver.values)
	}
}

func TestOptionalInterfacesThatAreNotThere(t *testing.T) {
	t.Parallel()
	log := []string{}
	for _, fs := range []ufs.FS{nil, silent{}, wrapper{log: &log}, wrapper{FS: silent{}, log: &log}} {
		if _, ok := ufs.XattrsOf(fs); ok {
			t.Errorf("%T has attributes", fs)
		}
		if _, ok := ufs.ACLsOf(fs); ok {
			t.Errorf("%T has access control lists", fs)
		}
	}
}
