// Package azuretest starts Azurite, the vendor's server of Azure Blob storage for tests,
// as a child process. It makes the program from the lock files in test/backends/azurite
// and owns the process. It never talks to the server but to make containers.
package azuretest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/freshet-io/freshet/test/child"
)

// Account is the name of the only account of every server.
const Account = "freshet"

// startTimeout is the limit of waiting for the child.
const startTimeout = 60 * time.Second

// Options of a server. The zero value is usable.
type Options struct {
	// Log receives the server's log. Nil discards it; Start and Shared set it.
	Log io.Writer
}

// Server is a running server; blobs are in memory. Its methods are safe for concurrent
// use.
type Server struct {
	process    *child.Process
	key        string
	containers atomic.Int64
}

// Launch starts a server, making its program first if necessary. The caller must Close
// it; it also ends with this process. ctx limits only the start.
func Launch(ctx context.Context, opt Options) (*Server, error) {
	dir, err := Provision(ctx)
	if err != nil {
		return nil, err
	}
	port, err := child.FreePort()
	if err != nil {
		return nil, fmt.Errorf("azuretest: %w", err)
	}
	secret := make([]byte, 48)
	_, _ = rand.Read(secret) // never fails
	s := &Server{key: base64.StdEncoding.EncodeToString(secret)}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s.process, err = child.Start(ctx, child.Options{
		Path: "node",
		Args: []string{
			filepath.Join(dir, "server.js"), "--blobHost", "127.0.0.1", "--blobPort", strconv.Itoa(port),
			// It otherwise takes half of the memory that there is.
			"--inMemoryPersistence", "--extentMemoryLimit", "1024",
			// It tells its vendor of each start otherwise.
			"--disableTelemetry",
			// The SDK is newer than every version of the API that it knows.
			"--skipApiVersionCheck",
			"--disableProductStyleUrl", "--silent",
		},
		Env: append(os.Environ(), "AZURITE_ACCOUNTS="+Account+":"+s.key),
		Log: opt.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("azuretest: %w", err)
	}
	return s, nil
}

// Close ends the server; its blobs are gone.
func (s *Server) Close() error { return s.process.Stop() }

func (o Options) launcher() child.Launch[*Server] {
	return func(ctx context.Context, _ string, log io.Writer) (*Server, error) {
		if o.Log == nil {
			o.Log = log
		}
		return Launch(ctx, o)
	}
}

// Start starts a server of tb's own, which ends with tb.
func Start(tb testing.TB) *Server {
	tb.Helper()
	return child.StartFor(tb, Options{}.launcher())
}

// shared is the process's one server.
var shared child.Shared[*Server]

// Shared returns the server that all tests of the process use. A test that pauses it
// takes one by Start instead.
func Shared(tb testing.TB) *Server {
	tb.Helper()
	return shared.Get(tb, Options{}.launcher())
}

// StopShared ends the server of Shared, if there is one. It is for TestMain.
func StopShared() { shared.Stop() }

// Endpoint is the account's address, http://127.0.0.1:PORT/ACCOUNT.
func (s *Server) Endpoint() string { return s.process.Field("endpoint") + "/" + Account }

// Account is the account's name.
func (s *Server) Account() string { return Account }

// Key is the account's shared key, in base64.
func (s *Server) Key() string { return s.key }

// PID is the number of the process.
func (s *Server) PID() int { return s.process.PID() }

// NewContainer makes a container of a new name.
func (s *Server) NewContainer(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test-container-%d", s.containers.Add(1))
	if err := s.MakeContainer(context.Background(), name); err != nil {
		tb.Fatal(err)
	}
	return name
}

// MakeContainer makes a container.
func (s *Server) MakeContainer(ctx context.Context, name string) error {
	cred, err := container.NewSharedKeyCredential(Account, s.key)
	if err != nil {
		return fmt.Errorf("azuretest: %w", err)
	}
	hc := child.HTTPClient()
	defer hc.CloseIdleConnections()
	client, err := container.NewClientWithSharedKeyCredential(s.Endpoint()+"/"+name, cred,
		&container.ClientOptions{ClientOptions: policy.ClientOptions{Transport: hc}})
	if err != nil {
		return fmt.Errorf("azuretest: %w", err)
	}
	if _, err := client.Create(ctx, nil); err != nil {
		return fmt.Errorf("azuretest: container %s: %w", name, err)
	}
	return nil
}

// Pause has the server answer nothing while connections stay open, until Resume.
func (s *Server) Pause(tb testing.TB) {
	tb.Helper()
	if err := s.process.Pause(); err != nil {
		tb.Fatal(err)
	}
}

// Resume ends Pause.
func (s *Server) Resume(tb testing.TB) {
	tb.Helper()
	if err := s.process.Resume(); err != nil {
		tb.Fatal(err)
	}
}
