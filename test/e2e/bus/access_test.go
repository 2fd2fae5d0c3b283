package bus_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/child"
	"github.com/freshet-io/freshet/test/e2e"
)

// TestAttributesBetweenRegions: what one region changes of owner, mode, attributes and
// access control lists, the other shows. A change that shows in owner, group or mode
// costs no block anywhere; one that moves nothing but the inode change time costs none
// where it was made, and is read again elsewhere.
func TestAttributesBetweenRegions(t *testing.T) {
	w := e2e.NewDirWorld(t, e2e.Options{Nodes: 1})
	a, b := w.A, w.B
	data := e2e.Content("attributes", 1, 100_000)
	for _, name := range []string{"t/f", "t/g", "t/d/h"} {
		put(t, a, name, data)
		seen(t, b, name, data, e2e.Patience)
	}
	inA, inB := func(name string) string { return string(a.At(name)) }, func(name string) string { return string(b.At(name)) }
	if _, err := a.S.Xattrs(t.Context(), a.At("t/f")); freshet.IsKind(err, freshet.KindUnsupported) {
		child.FailOrSkip(t, &child.UnavailableError{Backend: "xattrs", Reason: err.Error()})
	} else if err != nil {
		t.Fatal(err)
	}
	sourceIn := func(r *e2e.Region, name, want, after string) {
		t.Helper()
		if from := source(t, r, name); from != want {
			t.Errorf("after %s the bytes in %s came from %q, want %q", after, r.Name, from, want)
		}
	}
	for _, name := range []string{"t/f", "t/g", "t/d/h"} {
		e2e.AwaitCached(t, a, name, int64(len(data)))
		e2e.AwaitCached(t, b, name, int64(len(data)))
		sourceIn(a, name, "hit", "the write")
		sourceIn(b, name, "hit", "the read")
	}
	shows := func(r *e2e.Region, name string, want func(freshet.Info) bool) {
		t.Helper()
		err := fleet.Poll(t.Context(), e2e.Patience, name+" in "+r.Name, func(ctx context.Context) error {
			st, err := r.S.Stat(ctx, r.At(name), freshet.ReadOptions{})
			if err == nil && !want(st.Info) {
				err = fmt.Errorf("%+v", st.Info)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}

	// Whole trees, by the command line.
	a.CLI(t, "fs", "chmod", "-R", "u=rwX,go=", inA("t")).Want(t, 0, "5 entries")
	for name, mode := range map[string]uint32{"t": 0o700, "t/f": 0o600, "t/d": 0o700, "t/d/h": 0o600} {
		shows(b, name, func(i freshet.Info) bool { return i.Mode&0o777 == mode })
	}
	if os.Geteuid() == 0 { // nobody else may give a file to any group
		a.CLI(t, "fs", "chown", "-R", ":54321", inA("t")).Want(t, 0, "5 entries")
		shows(b, "t/d/h", func(i freshet.Info) bool { return i.Group == "54321" })
	}
	for _, r := range []*e2e.Region{a, b} {
		for _, name := range []string{"t/f", "t/g", "t/d/h"} {
			sourceIn(r, name, "hit", "chmod and chown")
		}
	}

	// A list that moves the mode.
	a.CLI(t, "fs", "setfacl", "-m", "user:54321:r-x", inA("t/f")).Want(t, 0, "token")
	shows(b, "t/f", func(i freshet.Info) bool { return i.Mode&0o777 == 0o650 })
	b.CLI(t, "fs", "getfacl", inB("t/f")).Want(t, 0, "user:54321:r-x", "mask::r-x")
	sourceIn(a, "t/f", "hit", "setfacl")
	sourceIn(b, "t/f", "hit", "setfacl")
	a.CLI(t, "fs", "setfacl", "-R", "-m", "default:user:54321:r", inA("t")).Want(t, 0, "2 entries")
	b.CLI(t, "fs", "getfacl", inB("t/d")).Want(t, 0, "default:user:54321:r--")
	b.CLI(t, "fs", "setfacl", "-R", "-b", inB("t")).Want(t, 0, "5 entries")
	if r := a.CLI(t, "fs", "getfacl", inA("t/d")); r.Code != 0 || strings.Contains(r.Out, "54321:") {
		t.Errorf("after setfacl -b: %+v", r)
	}

	// An attribute moves the inode change time alone.
	sourceIn(a, "t/g", "hit", "setfacl -b of what had no list")
	done, err := a.S.SetXattr(t.Context(), freshet.SetXattrQuery{Path: a.At("t/g"), Name: "user.note", Value: []byte("seen")})
	if err != nil {
		t.Fatal(err)
	}
	sourceIn(a, "t/g", "hit", "setxattr")
	b.CLI(t, "fs", "xattr", "get", inB("t/g"), "user.note").Want(t, 0, "seen")
	from, err := b.S.Files.Open(t.Context(), b.At("t/g"), client.ReadOptions{Length: -1, ReadOptions: freshet.ReadOptions{After: done.Token}})
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := from.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
	t.Logf("after setxattr in %s the bytes in %s came from %q", a.Name, b.Name, from.From())
	if err := from.Close(); err != nil {
		t.Error(err)
	}
	b.CLI(t, "fs", "xattr", "rm", inB("t/g"), "user.note").Want(t, 0)
	a.CLI(t, "fs", "xattr", "get", inA("t/g"), "user.note").Want(t, freshet.ExitNotFound)

	// The same by REST.
	coord := "http://" + a.HTTP[0]
	e2e.HTTP(t, "PUT", coord+"/v1/xattrs", `{"path":"`+inA("t/g")+`","name":"user.rest","value":"AAEC"}`).Want(t, 200, `"token"`)
	e2e.HTTP(t, "GET", coord+"/v1/xattrs?path="+inA("t/g"), "").Want(t, 200, `"AAEC"`)
	e2e.HTTP(t, "DELETE", coord+"/v1/xattrs?name=user.rest&path="+inA("t/g"), "").Want(t, 200)
	e2e.HTTP(t, "GET", coord+"/v1/xattrs?name=user.rest&path="+inA("t/g"), "").Want(t, 404)
	e2e.HTTP(t, "POST", coord+"/v1/acl", `{"path":"`+inA("t/g")+`","change":"modify","entries":["user:54321:rw"]}`).Want(t, 200, `"token"`)
	e2e.HTTP(t, "GET", coord+"/v1/acl?path="+inA("t/g"), "").Want(t, 200, `"user:54321:rw-"`)
	e2e.HTTP(t, "POST", coord+"/v1/acl", `{"path":"`+inA("t/g")+`","change":"modify","entries":["default:user:54321:rw"]}`).Want(t, 400, "only directories")
	w.Converged(t)
}
