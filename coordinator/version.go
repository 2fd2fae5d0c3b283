package coordinator

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// versions is what the members have said in this term that they apply. A leader
// begins without: a member may have been started anew under another one.
type versions struct {
	mu   sync.Mutex
	term uint64
	of   map[string]int
	told uint64 // the term in which the leader was told this member's
	// needs is namespace.Needs, but for tests.
	needs func(*namespace.Command) int
}

// need returns the version that all of the commands need.
func (v *versions) need(cmds []namespace.Command) (version int) {
	v.mu.Lock()
	needs := v.needs
	v.mu.Unlock()
	if needs == nil {
		needs = namespace.Needs
	}
	for i := range cmds {
		version = max(version, needs(&cmds[i]))
	}
	return version
}

// begin forgets what was said in earlier terms.
func (v *versions) begin(term uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.term != term {
		v.term, v.of = term, map[string]int{}
	}
}

func (v *versions) say(member string, version int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.of == nil {
		v.of = map[string]int{}
	}
	v.of[member] = version
}

// get returns what a member applies, 0 if it has not said so.
func (v *versions) get(member string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.of[member]
}

// tell notes that the leader of a term knows this member's version; toldIn says
// whether it does.
func (v *versions) tell(term uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.told = term
}

func (v *versions) toldIn(term uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.told == term
}

// lowest returns the highest version that every member has said it applies, and
// those that keep it below what this member applies.
func (c *Coordinator) lowest() (version int, below []string, err error) {
	peers, err := c.journal.Peers()
	if err != nil {
		return 0, nil, err
	}
	version = c.opts.Applies
	for _, m := range c.members(peers) {
		if m.ID == c.opts.Member.ID {
			continue
		}
		if m.StateVersion < c.opts.Applies {
			below = append(below, nameOr(m.Name, m.ID))
		}
		version = min(version, max(m.StateVersion, 1))
	}
	slices.Sort(below)
	return version, below, nil
}

// raiseVersion puts in force what all members apply. The caller holds membership, so
// that nobody joins meanwhile.
func (c *Coordinator) raiseVersion(ctx context.Context) error {
	version, _, err := c.lowest()
	if err != nil || version <= c.state.Version() {
		return err
	}
	if _, err = c.propose(ctx, namespace.Command{SetVersion: &namespace.SetVersion{Version: version}}); err == nil {
		c.log.Info("all members apply a newer version of the state", "version", version)
	}
	return err
}

// gate refuses commands that not every member can apply: one that can't would have to
// stop.
func (c *Coordinator) gate(cmds []namespace.Command) error {
	need, inForce := c.versions.need(cmds), c.state.Version()
	if need <= inForce {
		return nil
	}
	version, below, err := c.lowest()
	if err != nil || need <= version {
		return err
	}
	return freshet.Errorf(freshet.KindUnsupported, "propose", "",
		"this needs version %d of the state, and version %d is in force until all members can apply more; upgrade %s", need, inForce, strings.Join(below, ", "))
}

// checkVersion refuses a member that can't apply what is in force. Who says nothing
// is not refused: it would have to stop by itself.
func (c *Coordinator) checkVersion(m *freshet.Member) error {
	if inForce := c.state.Version(); m.StateVersion != 0 && m.StateVersion < inForce {
		return freshet.Errorf(freshet.KindUnsupported, "join", "",
			"member %s applies version %d of the state, and version %d is in force; upgrade it", nameOr(m.Name, m.ID), m.StateVersion, inForce)
	}
	return nil
}

// outdated says which members are of an older release. Those who have not said what
// they apply are about to.
func (c *Coordinator) outdated(members []freshet.Member) []string {
	var all []string
	for _, m := range members {
		if m.StateVersion != 0 && m.StateVersion < c.opts.Applies {
			all = append(all, fmt.Sprintf("member %s applies version %d of the state, the leader %d: upgrade it", nameOr(m.Name, m.ID), m.StateVersion, c.opts.Applies))
		}
	}
	return all
}
