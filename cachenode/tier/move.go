package tier

import "github.com/freshet-io/freshet"

// What a node with several tiers needs to move blocks between them.

// OpenVictim opens the block that should leave the tier first, without counting
// that as a read; nil if all blocks are in use or pinned. KindCorrupt: it was
// damaged and is gone.
func (t *Tier) OpenVictim() (*Reader, error) {
	t.mu.Lock()
	id, ok := t.policy.victim(t.busy)
	return t.openLocked(id, ok)
}

// OpenAny opens a block whatever it is bound to, without counting that as a read;
// nil if it is not there.
func (t *Tier) OpenAny(id freshet.BlockID) (*Reader, error) {
	t.mu.Lock()
	_, ok := t.blocks[id]
	return t.openLocked(id, ok)
}

// openLocked gives mu back.
func (t *Tier) openLocked(id freshet.BlockID, ok bool) (*Reader, error) {
	if !ok || t.closed {
		t.mu.Unlock()
		return nil, nil //nolint:nilnil // there is nothing, and nothing is wrong
	}
	e := t.blocks[id]
	e.readers++
	t.mu.Unlock()
	return t.open(e)
}

// ID returns the name of the block.
func (r *Reader) ID() freshet.BlockID { return r.entry.id }

// Reads returns the number of times that the block was read, with pauses, if the
// opening of this Reader was one of them, else 0.
func (r *Reader) Reads() int { return r.reads }

// Held reports whether the tier still has the block, and whether it is pinned.
func (r *Reader) Held() (held, pinned bool) {
	r.tier.mu.Lock()
	defer r.tier.mu.Unlock()
	return !r.entry.removed, r.entry.pinned
}

// Leave drops the block, which stays readable by this Reader, and reports whether
// the tier still had it, and whether it was pinned.
func (r *Reader) Leave(why Reason) (held, pinned bool) {
	r.tier.mu.Lock()
	defer r.tier.mu.Unlock()
	held, pinned = !r.entry.removed, r.entry.pinned
	r.tier.drop(r.entry, why)
	return held, pinned
}
