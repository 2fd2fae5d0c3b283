// Package state_test tests copies of a region's metadata with real processes: what
// a snapshot costs those who write, and that a restore leads to the truth of the
// storage in every region.
package state_test

import (
	"testing"

	"github.com/freshet-io/freshet/test/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }
