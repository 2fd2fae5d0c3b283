package rpc_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/acl"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// access remembers what it is asked for.
type access struct {
	asked string
	err   error
}

func (a *access) done(format string, args ...any) (freshet.Completed, error) {
	a.asked = fmt.Sprintf(format, args...)
	return freshet.Completed{Info: freshet.Info{Path: "/f", Mode: 0o640}}, a.err
}

func (a *access) Xattrs(context.Context, freshet.Path) (map[string][]byte, error) {
	return map[string][]byte{"user.b": {0, 0xff}, "user.a": {}, "user.\xff": []byte("x")}, a.err
}

func (a *access) SetXattr(_ context.Context, q freshet.SetXattrQuery) (freshet.Completed, error) {
	return a.done("set %s %s=%q %d %t", q.Path, q.Name, q.Value, q.When, q.Op.IsZero())
}

func (a *access) RemoveXattr(_ context.Context, q freshet.RemoveXattrQuery) (freshet.Completed, error) {
	return a.done("remove %s %s %t", q.Path, q.Name, q.Op.IsZero())
}

func (a *access) ACL(_ context.Context, p freshet.Path) (freshet.ACL, error) {
	l, _ := acl.Parse("u::rwx,u:al:r,g::r,m::r,o::-,d:u::rwx,d:g::r,d:o::r")
	return freshet.ACL{Path: p, Type: freshet.TypeDirectory, Owner: "o", Group: "g", Mode: 0o740, List: l}, a.err
}

func (a *access) SetACL(_ context.Context, q freshet.SetACLQuery) (freshet.Completed, error) {
	return a.done("acl %s %s %s %t", q.Path, q.Change.Kind, q.Change.Entries, q.Op.IsZero())
}

func TestAccessTravels(t *testing.T) {
	t.Parallel()
	src := &access{}
	server := rpc.NewAccessServer(src, nil)
	c, ctx := rpc.NewCoordinator(inProcess{server}), t.Context()

	all, err := c.Xattrs(ctx, "/f")
	if want := []string{"user.a", "user.b", "user.\uFFFD"}; err != nil || !slices.Equal(slices.Sorted(maps.Keys(all)), want) || string(all["user.b"]) != "\x00\xff" {
		t.Errorf("%q, %v, want %q", all, err, want)
	}
	for when, want := range []string{`set /f user.a="v" 0 false`, `set /f user.a="v" 1 false`, `set /f user.a="v" 2 false`} {
		done, err := c.SetXattr(ctx, freshet.SetXattrQuery{Path: "/f", Name: "user.a", Value: []byte("v"), When: freshet.XattrWhen(when)}) //nolint:gosec // three
		if err != nil || src.asked != want || done.Info.Mode != 0o640 {
			t.Errorf("%s, %+v, %v, want %s", src.asked, done, err, want)
		}
	}
	if _, err := c.RemoveXattr(ctx, freshet.RemoveXattrQuery{Path: "/f", Name: "user.a"}); err != nil || src.asked != "remove /f user.a false" {
		t.Errorf("%s, %v", src.asked, err)
	}
	want, _ := src.ACL(ctx, "/d")
	if got, err := c.ACL(ctx, "/d"); err != nil || !slices.Equal(got.List, want.List) || got.Owner != "o" || got.Group != "g" || got.Mode != 0o740 || got.Type != freshet.TypeDirectory || got.Path != "/d" {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for k := acl.Modify; k <= acl.RemoveDefault; k++ {
		change := acl.Change{Kind: k}
		if k != acl.RemoveAll && k != acl.RemoveDefault {
			change.Entries = acl.List{{Tag: acl.User, Name: "a, b"}, {Default: true, Tag: acl.Group}}
		}
		want := fmt.Sprintf("acl /d %s %s false", k, change.Entries)
		if _, err := c.SetACL(ctx, freshet.SetACLQuery{Path: "/d", Change: change}); err != nil || src.asked != want {
			t.Errorf("%s, %v, want %s", src.asked, err, want)
		}
	}
	src.err = freshet.Errorf(freshet.KindUnsupported, "ask", "/f", "no")
	_, err1 := c.Xattrs(ctx, "/f")
	_, err2 := c.ACL(ctx, "/f")
	_, err3 := c.SetXattr(ctx, freshet.SetXattrQuery{Path: "/f", Name: "user.a"})
	for _, err := range []error{err1, err2, err3} {
		if !freshet.IsKind(err, freshet.KindUnsupported) {
			t.Errorf("got %v", err)
		}
	}
}

func TestAccessRefusesWhatItCanNotRead(t *testing.T) {
	t.Parallel()
	src := &access{}
	s, ctx := rpc.NewAccessServer(src, nil), t.Context()
	answers := map[string]error{}
	_, answers["path"] = s.ListXattrs(ctx, &freshetv1.ListXattrsRequest{Path: "relative"})
	_, answers["name"] = s.ListXattrs(ctx, &freshetv1.ListXattrsRequest{Path: "/f", Name: "system.x"})
	_, answers["condition"] = s.SetXattr(ctx, &freshetv1.SetXattrRequest{Path: "/f", Name: "user.a", When: "now"})
	_, answers["operation"] = s.SetXattr(ctx, &freshetv1.SetXattrRequest{Path: "/f", Name: "user.a", OpId: "x"})
	_, answers["change"] = s.SetACL(ctx, &freshetv1.SetACLRequest{Path: "/f", Change: "chmod"})
	_, answers["entries"] = s.SetACL(ctx, &freshetv1.SetACLRequest{Path: "/f", Change: "modify", Entries: []string{"user:a"}})
	for what, err := range answers {
		if err := rpc.ErrorOf(err); !freshet.IsKind(err, freshet.KindInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.ListXattrs(ctx, &freshetv1.ListXattrsRequest{Path: "/f", Name: "user.none"}); !freshet.IsKind(rpc.ErrorOf(err), freshet.KindNotExist) {
		t.Errorf("no such attribute: %v", err)
	}
	if src.asked != "" {
		t.Errorf("asked for %s", src.asked)
	}
}
