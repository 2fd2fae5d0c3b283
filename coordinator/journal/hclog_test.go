package journal_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/freshet-io/freshet/coordinator/journal"
)

// A cluster that starts has no leader yet: nobody need be warned. One that has lost
// its leader is another matter.
func TestTheFirstElectionIsNoWarning(t *testing.T) {
	t.Parallel()
	const event = "heartbeat timeout reached, starting election" // as Raft words it
	for leader, warned := range map[string]bool{"": false, "c1": true} {
		var out bytes.Buffer
		log := journal.NewRaftLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn})))
		log.Warn(event, "last-leader-addr", leader, "last-leader-id", leader)
		if got := strings.Contains(out.String(), event); got != warned {
			t.Errorf("after the leader %q: warned %v, want %v: %s", leader, got, warned, out.String())
		}
	}
}
