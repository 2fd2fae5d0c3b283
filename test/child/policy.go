package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Environment variables that say what a test may miss.
const (
	// RequireEnv names the backends whose absence fails a test instead of skipping it,
	// separated by commas or blanks, or "all" or "none". Under CI=true it is all unless
	// it is set.
	RequireEnv = "FRESHET_REQUIRE_BACKENDS"
	// BackendsEnv, if it is "go", leaves out the backends that need more than Go.
	BackendsEnv = "FRESHET_TEST_BACKENDS"
)

// UnavailableError says that this machine cannot run a backend.
type UnavailableError struct {
	// Backend is its name, for example hdfs.
	Backend string
	// Reason is one line, for example: no java in PATH.
	Reason string
	// Err is the cause, if there is more to tell.
	Err error
}

// Error says what is missing.
func (e *UnavailableError) Error() string {
	if e.Err == nil {
		return e.Backend + ": " + e.Reason
	}
	return fmt.Sprintf("%s: %s: %v", e.Backend, e.Reason, e.Err)
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Tool is a program that a backend needs, and the Debian packages that have it.
type Tool struct{ Name, Debian string }

// Recipe is what a backend that needs more than Go is made from.
type Recipe struct {
	// Backend is its name, lower case.
	Backend string
	// Tools must all be in PATH.
	Tools []Tool
}

// DirEnv is the environment variable that names the backend's directory if it was
// provided before the tests, as `make provision` does.
func (r Recipe) DirEnv() string { return "FRESHET_TEST_" + strings.ToUpper(r.Backend) }

// ReasonEnv is the environment variable that says why the backend cannot be had, so
// that not every test tries again.
func (r Recipe) ReasonEnv() string { return r.DirEnv() + "_UNAVAILABLE" }

// Check returns the directory that the environment names, or "" if the backend is to
// be made, or an *UnavailableError.
func (r Recipe) Check() (string, error) {
	if dir := os.Getenv(r.DirEnv()); dir != "" {
		if _, err := os.Stat(dir); err != nil {
			return "", fmt.Errorf("%s: %w", r.DirEnv(), err)
		}
		return dir, nil
	}
	if reason := os.Getenv(r.ReasonEnv()); reason != "" {
		return "", &UnavailableError{Backend: r.Backend, Reason: reason}
	}
	if os.Getenv(BackendsEnv) == "go" {
		return "", &UnavailableError{Backend: r.Backend, Reason: "left out by " + BackendsEnv + "=go"}
	}
	var missing, debian []string
	for _, t := range r.Tools {
		if _, err := exec.LookPath(t.Name); err != nil {
			missing = append(missing, t.Name)
			debian = append(debian, strings.Fields(t.Debian)...)
		}
	}
	if missing != nil {
		slices.Sort(debian)
		return "", &UnavailableError{Backend: r.Backend, Reason: fmt.Sprintf("no %s in PATH (on Debian: apt-get install %s)",
			strings.Join(missing, ", "), strings.Join(slices.Compact(debian), " "))}
	}
	return "", nil
}

// Required reports whether the absence of the backend is a failure.
func Required(backend string) bool {
	list, isSet := os.LookupEnv(RequireEnv)
	if !isSet {
		return os.Getenv("CI") == "true"
	}
	names := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
	return slices.Contains(names, "all") || slices.Contains(names, backend)
}

// FailOrSkip ends a test whose backend did not start: it is skipped, loudly, if this
// machine cannot run the backend and nobody requires it.
func FailOrSkip(tb testing.TB, err error) {
	tb.Helper()
	var un *UnavailableError
	if !errors.As(err, &un) || Required(un.Backend) {
		tb.Fatal(err)
	}
	tb.Skipf("SKIP %s: %s; make test-backends installs the rest", un.Backend, un.Reason)
}

// Lacks ends a test for which this machine lacks something that is no backend, such as
// the right to mount: it fails under CI=true, and is skipped elsewhere.
func Lacks(tb testing.TB, what string, err error) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatalf("this machine lacks %s: %v", what, err)
	}
	tb.Skipf("SKIP this machine lacks %s: %v", what, err)
}

// Run runs a step of making a backend. An error carries the end of its output.
func Run(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out[max(0, len(out)-tailSize):])
	}
	return nil
}
