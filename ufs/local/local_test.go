package local_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/local"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

func openFile(dir string) (ufs.FS, error) {
	return local.Opener{}.Open(ufs.Spec{URI: "file://" + dir}, ufs.Environment{})
}

func openTest(t *testing.T, dir string, options map[string]string, env ufs.Environment) ufs.FS {
	t.Helper()
	fs, err := local.Opener{}.Open(ufs.Spec{URI: "file://" + dir, Options: options}, env)
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// rewriteInPlace changes the bytes of a file and puts its modification time back,
// as a careful program that hides its traces would.
func rewriteInPlace(name string, data []byte) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Chtimes(name, time.Time{}, info.ModTime())
}

func specialMakers(at func(string) string) map[string]func(string) error {
	return map[string]func(string) error{
		"fifo":                 func(key string) error { return syscall.Mkfifo(at(key), 0o600) },
		"socket":               func(key string) error { return syscall.Mknod(at(key), syscall.S_IFSOCK|0o600, 0) },
		"link out of the root": func(key string) error { return os.Symlink("../outside", at(key)) },
		"absolute link":        func(key string) error { return os.Symlink("/etc/hostname", at(key)) },
		"link to nothing":      func(key string) error { return os.Symlink("gone", at(key)) },
		"link to a fifo": func(key string) error {
			return errors.Join(syscall.Mkfifo(at("far fifo"), 0o600), os.Symlink("far fifo", at(key)))
		},
		"link to a file": func(key string) error {
			return errors.Join(os.WriteFile(at("far"), []byte("far"), 0o600), os.Symlink("far", at(key)))
		},
	}
}

// temporaryFiles returns the hidden files below dir.
func temporaryFiles(dir string) (names []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), ufs.TempPrefix) {
			names = append(names, path)
		}
		return err
	})
	return names, err
}

func TestConforms(t *testing.T) { conforms(t) }

// TestConformsForAUser is TestConforms for who is not the superuser, who can be
// denied nothing.
func TestConformsForAUser(t *testing.T) {
	t.Parallel()
	switch {
	case os.Getenv("FRESHET_TEST_USER") != "":
		conforms(t)
	case os.Geteuid() == 0:
		again(t, &syscall.Credential{Uid: 65534, Gid: 65534}, "FRESHET_TEST_USER=nobody")
	default:
		t.Log("TestConforms runs as such a user already")
	}
}

func conforms(t *testing.T) {
	t.Helper()
	roots := map[ufs.FS]string{}
	h := ufstest.Harness{
		New: func(t *testing.T) ufs.FS {
			dir := t.TempDir()
			fs := openTest(t, dir, nil, ufs.Environment{})
			roots[fs] = dir
			return fs
		},
		Again: func(t *testing.T, fs ufs.FS) ufs.FS { return openTest(t, roots[fs], nil, ufs.Environment{}) },
		Outside: func(_ *testing.T, fs ufs.FS) ufstest.Outside {
			at := func(key string) string { return filepath.Join(roots[fs], key) }
			return ufstest.Outside{
				Put: func(key string, data []byte) error {
					if err := os.MkdirAll(filepath.Dir(at(key)), 0o755); err != nil {
						return err
					}
					return os.WriteFile(at(key), data, 0o644)
				},
				Rewrite:   func(key string, data []byte) error { return rewriteInPlace(at(key), data) },
				Remove:    func(key string) error { return os.Remove(at(key)) },
				Special:   specialMakers(at),
				Leftovers: func() ([]string, error) { return temporaryFiles(roots[fs]) },
			}
		},
		Denied: func(t *testing.T) ufs.FS {
			dir := t.TempDir()
			fs := openTest(t, dir, nil, ufs.Environment{})
			if err := os.Chmod(dir, 0); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
			return fs
		},
		Down: func(t *testing.T) ufs.FS {
			dir := filepath.Join(t.TempDir(), "root")
			fs := openTest(t, dir, map[string]string{"create": "true"}, ufs.Environment{})
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
			return fs
		},
		Many: 10_000,
		Exceptions: map[string]string{
			"failure/throttled": "a file system of the machine does not ask for patience",
			"failure/context-ends-while-the-storage-is-silent": "a system call that the kernel does not end can't be given up",
		},
	}
	if os.Geteuid() == 0 {
		h.Exceptions["failure/denied-is-not-absent"] = "nothing is denied to the superuser, who runs this test; see TestConformsForAUser"
	}
	ufstest.Run(t, h)
}

