// Package region_test tests one region of real processes over a real S3 server:
// what it costs at the storage, what becomes of writers that die, mounts that come
// and go while it serves, and time-based sync.
package region_test

import (
	"testing"

	"github.com/freshet-io/freshet/test/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }
