// Package pebblekv implements coordinator/kv on pebble, without a write-ahead
// log: the Raft log is the log. It never decides what is stored.
package pebblekv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/freshet-io/freshet/coordinator/kv"
)

// Options are the settings of a store; the zero value is usable.
type Options struct {
	// CacheBytes bounds the memory of the block cache and the tables of recent
	// changes together: what these take the cache goes without. 0 is 64 MiB.
	CacheBytes int64
	// MemTableBytes is the size of one table of recent changes, of which up to three
	// exist; 0 is a quarter of CacheBytes, at most 16 MiB.
	MemTableBytes int64
	Logger        *slog.Logger // of pebble's own messages; nil drops them
	FS            vfs.FS       // nil is the machine's
}

const (
	defaultCache = 64 << 20
	maxMemTable  = 16 << 20
	minMemTable  = 64 << 10
	memTables    = 3
	// memTableShare is the part of the memory that one table takes by default.
	memTableShare = 4
)

// Store is a kv.Store in a directory.
type Store struct {
	db     *pebble.DB
	cache  *pebble.Cache
	closed atomic.Bool
}

// Open opens or creates the store in dir.
func Open(dir string, opts Options) (*Store, error) {
	if opts.CacheBytes <= 0 {
		opts.CacheBytes = defaultCache
	}
	if opts.MemTableBytes <= 0 {
		opts.MemTableBytes = min(max(opts.CacheBytes/memTableShare, minMemTable), maxMemTable)
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.FS == nil {
		opts.FS = vfs.Default
	}
	cache := pebble.NewCache(opts.CacheBytes)
	o := &pebble.Options{
		FS:                          opts.FS,
		Cache:                       cache,
		DisableWAL:                  true,
		MemTableSize:                uint64(opts.MemTableBytes),
		MemTableStopWritesThreshold: memTables,
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      logger{opts.Logger},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(dir, o)
	if err != nil {
		cache.Unref()
		return nil, fmt.Errorf("open pebble in %s: %w", dir, err)
	}
	return &Store{db: db, cache: cache}, nil
}

// Get implements kv.Reader.
func (s *Store) Get(key []byte) ([]byte, bool, error) {
	if s.closed.Load() {
		return nil, false, kv.ErrClosed
	}
	return get(s.db, key)
}

// Scan implements kv.Reader.
func (s *Store) Scan(start, end []byte, fn func(key, value []byte) bool) error {
	if s.closed.Load() {
		return kv.ErrClosed
	}
	return scan(s.db, start, end, fn)
}

// View implements kv.Store.
func (s *Store) View() (kv.View, error) {
	if s.closed.Load() {
		return nil, kv.ErrClosed
	}
	return view{s.db.NewSnapshot()}, nil
}

// NewBatch implements kv.Store.
func (s *Store) NewBatch() kv.Batch { return &batch{b: s.db.NewIndexedBatch()} }

// Flush implements kv.Store.
func (s *Store) Flush() error {
	if s.closed.Load() {
		return kv.ErrClosed
	}
	return s.db.Flush()
}

// Compact rewrites the whole store, for measurements.
func (s *Store) Compact(ctx context.Context, start, end []byte) error {
	return s.db.Compact(ctx, start, end, true)
}

// Metrics implements kv.Store.
func (s *Store) Metrics() kv.Metrics {
	if s.closed.Load() {
		return kv.Metrics{}
	}
	m := s.db.Metrics()
	return kv.Metrics{
		DiskBytes:     int64(m.DiskSpaceUsage()),
		ObsoleteBytes: int64(m.Table.ObsoleteSize + m.Table.ZombieSize),
		MemoryBytes:   m.BlockCache.Size + int64(m.MemTable.Size+m.MemTable.ZombieSize),
		CacheHits:     m.BlockCache.Hits,
		CacheMisses:   m.BlockCache.Misses,
		Compactions:   m.Compact.Count,
		Flushes:       m.Flush.Count,
		ReadAmplified: m.ReadAmp(),
	}
}

// Close implements kv.Store. It does not flush: whoever wants a fast next start
// flushes before. No other method may be running.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return kv.ErrClosed
	}
	err := s.db.Close()
	s.cache.Unref()
	return err
}

type view struct{ *pebble.Snapshot }

func (v view) Get(key []byte) ([]byte, bool, error) { return get(v.Snapshot, key) }

func (v view) Scan(start, end []byte, fn func(key, value []byte) bool) error {
	return scan(v.Snapshot, start, end, fn)
}

type batch struct{ b *pebble.Batch }

func (b *batch) Get(key []byte) ([]byte, bool, error) {
	if b.b == nil {
		return nil, false, kv.ErrClosed
	}
	return get(b.b, key)
}

func (b *batch) Scan(start, end []byte, fn func(key, value []byte) bool) error {
	if b.b == nil {
		return kv.ErrClosed
	}
	return scan(b.b, start, end, fn)
}

func (b *batch) Set(key, value []byte) error {
	if b.b == nil {
		return kv.ErrClosed
	}
	return b.b.Set(key, value, nil)
}

func (b *batch) Delete(key []byte) error {
	if b.b == nil {
		return kv.ErrClosed
	}
	return b.b.Delete(key, nil)
}

func (b *batch) DeleteRange(start, end []byte) error {
	if b.b == nil {
		return kv.ErrClosed
	}
	return b.b.DeleteRange(start, end, nil)
}

func (b *batch) Commit() error {
	if b.b == nil {
		return kv.ErrClosed
	}
	err := b.b.Commit(pebble.NoSync)
	return errors.Join(err, b.Close())
}

func (b *batch) Close() error {
	if b.b == nil {
		return nil
	}
	err := b.b.Close()
	b.b = nil
	return err
}

func get(r pebble.Reader, key []byte) ([]byte, bool, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	v = bytes.Clone(v)
	if v == nil {
		v = []byte{}
	}
	return v, true, closer.Close()
}

func scan(r pebble.Reader, start, end []byte, fn func(key, value []byte) bool) error {
	if len(start) == 0 {
		start = nil // an empty bound that is none trips pebble's own checks under the race detector
	}
	if len(end) == 0 {
		end = nil
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end})
	if err != nil {
		return err
	}
	for it.First(); it.Valid(); it.Next() {
		if !fn(it.Key(), it.Value()) {
			break
		}
	}
	return errors.Join(it.Error(), it.Close())
}

// logger passes pebble's messages on. Pebble calls Fatalf when it can't go on;
// the state machine must not either.
type logger struct{ log *slog.Logger }

func (l logger) Infof(format string, args ...any) {
	l.log.Debug("pebble says", "message", fmt.Sprintf(format, args...))
}

func (l logger) Errorf(format string, args ...any) {
	l.log.Error("pebble reports an error", "message", fmt.Sprintf(format, args...))
}

func (l logger) Fatalf(format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	l.log.Error("pebble can't go on", "message", msg)
	panic("pebble: " + msg)
}
