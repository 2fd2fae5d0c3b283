// Package local owns the under file system on directories of this machine and on
// NFS: files below one root, which no link leads out of. It never opens anything
// but regular files and directories, and shows a written file only when it is
// whole.
//
// A symbolic link that stays inside the root is followed; one that leaves it, and
// every absolute one, is refused. Two names of one file are two keys: a change
// under one name is an event about that name only, so a file that is reached
// through links should be synced by time.
//
// A fingerprint is as good as the change times of the file system: two changes in
// one tick of its clock, that keep inode and size, look like one.
package local

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// Opener opens file:// mounts.
type Opener struct{}

var _ ufs.Opener = Opener{}

const (
	scheme       = "file"
	optionCreate = "create"
	// optionMountPoint guards against a file system that is not mounted (yet):
	// the empty directory below would look as if all files were gone.
	optionMountPoint = "mount_point"
)

func options() ufs.OptionTable {
	return append(append(ufs.CommonOptions(0), eventOptions()...), ufs.Option{
		Name: optionCreate, Type: ufs.OptionBool, Default: "false", Help: "make the root directory if it is missing",
	}, ufs.Option{
		Name: optionMountPoint, Type: ufs.OptionBool, Default: "false", Help: "the root is where a file system is mounted, such as NFS: unavailable while none is",
	})
}

// Schemes returns "file".
func (Opener) Schemes() []string { return []string{scheme} }

// OptionTable returns all options that a mount of file:// may have.
func (Opener) OptionTable() ufs.OptionTable { return options() }

// Parse checks spec without any I/O: the path is cleaned, links in it are not
// resolved.
func (Opener) Parse(spec ufs.Spec) (ufs.Canonical, error) {
	c, _, err := parse(spec)
	return c, err
}

func parse(spec ufs.Spec) (ufs.Canonical, ufs.Values, error) {
	u, err := ufs.ParseURI(spec.URI)
	if err != nil {
		return ufs.Canonical{}, ufs.Values{}, err
	}
	switch {
	case u.Scheme != scheme:
		return ufs.Canonical{}, ufs.Values{}, freshet.Errorf(freshet.KindInvalid, "parse uri", "", "%q is not a file:// URI", u.Scheme)
	case u.Host != "":
		return ufs.Canonical{}, ufs.Values{}, freshet.Errorf(freshet.KindInvalid, "parse uri", "", "a file URI has no host: write file:///%s%s", u.Host, u.Path)
	case u.Path == "":
		return ufs.Canonical{}, ufs.Values{}, freshet.Errorf(freshet.KindInvalid, "parse uri", "", "the root directory of the machine can't be mounted; name a directory below it")
	}
	v, err := options().Check(scheme, spec.Options)
	if err != nil {
		return ufs.Canonical{}, v, err
	}
	if dir := systemDir(u.Path); dir != "" {
		return ufs.Canonical{}, v, freshet.Errorf(freshet.KindPermission, "parse uri", "", "%s is not under ufs.local_roots: %s belongs to the system", u.Path, dir)
	}
	c, err := v.OverrideDomain(ufs.Canonical{Scheme: scheme, Authority: scheme, DomainKey: u.Path})
	return c, v, err
}

// systemDir returns the directory of the system that p is in.
func systemDir(p string) string {
	for _, dir := range []string{"/proc", "/dev", "/sys"} {
		if p == dir || strings.HasPrefix(p, dir+"/") {
			return dir
		}
	}
	return ""
}

