package local

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/fsnotify/fsnotify"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// tree is the set of directories that are watched. A watch belongs to a
// directory, not to its name: when it moves, those of it and of all below it have
// wrong names. So whatever comes or goes at a name, all watches below the name
// are dropped, and if there is a directory now it is watched anew.
type tree struct {
	fs   *FS
	w    *fsnotify.Watcher
	base string // key of the root in the domain
	// failed gets the first error of w.
	failed <-chan error
	dirs   map[string]*watched
	at     map[place]string // key of each directory
}

type watched struct {
	place
	children map[string]bool // keys
}

func newTree(f *FS, w *fsnotify.Watcher, failed <-chan error) *tree {
	return &tree{fs: f, w: w, failed: failed, base: f.Resolve(f.named).DomainKey, dirs: map[string]*watched{}, at: map[place]string{}}
}

func (t *tree) path(key string) string {
	if key == "" {
		return t.fs.path
	}
	return t.fs.path + "/" + key
}

// event notes what ev names, and sets up watches where it must.
func (t *tree) event(ctx context.Context, ev fsnotify.Event, c *changes) error {
	if ev.Name == "" {
		return nil
	}
	c.events++
	key, below := strings.CutPrefix(ev.Name, t.fs.path+"/")
	structure := ev.Op&(fsnotify.Create|fsnotify.Remove|fsnotify.Rename) != 0
	switch {
	case ev.Name == t.fs.path:
		if structure {
			return ufs.Errorf(freshet.KindUnavailable, "watch", "", "the root directory %s was moved or removed while mounted; restore it", t.fs.path)
		}
		key = ""
	case !below || ufs.IsTemp(key) || !nameable(key):
		return nil // never shown
	}
	if structure {
		t.drop(key)
		if err := t.add(ctx, key); err != nil {
			return err
		}
	}
	c.add(key, ev.Op)
	return nil
}

// nameable reports whether a path can name key.
func nameable(key string) bool {
	p, err := freshet.ParsePath("/" + key)
	return err == nil && string(p) == "/"+key
}

// drop forgets the directory key and all below it.
func (t *tree) drop(key string) {
	d := t.dirs[key]
	if d == nil {
		return
	}
	for child := range d.children {
		t.drop(child)
	}
	_ = t.w.Remove(t.path(key)) // the system may have done so before
	delete(t.dirs, key)
	if t.at[d.place] == key {
		delete(t.at, d.place)
	}
	if above := t.dirs[ufs.ParentKey(key)]; above != nil && key != "" {
		delete(above.children, key)
	}
}

// add watches the directory key and all below it. What is no directory, or is
// gone by now, is left alone: the watch of the directory above tells what became
// of it. Below each directory is looked after it is watched, so that what is made
// meanwhile is found or told.
func (t *tree) add(ctx context.Context, key string) error {
	todo := []string{key}
	for len(todo) > 0 {
		if err := ufs.ContextError(ctx, "watch", ""); err != nil {
			return err
		}
		key := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		ok, err := t.one(key)
		switch {
		case err != nil:
			return err
		case !ok && key == "":
			return t.fs.removed("watch")
		case !ok:
			continue
		}
		more, err := t.below(key)
		if err != nil {
			return err
		}
		todo = append(todo, more...)
	}
	return nil
}

// one watches one directory; false if there is none that can be watched.
func (t *tree) one(key string) (bool, error) {
	before, ok := t.look(key)
	if !ok {
		return false, nil
	}
	t.drop(key)
	if old, moved := t.at[before]; moved {
		t.drop(old) // it was moved here, which its watch doesn't know
	}
	path := t.path(key)
	if err := t.w.Add(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
			return false, nil
		}
		return false, watchError(key, err)
	}
	// The system watches a path: make sure that it led to what is in the root.
	after, ok := t.look(key)
	info, err := os.Lstat(path)
	if !ok || err != nil || after != before || placeOf(info) != before {
		_ = t.w.Remove(path)
		return false, nil //nolint:nilerr // something else is there by now, of which the watch above tells
	}
	t.dirs[key] = &watched{place: before, children: map[string]bool{}}
	t.at[before] = key
	if above := t.dirs[ufs.ParentKey(key)]; above != nil && key != "" {
		above.children[key] = true
	}
	return true, nil
}

// look returns the identity of the directory key.
func (t *tree) look(key string) (place, bool) {
	info, err := t.fs.root.Lstat(name(key))
	if err != nil || !info.IsDir() {
		return place{}, false
	}
	return placeOf(info), true
}

func placeOf(info fs.FileInfo) place {
	s := fromInfo(info)
	return place{s.dev, s.ino}
}

// below returns the keys of the directories in the directory key.
func (t *tree) below(key string) ([]string, error) {
	d, err := t.fs.openDir(key)
	if err != nil {
		if k, _ := kindOf(err); k == freshet.KindExhausted {
			return nil, t.fs.fail("watch", key, err)
		}
		return nil, nil //nolint:nilerr // gone, or not for us
	}
	defer d.Close() //nolint:errcheck // nothing was written
	var keys []string
	for {
		entries, err := d.ReadDir(512)
		for _, e := range entries {
			child := ufs.JoinKey(key, e.Name())
			if e.IsDir() && !ufs.IsTemp(child) && nameable(child) {
				keys = append(keys, child)
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, fs.ErrNotExist):
			return keys, nil
		case err != nil:
			return nil, t.fs.fail("watch", key, err)
		}
	}
}

// watchError says what to do about an error of inotify.
func watchError(key string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return ufs.Errorf(freshet.KindExhausted, "watch", key, "there are more directories than the system lets one user watch: raise fs.inotify.max_user_watches (sysctl -w fs.inotify.max_user_watches=1048576), or mount without events=inotify")
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return ufs.Errorf(freshet.KindExhausted, "watch", key, "there are more watchers than the system lets one user have: raise fs.inotify.max_user_instances (sysctl -w fs.inotify.max_user_instances=1024) or the limit of open files")
	}
	return ufs.Errorf(freshet.KindUnavailable, "watch", key, "the system's notification of changes fails: %w", err)
}
