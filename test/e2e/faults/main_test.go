// Package faults_test kills, fills and breaks what the data path stands on, with real
// processes and real disks, while files are written in all ways and read in all ways.
// Every page of every file names its file, version and place, so that what was read
// proves itself.
package faults_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/smithy-go"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/test/e2e"
	"github.com/freshet-io/freshet/test/s3test"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// lake is regions that have a bucket as /s3 and a directory as /dir.
type lake struct {
	*e2e.World

	bucket *e2e.Bucket
	dir    e2e.Dir
	remote map[*e2e.Region]*fleet.Session // without local reads

	mu sync.Mutex // held to note that something was killed
}

// roots are the mounts of a lake.
var roots = []string{"/s3", "/dir"} //nolint:gochecknoglobals // a constant

// newLake starts regions and mounts both storages in each.
func newLake(t *testing.T, opts e2e.Options) *lake {
	t.Helper()
	srv := s3test.Start(t, s3test.Options{})
	l := &lake{bucket: e2e.NewBucket(t, srv, "lake"), dir: e2e.Dir(t.TempDir()), remote: map[*e2e.Region]*fleet.Session{}}
	env := []string{"AWS_ACCESS_KEY_ID=" + srv.AccessKey, "AWS_SECRET_ACCESS_KEY=" + srv.SecretKey}
	l.bucket.Hourly = true
	l.World = e2e.NewBareWorld(t, l.bucket, env, opts)
	l.S3 = srv
	for _, r := range l.regions() {
		r.Mount(t, "/s3", "s3://lake", map[string]string{
			"endpoint": srv.Endpoint, "region": "us-east-1", "max_op_lifetime": "6s", "request_timeout": "3s",
		}, "--degraded-interval", "1h")
		r.Mount(t, "/dir", "file://"+string(l.dir), nil, "--degraded-interval", "1h")
		for _, root := range roots {
			r.CLI(t, "policy", "set", root, "--block-size", "256KiB").Want(t, 0)
		}
		r.Root = "/"
		far := *r.Cluster
		far.Local.Off = true
		s, err := far.Connect()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() }) // nothing to be done about it
		l.remote[r] = s
	}
	if l.B != nil {
		l.AwaitBus(t)
	}
	return l
}

func (l *lake) regions() []*e2e.Region {
	if l.B == nil {
		return []*e2e.Region{l.A}
	}
	return []*e2e.Region{l.A, l.B}
}

// kill ends a server as kill -9 does. Uploads to the bucket that began just now may
// lack the mark by which they are found.
func (l *lake) kill(p *fleet.Process) error {
	err := p.Kill()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bucket.Killed = append(l.bucket.Killed, time.Now())
	return err
}

// stored returns what a storage holds at a path; absent is no error.
func (l *lake) stored(ctx context.Context, p freshet.Path) (data []byte, exists bool, err error) {
	if name, ok := strings.CutPrefix(string(p), "/dir/"); ok {
		data, err = os.ReadFile(filepath.Join(string(l.dir), name))
		if errors.Is(err, os.ErrNotExist) {
			return nil, false, nil
		}
		return data, err == nil, err
	}
	data, err = l.bucket.Get(ctx, strings.TrimPrefix(string(p), "/s3/"))
	if e, ok := errors.AsType[smithy.APIError](err); ok && e.ErrorCode() == "NoSuchKey" {
		return nil, false, nil
	}
	return data, err == nil, err
}

// leftovers names what is left behind in either storage.
func (l *lake) leftovers(ctx context.Context) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, err := l.bucket.Leftovers(ctx)
	b, err2 := l.dir.Leftovers(ctx)
	return append(a, b...), errors.Join(err, err2)
}

// command runs the command line, for goroutines that may not end the test.
func command(ctx context.Context, r *e2e.Region, args ...string) (out string, code int) {
	cmd := exec.CommandContext(ctx, e2e.Binary(), append([]string{"--addr", strings.Join(r.Clients, ",")}, args...)...) //nolint:gosec // the program under test
	cmd.WaitDelay = time.Second
	var said bytes.Buffer
	cmd.Stderr = &said
	b, err := cmd.Output()
	if err != nil {
		return string(b) + said.String() + err.Error(), cmd.ProcessState.ExitCode()
	}
	return string(b), 0
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// disks gives each node a small memory and a small disk of its own, below dir, so that
// blocks are evicted, demoted and promoted all the time.
func disks(dir string, memory, disk config.Size) func(int) []config.Tier {
	n := 0
	return func(int) []config.Tier {
		n++
		return []config.Tier{{Kind: "memory", Size: memory}, {Kind: "ssd", Path: filepath.Join(dir, strconv.Itoa(n)), Size: disk}}
	}
}
