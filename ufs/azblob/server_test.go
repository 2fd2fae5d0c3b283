package azblob_test

import (
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"go.uber.org/goleak"

	"github.com/freshet-io/freshet/test/azuretest"
	"github.com/freshet-io/freshet/test/child"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/azblob"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(child.Main{M: m, Stop: azuretest.StopShared})
}

// bucket is a fresh container.
type bucket struct {
	srv           *azuretest.Server
	endpoint, key string
	account, name string
	api           *container.Client // the bare SDK: another program
}

func newBucket(tb testing.TB) bucket {
	tb.Helper()
	srv := azuretest.Shared(tb)
	b := bucket{srv: srv, endpoint: srv.Endpoint(), key: srv.Key(), account: srv.Account(), name: srv.NewContainer(tb)}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	tb.Cleanup(transport.CloseIdleConnections)
	key, err := container.NewSharedKeyCredential(b.account, b.key)
	if err == nil {
		b.api, err = container.NewClientWithSharedKeyCredential(b.endpoint+"/"+b.name, key, &container.ClientOptions{
			ClientOptions: azcore.ClientOptions{Transport: &http.Client{Transport: transport}},
		})
	}
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func (b bucket) environment() ufs.Environment {
	return ufs.Environment{
		AllowedEndpoints: []string{"127.0.0.0/8"},
		Getenv: func(name string) string {
			return map[string]string{"KEY": b.key, "WRONG": "d3Jvbmc=", "NONE": ""}[name]
		},
	}
}

// open opens the prefix root of the bucket; options replace the usual ones.
func (b bucket) open(tb testing.TB, root string, more map[string]string) ufs.FS {
	tb.Helper()
	return b.openIn(tb, root, more, b.environment())
}

func (b bucket) openIn(tb testing.TB, root string, more map[string]string, env ufs.Environment) ufs.FS {
	tb.Helper()
	opts := map[string]string{"endpoint": b.endpoint, "account_key": "env:KEY", "block_size": "1MiB", "request_timeout": "10s"}
	maps.Copy(opts, more)
	maps.DeleteFunc(opts, func(_, v string) bool { return v == "" })
	uri := ufs.URI{Scheme: "abfs", Host: b.name + "@" + b.account, Path: "/" + root}
	fs, err := azblob.NewOpener(azblob.Options{}).Open(ufs.Spec{URI: uri.String(), Options: opts}, env)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = fs.Close() })
	return fs
}

// withSAS opens the bucket by a signature that grants permissions for d.
func (b bucket) withSAS(tb testing.TB, root string, p sas.ContainerPermissions, d time.Duration, more map[string]string) ufs.FS {
	tb.Helper()
	raw, err := b.api.GetSASURL(p, time.Now().Add(d), nil)
	if err != nil {
		tb.Fatal(err)
	}
	_, query, _ := strings.Cut(raw, "?")
	env := b.environment()
	env.Getenv = func(name string) string { return map[string]string{"SAS": query}[name] }
	opts := map[string]string{"account_key": "", "sas": "env:SAS"}
	maps.Copy(opts, more)
	return b.openIn(tb, root, opts, env)
}
