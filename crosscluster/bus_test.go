package crosscluster_test

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet/crosscluster/bustest"
	"github.com/freshet-io/freshet/crosscluster/membus"
)

// bubble runs a test in fake time over a bus in memory.
func bubble(t *testing.T, seed uint64, fn func(t *testing.T, w *bustest.World)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		net := membus.NewNetwork(seed)
		w := bustest.NewWorld(t, net, membus.Transport{Network: net})
		if os.Getenv("FRESHET_TEST_LOG") != "" {
			w.LogTo(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
		}
		defer w.Close()
		fn(t, w)
	})
}

func TestSuite(t *testing.T) {
	for _, tt := range bustest.Suite() {
		t.Run(tt.Name, func(t *testing.T) { bubble(t, 1, func(_ *testing.T, w *bustest.World) { tt.Run(w) }) })
	}
}

// TestSimulation does random things to three clusters, by seed.
func TestSimulation(t *testing.T) {
	seeds := uint64(24)
	if n, err := strconv.ParseUint(os.Getenv("FRESHET_CHAOS_SEEDS"), 10, 32); err == nil {
		seeds = n
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			bubble(t, seed, func(_ *testing.T, w *bustest.World) { bustest.Simulate(w, seed, 3*time.Minute) })
		})
	}
}
