package mem

import (
	"context"
	"iter"
	"strings"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// FS is one process's view of a Store, below a root.
type FS struct {
	store *Store
	root  string // "" or "a/b/"
}

var _ ufs.FS = (*FS)(nil)

// FS returns the view of the store below root, "" for all of it.
func (s *Store) FS(root string) *FS {
	if root = strings.Trim(root, "/"); root != "" {
		root += "/"
	}
	return &FS{store: s, root: root}
}

// Features says what the mode of the Store can do.
func (f *FS) Features() ufs.Features {
	o := f.store.opts
	feat := ufs.Features{
		Kind: "mem", CreateIfAbsent: true, ReplaceIf: true, AbortEndsEffects: true, ModTimeResolution: time.Nanosecond,
		MaxOpLifetime: o.MaxOpLifetime, DirectoryListsSelf: true, ListPage: o.PageSize,
	}
	if o.Mode == Local {
		feat.AtomicRename, feat.RealDirectories, feat.OwnerAndMode = true, true, true
	} else {
		feat.OperationMark, feat.FlatList = true, o.PageSize > 0
	}
	return feat
}

// Close does nothing: the Store stays.
func (f *FS) Close() error { return nil }

// begin checks ctx and key and takes the step.
func (f *FS) begin(ctx context.Context, step, key string) error {
	if err := ufs.CheckKey(step, key); err != nil {
		return err
	}
	return f.act(ctx, step, key)
}

// act takes a step on the storage; whatever the hook says becomes an *Error.
func (f *FS) act(ctx context.Context, step, key string) error {
	if err := ufs.ContextError(ctx, step, key); err != nil {
		return err
	}
	if err := f.store.step(step, f.root+key); err != nil {
		return freshet.Wrap(step, freshet.Path(key), err)
	}
	return ufs.ContextError(ctx, step, key)
}

// Stat implements ufs.FS.
func (f *FS) Stat(ctx context.Context, key string) (ufs.Status, error) {
	if err := f.begin(ctx, "stat", key); err != nil {
		return ufs.Status{}, err
	}
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	return f.stat("stat", key)
}

// stat is Stat with the lock held.
func (f *FS) stat(op, key string) (ufs.Status, error) {
	s := f.store
	if ufs.IsTemp(key) {
		return ufs.Status{}, ufs.Errorf(freshet.KindNotExist, op, key, "does not exist")
	}
	if key != "" {
		if o, ok := s.tree.Get(f.root + key); ok {
			return s.status(key, o), nil
		}
	}
	if marker, ok := s.isDir(strings.TrimSuffix(f.root+key, "/")); ok || key == "" {
		return s.status(dirKey(key), marker), nil
	}
	return ufs.Status{}, ufs.Errorf(freshet.KindNotExist, op, key, "does not exist")
}

func dirKey(key string) string {
	if key == "" {
		return ""
	}
	return key + "/"
}

// List implements ufs.FS. A page is taken under the lock, and yielded without.
func (f *FS) List(ctx context.Context, dir string, opts ufs.ListOptions) iter.Seq2[ufs.Status, error] {
	size := f.store.opts.PageSize
	if opts.PageSize > 0 {
		size = min(size, opts.PageSize)
	}
	return func(yield func(ufs.Status, error) bool) {
		after := opts.StartAfter
		for {
			if err := f.begin(ctx, "list", dir); err != nil {
				yield(ufs.Status{}, err)
				return
			}
			page, err := f.page(dir, after, size, opts.Recursive)
			if err != nil {
				yield(ufs.Status{}, err)
				return
			}
			for _, st := range page {
				if !yield(st, nil) {
					return
				}
			}
			if len(page) < size {
				return
			}
			after = page[len(page)-1].SortKey()
		}
	}
}

// page returns up to size entries of dir whose SortKey is above after.
func (f *FS) page(dir, after string, size int, recursive bool) ([]ufs.Status, error) {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	st, err := f.stat("list", dir)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return nil, ufs.Errorf(freshet.KindConflict, "list", dir, "is not a directory")
	}
	var page []ufs.Status
	last := after
	add := func(rel string, o *object) bool {
		if rel > last && !ufs.IsTemp(rel) {
			page = append(page, f.store.status(rel, o))
			last = rel
		}
		return len(page) < size
	}
	prefix := dirKey(dir)
	for from := max(prefix, after); ; {
		next, more := "", false
		f.store.tree.Ascend(f.root+from, func(key string, o *object) bool {
			if !strings.HasPrefix(key, f.root+prefix) {
				return false
			}
			rel := key[len(f.root):]
			name := rel[len(prefix):]
			if name == "" {
				return true
			}
			if bad := unnameable(name); bad >= 0 { // what leads to it is there all the same
				if bad == 0 {
					return true
				}
				if recursive {
					return f.addParents(prefix, rel[:len(prefix)+bad], add) && add(rel[:len(prefix)+bad], nil)
				}
			}
			if slash := strings.IndexByte(name, '/'); slash >= 0 && !recursive {
				sub := prefix + name[:slash+1]
				marker, _ := f.store.tree.Get(f.root + sub)
				next, more = sub[:len(sub)-1]+"0", add(sub, marker) // "0" follows "/"
				return false
			}
			if !f.addParents(prefix, rel, add) {
				return false
			}
			return add(rel, o)
		})
		if !more {
			return page, nil
		}
		from = next
	}
}

