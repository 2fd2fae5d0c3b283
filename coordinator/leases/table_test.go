package leases_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/leases"
	"github.com/freshet-io/freshet/internal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const length = 2 * time.Second

// bubbleClock counts the fake time of a bubble.
type bubbleClock struct {
	clock.Real
	start time.Time
}

func (c bubbleClock) Elapsed() time.Duration { return time.Hour + time.Since(c.start) }

// world is a table in a bubble whose state says what leases are allowed.
type world struct {
	*testing.T
	*leases.Table
	metrics *prometheus.Registry
	allowed leases.Allowed // by the state
	calls   int            // to change that
}

func inBubble(t *testing.T, opts leases.Options, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, metrics: prometheus.NewRegistry()}
		opts.Length, opts.Metrics, opts.Clock = length, w.metrics, bubbleClock{start: time.Now()}
		w.Table = leases.New(opts)
		w.Enter(1, leases.Allowed{})
		f(w)
	})
}

func (w *world) allow(_ context.Context, a leases.Allowed) error {
	w.calls++
	w.allowed = a
	return nil
}

func (w *world) open(previous freshet.LeaseID) *leases.Session {
	w.Helper()
	w.Release(&freshet.LeaseOpening{Previous: previous})
	s, err := w.Table.Open(w.Context(), freshet.LeaseID{}, w.allow)
	if err != nil {
		w.Fatal(err)
	}
	return s
}

// lease has a session keep an answer of p.
func (w *world) lease(s *leases.Session, p freshet.Path) time.Duration {
	return w.Ask(s.ID(), p).Grant(time.Hour)
}

// guard makes a change at p and returns how long it waited.
func (w *world) guard(p ...freshet.Path) time.Duration {
	w.Helper()
	start := time.Now()
	release, err := w.Guard(w.Context(), 1, func() []freshet.Path { return p })
	if err != nil {
		w.Fatal(err)
	}
	release()
	return time.Since(start)
}

// obey drops what a session is told to until it ends.
func (w *world) obey(s *leases.Session, after time.Duration) (told *[]freshet.Path) {
	told = &[]freshet.Path{}
	go func() {
		for {
			b, err := s.Next(w.Context())
			if err != nil {
				return
			}
			time.Sleep(after) // fake time
			*told = append(*told, b.Paths...)
			_ = s.Ack(b.Number)
		}
	}()
	return told
}

func (w *world) metric(name string) float64 {
	w.Helper()
	all, err := w.metrics.Gather()
	if err != nil {
		w.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	w.Fatalf("there is no metric %s", name)
	return 0
}

func TestAChangeWaitsForWhoKeepsAnAnswer(t *testing.T) {
	t.Parallel()
	for path, hits := range map[freshet.Path]bool{
		"/a/f": true, "/a": true, "/": true, "/a/f/below": true, "/a/g": false, "/a/fx": false, "/b": false,
	} {
		t.Run(string(path), func(t *testing.T) {
			t.Parallel()
			inBubble(t, leases.Options{}, func(w *world) {
				s := w.open(freshet.LeaseID{})
				told := w.obey(s, 30*time.Millisecond)
				if got := w.lease(s, "/a/f"); got != length {
					w.Fatalf("granted for %s", got)
				}
				want := time.Duration(0)
				if hits {
					want = 30 * time.Millisecond
				}
				if took := w.guard(path); took != want || len(*told) > 1 || (len(*told) == 1) != hits {
					w.Errorf("the change waited %s, want %s; the client was told %q", took, want, *told)
				}
				if took := w.guard(path); took != 0 {
					w.Errorf("the next change waited %s, though nothing is kept any more", took)
				}
				if n := w.metric("freshet_leases"); n != map[bool]float64{true: 0, false: 1}[hits] {
					w.Errorf("%v leases are out", n)
				}
			})
		})
	}
}

// A client that does not answer holds up changes for the rest of its leases, once.
func TestADeadClientHoldsUpOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, leases.Options{}, func(w *world) {
		s := w.open(freshet.LeaseID{})
		w.lease(s, "/f")
		w.lease(s, "/g")
		time.Sleep(500 * time.Millisecond) // fake time
		if took, want := w.guard("/f"), freshet.AwaitFor(length)-500*time.Millisecond; took != want {
			w.Errorf("the change waited %s, want %s", took, want)
		}
		if took := w.guard("/f", "/g"); took != 0 {
			w.Errorf("the next change waited %s", took)
		}
		if got := w.lease(s, "/h"); got != 0 {
			w.Errorf("a session that is late was granted %s", got)
		}
		if _, err := s.Next(w.Context()); !freshet.IsKind(err, freshet.KindStale) {
			w.Errorf("the session goes on: %v", err)
		}
		if n := w.metric("freshet_lease_expired_total"); n != 1 {
			w.Errorf("%v sessions were ended", n)
		}
		w.guard("/")
		if sessions, n := w.Counts(); sessions != 0 || n != 0 {
			w.Errorf("%d sessions, %d leases are left", sessions, n)
		}
	})
}

