package storages_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"github.com/freshet-io/freshet/test/e2e"
	"github.com/freshet-io/freshet/test/gcstest"
)

func gcsPlace(t *testing.T) *place {
	srv := gcstest.Shared(t)
	name := srv.NewBucket(t)
	hc := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(hc.CloseIdleConnections)
	api, err := storage.NewClient(t.Context(), option.WithEndpoint(srv.Endpoint()+"/storage/v1/"), option.WithHTTPClient(hc), storage.WithJSONReads())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() }) // nothing to be done about it
	return &place{
		storage: &gcsBucket{api.Bucket(name)}, uri: "gs://" + name,
		options: map[string]string{"endpoint": srv.Endpoint(), "credentials": "anonymous", "max_op_lifetime": "6s"},
		missing: "gs://no-such-bucket",
	}
}

// gcsBucket is a bucket, as another client sees it.
type gcsBucket struct{ api *storage.BucketHandle }

// Tree implements e2e.Storage.
func (b *gcsBucket) Tree(ctx context.Context, prefix string) (map[string]e2e.Object, error) {
	out := map[string]e2e.Object{}
	all := b.api.Objects(ctx, &storage.Query{Prefix: prefix})
	for {
		o, err := all.Next()
		if errors.Is(err, iterator.Done) {
			return out, nil
		}
		if err == nil {
			err = e2e.AddObject(out, strings.TrimPrefix(o.Name, prefix), func() ([]byte, error) { return b.get(ctx, o.Name) })
		}
		if err != nil {
			return nil, err
		}
	}
}

func (b *gcsBucket) get(ctx context.Context, key string) ([]byte, error) {
	r, err := b.api.Object(key).NewReader(ctx)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// Put implements e2e.Storage.
func (b *gcsBucket) Put(ctx context.Context, key string, data []byte) error {
	w := b.api.Object(key).NewWriter(ctx)
	w.ChunkSize = 0
	_, err := w.Write(data)
	return errors.Join(err, w.Close())
}

// Delete implements e2e.Storage.
func (b *gcsBucket) Delete(ctx context.Context, key string) error {
	return b.api.Object(key).Delete(ctx)
}

// Leftovers implements e2e.Storage: objects of Freshet's own.
func (b *gcsBucket) Leftovers(ctx context.Context) ([]string, error) {
	all, err := b.Tree(ctx, "")
	return e2e.OwnNames(all), err
}
