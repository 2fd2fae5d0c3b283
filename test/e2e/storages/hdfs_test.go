package storages_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/colinmarc/hdfs/v2"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/e2e"
	"github.com/freshet-io/freshet/test/hdfstest"
)

func hdfsPlace(t *testing.T) *place { return hdfsPlaceOn(t, hdfstest.Shared(t)) }

func hdfsPlaceOn(t *testing.T, c *hdfstest.Cluster) *place {
	api, err := hdfs.NewClient(hdfs.ClientOptions{Addresses: []string{c.Addr()}, User: c.User()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() }) // nothing to be done about it
	root := "/" + strings.ReplaceAll(t.Name(), "/", "-")
	if err := api.MkdirAll(root+"/x", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(api.Mkdir(root+"/secret", 0o700), api.Chown(root+"/secret", "hdfs", "hdfs")); err != nil {
		t.Fatal(err)
	}
	p := &place{
		storage: tree{api, root}, uri: c.URI(root), options: map[string]string{"user": c.User()},
		missing: c.URI(root + "/none"),
	}
	p.own = []mistake{
		{"no permission", p.uri + "/secret", map[string]string{"user": "alice"}, freshet.ExitDenied, []string{"denie"}},
		{"nobody there", "hdfs://127.0.0.1:1/x", p.options, freshet.ExitUnavailable, []string{"endpoint"}},
		{"address of the machine's metadata", "hdfs://169.254.169.254:8020/x", p.options, freshet.ExitDenied, []string{"link-local"}},
	}
	return p
}

// tree is a directory of HDFS, as another client sees it.
type tree struct {
	api  *hdfs.Client
	root string
}

// Tree implements e2e.Storage.
func (d tree) Tree(_ context.Context, prefix string) (map[string]e2e.Object, error) {
	out := map[string]e2e.Object{}
	root := path.Join(d.root, prefix)
	err := d.api.Walk(root, func(name string, info fs.FileInfo, err error) error {
		if err != nil || name == root {
			return err
		}
		o := e2e.Object{Dir: info.IsDir()}
		if !o.Dir {
			if o.Data, err = d.api.ReadFile(name); err != nil {
				return err
			}
		}
		out[strings.TrimPrefix(name, root+"/")] = o
		return nil
	})
	return out, err
}

// Put implements e2e.Storage.
func (d tree) Put(ctx context.Context, name string, data []byte) error {
	file := path.Join(d.root, name)
	if err := d.api.MkdirAll(path.Dir(file), 0o755); err != nil {
		return err
	}
	if err := d.api.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	w, err := d.api.Create(file)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	closed := w.Close()
	for hdfs.IsErrReplicating(closed) && ctx.Err() == nil {
		closed = w.Close()
	}
	return errors.Join(err, closed)
}

// Delete implements e2e.Storage.
func (d tree) Delete(_ context.Context, name string) error {
	return d.api.Remove(path.Join(d.root, name))
}

// Leftovers implements e2e.Storage: temporary files.
func (d tree) Leftovers(context.Context) ([]string, error) {
	var out []string
	err := d.api.Walk(d.root, func(name string, _ fs.FileInfo, err error) error {
		if err == nil && strings.HasPrefix(path.Base(name), ".freshet") {
			out = append(out, name)
		}
		return err
	})
	return out, err
}
