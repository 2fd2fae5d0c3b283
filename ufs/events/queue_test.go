package events_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/events"
)

// visibility is how long a letter of the fake is its receiver's.
const visibility = 30 * time.Second

// fakeQueue delivers at least once, in any order, some letters twice.
type fakeQueue struct {
	mu      sync.Mutex
	rng     *rand.Rand
	twice   float64 // probability that a letter stays visible when received
	letters map[string][]byte
	hidden  map[string]time.Time
	next    int
	arrived chan struct{}
	fail    error
	deleted int
}

func newFakeQueue(seed uint64, twice float64) *fakeQueue {
	return &fakeQueue{
		rng: rand.New(rand.NewPCG(seed, 1)), twice: twice, letters: map[string][]byte{}, hidden: map[string]time.Time{}, arrived: make(chan struct{}, 1),
	}
}

func (q *fakeQueue) send(bodies ...string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, b := range bodies {
		q.next++
		q.letters[strconv.Itoa(q.next)] = []byte(b)
	}
	select {
	case q.arrived <- struct{}{}:
	default:
	}
}

func (q *fakeQueue) take() ([]events.Letter, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var ls []events.Letter
	for id, body := range q.letters { // in random order
		if len(ls) == 10 || time.Now().Before(q.hidden[id]) {
			continue
		}
		ls = append(ls, events.Letter{Receipt: id, Body: body})
		if q.rng.Float64() >= q.twice {
			q.hidden[id] = time.Now().Add(visibility)
		}
	}
	return ls, q.fail
}

func (q *fakeQueue) Receive(ctx context.Context, wait time.Duration) ([]events.Letter, error) {
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	for {
		if ls, err := q.take(); len(ls) > 0 || err != nil {
			return ls, err
		}
		select {
		case <-ctx.Done():
			return nil, ufs.ContextError(ctx, "receive", "")
		case <-deadline.C:
			return nil, nil
		case <-q.arrived:
		}
	}
}

func (q *fakeQueue) Delete(_ context.Context, ls []events.Letter) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range ls {
		if _, ok := q.letters[l.Receipt]; ok {
			delete(q.letters, l.Receipt)
			q.deleted++
		}
	}
	return q.fail
}

func (q *fakeQueue) Release(_ context.Context, ls []events.Letter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range ls {
		delete(q.hidden, l.Receipt)
	}
}

func (q *fakeQueue) left() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.letters)
}

func put(key string, version int) string {
	return s3("aws:s3", "ObjectCreated:Put", key, fmt.Sprintf(`,"size":1,"eTag":"e%d"`, version))
}

// Letters that come twice and out of order, from a queue whose receiver now and
// then stops before it has applied what it received: every change is told before
// its letter is gone.
func TestReceiverLosesNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			q := newFakeQueue(seed, 0.3)
			rng := rand.New(rand.NewPCG(seed, 2))
			want := map[string]bool{}
			for i := range 200 {
				key := fmt.Sprintf("d%d/f%d", rng.IntN(5), i)
				want["/"+key] = true
				if rng.IntN(2) == 0 {
					q.send(put(key, i))
				} else {
					q.send(s3("aws:s3", "ObjectRemoved:Delete", key, ""), put(key, i))
				}
			}
			total := q.left()
			told := map[string]bool{}
			for watches := 0; q.left() > 0; watches++ {
				if watches > 1000 {
					t.Fatalf("seed %d: %d letters are left", seed, q.left())
				}
				stop := rng.IntN(8)
				for n, err := range events.NewReceiver(q, events.ReceiverOptions{Own: "s3://b"}).Watch(t.Context(), nil) {
					if err != nil || n.Gap != "" {
						t.Fatalf("seed %d: %+v, %v", seed, n, err)
					}
					if stop == 0 {
						break // crashed before it was applied: n tells nothing
					}
					stop--
					for _, r := range n.Changes {
						told[r.Key] = true
					}
					if q.left() == 0 {
						break
					}
				}
			}
			for key := range want {
				if !told[key] {
					t.Errorf("seed %d: %s was never told", seed, key)
				}
			}
			if q.deleted != total {
				t.Errorf("seed %d: %d of %d deleted", seed, q.deleted, total)
			}
		})
	}
}

// A letter goes when the consumer asks for the next notice, not before.
func TestReceiverDeletesWhatWasApplied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newFakeQueue(1, 0)
		i := 0
		for n, err := range events.NewReceiver(q, events.ReceiverOptions{Own: "s3://b"}).Watch(t.Context(), nil) {
			if err != nil || q.deleted != max(0, i-1) {
				t.Fatalf("notice %d: %v, %d deleted", i, err, q.deleted)
			}
			if i > 0 && (n.Of != "s3://b" || len(n.Changes) != 1 || n.Changes[0].Key != "/f"+strconv.Itoa(i)) {
				t.Fatalf("notice %d: %+v", i, n)
			}
			if i++; i == 5 {
				break
			}
			q.send(put("f"+strconv.Itoa(i), 1))
		}
		if q.left() != 1 {
			t.Errorf("%d letters left, want the one that was not applied", q.left())
		}
	})
}

