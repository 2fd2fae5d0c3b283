package ufstest

import (
	"bytes"
	"slices"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/acl"
	"github.com/freshet-io/freshet/ufs"
)

func accessCases() []testCase {
	return []testCase{
		{"access/xattrs", xattrs},
		{"access/xattrs-when", xattrsWhen},
		{"access/xattrs-of-nothing", xattrsOfNothing},
		{"access/xattrs-keep-the-bytes", xattrsKeepBytes},
		{"access/acl", accessACL},
		{"access/acl-default", defaultACL},
		{"access/acl-that-can-not-be", impossibleACL},
		{"access/acl-and-mode", aclAndMode},
		{"access/acl-of-what-is-replaced", aclReplaced},
		{"access/owner-of-what-is-made", heirs},
	}
}

// xattrs returns the attributes of a storage that keeps some.
func (e *env) xattrs() ufs.Xattrs {
	e.Helper()
	x, ok := ufs.XattrsOf(e.fs)
	if !ok {
		e.lacks("the storage keeps no extended attributes")
	}
	e.put("probe", nil)
	if _, err := x.Xattrs(e.ctx(), "probe"); freshet.IsKind(err, freshet.KindUnsupported) {
		e.lacks("the file system keeps no extended attributes")
	}
	return x
}

// acls returns the access control lists of a storage that keeps some.
func (e *env) acls() ufs.ACLs {
	e.Helper()
	a, ok := ufs.ACLsOf(e.fs)
	if !ok {
		e.lacks("the storage keeps no access control lists")
	}
	e.put("probe", nil)
	if _, err := a.ACL(e.ctx(), "probe"); freshet.IsKind(err, freshet.KindUnsupported) {
		e.lacks("the file system keeps no access control lists")
	}
	return a
}

func (e *env) wantXattrs(x ufs.Xattrs, key string, want map[string][]byte) {
	e.Helper()
	got, err := x.Xattrs(e.ctx(), key)
	e.must(err)
	same := len(got) == len(want)
	for name, value := range want {
		v, ok := got[name]
		same = same && ok && bytes.Equal(v, value)
	}
	if !same {
		e.Fatalf("attributes of %q: %q, want %q", key, got, want)
	}
}

func xattrs(e *env) {
	x := e.xattrs()
	e.put("f", []byte("x"))
	e.mkdir("d")
	for _, key := range []string{"f", "d"} {
		e.wantXattrs(x, key, nil)
		want := map[string][]byte{"user.empty": {}, "user.bytes": {0, 0xff, '\n'}, "user.long": bytes.Repeat([]byte("v"), 1000)}
		for name, value := range want {
			e.must(x.SetXattr(e.ctx(), key, name, value, freshet.XattrAlways))
		}
		e.wantXattrs(x, key, want)
		want["user.empty"] = []byte("no more")
		e.must(x.SetXattr(e.ctx(), key, "user.empty", want["user.empty"], freshet.XattrAlways))
		e.wantXattrs(x, key, want)
		e.must(x.RemoveXattr(e.ctx(), key, "user.long"))
		delete(want, "user.long")
		e.wantXattrs(x, key, want)
		for _, name := range []string{"", "user.", "bytes", "system.posix_acl_access", "trusted.x", "security.x", "user.a\nb"} {
			e.wantKind(x.SetXattr(e.ctx(), key, name, nil, freshet.XattrAlways), freshet.KindInvalid)
			e.wantKind(x.RemoveXattr(e.ctx(), key, name), freshet.KindInvalid)
		}
		e.wantXattrs(x, key, want)
	}
	_, err := e.fs.Rename(e.ctx(), "f", "g")
	e.must(err)
	e.wantXattrs(x, "g", map[string][]byte{"user.empty": []byte("no more"), "user.bytes": {0, 0xff, '\n'}})
}

