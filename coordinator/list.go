package coordinator

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
)

const opList = "list"

// List returns a page of a directory, or of everything below it, in byte order
// of the paths. A prefix is sought in the state, what lies before and behind it is
// not read; the directory's listing as a whole is made fresh first.
func (c *Coordinator) List(ctx context.Context, q freshet.ListQuery) (freshet.ListPage, error) {
	after, err := parsePageToken(q)
	if err != nil {
		return freshet.ListPage{}, err
	}
	if err := checkSelection(q); err != nil {
		return freshet.ListPage{}, err
	}
	if err := c.prepare(ctx, q.Path, q.Options); err != nil {
		return freshet.ListPage{}, err
	}
	if after == "" {
		after = q.StartAfter
	}
	size := q.PageSize
	if size <= 0 || size > freshet.MaxListPage {
		size = freshet.MaxListPage
	}
	rule := metasync.Rule(c.ruleOf(q.Options.SyncInterval))
	if q.PageToken != "" {
		rule = metasync.Fixed(freshet.Never) // made fresh by the first page
	}
	var page freshet.ListPage
	var more bool
	if q.Recursive {
		page.Entries, more, err = c.listBelow(ctx, q, after, size, rule)
	} else {
		page.Entries, more, err = c.listFlat(ctx, q, after, size, rule)
		if err == nil && len(page.Entries) == 0 && more {
			// Every entry of the page was gone: go on behind it.
			q.PageToken = c.skipped(q.Path, seek(after, q.Prefix), size)
			if q.PageToken == "" {
				return page, nil
			}
			return c.List(ctx, q)
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

// checkSelection refuses what can't select anything.
func checkSelection(q freshet.ListQuery) error {
	for _, s := range []struct{ name, value string }{{"prefix", q.Prefix}, {"start_after", q.StartAfter}} {
		switch {
		case !q.Recursive && strings.Contains(s.value, "/"):
			return freshet.Errorf(freshet.KindInvalid, opList, q.Path, "%s %q has a slash: list that directory instead, or recursively", s.name, s.value)
		case strings.HasPrefix(s.value, "/"):
			return freshet.Errorf(freshet.KindInvalid, opList, q.Path, "%s %q starts with a slash: give it relative to the listed path", s.name, s.value)
		case !utf8.ValidString(s.value) || strings.Contains(s.value, "//") || len(s.value) > freshet.MaxPathLen:
			return freshet.Errorf(freshet.KindInvalid, opList, q.Path, "%s is not a part of a path", s.name)
		}
	}
	return nil
}

// listFlat gives a page of the children of a directory.
func (c *Coordinator) listFlat(ctx context.Context, q freshet.ListQuery, after string, size int, rule metasync.Rule) ([]freshet.Info, bool, error) {
	if past(after, q.Prefix) {
		return nil, false, nil
	}
	entries, more, err := c.sync.Children(ctx, q.Path, seek(after, q.Prefix), size, rule)
	if err != nil {
		return nil, false, err
	}
	kept := beginning(entries, q.Prefix)
	return kept, more && len(kept) == len(entries), nil
}

// beginning returns the entries whose names begin with prefix: those at the front,
// for the listing began at the prefix.
func beginning(entries []freshet.Info, prefix string) []freshet.Info {
	for i := range entries {
		if !strings.HasPrefix(entries[i].Path.Base(), prefix) {
			return entries[:i]
		}
	}
	return entries
}

// seek returns a name behind which lies all that begins with prefix and comes
// behind after, and nothing else that comes before the first of it. No name has
// the byte 0xff.
func seek(after, prefix string) string {
	if prefix == "" || after >= prefix {
		return after
	}
	end := len(prefix) - 1
	return prefix[:end] + string([]byte{prefix[end] - 1, 0xff})
}

// past reports whether nothing that begins with prefix can come behind after.
func past(after, prefix string) bool {
	return after > prefix && !strings.HasPrefix(after, prefix)
}

// listBelow gives a page of all that is below a directory. A prefix that reaches
// into directories is looked for in the last of them.
func (c *Coordinator) listBelow(ctx context.Context, q freshet.ListQuery, after string, size int, rule metasync.Rule) ([]freshet.Info, bool, error) {
	if past(after, q.Prefix) {
		return nil, false, nil
	}
	dir, prefix := q.Path, q.Prefix
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		into := prefix[:i+1]
		if !canonical(string(freshet.Root) + into[:i]) {
			return nil, false, nil // no entry has such a path
		}
		dir, prefix = dir.Join(into[:i]), prefix[i+1:]
		if err := enterAll(ctx, &q, dir); err != nil {
			return nil, false, err
		}
		if rest, inside := strings.CutPrefix(after, into); inside {
			after = rest
		} else {
			after = ""
		}
	}
	w := lister{c: c, ctx: ctx, root: dir, enter: q.Enter, limit: size, fresh: rule, first: q.PageToken == ""}
	more, err := w.below(dir, after, prefix)
	if dir != q.Path && freshet.IsKind(err, freshet.KindNotExist, freshet.KindConflict) {
		_, _, err = c.sync.Listing(ctx, q.Path, rule) // what was asked for must be a directory
		return nil, false, err
	}
	return w.out, more, err
}

// enterAll asks whether the listing may enter dir and those between it and the
// listed one. What is not there has nothing to hide.
func enterAll(ctx context.Context, q *freshet.ListQuery, dir freshet.Path) error {
	if dir == q.Path || q.Enter == nil {
		return nil
	}
	if err := enterAll(ctx, q, dir.Parent()); err != nil {
		return err
	}
	if err := q.Enter(ctx, dir); !freshet.IsKind(err, freshet.KindNotExist) {
		return err
	}
	return nil
}

// canonical reports whether p is the one form of a path.
func canonical(p string) bool {
	parsed, err := freshet.ParsePath(p)
	return err == nil && string(parsed) == p
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
	enter func(ctx context.Context, dir freshet.Path) error // nil asks nobody
	limit int
	fresh metasync.Rule
	first bool // no page came before: nothing was made fresh yet
	out   []freshet.Info
}

// waiting is a directory whose entries are still to come.
type waiting struct {
	name  string
	after string // in it
}

// below gives what is below dir, begins with prefix and sorts behind after, both
// relative to it, and reports whether there is more than fits. The prefix is one of
// names: it has no slash.
func (w *lister) below(dir freshet.Path, after, prefix string) (bool, error) {
	rule := w.fresh
	if dir != w.root && w.enter != nil {
		if err := w.enter(w.ctx, dir); err != nil {
			if freshet.IsKind(err, freshet.KindNotExist) {
				return false, nil // it vanished meanwhile
			}
			return false, err
		}
	}
	line, from, err := w.begin(dir, after, prefix)
	if freshet.IsKind(err, freshet.KindNotExist) && dir != w.root {
		return false, nil // it vanished meanwhile
	}
	if err != nil {
		return false, err
	}
	if after != "" && (!w.first || after >= prefix) {
		rule = metasync.Fixed(freshet.Never) // an earlier page made it fresh, or begin
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
			if !strings.HasPrefix(name, prefix) {
				return w.drain(dir, &line, "")
			}
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
		if full, err := w.below(dir.Join(first.name), first.after, ""); full || err != nil {
			return full, err
		}
		*line = (*line)[1:]
	}
	return false, nil
}

// begin returns the directories that wait at the beginning, and the name behind
// which to begin.
func (w *lister) begin(dir freshet.Path, after, prefix string) ([]waiting, string, error) {
	if after == "" || after < prefix {
		return nil, seek(after, prefix), nil
	}
	if w.first { // which of the directories before it reach behind it must be known
		if _, _, err := w.c.sync.Listing(w.ctx, dir, w.fresh); err != nil {
			return nil, "", err
		}
	}
	line, from, err := w.resume(dir, after)
	return slices.DeleteFunc(line, func(d waiting) bool { return !strings.HasPrefix(d.name, prefix) }), from, err
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
