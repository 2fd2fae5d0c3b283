package coordinator

import (
	"context"
	"errors"
	"hash/fnv"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
)

const opLocate = "locate"

// maxBlocks and maxNamed bound the blocks of one answer, and the nodes that are named
// in it, so that it fits into a message whatever the size of the blocks: a longer range
// is answered up to there, and the caller asks on.
const (
	maxBlocks = 256
	maxNamed  = 4096
)

// Locate answers where the bytes of a range are.
func (c *Coordinator) Locate(ctx context.Context, q freshet.LocateQuery) (freshet.Location, error) {
	if err := c.prepare(ctx, q.Path, q.Options); err != nil {
		return freshet.Location{}, err
	}
	ask := c.askToKeep(q.Path, &q.Options)
	defer ask.Drop()
	e, err := c.sync.Entry(ctx, q.Path, c.locateRule(&q))
	if err != nil {
		return freshet.Location{}, c.leaderHint(err)
	}
	c.used(q.Path, false)
	switch info := &e.Info; {
	case info.Type == freshet.TypeDirectory:
		return freshet.Location{}, freshet.Errorf(freshet.KindConflict, opLocate, q.Path, "is a directory")
	case q.Offset < 0 || q.Offset > info.Length:
		return freshet.Location{}, freshet.Errorf(freshet.KindInvalid, opLocate, q.Path, "offset %d is out of range: the file has %d bytes", q.Offset, info.Length)
	}
	loc := freshet.Location{Info: e.Info, Cacheable: e.Cached && e.Info.FileID != 0}
	loc.Source, err = c.source(&e)
	if err != nil {
		return freshet.Location{}, err
	}
	if !loc.Cacheable {
		loc.Info.FileID = 0
	}
	if loc.Blocks, err = c.blocks(&e.Info, &q, loc.Cacheable); err == nil {
		c.limitCopies(&loc)
	}
	if loc.Cacheable && e.Info.Fingerprint.IsUnpersisted() {
		if err = c.keptBlocks(&e.Info, loc.Blocks, err); errors.Is(err, errOvertaken) && ctx.Err() == nil {
			return c.Locate(ctx, q)
		}
	}
	if err == nil && loc.Cacheable {
		loc.Lease = ask.Grant(c.keep(&e.Lookup, &e.Verdict))
	}
	return loc, err
}

// limitCopies says of which blocks no more copies are to be made because they are read
// through another node.
func (c *Coordinator) limitCopies(loc *freshet.Location) {
	policy, _ := c.state.EffectiveAt(loc.Info.Path)
	_, most := policy.Copies.Bounds()
	mount, ok := c.state.MountAt(loc.Info.Path)
	keeps, err := ufs.ParseCaching(mount.Options, ufs.Caching{Partial: true, Passive: true})
	passive := ok && err == nil && keeps.Passive
	for i := range loc.Blocks {
		b := &loc.Blocks[i]
		b.Full = most > 0 && len(b.Nodes) >= most
		if b.Full || !passive {
			b.Via = freshet.Node{}
		}
	}
}

// locateRule makes a version that the storage refused a reason to look: unless
// another one is held already.
func (c *Coordinator) locateRule(q *freshet.LocateQuery) metasync.Rule {
	usual := c.ruleOf(q.Options.SyncInterval)
	if q.StaleFingerprint == "" {
		return usual
	}
	counted := false
	return func(l *namespace.Lookup) freshet.Interval {
		if !l.Found || l.Info.Fingerprint.String() != q.StaleFingerprint {
			return usual(l)
		}
		if !counted {
			counted = true
			c.sync.StaleDetected()
		}
		return freshet.Always
	}
}

func (c *Coordinator) source(e *metasync.Entry) (freshet.Source, error) {
	l := &e.Lookup
	if !e.Cached {
		now, err := c.state.Lookup(e.Info.Path)
		if err != nil {
			return freshet.Source{}, err
		}
		l = &now
	}
	return freshet.Source{Mount: l.Mount.ID, Key: l.Key, Fingerprint: e.Info.Fingerprint}, nil
}

// blocks lists the blocks of the range with the nodes that hold them.
func (c *Coordinator) blocks(info *freshet.Info, q *freshet.LocateQuery, cacheable bool) ([]freshet.Block, error) {
	end := info.Length
	if q.Length >= 0 && q.Length < end-q.Offset {
		end = q.Offset + q.Length
	}
	size := info.BlockSize
	if q.Offset >= end {
		return nil, nil
	}
	first, last := q.Offset/size, (end-1)/size
	last = min(last, first+maxBlocks-1)
	if last >= freshet.MaxBlocks {
		return nil, freshet.Errorf(freshet.KindInvalid, opLocate, q.Path, "byte %d is beyond the %d blocks of %s that can be numbered", last*size, int64(freshet.MaxBlocks), freshet.FormatSize(size))
	}
	file := info.FileID
	if !cacheable { // spread over the nodes by path; nothing is kept under it
		h := fnv.New64a()
		_, _ = h.Write([]byte(info.Path)) // a hash does not fail
		file = freshet.FileID(h.Sum64())
	}
	spots := c.nodes.Locate(file, uint32(first), uint32(last), freshet.Locality{Host: q.Host, Rack: q.Rack, Zone: q.Zone}, c.clock.Elapsed())
	blocks := make([]freshet.Block, 0, len(spots))
	named := 0
	for i := range spots {
		if named += 1 + len(spots[i].Nodes); named > maxNamed && i > 0 {
			break
		}
		index := first + int64(i)
		b := freshet.Block{Offset: index * size, Length: min(size, info.Length-index*size), Fetch: spots[i].Fetch}
		b.ID.Index = uint32(index)
		if cacheable {
			b.ID.File, b.Nodes, b.Via = info.FileID, spots[i].Nodes, spots[i].Via
		}
		if b.Fetch.ID == "" && len(b.Nodes) == 0 {
			return nil, freshet.Errorf(freshet.KindUnavailable, opLocate, q.Path, "no cache node is live: start one, or wait until it has registered")
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}
