package ufs

import (
	"context"
	"errors"
)

var (
	// ErrNotSent in the chain of a change's error says that the storage was not
	// asked for the effect, or refused it for good: no connection could be made, a
	// question before it failed. Whatever the Kind, nothing of it can land any more.
	// Drivers add it only where that is certain; ask with errors.Is.
	ErrNotSent = errors.New("the storage was not asked")

	// ErrNoRoot in the chain of an error says that the storage answers and has not
	// got what the mount is of: its bucket, container or file system. The Kind is
	// KindUnavailable all the same, for that says nothing about files; only Probe
	// makes it KindNotExist, for whoever adds the mount.
	ErrNoRoot = errors.New("what the mount is of does not exist in the storage")

	// ErrRepeated in the chain of an error says that it was the answer to as many
	// repetitions as the storage's budget allows: who repeats it once more only
	// multiplies the load of an outage.
	ErrRepeated = errors.New("repeated in vain")
)

// NotSent returns err with ErrNotSent in its chain and its text as it is.
func NotSent(err error) error { return &notSentError{err} }

type notSentError struct{ err error }

func (e *notSentError) Error() string   { return e.err.Error() }
func (e *notSentError) Unwrap() []error { return []error{e.err, ErrNotSent} }

type repeatedKey struct{}

// WithRepetition tells whoever gets the context that its caller repeats the call
// when it fails for a passing reason, so that the layers below send each request
// once and an outage does not multiply the load by each of them.
func WithRepetition(ctx context.Context) context.Context {
	if Repeated(ctx) {
		return ctx
	}
	return context.WithValue(ctx, repeatedKey{}, true)
}

// Repeated reports whether a caller repeats what is done with ctx.
func Repeated(ctx context.Context) bool {
	yes, _ := ctx.Value(repeatedKey{}).(bool)
	return yes
}
