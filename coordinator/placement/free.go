package placement

import (
	"cmp"
	"slices"

	"github.com/freshet-io/freshet"
)

// FreeFiles has the nodes told to free every block of the files that they are
// known to hold: versions that are no longer live.
func (n *Nodes) FreeFiles(files ...freshet.FileID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range files {
		n.index.file(f, func(r record) { n.slots[r.slot].release(freshet.BlockID{File: f, Index: r.index}) })
	}
}

// FreeBlocks has the node told to free these blocks.
func (n *Nodes) FreeBlocks(id freshet.NodeID, blocks []freshet.BlockID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at := n.byID[id]; at != nil {
		for _, b := range blocks {
			at.release(b)
		}
	}
}

func (at *node) release(b freshet.BlockID) {
	if at == nil {
		return
	}
	if at.free == nil {
		at.free = map[freshet.BlockID]struct{}{}
	}
	at.free[b] = struct{}{}
}

// ToFree returns up to limit blocks that the node is to free, in order. They are
// named again until the node reports that they are gone.
func (n *Nodes) ToFree(id freshet.NodeID, limit int) []freshet.BlockID {
	n.mu.RLock()
	defer n.mu.RUnlock()
	at := n.byID[id]
	if at == nil {
		return nil
	}
	var all []freshet.BlockID
	for b := range at.free {
		if len(all) == limit {
			break
		}
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b freshet.BlockID) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Index, b.Index))
	})
	return all
}
