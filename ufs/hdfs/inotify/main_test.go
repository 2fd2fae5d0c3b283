package inotify_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/freshet-io/freshet/test/hdfstest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	hdfstest.StopShared()
	if err := goleak.Find(); err != nil && code == 0 {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		code = 1
	}
	os.Exit(code)
}