func xattrsWhen(e *env) {
	x := e.xattrs()
	e.put("f", []byte("x"))
	const name = "user.once"
	e.wantKind(x.SetXattr(e.ctx(), "f", name, []byte("1"), freshet.XattrReplace), freshet.KindNotExist)
	e.must(x.SetXattr(e.ctx(), "f", name, []byte("2"), freshet.XattrCreate))
	e.wantKind(x.SetXattr(e.ctx(), "f", name, []byte("3"), freshet.XattrCreate), freshet.KindExist)
	e.wantXattrs(x, "f", map[string][]byte{name: []byte("2")})
	e.must(x.SetXattr(e.ctx(), "f", name, []byte("4"), freshet.XattrReplace))
	e.wantXattrs(x, "f", map[string][]byte{name: []byte("4")})
	e.must(x.RemoveXattr(e.ctx(), "f", name))
	e.wantKind(x.RemoveXattr(e.ctx(), "f", name), freshet.KindNotExist)
}

func xattrsOfNothing(e *env) {
	x := e.xattrs()
	e.put("f", []byte("x"))
	for _, key := range []string{"nothing", "f/below", "none/below"} {
		_, err := x.Xattrs(e.ctx(), key)
		e.wantKind(err, freshet.KindNotExist)
		e.wantKind(x.SetXattr(e.ctx(), key, "user.a", nil, freshet.XattrAlways), freshet.KindNotExist)
		e.wantKind(x.RemoveXattr(e.ctx(), key, "user.a"), freshet.KindNotExist)
	}
}

// xattrsKeepBytes: an attribute says nothing of the bytes, whatever it does to the
// other parts of the fingerprint.
func xattrsKeepBytes(e *env) {
	x := e.xattrs()
	before := e.put("f", []byte("content"))
	e.must(x.SetXattr(e.ctx(), "f", "user.a", []byte("b"), freshet.XattrAlways))
	after := e.stat("f")
	if after.Fingerprint.Content != before.Fingerprint.Content || !after.ModTime.Equal(before.ModTime) || after.Mode != before.Mode {
		e.Errorf("was %+v, is %+v", before, after)
	}
	e.wantContent("f", []byte("content"))
}

func (e *env) change(a ufs.ACLs, key string, kind acl.Kind, text string) error {
	e.Helper()
	parse := acl.Parse
	if kind == acl.Remove {
		parse = acl.ParseNames
	}
	entries, err := parse(text)
	e.must(err)
	return a.ChangeACL(e.ctx(), key, acl.Change{Kind: kind, Entries: entries})
}

func (e *env) wantACL(a ufs.ACLs, key, want string) {
	e.Helper()
	got, err := a.ACL(e.ctx(), key)
	e.must(err)
	l, err := acl.Parse(want)
	e.must(err)
	if !slices.Equal(got, l) {
		e.Fatalf("access control list of %q: %s, want %s", key, got, l)
	}
}

func (e *env) mode(key string, mode uint32) ufs.Status {
	e.Helper()
	st, err := e.fs.SetAttr(e.ctx(), key, ufs.Attr{Mode: &mode})
	e.must(err)
	return st
}

