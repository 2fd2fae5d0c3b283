// Package s3test starts a real S3 server as a child process for tests, and drives
// its request counts and faults. The server is built from the separate module
// test/backends, so that nothing of it enters the product; this package owns the
// process and the control client. It never talks S3 itself.
package s3test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Engine names a server implementation.
type Engine string

// Engines. VersityGW keeps objects over Restart; GoFakeS3 is in memory, allows
// keys that no directory tree can hold (d and d/a) and checks no signature.
const (
	VersityGW Engine = "versitygw"
	GoFakeS3  Engine = "gofakes3"
)

// Credentials and bucket of a server whose Options name none.
const (
	DefaultAccessKey = "test"
	DefaultSecretKey = "testtesttest"
	DefaultBucket    = "test-bucket"
)

// Limits of waiting for the child.
const (
	startTimeout = 60 * time.Second
	stopTimeout  = 10 * time.Second
)

// Options of a server. The zero value is usable.
type Options struct {
	// Engine defaults to VersityGW.
	Engine Engine
	// Root is the directory of the objects. Start uses a test directory if it is
	// empty; with Launch a temporary one is made and removed by Stop.
	Root string
	// Buckets to create; default is DefaultBucket alone.
	Buckets []string
	// AccessKey and SecretKey default to DefaultAccessKey and DefaultSecretKey.
	AccessKey, SecretKey string
	// Seed of the probabilities of faults.
	Seed uint64
	// Log receives the server's log. Nil discards it.
	Log io.Writer
	// Binary is the server's program; empty means as Binary (the function) finds it.
	Binary string
}

func (o *Options) setDefaults() {
	if o.Engine == "" {
		o.Engine = VersityGW
	}
	if o.Buckets == nil {
		o.Buckets = []string{DefaultBucket}
	}
	if o.AccessKey == "" {
		o.AccessKey = DefaultAccessKey
	}
	if o.SecretKey == "" {
		o.SecretKey = DefaultSecretKey
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
}

// Server is a running S3 server. Its methods are safe for concurrent use, but for
// Restart and Stop.
type Server struct {
	// Endpoint is the S3 address, http://127.0.0.1:PORT, for path-style requests.
	Endpoint string
	// Control is the address of the control API.
	Control string
	// AccessKey and SecretKey are the server's only credentials.
	AccessKey, SecretKey string
	// Buckets are those that Options asked for.
	Buckets []string

	opt     Options
	tempDir string
	http    *http.Client
	guards  []int // sockets that keep both ports over Restart
	child   *child
}

// Launch starts a server, building its program first if necessary. The caller
// must Stop it; it also ends with this process. ctx limits only the start.
func Launch(ctx context.Context, opt Options) (*Server, error) {
	opt.setDefaults()
	if opt.Binary == "" {
		bin, err := Binary(ctx)
		if err != nil {
			return nil, err
		}
		opt.Binary = bin
	}
	s := &Server{
		AccessKey: opt.AccessKey, SecretKey: opt.SecretKey, Buckets: opt.Buckets, opt: opt,
		http: &http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}},
	}
	if opt.Root == "" {
		dir, err := os.MkdirTemp("", "freshet-s3-")
		if err != nil {
			return nil, fmt.Errorf("s3test: object directory: %w", err)
		}
		s.tempDir, s.opt.Root = dir, dir
	}
	if err := s.start(ctx, "127.0.0.1:0", "127.0.0.1:0"); err != nil {
		s.cleanUp()
		return nil, err
	}
	for _, u := range []string{s.Endpoint, s.Control} {
		fd, err := guardPort(hostOf(u))
		if err != nil {
			_ = s.Stop()
			return nil, err
		}
		s.guards = append(s.guards, fd)
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, addr, control string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c, err := startChild(ctx, s.opt, addr, control)
	if err != nil {
		return fmt.Errorf("s3test: start of %s: %w", s.opt.Binary, err)
	}
	s.child, s.Endpoint, s.Control = c, c.endpoint, c.control
	return nil
}

// Restart kills the server (SIGKILL) and starts it again with the same objects on
// the same ports. Counts, faults and held requests are gone, and with GoFakeS3 the
// objects too.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.child.kill(); err != nil {
		return err
	}
	return s.start(ctx, hostOf(s.Endpoint), hostOf(s.Control))
}

