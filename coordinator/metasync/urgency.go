package metasync

import (
	"context"
	"sync"
	"sync/atomic"
)

// urgency is the class of a piece of work, which rises when somebody of a higher
// class comes to wait for it too. A nil one is of the highest class.
type urgency struct {
	class   atomic.Uint32
	mu      sync.Mutex
	waiting map[*waiter]*Slots
}

type urgencyKey struct{}

func newUrgency(c Class) *urgency {
	u := &urgency{}
	u.class.Store(uint32(min(c, ClassOnDemand)))
	return u
}

// WithClass returns a context whose questions to storages have that class.
func WithClass(ctx context.Context, c Class) context.Context {
	return withUrgency(ctx, newUrgency(c))
}

func withUrgency(ctx context.Context, u *urgency) context.Context {
	return context.WithValue(ctx, urgencyKey{}, u)
}

// ClassOf returns the class of a context.
func ClassOf(ctx context.Context) Class { return urgencyOf(ctx).read() }

func urgencyOf(ctx context.Context) *urgency {
	u, _ := ctx.Value(urgencyKey{}).(*urgency)
	return u
}

func (u *urgency) read() Class {
	if u == nil {
		return ClassOnDemand
	}
	return Class(u.class.Load()) //nolint:gosec // it was a Class
}

// raise makes the work as urgent as class, what waits of it too.
func (u *urgency) raise(class Class) {
	if class <= u.read() {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if class <= u.read() {
		return
	}
	u.class.Store(uint32(class))
	for w, s := range u.waiting {
		s.raise(w, class)
	}
}

// watch lets w rise with u until the function that it returns is called.
func (u *urgency) watch(s *Slots, w *waiter) func() {
	if u == nil {
		return func() {}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	s.raise(w, u.read()) // it may have risen since w got its class
	if u.waiting == nil {
		u.waiting = map[*waiter]*Slots{}
	}
	u.waiting[w] = s
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.waiting, w)
	}
}
