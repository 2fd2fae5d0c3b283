package activesync

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/run"
)

var (
	errDeaf  = errors.New("the source said nothing for longer than it should")
	errEnded = errors.New("the watch ended without a reason")
)

// source is one watch with all that is known of it.
type source struct {
	e      *Engine
	mount  freshet.Mount // whose storage is watched
	kind   string
	w      watcher
	cancel context.CancelFunc
	done   chan struct{}

	// Read at each look at an entry.
	ok   atomic.Bool
	last atomic.Int64 // Elapsed at the last word
	busy atomic.Bool  // a notice is being applied
	// covers has the generations of the mounts of which everything that happened
	// before they were listened for is marked. It is replaced, never changed.
	covers atomic.Pointer[[]uint64]
	// unfit says, by generation, why the storage of a mount does not tell the source.
	unfit atomic.Pointer[map[uint64]string]
	// anew says that the next watch must not go on from the cursor: its storage did
	// not tell the source, and nobody knows since when. Only run and below use it.
	anew bool

	mu    sync.Mutex
	users []user // replaced, never changed
	// missed counts, by generation, how often the storage of a mount was found not to
	// tell the source; it is dropped when all of the mount was marked after that.
	missed map[uint64]int
	since  time.Time // it is heard, or not heard, since then
	ever   bool      // a notice came
	why    string    // why it is not heard
	lag    time.Duration
	failed string // the last failure
}

func newSource(e *Engine, m freshet.Mount, kind string, w watcher) *source {
	s := &source{
		e: e, mount: m, kind: kind, w: w, done: make(chan struct{}),
		missed: map[uint64]int{}, since: e.clock.Now(), why: "this leader has just begun to listen", lag: -1,
	}
	s.covers.Store(&[]uint64{})
	return s
}

// same reports whether what runs is what is wanted.
func (s *source) same(o *source) bool {
	return s.mount.ID == o.mount.ID && s.mount.Generation == o.mount.Generation && s.w.about == o.w.about
}

func (s *source) release() { s.w.release() }

// serve sets the mounts that listen.
func (s *source) serve(users []user) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users = users
}

func (s *source) served() []user {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.users
}

func (s *source) start(ctx context.Context, g *run.Group) {
	ctx, s.cancel = context.WithCancel(ctx)
	g.Go("listen to "+s.w.about.ID, func(context.Context) error {
		defer close(s.done)
		defer s.release()
		s.run(ctx)
		return nil
	})
}

// stop ends the watch and waits for its end.
func (s *source) stop() {
	s.cancel()
	<-s.done
}

// run watches, again and again, until ctx ends.
func (s *source) run(ctx context.Context) {
	wait := s.e.opts.First
	for {
		notices, err := s.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		s.lose(err)
		if freshet.IsKind(err, freshet.KindInvalid) { // it is not set up so that it would tell
			s.anew = true
			s.e.drop(ctx, s.w.about.ID)
		}
		s.e.metrics.restarts.WithLabelValues(s.kind).Inc()
		s.e.log.Warn("a storage's notices of changes are not heard: its mounts are degraded", "source", s.w.about.ID, "error", err)
		if notices > 1 { // more than a greeting: it gets on
			wait = s.e.opts.First
		}
		jitter := wait/2 + rand.N(wait) //nolint:gosec // only to spread the load
		select {
		case <-s.e.clock.After(jitter):
		case <-ctx.Done():
			return
		}
		wait = min(2*wait, s.e.opts.Most)
	}
}

// watch is one watch, from the replicated cursor to its end. It returns how many
// notices were applied.
func (s *source) watch(ctx context.Context) (notices int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	at := newWatching(s)
	s.last.Store(int64(at.began))
	var watchdog sync.WaitGroup
	watchdog.Go(func() {
		s.silence(ctx, func() {
			s.lose(errDeaf) // at once, however long the watch takes to end
			cancel(errDeaf)
		})
	})
	defer watchdog.Wait()
	defer cancel(nil)
	for n, err := range s.w.Watch(ctx, at.since) {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			s.busy.Store(true)
			s.last.Store(int64(s.e.clock.Elapsed()))
			err = at.take(ctx, n)
			s.last.Store(int64(s.e.clock.Elapsed()))
			s.busy.Store(false)
		}
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return at.notices, cause
			}
			return at.notices, err
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return at.notices, cause
	}
	return at.notices, errEnded
}

