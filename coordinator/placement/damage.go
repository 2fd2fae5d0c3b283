package placement

import (
	"slices"
	"time"

	"github.com/freshet-io/freshet"
)

// maxDamages bounds the versions of which damaged blocks are remembered; the oldest
// are forgotten first.
const maxDamages = 1024

// damages are the versions of which nodes found damaged blocks.
type damages struct {
	of    map[freshet.FileID]*damage
	order []freshet.FileID // as they were found first
}

type damage struct {
	blocks int
	nodes  []string // sorted
	last   time.Duration
}

func (d *damages) note(blocks []freshet.BlockID, by string, now time.Duration) {
	for _, b := range blocks {
		one := d.of[b.File]
		if one == nil {
			if d.of == nil {
				d.of = map[freshet.FileID]*damage{}
			}
			if len(d.order) == maxDamages {
				delete(d.of, d.order[0])
				d.order = slices.Delete(d.order, 0, 1)
			}
			one = &damage{}
			d.of[b.File] = one
			d.order = append(d.order, b.File)
		}
		one.blocks++
		one.last = now
		if at, found := slices.BinarySearch(one.nodes, by); !found {
			one.nodes = slices.Insert(one.nodes, at, by)
		}
	}
}

func (d *damages) forget(f freshet.FileID) {
	if d.of[f] == nil {
		return
	}
	delete(d.of, f)
	d.order = slices.DeleteFunc(d.order, func(o freshet.FileID) bool { return o == f })
}

// Damage returns what nodes have reported of damaged blocks of a version, as far
// as it is remembered.
func (n *Nodes) Damage(f freshet.FileID, now time.Duration) freshet.Damage {
	n.mu.RLock()
	defer n.mu.RUnlock()
	one := n.harm.of[f]
	if one == nil {
		return freshet.Damage{}
	}
	return freshet.Damage{Blocks: one.blocks, Nodes: slices.Clone(one.nodes), Ago: now - one.last}
}

// Evict has the nodes told to free every block that they are known to hold of a
// version, which stays live, and forgets what was damaged of it. A block that a
// node fetches anew before it is told stays.
func (n *Nodes) Evict(f freshet.FileID) {
	n.FreeFiles(f)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.harm.forget(f)
}
