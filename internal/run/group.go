// Package run owns the lifetime of goroutines: groups that end together, and
// parts that are stopped in the reverse of the order in which they were started.
//
// It never decides what to do about a failure: it stops the rest, waits for it,
// and returns the error to whoever started it.
package run

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// Group runs goroutines that belong together. The first one that fails ends
// the context of all, Wait returns its error after every one has ended. A
// function that returns nil just ends; the others go on.
//
// A panic in a function becomes a *PanicError, so that the rest of the process
// can stop in order instead of being torn down with it.
type Group struct {
	ctx    context.Context //nolint:containedctx // the group is the owner of this context: its lifetime is the group's
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	first    error
	cleanups []cleanup
}

type cleanup struct {
	name string
	fn   func() error
}

// errEnded is the cause of a group's context after Wait has returned without an
// error, or after Stop.
var errEnded = errors.New("run: the group was stopped")

// NewGroup returns a group whose context is derived from ctx. It starts nothing.
// Wait must be called once, also when nothing was started.
func NewGroup(ctx context.Context) *Group {
	derived, cancel := context.WithCancelCause(ctx)
	return &Group{ctx: derived, cancel: cancel}
}

// Context returns the context that the group's functions get. It ends with the
// parent's, with the first error, with Stop, or when Wait returns.
func (g *Group) Context() context.Context { return g.ctx }

// Go starts fn in a goroutine. The name appears in its error. Go may be called
// before Wait and by the group's own functions; after Wait has returned it must
// not be called.
func (g *Group) Go(name string, fn func(ctx context.Context) error) {
	g.wg.Go(func() {
		err := ErrExited // stays if fn ends the goroutine without returning
		defer func() {
			if err != nil && !endedBy(g.ctx, err) {
				g.fail(fmt.Errorf("%s: %w", name, err))
			}
		}()
		err = call(g.ctx, name, fn)
	})
}

// Cleanup registers fn to be called by Wait after all goroutines have ended, the
// last registered first. It is for files, sockets and stores that the goroutines
// use. It is safe to call at any time before Wait returns.
func (g *Group) Cleanup(name string, fn func() error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cleanups = append(g.cleanups, cleanup{name: name, fn: fn})
}

// Stop ends the group's context without an error. It does not wait.
func (g *Group) Stop() { g.cancel(errEnded) }

// Wait waits until all goroutines have ended and the cleanups have run. It
// returns the first error of a goroutine, joined with the errors of the cleanups.
// The end of the context is an order, not a failure: the context errors that
// functions return because of it are dropped, so Wait returns nil when the
// parent was cancelled and everything ended in order.
func (g *Group) Wait() error {
	g.wg.Wait()
	g.cancel(errEnded)
	g.mu.Lock()
	errs := []error{g.first}
	g.mu.Unlock()
	for {
		c, ok := g.popCleanup()
		if !ok {
			return errors.Join(errs...)
		}
		if err := call(g.ctx, c.name, func(context.Context) error { return c.fn() }); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
		}
	}
}

// popCleanup takes the cleanup that was registered last. One at a time, because
// a cleanup may register another.
func (g *Group) popCleanup() (cleanup, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	last := len(g.cleanups) - 1
	if last < 0 {
		return cleanup{}, false
	}
	c := g.cleanups[last]
	g.cleanups = g.cleanups[:last]
	return c, true
}

// fail keeps the first error and ends the context with it as the cause.
func (g *Group) fail(err error) {
	g.mu.Lock()
	if g.first == nil {
		g.first = err
	}
	g.mu.Unlock()
	g.cancel(err)
}

// PanicError says that a function panicked.
type PanicError struct {
	// Name is the name under which the function was started.
	Name string
	// Value is what it panicked with.
	Value any
	// Stack is the stack of the goroutine at the panic.
	Stack []byte
}

// Error returns the value and the stack, because a panic is a defect and the
// stack is what finds it.
func (e *PanicError) Error() string {
	return fmt.Sprintf("panic in %s: %v\n%s", e.Name, e.Value, e.Stack)
}

// Unwrap returns the value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// ErrExited says that a function ended its goroutine by runtime.Goexit, as
// t.FailNow does, instead of returning.
var ErrExited = errors.New("the goroutine exited without returning")

// call runs fn and turns a panic into an error.
func call(ctx context.Context, name string, fn func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Name: name, Value: v, Stack: debug.Stack()}
		}
	}()
	return fn(ctx)
}

// endedBy reports whether err only says that ctx has ended.
func endedBy(ctx context.Context, err error) bool {
	if ctx.Err() == nil {
		return false
	}
	return errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))
}
