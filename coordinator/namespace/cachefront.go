package namespace

import "sync/atomic"

// frontCache keeps a bounded number of directories decoded, each in the one slot
// that its hash gives, so that a walk does not decode the directories above each
// entry again. Like the cache behind it, it is filled by readers and writers.
type frontCache struct {
	slots []atomic.Pointer[hotDir]
}

// hotDir is never changed.
type hotDir struct {
	at  place
	ino *inode
}

const (
	maxFrontSlots = 1024
	// hotBytes is what a slot may take, decoded; larger directories, by their names,
	// texts and attributes, are not kept.
	hotBytes = 1 << 10
	hotTexts = 512
	// frontShare is the part of the limit that the slots may take.
	frontShare = 32
)

func newFrontCache(limit int64) frontCache {
	n := int64(1)
	for n < maxFrontSlots && 2*n*hotBytes <= limit/frontShare {
		n *= 2
	}
	return frontCache{slots: make([]atomic.Pointer[hotDir], n)}
}

func (c *frontCache) slot(hash uint64) *atomic.Pointer[hotDir] {
	return &c.slots[hash>>8&uint64(len(c.slots)-1)]
}

func (c *frontCache) get(hash uint64, p place) *inode {
	if d := c.slot(hash).Load(); d != nil && d.at == p {
		return d.ino
	}
	return nil
}

// put keeps n, which must not be changed any more. nil and what is no directory
// only forgets what was kept of p.
func (c *frontCache) put(hash uint64, p place, n *inode) {
	slot := c.slot(hash)
	if n == nil || !n.dir || len(p.name)+n.texts() > hotTexts {
		if d := slot.Load(); d != nil && d.at == p {
			slot.CompareAndSwap(d, nil)
		}
		return
	}
	slot.Store(&hotDir{at: p, ino: n})
}

func (c *frontCache) clear() {
	for i := range c.slots {
		c.slots[i].Store(nil)
	}
}

func (c *frontCache) bytes() int64 { return int64(len(c.slots)) * hotBytes }

// texts returns the bytes of n that its struct does not have.
func (n *inode) texts() int {
	return len(n.content) + len(n.change) + len(n.attr.owner) + len(n.attr.group) + len(n.attr.meta)
}
