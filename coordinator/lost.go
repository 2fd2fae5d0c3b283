package coordinator

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/ops"
)

// remedyOfLost says what to do about an unpersisted file that no live node has.
func (c *Coordinator) remedyOfLost(f *namespace.UnpersistedFile) string {
	why := c.ops.LossOf(f)
	names := strings.Join(c.nodes.Named(f.Nodes), " or ")
	giveUp := fmt.Sprintf("write the file again, or remove it with \"freshet fs rm %s\"", f.Path)
	switch {
	case len(why.Damaged) > 0:
		return remedyOfDamaged(f, &why, giveUp)
	case f.Memory && c.nodes.Ended(f.Nodes, c.clock.Elapsed()):
		return fmt.Sprintf("they were kept in the memory of %s alone and are gone, for it was restarted: %s", names, giveUp)
	case f.Memory:
		return fmt.Sprintf("they were kept in the memory of %s alone; unless it still runs and can be reached again they are gone: %s", names, giveUp)
	case len(why.Away) > 0:
		return "bring back " + strings.Join(why.Away, " or ") + ", which kept them"
	}
	return fmt.Sprintf("%s, which kept them, is live, but does not have all of them any more: they were damaged or removed, or a directory of its cache is out of service, which \"freshet cluster nodes\" shows; if that can't be brought back, %s", names, giveUp)
}

// remedyOfDamaged is remedyOfLost of a file of which nodes found wrong bytes: to bring
// such a node back, or to wait for it, would mend nothing.
func remedyOfDamaged(f *namespace.UnpersistedFile, why *ops.Loss, giveUp string) string {
	on := strings.Join(why.Damaged, " and ")
	if len(why.Away) > 0 {
		giveUp = fmt.Sprintf("bring back %s, which kept it too; or %s", strings.Join(why.Away, " or "), giveUp)
	}
	said := fmt.Sprintf("bytes of the file were found damaged on %s, and are never served: %s", on, giveUp)
	if !f.Memory {
		said += fmt.Sprintf("; the damaged blocks may still be found in \"quarantine\" in the cache directory of %s", on)
	}
	return said
}

// lostFiles are unpersisted files that no live node has, by what can be done for them.
type lostFiles struct {
	memory                 int // gone, or out of reach, with the memory of single nodes
	away, damaged, lacking lostOn
}

// lostOn are lost files, and the nodes that matter to them.
type lostOn struct {
	files int
	nodes map[string]struct{}
}

func (l *lostOn) add(nodes []string) {
	if l.nodes == nil {
		l.nodes = map[string]struct{}{}
	}
	l.files++
	for _, n := range nodes {
		l.nodes[n] = struct{}{}
	}
}

func (l *lostOn) names() string { return strings.Join(slices.Sorted(maps.Keys(l.nodes)), ", ") }

// add counts a file once: what brings all of it back comes before what gives it up.
func (l *lostFiles) add(f *namespace.UnpersistedFile, why ops.Loss) {
	switch {
	case f.Memory && len(why.Damaged) == 0:
		l.memory++
	case !f.Memory && len(why.Away) > 0:
		l.away.add(why.Away)
	case len(why.Damaged) > 0:
		l.damaged.add(why.Damaged)
	default:
		l.lacking.add(why.Lacking)
	}
}

func (l *lostFiles) problems() (out []string) {
	say := func(n int, format string, args ...any) {
		if n > 0 {
			out = append(out, fmt.Sprintf(format, append([]any{n}, args...)...)+"; see \"freshet persist status\"")
		}
	}
	say(l.memory, "files were kept in the memory of single cache nodes, which have ended or can't be reached, %d of them: write them again, or remove them with \"freshet fs rm\"")
	say(l.away.files, "files are neither in the storage nor on a live cache node, %d of them: bring back %s", l.away.names())
	say(l.damaged.files, "files that are not in the storage have damaged bytes, %d of them: write them again, or remove them with \"freshet fs rm\"; the damage was found on %s, where \"quarantine\" in a cache directory may still have the blocks", l.damaged.names())
	say(l.lacking.files, "files are neither in the storage nor on a live cache node, %d of them, although %s, which kept them, live: unless a cache directory there is out of service and can be brought back (\"freshet cluster nodes\"), write them again, or remove them with \"freshet fs rm\"", l.lacking.names())
	return out
}
