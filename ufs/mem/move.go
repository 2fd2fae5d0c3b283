package mem

import (
	"context"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// Remove implements ufs.FS. On an object store a tree goes one delete at a time.
func (f *FS) Remove(ctx context.Context, key string, opts ufs.RemoveOptions) error {
	if err := f.beginWrite(ctx, "delete", key); err != nil {
		return err
	}
	s := f.store
	s.mu.Lock()
	st, err := f.stat("delete", key)
	full := s.holdsMore(f.root + key + "/")
	below := f.below(key)
	if err == nil && (!st.IsDir() || !full || opts.Recursive) {
		f.keepParent(key)
	}
	if err == nil && (!st.IsDir() || !full || (opts.Recursive && s.opts.Mode == Local)) {
		s.tree.Delete(f.root + st.SortKey())
		if st.IsDir() {
			for _, k := range below {
				s.tree.Delete(k)
			}
		}
		below = nil
	}
	s.mu.Unlock()
	switch {
	case err != nil:
		return err
	case below == nil:
		return nil
	case !opts.Recursive:
		return ufs.Errorf(freshet.KindConflict, "delete", key, "the directory is not empty")
	}
	for _, k := range append(below, f.root+key+"/") {
		if err := f.act(ctx, "delete", k[len(f.root):]); err != nil {
			return err
		}
		s.mu.Lock()
		s.tree.Delete(k)
		s.mu.Unlock()
		if err := opts.Tell("delete", key, 1); err != nil {
			return err
		}
	}
	return nil
}

// keepParent writes the marker of the directory that holds key, so that it does
// not vanish with its last entry. The lock is held.
func (f *FS) keepParent(key string) {
	s := f.store
	parent := ufs.ParentKey(key)
	if s.opts.Mode != Object || parent == "" {
		return
	}
	prefix := f.root + parent + "/"
	if _, ok := s.tree.Get(prefix); ok {
		return
	}
	others := false
	s.tree.Ascend(prefix, func(k string, _ *object) bool {
		others = strings.HasPrefix(k, prefix)
		if others && (k == f.root+key || strings.HasPrefix(k, f.root+key+"/")) {
			others = false
			return true
		}
		return false
	})
	if !others {
		s.tree.Set(prefix, s.newDir(0))
	}
}

// below returns the keys of the store below the directory key. The lock is held.
func (f *FS) below(key string) []string {
	prefix := f.root + dirKey(key)
	var keys []string
	f.store.tree.Ascend(prefix, func(k string, _ *object) bool {
		if !strings.HasPrefix(k, prefix) {
			return false
		}
		if k != prefix {
			keys = append(keys, k)
		}
		return true
	})
	return keys
}

// Rename implements ufs.FS: at once on a local file system, by a copy and a
// delete per object on an object store. There the same call made again after a
// failure half-way through a directory goes on where it ended.
func (f *FS) Rename(ctx context.Context, from, to string) (ufs.Status, error) {
	if err := f.beginWrite(ctx, "rename", from); err != nil {
		return ufs.Status{}, err
	}
	if err := ufs.CheckWrite("rename", to); err != nil {
		return ufs.Status{}, err
	}
	if strings.HasPrefix(to, from+"/") {
		return ufs.Status{}, ufs.Errorf(freshet.KindInvalid, "rename", from, "cannot move %q into its own subtree %q", from, to)
	}
	s := f.store
	s.mu.Lock()
	moves, err := f.planMove(from, to)
	if err == nil && len(moves) > 0 {
		f.keepParent(from)
	}
	if err == nil && s.opts.Mode == Local {
		s.makeParents(f.root+to, "", "")
		for _, m := range moves {
			o, _ := s.tree.Delete(m[0])
			s.tree.Set(m[1], o)
			if m[0] == f.root+from {
				o.change = s.tick() // a rename moves the change time of the inode
			}
		}
		moves = nil
	}
	tree := [2]string{f.root + from, f.root + to}
	if len(moves) > 0 && moves[0][0] != tree[0] {
		s.moving[tree] = struct{}{}
	}
	s.mu.Unlock()
	if err != nil {
		return ufs.Status{}, err
	}
	for _, m := range moves {
		if err := f.move(ctx, m[0], m[1]); err != nil {
			return ufs.Status{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.moving, tree)
	return f.stat("rename", to)
}

// planMove checks a rename and returns the pairs of keys. The lock is held.
func (f *FS) planMove(from, to string) ([][2]string, error) {
	_, again := f.store.moving[[2]string{f.root + from, f.root + to}]
	src, err := f.stat("rename", from)
	switch {
	case err != nil && again:
		return nil, nil // nothing is left to move
	case err != nil:
		return nil, err
	case from == to:
		return nil, nil
	}
	dst, err := f.stat("rename", to)
	switch {
	case again && src.IsDir():
	case err == nil && dst.IsDir():
		return nil, ufs.Errorf(freshet.KindConflict, "rename", to, "a directory is there")
	case err == nil && src.IsDir():
		return nil, ufs.Errorf(freshet.KindConflict, "rename", to, "a file is there")
	}
	if err := f.checkParents("rename", to); err != nil {
		return nil, err
	}
	if !src.IsDir() {
		return [][2]string{{f.root + from, f.root + to}}, nil
	}
	var moves [][2]string
	if _, ok := f.store.tree.Get(f.root + from + "/"); ok {
		moves = append(moves, [2]string{f.root + from + "/", f.root + to + "/"})
	}
	for _, k := range f.below(from) {
		moves = append(moves, [2]string{k, f.root + to + k[len(f.root)+len(from):]})
	}
	return moves, nil
}

func (f *FS) move(ctx context.Context, from, to string) error {
	s := f.store
	if err := f.act(ctx, "copy", to[len(f.root):]); err != nil {
		return err
	}
	s.mu.Lock()
	o, ok := s.tree.Get(from)
	if ok {
		copied := s.newObject(o.data, o.op, 0)
		if !o.op.IsZero() {
			copied.etag += "-1" // uploads come in parts, copies in others: the same bytes, another ETag
		}
		s.tree.Set(to, copied)
	}
	s.mu.Unlock()
	if err := f.act(ctx, "delete", from[len(f.root):]); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tree.Delete(from)
	return nil
}
