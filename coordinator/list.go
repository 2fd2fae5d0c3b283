package coordinator

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
)

const opList = "list"

// List returns a page of a directory, or of everything below it, in byte order
// of the paths.
func (c *Coordinator) List(ctx context.Context, q freshet.ListQuery) (freshet.ListPage, error) {
	after, err := parsePageToken(q)
	if err != nil {
		return freshet.ListPage{}, err
	}
	if err := c.prepare(ctx, q.Path, q.Options); err != nil {
		return freshet.ListPage{}, err
	}
	size := q.PageSize
	if size <= 0 || size > freshet.MaxListPage {
		size = freshet.MaxListPage
	}
	var page freshet.ListPage
	var more bool
	if q.Recursive {
		w := lister{c: c, ctx: ctx, root: q.Path, limit: size, fresh: c.ruleOf(q.Options.SyncInterval)}
		more, err = w.below(q.Path, after)
		page.Entries = w.out
	} else {
		rule := metasync.Rule(c.ruleOf(q.Options.SyncInterval))
		if after != "" {
			rule = metasync.Fixed(freshet.Never) // made fresh by the first page
		}
		page.Entries, more, err = c.sync.Children(ctx, q.Path, after, size, rule)
		if err == nil && len(page.Entries) == 0 && more {
			// Every entry of the page was gone: go on behind it.
			return c.List(ctx, freshet.ListQuery{Path: q.Path, PageToken: c.skipped(q.Path, after, size), PageSize: q.PageSize, Options: q.Options})
		}
	}
	if err != nil {
		return freshet.ListPage{}, c.leaderHint(err)
	}
	c.usedPage(q, &page)
	if more && len(page.Entries) > 0 {
		page.NextPageToken = pageToken(q, page.Entries[len(page.Entries)-1].Path)
	}
	return page, nil
}

// skipped returns the token behind a page of held entries that were all gone.
func (c *Coordinator) skipped(dir freshet.Path, after string, size int) string {
	children, err := c.state.List(dir, after, size)
	if err != nil || len(children) == 0 {
		return ""
	}
	return pageToken(freshet.ListQuery{Path: dir}, dir.Join(children[len(children)-1].Name))
}

// The first byte of a page token says what kind of listing it is of.
const (
	tokenFlat      = 'f'
	tokenRecursive = 'r'
)

// pageToken returns an opaque token for what follows last.
func pageToken(q freshet.ListQuery, last freshet.Path) string {
	kind := byte(tokenFlat)
	if q.Recursive {
		kind = tokenRecursive
	}
	return base64.RawURLEncoding.EncodeToString(append([]byte{kind}, q.Path.Rel(last)...))
}

// parsePageToken returns what follows the listed directory in the last path of
// the page before.
func parsePageToken(q freshet.ListQuery) (string, error) {
	if q.PageToken == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(q.PageToken)
	kind := byte(tokenFlat)
	if q.Recursive {
		kind = tokenRecursive
	}
	if err == nil && len(b) > 1 && b[0] == kind {
		rel := string(b[1:])
		p, perr := freshet.ParsePath("/" + rel)
		if perr == nil && string(p) == "/"+rel && (q.Recursive || !strings.Contains(rel, "/")) {
			return rel, nil
		}
	}
	return "", freshet.Errorf(freshet.KindInvalid, opList, q.Path, "malformed page token: give the next_page_token of the page before, with the same path and recursive setting")
}

// lister makes one page of a recursive listing. In byte order of whole paths the
// entries below a directory "a" do not follow it at once: "a-b" comes before
// "a/c". So a directory waits until every sibling that sorts before "a/" was
// given.
type lister struct {
	c     *Coordinator
	ctx   context.Context //nolint:containedctx // it lives for one call
	root  freshet.Path
	limit int
	fresh metasync.Rule
	out   []freshet.Info
}

// waiting is a directory whose entries are still to come.
type waiting struct {
	name  string
	after string // in it
}

// below gives what is below dir and sorts behind after, a path relative to it,
// and reports whether there is more than fits.
func (w *lister) below(dir freshet.Path, after string) (bool, error) {
	rule := w.fresh
	if after != "" {
		rule = metasync.Fixed(freshet.Never) // an earlier page made it fresh
	}
	line, from, err := w.resume(dir, after)
	if err != nil {
		return false, err
	}
	for {
		children, more, err := w.c.sync.Children(w.ctx, dir, from, freshet.MaxListPage, rule)
		switch {
		case freshet.IsKind(err, freshet.KindNotExist) && dir != w.root:
			return false, nil // it vanished meanwhile
		case err != nil:
			return false, err
		}
		rule = metasync.Fixed(freshet.Never)
		for i := range children {
			name := children[i].Path.Base()
			if full, err := w.drain(dir, &line, name); full || err != nil {
				return full, err
			}
			if len(w.out) == w.limit {
				return true, nil
			}
			w.out = append(w.out, children[i])
			if children[i].Type == freshet.TypeDirectory {
				line = append(line, waiting{name: name})
			}
			from = name
		}
		if !more {
			return w.drain(dir, &line, "")
		}
		if len(children) == 0 {
			held, err := w.c.state.List(dir, from, freshet.MaxListPage)
			if err != nil || len(held) == 0 {
				return false, err
			}
			from = held[len(held)-1].Name
		}
	}
}

// drain gives what is below the directories that wait and come before name; all
// of them if name is "".
func (w *lister) drain(dir freshet.Path, line *[]waiting, name string) (bool, error) {
	slices.SortFunc(*line, func(a, b waiting) int { return strings.Compare(a.name+"/", b.name+"/") })
	for len(*line) > 0 {
		first := (*line)[0]
		if name != "" && first.name+"/" > name {
			return false, nil
		}
		if len(w.out) == w.limit {
			return true, nil // what waits may be empty; then the next page is too
		}
		if full, err := w.below(dir.Join(first.name), first.after); full || err != nil {
			return full, err
		}
		*line = (*line)[1:]
	}
	return false, nil
}

// resume returns the directories that were given but not entered, or entered in
// part, when after was the last path given, and the name to go on behind.
func (w *lister) resume(dir freshet.Path, after string) ([]waiting, string, error) {
	if after == "" {
		return nil, "", nil
	}
	name, inside, entered := strings.Cut(after, "/")
	from := name
	if entered {
		from = name + "/" // siblings up to here were given already
	}
	var line []waiting
	for end := 1; end <= len(name); end++ {
		d := name[:end]
		if d != name && d+"/" <= from {
			continue // everything in it was given
		}
		l, err := w.c.state.Lookup(dir.Join(d))
		if err != nil {
			return nil, "", err
		}
		if l.Found && l.Info.Type == freshet.TypeDirectory {
			at := waiting{name: d}
			if d == name {
				at.after = inside
			}
			line = append(line, at)
		}
	}
	return line, from, nil
}
