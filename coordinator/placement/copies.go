package placement

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
)

// What bounds the copies that are ordered. Work is done page by page of the index:
// pages whose copies changed at once, all others when the set of nodes or a policy
// changed, and now and then.
const (
	// A node has at most so many orders, and bytes of them, at a time.
	maxOrders     = 256
	maxOrderBytes = 256 << 20
	// orderLife is after how long an order that a node did not carry out is withdrawn;
	// for refusedFor the block is not ordered from that node again.
	orderLife  = 2 * time.Minute
	refusedFor = 10 * time.Minute
	maxRefused = 4096
	// Into a node that has no room, where a copy pushes out another block, go at most
	// 1/crowdedShare of its capacity each minute.
	crowdedShare = 100
	// All pages are looked through anew after sweepEvery, or after sweepShort while
	// blocks lack copies.
	sweepEvery = 5 * time.Minute
	sweepShort = time.Minute
	// maxMarked bounds the pages that wait; beyond it all are looked through.
	maxMarked = 1 << 16
)

// Page names up to 256 neighbouring blocks of a file version.
type Page struct{ key pageKey }

// File returns the version that the blocks are of.
func (p Page) File() freshet.FileID { return p.key.file }

// copies is what is known of the bounds of copies.
type copies struct {
	on     bool
	queue  []pageKey
	queued map[pageKey]struct{}
	// The sweep over all pages: asked for, running, and when it begins by itself.
	asked  bool
	next   func() (pageKey, bool)
	stop   func()
	again  time.Duration
	fleet  uint64 // of which nodes it was begun
	short  map[pageKey]int
	shorts int
}

// carrier is a node's part in it.
type carrier struct {
	takes   bool          // it does what it is ordered
	since   time.Duration // when this run of it was heard first
	orders  map[freshet.BlockID]order
	bytes   int64 // of the orders
	refused map[freshet.BlockID]time.Duration
	minute  time.Duration // when the bytes of crowded were begun to be counted
	crowded int64
}

type order struct {
	length int64
	at     time.Duration
}

// Replicate begins to watch the copies of blocks, or ends it: then all orders are
// withdrawn. It ends what is kept for it.
func (n *Nodes) Replicate(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.resetCopies(on)
}

func (n *Nodes) resetCopies(on bool) {
	if n.copies.stop != nil {
		n.copies.stop()
	}
	n.copies = copies{on: on, asked: on}
	for _, at := range n.byID {
		at.orders, at.bytes, at.refused = nil, 0, nil
	}
}

// Recheck has all pages looked through soon.
func (n *Nodes) Recheck() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.copies.asked = n.copies.on
}

// Mark has the page looked at soon.
func (n *Nodes) Mark(p Page) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mark(p.key)
}

// MarkFile has the blocks of a version looked at soon.
func (n *Nodes) MarkFile(f freshet.FileID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mark(pageKey{file: f})
	for _, p := range n.index.more[f] {
		n.mark(pageKey{f, p})
	}
}

func (n *Nodes) mark(k pageKey) {
	c := &n.copies
	if !c.on {
		return
	}
	if _, waits := c.queued[k]; waits {
		return
	}
	if len(c.queue) >= maxMarked {
		c.queue, c.queued, c.asked = nil, nil, true
		return
	}
	if c.queued == nil {
		c.queued = map[pageKey]struct{}{}
	}
	c.queued[k] = struct{}{}
	c.queue = append(c.queue, k)
}

// NextPages returns up to limit pages whose copies are to be looked at; none as long
// as it is not known what the nodes hold, because the leader is new or one of them.
func (n *Nodes) NextPages(limit int, now time.Duration) []Page {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := &n.copies
	if !c.on || !n.settled(now) {
		return nil
	}
	if fleet := n.fleet(now); fleet != c.fleet {
		c.fleet, c.asked = fleet, true
	}
	if c.next == nil && (c.asked || now >= c.again) {
		c.asked, c.again = false, now+sweepEvery
		maps.DeleteFunc(c.short, func(k pageKey, blocks int) bool {
			_, there := n.index.pages[k]
			if !there {
				c.shorts -= blocks
			}
			return !there
		})
		c.next, c.stop = iter.Pull(maps.Keys(n.index.pages))
	}
	var out []Page
	for len(out) < limit && len(c.queue) > 0 {
		out = append(out, Page{c.queue[0]})
		delete(c.queued, c.queue[0])
		c.queue = c.queue[1:]
	}
	for len(out) < limit && c.next != nil {
		k, more := c.next()
		if !more {
			c.next, c.stop, c.again = nil, nil, now+sweepEvery
			break
		}
		out = append(out, Page{k})
	}
	if c.shorts > 0 {
		c.again = min(c.again, now+sweepShort)
	}
	return out
}

