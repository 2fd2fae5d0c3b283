// Package engine runs the real S3 servers that tests talk to, behind one small
// interface: versitygw over a POSIX directory and gofakes3 in memory. It owns
// their set-up and their deviations; it never injects a fault or counts a
// request (package proxy does) and is no part of the product.
package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Names of the engines.
const (
	VersityGW = "versitygw"
	GoFakeS3  = "gofakes3"
)

// VirtualDomain is the domain under which buckets are addressed by host name:
// BUCKET.localhost, with any port.
const VirtualDomain = "localhost"

// Metadata stores of the versitygw engine.
const (
	MetaAuto    = "auto"
	MetaXattr   = "xattr"
	MetaSideCar = "sidecar"
)

// Options of an engine. Name, Root, AccessKey and SecretKey are required.
type Options struct {
	// Name is VersityGW or GoFakeS3.
	Name string
	// Root is an existing directory that the engine may use as it likes. Objects
	// survive in it if the engine keeps any state at all.
	Root string
	// AccessKey and SecretKey are the only credentials the engine accepts.
	// GoFakeS3 checks no signature.
	AccessKey, SecretKey string
	// Meta says where versitygw keeps object metadata. Empty means MetaAuto:
	// user extended attributes where Root supports them, else side-car files.
	Meta string
}

// Engine is one S3 server on a private local socket.
type Engine struct {
	opt     Options
	network string
	address string
	serve   func(ctx context.Context) error
}

// New prepares the engine; it listens only while Run runs.
func New(opt Options) (*Engine, error) {
	root, err := filepath.Abs(opt.Root)
	if err != nil {
		return nil, fmt.Errorf("root directory: %w", err)
	}
	opt.Root = root
	e := &Engine{opt: opt, network: "unix", address: socketAddress(root)}
	switch opt.Name {
	case VersityGW:
		e.serve, err = e.versityGW()
	case GoFakeS3:
		e.serve = e.goFakeS3()
	default:
		err = fmt.Errorf("unknown engine %q: use %s or %s", opt.Name, VersityGW, GoFakeS3)
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// socketAddress names the private socket. Linux has abstract names, which leave
// no file behind when the process is killed and have no limit of path length
// that a deep temporary directory could exceed.
func socketAddress(root string) string {
	if runtime.GOOS == "linux" {
		return fmt.Sprintf("@freshet-s3server-%d-%s", os.Getpid(), rand.Text())
	}
	return filepath.Join(root, "engine.sock")
}

// Run serves until ctx ends or the engine fails. It returns nil when ctx ended.
func (e *Engine) Run(ctx context.Context) error {
	err := e.serve(ctx)
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// Dial opens a connection to the engine. Safe for concurrent use.
func (e *Engine) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, e.network, e.address)
}

// Transport returns an HTTP transport whose every connection goes to the engine,
// whatever host the request names.
func (e *Engine) Transport() *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return e.Dial(ctx)
		},
		// Bodies and headers must pass unchanged, or signatures would not verify.
		DisableCompression:    true,
		MaxIdleConnsPerHost:   256,
		IdleConnTimeout:       30 * time.Second,
		ExpectContinueTimeout: 5 * time.Second,
	}
}

// WaitReady returns nil once the engine accepts connections, or the error of ctx.
func (e *Engine) WaitReady(ctx context.Context) error {
	for {
		conn, err := e.Dial(ctx)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("engine %s does not listen: %w", e.opt.Name, err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
