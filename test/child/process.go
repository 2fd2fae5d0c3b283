// Package child runs the real servers that tests need as child processes: it starts
// and ends them so that none outlives its test, keeps what they are made of in the
// user's cache, and decides whether a server that this machine cannot run skips a
// test or fails it. It knows no storage protocol, and nothing of it enters the product.
package child

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// readyWord begins the line by which a server says that it is ready. Fields of the
// form name=value follow it.
const readyWord = "READY"

// Options of a process. Path is required.
type Options struct {
	// Path is the program, Args what follows it.
	Path string
	Args []string
	// Dir is the working directory; empty means the caller's.
	Dir string
	// Env is the whole environment; nil means the caller's.
	Env []string
	// Log receives standard error, and standard output up to the ready line. Nil
	// discards it.
	Log io.Writer
	// Dialogue keeps standard output for Ask instead of logging it.
	Dialogue bool
	// StopTimeout is how long Stop waits before it kills; 0 means 10 seconds.
	StopTimeout time.Duration
}

const defaultStopTimeout = 10 * time.Second

// Process is a running server: a child that holds the other end of a pipe as its
// standard input, prints a ready line, and must end when the pipe closes. It is safe
// for concurrent use.
type Process struct {
	opt    Options
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	lines  chan string // of a dialogue; closed at the end of standard output
	fields map[string]string
	exited chan struct{} // closed after Wait
	err    error         // of Wait

	ask sync.Mutex
}

// Start starts the program and returns when it has said that it is ready. ctx limits
// only the start. The caller must Stop or Kill the process; it also ends with this one.
func Start(ctx context.Context, opt Options) (*Process, error) {
	if opt.Log == nil {
		opt.Log = io.Discard
	}
	if opt.StopTimeout == 0 {
		opt.StopTimeout = defaultStopTimeout
	}
	tail := &tailWriter{next: opt.Log}
	cmd := exec.Command(opt.Path, opt.Args...)
	cmd.Dir, cmd.Env, cmd.Stderr = opt.Dir, opt.Env, tail
	cmd.WaitDelay = time.Second // a grandchild must not keep Wait by an open pipe
	setDeathSignal(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p := &Process{opt: opt, cmd: cmd, stdin: stdin, lines: make(chan string), exited: make(chan struct{})}
	started := make(chan error, 1)
	ready := make(chan string, 1)
	go p.supervise(stdout, tail, started, ready)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start of %s: %w", opt.Path, err)
	}
	select {
	case line, ok := <-ready:
		if ok {
			p.fields = parseFields(line)
			return p, nil
		}
		<-p.exited
		err = fmt.Errorf("%s ended before it was ready (%w): %s", opt.Path, p.Err(), tail.String())
	case <-ctx.Done():
		err = fmt.Errorf("%s was not ready in time: %w: %s", opt.Path, ctx.Err(), tail.String())
	}
	return nil, errors.Join(err, p.Kill())
}

// supervise starts the process and lives as long as it, on one OS thread: the
// kernel sends the death signal when the thread that started the child ends.
func (p *Process) supervise(stdout io.Reader, log io.Writer, started chan<- error, ready chan<- string) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.exited)
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	in := bufio.NewReader(stdout)
	isReady := awaitReady(in, log, ready)
	close(ready)
	if isReady && p.opt.Dialogue {
		p.readLines(in)
	}
	close(p.lines)
	_, _ = io.Copy(log, in)
	p.err = p.cmd.Wait()
}

// awaitReady logs what comes before the ready line.
func awaitReady(in *bufio.Reader, log io.Writer, ready chan<- string) bool {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return false
		}
		if word, _, _ := strings.Cut(strings.TrimSpace(line), " "); word == readyWord {
			ready <- line
			return true
		}
		_, _ = io.WriteString(log, line)
	}
}

// readLines hands on each line, to Ask or, at the end, to Stop and Kill.
func (p *Process) readLines(in *bufio.Reader) {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		p.lines <- strings.TrimSuffix(line, "\n")
	}
}

func parseFields(line string) map[string]string {
	fields := map[string]string{}
	for _, f := range strings.Fields(line)[1:] {
		name, value, _ := strings.Cut(f, "=")
		fields[name] = value
	}
	return fields
}

// Field is a value of the ready line; empty if it had none of that name.
func (p *Process) Field(name string) string { return p.fields[name] }

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Err says, after Exited, how the process ended; nil is a good end.
func (p *Process) Err() error { return p.err }

// ErrEnded is the error of Ask when the process ends instead of answering.
var ErrEnded = errors.New("the process has ended")

// Ask sends one line and returns the next line of a Dialogue. When ctx ends first the
// dialogue is out of step, and the process is killed.
func (p *Process) Ask(ctx context.Context, line string) (string, error) {
	p.ask.Lock()
	defer p.ask.Unlock()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		return "", errors.Join(ErrEnded, err)
	}
	select {
	case answer, ok := <-p.lines:
		if !ok {
			return "", ErrEnded
		}
		return answer, nil
	case <-ctx.Done():
		return "", errors.Join(ctx.Err(), p.Kill())
	}
}

// Stop asks the process to end by closing its standard input, and kills it if it
// does not in time, which is an error. A process that is stopped already is none.
func (p *Process) Stop() error {
	_ = p.stdin.Close()
	timer := time.NewTimer(p.opt.StopTimeout)
	defer timer.Stop()
	for lines := p.lines; ; {
		select {
		case <-p.exited:
			return p.err
		case _, ok := <-lines: // the end of an answer that nobody waits for
			if !ok {
				lines = nil
			}
		case <-timer.C:
			return errors.Join(fmt.Errorf("%s did not end in time and was killed", p.opt.Path), p.Kill())
		}
	}
}

// Kill ends the process at once and waits for it. How it ended is in Err.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill of %s: %w", p.opt.Path, err)
	}
	for lines := p.lines; ; {
		select {
		case <-p.exited:
			return nil
		case _, ok := <-lines:
			if !ok {
				lines = nil
			}
		}
	}
}

// Pause has the process answer nothing while its connections stay open, until Resume.
// It returns when the process stands still, where the system can tell (on Linux): a
// signal is on its way for a while, in which the process may still answer.
func (p *Process) Pause() error {
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return awaitStopped(p.PID())
}

// Resume ends Pause.
func (p *Process) Resume() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// tailWriter passes on and keeps the last few kilobytes for error messages.
type tailWriter struct {
	next io.Writer
	mu   sync.Mutex
	tail []byte
}

const tailSize = 4 << 10

// Write passes b on.
func (t *tailWriter) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tail = append(t.tail, b...)
	if len(t.tail) > tailSize {
		t.tail = t.tail[len(t.tail)-tailSize:]
	}
	return t.next.Write(b)
}

// String returns the tail.
func (t *tailWriter) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.tail)
}