// partsWithin bounds how long others wait for a node that tells what it holds in parts.
const partsWithin = time.Minute

// settled reports whether all that live have told what they hold, or had the time.
func (n *Nodes) settled(now time.Duration) bool {
	if now-n.start < n.opts.DeadAfter {
		return false
	}
	for _, at := range n.slots {
		if at != nil && n.live(at, now) && (at.partial && now-at.began < partsWithin || !at.full && now-at.since < n.opts.DeadAfter) {
			return false
		}
	}
	return true
}

// fleet changes when another set of nodes lives, or another one takes copies.
func (n *Nodes) fleet(now time.Duration) uint64 {
	var sum uint64
	for _, at := range n.alive(now) {
		h := at.hash + at.incarnation
		if at.full && at.takes && !at.drains() {
			h = ^h
		}
		sum = mix(sum ^ h)
	}
	return sum
}

// Short returns how many blocks were found to have fewer live copies than wanted.
func (n *Nodes) Short() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.copies.shorts
}

// Carriers returns how many nodes live and take copies.
func (n *Nodes) Carriers(now time.Duration) int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(n.carriers(now))
}

func (n *Nodes) carriers(now time.Duration) []*node {
	return slices.DeleteFunc(n.staying(now), func(at *node) bool { return !at.takes || !at.full })
}

// Keep orders what brings the copies of the blocks of a page between the bounds. It
// never has the last copy freed, and nothing fetched that no live node holds. True:
// a node is busy with earlier orders, so that the page has to be looked at again.
func (n *Nodes) Keep(p Page, want freshet.Replication, now time.Duration) (again bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := &n.copies
	if !c.on {
		return false
	}
	c.shorts -= c.short[p.key]
	delete(c.short, p.key)
	if want.None() && (want.Min < 1 || !n.draining(now)) {
		return false
	}
	least, most := want.Bounds()
	targets := n.carriers(now)
	page := n.index.pages[p.key]
	for from := 0; from < len(page); {
		to := from + 1
		for to < len(page) && page[to].index == page[from].index {
			to++
		}
		id := freshet.BlockID{File: p.key.file, Index: page[from].index}
		all := n.holding(id, page[from:to], now)
		held := slices.DeleteFunc(slices.Clone(all), (*node).drains)
		switch {
		case len(all) == 0: // nobody has it
		case len(held) < least:
			if c.short == nil {
				c.short = map[pageKey]int{}
			}
			c.short[p.key]++
			c.shorts++
			again = orderMissing(lacking{id, int64(page[from].length), held}, least, targets, now) || again
		default:
			if n.heat.least(id, least, most) <= len(held) {
				for _, at := range n.byID {
					at.withdraw(id)
				}
			}
			if most > 0 && len(held) > most {
				for _, at := range surplus(id, held, most) {
					at.release(id)
				}
			}
		}
		from = to
	}
	return again
}

// holding returns the live nodes that hold the block and are not to free it.
func (n *Nodes) holding(id freshet.BlockID, records []record, now time.Duration) []*node {
	var held []*node
	for _, r := range records {
		if at := n.slots[r.slot]; at != nil && n.live(at, now) {
			if !at.frees(id) {
				held = append(held, at)
			}
		}
	}
	return held
}

// lacking is a block of which there are too few copies.
type lacking struct {
	id     freshet.BlockID
	length int64
	has    []*node // with a copy, or the order to fetch one
}

// orderMissing orders the copies that a block lacks. It is true if they can't be
// ordered yet.
func orderMissing(b lacking, least int, targets []*node, now time.Duration) bool {
	for _, at := range targets {
		if _, ordered := at.orders[b.id]; ordered && !slices.Contains(b.has, at) {
			b.has = append(b.has, at)
		}
	}
	for len(b.has) < least {
		best := b.target(targets, now)
		if best == nil {
			return false // there are no more nodes
		}
		if len(best.orders) >= maxOrders || (best.bytes > 0 && best.bytes+b.length > maxOrderBytes) {
			return true
		}
		best.order(b.id, b.length, now)
		b.has = append(b.has, best)
	}
	return false
}

