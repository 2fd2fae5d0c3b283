package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/freshet-io/freshet"
)

// Process is one server as a child process.
type Process struct {
	Name   string // "a-c1", "b-n2"
	Config string // path of its file
	Log    string // path of its log

	binary string
	role   string
	env    []string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
}

// newProcess writes the configuration of a server.
func newProcess(spec *Spec, dir, name, role string, file any) (*Process, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, freshet.Errorf(freshet.KindUnavailable, "prepare "+name, "", "%w", err)
	}
	b, err := yaml.Marshal(file)
	if err != nil {
		return nil, freshet.Errorf(freshet.KindInternal, "prepare "+name, "", "%w", err)
	}
	p := &Process{
		Name: name, Config: filepath.Join(dir, "config.yaml"), Log: filepath.Join(dir, "log"),
		binary: spec.Binary, role: role, env: spec.Env,
	}
	if err := os.WriteFile(p.Config, b, 0o600); err != nil {
		return nil, freshet.Errorf(freshet.KindUnavailable, "prepare "+name, "", "%w", err)
	}
	return p, nil
}

// Start starts the server, which must not run.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return freshet.Errorf(freshet.KindConflict, "start "+p.Name, "", "it runs already")
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return freshet.Errorf(freshet.KindUnavailable, "start "+p.Name, "", "%w", err)
	}
	defer func() { _ = log.Close() }()                          // the child has its own
	cmd := exec.Command(p.binary, p.role, "--config", p.Config) //nolint:gosec,noctx // our own binary, stopped by Stop
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), p.env...)
	cmd.SysProcAttr = childAttributes()
	if err := cmd.Start(); err != nil {
		return freshet.Errorf(freshet.KindUnavailable, "start "+p.Name, "", "%w", err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		_ = cmd.Wait() // killed on purpose, most of the time
		p.mu.Lock()
		if p.cmd == cmd {
			p.cmd = nil
		}
		p.mu.Unlock()
		close(done)
	}()
	return nil
}

// Running reports whether the process lives.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil
}

// PID returns the process ID, 0 if it does not run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Signal sends a signal; nothing happens if the process does not run.
func (p *Process) Signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return freshet.Errorf(freshet.KindInternal, "signal "+p.Name, "", "%w", err)
	}
	return nil
}

// Kill ends the process at once, as kill -9 does, and waits for its end.
func (p *Process) Kill() error { return p.end(syscall.SIGKILL, 10*time.Second) }

// Stop ends the process in order; it is killed if that takes too long.
func (p *Process) Stop(patience time.Duration) error {
	if err := p.end(syscall.SIGTERM, patience); err != nil {
		return errors.Join(err, p.Kill())
	}
	return nil
}

func (p *Process) end(s syscall.Signal, patience time.Duration) error {
	p.mu.Lock()
	done, running := p.done, p.cmd != nil
	p.mu.Unlock()
	if !running {
		return nil
	}
	if err := p.Signal(s); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return freshet.Errorf(freshet.KindDeadline, "stop "+p.Name, "", "it did not end within %s", patience)
	}
}

// Tail returns the last lines of the log.
func (p *Process) Tail(lines int) string {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return fmt.Sprintf("(no log: %v)", err)
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
