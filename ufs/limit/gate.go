package limit

import (
	"slices"
	"sync"
)

// gate lets so many through at a time, in the order in which they came. Its zero
// value lets all through.
type gate struct {
	mu      sync.Mutex
	most    int // 0: any number, which are not counted
	inside  int
	waiting []chan struct{}
}

// take lets the caller through, and then says whether it must leave; or returns a
// channel that is closed when it is let through.
func (g *gate) take() (wait chan struct{}, leave bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.most == 0:
		return nil, false
	case g.inside < g.most && len(g.waiting) == 0:
		g.inside++
		return nil, true
	}
	wait = make(chan struct{})
	g.waiting = append(g.waiting, wait)
	return wait, false
}

// leave gives a place back.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	g.admit()
}

// forget takes back a place that is not wanted any more, or the wish for it.
func (g *gate) forget(wait chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.waiting, wait); i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
		return
	}
	g.inside--
	g.admit()
}

// set changes how many are let through.
func (g *gate) set(most int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.most = most
	g.admit()
}

// admit lets through who waits and may. The lock is held.
func (g *gate) admit() {
	for len(g.waiting) > 0 && (g.most == 0 || g.inside < g.most) {
		close(g.waiting[0])
		g.waiting = g.waiting[1:]
		g.inside++
	}
}