// target returns the node that should take one more copy: the one farthest from the
// copies that there are, then one that has room, then the winner of the ranking.
func (b *lacking) target(targets []*node, now time.Duration) *node {
	hash := hashBlock(b.id)
	better := func(at, than *node) bool {
		d := cmp.Or(cmp.Compare(apart(at, b.has), apart(than, b.has)), compareBool(at.room(b.length), than.room(b.length)))
		return d > 0 || (d == 0 && ahead(at, than, hash))
	}
	var best *node
	for _, at := range targets {
		if slices.Contains(b.has, at) || at.refuses(b.id, now) || !at.fits(b.length, now) {
			continue
		}
		if best == nil || better(at, best) {
			best = at
		}
	}
	return best
}

// surplus returns the holders beyond most: what stays is what would have been chosen.
func surplus(id freshet.BlockID, held []*node, most int) []*node {
	hash := hashBlock(id)
	var kept []*node
	for len(kept) < most {
		var best *node
		for _, at := range held {
			if slices.Contains(kept, at) {
				continue
			}
			if best == nil {
				best = at
				continue
			}
			if d := apart(at, kept) - apart(best, kept); d > 0 || (d == 0 && ahead(at, best, hash)) {
				best = at
			}
		}
		kept = append(kept, best)
	}
	return slices.DeleteFunc(held, func(at *node) bool { return slices.Contains(kept, at) })
}

// apart is the distance of a node to the nearest of others.
func apart(at *node, others []*node) int {
	d := 3
	for _, o := range others {
		d = min(d, near{o.Host, o.rack, o.zone}.distance(at))
	}
	return d
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// room reports whether the node can take the block without pushing out another.
func (at *node) room(length int64) bool { return at.used+at.bytes+length <= at.capacity }

// fits reports whether the node can take the block at all, now.
func (at *node) fits(length int64, now time.Duration) bool {
	if at.room(length) {
		return true
	}
	return length <= at.capacity && (at.crowded == 0 || now-at.minute >= time.Minute || at.crowded+length <= at.capacity/crowdedShare)
}

func (at *node) order(id freshet.BlockID, length int64, now time.Duration) {
	if !at.room(length) {
		if at.crowded == 0 || now-at.minute >= time.Minute {
			at.minute, at.crowded = now, 0
		}
		at.crowded += length
	}
	if at.orders == nil {
		at.orders = map[freshet.BlockID]order{}
	}
	at.orders[id] = order{length, now}
	at.bytes += length
}

// withdraw takes an order back, or strikes it off.
func (at *node) withdraw(id freshet.BlockID) {
	if o, ok := at.orders[id]; ok {
		at.bytes -= o.length
		delete(at.orders, id)
	}
}

// refuse takes an order back that the node did not carry out.
func (at *node) refuse(id freshet.BlockID, until time.Duration) {
	at.withdraw(id)
	if at.refused == nil || len(at.refused) >= maxRefused {
		at.refused = map[freshet.BlockID]time.Duration{}
	}
	at.refused[id] = until
}

func (at *node) refuses(id freshet.BlockID, now time.Duration) bool {
	until, refused := at.refused[id]
	return refused && now < until
}

// CopyOrder is a block that a node is to fetch, and who holds it, the nearest first.
type CopyOrder struct {
	Block freshet.BlockID
	From  []freshet.Node
	Hot   bool // it is read so much that it is to have more copies
}

// ToCopy returns the blocks that the node is to fetch, in order. They are named again
// until the node reports to hold them; what takes it too long is left to others.
func (n *Nodes) ToCopy(id freshet.NodeID, now time.Duration) []CopyOrder {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := n.byID[id]
	if at == nil {
		return nil
	}
	var all []CopyOrder
	for b, o := range at.orders {
		from := n.holders(b, near{at.Host, at.rack, at.zone}, now)
		switch {
		case now-o.at >= orderLife:
			at.refuse(b, now+refusedFor)
			n.mark(keyOf(b))
		case len(from) == 0:
			at.withdraw(b)
		default:
			all = append(all, CopyOrder{b, from, n.heat.hot(b)})
		}
	}
	slices.SortFunc(all, func(a, b CopyOrder) int {
		return cmp.Or(cmp.Compare(a.Block.File, b.Block.File), cmp.Compare(a.Block.Index, b.Block.Index))
	})
	return all
}

// Ordered reports whether a node was ordered to fetch a block of the version.
func (n *Nodes) Ordered(f freshet.FileID) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, at := range n.byID {
		for id := range at.orders {
			if id.File == f {
				return true
			}
		}
	}
	return false
}

// Withdraw takes orders back that no longer make sense.
func (n *Nodes) Withdraw(id freshet.NodeID, blocks ...freshet.BlockID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at := n.byID[id]; at != nil {
		for _, b := range blocks {
			at.withdraw(b)
		}
	}
}
