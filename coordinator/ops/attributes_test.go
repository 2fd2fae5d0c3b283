package ops_test

import (
	"context"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/acl"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/fault"
	"github.com/freshet-io/freshet/ufs/mem"
)

func (m mortal) Unwrap() ufs.FS { return m.FS }

func (m mortal) Intercept(ctx context.Context, _ ufs.Call, call func(context.Context) error) error {
	if err := m.alive(); err != nil {
		return err
	}
	return call(ctx)
}

func (r recorder) Unwrap() ufs.FS { return r.FS }

func (r recorder) Intercept(ctx context.Context, c ufs.Call, call func(context.Context) error) error {
	if c.Repeatable {
		return call(ctx)
	}
	return r.effect(c.Op, func() error { return call(ctx) }, c.Key)
}

func entries(t *testing.T, text string) acl.List {
	t.Helper()
	l, err := acl.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func xattrsOf(t *testing.T, fs ufs.FS, key string) map[string]string {
	t.Helper()
	x, ok := ufs.XattrsOf(fs)
	if !ok {
		t.Fatal("no attributes")
	}
	all, err := x.Xattrs(context.Background(), key)
	if freshet.IsKind(err, freshet.KindUnsupported) {
		t.Skip("the file system keeps no attributes")
	}
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for name, value := range all {
		out[name] = string(value)
	}
	return out
}

// Every change of attributes is one operation with one record, which says that the
// metadata changed; the file keeps its ID, and with it its blocks.
func TestAttributesAreOperations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := onDirectory(t)
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		n.write("/m/f", "hello")
		xattrsOf(t, w.local, "f")
		ctx, bits := context.Background(), uint32(0o640)
		file := freshet.FileID(0)
		for i, step := range []func() (freshet.Completed, error){
			func() (freshet.Completed, error) {
				return l.SetAttr(ctx, freshet.SetAttrQuery{Path: "/m/f", Mode: &bits})
			},
			func() (freshet.Completed, error) {
				return l.SetXattr(ctx, freshet.SetXattrQuery{Path: "/m/f", Name: "user.a", Value: []byte("1")})
			},
			func() (freshet.Completed, error) {
				return l.SetXattr(ctx, freshet.SetXattrQuery{Path: "/m/f", Name: "user.b", Value: []byte("2")})
			},
			func() (freshet.Completed, error) {
				return l.RemoveXattr(ctx, freshet.RemoveXattrQuery{Path: "/m/f", Name: "user.a"})
			},
			func() (freshet.Completed, error) {
				return l.SetACL(ctx, freshet.SetACLQuery{Path: "/m/f", Change: acl.Change{Entries: entries(t, "group::rwx")}})
			},
		} {
			before := len(w.records())
			done, err := step()
			if err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
			if file == 0 {
				file = done.Info.FileID
			}
			if done.Info.FileID != file || file == 0 || done.Token.IsZero() {
				t.Errorf("step %d: %+v, want the file %d and a token", i, done, file)
			}
			if r := w.records(); len(r) != before+1 || r[before].Kind != invalidation.KindMeta {
				t.Errorf("step %d: records %v", i, r[before:])
			}
		}
		if got := xattrsOf(t, w.local, "f"); !maps.Equal(got, map[string]string{"user.b": "2"}) {
			t.Errorf("attributes %q", got)
		}
		if st, err := w.local.Stat(ctx, "f"); err != nil || st.Mode != 0o670 {
			t.Errorf("%+v, %v", st, err)
		}
		w.checkPublished()
		w.checkServable("f")
	})
}

// What is refused leaves no record behind.
func TestAttributesThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := onDirectory(t)
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		n.write("/m/f", "hello")
		xattrsOf(t, w.local, "f")
		ctx, before := context.Background(), len(w.records())
		set := func(p freshet.Path, name string, when freshet.XattrWhen, size int) error {
			_, err := l.SetXattr(ctx, freshet.SetXattrQuery{Path: p, Name: name, When: when, Value: make([]byte, size)})
			return err
		}
		kind(t, set("/m/f", "user.a", freshet.XattrReplace, 1), freshet.KindNotExist, "no attribute user.a")
		kind(t, set("/m/none", "user.a", freshet.XattrAlways, 1), freshet.KindNotExist, "")
		kind(t, set("/m/f", "trusted.a", freshet.XattrAlways, 1), freshet.KindInvalid, `does not begin with "user."`)
		kind(t, set("/m/f", "user.a", freshet.XattrAlways, freshet.MaxXattr+1), freshet.KindInvalid, "more than")
		_, err := l.RemoveXattr(ctx, freshet.RemoveXattrQuery{Path: "/m/f", Name: "user.a"})
		kind(t, err, freshet.KindNotExist, "no attribute user.a")
		for _, c := range []acl.Change{{}, {Entries: entries(t, "default:user::rwx")}, {Kind: acl.Set, Entries: entries(t, "user::rwx")}} {
			_, err := l.SetACL(ctx, freshet.SetACLQuery{Path: "/m/f", Change: c})
			kind(t, err, freshet.KindInvalid, "access control list")
		}
		if r := w.records(); len(r) != before {
			t.Errorf("records %v", r[before:])
		}
		w.checkServable("f")
	})
}

func TestAttributesOfAStorageWithoutThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Object, 0)
		w.put("f", "1")
		l := w.lead(ops.Options{})
		ctx := context.Background()
		_, err := l.SetXattr(ctx, freshet.SetXattrQuery{Path: "/m/f", Name: "user.a"})
		kind(t, err, freshet.KindUnsupported, "storage keeps no extended attributes")
		_, err = l.RemoveXattr(ctx, freshet.RemoveXattrQuery{Path: "/m/f", Name: "user.a"})
		kind(t, err, freshet.KindUnsupported, "storage keeps no extended attributes")
		_, err = l.SetACL(ctx, freshet.SetACLQuery{Path: "/m/f", Change: acl.Change{Kind: acl.RemoveAll}})
		kind(t, err, freshet.KindUnsupported, "storage keeps no access control lists")
	})
}

// An answer that is lost, of the effect or of the look behind it, leaves the outcome
// unknown: it is looked at again, and a record follows.
func TestAttributesWithAnUnknownOutcome(t *testing.T) {
	for _, op := range []fault.Op{ufs.OpSetXattr, fault.OpStat} {
		t.Run(string(op), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _ := onDirectory(t)
				l := w.lead(ops.Options{})
				n := w.node("n1", l)
				n.write("/m/f", "hello")
				xattrsOf(t, w.local, "f")
				skip := 0
				if op == fault.OpStat {
					skip = 1 // the look before
				}
				before := len(w.records())
				l.fs.Add(fault.Rule{Op: op, Skip: skip, Times: 1, Err: freshet.KindUnavailable, Uncertain: true})
				_, err := l.SetXattr(context.Background(), freshet.SetXattrQuery{Path: "/m/f", Name: "user.a", Value: []byte("1")})
				if !freshet.IsKind(err, freshet.KindDeadline) || !strings.Contains(err.Error(), "unknown") {
					t.Fatalf("got %v", err)
				}
				w.until(6*time.Second, "the record", func() bool { return len(w.records()) > before })
				w.quiet(62 * time.Second)
				if got := xattrsOf(t, w.local, "f"); got["user.a"] != "1" {
					t.Errorf("attributes %q", got)
				}
				w.checkPublished()
				w.checkServable("f")
			})
		})
	}
}
