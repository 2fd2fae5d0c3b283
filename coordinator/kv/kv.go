// Package kv owns the contract of the ordered key-value store under the
// replicated state, and an implementation in memory. It never interprets a key
// or a value.
//
// The store is a cache of the Raft log, not a log itself: a committed batch is
// atomic and ordered, but durable only after Flush. After a crash the store is
// at the state that some earlier batch left; whoever writes it puts its own
// position into each batch and repeats what came after.
package kv

import (
	"errors"
	"io"
)

// ErrClosed is returned by the methods of a store that was closed.
var ErrClosed = errors.New("key-value store is closed")

// ErrConflict is returned by Commit if another batch was committed since the
// batch was made: there must be one writer at a time.
var ErrConflict = errors.New("another batch was committed since this one was begun")

// Reader reads keys in byte order.
type Reader interface {
	// Get returns a copy of the value and whether the key is there.
	Get(key []byte) (value []byte, ok bool, err error)
	// Scan calls fn for each key in [start, end) in byte order until fn returns
	// false. An empty end means no bound. The slices are valid only during the
	// call and must not be changed; fn must not write to what is scanned.
	Scan(start, end []byte, fn func(key, value []byte) bool) error
}

// View is the store as it was when the view was made. It is safe for concurrent
// use and must be closed.
type View interface {
	Reader
	io.Closer
}

// Batch collects changes that become visible together at Commit. It reads its
// own changes. It is not safe for concurrent use; the slices given to it may be
// reused after each call.
type Batch interface {
	Reader
	Set(key, value []byte) error
	Delete(key []byte) error
	// DeleteRange deletes the keys in [start, end); end must not be empty.
	DeleteRange(start, end []byte) error
	// Commit applies the batch, which can't be used afterwards.
	Commit() error
	// Close gives up a batch; after Commit it does nothing.
	io.Closer
}

// Metrics are figures of a store, for its operator.
type Metrics struct {
	DiskBytes     int64 // on disk; 0 for a store in memory
	ObsoleteBytes int64 // of these, in files that were replaced and are about to be deleted
	MemoryBytes   int64 // of caches and tables in memory
	CacheHits     int64
	CacheMisses   int64
	Compactions   int64
	Flushes       int64
	ReadAmplified int // sorted runs that a read may have to look into
}

// Store is an ordered key-value store. Reads, views and metrics are safe for
// concurrent use with one writer that makes a batch at a time.
type Store interface {
	Reader
	View() (View, error)
	NewBatch() Batch
	// Flush makes every committed batch durable.
	Flush() error
	Metrics() Metrics
	io.Closer
}
