package object

import (
	"cmp"
	"context"
	"errors"
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
		l := lister{f: f, dir: dir, prefix: f.marker(dir), opts: opts, yield: yield, segmented: f.limits.Segmented}
		switch err := l.run(ctx); {
		case errors.Is(err, errSegmented):
			f.warnSegmented()
			f.walk(ctx, dir, opts, yield)
		case err != nil:
			yield(ufs.Status{}, err)
		}
	}
}

// errSegmented ends a recursive listing, before its first entry, of a storage that
// lists by segments although its limits don't say so.
var errSegmented = errors.New("names come in the order of their segments")

func (f *FS) warnSegmented() {
	f.segmented.Do(func() {
		f.log.Warn("the storage has a hierarchical namespace: trees are listed directory by directory, and the mount's options should say so", "bucket", f.limits.Bucket)
	})
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
	sent    string   // SortKey of the last entry that the consumer has, or does not want
	dirs    []string // names, with a slash, of directories whose place has not come yet, in order
	stopped bool     // by the consumer
	any     bool     // something was below prefix
	skipped int
	example string // one of the skipped

	segmented bool // names come in the order of their segments
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
	partial := req.StartAfter != "" || req.Token != ""
	err := l.f.pages(ctx, op, l.dir, req, func(p Page) (bool, error) {
		if p.Segmented && !l.segmented {
			if l.opts.Recursive && !l.any {
				return false, errSegmented
			}
			l.segmented = true
		}
		whole, err := l.emit(p)
		if whole {
			l.note(p.Next)
		}
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
	l.sent = l.opts.StartAfter
	after := l.f.root + l.opts.StartAfter
	at := l.opts.Position
	switch {
	case !l.f.limits.DirObjects:
		if l.opts.StartAfter != "" && after > l.prefix {
			req.StartAfter = after
		}
	// The object d that stands for a directory comes before d-x, the directory d/ after
	// it: what is pending at a name can't be known, but at a page that was come by.
	case at != nil && at.Token != "" && l.opts.StartAfter >= at.After:
		req.Token, l.raw, l.dirs = at.Token, at.Last, slices.Clone(at.Pending)
	}
	return req
}

// note keeps where the page begins that comes next.
func (l *lister) note(token string) {
	if l.opts.Position != nil && l.f.limits.DirObjects && token != "" {
		*l.opts.Position = ufs.Position{Token: token, After: l.sent, Last: l.raw, Pending: slices.Clone(l.dirs)}
	}
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
// yields them, with the directories whose place has come. It reports whether the
// consumer took all of it.
func (l *lister) emit(p Page) (whole bool, err error) {
	sortPage(p)
	objects, prefixes := p.Objects, p.Prefixes
	for len(objects)+len(prefixes) > 0 {
		var o *Object
		if len(objects) == 0 || len(prefixes) > 0 && prefixes[0] < objects[0].Name {
			o, prefixes = &Object{Name: prefixes[0]}, prefixes[1:]
		} else {
			o, objects = &objects[0], objects[1:]
		}
		l.any = true
		if l.segmented && strings.HasSuffix(o.Name, "/") && o.Name != l.prefix {
			if o.Name < l.last {
				return false, l.disorder(o.Name, l.last)
			}
			l.later(o.Name)
			continue
		}
		switch {
		case o.Name == l.raw:
			continue // some servers repeat a common prefix on the next page
		case o.Name < l.raw:
			return false, l.disorder(o.Name, l.raw)
		}
		l.raw = o.Name
		for len(l.dirs) > 0 && l.dirs[0] <= o.Name {
			l.entry(&Object{Name: l.dirs[0]})
			l.dirs = l.dirs[1:]
		}
		switch {
		case l.stopped:
			return false, nil
		case o.Dir:
			l.later(o.Name + "/")
			continue
		}
		l.entry(o)
		if l.stopped {
			return len(objects)+len(prefixes) == 0 && l.f.root+l.sent == o.Name, nil
		}
	}
	return true, nil
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
	return ufs.Errorf(freshet.KindUnsupported, "list", l.dir, "the storage lists out of order: %q after %q", name, before)
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
	if l.stopped {
		return
	}
	key := st.Key
	if st.IsDir() && (l.opts.StartAfter != "" || l.opts.Position != nil) {
		key += "/"
	}
	if l.opts.StartAfter != "" && key <= l.opts.StartAfter {
		return
	}
	l.sent = key
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