// Open opens the directory of spec. A missing one is KindNotExist unless the
// option create is set; one that env forbids is KindPermission.
func (Opener) Open(spec ufs.Spec, env ufs.Environment) (ufs.FS, error) {
	c, v, err := parse(spec)
	if err != nil {
		return nil, err
	}
	u, err := ufs.ParseURI(spec.URI)
	if err != nil {
		return nil, err
	}
	if err := allowed(u.Path, env); err != nil {
		return nil, err
	}
	if v.Bool(optionCreate) && !env.DryRun {
		if err := makeRoot(u.Path, env); err != nil {
			return nil, err
		}
	}
	resolved, err := filepath.EvalSymlinks(u.Path)
	if err != nil {
		return nil, openError(u.Path, err)
	}
	if err := allowed(resolved, env); err != nil {
		return nil, err
	}
	if info, err := os.Stat(resolved); err == nil && !info.IsDir() {
		return nil, freshet.Errorf(freshet.KindConflict, "open storage", "", "%s is not a directory", u.Path)
	}
	if v.Bool(optionMountPoint) && !isMountPoint(resolved) {
		return nil, freshet.Errorf(freshet.KindUnavailable, "open storage", "", "no file system is mounted at %s; mount it, or leave out the option %s if none has to be", u.Path, optionMountPoint)
	}
	f, err := open(resolved, v.Duration(ufs.OptionMaxOpLifetime))
	if err != nil {
		return nil, openError(u.Path, err)
	}
	f.mountPoint = v.Bool(optionMountPoint)
	f.asNamed, f.named, f.events = u.Path, c, v.Text(optionEvents)
	return f, nil
}

// makeRoot makes the directories of path that are missing, after a look at where
// those that exist really are.
func makeRoot(path string, env ufs.Environment) error {
	base := path
	for {
		resolved, err := filepath.EvalSymlinks(base)
		if err == nil {
			if err := allowed(filepath.Join(resolved, strings.TrimPrefix(path, base)), env); err != nil {
				return err
			}
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || base == "/" {
			return openError(path, err)
		}
		base = filepath.Dir(base)
	}
	if err := os.MkdirAll(path, 0o755); err != nil { //nolint:gosec // shared data, like any directory that a user makes
		return openError(path, err)
	}
	return nil
}

// allowed checks a clean absolute path against what may be mounted.
func allowed(path string, env ufs.Environment) error {
	refuse := func(format string, args ...any) error {
		return freshet.Errorf(freshet.KindPermission, "open storage", "", format, args...)
	}
	if dir := systemDir(path); dir != "" || path == "/" {
		return refuse("%s is not under ufs.local_roots: it belongs to the system", path)
	}
	for _, dir := range both(env.ForbiddenRoots) {
		if within(path, dir) || within(dir, path) {
			return refuse("%s can't be mounted: Freshet keeps its own data in %s", path, dir)
		}
	}
	if len(env.LocalRoots) == 0 {
		return nil
	}
	for _, dir := range both(env.LocalRoots) {
		if within(path, dir) {
			return nil
		}
	}
	return refuse("%s is not under ufs.local_roots (%s)", path, strings.Join(env.LocalRoots, ", "))
}

// both returns dirs as they are named and as they really are.
func both(dirs []string) []string {
	var all []string
	for _, dir := range dirs {
		if abs, err := filepath.Abs(dir); err == nil {
			dir = abs
		}
		all = append(all, dir)
		if resolved, err := filepath.EvalSymlinks(dir); err == nil && resolved != dir {
			all = append(all, resolved)
		}
	}
	return all
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

func openError(path string, err error) error {
	if errors.Is(err, syscall.ENOTDIR) {
		return freshet.Errorf(freshet.KindConflict, "open storage", "", "%s is not a directory, or lies below something that is none: name a directory", path)
	}
	k, text := kindOf(err)
	if k == freshet.KindNotExist {
		return freshet.Errorf(k, "open storage", "", "directory %s does not exist; create it, or set the option create=true", path)
	}
	return freshet.Errorf(k, "open storage", "", "directory %s: %s: %w", path, text, err)
}

func open(path string, maxOpLifetime time.Duration) (*FS, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	dir, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &FS{root: root, dir: dir, path: path, maxOpLifetime: maxOpLifetime}, nil
}
