package namespace_test

import (
	"bytes"
	"sync"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// TestReadersRunBesideApply reads in every way while entries are applied; run it
// with the race detector. A dump made meanwhile is the state at its index.
func TestReadersRunBesideApply(t *testing.T) {
	c := newCluster(t)
	c.listAt("/m", c.i, nil, fileEntry("f", 1), fileEntry("g", 1))
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				l, err := c.s.Lookup("/m/f")
				if err != nil || !l.Found {
					t.Errorf("%+v, %v", l, err)
					return
				}
				children, err := c.s.List("/m", "", 0)
				// f and g change in one entry of the log.
				if err != nil || len(children) != 2 || children[0].Info.Length != children[1].Info.Length {
					t.Errorf("%+v, %v", children, err)
					return
				}
				c.s.FileLive([]freshet.FileID{l.Info.FileID})
				c.s.Stats()
				c.s.Heads()
			}
		})
	}
	wg.Go(func() {
		for range 5 {
			var b bytes.Buffer
			at, err := c.s.Dump(&b)
			copied := open(t, newMemory())
			if err == nil {
				err = copied.Restore(&b)
			}
			if err != nil || copied.Applied() != at {
				t.Errorf("a dump of %d was restored as %d: %v", at, copied.Applied(), err)
			}
		}
	})
	for i := range 300 {
		f, g := opID(2*i+1), opID(2*i+2)
		c.batch(
			namespace.Command{Begin: &namespace.Begin{Op: f, Kind: namespace.OpWrite, Path: "/m/f", At: epochTime}},
			namespace.Command{Begin: &namespace.Begin{Op: g, Kind: namespace.OpWrite, Path: "/m/g", At: epochTime}},
		)
		c.batch(
			namespace.Command{Complete: &namespace.Complete{Op: f, Entry: fileEntry("f", i+2), At: epochTime}},
			namespace.Command{Complete: &namespace.Complete{Op: g, Entry: fileEntry("g", i+2), At: epochTime}},
		)
	}
	close(done)
	wg.Wait()
	c.want("/m/f", true)
	c.wantListing("/m", true)
}
