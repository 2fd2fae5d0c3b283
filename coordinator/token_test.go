package coordinator_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/invalidation"
)

func TestATokenIsNeverIgnored(t *testing.T) { // S7
	t.Parallel()
	nudged := make(chan struct{}, 8)
	hooks := coordinator.Hooks{Nudge: func(freshet.ClusterID, freshet.DomainID) { nudged <- struct{}{} }}
	inBubble(t, settings{hooks: hooks}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		p := newPeer(w, m)
		w.stat(m, "/data/f")
		read := func(tok freshet.Token) (freshet.Status, error) {
			return m.Stat(w.Context(), "/data/f", freshet.ReadOptions{After: tok})
		}
		token := func(seq, epoch uint64) freshet.Token {
			return freshet.Token{Cluster: p.pub.Cluster, Epoch: epoch, Domain: p.dom, Seq: seq}
		}
		start := time.Now()
		_, err := read(token(1, 14))
		w.wantKind(err, freshet.KindDeadline)
		if err == nil || !strings.Contains(err.Error(), "waited 2s for us-east/14:1, applied 14:0") {
			w.Errorf("it says %v", err)
		}
		if d := time.Since(start); d != 2*time.Second {
			w.Errorf("waited %v", d)
		}
		if len(nudged) != 1 {
			w.Errorf("the bus was nudged %d times", len(nudged))
		}
		w.store.Put("f", []byte("three"))
		go func() {
			time.Sleep(time.Second)
			p.publish(invalidation.KindContent, "/f")
		}()
		if st, err := read(token(1, 14)); err != nil || st.Info.Length != 5 {
			w.Errorf("after the record: %+v, %v", st.Info, err)
		}
		if _, err := read(token(99, 13)); err != nil { // an older epoch: the present one began with a reset
			w.Errorf("an older epoch: %v", err)
		}
		_, err = read(token(1, 15))
		w.wantKind(err, freshet.KindDeadline)
		_, err = read(freshet.Token{Cluster: uuid.MustParse("22222222-2222-4222-8222-222222222222"), Epoch: 1, Domain: p.dom, Seq: 1})
		w.wantKind(err, freshet.KindUnavailable)

		own := freshet.Token{Cluster: m.Publisher().Cluster, Epoch: m.Publisher().Epoch, Domain: p.dom, Seq: 1}
		_, err = read(own) // nothing was written through this cluster
		w.wantKind(err, freshet.KindUnavailable)
		done, err := m.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/data/new"})
		if err != nil {
			w.Fatal(err)
		}
		if _, err := read(done.Token); err != nil {
			w.Errorf("the own token: %v", err)
		}
		own = done.Token
		own.Epoch++
		_, err = read(own)
		w.wantKind(err, freshet.KindUnavailable)
	})
}
