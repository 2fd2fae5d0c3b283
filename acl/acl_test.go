package acl_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-io/freshet/acl"
)

func parse(t *testing.T, text string) acl.List {
	t.Helper()
	l, err := acl.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"u::rwx,g::r-x,o::r--":                              "user::rwx,group::r-x,other::r--",
		"other::r\nuser:alice:rx\nuser::7\ngroup::-":        "user::rwx,user:alice:r-x,group::---,other::r--",
		"default:u:bob:rw, d:g::5 ,d:m:rwx":                 "default:user:bob:rw-,default:group::r-x,default:mask::rwx",
		"# file: x\n\nuser::rwx\t#effective:r--\nm::r-x":    "user::rwx,mask::r-x",
		"u:zoe:r,u:adam:w,u::x,g:b:r":                       "user::--x,user:adam:-w-,user:zoe:r--,group:b:r--",
		`u:a\072b\054c\040d:rwx`:                            `user:a\072b\054c\040d:rwx`,
		"u:jürgen:r--":                                      "user:jürgen:r--",
		"":                                                  "",
		"user::rwx,user:alice:r-x,mask::r-x,other::r--":     "user::rwx,user:alice:r-x,mask::r-x,other::r--",
		"d:user::rwx,user::r--,d:other::---,d:mask::--x":    "user::r--,default:user::rwx,default:mask::--x,default:other::---",
		"user:1000:rwx,group:1000:r--":                      "user:1000:rwx,group:1000:r--",
		"mask:rw":                                           "mask::rw-",
		"u:" + strings.Repeat("n", 255) + ":r":              "user:" + strings.Repeat("n", 255) + ":r--",
		"user:alice:wr,user:bob:x-w,user:carol:---,g::xwr,": "user:alice:rw-,user:bob:-wx,user:carol:---,group::rwx",
	} {
		l := parse(t, text)
		if got := l.String(); got != want {
			t.Errorf("%q is read as %q, want %q", text, got, want)
		}
		if again := parse(t, l.String()); !slices.Equal(again, l) {
			t.Errorf("%q is read back as %v", l, again)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"alice:rwx", "user", "user:", "user:alice", "user:alice:rwxx", "user:alice:rwx:r", "user:alice:8", "user:alice:rr", "user::", "owner::rwx",
		"mask:alice:r", "other:x:r", "user::r,user::w", "d:u:a:r,default:user:a:r", "default", "default:", ":", "::", `user:a\7:r`, `user:a\000:r`, `user:\400:r`,
		`user:\377:r`, "user:" + strings.Repeat("n", 256) + ":r", strings.Repeat("#", 64<<10+1), strings.Repeat("u:x:rwx\n", 2),
	} {
		if l, err := acl.Parse(text); !errors.Is(err, acl.ErrInvalid) {
			t.Errorf("%.40q is read as %v, %v", text, l, err)
		}
	}
	var many strings.Builder
	for i := range 1001 {
		many.WriteString("u:n" + strings.Repeat("x", i%40) + string(rune('a'+i/40)) + ":r,")
	}
	if _, err := acl.Parse(many.String()); !errors.Is(err, acl.ErrInvalid) || !strings.Contains(err.Error(), "more than") {
		t.Errorf("1,001 entries: %v", err)
	}
}

func TestParseNames(t *testing.T) {
	t.Parallel()
	l, err := acl.ParseNames("user:alice,g:dev:rwx,mask,d:u:bob,default:group:")
	if want := "user:alice:---,group:dev:---,mask::---,default:user:bob:---,default:group::---"; err != nil || l.String() != want {
		t.Errorf("%s %v, want %s", l, err, want)
	}
	if _, err := acl.ParseNames("user:alice:z"); !errors.Is(err, acl.ErrInvalid) {
		t.Error(err)
	}
}