func accessACL(e *env) {
	a := e.acls()
	e.put("f", []byte("x"))
	e.mkdir("d")
	for _, key := range []string{"f", "d"} {
		st := e.mode(key, 0o640)
		who := "user:" + st.Owner
		e.wantACL(a, key, "user::rw-,group::r--,other::---")
		e.must(e.change(a, key, acl.Modify, who+":rwx"))
		e.wantACL(a, key, "user::rw-,"+who+":rwx,group::r--,mask::rwx,other::---")
		if now := e.stat(key); now.Mode != 0o670 || now.Fingerprint.Content != st.Fingerprint.Content {
			e.Errorf("%s: was %+v, is %+v", key, st, now)
		}
		e.must(e.change(a, key, acl.Modify, "group:"+st.Group+":--x,mask::r--"))
		e.wantACL(a, key, "user::rw-,"+who+":rwx,group::r--,group:"+st.Group+":--x,mask::r--,other::---")
		e.must(e.change(a, key, acl.Remove, who))
		e.wantACL(a, key, "user::rw-,group::r--,group:"+st.Group+":--x,mask::r-x,other::---")
		e.must(e.change(a, key, acl.Set, "user::r--,group::r--,other::r--"))
		e.wantACL(a, key, "user::r--,group::r--,other::r--")
		e.must(e.change(a, key, acl.Modify, who+":rwx"))
		e.must(e.change(a, key, acl.RemoveAll, ""))
		e.wantACL(a, key, "user::r--,group::r--,other::r--")
		if now := e.stat(key); now.Mode != 0o444 {
			e.Errorf("%s: mode %o", key, now.Mode)
		}
	}
	_, err := a.ACL(e.ctx(), "nothing")
	e.wantKind(err, freshet.KindNotExist)
	e.wantKind(e.change(a, "nothing", acl.Modify, "other::r"), freshet.KindNotExist)
}

func defaultACL(e *env) {
	a := e.acls()
	e.mkdir("d")
	st := e.mode("d", 0o755)
	const access = "user::rwx,group::r-x,other::r-x"
	who := "user:" + st.Owner
	e.must(e.change(a, "d", acl.Modify, "default:"+who+":rw-"))
	inherited := "default:user::rwx,default:" + who + ":rw-,default:group::r-x,default:mask::rwx,default:other::r-x"
	e.wantACL(a, "d", access+","+inherited)
	e.mkdir("d/sub")
	sub, err := a.ACL(e.ctx(), "d/sub")
	e.must(err)
	if want, _ := acl.Parse(inherited); !slices.Equal(sub.Scope(true), want) {
		e.Errorf("a directory made below it has %s, want the default scope %s", sub, want)
	}
	e.must(e.change(a, "d", acl.Remove, "default:"+who))
	e.wantACL(a, "d", access+",default:user::rwx,default:group::r-x,default:mask::r-x,default:other::r-x")
	e.must(e.change(a, "d", acl.RemoveDefault, ""))
	e.wantACL(a, "d", access)
	e.must(e.change(a, "d", acl.Modify, who+":rwx,default:other::-"))
	e.must(e.change(a, "d", acl.RemoveAll, ""))
	e.wantACL(a, "d", access)
}

func impossibleACL(e *env) {
	a := e.acls()
	e.put("f", []byte("x"))
	st := e.mode("f", 0o640)
	e.wantKind(e.change(a, "f", acl.Modify, "default:user::rwx"), freshet.KindInvalid)
	e.wantKind(e.change(a, "f", acl.Set, "user::rwx,user:"+st.Owner+":r"), freshet.KindInvalid)
	e.wantKind(e.change(a, "f", acl.Remove, "user:"), freshet.KindInvalid)
	e.wantKind(e.change(a, "f", acl.Modify, ""), freshet.KindInvalid)
	e.wantACL(a, "f", "user::rw-,group::r--,other::---")
	e.must(e.change(a, "f", acl.Modify, "user:"+st.Owner+":r"))
	e.wantKind(e.change(a, "f", acl.Remove, "mask:"), freshet.KindInvalid)
	e.wantKind(e.change(a, "f", acl.Modify, "user:no-such-user-anywhere:r"), freshet.KindInvalid, freshet.KindOK)
}

// aclAndMode: the group bits of a chmod are the mask of a list.
func aclAndMode(e *env) {
	a := e.acls()
	e.put("f", []byte("x"))
	st := e.mode("f", 0o640)
	e.must(e.change(a, "f", acl.Modify, "user:"+st.Owner+":rwx"))
	e.mode("f", 0o701)
	e.wantACL(a, "f", "user::rwx,user:"+st.Owner+":rwx,group::r--,mask::---,other::--x")
}

