package namespace

import (
	"fmt"
	"slices"

	"github.com/freshet-io/freshet"
)

// Version is the highest version of commands and rows that this release applies.
// Releases of one Format may differ in it: a member that applies version 3 and one
// that applies 2 can be in one cluster, because nothing that needs 3 is proposed
// before all members have said that they apply it. Then 3 is in force, for ever: see
// SetVersion and Needs. A new kind of command, or a new field, comes with a new
// version here and a row in Needs.
//
//	1  what members apply that say nothing
//	2  the version in force is part of the state
//	3  the bounds of a mount change without a new generation; what is new may
//	   belong to who made it
//	4  policies set the size of the blocks of new versions of files, and bound the
//	   copies of blocks
//	5  warms that go on without their callers; cache nodes are drained and
//	   decommissioned; files are visible before they are in the storage: the write
//	   types must_cache and async_through; clients may keep answers under a lease
const Version = versionDataPath

const versionDataPath = 5

// VersionUnpersisted is the first one with files that are not in the storage.
const VersionUnpersisted = versionDataPath

// SetVersion puts a version in force. It changes nothing if a later one is.
type SetVersion struct {
	Version int `codec:"v"`
}

// Needs returns the version that a member must apply to apply the command.
func Needs(c *Command) int {
	switch {
	case c.SetVersion != nil:
		return c.SetVersion.Version
	case c.UpdateMount != nil && c.UpdateMount.SameStorage:
		return 3
	case c.Begin != nil && (c.Begin.Owner != "" || c.Begin.Group != ""):
		return 3
	case c.Begin != nil && (c.Begin.Persist != 0 || c.Begin.Write.Keeps() || c.Begin.Source != nil):
		return VersionUnpersisted
	case c.Complete != nil && (len(c.Complete.Nodes) > 0 || len(c.Complete.Beneath) > 0), c.Resolve != nil && (c.Resolve.Late || c.Resolve.Copied || c.Resolve.Start != 0):
		return VersionUnpersisted
	case c.Permit != nil && c.Permit.Sealed != nil:
		return VersionUnpersisted
	case c.MoveUnpersisted != nil, c.QueuePersist != nil, c.StopPersist != nil, c.PersistFailed != nil, c.AddKeeper != nil:
		return VersionUnpersisted
	case c.ChangePolicy != nil && slices.ContainsFunc(c.ChangePolicy.Set, setsKeeping):
		return VersionUnpersisted
	case c.ChangePolicy != nil && slices.ContainsFunc(c.ChangePolicy.Set, setsBlocks):
		return versionBlocks
	case c.StartWarm != nil || c.EndWarm != nil:
		return versionDataPath
	case c.SetNodeRole != nil:
		return versionDataPath
	case c.SetLeases != nil:
		return versionDataPath
	}
	return 1
}

// Version returns the version in force: that of the commands and rows which all
// members can apply.
func (s *State) Version() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.meta.version()
}

func (m *meta) version() int { return max(m.Version, 1) }

// check refuses a state in which a version is in force that this release does not
// apply: what a command of it says would be lost.
func (m *meta) check() error {
	if m.version() > Version {
		return fmt.Errorf("%w: version %d is in force, this version applies 1 to %d; upgrade this member", errNewer, m.version(), Version)
	}
	return nil
}

// checkVersions refuses to put a version in force that this release does not apply.
func checkVersions(cmds []Command) error {
	for i := range cmds {
		if n := Needs(&cmds[i]); n > Version {
			return freshet.Errorf(freshet.KindUnsupported, "decode commands", "", "%w: a command needs version %d of the state, this version applies 1 to %d; upgrade this member", errNewer, n, Version)
		}
	}
	return nil
}

func (t *txn) setVersion(c *SetVersion) Result {
	t.meta.Version = max(t.meta.Version, c.Version)
	return Result{}
}
