package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Ran is what a run of the command line said.
type Ran struct {
	Out, Err string
	Code     int
}

// CLI runs the program under test against the region, stdin empty.
func (r *Region) CLI(t testing.TB, args ...string) Ran {
	t.Helper()
	return CLI(t, "", append([]string{"--addr", strings.Join(r.Clients, ",")}, args...)...)
}

// CLI runs the program under test.
func CLI(t testing.TB, stdin string, args ...string) Ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(), args...)
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	err := cmd.Run()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		t.Fatalf("freshet %q: %v", args, err)
	}
	return Ran{Out: out.String(), Err: errs.String(), Code: cmd.ProcessState.ExitCode()}
}

// Want fails the test unless the run ended with the code and, on stdout or
// stderr, said every one of the words.
func (r Ran) Want(t testing.TB, code int, words ...string) Ran {
	t.Helper()
	if r.Code != code {
		t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", r.Code, code, r.Out, r.Err)
		return r
	}
	for _, w := range words {
		if !strings.Contains(r.Out+r.Err, w) {
			t.Errorf("does not say %q\nstdout: %s\nstderr: %s", w, r.Out, r.Err)
		}
	}
	return r
}

// JSON decodes stdout.
func (r Ran) JSON(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.Out), into); err != nil {
		t.Fatalf("stdout is not JSON: %v\n%s\nstderr: %s", err, r.Out, r.Err)
	}
}
