package storages_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/azuretest"
	"github.com/freshet-io/freshet/test/e2e"
)

func azurePlace(t *testing.T) *place {
	srv := azuretest.Shared(t)
	name := srv.NewContainer(t)
	cred, err := container.NewSharedKeyCredential(srv.Account(), srv.Key())
	if err != nil {
		t.Fatal(err)
	}
	api, err := container.NewClientWithSharedKeyCredential(srv.Endpoint()+"/"+name, cred, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &place{
		storage: &blobs{api}, uri: "abfs://" + name + "@" + srv.Account(),
		options: map[string]string{"endpoint": srv.Endpoint(), "account_key": "env:FRESHET_E2E_AZURE", "max_op_lifetime": "6s"},
		env:     []string{"FRESHET_E2E_AZURE=" + srv.Key(), "FRESHET_E2E_WRONG=aHVudGVyMg=="},
		missing: "abfs://no-such-container@" + srv.Account(),
	}
	p.own = []mistake{{"wrong key", p.uri, p.with("account_key", "env:FRESHET_E2E_WRONG"), freshet.ExitDenied, []string{"credentials"}}}
	return p
}

// blobs is a container, as another client sees it.
type blobs struct{ api *container.Client }

// Tree implements e2e.Storage.
func (b *blobs) Tree(ctx context.Context, prefix string) (map[string]e2e.Object, error) {
	out := map[string]e2e.Object{}
	pages := b.api.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &prefix})
	for pages.More() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, item := range page.Segment.BlobItems {
			err := e2e.AddObject(out, strings.TrimPrefix(*item.Name, prefix), func() ([]byte, error) { return b.get(ctx, *item.Name) })
			if err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (b *blobs) get(ctx context.Context, key string) ([]byte, error) {
	r, err := b.api.NewBlobClient(key).DownloadStream(ctx, &blob.DownloadStreamOptions{})
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r.Body)
	return data, errors.Join(err, r.Body.Close())
}

// Put implements e2e.Storage.
func (b *blobs) Put(ctx context.Context, key string, data []byte) error {
	_, err := b.api.NewBlockBlobClient(key).UploadBuffer(ctx, data, nil)
	return err
}

// Delete implements e2e.Storage.
func (b *blobs) Delete(ctx context.Context, key string) error {
	_, err := b.api.NewBlobClient(key).Delete(ctx, nil)
	return err
}

// Leftovers implements e2e.Storage: blobs of Freshet's own.
func (b *blobs) Leftovers(ctx context.Context) ([]string, error) {
	all, err := b.Tree(ctx, "")
	return e2e.OwnNames(all), err
}