// silence ends a watch that says nothing.
func (s *source) silence(ctx context.Context, end func()) {
	for wait := s.e.opts.Silence; ; {
		timer := s.e.clock.NewTimer(wait)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return
		}
		idle := s.e.clock.Elapsed() - time.Duration(s.last.Load())
		switch {
		case s.busy.Load():
			wait = s.e.opts.Silence // it waits for us, not we for it
		case idle >= s.e.opts.Silence:
			end()
			return
		default:
			wait = s.e.opts.Silence - idle
		}
	}
}

// hear notes that the source said something; caught says that nothing before it
// is missing.
func (s *source) hear(caught bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ever = true
	switch {
	case !caught:
		s.why = "what happened meanwhile is still being told"
	case !s.ok.Load():
		s.since, s.why = s.e.clock.Now(), ""
		s.ok.Store(true)
		s.e.log.Info("a storage's notices of changes are heard", "source", s.w.about.ID, "complete", s.w.about.Complete)
	}
}

// lose notes that the source is not heard.
func (s *source) lose(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ok.Swap(false) {
		s.since = s.e.clock.Now()
	}
	s.why, s.failed = err.Error(), err.Error()
}

// heard reports whether the source is heard by the mount of a generation.
func (s *source) heard(generation uint64) bool {
	if !s.ok.Load() || s.e.clock.Elapsed()-time.Duration(s.last.Load()) >= s.e.opts.Silence {
		return false
	}
	covers := s.covers.Load()
	return covers != nil && slices.Contains(*covers, generation)
}

// judge notes what is wrong with the source for the mount of a generation, "" if
// nothing is. What was wrong once may have lost changes: the mount is not covered
// before all of it is marked.
func (s *source) judge(generation uint64, wrong string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[uint64]string{}
	if old := s.unfit.Load(); old != nil {
		next = maps.Clone(*old)
	}
	if next[generation] != wrong && wrong != "" {
		s.e.log.Warn("a storage does not tell the source that its mount listens to", "source", s.w.about.ID, "reason", wrong)
	}
	next[generation] = wrong
	s.unfit.Store(&next)
	if wrong != "" {
		s.missed[generation]++
		s.cover(*s.covers.Load())
	}
}

// cover sets the mounts that are covered, without those that missed changes. It is
// called with the lock held.
func (s *source) cover(generations []uint64) {
	covered := slices.DeleteFunc(slices.Clone(generations), func(g uint64) bool { return s.missed[g] > 0 })
	s.covers.Store(&covered)
}

// misses returns how often each mount was found to miss changes.
func (s *source) misses() map[uint64]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.missed)
}

// covered notes that generations are covered, by marks made after misses.
func (s *source) covered(generations []uint64, misses map[uint64]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range generations {
		if s.missed[g] == misses[g] {
			delete(s.missed, g)
		}
	}
	s.cover(generations)
}

func (s *source) wrong(generation uint64) string {
	if all := s.unfit.Load(); all != nil {
		return (*all)[generation]
	}
	return ""
}

// sourceEar is how a mount hears a source.
type sourceEar struct {
	*source

	user user
}

func (e sourceEar) of() uint64 { return e.user.Generation }

func (e sourceEar) heard() (complete, ok bool) {
	return e.w.about.Complete, e.source.wrong(e.user.Generation) == "" && e.source.heard(e.user.Generation)
}

func (e sourceEar) status() freshet.ActiveSyncStatus {
	s := e.source
	complete, ok := e.heard()
	wrong := s.wrong(e.user.Generation)
	s.mu.Lock()
	defer s.mu.Unlock()
	st := freshet.ActiveSyncStatus{Source: s.w.about.ID, Complete: complete, Heard: ok, SinceNotice: -1, Lag: s.lag, LastError: s.failed}
	if s.ever {
		st.SinceNotice = s.e.clock.Elapsed() - time.Duration(s.last.Load())
	}
	st.Connecting = !ok && wrong == "" && s.failed == "" && (!s.ok.Load() || st.SinceNotice < s.e.opts.Silence)
	switch {
	case ok:
		st.HeardSince = s.since.UTC()
	case wrong != "":
		st.Reason = "not heard: " + wrong
	case s.why != "":
		st.Reason = fmt.Sprintf("not heard since %s: %s", s.since.UTC().Format(time.RFC3339), s.why)
	case s.ok.Load() && st.SinceNotice < s.e.opts.Silence:
		st.Reason = "not heard yet: the mount listens from the next notice on"
	default:
		st.Reason = fmt.Sprintf("not heard for %s: %s", st.SinceNotice.Round(time.Second), errDeaf)
	}
	return st
}