func TestMode(t *testing.T) {
	t.Parallel()
	for mode := range uint32(0o1000) {
		if l := acl.FromMode(mode); l.Mode() != mode || l.Extended() || l.Check(false) != nil {
			t.Fatalf("%o becomes %s, %o", mode, l, l.Mode())
		}
	}
	l := parse(t, "u::rwx,u:alice:rwx,g::r-x,m::r--,o::---")
	if l.Mode() != 0o740 || !l.Extended() {
		t.Errorf("mode %o", l.Mode())
	}
	if want := "user::rwx\nuser:alice:rwx\t#effective:r--\ngroup::r-x\t#effective:r--\nmask::r--\nother::---"; l.Text() != want {
		t.Errorf("%s, want %s", l.Text(), want)
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	const base = "user::rwx,group::r-x,other::r--"
	const full = "user::rwx,user:alice:rw-,group::r-x,mask::rwx,other::r--"
	for name, tc := range map[string]struct {
		old, entries string
		kind         acl.Kind
		want         string // "" refuses
	}{
		"a name brings a mask":                  {base, "u:alice:rw", acl.Modify, full},
		"a name below a given mask":             {base, "u:alice:rw,m::r", acl.Modify, "user::rwx,user:alice:rw-,group::r-x,mask::r--,other::r--"},
		"a given mask stays until the next":     {"u::rwx,u:alice:rw,g::rx,m::r,o::r", "u:bob:x", acl.Modify, "user::rwx,user:alice:rw-,user:bob:--x,group::r-x,mask::rwx,other::r--"},
		"a base entry":                          {base, "o::-", acl.Modify, "user::rwx,group::r-x,other::---"},
		"a base entry below a name":             {full, "g::-", acl.Modify, "user::rwx,user:alice:rw-,group::---,mask::rw-,other::r--"},
		"the last name leaves the mask":         {full, "u:alice", acl.Remove, "user::rwx,group::r-x,mask::r-x,other::r--"},
		"a name that is not there":              {full, "u:bob", acl.Remove, full},
		"a mask that is needed":                 {full, "m", acl.Remove, ""},
		"a mask that is not needed":             {"u::rwx,g::rx,m::rwx,o::r", "m", acl.Remove, base},
		"the owner":                             {full, "u", acl.Remove, ""},
		"all":                                   {full + ",d:u::rwx,d:g::rx,d:o::r", "", acl.RemoveAll, base},
		"the default":                           {full + ",d:u::rwx,d:g::rx,d:o::r", "", acl.RemoveDefault, full},
		"set":                                   {full, "u::r,g::r,o::r", acl.Set, "user::r--,group::r--,other::r--"},
		"set with a name":                       {base, "u::rwx,u:alice:rw,g::rx,o::r", acl.Set, full},
		"set keeps the other scope":             {base + ",d:u::rwx,d:g::rx,d:o::r", "u::r,g::r,o::r", acl.Set, "user::r--,group::r--,other::r--,default:user::rwx,default:group::r-x,default:other::r--"},
		"set the default only":                  {full, "d:u::r,d:g::r,d:o::r", acl.Set, full + ",default:user::r--,default:group::r--,default:other::r--"},
		"set without other":                     {base, "u::rwx,g::rx", acl.Set, ""},
		"a default takes the rest from access":  {full, "d:u:bob:w", acl.Modify, full + ",default:user::rwx,default:user:bob:-w-,default:group::r-x,default:mask::rwx,default:other::r--"},
		"a default entry goes":                  {base + ",d:u::rwx,d:u:bob:w,d:g::rx,d:m::rwx,d:o::r", "d:u:bob", acl.Remove, base + ",default:user::rwx,default:group::r-x,default:mask::r-x,default:other::r--"},
		"a default's owner":                     {base + ",d:u::rwx,d:g::rx,d:o::r", "d:u", acl.Remove, ""},
		"the whole default, entry by entry":     {base + ",d:u::rwx,d:g::rx,d:o::r", "d:u,d:g,d:o", acl.Remove, base},
		"entries for a removal of all":          {full, "u:alice", acl.RemoveAll, ""},
		"nothing to modify":                     {full, "", acl.Modify, ""},
		"a change of one scope leaves the mask": {"u::rwx,u:alice:rw,g::rx,m::r,o::r", "d:u::rwx", acl.Modify, "user::rwx,user:alice:rw-,group::r-x,mask::r--,other::r--,default:user::rwx,default:group::r-x,default:other::r--"},
	} {
		old := parse(t, tc.old)
		entries, err := acl.ParseNames(tc.entries)
		if tc.kind == acl.Modify || tc.kind == acl.Set {
			entries, err = acl.Parse(tc.entries)
		}
		if err != nil {
			t.Fatal(err)
		}
		change := acl.Change{Kind: tc.kind, Entries: entries}
		before := old.String()
		got, err := change.Apply(old, true)
		if tc.want == "" {
			if !errors.Is(err, acl.ErrInvalid) {
				t.Errorf("%s: %s, %v", name, got, err)
			}
			continue
		}
		if err != nil || got.String() != tc.want {
			t.Errorf("%s: %s, %v, want %s", name, got, err, tc.want)
		}
		if old.String() != before {
			t.Errorf("%s: the old list became %s", name, old)
		}
		if _, err := change.Apply(old, false); got.Scope(true) != nil && !errors.Is(err, acl.ErrInvalid) {
			t.Errorf("%s: a file got a default scope, %v", name, err)
		}
	}
}

func TestWithoutGroup(t *testing.T) {
	t.Parallel()
	l := parse(t, "u::rwx,u:al:rwx,g::rw,g:dev:rwx,m::rwx,o::r,d:u::rwx,d:g::rwx,d:o::-")
	if got, want := l.WithoutGroup().String(), "user::rwx,user:al:rwx,group::r--,group:dev:rwx,mask::rwx,other::r--,default:user::rwx,default:group::---,default:other::---"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	for k := acl.Modify; k <= acl.RemoveDefault; k++ {
		if got, err := acl.ParseKind(k.String()); err != nil || got != k {
			t.Errorf("%s is read as %s, %v", k, got, err)
		}
	}
	if _, err := acl.ParseKind("chmod"); !errors.Is(err, acl.ErrInvalid) {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("user::rwx,user:alice:r-x,group::r-x,mask::r-x,other::---")
	f.Add("default:user::7\nd:g:a\\054b:5 # x\nm:r")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := acl.Parse(text)
		if err != nil {
			if !errors.Is(err, acl.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		for _, form := range []string{l.String(), l.Text()} {
			again, err := acl.Parse(form)
			if err != nil || !slices.Equal(again, l) {
				t.Fatalf("%q is %q is %v, %v", text, form, again, err)
			}
		}
	})
}

// FuzzApply: whatever a change makes of a list that a file can have, a file can have.
func FuzzApply(f *testing.F) {
	f.Add("u::rwx,g::rx,o::r", "u:alice:rw,d:u::r", uint8(0))
	f.Add("u::rwx,u:a:r,g::rx,m::r,o::r", "u:a:r", uint8(1))
	f.Add("u::rwx,g::rx,o::r,d:u::r,d:g::r,d:o::r", "u::rwx,g::rx,o::r", uint8(2))
	f.Fuzz(func(t *testing.T, old, entries string, kind uint8) {
		from, err := acl.Parse(old)
		if err != nil || from.Check(true) != nil {
			return
		}
		by, err := acl.Parse(entries)
		if err != nil {
			return
		}
		got, err := acl.Change{Kind: acl.Kind(kind % 6), Entries: by}.Apply(from, true)
		if err != nil {
			if !errors.Is(err, acl.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if err := got.Check(true); err != nil {
			t.Fatalf("%s becomes %s: %v", from, got, err)
		}
		if !slices.Equal(got, mustParse(t, got.String())) {
			t.Fatalf("%s is not sorted", got)
		}
	})
}

func mustParse(t *testing.T, text string) acl.List {
	t.Helper()
	l, err := acl.Parse(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return l
}