// unnameable returns where in name the first segment begins that no key can have,
// -1 if there is none.
func unnameable(name string) int {
	for i := 0; i < len(name); {
		segment, _, more := strings.Cut(name[i:], "/")
		if segment == "" || segment == "." || segment == ".." {
			return i
		}
		if i += len(segment) + 1; !more {
			break
		}
	}
	return -1
}

// addParents adds the directories between prefix and rel that are not listed yet.
func (f *FS) addParents(prefix, rel string, add func(string, *object) bool) bool {
	for i := len(prefix); i < len(rel)-1; i++ {
		if rel[i] == '/' {
			marker, _ := f.store.tree.Get(f.root + rel[:i+1])
			if !add(rel[:i+1], marker) {
				return false
			}
		}
	}
	return true
}

// Mkdir implements ufs.FS.
func (f *FS) Mkdir(ctx context.Context, key string, opts ufs.MkdirOptions) (ufs.Status, error) {
	if err := f.beginWrite(ctx, "mkdir", key); err != nil {
		return ufs.Status{}, err
	}
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := f.stat("mkdir", key)
	switch {
	case err == nil && !st.IsDir():
		return st, ufs.Errorf(freshet.KindExist, "mkdir", key, "a file is there")
	case err == nil && !opts.Existing:
		return st, ufs.Errorf(freshet.KindExist, "mkdir", key, "the directory exists")
	case err == nil:
		return st, nil
	}
	if err := f.checkParents("mkdir", key); err != nil {
		return ufs.Status{}, err
	}
	if s.opts.Mode == Local {
		s.makeParents(f.root+key, opts.Owner, opts.Group)
	}
	dir := s.newDir(opts.Mode)
	if s.opts.Mode == Local {
		dir.give(opts.Owner, opts.Group)
	}
	s.tree.Set(f.root+key+"/", dir)
	return f.stat("mkdir", key)
}

func (f *FS) beginWrite(ctx context.Context, step, key string) error {
	if err := ufs.CheckWrite(step, key); err != nil {
		return err
	}
	return f.act(ctx, step, key)
}

// checkParents refuses a key below a file where directories are real. The lock
// is held.
func (f *FS) checkParents(op, key string) error {
	if f.store.opts.Mode != Local {
		return nil
	}
	for up := ufs.ParentKey(key); up != ""; up = ufs.ParentKey(up) {
		if _, ok := f.store.tree.Get(f.root + up); ok {
			return ufs.Errorf(freshet.KindConflict, op, key, "%q is not a directory", up)
		}
	}
	return nil
}

// SetAttr implements ufs.FS.
func (f *FS) SetAttr(ctx context.Context, key string, attr ufs.Attr) (ufs.Status, error) {
	if f.store.opts.Mode != Local {
		return ufs.Status{}, ufs.Errorf(freshet.KindUnsupported, "setattr", key, "this storage keeps no owner, group or mode")
	}
	if err := f.begin(ctx, "setattr", key); err != nil {
		return ufs.Status{}, err
	}
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := f.stat("setattr", key)
	if err != nil {
		return st, err
	}
	o, ok := s.tree.Get(f.root + st.SortKey())
	if !ok {
		return st, ufs.Errorf(freshet.KindUnsupported, "setattr", key, "the root of the store has no attributes")
	}
	if attr.Owner != nil {
		o.owner = *attr.Owner
	}
	if attr.Group != nil {
		o.group = *attr.Group
	}
	if attr.Mode != nil {
		o.mode = *attr.Mode & 0o7777
	}
	o.change = s.tick()
	return f.stat("setattr", key)
}