// One slow session holds up only changes of what it keeps.
func TestASlowSessionDoesNotHoldUpOthers(t *testing.T) {
	t.Parallel()
	inBubble(t, leases.Options{}, func(w *world) {
		slow, quick := w.open(freshet.LeaseID{}), w.open(freshet.LeaseID{})
		w.obey(slow, time.Second)
		w.obey(quick, 0)
		w.lease(slow, "/slow")
		w.lease(quick, "/quick")
		w.lease(slow, "/both")
		w.lease(quick, "/both")
		done := make(chan time.Duration)
		go func() { done <- w.guard("/slow") }()
		synctest.Wait()
		if took := w.guard("/quick"); took != 0 {
			w.Errorf("a change that does not concern the slow session waited %s", took)
		}
		if took := <-done; took != time.Second {
			w.Errorf("its own change waited %s", took)
		}
		if took := w.guard("/both"); took != time.Second {
			w.Errorf("a change of both waited %s", took)
		}
	})
}

// What is being answered when a change begins is not granted, nor what is asked while the
// change is under way: not even after it, for what was looked up may be from before.
func TestNothingIsGrantedDuringAChange(t *testing.T) {
	t.Parallel()
	inBubble(t, leases.Options{}, func(w *world) {
		s := w.open(freshet.LeaseID{})
		early := w.Ask(s.ID(), "/d/f")
		release, err := w.Guard(w.Context(), 1, func() []freshet.Path { return []freshet.Path{"/d"} })
		if err != nil {
			w.Fatal(err)
		}
		during := w.Ask(s.ID(), "/d/f")
		if got := w.lease(s, "/d/f"); got != 0 {
			w.Errorf("granted %s during the change", got)
		}
		other := w.lease(s, "/e")
		release()
		if a, b := early.Grant(length), during.Grant(length); a != 0 || b != 0 || other != length {
			w.Errorf("granted %s for what was asked before, %s during, %s elsewhere", a, b, other)
		}
		if got := w.lease(s, "/d/f"); got != length {
			w.Errorf("after the change: %s", got)
		}
	})
}

// The first session begins fencing: a change that did not fence is waited for.
func TestTheFirstSessionWaitsForChangesUnderWay(t *testing.T) {
	t.Parallel()
	inBubble(t, leases.Options{}, func(w *world) {
		release, err := w.Guard(w.Context(), 1, func() []freshet.Path { w.Error("asked for lines"); return nil })
		if err != nil {
			w.Fatal(err)
		}
		opened := make(chan *leases.Session)
		go func() { opened <- w.open(freshet.LeaseID{}) }()
		synctest.Wait()
		select {
		case <-opened:
			w.Fatal("a session was opened while a change without a fence was under way")
		default:
		}
		if w.guard("/f"); w.calls != 0 {
			w.Error("the state was asked too early")
		}
		release()
		s := <-opened
		if got := w.lease(s, "/f"); got != length || w.allowed.Length != length {
			w.Errorf("granted %s, the state allows %+v", got, w.allowed)
		}
	})
}

