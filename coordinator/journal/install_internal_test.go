package journal

import (
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/freshet-io/freshet/internal/clock"
)

// TestALogThatGoesOnAfterASnapshotKeepsItsEnd: Raft deletes the whole log when it
// has installed a snapshot, and counts on the end that it had.
func TestALogThatGoesOnAfterASnapshotKeepsItsEnd(t *testing.T) {
	t.Parallel()
	const last = 10
	for _, tt := range []struct {
		name        string
		installed   *marker
		config      uint64 // the index of a change of members
		first, last uint64 // of the log afterwards
		again       bool   // Raft has to begin again
	}{
		{name: "no snapshot was installed"},
		{name: "the snapshot reaches the end", installed: &marker{Index: last, Term: 1}},
		{name: "the snapshot reaches further", installed: &marker{Index: 20, Term: 2}},
		{name: "the log goes on", installed: &marker{Index: 6, Term: 1}, first: 7, last: last},
		{name: "a change of members comes before the snapshot", installed: &marker{Index: 6, Term: 1}, config: 5, first: 7, last: last},
		{name: "a change of members comes after it", installed: &marker{Index: 6, Term: 1}, config: 9, again: true},
		{name: "the log is of a leader that lost", installed: &marker{Index: 6, Term: 2}, again: true},
		{name: "the log begins after the snapshot", installed: &marker{Index: 2, Term: 1}, again: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := &checkedLog{
				LogStore: raft.NewInmemStore(), sizes: &logSizes{}, grown: make(chan struct{}, 1), emptied: make(chan struct{}, 1),
				fail: func(err error) { t.Error(err) },
			}
			l.holds.clock = clock.NewFake(time.Unix(0, 0))
			for i := uint64(4); i <= last; i++ {
				entry := &raft.Log{Index: i, Term: 1}
				if i == tt.config {
					entry.Type = raft.LogConfiguration
				}
				if err := l.StoreLog(entry); err != nil {
					t.Fatal(err)
				}
			}
			l.installed.Store(tt.installed)
			var raft sync.WaitGroup
			raft.Go(func() { // whose goroutine ends if it has to begin again
				if err := l.DeleteRange(4, last); err != nil {
					t.Error(err)
				}
			})
			raft.Wait()
			first, _ := l.FirstIndex()
			end, _ := l.LastIndex()
			if first != tt.first || end != tt.last || (len(l.emptied) > 0) != tt.again {
				t.Errorf("the log has %d to %d, Raft begins again: %v", first, end, len(l.emptied) > 0)
			}
		})
	}
}
