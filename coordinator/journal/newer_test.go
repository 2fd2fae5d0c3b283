package journal_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// A member that gets an entry of a newer release stops, and says why: it does not
// skip it, by which its state would differ from the others' for ever.
func TestEntriesOfANewerReleaseStopAMember(t *testing.T) {
	t.Parallel()
	for name, entry := range map[string][]byte{
		"format":          {namespace.Format + 1, 0x90},
		"kind of command": append([]byte{namespace.Format, 0x91, 0x81, 0xa4}, "warp\x80"...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 3, nil)
				l := c.leader()
				l.put(t, 1)
				c.settle()
				if err := journal.AppendRaw(l.j, entry); err != nil {
					t.Logf("append: %v", err)
				}
				stopped := 0
				deadline := time.After(time.Minute) // fake time
				for _, m := range c.members {
					select {
					case err := <-m.ended:
						m.cancel() // of a journal that has ended
						m.cancel = nil
						stopped++
						if !freshet.IsKind(err, freshet.KindUnsupported) || !strings.Contains(err.Error(), "newer version") {
							t.Errorf("%s ended with %v", m.id, err)
						}
					case <-deadline: // it has not heard that the entry is committed
						deadline = time.After(time.Second)
					}
					if got := m.state.list(); len(got) != 1 {
						t.Errorf("%s has applied %v", m.id, got)
					}
				}
				if stopped < 2 {
					t.Errorf("%d members stopped", stopped)
				}
			})
		})
	}
}