// aclReplaced: a file that replaces another one gives nobody a right that the other
// one did not. The group bits of a mode are the mask where there is a list, so that
// the mode alone would give them to the owning group; and a directory may give a new
// file a list that the one before did not have.
func aclReplaced(e *env) {
	a := e.acls()
	e.mkdir("d")
	e.put("d/f", []byte("1"))
	st := e.mode("d/f", 0o600)
	who := "user:" + st.Owner
	const plain = "user::rw-,group::---,other::---"
	listed := "user::rw-," + who + ":rw-,group::---,mask::rw-,other::---"
	e.must(e.change(a, "d/f", acl.Set, listed))
	e.put("d/f", []byte("2"))
	e.wantACL(a, "d/f", listed)
	if now := e.stat("d/f"); now.Mode != 0o660 || now.Owner != st.Owner || now.Group != st.Group {
		e.Errorf("was %+v, is %+v", st, now)
	}
	e.must(e.change(a, "d", acl.Modify, "default:"+who+":rwx"))
	e.put("d/f", []byte("3"))
	e.wantACL(a, "d/f", listed)
	e.must(e.change(a, "d/f", acl.RemoveAll, ""))
	e.put("d/f", []byte("4"))
	e.wantACL(a, "d/f", plain)
	e.put("d/new", []byte("5"))
	if l, err := a.ACL(e.ctx(), "d/new"); err != nil || !l.Extended() {
		e.Errorf("a new file has %s, %v, want the list of its directory", l, err)
	}
	e.wantContent("d/f", []byte("4"))
}

// heirs: what is made for an owner and a group is theirs, with the directories that
// were missing; what is replaced keeps its own.
func heirs(e *env) {
	if !e.feat.OwnerAndMode {
		e.lacks("the storage keeps no owners")
	}
	const owner, group = "50001", "50002"
	e.put("ours", nil)
	ours, err := e.fs.Stat(e.ctx(), "ours")
	e.must(err)
	st, err := e.fs.Mkdir(e.ctx(), "made/for/them", ufs.MkdirOptions{Owner: owner, Group: group})
	if freshet.IsKind(err, freshet.KindPermission) {
		if _, err := e.fs.Stat(e.ctx(), "made"); !freshet.IsKind(err, freshet.KindNotExist) {
			e.Errorf("a directory that could not be given away is left: %v", err)
		}
		e.lacks("the user of the test may not give files to others")
	}
	e.must(err)
	theirs := func(what string, st ufs.Status, err error) {
		e.Helper()
		e.must(err)
		if st.Owner != owner || st.Group != group {
			e.Errorf("%s %q belongs to %s:%s, want %s:%s", what, st.Key, st.Owner, st.Group, owner, group)
		}
	}
	theirs("mkdir", st, nil)
	for _, key := range []string{"made", "made/for", "made/for/them"} {
		st, err := e.fs.Stat(e.ctx(), key)
		theirs("directory", st, err)
	}
	write := func(key, owner, group string) ufs.Status {
		e.Helper()
		w, err := e.fs.Create(e.ctx(), key, ufs.CreateOptions{Size: -1, Owner: owner, Group: group})
		e.must(err)
		_, err = w.Write([]byte("x"))
		e.must(err)
		st, err := w.Commit(e.ctx())
		e.must(err)
		return st
	}
	theirs("file", write("written/for/them", owner, group), nil)
	for _, key := range []string{"written", "written/for", "written/for/them"} {
		st, err := e.fs.Stat(e.ctx(), key)
		theirs("what was written", st, err)
	}
	theirs("the file that was replaced", write("written/for/them", "50003", "50004"), nil)
	write("written/by/us", "", "")
	if st, err := e.fs.Stat(e.ctx(), "written/by"); err != nil || st.Owner != ours.Owner {
		e.Errorf("without an owner it belongs to %q, want %q: %v", st.Owner, ours.Owner, err)
	}
	st, err = e.fs.Mkdir(e.ctx(), "made", ufs.MkdirOptions{Existing: true, Owner: "50003"})
	theirs("the directory that was there", st, err)
}
