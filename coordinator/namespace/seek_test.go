package namespace_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// counting is a store that counts the rows that scans visit.
type counting struct {
	kv.Store

	rows atomic.Int64
}

// Scan implements kv.Reader.
func (c *counting) Scan(start, end []byte, fn func(key, value []byte) bool) error {
	return c.Store.Scan(start, end, func(key, value []byte) bool {
		c.rows.Add(1)
		return fn(key, value)
	})
}

func TestAPageOfAHugeDirectoryReadsNoMoreRowsThanItGives(t *testing.T) {
	const entries, page = 200_000, 5000
	store := &counting{Store: kv.NewMemory()}
	c := &cluster{t: t, s: open(t, store)}
	c.found(mountOf("/m", "/"))
	mounts, _ := c.s.Mounts()
	for from := 0; from < entries; from += page {
		start := c.s.Applied()
		cmd := &namespace.LoadListing{Mount: mounts[0].ID, Generation: mounts[0].Generation, Dir: "/m", Start: start, ListStart: start}
		for i := range page {
			cmd.Upserts = append(cmd.Upserts, *fileEntry(fmt.Sprintf("f%06d", from+i), 1))
		}
		c.must(namespace.Command{LoadListing: cmd})
	}
	for _, after := range []string{"", "f000500", "f1", "f199000", "f19999\xff"} {
		for _, limit := range []int{1, 100, 1000} {
			before := store.rows.Load()
			got, err := c.s.List("/m", after, limit)
			if err != nil || len(got) > limit {
				t.Fatalf("after %q: %d entries, %v", after, len(got), err)
			}
			if n := store.rows.Load() - before; n != int64(len(got)) {
				t.Errorf("after %q, limit %d: %d rows were read for %d entries", after, limit, n, len(got))
			}
		}
	}
}