// A new leader waits out what earlier ones may have granted.
func TestANewLeaderWaits(t *testing.T) {
	t.Parallel()
	inBubble(t, leases.Options{}, func(w *world) {
		s := w.open(freshet.LeaseID{})
		w.lease(s, "/f")
		waiting := make(chan error)
		go func() {
			_, err := w.Guard(w.Context(), 1, func() []freshet.Path { return []freshet.Path{"/f"} })
			waiting <- err
		}()
		synctest.Wait()
		w.Leave()
		if err := <-waiting; !freshet.IsKind(err, freshet.KindNotLeader) {
			w.Errorf("who waited in the old term: %v", err)
		}
		if _, err := w.Guard(w.Context(), 1, nil); !freshet.IsKind(err, freshet.KindNotLeader) {
			w.Errorf("a change without a term: %v", err)
		}
		w.Enter(2, leases.Allowed{Length: length})
		w.Enter(1, leases.Allowed{})       // by somebody who is late
		time.Sleep(100 * time.Millisecond) // fake time
		start := time.Now()
		release, err := w.Guard(w.Context(), 2, func() []freshet.Path { return []freshet.Path{"/g"} })
		if took := time.Since(start); err != nil || took != freshet.AwaitFor(length)-100*time.Millisecond {
			w.Fatalf("the first change waited %s: %v", took, err)
		}
		release()
		if got := w.lease(s, "/f"); got != 0 {
			w.Errorf("a session of the old term was granted %s", got)
		}
		if err := w.Rest(w.Context(), w.allow); err != nil || w.allowed.Length != 0 {
			w.Errorf("nobody keeps anything, and the state allows %+v: %v", w.allowed, err)
		}
		release, err = w.Guard(w.Context(), 2, func() []freshet.Path { w.Error("asked for lines"); return nil })
		if err != nil {
			w.Fatal(err)
		}
		release()
	})
}

// The end is not told to the state while anything is kept, or anybody may ask.
func TestRestWaitsForTheLast(t *testing.T) {
	t.Parallel()
	inBubble(t, leases.Options{}, func(w *world) {
		s := w.open(freshet.LeaseID{})
		w.lease(s, "/f")
		rest := func() time.Duration {
			if err := w.Rest(w.Context(), w.allow); err != nil {
				w.Fatal(err)
			}
			return w.allowed.Length
		}
		if rest() == 0 {
			w.Error("there is a session")
		}
		s.Close()
		if rest() == 0 {
			w.Error("there is a lease")
		}
		time.Sleep(freshet.AwaitFor(length)) // fake time
		if rest() != 0 {
			w.Error("there is nothing any more")
		}
		// It fails: nothing is granted, and it is begun anew.
		s = w.open(freshet.LeaseID{})
		s.Close()
		if err := w.Rest(w.Context(), func(context.Context, leases.Allowed) error { return errors.New("lost") }); err == nil {
			w.Error("the failure was not told")
		}
		w.allowed = leases.Allowed{} // it may have been done all the same
		if got := w.lease(w.open(freshet.LeaseID{}), "/f"); got != length || w.allowed.Length != length {
			w.Errorf("granted %s, the state allows %+v", got, w.allowed)
		}
	})
}

// A client that comes back and keeps nothing is not waited for.
func TestASuccessorEndsTheWait(t *testing.T) {
	t.Parallel()
	inBubble(t, leases.Options{}, func(w *world) {
		s := w.open(freshet.LeaseID{})
		w.lease(s, "/f")
		s.Close()
		waited := make(chan time.Duration)
		go func() { waited <- w.guard("/f") }()
		time.Sleep(300 * time.Millisecond) // fake time
		again := w.open(s.ID())
		if took := <-waited; took != 300*time.Millisecond {
			w.Errorf("the change waited %s", took)
		}
		if again.ID() == s.ID() || w.lease(s, "/f") != 0 || w.lease(again, "/f") != length {
			w.Error("the old session goes on, or the new one does not begin")
		}
	})
}