// Stop ends the server and removes what Launch made.
func (s *Server) Stop() error {
	var err error
	if s.child != nil {
		err = s.child.stop()
	}
	s.cleanUp()
	return err
}

func (s *Server) cleanUp() {
	for _, fd := range s.guards {
		_ = syscall.Close(fd)
	}
	s.guards = nil
	if s.tempDir != "" {
		_ = os.RemoveAll(s.tempDir)
	}
}

// VirtualHostEndpoint is the S3 address for virtual-host style: buckets are at
// http://BUCKET.localhost:PORT. Where the resolver does not know such names, use
// HTTPClient, or give other processes HTTP_PROXY=Endpoint.
func (s *Server) VirtualHostEndpoint() string {
	_, port, _ := net.SplitHostPort(hostOf(s.Endpoint))
	return "http://" + net.JoinHostPort("localhost", port)
}

// HTTPClient returns a client that reaches this server under every host name. The
// caller closes its idle connections.
func (s *Server) HTTPClient() *http.Client {
	addr := hostOf(s.Endpoint)
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr)
		},
		MaxIdleConnsPerHost: 64,
	}}
}

func hostOf(endpoint string) string { return strings.TrimPrefix(endpoint, "http://") }

// child is one server process.
type child struct {
	cmd               *exec.Cmd
	stdin             io.Closer
	endpoint, control string
	exited            chan struct{} // closed after Wait
	waitErr           error
}

func startChild(ctx context.Context, opt Options, addr, control string) (*child, error) {
	args := []string{
		"--engine", string(opt.Engine), "--root", opt.Root, "--addr", addr, "--control-addr", control,
		"--access-key", opt.AccessKey, "--secret-key", opt.SecretKey, "--seed", strconv.FormatUint(opt.Seed, 10),
	}
	for _, b := range opt.Buckets {
		args = append(args, "--bucket", b)
	}
	cmd := exec.Command(opt.Binary, args...)
	tail := &tailWriter{next: opt.Log}
	cmd.Stderr = tail
	setDeathSignal(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: cmd, stdin: stdin, exited: make(chan struct{})}
	ready := make(chan string, 1)
	started := make(chan error, 1)
	go c.supervise(stdout, started, ready)
	if err := <-started; err != nil {
		return nil, err
	}
	select {
	case line, ok := <-ready:
		if ok {
			err = c.parseReady(line)
		} else {
			<-c.exited
			err = fmt.Errorf("it ended before it was ready (%w): %s", c.waitErr, tail.String())
		}
	case <-ctx.Done():
		err = fmt.Errorf("not ready: %w: %s", ctx.Err(), tail.String())
	}
	if err != nil {
		_ = c.kill()
		return nil, err
	}
	return c, nil
}

// supervise starts the process and lives as long as it, on one OS thread: the
// kernel sends the death signal when the thread that started the child ends.
func (c *child) supervise(stdout io.Reader, started chan<- error, ready chan<- string) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(c.exited)
	err := c.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	in := bufio.NewReader(stdout)
	if line, err := in.ReadString('\n'); err == nil {
		ready <- line
	}
	close(ready)
	_, _ = io.Copy(io.Discard, in)
	c.waitErr = c.cmd.Wait()
}

func (c *child) parseReady(line string) error {
	fields := strings.Fields(line)
	if len(fields) == 0 || fields[0] != "READY" {
		return fmt.Errorf("unexpected first line %q", line)
	}
	for _, f := range fields[1:] {
		name, value, _ := strings.Cut(f, "=")
		if _, err := url.Parse(value); err != nil {
			return fmt.Errorf("ready line: %w", err)
		}
		switch name {
		case "endpoint":
			c.endpoint = value
		case "control":
			c.control = value
		}
	}
	if c.endpoint == "" || c.control == "" {
		return fmt.Errorf("ready line without endpoint or control: %q", line)
	}
	return nil
}

// stop asks the process to end by closing its standard input, and kills it if it
// does not in time.
func (c *child) stop() error {
	_ = c.stdin.Close()
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-c.exited:
		return c.waitErr
	case <-timer.C:
		return errors.Join(errors.New("s3test: the server did not end in time and was killed"), c.kill())
	}
}

// kill ends the process at once and waits for it.
func (c *child) kill() error {
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("s3test: kill: %w", err)
	}
	<-c.exited
	return nil
}

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
