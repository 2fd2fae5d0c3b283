package coordinator

import (
	"sync"

	"github.com/freshet-io/freshet/coordinator/namespace"
)

// signal wakes everybody who waits, once.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that is closed at the next raise.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) raise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// watch tells of changes of the state. Take the channel first, then read the
// state: no change is missed.
type watch struct {
	jobs signal // of syncs

	heads, mounts, subs, members, identity, trash signal
}

func (w *watch) note(ch namespace.Changes) {
	for _, s := range []struct {
		on bool
		s  *signal
	}{{ch.Heads, &w.heads}, {ch.Mounts || ch.Policies, &w.mounts}, {ch.Subs, &w.subs}, {ch.Members, &w.members}, {ch.Epoch, &w.identity}, {ch.Trash || ch.Quotas, &w.trash}, {ch.Jobs, &w.jobs}} {
		if s.on {
			s.s.raise()
		}
	}
}
