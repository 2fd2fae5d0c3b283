package coordinator

import (
	"context"
	"time"

	"github.com/freshet-io/freshet"
)

// What is cached of files, and how it goes: what operators ask of the blocks.

const (
	opInspect = "inspect cache"
	opFree    = "free cache"
)

// InspectCache returns a page of files with what is cached of them.
func (c *Coordinator) InspectCache(ctx context.Context, q freshet.CacheQuery) (freshet.CachePage, error) {
	if err := q.Filter.Check(); err != nil {
		return freshet.CachePage{}, err
	}
	st, err := c.Stat(ctx, q.Path, freshet.ReadOptions{})
	if err != nil {
		return freshet.CachePage{}, err
	}
	var page freshet.CachePage
	err = c.whileLeading(ctx, opInspect, q.Path, func(ctx context.Context) error {
		page, err = c.inspectCache(ctx, &q, &st)
		return err
	})
	return page, err
}

func (c *Coordinator) inspectCache(ctx context.Context, q *freshet.CacheQuery, st *freshet.Status) (freshet.CachePage, error) {
	if err := c.awaitReports(ctx); err != nil {
		return freshet.CachePage{}, err
	}
	if !c.nodes.Exists(q.Place, c.clock.Elapsed()) {
		return freshet.CachePage{}, freshet.Errorf(freshet.KindNotExist, opInspect, "", "no cache node fits: %s; see 'freshet cluster nodes'", q.Place)
	}
	if st.Info.Type == freshet.TypeFile {
		if q.PageToken != "" {
			return freshet.CachePage{}, freshet.Errorf(freshet.KindInvalid, opInspect, q.Path, "a file has no second page")
		}
		return c.cachePage(q, freshet.ListPage{Entries: []freshet.Info{st.Info}}), nil
	}
	page, err := c.List(ctx, freshet.ListQuery{Path: q.Path, Recursive: q.Recursive, PageSize: q.PageSize, PageToken: q.PageToken})
	if err != nil {
		return freshet.CachePage{}, err
	}
	return c.cachePage(q, page), nil
}

func (c *Coordinator) cachePage(q *freshet.CacheQuery, page freshet.ListPage) freshet.CachePage {
	out := freshet.CachePage{NextPageToken: page.NextPageToken}
	now := c.clock.Elapsed()
	for i := range page.Entries {
		info := &page.Entries[i]
		f := freshet.CachedFile{Path: info.Path, Type: info.Type}
		switch {
		case info.Type == freshet.TypeDirectory:
			if q.Recursive {
				continue
			}
		case !q.Filter.Selects(q.Path, info):
			continue
		default:
			f.Blocks, f.Length = q.Filter.Blocks(info)
			if info.FileID != 0 {
				f.Nodes, f.CachedBlocks, f.CachedBytes = c.nodes.Shares(info.FileID, f.Blocks, q.Place, now)
			}
			e, _ := c.state.EffectiveAt(info.Path)
			f.Pinned = e.Pinned
		}
		out.Files = append(out.Files, f)
	}
	return out
}

// freeWait bounds how long a free waits for the nodes to carry it out; freePoll is how
// often is looked whether they did.
const (
	freeWait = 20 * time.Second
	freePoll = 50 * time.Millisecond
)

// FreeCache has all nodes drop the blocks of files. What is known of the files stays,
// and the storage is not asked. What may not go is refused: a file by an error, files
// below a directory by a count.
func (c *Coordinator) FreeCache(ctx context.Context, q freshet.FreeQuery) (freshet.FreeResult, error) {
	if err := q.Filter.Check(); err != nil {
		return freshet.FreeResult{}, err
	}
	if err := c.prepare(ctx, q.Path, freshet.ReadOptions{}); err != nil {
		return freshet.FreeResult{}, err
	}
	f := freeing{c: c, q: &q}
	err := c.whileLeading(ctx, opFree, q.Path, f.run)
	return f.result, err
}

// freeing is one free.
type freeing struct {
	c      *Coordinator
	q      *freshet.FreeQuery
	result freshet.FreeResult
	files  []freshet.FileID
}

