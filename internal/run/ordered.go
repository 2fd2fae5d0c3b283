package run

import (
	"context"
	"slices"
)

// Part is one long-running part of a process.
type Part struct {
	// Name appears in the part's error.
	Name string
	// Run works until its context ends and returns after all it started has
	// ended.
	Run func(ctx context.Context) error
}

// Ordered runs the parts together, and stops them in order: when ctx ends, or
// when a part returns, the last part's context ends first; only when that part
// has returned does the one before it get its turn. So a part may use the parts
// named before it until its own last moment: list the store before the service,
// the service before its listener.
//
// Ordered returns the first error, nil if ctx ended and all parts followed. A
// part that returns nil before it was told to stop also stops the others: what
// stands above it can't work without it. A panic becomes a *PanicError.
func Ordered(ctx context.Context, parts ...Part) error {
	lasting := context.WithoutCancel(ctx) // a part's context ends when its turn comes, not with ctx
	group := NewGroup(lasting)
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	running := make([]runningPart, len(parts))
	for i, part := range parts {
		running[i] = startPart(lasting, group, cancel, part)
	}
	<-stop.Done()
	for _, part := range slices.Backward(running) {
		part.cancel()
		<-part.done
	}
	return group.Wait()
}

type runningPart struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// startPart runs a part under a context of its own, which is not the group's:
// the failure of another part must not end it out of turn.
func startPart(ctx context.Context, group *Group, stopAll context.CancelFunc, part Part) runningPart {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	group.Go(part.Name, func(context.Context) error {
		defer close(done)
		defer stopAll()
		err := call(ctx, part.Name, part.Run)
		if err != nil && endedBy(ctx, err) {
			return nil
		}
		return err
	})
	return runningPart{cancel: cancel, done: done}
}
