package warming_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/placement"
	"github.com/freshet-io/freshet/coordinator/warming"
	"github.com/freshet-io/freshet/fingerprint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const blockSize = 100

// bed is a region with nodes that do what they are ordered.
type bed struct {
	*warming.Engine
	nodes *placement.Nodes

	mu       sync.Mutex
	files    map[freshet.Path]freshet.Info
	version  freshet.FileID
	dead     map[freshet.NodeID]bool
	capacity map[freshet.NodeID]int64
	used     map[freshet.NodeID]int64
	fetched  map[freshet.BlockID]int
	fate     func(id freshet.NodeID, o freshet.BlockCopy) freshet.WarmedBlock
	start    time.Time
	known    map[freshet.NodeID]bool // has told the leader all
	added    map[freshet.NodeID][]freshet.BlockReport
	evict    map[freshet.BlockID]freshet.BlockID // the block that each pushes out
	ended    map[freshet.NodeID][]freshet.WarmedBlock
}

func newBed(t *testing.T, nodes ...freshet.NodeID) *bed {
	t.Helper()
	b := &bed{
		nodes: placement.New(placement.Options{}), files: map[freshet.Path]freshet.Info{}, dead: map[freshet.NodeID]bool{},
		capacity: map[freshet.NodeID]int64{}, used: map[freshet.NodeID]int64{}, fetched: map[freshet.BlockID]int{},
		start: time.Now(), known: map[freshet.NodeID]bool{}, added: map[freshet.NodeID][]freshet.BlockReport{}, ended: map[freshet.NodeID][]freshet.WarmedBlock{},
	}
	for _, id := range nodes {
		b.capacity[id] = 1 << 30
	}
	b.Engine = warming.New(warming.Deps{
		Stat: func(_ context.Context, p freshet.Path) (freshet.Info, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if f, ok := b.files[p]; ok {
				return f, nil
			}
			if p == "/d" {
				return freshet.Info{Path: p, Type: freshet.TypeDirectory}, nil
			}
			return freshet.Info{}, freshet.Errorf(freshet.KindNotExist, "stat", p, "no such file")
		},
		List: b.list, Locate: b.locate,
		Spread: func(id freshet.BlockID, length int64, place freshet.CachePlace) placement.Spread {
			return b.nodes.Spread(id, length, place, b.now())
		},
		Held: func(file freshet.FileID, blocks int64, place freshet.CachePlace) int64 {
			_, count, _ := b.nodes.Shares(file, blocks, place, b.now())
			return count
		},
		Live: func(id freshet.NodeID) bool { return b.nodes.Presence(id, b.now()).Live },
	})
	return b
}

func (b *bed) now() time.Duration { return time.Since(b.start) }

func (b *bed) put(p freshet.Path, length int64) freshet.Info {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.version++
	f := freshet.Info{
		Path: p, Length: length, BlockSize: blockSize, FileID: b.version,
		Fingerprint: fingerprint.Fingerprint{Content: fmt.Sprint(b.version)},
	}
	b.files[p] = f
	return f
}

func (b *bed) list(_ context.Context, q freshet.ListQuery) (freshet.ListPage, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var page freshet.ListPage
	var all []freshet.Path
	for p := range b.files {
		if q.Path.Contains(p) && string(p) > q.PageToken {
			all = append(all, p)
		}
	}
	slices.Sort(all)
	for _, p := range all {
		if len(page.Entries) == 10 {
			page.NextPageToken = string(page.Entries[9].Path)
			break
		}
		page.Entries = append(page.Entries, b.files[p])
	}
	return page, nil
}

func (b *bed) locate(_ context.Context, q freshet.LocateQuery) (freshet.Location, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, ok := b.files[q.Path]
	if !ok {
		return freshet.Location{}, freshet.Errorf(freshet.KindNotExist, "locate", q.Path, "no such file")
	}
	loc := freshet.Location{Info: f, Cacheable: true, Source: freshet.Source{Key: string(f.Path), Fingerprint: f.Fingerprint}}
	for off := q.Offset / blockSize * blockSize; off < f.Length && len(loc.Blocks) < 3; off += blockSize {
		loc.Blocks = append(loc.Blocks, freshet.Block{
			ID: freshet.BlockID{File: f.FileID, Index: uint32(off / blockSize)}, Offset: off, Length: min(blockSize, f.Length-off),
		})
	}
	return loc, nil
}