func (f *freeing) run(ctx context.Context) error {
	c, q := f.c, f.q
	if err := c.awaitReports(ctx); err != nil { // nothing is known of the blocks before
		return err
	}
	l, err := c.state.Lookup(q.Path)
	if err != nil {
		return err
	}
	switch {
	case !l.Found && !l.Virtual && !l.MountPoint:
		return freshet.Errorf(freshet.KindNotExist, opFree, q.Path, "nothing is known of this path, so nothing of it is cached")
	case l.Found && l.Info.Type == freshet.TypeFile:
		if f.file(&l.Info); f.result.Refused > 0 {
			return freshet.Errorf(freshet.KindConflict, opFree, q.Path, "%s", f.result.Refusals[0].Error)
		}
	case !q.Recursive:
		return freshet.Errorf(freshet.KindInvalid, opFree, q.Path, "is a directory: free what is below it with --recursive")
	default:
		if err := f.below(ctx, q.Path); err != nil {
			return err
		}
	}
	if q.DryRun {
		return nil
	}
	f.await(ctx)
	if ended := context.Cause(ctx); freshet.IsKind(ended, freshet.KindNotLeader) {
		return ended // the nodes may not have heard of it
	}
	c.log.Info("cached blocks were freed", "path", string(q.Path), "files", f.result.Files, "copies", f.result.Copies, "refused", f.result.Refused)
	return nil
}

// below frees what is held below a directory.
func (f *freeing) below(ctx context.Context, dir freshet.Path) error {
	for after := ""; ; {
		children, err := f.c.state.List(dir, after, sweepPage)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		for i := range children {
			info := &children[i].Info
			if info.Type == freshet.TypeFile {
				f.file(info)
			} else if err := f.below(ctx, info.Path); err != nil {
				return err
			}
		}
		if len(children) < sweepPage {
			return nil
		}
		after = children[len(children)-1].Name
	}
}

// file frees the blocks of one file, if it has any that may go.
func (f *freeing) file(info *freshet.Info) {
	if info.FileID == 0 || !f.q.Filter.Selects(f.q.Path, info) {
		return
	}
	now := f.c.clock.Elapsed()
	copies, bytes := f.c.nodes.Copies(info.FileID, false, now)
	if why := f.c.keeps(info); why != "" && (copies > 0 || info.Path == f.q.Path) {
		f.result.Refused++
		if len(f.result.Refusals) < freshet.MaxFileFailures {
			f.result.Refusals = append(f.result.Refusals, freshet.FileFailure{Path: info.Path, Kind: freshet.KindConflict, Error: why})
		}
		return
	}
	if copies == 0 {
		return
	}
	f.result.Files++
	f.result.Copies += copies
	f.result.Bytes += bytes
	if !f.q.DryRun {
		f.c.nodes.FreeFiles(info.FileID)
		f.files = append(f.files, info.FileID)
	}
}

// keeps says why the blocks of a file may not go, "" if they may.
func (c *Coordinator) keeps(info *freshet.Info) string {
	if info.Fingerprint.IsUnpersisted() {
		return "it is not in the storage yet: persist it first, by `freshet persist`"
	}
	e, _ := c.state.EffectiveAt(info.Path)
	if e.Pinned {
		return "it is pinned: let it go first, by `freshet cache unpin` or `freshet policy set --pinned=false`"
	}
	return ""
}

// await waits a while until the nodes have dropped the blocks.
func (f *freeing) await(ctx context.Context) {
	deadline := f.c.clock.Elapsed() + freeWait
	for {
		f.result.Pending = 0
		now := f.c.clock.Elapsed()
		var left []freshet.FileID
		for _, file := range f.files {
			if n, _ := f.c.nodes.Copies(file, true, now); n > 0 {
				f.result.Pending += n
				left = append(left, file)
			}
		}
		f.files = left
		if len(left) == 0 || now >= deadline {
			return
		}
		select {
		case <-f.c.clock.After(freePoll):
		case <-ctx.Done():
			return
		}
	}
}
