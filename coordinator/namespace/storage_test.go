package namespace_test

import (
	"maps"
	"strings"

	"github.com/freshet-io/freshet/coordinator/namespace"
)

// storage is a model of an under-storage: a tree with explicit directories, or a
// flat store of keys in which a directory is there while something is below it.
type storage struct {
	flat  bool
	files map[string]int // content
	dirs  map[string]bool
}

func newStorage(flat bool) *storage {
	return &storage{flat: flat, files: map[string]int{}, dirs: map[string]bool{}}
}

func parentOf(key string) string {
	i := strings.LastIndexByte(key, '/')
	if i < 0 {
		return ""
	}
	return key[:i]
}

func under(dir, key string) bool {
	return key != dir && (dir == "" || strings.HasPrefix(key, dir+"/"))
}

func (s *storage) isDir(key string) bool {
	if key == "" || s.dirs[key] {
		return true
	}
	if !s.flat {
		return false
	}
	for f := range s.files {
		if under(key, f) {
			return true
		}
	}
	for d := range s.dirs {
		if under(key, d) {
			return true
		}
	}
	return false
}

func (s *storage) isFile(key string) bool { _, ok := s.files[key]; return ok }

// place reports whether key may be created.
func (s *storage) place(key string) bool {
	for p := parentOf(key); p != ""; p = parentOf(p) {
		if s.isFile(p) {
			return false
		}
	}
	return s.flat || s.isDir(parentOf(key))
}

func (s *storage) write(key string, content int) bool {
	if s.isDir(key) || !s.place(key) {
		return false
	}
	s.files[key] = content
	return true
}

func (s *storage) mkdir(key string) bool {
	if s.isDir(key) || s.isFile(key) || !s.place(key) {
		return false
	}
	s.dirs[key] = true
	return true
}

// keep writes the marker of a directory whose last child may go.
func (s *storage) keep(key string) {
	if p := parentOf(key); p != "" {
		s.dirs[p] = true
	}
}

func (s *storage) remove(key string) bool {
	if !s.isFile(key) && !s.isDir(key) {
		return false
	}
	s.keep(key)
	maps.DeleteFunc(s.files, func(k string, _ int) bool { return k == key || under(key, k) })
	maps.DeleteFunc(s.dirs, func(k string, _ bool) bool { return k == key || under(key, k) })
	return true
}

func (s *storage) rename(from, to string) bool {
	if (!s.isFile(from) && !s.isDir(from)) || s.isDir(to) || s.isFile(to) || !s.place(to) || from == to || under(from, to) || under(to, from) {
		return false
	}
	s.keep(from)
	move := func(k string) (string, bool) {
		if k == from || under(from, k) {
			return to + k[len(from):], true
		}
		return k, false
	}
	for k, v := range maps.Clone(s.files) {
		if n, ok := move(k); ok {
			delete(s.files, k)
			s.files[n] = v
		}
	}
	for k := range maps.Clone(s.dirs) {
		if n, ok := move(k); ok {
			delete(s.dirs, k)
			s.dirs[n] = true
		}
	}
	return true
}

func (s *storage) stat(key string) *namespace.Entry {
	name := key[strings.LastIndexByte(key, '/')+1:]
	if c, ok := s.files[key]; ok {
		return fileEntry(name, c)
	}
	if s.isDir(key) {
		return dirEntry(name)
	}
	return nil
}

func (s *storage) list(dir string) map[string]*namespace.Entry {
	all := map[string]*namespace.Entry{}
	add := func(k string) {
		if under(dir, k) {
			rest := strings.TrimPrefix(k[len(dir):], "/")
			name, _, _ := strings.Cut(rest, "/")
			all[name] = s.stat(strings.TrimPrefix(dir+"/"+name, "/"))
		}
	}
	for k := range s.files {
		add(k)
	}
	for k := range s.dirs {
		add(k)
	}
	return all
}

// effect is a change of the storage by a cluster.
type effect struct {
	kind    namespace.OpKind
	key     string
	key2    string
	content int
}

func (e effect) apply(s *storage) bool {
	switch e.kind {
	case namespace.OpWrite:
		return s.write(e.key, e.content)
	case namespace.OpMkdir:
		return s.mkdir(e.key)
	case namespace.OpRemove:
		return s.remove(e.key)
	case namespace.OpRename:
		return s.rename(e.key, e.key2)
	case namespace.OpSetAttr:
	}
	return false
}

func (e effect) after(s *storage) *namespace.Entry {
	switch e.kind {
	case namespace.OpRemove:
		return nil
	case namespace.OpRename:
		return s.stat(e.key2)
	default:
		return s.stat(e.key)
	}
}

// touches reports whether the effect can have changed the entry of key.
func (e effect) touches(key string, flat bool) bool {
	for _, k := range []string{e.key, e.key2} {
		if k == "" {
			continue
		}
		wide := e.kind == namespace.OpRemove || e.kind == namespace.OpRename
		if k == key || (wide && under(k, key)) || (flat && under(key, k)) {
			return true
		}
	}
	return false
}

// touchesListing reports whether it can have changed the listing of dir.
func (e effect) touchesListing(dir string, flat bool) bool {
	for _, k := range []string{e.key, e.key2} {
		if k != "" && (parentOf(k) == dir || (flat && under(dir, k))) {
			return true
		}
	}
	return e.touches(dir, flat)
}
