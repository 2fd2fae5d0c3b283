package ops_test

import (
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/ufs"
)

// What the engine needs is what the parts give.
var (
	_ ops.Journal = (*journal.Journal)(nil)
	_ ops.State   = (*namespace.State)(nil)
	_ ops.Storage = (*ufs.Mounts)(nil)
)
