package child_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/freshet-io/freshet/test/child"
)

// roleEnv has the test program act as a server of some kind.
const roleEnv = "CHILD_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "":
		goleak.VerifyTestMain(m)
	case "echo":
		fmt.Println("chatter")
		fmt.Println("READY endpoint=here port=7")
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			fmt.Println("you said " + in.Text())
		}
	case "broken":
		fmt.Fprintln(os.Stderr, "no such disk")
		os.Exit(3)
	case "silent":
		time.Sleep(time.Hour) // an empty select is a deadlock to the runtime
	case "stubborn":
		fmt.Println("READY")
		time.Sleep(time.Hour) // an empty select is a deadlock to the runtime
	}
}

func options(t *testing.T, role string) child.Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return child.Options{Path: self, Env: append(os.Environ(), roleEnv+"="+role)}
}

func isGone(p *child.Process) bool { return errors.Is(syscall.Kill(p.PID(), 0), syscall.ESRCH) }

func TestDialogue(t *testing.T) {
	var log bytes.Buffer
	opt := options(t, "echo")
	opt.Log, opt.Dialogue = &log, true
	p, err := child.Start(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	if p.Field("endpoint") != "here" || p.Field("port") != "7" || p.Field("other") != "" {
		t.Errorf("fields %q %q %q", p.Field("endpoint"), p.Field("port"), p.Field("other"))
	}
	for _, line := range []string{"one", "two"} {
		if got, err := p.Ask(t.Context(), line); err != nil || got != "you said "+line {
			t.Errorf("Ask(%q) = %q, %v", line, got, err)
		}
	}
	if err := p.Stop(); err != nil || !isGone(p) {
		t.Errorf("Stop: %v; gone: %v", err, isGone(p))
	}
	if err := p.Stop(); err != nil {
		t.Errorf("second Stop: %v", err)
	}
	if _, err := p.Ask(t.Context(), "three"); !errors.Is(err, child.ErrEnded) {
		t.Errorf("Ask after Stop: %v", err)
	}
	if log.String() != "chatter\n" {
		t.Errorf("log %q", log.String())
	}
}

func TestAPausedProcessAnswersAfterResume(t *testing.T) {
	opt := options(t, "echo")
	opt.Dialogue = true
	p, err := child.Start(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	answer := make(chan string, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		got, err := p.Ask(ctx, "hello")
		answer <- fmt.Sprint(got, err)
	}()
	select {
	case got := <-answer:
		t.Fatalf("a paused process answered %q", got)
	case <-time.After(50 * time.Millisecond): // no answer is what there is to see
	}
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	if got := <-answer; got != "you said hello<nil>" {
		t.Errorf("after Resume: %q", got)
	}
}

func TestFailedStartsSayWhyAndLeaveNothing(t *testing.T) {
	_, err := child.Start(t.Context(), options(t, "broken"))
	if err == nil || !strings.Contains(err.Error(), "no such disk") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("broken: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := child.Start(ctx, options(t, "silent")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent: %v", err)
	}
	if _, err := child.Start(t.Context(), child.Options{Path: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: %v", err)
	}
}

func TestStopKillsWhatDoesNotEnd(t *testing.T) {
	opt := options(t, "stubborn")
	opt.StopTimeout = 50 * time.Millisecond
	p, err := child.Start(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err == nil || !isGone(p) {
		t.Errorf("Stop: %v; gone: %v", err, isGone(p))
	}
}

func TestCachedBuildsOnceAndWhole(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	failure := errors.New("disk full")
	_, err := child.Cached(t.Context(), "x", "1", func(_ context.Context, dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o600), failure)
	})
	if !errors.Is(err, failure) {
		t.Fatalf("got %v, want the build's error", err)
	}
	var builds atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			dir, err := child.Cached(t.Context(), "x", "1", func(_ context.Context, dir string) error {
				builds.Add(1)
				return os.WriteFile(filepath.Join(dir, "whole"), nil, 0o600)
			})
			if err != nil {
				t.Error(err)
				return
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 1 || entries[0].Name() != "whole" {
				t.Errorf("%s has %v, %v", dir, entries, err)
			}
		})
	}
	group.Wait()
	if builds.Load() != 1 {
		t.Errorf("built %d times", builds.Load())
	}
}

func TestRecipe(t *testing.T) {
	r := child.Recipe{Backend: "tape", Tools: []child.Tool{{Name: "no-such-winder", Debian: "winder"}, {Name: "no-such-reel", Debian: "winder reel"}}}
	reason := func() string {
		t.Helper()
		dir, err := r.Check()
		var un *child.UnavailableError
		if dir != "" || !errors.As(err, &un) || un.Backend != "tape" {
			t.Fatalf("Check() = %q, %v", dir, err)
		}
		return un.Reason
	}
	if got := reason(); got != "no no-such-winder, no-such-reel in PATH (on Debian: apt-get install reel winder)" {
		t.Errorf("reason %q", got)
	}
	t.Setenv(child.BackendsEnv, "go")
	if got := reason(); !strings.Contains(got, child.BackendsEnv) {
		t.Errorf("reason %q", got)
	}
	t.Setenv("FRESHET_TEST_TAPE_UNAVAILABLE", "because")
	if got := reason(); got != "because" {
		t.Errorf("reason %q", got)
	}
	want := t.TempDir()
	t.Setenv("FRESHET_TEST_TAPE", want)
	if dir, err := r.Check(); dir != want || err != nil {
		t.Errorf("Check() = %q, %v", dir, err)
	}
}

func TestRequired(t *testing.T) {
	const unset = "-"
	for _, tt := range []struct {
		ci, list string
		want     bool
	}{
		{"", unset, false},
		{"true", unset, true},
		{"true", "none", false},
		{"", "all", true},
		{"", "azure, hdfs", true},
		{"", "azure", false},
	} {
		t.Setenv("CI", tt.ci)
		t.Setenv(child.RequireEnv, tt.list)
		if tt.list == unset {
			if err := os.Unsetenv(child.RequireEnv); err != nil {
				t.Fatal(err)
			}
		}
		if got := child.Required("hdfs"); got != tt.want {
			t.Errorf("CI=%q %s=%q: required %v", tt.ci, child.RequireEnv, tt.list, got)
		}
	}
}

func TestFreePortsLieBelowThoseOfTheKernel(t *testing.T) {
	ports, err := child.FreePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range ports {
		if p < 1024 || p >= 32768 || seen[p] {
			t.Errorf("port %d of %v", p, ports)
		}
		seen[p] = true
	}
}
