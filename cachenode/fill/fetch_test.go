package fill_test

import (
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/fill"
)

// TestFetchBringsABlockFromAnotherNode, from the storage if none has it, and not a
// second time.
func TestFetchBringsABlockFromAnotherNode(t *testing.T) {
	data := random(300_000, 1)
	others := &peers{data: map[freshet.NodeID][]byte{"b": data}}
	b := newBed(t, settings{remote: others})
	req := b.put("f", data, 1)
	req.Block.Nodes = nodes("b")
	before := b.opens()
	check(t, b.filler.Fetch(t.Context(), req))
	if n := b.opens() - before; n != 0 || len(others.asked) != 1 {
		t.Errorf("the storage was opened %d times, other nodes were asked: %v", n, others.asked)
	}
	check(t, b.filler.Fetch(t.Context(), req))
	if len(others.asked) != 1 {
		t.Errorf("asked again: %v", others.asked)
	}
	b.want(req, data, freshet.OriginHit)

	other := b.put("g", data, 2)
	other.Block.Nodes = nodes("c") // has it no more
	check(t, b.filler.Fetch(t.Context(), other))
	b.want(other, data, freshet.OriginHit)
}

func TestFetchLeavesRoomForReaders(t *testing.T) {
	data := random(300_000, 1)
	b := newBed(t, settings{opts: fill.Options{MaxFills: 2}})
	first, second := b.put("f", data, 1), b.put("g", data, 2)
	began, goOn := make(chan struct{}), make(chan struct{})
	b.setHook(func(step string) error {
		if step == "open" {
			close(began)
			<-goOn
		}
		return nil
	})
	read := make(chan error, 1)
	go func() {
		_, _, err := b.read(first)
		read <- err
	}()
	<-began
	err := b.filler.Fetch(t.Context(), second)
	if !freshet.IsKind(err, freshet.KindExhausted) {
		t.Errorf("while a reader's fetch runs: %v", err)
	}
	b.setHook(nil)
	close(goOn)
	check(t, <-read)
	b.awaitCached(first.Block.ID)
}

// TestFetchTakesNoOtherVersion: what the storage holds now is not what was ordered.
func TestFetchTakesNoOtherVersion(t *testing.T) {
	b := newBed(t, settings{})
	req := b.put("f", random(1000, 1), 1)
	b.put("f", random(1000, 2), 2)
	if err := b.filler.Fetch(t.Context(), req); !freshet.IsKind(err, freshet.KindStale) {
		t.Errorf("got %v", err)
	}
	b.wantNotCached(req.Block.ID)
	req.Block.Length = -1
	if err := b.filler.Fetch(t.Context(), req); !freshet.IsKind(err, freshet.KindInvalid) {
		t.Errorf("an impossible block: %v", err)
	}
}
