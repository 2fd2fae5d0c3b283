package busrpc_test

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The tests wait for sockets and timeouts, they hardly compute: more than there
	// are processors may run at once, though not so many that members of theirs
	// starve on a busy machine.
	if err := flag.Set("test.parallel", "4"); err != nil {
		os.Exit(2)
	}
	goleak.VerifyTestMain(m)
}
