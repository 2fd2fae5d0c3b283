// Package storages_test tests two regions of real processes over every kind of
// storage: mounted as root and nested, read and written, with invalidation from one
// to the other and with the storage's own notices.
package storages_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/azuretest"
	"github.com/freshet-io/freshet/test/e2e"
	"github.com/freshet-io/freshet/test/gcstest"
	"github.com/freshet-io/freshet/test/hdfstest"
	"github.com/freshet-io/freshet/test/s3test"
)

func TestMain(m *testing.M) {
	e2e.MainWith(m, gcstest.StopShared, azuretest.StopShared, hdfstest.StopShared)
}

// place is a storage to mount.
type place struct {
	storage e2e.Storage
	uri     string // of its root, without a trailing slash
	options map[string]string
	env     []string // of the servers
	// missing is the URI of a bucket, container or directory that does not exist.
	missing string
}

// kind is one kind of storage; start makes an empty place with a directory x. What
// is tested is the storage: regions may be small, but over one of them they are
// as users have them.
type kind struct {
	name  string
	start func(t *testing.T) *place
	opts  e2e.Options
}

func kinds() []kind {
	small := e2e.Options{Coordinators: 1, Nodes: 1}
	return []kind{{"local", localPlace, small}, {"s3", s3Place, e2e.Options{}}, {"gcs", gcsPlace, small}, {"azure", azurePlace, small}, {"hdfs", hdfsPlace, small}}
}

func localPlace(t *testing.T) *place {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	return &place{storage: e2e.Dir(dir), uri: "file://" + dir, missing: "file://" + dir + "/none"}
}

func s3Place(t *testing.T) *place {
	srv := s3test.Start(t, s3test.Options{})
	return &place{
		storage: e2e.NewBucket(t, srv, "lake"), uri: "s3://lake",
		options: map[string]string{"endpoint": srv.Endpoint, "region": "us-east-1", "max_op_lifetime": "6s", "request_timeout": "3s"},
		env:     []string{"AWS_ACCESS_KEY_ID=" + srv.AccessKey, "AWS_SECRET_ACCESS_KEY=" + srv.SecretKey},
		missing: "s3://no-such-bucket",
	}
}

func TestOperationsInOneRegionAreSeenInTheOther(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			p := k.start(t)
			w := e2e.NewBareWorld(t, p.storage, p.env, k.opts)
			w.A.Mount(t, "/", p.uri+"/x", p.options, "--degraded-interval", "1h")
			w.A.Prefix = "x/"
			w.B.Mount(t, "/deep/nested", p.uri, p.options, "--degraded-interval", "1h")
			w.AwaitBus(t)
			e2e.Operations(t, w)
		})
	}
}

func TestMistakesInAMountAreToldAtOnce(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			p := k.start(t)
			w := e2e.NewBareWorld(t, p.storage, p.env, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1})
			scheme, _, _ := strings.Cut(p.uri, "://")
			for _, c := range []struct {
				name, uri string
				more      map[string]string
				code      int
				says      []string
			}{
				{"unknown scheme", scheme + "q://lake", nil, freshet.ExitUsage, []string{"scheme", scheme}},
				{"unknown option", p.uri, map[string]string{"domian": "x"}, freshet.ExitUsage, []string{"domian", "domain"}},
				{"missing", p.missing, nil, freshet.ExitNotFound, []string{"does not exist"}},
			} {
				t.Run(c.name, func(t *testing.T) {
					args := []string{"mount", "add", "/m", c.uri}
					for name, value := range p.options {
						args = append(args, "--option", name+"="+value)
					}
					for name, value := range c.more {
						args = append(args, "--option", name+"="+value)
					}
					w.A.CLI(t, args...).Want(t, c.code, c.says...)
				})
			}
			w.A.CLI(t, "mount", "ls", "-o", "json").Want(t, 0, `"mounts"`)
			w.A.CLI(t, "fs", "ls", "/m").Want(t, freshet.ExitNotFound)
		})
	}
}
