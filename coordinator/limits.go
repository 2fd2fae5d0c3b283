package coordinator

import "github.com/freshet-io/freshet/coordinator/metasync"

// SetSyncLimits changes how many questions to storages may be on their way at
// once; it takes effect at once.
func (c *Coordinator) SetSyncLimits(l metasync.Limits) { c.sync.Slots().SetLimits(l) }