func wantKind(t *testing.T, err error, k freshet.Kind, text string) {
	t.Helper()
	if freshet.KindOf(err) != k || (err != nil && !strings.Contains(err.Error(), text)) {
		t.Errorf("got %v (kind %v), want kind %v and %q", err, freshet.KindOf(err), k, text)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		uri     string
		options map[string]string
		want    ufs.Canonical
		kind    freshet.Kind
		text    string
	}{
		{uri: "file:///data", want: ufs.Canonical{Scheme: "file", Authority: "file", DomainKey: "/data"}},
		{uri: "file:///data//a%20b/", want: ufs.Canonical{Scheme: "file", Authority: "file", DomainKey: "/data/a b"}},
		{uri: "FILE:///data/sub", want: ufs.Canonical{Scheme: "file", Authority: "file", DomainKey: "/data/sub"}},
		{uri: "file:///mnt/x", options: map[string]string{"domain": "nfs1", "domain_root": "/exports/x"}, want: ufs.Canonical{Scheme: "file", Authority: "nfs1", DomainKey: "/exports/x"}},
		{uri: "file://host/data", kind: freshet.KindInvalid, text: "no host"},
		{uri: "file://u:p@/data", kind: freshet.KindInvalid, text: "credentials in URI"},
		{uri: "file:///a/../etc", kind: freshet.KindInvalid, text: `".." segment`},
		{uri: "file:///a/%2e%2e/etc", kind: freshet.KindInvalid, text: `".." segment`},
		{uri: "file:///a%00b", kind: freshet.KindInvalid, text: "control character"},
		{uri: "file:///", kind: freshet.KindInvalid, text: "root directory"},
		{uri: "file://", kind: freshet.KindInvalid, text: "root directory"},
		{uri: "file:/data", kind: freshet.KindInvalid, text: "file:///absolute/path"},
		{uri: "/data", kind: freshet.KindInvalid, text: "file:///absolute/path"},
		{uri: "file:///proc", kind: freshet.KindPermission, text: "not under ufs.local_roots"},
		{uri: "file:///dev/shm", kind: freshet.KindPermission, text: "not under ufs.local_roots"},
		{uri: "file:///sys/kernel", kind: freshet.KindPermission, text: "not under ufs.local_roots"},
		{uri: "file:///data", options: map[string]string{"creat": "true"}, kind: freshet.KindInvalid, text: "unknown option 'creat'; did you mean 'create'?"},
		{uri: "file:///data", options: map[string]string{"create": "yes"}, kind: freshet.KindInvalid, text: `"yes" is not true or false`},
		{uri: "file:///data", options: map[string]string{"max_op_lifetime": "-5s"}, kind: freshet.KindInvalid, text: "allowed is 0s to 24h0m0s"},
	} {
		got, err := local.Opener{}.Parse(ufs.Spec{URI: tc.uri, Options: tc.options})
		if got != tc.want && tc.kind == freshet.KindOK {
			t.Errorf("%s: got %+v, want %+v", tc.uri, got, tc.want)
		}
		wantKind(t, err, tc.kind, tc.text)
	}
}

