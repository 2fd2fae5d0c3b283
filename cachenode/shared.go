package cachenode

import (
	"context"
	"time"
)

// Shared is a body whose bytes lie in memory that the client shares with the node.
type Shared interface {
	// Next returns the next bytes, valid until the next call, with io.EOF after the
	// last. An idle client is KindUnavailable.
	//
	// The client can change them at any time. So nothing may be made of them twice
	// that must agree, unless what disagrees is found later: a block with the
	// checksum of other bytes is never served.
	Next(ctx context.Context, idle time.Duration) ([]byte, error)
}

// source is where an upload takes its bytes from; see pump.next.
type source interface {
	next(ctx context.Context, last []byte, idle time.Duration) ([]byte, error)
}

// inPlace takes bytes from where the client put them, without a copy of the node's.
type inPlace struct{ from Shared }

func (s inPlace) next(ctx context.Context, _ []byte, idle time.Duration) ([]byte, error) {
	return s.from.Next(ctx, idle)
}