func TestBounds(t *testing.T) {
	t.Parallel()
	inBubble(t, leases.Options{Max: 3}, func(w *world) {
		s := w.open(freshet.LeaseID{})
		for i := range 5 {
			if got := w.lease(s, freshet.Path(fmt.Sprint("/f", i))); (got == length) != (i < 3) {
				w.Errorf("lease %d: %s", i, got)
			}
		}
		if got := w.lease(s, "/f1"); got != length {
			w.Errorf("what is out is not renewed: %s", got)
		}
		time.Sleep(freshet.AwaitFor(length)) // fake time
		if got := w.Ask(s.ID(), "/f5").Grant(time.Second); got != time.Second {
			w.Errorf("room was made for %s", got)
		}
		if got := w.Ask(s.ID(), "/f6").Grant(time.Millisecond); got != 0 {
			w.Errorf("a lease of a millisecond: %s", got)
		}
		if err := s.Ack(1); !freshet.IsKind(err, freshet.KindInvalid) {
			w.Errorf("an acknowledgement of what was not told: %v", err)
		}
		w.Ask(s.ID(), "/f7").Drop()
		w.Ask(freshet.LeaseID{1}, "/f7").Drop() // nobody's
		if _, n := w.Counts(); n != 1 {
			w.Errorf("%d leases are out", n)
		}
	})
	if _, err := leases.New(leases.Options{}).Open(t.Context(), freshet.LeaseID{}, nil); !freshet.IsKind(err, freshet.KindUnsupported) {
		t.Errorf("leases are off: %v", err)
	}
}

// A mark that no fence covers is called back all the same, and counted.
func TestALateBreakIsCounted(t *testing.T) {
	t.Parallel()
	inBubble(t, leases.Options{}, func(w *world) {
		s := w.open(freshet.LeaseID{})
		w.lease(s, "/d/f")
		release, err := w.Guard(w.Context(), 1, func() []freshet.Path { return []freshet.Path{"/e"} })
		if err != nil {
			w.Fatal(err)
		}
		mark := func(p freshet.Path) { w.Applied(func(yield func(freshet.Path) bool) { yield(p) }) }
		mark("/e/x")
		mark("/c")
		if n := w.metric("freshet_lease_late_breaks_total"); n != 0 {
			w.Errorf("%v breaks were late", n)
		}
		mark("/d")
		b, err := s.Next(w.Context())
		if n := w.metric("freshet_lease_late_breaks_total"); n != 1 || err != nil || len(b.Paths) != 1 || b.Paths[0] != "/d" {
			w.Errorf("%v breaks were late; told %v, %v", n, b, err)
		}
		release()
	})
}