// serve has the nodes beat each tenth of a second until ctx ends.
func (b *bed) serve(ctx context.Context, t *testing.T) {
	for ctx.Err() == nil {
		for id, capacity := range b.capacity {
			if b.dead[id] {
				continue
			}
			h := freshet.Heartbeat{
				Node: freshet.Node{ID: id, Name: string(id), Host: string(id)}, Rack: "r-" + string(id), Incarnation: 1, Full: !b.known[id],
				Capacity: capacity, Used: b.used[id], TakesWarms: true, TakesCopies: true, Added: b.added[id], Warmed: b.ended[id],
			}
			for _, r := range h.Added {
				if old, ok := b.evict[r.ID]; ok {
					h.Removed = append(h.Removed, old)
				}
			}
			b.known[id] = true
			if _, err := b.nodes.Heartbeat(h, true, b.now()); err != nil {
				t.Error(err)
			}
			b.Report(id, h.Warmed)
			orders := b.Orders(id)
			b.added[id], b.ended[id] = nil, nil
			for _, o := range orders {
				r := freshet.WarmedBlock{Block: o.Block.ID, Fetched: true}
				b.mu.Lock()
				if b.fate != nil {
					r = b.fate(id, o)
				}
				if r.Kind == freshet.KindOK {
					b.fetched[o.Block.ID]++
					b.used[id] += o.Block.Length
					b.added[id] = append(b.added[id], freshet.BlockReport{ID: o.Block.ID, Length: o.Block.Length})
				}
				b.mu.Unlock()
				if r.Block != (freshet.BlockID{}) {
					b.ended[id] = append(b.ended[id], r)
				}
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// bubble runs a job, while then has its way with the region, if it is not nil.
func (b *bed) bubble(t *testing.T, q freshet.WarmQuery, then func(cancel context.CancelFunc)) (freshet.WarmProgress, error) {
	t.Helper()
	if err := q.Normalize(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { b.serve(ctx, t) })
	wg.Go(func() { _ = b.Run(ctx) })
	time.Sleep(time.Second) // the bubble's: the nodes are known
	job := b.NewJob(q)
	running, stop := context.WithCancel(ctx)
	defer stop()
	if then != nil {
		wg.Go(func() { then(stop) })
	}
	err := job.Run(running)
	if n := b.Ordered(); n != 0 {
		t.Errorf("%d orders are left", n)
	}
	p := job.Progress()
	cancel()
	wg.Wait()
	return p, err
}

func TestATreeIsWarmedOnceAndWithCopies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, "a", "b", "c")
		for i := range 50 {
			b.put(freshet.Path(fmt.Sprintf("/d/f%02d", i)), 850)
		}
		q := freshet.WarmQuery{Paths: []freshet.Path{"/d"}, Filter: freshet.CacheFilter{Exclude: []string{"f0*"}}}
		p, err := b.bubble(t, q, nil)
		if err != nil || p.Files != 40 || !p.Counted || p.TotalFiles != 40 || p.TotalBytes != 40*850 || p.WarmedBytes != 40*850 || p.CachedBytes != 0 || p.Failed != 0 {
			t.Errorf("%+v, %v", p, err)
		}
		if len(b.fetched) != 40*9 {
			t.Errorf("%d blocks were fetched", len(b.fetched))
		}
		q.Replicas = 2
		if p, err = b.bubble(t, q, nil); err != nil || p.WarmedBytes != 40*850 || p.CachedBytes != 40*850 || p.TotalBytes != 2*40*850 {
			t.Errorf("second copies: %+v, %v", p, err)
		}
		for id, n := range b.fetched {
			if n != 2 {
				t.Errorf("block %v was fetched %d times for two copies", id, n)
			}
		}
		q.Place = freshet.CachePlace{Rack: "r-c"}
		if p, err = b.bubble(t, q, nil); err != nil || p.Failed != 40 || len(p.Failures) != freshet.MaxFileFailures || !strings.Contains(p.Failures[0].Error, "rack r-c") {
			t.Errorf("two copies in one rack of one node: %+v, %v", p, err)
		}
		if p, err = b.bubble(t, freshet.WarmQuery{Paths: []freshet.Path{"/none"}}, nil); !freshet.IsKind(err, freshet.KindNotExist) {
			t.Errorf("what is not there: %+v, %v", p, err)
		}
	})
}

func TestFailuresOfFilesAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, "a", "b")
		bad := b.put("/d/bad", 250)
		b.put("/d/good", 250)
		sick := b.put("/d/sick", 50)
		b.fate = func(id freshet.NodeID, o freshet.BlockCopy) freshet.WarmedBlock {
			r := freshet.WarmedBlock{Block: o.Block.ID, Fetched: true}
			if o.Block.ID == (freshet.BlockID{File: bad.FileID, Index: 1}) {
				r.Kind, r.Error = freshet.KindUnavailable, "the storage is away"
			}
			if o.Block.ID.File == sick.FileID && id == "a" {
				r.Kind, r.Error = freshet.KindUnavailable, "the disk is broken" // the other node can
			}
			return r
		}
		p, err := b.bubble(t, freshet.WarmQuery{Paths: []freshet.Path{"/d"}}, nil)
		if err != nil || p.Files != 3 || p.Failed != 1 || len(p.Failures) != 1 || p.Failures[0].Path != "/d/bad" || p.Failures[0].Kind != freshet.KindUnavailable || !strings.Contains(p.Failures[0].Error, "storage is away") {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// TestAFileThatChangesIsWarmedAtItsNewVersion, all of it, and one that changes for ever
// is counted.
func TestAFileThatChangesIsWarmedAtItsNewVersion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, "a")
		old := b.put("/d/f", 950)
		wild := b.put("/d/wild", 50)
		var last freshet.FileID
		b.fate = func(_ freshet.NodeID, o freshet.BlockCopy) freshet.WarmedBlock {
			renew := func(p freshet.Path) freshet.FileID {
				f := b.files[p]
				b.version++
				f.FileID, f.Fingerprint = b.version, fingerprint.Fingerprint{Content: fmt.Sprint(b.version)}
				b.files[p] = f
				return f.FileID
			}
			stale := freshet.WarmedBlock{Block: o.Block.ID, Kind: freshet.KindStale, Error: "another version"}
			switch {
			case o.Source.Key == string(wild.Path):
				renew(wild.Path)
				return stale
			case o.Block.ID == freshet.BlockID{File: old.FileID, Index: 7}:
				last = renew(old.Path)
				return stale
			}
			return freshet.WarmedBlock{Block: o.Block.ID, Fetched: true}
		}
		p, err := b.bubble(t, freshet.WarmQuery{Paths: []freshet.Path{"/d"}}, nil)
		if err != nil || p.Files != 2 || p.Failed != 1 || p.WarmedBytes != 950 || p.Failures[0].Path != "/d/wild" || p.Failures[0].Kind != freshet.KindStale {
			t.Errorf("%+v, %v", p, err)
		}
		for i := range uint32(10) {
			if b.fetched[freshet.BlockID{File: last, Index: i}] != 1 {
				t.Errorf("block %d of the new version was fetched %d times", i, b.fetched[freshet.BlockID{File: last, Index: i}])
			}
		}
	})
}

func TestANodeThatDiesIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, "a", "b")
		for i := range 600 { // more than fit into the orders at a time
			b.put(freshet.Path(fmt.Sprintf("/d/f%03d", i)), 10)
		}
		b.fate = func(id freshet.NodeID, o freshet.BlockCopy) freshet.WarmedBlock {
			if id == "b" {
				b.dead[id] = true // with what it was ordered
				return freshet.WarmedBlock{}
			}
			return freshet.WarmedBlock{Block: o.Block.ID, Fetched: true}
		}
		p, err := b.bubble(t, freshet.WarmQuery{Paths: []freshet.Path{"/d"}}, nil)
		if err != nil || p.Files != 600 || p.Failed != 0 {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// TestWhatIsPushedOutAgainIsNoSuccess: the bytes of a warm may fit into a node whose
// directories have no room for its blocks.
func TestWhatIsPushedOutAgainIsNoSuccess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, "a")
		first := b.put("/d/first", 250)
		second := b.put("/d/second", 250)
		b.evict = map[freshet.BlockID]freshet.BlockID{{File: second.FileID, Index: 2}: {File: first.FileID, Index: 1}}
		if p, err := b.bubble(t, freshet.WarmQuery{Paths: []freshet.Path{"/d/first"}}, nil); err != nil || p.Failed != 0 {
			t.Fatalf("%+v, %v", p, err)
		}
		p, err := b.bubble(t, freshet.WarmQuery{Paths: []freshet.Path{"/d"}}, nil)
		if err != nil || p.Files != 2 || p.Failed != 1 || len(p.Failures) != 1 || p.Failures[0].Path != "/d/first" || p.Failures[0].Kind != freshet.KindExhausted || !strings.Contains(p.Failures[0].Error, "1 of 3 blocks") {
			t.Errorf("%+v, %v", p, err)
		}
		b.evict = nil
		if p, err = b.bubble(t, freshet.WarmQuery{Paths: []freshet.Path{"/d"}}, nil); err != nil || p.Failed != 0 || p.WarmedBytes != 100 {
			t.Errorf("with room for all: %+v, %v", p, err)
		}
	})
}

func TestAJobEndsWhenTheNodesAreFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, "a")
		b.capacity["a"] = 1600
		for i := range 1000 {
			b.put(freshet.Path(fmt.Sprintf("/d/f%03d", i)), 100)
		}
		p, err := b.bubble(t, freshet.WarmQuery{Paths: []freshet.Path{"/d"}}, nil)
		if !freshet.IsKind(err, freshet.KindExhausted) || p.WarmedBytes != 1500 || p.Files > 900 {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

func TestACancelledJobLeavesNoOrders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, "a")
		for i := range 1000 {
			b.put(freshet.Path(fmt.Sprintf("/d/f%03d", i)), 1000)
		}
		b.fate = func(_ freshet.NodeID, _ freshet.BlockCopy) freshet.WarmedBlock { return freshet.WarmedBlock{} } // never done
		p, err := b.bubble(t, freshet.WarmQuery{Paths: []freshet.Path{"/d"}}, func(cancel context.CancelFunc) {
			time.Sleep(3 * time.Second)
			if n := b.Ordered(); n == 0 || n > 256 {
				t.Errorf("%d orders", n)
			}
			cancel()
		})
		if err == nil || p.Files != 0 {
			t.Errorf("%+v, %v", p, err)
		}
	})
}
