package hdfs

import (
	"container/heap"
	"context"
	"errors"
	"iter"
	"strings"

	lib "github.com/colinmarc/hdfs/v2"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// List implements ufs.FS. The NameNode orders names as signed bytes, and knows
// nothing of the slash that ends a directory's SortKey, so entries are held back
// until no later one can go before them. With ASCII names these are a handful; the
// names that begin with other characters come first and are held to the end of
// their directory.
func (f *FS) List(ctx context.Context, dir string, opts ufs.ListOptions) iter.Seq2[ufs.Status, error] {
	return func(yield func(ufs.Status, error) bool) {
		const op = "list"
		w := walk{ctx: ctx, fs: f, opts: opts, yield: yield}
		err := begin(ctx, op, dir)
		if err == nil && ufs.IsTemp(dir) {
			err = absent(op, dir)
		}
		if err == nil {
			err = w.directory(dir, true)
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(ufs.Status{}, err)
		}
	}
}

var errStopped = errors.New("the caller has seen enough")

// walk is one listing.
type walk struct {
	ctx   context.Context //nolint:containedctx // lives as long as the call
	fs    *FS
	opts  ufs.ListOptions
	yield func(ufs.Status, error) bool
}

// directory lists the directory dir; top says that the caller named it.
func (w *walk) directory(dir string, top bool) error {
	prefix := dir
	if dir != "" {
		prefix += "/"
	}
	var held holdback
	for after := ""; ; {
		page, left, err := w.page(dir, after, top)
		if err != nil {
			return err
		}
		for _, s := range page {
			name := string(s.GetPath())
			if name == "" {
				return notADir(dir, top)
			}
			after = name
			if strings.HasPrefix(name, ufs.TempPrefix) {
				continue
			}
			st, mark := status(prefix+name, s), watermark(name)
			if held.Len() == 0 && mark == name && !st.IsDir() { // the usual case: nothing to wait for
				err = w.entry(entry{st.Key, st})
			} else {
				held.add(st)
				err = w.release(&held, prefix, mark)
			}
			if err != nil {
				return err
			}
		}
		if left == 0 || len(page) == 0 {
			return w.release(&held, prefix, "")
		}
	}
}

func notADir(dir string, top bool) error {
	if top {
		return ufs.Errorf(freshet.KindConflict, "list", dir, "is not a directory")
	}
	return ufs.Errorf(freshet.KindUnavailable, "list", dir, "replaced by something of another type while it was listed; list again")
}

// page gets one page. A directory below the one that the caller named may be gone
// by now: it is empty then.
func (w *walk) page(dir, after string, top bool) (page []*lib.FileStatus, left uint64, err error) {
	found := false
	err = w.fs.call(w.ctx, "list", dir, idempotent, func(c *client, _ bool) (err error) {
		page, left, found, err = c.page(w.fs.path(dir), after)
		return err
	})
	if isNotDir(err) || freshet.IsKind(err, freshet.KindNotExist) {
		err, found = nil, false
	}
	if err == nil && !found {
		page, left = nil, 0
		if top {
			err = absent("list", dir)
		}
	}
	return page, left, err
}

// watermark returns what no later name of the NameNode goes before, by unsigned
// bytes: name itself up to its first byte that is not ASCII, for another one, or
// an ASCII one, may follow in that place.
func watermark(name string) string {
	for i := range len(name) {
		if name[i] >= 0x80 {
			return name[:i] + "\x00"
		}
	}
	return name
}

// release yields what is held and not above mark, a name in the directory; all if
// there is no mark.
func (w *walk) release(held *holdback, prefix, mark string) error {
	for held.Len() > 0 {
		if mark != "" && (*held)[0].sort[len(prefix):] > mark {
			return nil
		}
		if err := w.entry(held.take()); err != nil {
			return err
		}
	}
	return nil
}

// entry yields one entry and, if asked for, what is below it.
func (w *walk) entry(e entry) error {
	wanted := e.sort > w.opts.StartAfter
	if wanted && !w.yield(e.status, nil) {
		return errStopped
	}
	if w.opts.Recursive && e.status.IsDir() && (wanted || strings.HasPrefix(w.opts.StartAfter, e.sort)) {
		return w.directory(e.status.Key, false)
	}
	return nil
}

// entry is a status with its SortKey.
type entry struct {
	sort   string
	status ufs.Status
}

// holdback is a heap of entries by SortKey.
type holdback []entry

func (h *holdback) add(st ufs.Status) { heap.Push(h, entry{st.SortKey(), st}) }
func (h *holdback) take() entry       { return heap.Pop(h).(entry) } //nolint:forcetypeassert // it holds nothing else

// Len is for package heap.
func (h holdback) Len() int           { return len(h) }
func (h holdback) Less(i, j int) bool { return h[i].sort < h[j].sort }
func (h holdback) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push is for package heap.
func (h *holdback) Push(x any) { *h = append(*h, x.(entry)) } //nolint:forcetypeassert // add calls it

// Pop is for package heap.
func (h *holdback) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = entry{}
	*h = (*h)[:len(*h)-1]
	return last
}
