package inotify_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/freshet-io/freshet/test/child"
	"github.com/freshet-io/freshet/test/hdfstest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(child.Main{M: m, Stop: hdfstest.StopShared})
}
