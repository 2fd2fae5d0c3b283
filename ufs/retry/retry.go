// Package retry owns the repetition of calls to under-storage that failed for a
// passing reason: an ufs.FS around another one. It repeats only what may be
// repeated without harm, and only KindUnavailable and KindExhausted. It never
// repeats a change of the storage whose outcome is unknown, and never turns an
// error into an absence.
//
// It is the one place where reads are repeated: what it calls is told so by
// ufs.WithRepetition, and what it gave up carries ufs.ErrRepeated. All calls of one
// FS share a quota of repetitions, so that an outage does not multiply the load.
package retry

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// Options bound the repetition. Zero fields have the defaults that are named.
type Options struct {
	// First is the first wait; each further one is longer by half, up to Max,
	// give or take a half. 100 ms and 5 s.
	First, Max time.Duration
	// Tries is the largest number of calls, the first one included. 4.
	Tries uint
	// Budget is the longest time from the first call to the start of the last
	// one. 20 s.
	Budget time.Duration
	// Quota is how many repetitions all calls together may make that were not
	// earned: each two answers of the storage earn one, up to Quota. A call that
	// finds nothing left is made once. 50.
	Quota int
	// Retried, if not nil, is told of each repetition.
	Retried func(op string, err error)
}

func (o Options) withDefaults() Options {
	if o.First <= 0 {
		o.First = 100 * time.Millisecond
	}
	if o.Max <= 0 {
		o.Max = 5 * time.Second
	}
	if o.Tries == 0 {
		o.Tries = 4
	}
	if o.Budget <= 0 {
		o.Budget = 20 * time.Second
	}
	if o.Quota <= 0 {
		o.Quota = 50
	}
	return o
}

// FS repeats calls to the FS below it. What it does not define is passed on once.
type FS struct {
	ufs.FS
	opts  Options
	quota *quota
}

var _ ufs.FS = (*FS)(nil)

// New returns inner with repetition.
func New(inner ufs.FS, opts Options) *FS {
	opts = opts.withDefaults()
	return &FS{FS: inner, opts: opts, quota: newQuota(opts.Quota)}
}

// Unwrap returns the FS below.
func (f *FS) Unwrap() ufs.FS { return f.FS }

// passing reports whether the same call may succeed a little later.
func passing(err error) bool {
	return freshet.IsKind(err, freshet.KindUnavailable, freshet.KindExhausted) &&
		!errors.Is(err, ufs.ErrNoRoot) && !errors.Is(err, ufs.ErrRepeated)
}

// answered reports whether the storage is there: it did what was asked, or said
// that it can't be done.
func answered(err error) bool {
	return err == nil || freshet.IsKind(err, freshet.KindNotExist, freshet.KindExist, freshet.KindPermission,
		freshet.KindStale, freshet.KindConflict, freshet.KindUnsupported, freshet.KindInvalid)
}

// try calls until it works, fails for good, or the bounds are reached: then the
// error is the last one of the storage.
func (f *FS) try(ctx context.Context, op string, call func(context.Context) error) error {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = f.opts.First, f.opts.Max
	inner := ufs.WithRepetition(ctx)
	var last error
	calls := uint(0)
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		last = call(inner)
		calls++
		switch {
		case answered(last):
			f.quota.earn()
		case passing(last) && calls < f.opts.Tries && f.quota.take():
			return struct{}{}, last
		}
		if last != nil {
			return struct{}{}, backoff.Permanent(last)
		}
		return struct{}{}, nil
	}, backoff.WithBackOff(b), backoff.WithMaxTries(f.opts.Tries), backoff.WithMaxElapsedTime(f.opts.Budget),
		backoff.WithNotify(func(err error, _ time.Duration) {
			if f.opts.Retried != nil {
				f.opts.Retried(op, err)
			}
		}))
	if err == nil {
		return nil
	}
	return gaveUp(last) // and not the context's error, which would hide it
}

// gaveUp marks an error that was not got rid of by repetition.
func gaveUp(err error) error {
	own, ok := err.(*freshet.Error) //nolint:errorlint // what a driver returns
	if !ok || !passing(err) {
		return err
	}
	cause := own.Err
	if cause == nil {
		cause = own.Kind
	}
	return &freshet.Error{Op: own.Op, Path: own.Path, Kind: own.Kind, Err: &repeatedError{cause}}
}

// repeatedError is err, and ufs.ErrRepeated.
type repeatedError struct{ err error }

func (e *repeatedError) Error() string   { return e.err.Error() }
func (e *repeatedError) Unwrap() []error { return []error{e.err, ufs.ErrRepeated} }

// Repeated says to whoever answers a client that he must not repeat it either.
func (e *repeatedError) Repeated() bool { return true }

// Stat implements ufs.FS.
func (f *FS) Stat(ctx context.Context, key string) (st ufs.Status, err error) {
	err = f.try(ctx, "stat", func(ctx context.Context) (err error) {
		st, err = f.FS.Stat(ctx, key)
		return err
	})
	return st, err
}

// List implements ufs.FS. After a failure it goes on behind the last entry that
// was yielded, so that a long listing survives a short outage. Tries and Budget
// begin anew whenever an entry was yielded.
func (f *FS) List(ctx context.Context, dir string, opts ufs.ListOptions) iter.Seq2[ufs.Status, error] {
	return func(yield func(ufs.Status, error) bool) {
		if opts.Position == nil {
			opts.Position = new(ufs.Position)
		}
		for {
			more, stopped := false, false
			err := f.try(ctx, "list", func(ctx context.Context) error {
				for st, err := range f.FS.List(ctx, dir, opts) {
					if err != nil {
						if more && passing(err) {
							return errGoOn
						}
						return err
					}
					more, opts.StartAfter = true, st.SortKey()
					if !yield(st, nil) {
						stopped = true
						return nil
					}
				}
				return nil
			})
			if errors.Is(err, errGoOn) {
				continue
			}
			if err != nil && !stopped {
				yield(ufs.Status{}, err)
			}
			return
		}
	}
}

// errGoOn ends a round of a listing that got somewhere; it is never passing.
var errGoOn = errors.New("some entries came")

// Open implements ufs.FS. Only the opening is repeated: a stream that breaks is
// for its reader to open again where it broke.
func (f *FS) Open(ctx context.Context, key string, opts ufs.OpenOptions) (r io.ReadCloser, st ufs.Status, err error) {
	err = f.try(ctx, "open", func(ctx context.Context) (err error) {
		r, st, err = f.FS.Open(ctx, key, opts)
		return err
	})
	return r, st, err
}

// AbortUpload implements ufs.FS. Ended is true if any attempt said so: the first
// may have ended the upload and only its answer got lost.
func (f *FS) AbortUpload(ctx context.Context, key string, op freshet.OpID) (ended bool, err error) {
	err = f.try(ctx, "abort upload", func(ctx context.Context) error {
		e, err := f.FS.AbortUpload(ctx, key, op)
		ended = ended || e
		return err
	})
	return ended && err == nil, err
}