func TestOpenRefusesWhatIsNotAllowed(t *testing.T) {
	t.Parallel()
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"data/ufs", "own/state", "outside"} {
		if err := os.MkdirAll(filepath.Join(base, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range [][2]string{{"/proc", "link-to-proc"}, {base + "/own", "data/link-to-own"}, {base + "/outside", "data/link-to-outside"}} {
		if err := os.Symlink(link[0], filepath.Join(base, link[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(base, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	own := ufs.Environment{ForbiddenRoots: []string{base + "/own"}}
	roots := ufs.Environment{LocalRoots: []string{base + "/data"}}
	create := map[string]string{"create": "true"}
	for name, tc := range map[string]struct {
		dir     string
		options map[string]string
		env     ufs.Environment
		kind    freshet.Kind
		text    string
	}{
		"missing":                  {dir: "none", kind: freshet.KindNotExist, text: "create=true"},
		"a file":                   {dir: "file", kind: freshet.KindConflict, text: "is not a directory"},
		"link to proc":             {dir: "link-to-proc", kind: freshet.KindPermission, text: "ufs.local_roots"},
		"own data":                 {dir: "own", env: own, kind: freshet.KindPermission, text: "own data"},
		"below own data":           {dir: "own/state", env: own, kind: freshet.KindPermission, text: "own data"},
		"above own data":           {dir: "", env: own, kind: freshet.KindPermission, text: "own data"},
		"own data by a link":       {dir: "data/link-to-own", env: own, kind: freshet.KindPermission, text: "own data"},
		"created in own data":      {dir: "own/new", options: create, env: own, kind: freshet.KindPermission, text: "own data"},
		"created through a link":   {dir: "data/link-to-own/new", options: create, env: own, kind: freshet.KindPermission, text: "own data"},
		"outside of roots":         {dir: "outside", env: roots, kind: freshet.KindPermission, text: "not under ufs.local_roots"},
		"link out of the roots":    {dir: "data/link-to-outside", env: roots, kind: freshet.KindPermission, text: "not under ufs.local_roots"},
		"inside of roots":          {dir: "data/ufs", env: roots},
		"created below a file":     {dir: "file/new", options: create, kind: freshet.KindConflict, text: "name a directory"},
		"created":                  {dir: "data/new/deep", options: create, env: roots},
		"beside own data, no more": {dir: "outside", env: own},
	} {
		fs, err := local.Opener{}.Open(ufs.Spec{URI: "file://" + filepath.Join(base, tc.dir), Options: tc.options}, tc.env)
		if freshet.KindOf(err) != tc.kind || (err != nil && !strings.Contains(err.Error(), tc.text)) {
			t.Errorf("%s: got %v (kind %v), want kind %v and %q", name, err, freshet.KindOf(err), tc.kind, tc.text)
		}
		if err == nil {
			if err := fs.Close(); err != nil {
				t.Errorf("%s: close: %v", name, err)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(base, "own/new")); err == nil {
		t.Error("a refused mount made a directory in Freshet's own data")
	}
}

func TestResolveGivesTheRealPath(t *testing.T) {
	t.Parallel()
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(base+"/real", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", base+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		options map[string]string
		want    string
	}{{nil, base + "/real"}, {map[string]string{"domain_root": "/x"}, "/x"}} {
		spec := ufs.Spec{URI: "file://" + base + "/link", Options: tc.options}
		fs := openTest(t, base+"/link", tc.options, ufs.Environment{})
		parsed, err := local.Opener{}.Parse(spec)
		if err != nil {
			t.Fatal(err)
		}
		if got := ufs.Resolve(fs, parsed); got.DomainKey != tc.want || got.Authority != "file" {
			t.Errorf("options %v: got %+v, want key %q", tc.options, got, tc.want)
		}
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A tree is removed although others go on writing into it for a while.
func TestRemoveATreeThatIsWrittenInto(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := openTest(t, dir, nil, ufs.Environment{})
	if err := put(t, f, "d/s/first", "x"); err != nil {
		t.Fatal(err)
	}
	late := filepath.Join(dir, "d", "s", "late")
	writes := 0
	err := f.Remove(t.Context(), "d", ufs.RemoveOptions{Recursive: true, Removed: func(int) error {
		if writes == 5 {
			return nil
		}
		err := os.WriteFile(late, nil, 0o600)
		if errors.Is(err, os.ErrNotExist) { // this was the directory itself
			return nil
		}
		writes++
		return err
	}})
	if err != nil || writes != 5 {
		t.Errorf("after %d files that came late: %v", writes, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "d")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory: %v", err)
	}
}
