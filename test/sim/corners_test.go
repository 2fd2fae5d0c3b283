package sim_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/crosscluster/membus"
	"github.com/freshet-io/freshet/ufs/mem"
)

// corner runs one schedule on two clusters without random faults.
func corner(t *testing.T, change func(*settings), run func(w *world, west, east *site)) {
	t.Helper()
	s := settings{seed: 1, nodes: 1, members: []int{1, 1}, prefix: []string{"/", "/"}, latency: 2 * time.Millisecond}
	if change != nil {
		change(&s)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, s)
		defer func() {
			w.close()
			for _, bad := range w.story.bad {
				t.Error(bad)
			}
			if t.Failed() {
				t.Log(w.story.print())
			}
		}()
		if !w.quiet() {
			t.FailNow()
		}
		run(w, w.sites[0], w.sites[1])
	})
}

func (s *site) client() *client.Client { return client.New(router{s}, nodesOf{s}, client.Options{}) }

// put writes a new version of a file and returns it.
func (s *site) put(key string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s.w.hist.mu.Lock()
	length := 100 + len(s.w.hist.contents) // no two are equally long
	s.w.hist.mu.Unlock()
	v, data := s.w.hist.newVersion(s, length)
	_, err := s.client().Write(ctx, s.pathOf(key), bytes.NewReader(data), client.WriteOptions{Length: int64(len(data))})
	return v, err
}

func (s *site) mustPut(key string) int {
	s.w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		v, err := s.put(key)
		if err == nil {
			return v
		}
		if !freshet.IsKind(err, freshet.KindUnavailable) || time.Now().After(deadline) { // the node may not have heard of its leader yet
			s.w.t.Fatal(err)
		}
	}
}

// get returns the version of a file, 0 if there is none.
func (s *site) get(key string) int {
	s.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r, err := s.client().Open(ctx, s.pathOf(key), client.Whole())
	if freshet.IsKind(err, freshet.KindNotExist) {
		return 0
	}
	var data []byte
	if err == nil {
		data, err = io.ReadAll(r)
		err = errors.Join(err, r.Close())
	}
	if err != nil {
		s.w.t.Fatalf("read %s in %s: %v", key, s.name, err)
	}
	return versionOf(data)
}

func (w *world) want(s *site, key string, v int) {
	w.t.Helper()
	// The status first: a read finds out by itself that its version is gone.
	st, err := s.client().Stat(context.Background(), s.pathOf(key), freshet.ReadOptions{})
	if err != nil || st.Info.Length != w.hist.length(v) {
		w.t.Errorf("%s has %d bytes of %s (%v), want %d, those of version %d", s.name, st.Info.Length, key, err, w.hist.length(v), v)
	}
	if got := s.get(key); got != v {
		w.t.Errorf("%s has version %d of %s, want %d", s.name, got, key, v)
	}
}

// level waits until r has applied everything that p has published.
func (w *world) level(r, p *site) {
	w.t.Helper()
	w.until(time.Minute, "level", func() string { return behind(r, p) })
}

// TestC1CompletionNeverInstallsOverANewerEvent: west's write, east's write, east's
// record, and only then west's completion.
func TestC1CompletionNeverInstallsOverANewerEvent(t *testing.T) {
	t.Parallel()
	corner(t, nil, func(w *world, west, east *site) {
		west.mustPut("/f")
		landed, resume := make(chan struct{}), make(chan struct{})
		west.nodes[0].mu.Lock()
		west.nodes[0].at = func(point string) {
			if point == "after-commit" {
				close(landed)
				<-resume
			}
		}
		west.nodes[0].mu.Unlock()
		done := make(chan error, 1)
		go func() {
			_, err := west.put("/f")
			done <- err
		}()
		<-landed
		newest := east.mustPut("/f")
		w.level(west, east)
		close(resume)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		w.want(west, "/f", newest)
		w.level(east, west)
		w.want(east, "/f", newest)
	})
}

