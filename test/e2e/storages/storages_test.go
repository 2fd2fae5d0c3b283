// Package storages_test tests two regions of real processes over every kind of
// storage: mounted as root and nested, read and written, with invalidation from one
// to the other and with the storage's own notices.
package storages_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
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
	own     []mistake // that only this storage knows
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
	p := &place{
		storage: e2e.NewBucket(t, srv, "lake"), uri: "s3://lake",
		options: map[string]string{"endpoint": srv.Endpoint, "region": "us-east-1", "max_op_lifetime": "6s", "request_timeout": "3s"},
		env:     []string{"AWS_ACCESS_KEY_ID=" + srv.AccessKey, "AWS_SECRET_ACCESS_KEY=" + srv.SecretKey},
		missing: "s3://no-such-bucket",
	}
	wrong := p.with("access_key", "env:AWS_ACCESS_KEY_ID")
	wrong["secret_key"] = "env:AWS_ACCESS_KEY_ID"
	p.own = []mistake{
		{"wrong secret", p.uri, wrong, freshet.ExitDenied, []string{"credentials"}},
		{"secret in an option", p.uri, p.with("secret_key", "hunter2"), freshet.ExitUsage, []string{"env:"}},
		{"bucket with a slash too many", "s3:///lake", p.options, freshet.ExitUsage, []string{"bucket"}},
	}
	return p
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

// mistake is a mount that can't be right.
type mistake struct {
	name, uri string
	options   map[string]string
	code      int
	says      []string
}

// mistakes are those that can be made with every storage, and those of its own.
func (p *place) mistakes(elsewhere string) []mistake {
	scheme, rest, _ := strings.Cut(p.uri, "://")
	all := []mistake{
		{"unknown scheme", scheme + "q://lake", p.options, freshet.ExitUsage, []string{"scheme", scheme}},
		{"unknown option", p.uri, p.with("domian", "x"), freshet.ExitUsage, []string{"domian", "domain"}},
		{"missing", p.missing, p.options, freshet.ExitNotFound, []string{"does not exist"}},
	}
	if scheme != "file" {
		all = append(all, mistake{"credentials in the URI", scheme + "://user:hunter2@" + rest, p.options, freshet.ExitUsage, []string{"credentials"}})
	}
	if _, ok := p.options["endpoint"]; ok {
		all = append(all,
			mistake{"nobody at the endpoint", p.uri, p.with("endpoint", "http://127.0.0.1:1"), freshet.ExitUnavailable, []string{"endpoint"}},
			mistake{"endpoint of the machine's metadata", p.uri, p.with("endpoint", "http://169.254.169.254"), freshet.ExitDenied, []string{"link-local"}},
			mistake{"endpoint with a path", p.uri, p.with("endpoint", p.options["endpoint"]+"/a/b?c=d"), freshet.ExitUsage, []string{"endpoint"}},
			mistake{"redirect", p.uri, p.with("endpoint", elsewhere), freshet.ExitDenied, []string{"redirect"}},
		)
	}
	return append(all, p.own...)
}

// with returns the options and one more.
func (p *place) with(name, value string) map[string]string {
	options := maps.Clone(p.options)
	if options == nil {
		options = map[string]string{}
	}
	options[name] = value
	return options
}

func TestMistakesInAMountAreToldAtOnce(t *testing.T) {
	redirects := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:1/elsewhere", http.StatusTemporaryRedirect))
	defer redirects.Close()
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			p := k.start(t)
			w := e2e.NewBareWorld(t, p.storage, p.env, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1})
			for _, c := range p.mistakes(redirects.URL) {
				t.Run(c.name, func(t *testing.T) {
					args := []string{"mount", "add", "/m", c.uri}
					for name, value := range c.options {
						args = append(args, "--option", name+"="+value)
					}
					ran := w.A.CLI(t, args...).Want(t, c.code, c.says...)
					if strings.Contains(ran.Out+ran.Err, "hunter2") {
						t.Errorf("the error repeats a secret: %s", ran.Err)
					}
				})
			}
			var list struct {
				Mounts []json.RawMessage `json:"mounts"`
			}
			w.A.CLI(t, "mount", "ls", "-o", "json").Want(t, 0).JSON(t, &list)
			if len(list.Mounts) > 0 {
				t.Errorf("refused mounts are there: %s", list.Mounts)
			}
			w.A.CLI(t, "fs", "ls", "/m").Want(t, freshet.ExitNotFound)
		})
	}
}