func TestWaitsEndWithTheirContext(t *testing.T) {
	t.Parallel()
	inBubble(t, leases.Options{}, func(w *world) {
		s := w.open(freshet.LeaseID{})
		w.lease(s, "/f")
		ctx, cancel := context.WithTimeout(w.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := w.Guard(ctx, 1, func() []freshet.Path { return []freshet.Path{"/f"} }); !freshet.IsKind(err, freshet.KindDeadline) {
			w.Errorf("the change: %v", err)
		}
		if _, err := s.Next(ctx); err != nil {
			w.Errorf("what is to be dropped comes first: %v", err)
		}
		if _, err := s.Next(ctx); !freshet.IsKind(err, freshet.KindDeadline) {
			w.Errorf("the session: %v", err)
		}
		if got := w.lease(s, "/f"); got != length { // the change was given up
			w.Errorf("granted %s after the change was given up", got)
		}
	})
}

// Who says that nothing is kept any more is waited for no more.
func TestASessionThatEndsInOrder(t *testing.T) {
	t.Parallel()
	inBubble(t, leases.Options{}, func(w *world) {
		s := w.open(freshet.LeaseID{})
		w.lease(s, "/a/f")
		time.AfterFunc(300*time.Millisecond, s.End)
		if took := w.guard("/a/f"); took != 300*time.Millisecond {
			w.Errorf("the change waited %s", took)
		}
		if d := w.lease(s, "/a/f"); d != 0 {
			w.Errorf("a session that ended is granted %s", d)
		}
		s.End()
		s.Close()
		if err := w.Rest(w.Context(), w.allow); err != nil || w.allowed.Length != 0 {
			w.Errorf("nobody keeps anything, but the state allows %+v: %v", w.allowed, err)
		}
		s = w.open(freshet.LeaseID{})
		w.lease(s, "/a/f")
		s.End()
		if took := w.guard("/a/f"); took != 0 {
			w.Errorf("the change waited %s", took)
		}
	})
}

// A new leader waits for those whom the state names only, and no longer than until all of
// them have said that they keep nothing.
func TestANewLeaderWaitsForWhoIsNamed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sessions, come int
		want           time.Duration
	}{
		"none came":   {2, 0, freshet.AwaitFor(length)},
		"one came":    {2, 1, freshet.AwaitFor(length)},
		"both came":   {2, 2, 200 * time.Millisecond},
		"a crowd":     {40, 40, freshet.AwaitFor(length)}, // the state does not name so many
		"a full list": {32, 32, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, leases.Options{}, func(w *world) {
				var old []*leases.Session
				for range c.sessions {
					s := w.open(freshet.LeaseID{})
					w.lease(s, "/f")
					old = append(old, s)
				}
				if w.calls > 33 {
					w.Errorf("the state was changed %d times", w.calls)
				}
				w.Leave()
				w.Enter(2, w.allowed)
				start := time.Now()
				took := make(chan time.Duration)
				go func() {
					release, err := w.Guard(w.Context(), 2, func() []freshet.Path { return []freshet.Path{"/f"} })
					if err != nil {
						w.Error(err)
					}
					release()
					took <- time.Since(start)
				}()
				for _, s := range old[:c.come] {
					time.Sleep(200 * time.Millisecond / time.Duration(c.come)) // fake time
					w.open(s.ID())
				}
				if got := <-took; got != c.want {
					w.Errorf("the first change waited %s, want %s", got, c.want)
				}
			})
		})
	}
}

// What the state names shrinks with the sessions.
func TestTheStateNamesWhoHasASession(t *testing.T) {
	t.Parallel()
	inBubble(t, leases.Options{}, func(w *world) {
		var all []*leases.Session
		want := func(calls int, sessions ...*leases.Session) {
			w.Helper()
			ok := len(sessions) == len(w.allowed.Holders) && calls == w.calls
			for _, s := range sessions {
				ok = ok && slices.Contains(w.allowed.Holders, s.ID())
			}
			if !ok {
				w.Errorf("after %d changes of the state it names %s, want %d of %d", w.calls, w.allowed.Holders, len(sessions), calls)
			}
		}
		for range 3 {
			all = append(all, w.open(freshet.LeaseID{}))
		}
		want(3, all...)
		all[0].End()
		w.lease(all[1], "/f")
		all[1].Close()
		for range 2 {
			if err := w.Rest(w.Context(), w.allow); err != nil {
				w.Fatal(err)
			}
			want(4, all[1:]...) // of one an answer is kept
		}
		w.Leave()
		w.Enter(2, w.allowed)
		next := w.open(all[2].ID())
		want(5, all[1], next)
		time.Sleep(freshet.AwaitFor(length)) // fake time
		if err := w.Rest(w.Context(), w.allow); err != nil {
			w.Fatal(err)
		}
		want(6, next)
	})
}
