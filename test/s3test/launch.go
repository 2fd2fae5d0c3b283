// Package s3test starts a real S3 server as a child process for tests, and drives
// its request counts and faults. The server is built from the separate module
// test/backends, so that nothing of it enters the product; this package owns the
// process and the control client. It never talks S3 itself.
package s3test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/freshet-io/freshet/test/child"
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

// BinaryEnv names the server's program; without it the program is built.
const BinaryEnv = "FRESHET_TEST_S3SERVER"

// Binary returns the path of the server's program: from the environment, or from
// the user's cache, where it is built first if the sources have changed. The first
// build takes minutes of CPU. Processes that build at once wait for each other.
func Binary(ctx context.Context) (string, error) {
	bin, err := child.Command(ctx, "s3server", BinaryEnv)
	if err != nil {
		return "", fmt.Errorf("s3test: %w", err)
	}
	return bin, nil
}

// startTimeout is the limit of waiting for the child.
const startTimeout = 60 * time.Second

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
	process *child.Process
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
	args := []string{
		"--engine", string(s.opt.Engine), "--root", s.opt.Root, "--addr", addr, "--control-addr", control,
		"--access-key", s.opt.AccessKey, "--secret-key", s.opt.SecretKey, "--seed", strconv.FormatUint(s.opt.Seed, 10),
	}
	for _, b := range s.opt.Buckets {
		args = append(args, "--bucket", b)
	}
	p, err := child.Start(ctx, child.Options{Path: s.opt.Binary, Args: args, Log: s.opt.Log})
	if err != nil {
		return fmt.Errorf("s3test: %w", err)
	}
	s.process, s.Endpoint, s.Control = p, p.Field("endpoint"), p.Field("control")
	if s.Endpoint == "" || s.Control == "" {
		return errors.Join(errors.New("s3test: ready line without endpoint or control"), p.Kill())
	}
	return nil
}

// Restart kills the server (SIGKILL) and starts it again with the same objects on
// the same ports. Counts, faults and held requests are gone, and with GoFakeS3 the
// objects too.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.process.Kill(); err != nil {
		return err
	}
	return s.start(ctx, hostOf(s.Endpoint), hostOf(s.Control))
}

// Stop ends the server and removes what Launch made.
func (s *Server) Stop() error {
	var err error
	if s.process != nil {
		err = s.process.Stop()
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
