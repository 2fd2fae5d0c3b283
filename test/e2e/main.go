// Package e2e owns what the end-to-end tests share: regions as real processes
// over a real storage, contents that prove their version, and the comparison of a
// region with the storage. It looks at the product from outside only.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/freshet-io/freshet/test/child"
)

// BinaryEnv names the program under test; without it the program is built.
const BinaryEnv = "FRESHET_BIN"

// Main is what TestMain of every package of end-to-end tests calls: it builds the
// program, once for all packages thanks to Go's own cache, runs the tests and
// looks for goroutines that they left.
func Main(m *testing.M) { MainWith(m) }

// MainWith is Main for tests that share storages; stop ends those.
func MainWith(m *testing.M, stop ...func()) {
	dir, err := prepare()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		_ = os.RemoveAll(dir) // temporary
		os.Exit(1)
	}
	tests := child.Main{M: m, Stop: func() {
		for _, f := range stop {
			f()
		}
	}}
	// Google's client starts a goroutine when it is linked in.
	goleak.VerifyTestMain(tests, goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"), goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir) // temporary
		os.Exit(code)
	}))
}

// prepare makes sure that BinaryEnv names a program, as an absolute path.
func prepare() (dir string, err error) {
	if name := os.Getenv(BinaryEnv); name != "" {
		if name, err = filepath.Abs(name); err == nil {
			_, err = os.Stat(name)
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", BinaryEnv, err)
		}
		return "", os.Setenv(BinaryEnv, name)
	}
	if dir, err = os.MkdirTemp("", "freshet-e2e-"); err != nil {
		return "", err
	}
	name := filepath.Join(dir, "freshet")
	cmd := exec.CommandContext(context.Background(), "go", "build", "-o", name, "github.com/freshet-io/freshet/cmd/freshet")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build the program under test: %w\n%s", err, out)
	}
	return dir, os.Setenv(BinaryEnv, name)
}

// Binary returns the path of the program under test.
func Binary() string { return os.Getenv(BinaryEnv) }
