package warming

import (
	"context"
	"sync"

	"github.com/freshet-io/freshet"
)

// version is the way of one version of a file into the cache.
type version struct {
	job         *Job
	path        freshet.Path
	fingerprint string // "" until it was located
	file        freshet.FileID

	mu             sync.Mutex
	cached, warmed int64 // that were counted
	failed         error // the first failure of a block
}

// bring returns when all blocks that are asked for are cached, or one can't be.
// KindStale: there is another version now. stale is the fingerprint of a version that
// the storage refused.
func (v *version) bring(ctx context.Context, stale string) error {
	blocks, cancel := context.WithCancel(ctx)
	defer cancel()
	slots := make(chan struct{}, parallelBlocks)
	var wg sync.WaitGroup
	err := v.each(ctx, stale, func(b freshet.Block, src freshet.Source) bool {
		select {
		case slots <- struct{}{}:
		case <-blocks.Done():
			return false
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := v.block(blocks, b, src); err != nil {
				v.fail(err)
				cancel()
			}
		})
		return true
	})
	wg.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.failed != nil {
		return v.failed
	}
	return err
}

func (v *version) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.failed == nil {
		v.failed = err
	}
}

// each calls give for each block that is asked for, until it returns false.
func (v *version) each(ctx context.Context, stale string, give func(b freshet.Block, src freshet.Source) bool) error {
	q := freshet.LocateQuery{Path: v.path, Length: -1, StaleFingerprint: stale}
	for {
		loc, err := v.job.engine.deps.Locate(ctx, q)
		if err != nil {
			return err
		}
		now := loc.Source.Fingerprint.String()
		switch {
		case v.fingerprint != "" && now != v.fingerprint:
			v.fingerprint = "" // the new one is good
			return freshet.Errorf(freshet.KindStale, "warm", v.path, "the file changed")
		case !loc.Cacheable || !loc.Source.Fingerprint.Known():
			return freshet.Errorf(freshet.KindUnavailable, "warm", v.path, "the file can't be cached now: an operation on it has not ended, or its storage does not tell versions apart")
		}
		v.fingerprint = now
		_, wanted := v.job.query.Filter.Blocks(&loc.Info)
		for _, b := range loc.Blocks {
			v.file = b.ID.File
			if b.Offset >= wanted || !give(b, loc.Source) {
				return nil
			}
			q.Offset = b.Offset + b.Length
		}
		if len(loc.Blocks) == 0 || q.Offset >= wanted {
			return nil
		}
	}
}

// block brings the copies of a block that are missing.
func (v *version) block(ctx context.Context, b freshet.Block, src freshet.Source) error {
	j := v.job
	have := map[freshet.NodeID]bool{}
	refused := map[freshet.NodeID]bool{}
	for _, h := range j.engine.deps.Spread(b.ID, b.Length, j.query.Place).Held {
		if len(have) < j.query.Replicas {
			have[h.ID] = true
			j.reserve(h.ID, h.Capacity, b.Length) // it is there, whether it fits or not
			v.count(b.Length, false)
		}
	}
	var last error
	for len(have) < j.query.Replicas {
		at, from, err := v.target(b, have, refused)
		if err != nil {
			if last != nil && !freshet.IsKind(err, freshet.KindExhausted) {
				return last
			}
			return err
		}
		order := freshet.BlockCopy{Block: freshet.Block{ID: b.ID, Offset: b.Offset, Length: b.Length, Nodes: from}, Source: src}
		r, err := j.engine.bring(ctx, at, order)
		if err == nil && r.Kind == freshet.KindOK {
			have[at] = true
			v.count(b.Length, r.Fetched)
			continue
		}
		j.unreserve(at, b.Length)
		if err != nil {
			return err
		}
		last = freshet.Errorf(r.Kind, "warm", v.path, "%s", r.Error)
		refused[at] = true
		if r.Kind == freshet.KindStale || len(refused) >= maxTargets {
			return last
		}
	}
	return nil
}

// target returns the node that should bring the next copy, with room for it taken, and
// who holds the block.
func (v *version) target(b freshet.Block, have, refused map[freshet.NodeID]bool) (freshet.NodeID, []freshet.Node, error) {
	j := v.job
	s := j.engine.deps.Spread(b.ID, b.Length, j.query.Place)
	full := false
	for _, c := range s.Free {
		if have[c.ID] || refused[c.ID] {
			continue
		}
		if j.reserve(c.ID, c.Capacity, b.Length) {
			return c.ID, s.From, nil
		}
		full = true
	}
	if full {
		err := j.full()
		j.end(err)
		return "", nil, err
	}
	return "", nil, j.lacks(len(have))
}

func (v *version) count(bytes int64, fetched bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.job.note(func(p *freshet.WarmProgress) {
		if fetched {
			v.warmed += bytes
			p.WarmedBytes += bytes
		} else {
			v.cached += bytes
			p.CachedBytes += bytes
		}
	})
}

// takeBack takes back what was counted of a version that is no more.
func (v *version) takeBack() {
	v.job.note(func(p *freshet.WarmProgress) {
		p.WarmedBytes -= v.warmed
		p.CachedBytes -= v.cached
	})
}
