package client_test

import (
	"context"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
)

// BenchmarkOpenUnderALease is what a read costs before its first byte where the answer of
// the coordinator is kept.
func BenchmarkOpenUnderALease(b *testing.B) {
	l := &leader{version: 1}
	kept := client.NewLeases(l, client.LeaseOptions{})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- kept.Run(ctx) }()
	c := client.New(l, nil, client.Options{Leases: kept})
	for until := time.Now().Add(time.Minute); !kept.Holds(); {
		if _, err := c.Locate(ctx, freshet.LocateQuery{Path: "/f", Length: -1}); err != nil || time.Now().After(until) {
			b.Fatal("no session", err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		r, err := c.Open(ctx, "/f", client.Whole())
		if err != nil {
			b.Fatal(err)
		}
		_ = r.Close() // nothing was read
	}
	b.StopTimer()
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
