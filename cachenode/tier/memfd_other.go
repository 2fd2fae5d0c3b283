//go:build !linux

package tier

import (
	"os"

	"github.com/freshet-io/freshet"
)

// lend is for systems that have files in memory.
func (h memoryHandle) lend() (*os.File, int64, bool, error) {
	return nil, 0, false, freshet.Errorf(freshet.KindUnsupported, "lend block", "", "blocks in memory are lent on Linux only")
}

func (d *memoryDraft) lend(int64) (*os.File, int64, error) {
	return nil, 0, freshet.Errorf(freshet.KindUnsupported, "lend block", "", "blocks in memory are lent on Linux only")
}

func (b *memoryBlock) seal() error { return nil }