func TestReceiverGivesBackWhatWasNotApplied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newFakeQueue(1, 0)
		q.send(put("a", 1))
		for _, err := range events.NewReceiver(q, events.ReceiverOptions{}).Watch(t.Context(), nil) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		start := time.Now()
		for n, err := range events.NewReceiver(q, events.ReceiverOptions{}).Watch(t.Context(), nil) {
			if err != nil || len(n.Changes) == 1 {
				break
			}
		}
		if waited := time.Since(start); waited > 0 || q.left() != 1 {
			t.Errorf("came back after %v, %d left", waited, q.left())
		}
	})
}

// Silence is said at least every 10 seconds.
func TestReceiverIsHeard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		last := time.Now()
		n := 0
		for notice, err := range events.NewReceiver(newFakeQueue(1, 0), events.ReceiverOptions{}).Watch(t.Context(), nil) {
			if err != nil || len(notice.Changes) != 0 || notice.Gap != "" {
				t.Fatalf("%+v, %v", notice, err)
			}
			if d := time.Since(last); d > 10*time.Second {
				t.Fatalf("nothing for %v", d)
			}
			last = time.Now()
			if n++; n == 20 {
				break
			}
		}
	})
}

func TestReceiverPoison(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"no JSON": "hello", "no key": `{"Records":[{"s3":{"bucket":{"name":"b"}}}]}`} {
		synctest.Test(t, func(t *testing.T) {
			q := newFakeQueue(1, 0)
			q.send(body, put("a", 1))
			counts := map[string]int{}
			var gaps, changes int
			for n, err := range events.NewReceiver(q, events.ReceiverOptions{Count: func(what string) { counts[what]++ }}).Watch(t.Context(), nil) {
				if err != nil {
					t.Fatal(err)
				}
				if n.Gap != "" {
					gaps++
					if q.deleted != 0 {
						t.Errorf("%s: deleted before the gap was applied", name)
					}
				}
				changes += len(n.Changes)
				if q.left() == 0 {
					break
				}
			}
			if gaps != 1 || changes != 1 || counts[events.LetterUnread] != 1 || counts[events.LetterNews] != 1 {
				t.Errorf("%s: %d gaps, %d changes, %v", name, gaps, changes, counts)
			}
		})
	}
}

func TestReceiverTellsStoragesApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newFakeQueue(1, 0)
		q.send(put("a", 1), strings.ReplaceAll(put("a", 1), `"name":"b"`, `"name":"other"`), `{"Event":"s3:TestEvent"}`)
		got := map[string]int{}
		for n, err := range events.NewReceiver(q, events.ReceiverOptions{Own: "s3://b"}).Watch(t.Context(), nil) {
			if err != nil {
				t.Fatal(err)
			}
			if len(n.Changes) > 0 {
				got[n.Of] += len(n.Changes)
			}
			if q.left() == 0 {
				break
			}
		}
		if len(got) != 2 || got["s3://b"] != 1 || got["s3://other"] != 1 {
			t.Error(got)
		}
	})
}

func TestReceiverChecks(t *testing.T) {
	t.Parallel()
	gone := errors.New("the bucket notifies nobody")
	synctest.Test(t, func(t *testing.T) {
		notices := 0
		for _, err := range events.NewReceiver(newFakeQueue(1, 0), events.ReceiverOptions{Check: func(context.Context) error { return gone }}).Watch(t.Context(), nil) {
			if notices++; !errors.Is(err, gone) || notices > 1 {
				t.Errorf("notice %d: %v", notices, err)
			}
		}
		start := time.Now()
		check := func(context.Context) error {
			if time.Since(start) > 90*time.Second {
				return gone
			}
			return nil
		}
		var last error
		for _, err := range events.NewReceiver(newFakeQueue(1, 0), events.ReceiverOptions{Check: check}).Watch(t.Context(), nil) {
			last = err
		}
		if took := time.Since(start); !errors.Is(last, gone) || took > 160*time.Second {
			t.Errorf("%v after %v", last, took)
		}
		// A check that hangs doesn't make the watch deaf.
		hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		for _, err := range events.NewReceiver(newFakeQueue(1, 0), events.ReceiverOptions{Check: hang}).Watch(t.Context(), nil) {
			if err != nil {
				t.Error(err)
			}
			break
		}
	})
}

func TestReceiverEndsWithErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newFakeQueue(1, 0)
		q.fail = errors.New("expired")
		var errs []error
		for _, err := range events.NewReceiver(q, events.ReceiverOptions{}).Watch(t.Context(), nil) {
			errs = append(errs, err)
		}
		if len(errs) != 1 || !errors.Is(errs[0], q.fail) {
			t.Error(errs)
		}
	})
}

// A queue that nobody read for longer than it keeps messages has forgotten some.
func TestReceiverCursor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first := func(since []byte) ufs.Notice {
			for n, err := range events.NewReceiver(newFakeQueue(1, 0), events.ReceiverOptions{Retention: 24 * time.Hour}).Watch(t.Context(), since) {
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			t.Fatal("nothing")
			return ufs.Notice{}
		}
		n := first(nil)
		if n.Gap != "" || len(n.Cursor) == 0 {
			t.Fatalf("%+v", n)
		}
		time.Sleep(23 * time.Hour) // of the bubble
		if m := first(n.Cursor); m.Gap != "" {
			t.Errorf("after 23 hours: %+v", m)
		}
		time.Sleep(2 * time.Hour)
		if m := first(n.Cursor); m.Gap == "" {
			t.Error("no gap after 25 hours")
		}
		if m := first([]byte("x")); m.Gap == "" {
			t.Error("no gap for a cursor of something else")
		}
	})
}
