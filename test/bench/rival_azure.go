package main

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/freshet-io/freshet/test/azuretest"
)

func startAzure(ctx context.Context) (*place, error) {
	srv, err := azuretest.Launch(ctx, azuretest.Options{})
	if err != nil {
		return nil, err
	}
	var cred *container.SharedKeyCredential
	if err = srv.MakeContainer(ctx, benchBucket); err == nil {
		cred, err = container.NewSharedKeyCredential(srv.Account(), srv.Key())
	}
	var api *container.Client
	if err == nil {
		api, err = container.NewClientWithSharedKeyCredential(srv.Endpoint()+"/"+benchBucket, cred, nil)
	}
	if err != nil {
		return nil, errors.Join(err, srv.Close())
	}
	return &place{
		uri:     "abfs://" + benchBucket + "@" + srv.Account(),
		options: map[string]string{"endpoint": srv.Endpoint(), "account_key": "env:FRESHET_BENCH_AZURE", "block_size": "8MiB"},
		env:     []string{"FRESHET_BENCH_AZURE=" + srv.Key()},
		rival:   azureRival{api}, entries: 2000, scarce: true, stop: srv.Close,
	}, nil
}

// azureRival is a container through the SDK.
type azureRival struct{ api *container.Client }

func (r azureRival) put(ctx context.Context, key string, data []byte) error {
	_, err := r.api.NewBlockBlobClient(key).UploadBuffer(ctx, data, nil)
	return err
}

func (r azureRival) list(ctx context.Context, dir string) (int, error) {
	n, prefix := 0, dir+"/"
	for pages := r.api.NewListBlobsHierarchyPager("/", &container.ListBlobsHierarchyOptions{Prefix: &prefix}); pages.More(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return 0, err
		}
		n += len(page.Segment.BlobItems) + len(page.Segment.BlobPrefixes)
	}
	return n, nil
}

func (r azureRival) upload(ctx context.Context, key string, data []byte) error {
	_, err := r.api.NewBlockBlobClient(key).UploadStream(ctx, bytes.NewReader(data), &blockblob.UploadStreamOptions{BlockSize: partSize, Concurrency: 4})
	return err
}

func (r azureRival) readAt(ctx context.Context, key string, off int64, buf []byte) error {
	out, err := r.api.NewBlobClient(key).DownloadStream(ctx, &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: off, Count: int64(len(buf))}})
	if err != nil {
		return err
	}
	_, err = io.ReadFull(out.Body, buf)
	return errors.Join(err, out.Body.Close())
}
