package object

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// List yields the entries below dir, one request per page; one more if nothing
// at all is there, to tell a file from nothing.
func (f *FS) List(ctx context.Context, dir string, opts ufs.ListOptions) iter.Seq2[ufs.Status, error] {
	return func(yield func(ufs.Status, error) bool) {
		if opts.Recursive && f.limits.Segmented {
			f.walk(ctx, dir, opts, yield)
			return
		}
		l := lister{f: f, dir: dir, prefix: f.marker(dir), opts: opts, yield: yield}
		if err := l.run(ctx); err != nil {
			yield(ufs.Status{}, err)
		}
	}
}

// walk lists recursively by one listing for each directory.
func (f *FS) walk(ctx context.Context, dir string, opts ufs.ListOptions, yield func(ufs.Status, error) bool) bool {
	for st, err := range f.List(ctx, dir, ufs.ListOptions{PageSize: opts.PageSize}) {
		if err != nil {
			return yield(ufs.Status{}, err) && false
		}
		key := st.SortKey()
		if (opts.StartAfter == "" || key > opts.StartAfter) && !yield(st, nil) {
			return false
		}
		if !st.IsDir() || key <= opts.StartAfter && !strings.HasPrefix(opts.StartAfter, key) {
			continue
		}
		if !f.walk(ctx, st.Key, opts, yield) {
			return false
		}
	}
	return true
}

// lister is one run of List.
type lister struct {
	f      *FS
	dir    string
	prefix string // in the bucket
	opts   ufs.ListOptions
	yield  func(ufs.Status, error) bool

	raw     string   // last name that the store gave
	last    string   // name in the bucket of the entry before
	dirs    []string // names, with a slash, of directories whose place has not come yet, in order
	stopped bool     // by the consumer
	any     bool     // something was below prefix
	skipped int
	example string // one of the skipped
}

func (l *lister) run(ctx context.Context) error {
	const op = "list"
	if err := ufs.CheckKey(op, l.dir); err != nil {
		return err
	}
	if ufs.IsTemp(l.dir) {
		return notExist(op, l.dir)
	}
	req := l.request()
	partial := req.StartAfter != ""
	err := l.f.pages(ctx, op, l.dir, req, func(p Page) (bool, error) {
		err := l.emit(p)
		return !l.stopped, err
	})
	if err != nil || l.stopped {
		return err
	}
	for _, name := range l.dirs {
		l.entry(&Object{Name: name})
	}
	l.warn()
	if l.any || l.dir == "" || l.stopped {
		return nil
	}
	return l.missing(ctx, op, partial)
}

func (l *lister) request() ListRequest {
	req := ListRequest{Prefix: l.prefix, Delimited: !l.opts.Recursive, Max: max(0, min(l.opts.PageSize, l.f.limits.ListPage))}
	after := l.f.root + l.opts.StartAfter
	// The object d that stands for a directory comes before d-x, the directory d/ after it.
	if l.opts.StartAfter != "" && after > l.prefix && !l.f.limits.DirObjects {
		req.StartAfter = after
	}
	return req
}

// missing tells why there is nothing at dir.
func (l *lister) missing(ctx context.Context, op string, partial bool) error {
	if partial {
		return nil
	}
	st, found, err := l.f.head(ctx, op, l.dir)
	switch {
	case err != nil:
		return err
	case found && !st.IsDir():
		return ufs.Errorf(freshet.KindConflict, op, l.dir, "is not a directory")
	case found:
		return nil
	}
	return notExist(op, l.dir)
}

// emit merges the objects and the common prefixes of a page, each in order, and
// yields them, with the directories whose place has come.
func (l *lister) emit(p Page) error {
	sortPage(p)
	objects, prefixes := p.Objects, p.Prefixes
	for len(objects)+len(prefixes) > 0 && !l.stopped {
		var o *Object
		if len(objects) == 0 || len(prefixes) > 0 && prefixes[0] < objects[0].Name {
			o, prefixes = &Object{Name: prefixes[0]}, prefixes[1:]
		} else {
			o, objects = &objects[0], objects[1:]
		}
		l.any = true
		if l.f.limits.Segmented && strings.HasSuffix(o.Name, "/") && o.Name != l.prefix {
			if o.Name < l.last {
				return l.disorder(o.Name, l.last)
			}
			l.later(o.Name)
			continue
		}
		switch {
		case o.Name == l.raw:
			continue // some servers repeat a common prefix on the next page
		case o.Name < l.raw:
			return l.disorder(o.Name, l.raw)
		}
		l.raw = o.Name
		for len(l.dirs) > 0 && l.dirs[0] <= o.Name {
			l.entry(&Object{Name: l.dirs[0]})
			l.dirs = l.dirs[1:]
		}
		if o.Dir {
			l.later(o.Name + "/")
			continue
		}
		l.entry(o)
	}
	return nil
}

// sortPage puts both lists of a page in order, where they are not.
func sortPage(p Page) {
	for i := range p.Objects[:max(len(p.Objects)-1, 0)] {
		if p.Objects[i].Name > p.Objects[i+1].Name {
			slices.SortFunc(p.Objects, func(a, b Object) int { return cmp.Compare(a.Name, b.Name) })
			break
		}
	}
	if !slices.IsSorted(p.Prefixes) {
		slices.Sort(p.Prefixes)
	}
}

func (l *lister) disorder(name, before string) error {
	return ufs.Errorf(freshet.KindUnavailable, "list", l.dir, "the storage lists out of order: %q after %q", name, before)
}

// later keeps a directory until its place in the order has come.
func (l *lister) later(name string) {
	i, found := slices.BinarySearch(l.dirs, name)
	if !found {
		l.dirs = slices.Insert(l.dirs, i, name)
	}
}

// entry yields what the name of o in the bucket stands for: a file, or the
// directories on the way to it that were not yet seen.
func (l *lister) entry(o *Object) {
	before := l.last
	l.last = o.Name
	for i := len(l.prefix); i < len(o.Name); {
		end := strings.IndexByte(o.Name[i:], '/')
		name := o.Name[i:]
		if end >= 0 {
			end += i
			name = o.Name[i:end]
		}
		switch {
		case !showable(name):
			l.skip(o.Name)
			return
		case strings.HasPrefix(name, ufs.TempPrefix):
			return
		case end < 0:
			l.send(l.f.status(o))
			return
		case !strings.HasPrefix(before, o.Name[:end+1]):
			l.send(directory(o.Name[len(l.f.root):end]))
		}
		i = end + 1
	}
}

// showable reports whether a path can have the segment name.
func showable(name string) bool {
	if name == "" || name == "." || name == ".." || len(name) > freshet.MaxSegmentLen {
		return false
	}
	high := byte(0)
	for i := range len(name) {
		c := name[i]
		if c < 0x20 || c == 0x7f {
			return false
		}
		high |= c
	}
	return high < utf8.RuneSelf || utf8.ValidString(name)
}

func (l *lister) skip(name string) {
	l.skipped++
	l.example = name
}

func (l *lister) send(st ufs.Status) {
	if l.stopped || l.opts.StartAfter != "" && st.SortKey() <= l.opts.StartAfter {
		return
	}
	l.stopped = !l.yield(st, nil)
}

func (l *lister) warn() {
	if l.skipped == 0 {
		return
	}
	l.f.skips.Add(float64(l.skipped))
	l.f.log.Warn("skipped object names that no path can name",
		"bucket", l.f.limits.Bucket, "prefix", l.prefix, "count", l.skipped, "example", l.example)
}
