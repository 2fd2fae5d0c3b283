package run

import "context"

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
	group := NewGroup(context.WithoutCancel(ctx))
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	running := make([]runningPart, len(parts))
	for i, part := range parts {
		running[i] = startPart(group, cancel, part)
	}
	<-stop.Done()
	for i := len(running) - 1; i >= 0; i-- {
		running[i].cancel()
		<-running[i].done
	}
	return group.Wait()
}

type runningPart struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// startPart runs a part under a context of its own, which the failure of
// another part does not end: Ordered ends it when its turn comes.
func startPart(group *Group, stopAll context.CancelFunc, part Part) runningPart {
	ctx, cancel := context.WithCancel(context.WithoutCancel(group.Context()))
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
