// Package unpersisted_test writes files that are acknowledged before they are in the
// storage, and kills, with real processes, whoever has to bring them there.
package unpersisted_test

import (
	"testing"

	"github.com/freshet-io/freshet/test/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }
