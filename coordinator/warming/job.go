package warming

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
)

const (
	// parallelFiles is how many files of a job are gone through at a time, and
	// parallelBlocks how many blocks of one of them.
	parallelFiles  = 512
	parallelBlocks = 64
	// maxVersions is how many versions of a file are begun before it counts as failed:
	// it changes faster than it can be brought.
	maxVersions = 4
	// maxTargets is how many nodes are tried for one copy of a block.
	maxTargets = 4
	// verifyAfter is how long what seems to have gone again is given to turn up.
	verifyAfter = 3 * time.Second
	// A job never brings more to a node than capacityShare of it, in 1/16: the rest of
	// what it is to bring would push out what it brought.
	capacityShare = 15
)

// Job is one warm.
type Job struct {
	engine *Engine
	query  freshet.WarmQuery
	began  time.Duration

	mu       sync.Mutex
	progress freshet.WarmProgress
	placed   map[freshet.NodeID]int64 // bytes of this job on nodes, those found there too
	brought  map[freshet.FileID]struct{}
	ended    error // why the whole job ends, first
	stop     context.CancelFunc
}

// NewJob returns a warm, of a query that was normalized.
func (e *Engine) NewJob(q freshet.WarmQuery) *Job {
	return &Job{engine: e, query: q, began: e.deps.Clock.Elapsed(), placed: map[freshet.NodeID]int64{}, brought: map[freshet.FileID]struct{}{}}
}

// Progress returns how far the job is.
func (j *Job) Progress() freshet.WarmProgress {
	j.mu.Lock()
	defer j.mu.Unlock()
	p := j.progress
	p.Failures = slices.Clone(p.Failures)
	p.Elapsed = j.engine.deps.Clock.Elapsed() - j.began
	return p
}

// Run works until all files were gone through, and returns why it could not; files that
// failed by themselves are counted in Progress and are no error.
func (j *Job) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	j.stop = cancel
	var wg sync.WaitGroup
	wg.Go(func() { j.count(ctx) })
	err := j.warm(ctx)
	if err == nil && j.over() == nil {
		err = j.verify(ctx)
	}
	if err != nil {
		cancel() // the count too
	}
	wg.Wait()
	if over := j.over(); over != nil {
		return over
	}
	return err
}

// end has no further file begun.
func (j *Job) end(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ended == nil {
		j.ended = err
	}
}

func (j *Job) over() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ended
}

// count sums up what is to be gone through. What can't be listed now is not counted; the
// walk itself says why.
func (j *Job) count(ctx context.Context) {
	never := freshet.Never // the walk makes it fresh
	err := j.walk(ctx, freshet.ReadOptions{SyncInterval: &never}, func(_ freshet.Path, info *freshet.Info) error {
		_, bytes := j.query.Filter.Blocks(info)
		j.note(func(p *freshet.WarmProgress) {
			p.TotalFiles++
			p.TotalBytes += bytes * int64(j.query.Replicas)
		})
		return nil
	})
	if err == nil {
		j.note(func(p *freshet.WarmProgress) { p.Counted = true })
	}
}

func (j *Job) note(change func(p *freshet.WarmProgress)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change(&j.progress)
}

// warm goes through all files.
func (j *Job) warm(ctx context.Context) error {
	slots := make(chan struct{}, parallelFiles)
	var wg sync.WaitGroup
	err := j.walk(ctx, freshet.ReadOptions{}, func(_ freshet.Path, info *freshet.Info) error {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := j.over(); err != nil {
			<-slots
			return err
		}
		p := info.Path
		j.note(func(n *freshet.WarmProgress) { n.Current = p })
		wg.Go(func() {
			defer func() { <-slots }()
			j.file(ctx, p)
		})
		return nil
	})
	if err != nil && j.over() == nil {
		j.stop()
	}
	wg.Wait()
	return err
}

// lost is a file of which blocks have gone again.
type lost struct {
	path         freshet.Path
	file         freshet.FileID
	blocks, held int64
}

// verify counts the files of which a block has gone again as failed: the bytes of all may fit
// into the nodes and the blocks not, as a directory holds whole blocks only. A file that has
// another version by now is none of them.
func (j *Job) verify(ctx context.Context) error {
	var all []lost
	never := freshet.Never
	err := j.walk(ctx, freshet.ReadOptions{SyncInterval: &never}, func(_ freshet.Path, info *freshet.Info) error {
		j.mu.Lock()
		_, ours := j.brought[info.FileID]
		j.mu.Unlock()
		blocks, _ := j.query.Filter.Blocks(info)
		if l := (lost{path: info.Path, file: info.FileID, blocks: blocks}); ours && j.misses(&l) {
			all = append(all, l)
		}
		return nil
	})
	if err != nil || len(all) == 0 {
		return err
	}
	select { // a node that the leader has just come to know tells all that it holds
	case <-j.engine.deps.Clock.After(verifyAfter):
	case <-ctx.Done():
		return ctx.Err()
	}
	for i := range all {
		if l := &all[i]; j.misses(l) {
			j.fail(l.path, freshet.Errorf(freshet.KindExhausted, "warm", l.path,
				"%d of %d blocks are not cached any more: the cache nodes (%s) have no room for all, or one went away; narrow the warm, add capacity, or pin what must stay", l.blocks-l.held, l.blocks, j.query.Place))
		}
	}
	return nil
}

