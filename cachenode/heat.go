package cachenode

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/store"
)

const (
	// maxReason bounds the text of an error that is told to the leader, in bytes.
	maxReason = 300
	// Of up to heatKept blocks the reads are counted between two heartbeats, and the
	// heatTold that were read most, heatLeast times at least, are told.
	heatKept  = 4096
	heatTold  = 32
	heatLeast = 4
)

// directories returns the state of the directories as the leader is told.
func directories(s *store.Store) []freshet.CacheDirectory {
	var all []freshet.CacheDirectory
	for _, t := range s.Status() {
		for _, d := range t.Dirs {
			one := freshet.CacheDirectory{Tier: string(t.Kind), Path: d.Path, State: d.State, Used: d.Used, Capacity: d.Capacity}
			if d.Err != nil {
				one.Reason = reasonOf(d.Err)
			}
			all = append(all, one)
		}
	}
	return all
}

// reasonOf returns what a heartbeat tells of an error: the leader keeps it, and a
// heartbeat with a text that is cut within a letter, or is none, could not be sent.
func reasonOf(err error) string {
	s := err.Error()
	return strings.ToValidUTF8(s[:min(len(s), maxReason)], "")
}

// heat counts the reads of blocks between two heartbeats.
type heat struct {
	mu    sync.Mutex
	reads map[freshet.BlockID]uint32
}

// note counts reads. Of a block that comes when the table is full it loses the first
// ones: what is hot comes again, in the next table.
func (h *heat) note(id freshet.BlockID, n uint32) {
	if id.File == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reads == nil {
		h.reads = map[freshet.BlockID]uint32{}
	}
	if _, known := h.reads[id]; known || len(h.reads) < heatKept {
		h.reads[id] += n
	}
}

// take returns the blocks that were read most since the last call.
func (h *heat) take() []freshet.BlockHeat {
	h.mu.Lock()
	reads := h.reads
	h.reads = nil
	h.mu.Unlock()
	var hot []freshet.BlockHeat
	for id, n := range reads {
		if n >= heatLeast {
			hot = append(hot, freshet.BlockHeat{ID: id, Reads: n})
		}
	}
	slices.SortFunc(hot, func(a, b freshet.BlockHeat) int { return cmp.Compare(b.Reads, a.Reads) })
	return hot[:min(len(hot), heatTold)]
}
