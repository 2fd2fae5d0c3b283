package metasync_test

import (
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
)

// betweenReadAndJudgement has another reader act after the first one's lookup of p
// and before that one judges what it read.
func (b *bed) betweenReadAndJudgement(p freshet.Path, act func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read = func(q freshet.Path) {
		if q != p {
			return
		}
		b.mu.Lock()
		b.read = nil
		b.mu.Unlock()
		act()
	}
}

// TestAValidationIsNeverTakenForThatOfAnOlderVersion: a reader reads the state, then
// another one finds a new version and records that it is valid, and only then the
// first one looks whether what it has read was validated.
func TestAValidationIsNeverTakenForThatOfAnOlderVersion(t *testing.T) {
	t.Parallel()
	const p = freshet.Path("/m/d/f")
	begin := func(t *testing.T) *bed {
		b := newBed(t, metasync.Options{})
		b.rule = metasync.Fixed(freshet.Interval(time.Minute))
		b.store.Put("d/f", []byte("old"))
		b.list("/m/d")
		b.clock.Advance(time.Hour)
		return b
	}
	t.Run("an entry", func(t *testing.T) {
		t.Parallel()
		b := begin(t)
		b.store.Put("d/f", []byte("newer"))
		b.betweenReadAndJudgement(p, func() { b.present(p) })
		e, err := b.Entry(t.Context(), p, b.rule)
		if err != nil || e.Info.Length != 5 {
			t.Errorf("%+v, %v", e.Info, err)
		}
	})
	t.Run("an absent path", func(t *testing.T) {
		t.Parallel()
		b := begin(t)
		b.store.Put("d/g", []byte("new"))
		b.betweenReadAndJudgement("/m/d/g", func() { b.list("/m/d") })
		b.present("/m/d/g")
	})
	t.Run("an entry that is gone", func(t *testing.T) {
		t.Parallel()
		b := begin(t)
		b.store.Remove("d/f")
		b.betweenReadAndJudgement(p, func() { b.list("/m") })
		b.absent(p)
	})
	t.Run("a listing", func(t *testing.T) {
		t.Parallel()
		b := begin(t)
		b.store.Put("d/g", []byte("new"))
		b.betweenReadAndJudgement("/m/d", func() { b.list("/m/d") })
		if names := b.list("/m/d"); len(names) != 2 {
			t.Errorf("%v", names)
		}
	})
}
