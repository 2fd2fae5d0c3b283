package coordinator_test

import (
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// A file that is visible before it is in the storage is refused until every member
// knows what that is.
func TestWritesThatStayOnNodesWaitForAllMembers(t *testing.T) {
	t.Parallel()
	var w *world
	older := namespace.VersionUnpersisted - 1
	inBubble(t, mixed(&w, &older), func(w *world) {
		time.Sleep(10 * time.Second) // fake time: all have announced themselves
		l, _ := w.inForce(older)
		if l.id == "c3" {
			if _, err := l.TransferLeadership(w.Context(), "c1"); err != nil {
				w.Fatal(err)
			}
			time.Sleep(10 * time.Second) // fake time
			l, _ = w.inForce(older)
		}
		for _, write := range []freshet.WriteType{freshet.MustCache, freshet.AsyncThrough} {
			_, err := l.BeginWrite(w.Context(), freshet.BeginWriteQuery{Path: "/data/f", Write: write})
			w.wantKind(err, freshet.KindUnsupported)
			if err != nil && !strings.Contains(err.Error(), "upgrade c3") {
				w.Errorf("the error does not say what to do: %v", err)
			}
		}
		_, err := l.ChangePolicy(w.Context(), policy("/data", "write_type", "must_cache"))
		w.wantKind(err, freshet.KindUnsupported)
	})
}