func (j *Job) misses(l *lost) bool {
	l.held = j.engine.deps.Held(l.file, l.blocks, j.query.Place)
	return l.held < l.blocks
}

// walk calls each for all files that the filter selects, and the path below which it
// was found.
func (j *Job) walk(ctx context.Context, opts freshet.ReadOptions, each func(root freshet.Path, info *freshet.Info) error) error {
	for _, root := range j.query.Paths {
		info, err := j.engine.deps.Stat(ctx, root)
		if err != nil {
			return err
		}
		if info.Type == freshet.TypeFile {
			if j.query.Filter.Selects(root, &info) {
				err = each(root, &info)
			}
		} else {
			err = j.walkTree(ctx, root, opts, each)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (j *Job) walkTree(ctx context.Context, root freshet.Path, opts freshet.ReadOptions, each func(root freshet.Path, info *freshet.Info) error) error {
	q := freshet.ListQuery{Path: root, Recursive: true, Options: opts}
	for {
		page, err := j.engine.deps.List(ctx, q)
		if err != nil {
			return err
		}
		for i := range page.Entries {
			if e := &page.Entries[i]; j.query.Filter.Selects(root, e) {
				if err := each(root, e); err != nil {
					return err
				}
			}
		}
		if page.NextPageToken == "" {
			return nil
		}
		q.PageToken = page.NextPageToken
	}
}

// file brings one file, at the version that readers get.
func (j *Job) file(ctx context.Context, p freshet.Path) {
	var err error
	stale := ""
	for range maxVersions {
		v := version{job: j, path: p}
		if err = v.bring(ctx, stale); err == nil {
			j.keep(v.file)
		}
		if !freshet.IsKind(err, freshet.KindStale) {
			break
		}
		v.takeBack()
		stale = v.fingerprint
	}
	switch {
	case ctx.Err() != nil:
		return // it did not fail by itself
	case freshet.IsKind(err, freshet.KindNotLeader):
		j.end(err)
		j.stop()
		return
	case freshet.IsKind(err, freshet.KindNotExist):
		err = nil // it went away since it was listed
	case freshet.IsKind(err, freshet.KindStale):
		err = freshet.Errorf(freshet.KindStale, "warm", p, "the file changed %d times while it was warmed", maxVersions)
	}
	j.note(func(n *freshet.WarmProgress) { n.Files++ })
	if err != nil {
		j.fail(p, err)
	}
}

// keep notes a version that was brought, 0 if it has no blocks.
func (j *Job) keep(file freshet.FileID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if file != 0 {
		j.brought[file] = struct{}{}
	}
}

func (j *Job) fail(p freshet.Path, err error) {
	j.note(func(n *freshet.WarmProgress) {
		n.Failed++
		if len(n.Failures) < freshet.MaxFileFailures {
			n.Failures = append(n.Failures, freshet.FileFailure{Path: p, Kind: freshet.KindOf(err), Error: err.Error()})
		}
	})
}

// reserve takes room for a block on a node, false if the job has filled it.
func (j *Job) reserve(node freshet.NodeID, capacity, length int64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.placed[node]+length > capacity/16*capacityShare {
		return false
	}
	j.placed[node] += length
	return true
}

func (j *Job) unreserve(node freshet.NodeID, length int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.placed[node] -= length
}

// full is the end of a job that has filled the nodes.
func (j *Job) full() error {
	return freshet.Errorf(freshet.KindExhausted, "warm", "",
		"what is to be warmed is more than the cache nodes (%s) can hold: narrow it by filters or paths, or add capacity", j.query.Place)
}

// lacks says that there is no node for another copy.
func (j *Job) lacks(have int) error {
	if have > 0 {
		return freshet.Errorf(freshet.KindUnavailable, "warm", "", "%d of %d copies are there, and no other live node (%s) takes one", have, j.query.Replicas, j.query.Place)
	}
	return freshet.Errorf(freshet.KindUnavailable, "warm", "", "%s", fmt.Sprintf("no live node (%s) that is large enough takes the block", j.query.Place))
}
