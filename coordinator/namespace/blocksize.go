package namespace

import "github.com/freshet-io/freshet"

// versionBlocks is the version from which on policies set the size of blocks, and bound their
// copies.
const versionBlocks = 4

// named is an entry by its key in a mount.
type named struct {
	m   *mount
	key string
}

// blockSize returns the size of the blocks, as an inode has it, of a version of a file
// that is made now with so many bytes: by the policy of its path, or larger, if so many
// blocks could not be numbered. A version has it as long as it lives, for its blocks
// are known by their numbers.
//
// The policy counts from its version on only: a cluster may be founded with one while
// its members do not know of each other yet what they apply.
func (t *txn) blockSize(of named, length int64) int64 {
	if len(t.policies) == 0 || t.meta.version() < versionBlocks {
		return 0
	}
	r := t.resolve(of.m.at(of.key))
	size := r.policy.BlockSize
	if size == 0 {
		return 0
	}
	for size < freshet.MaxBlockSize && (length-1)/size >= freshet.MaxBlocks {
		size = min(2*size, freshet.MaxBlockSize)
	}
	return storedBlockSize(size)
}

// storedBlockSize returns a size of blocks as an inode has it.
func storedBlockSize(size int64) int64 {
	if size == freshet.DefaultBlockSize {
		return 0
	}
	return size
}

// setsBlocks reports whether a setting is one that members which know only blocks of
// the default size, in as many copies as readers made, would not heed.
func setsBlocks(s PolicySetting) bool {
	if s.Property == freshet.PropertyBlockSize {
		n, err := freshet.ParseBlockSize(s.Value)
		return err == nil && n != freshet.DefaultBlockSize
	}
	copies := s.Property == freshet.PropertyReplicationMin || s.Property == freshet.PropertyReplicationMax
	return copies && s.Value != "0"
}