// TestC4LoadThatBeganBeforeARecordNeverInstalls: the storage's old answer arrives
// after the record of the change.
func TestC4LoadThatBeganBeforeARecordNeverInstalls(t *testing.T) {
	t.Parallel()
	corner(t, nil, func(w *world, west, east *site) {
		west.mustPut("/f")
		w.level(east, west)
		reached, resume := make(chan struct{}), make(chan struct{})
		var once sync.Once
		w.bucket.setGate(func(by *site, _, _ string) {
			if by == east {
				once.Do(func() {
					close(reached)
					<-resume
				})
			}
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = east.client().Stat(context.Background(), east.pathOf("/f"), freshet.ReadOptions{}) // the old one is right: it began before
		}()
		<-reached
		newest := west.mustPut("/f")
		w.level(east, west)
		close(resume)
		<-done
		w.want(east, "/f", newest)
	})
}

// TestC12PutThatLandsAfterItsRetrySucceededIsPublished: a request on the wire
// lands seconds after its client was told that nobody knows, and has written again.
func TestC12PutThatLandsAfterItsRetrySucceededIsPublished(t *testing.T) {
	t.Parallel()
	corner(t, nil, func(w *world, west, east *site) {
		first := west.mustPut("/f")
		w.level(east, west)
		w.want(east, "/f", first)
		west.setMood(mood{late: 1, single: true, after: 3 * time.Second})
		lost, err := west.put("/f")
		if !freshet.IsKind(err, freshet.KindDeadline) {
			t.Errorf("a late request: %v", err)
		}
		west.setMood(mood{})
		again := west.mustPut("/f")
		w.level(east, west)
		w.want(west, "/f", again)
		w.want(east, "/f", again)
		if w.quiet() { // which waits for the late request, and for the end of the quarantine
			w.want(west, "/f", lost)
			w.want(east, "/f", lost)
		}
	})
}

// TestC16NewEpochDoubtsEverything: a change of which no record tells, as after a
// restore, is found when the epoch is bumped.
func TestC16NewEpochDoubtsEverything(t *testing.T) {
	t.Parallel()
	corner(t, nil, func(w *world, west, east *site) {
		first := west.mustPut("/f")
		w.level(east, west)
		w.want(east, "/f", first)
		v, data := w.hist.newVersion(west, 300)
		w.bucket.store.Put("f", data)
		w.want(east, "/f", first) // nobody can know
		if _, err := west.waitLeader().BumpEpoch(context.Background(), false); err != nil {
			t.Fatal(err)
		}
		w.level(east, west)
		w.want(east, "/f", v)
		w.want(west, "/f", v)
	})
}

// TestC19GossipMarksAndAdvancesNothing: with the streams cut, frames alone make a
// change seen, and the position stays.
func TestC19GossipMarksAndAdvancesNothing(t *testing.T) {
	t.Parallel()
	corner(t, nil, func(w *world, west, east *site) {
		first := west.mustPut("/f")
		w.level(east, west)
		w.want(east, "/f", first)
		before, _ := east.waitLeader().Subscriptions()
		w.net.Set("west", "east", membus.Faults{Cut: true})
		newest := west.mustPut("/f")
		time.Sleep(time.Second)
		w.want(east, "/f", newest)
		after, _ := east.waitLeader().Subscriptions()
		if len(before) != 1 || len(after) != 1 || after[0].Applied != before[0].Applied {
			t.Errorf("positions before %+v, after %+v", before, after)
		}
		w.net.Heal()
		w.quiet()
	})
}

// TestS3BatchThatWasLostIsNotSkipped: a batch is lost in the stream, gossip with it,
// and the next one arrives.
func TestS3BatchThatWasLostIsNotSkipped(t *testing.T) {
	t.Parallel()
	corner(t, nil, func(w *world, west, east *site) {
		first := west.mustPut("/f")
		other := west.mustPut("/g")
		w.level(east, west)
		w.want(east, "/f", first)
		w.want(east, "/g", other)
		w.net.Set("west", "east", membus.Faults{Drop: 1, Loss: 1})
		newest := west.mustPut("/f")
		time.Sleep(100 * time.Millisecond)
		w.net.Set("west", "east", membus.Faults{Loss: 1})
		other = west.mustPut("/g")
		w.level(east, west)
		w.want(east, "/g", other)
		w.want(east, "/f", newest)
		w.net.Heal()
		w.quiet()
	})
}

// TestC20LogThatNoLongerReachesBackStartsOver: so many changes while a subscriber
// is away that the log is compacted beyond its position.
func TestC20LogThatNoLongerReachesBackStartsOver(t *testing.T) {
	t.Parallel()
	corner(t, func(s *settings) { s.records = 40 }, func(w *world, west, east *site) {
		first := west.mustPut("/f")
		w.level(east, west)
		w.want(east, "/f", first)
		w.net.Set("west", "east", membus.Faults{Cut: true, Loss: 1})
		newest := west.mustPut("/f")
		(&nemesis{w: w, dice: newDice(1, 1), seed: 1}).burst(0)
		at := west.heads()[0].Low
		if !w.until(time.Minute, "compacted", func() string {
			if at = west.heads()[0].Low; at < 1000 {
				return fmt.Sprintf("the log still reaches back to %d", at)
			}
			return ""
		}) {
			return
		}
		w.net.Heal()
		if w.quiet() {
			w.want(east, "/f", newest)
		}
	})
}

// TestC21LossOfContactIsNoticed: behind a partition an old version is served for no
// longer than the loss takes to notice and the degraded interval.
func TestC21LossOfContactIsNoticed(t *testing.T) {
	t.Parallel()
	corner(t, nil, func(w *world, west, east *site) {
		first := west.mustPut("/f")
		w.level(east, west)
		w.want(east, "/f", first)
		w.net.Set("west", "east", membus.Faults{Cut: true, Loss: 1})
		newest := west.mustPut("/f")
		w.want(east, "/f", first) // nobody can know yet
		time.Sleep(3500*time.Millisecond + 5*time.Second)
		w.want(east, "/f", newest)
		w.net.Heal()
		w.quiet()
	})
}

// TestC24NewClusterOfTheSameNameReplacesTheOld: what the old one did last and never
// told is found all the same.
func TestC24NewClusterOfTheSameNameReplacesTheOld(t *testing.T) {
	t.Parallel()
	corner(t, nil, func(w *world, west, east *site) {
		first := west.mustPut("/f")
		w.level(east, west)
		w.want(east, "/f", first)
		w.net.Set("west", "east", membus.Faults{Cut: true, Loss: 1})
		untold := west.mustPut("/f")
		n := &nemesis{w: w, dice: newDice(1, 1), busy: make(chan struct{}, 1)}
		n.rebuild(west, 0)
		w.net.Heal()
		if w.quiet() {
			w.want(east, "/f", untold)
			w.want(west, "/f", untold)
		}
	})
}

// TestAnOperationThatIsAskedForAgainIsResolved: its client waits for an outcome
// that only the resolution can find.
func TestAnOperationThatIsAskedForAgainIsResolved(t *testing.T) {
	t.Parallel()
	corner(t, nil, func(w *world, west, _ *site) {
		west.mustPut("/d/f")
		west.setMood(mood{lost: 1})
		q := freshet.RemoveQuery{Op: freshet.OpID(uuid.New()), Path: west.pathOf("/d/f")}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if _, err := west.client().Remove(ctx, q); err == nil {
			t.Fatal("a lost request was acknowledged")
		}
		_, _ = west.client().Remove(ctx, q) // whatever it hears, it must not be in the way
		west.setMood(mood{})
		w.quiet()
	})
}

// TestAnAbortedUploadOfADeadNodeIsCleared: the client gives up the upload of a node
// that died, and nothing of it stays in the storage.
func TestAnAbortedUploadOfADeadNodeIsCleared(t *testing.T) {
	t.Parallel()
	corner(t, nil, func(w *world, west, _ *site) {
		west.mustPut("/g")
		west.nodes[0].dieAt("before-permit")
		if _, err := west.put("/f"); !freshet.IsKind(err, freshet.KindUnavailable) {
			t.Errorf("got %v", err)
		}
		w.until(10*time.Second, "cleared", func() string {
			if n := w.bucket.store.Uploads(); n != 0 {
				return fmt.Sprintf("%d uploads are left behind", n)
			}
			return ""
		})
	})
}

// TestAListingHasWhatChangesMeanwhile: entries that can't be held yet, because
// something marked them while they were listed, are listed all the same.
func TestAListingHasWhatChangesMeanwhile(t *testing.T) {
	t.Parallel()
	for _, mode := range []mem.Mode{mem.Object, mem.Local} {
		corner(t, func(s *settings) { s.mode = mode }, func(w *world, west, east *site) {
			for i := range 5 {
				west.mustPut(fmt.Sprintf("/d/f%d", i))
			}
			w.level(east, west)
			w.bucket.setGate(func(by *site, step, _ string) { // each listing meets a new mark of everything
				if by == east && step == "list" {
					if _, err := east.waitLeader().BumpEpoch(context.Background(), false); err != nil {
						t.Error(err)
					}
				}
			})
			got, err := listAll(context.Background(), east.client(), freshet.ListQuery{Path: east.pathOf("/d"), PageSize: 2})
			w.bucket.setGate(nil)
			if err != nil || len(got) != 5 {
				t.Errorf("%d entries are listed: %v", len(got), err)
			}
		})
	}
}
