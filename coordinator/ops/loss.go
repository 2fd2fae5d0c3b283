package ops

import (
	"slices"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// Loss is why no live node has all of an unpersisted file. Each node that kept it is in
// one of the lists, by its name.
type Loss struct {
	// Damaged found wrong bytes in its blocks, as far as this leader was told, and had not
	// taken a whole copy since. Nobody need bring them back: they lack those blocks.
	Damaged []string
	Away    []string // do not live
	Lacking []string // live without all of it, and why is not known
}

// Certain reports whether all nodes that kept the file have found damage: whoever is
// still to be heard has nothing of it.
func (l *Loss) Certain() bool { return len(l.Damaged) > 0 && len(l.Away)+len(l.Lacking) == 0 }

// LossOf says why a file is lost that StateOf says is.
func (e *Engine) LossOf(f *namespace.UnpersistedFile) Loss {
	var l Loss
	now := e.clock.Elapsed()
	damage := e.nodes.Damage(f.File, now)
	had := e.nodes.LastWhole(f.File, f.Length, f.Nodes)
	for i, name := range e.nodes.Named(f.Nodes) {
		_, whole := had[f.Nodes[i]]
		switch {
		case !whole && slices.Contains(damage.Nodes, name):
			l.Damaged = append(l.Damaged, name)
		case !e.nodes.Presence(f.Nodes[i], now).Live:
			l.Away = append(l.Away, name)
		default:
			l.Lacking = append(l.Lacking, name)
		}
	}
	return l
}

// tellLost says in the log that a file was lost, and why.
func (e *Engine) tellLost(f *namespace.UnpersistedFile) {
	why := e.LossOf(f)
	log := e.log.With("path", string(e.pathOf(f.File)), "file_id", uint64(f.File), "bytes", f.Length, "nodes", e.nodes.Named(f.Nodes))
	switch {
	case len(why.Damaged) > 0 && len(why.Away) > 0:
		log.Error("bytes of a file that is not in the storage were found damaged; it can be read again when another node that kept it comes back",
			"damaged_on", why.Damaged, "away", why.Away)
	case len(why.Damaged) > 0:
		log.Error("bytes of a file that is not in the storage were found damaged, and no other node has all of it; remove the file or write it again; a node with disks may still have the damaged blocks in the quarantine of its cache directory",
			"damaged_on", why.Damaged)
	case f.Memory:
		log.Error("a file that was kept in the memory of a node alone is on no live node; if the node has ended, remove the file or write it again")
	case len(why.Away) > 0:
		log.Error("the bytes of a file that is not in the storage are on no live node; it can be read again when a node that kept it comes back", "away", why.Away)
	default:
		log.Error("the nodes that kept a file that is not in the storage live, but do not have all of it any more; unless a directory of their caches comes back, remove the file or write it again")
	}
}

// tellLosses tells of the files that were not lost before, but of a few alone.
func (e *Engine) tellLosses(before map[freshet.FileID]struct{}, lost []*namespace.UnpersistedFile) {
	for _, f := range lost[:min(len(lost), lossesTold)] {
		if _, was := before[f.File]; !was {
			e.tellLost(f)
		}
	}
}
