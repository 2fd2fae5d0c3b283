package main

import (
	"context"
	"errors"
	"io"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"github.com/freshet-io/freshet/test/gcstest"
)

func startGCS(ctx context.Context) (*place, error) {
	srv, err := gcstest.Launch(ctx, gcstest.Options{})
	if err != nil {
		return nil, err
	}
	var api *storage.Client
	if err = srv.MakeBucket(ctx, benchBucket); err == nil {
		api, err = storage.NewClient(ctx, option.WithEndpoint(srv.Endpoint()+"/storage/v1/"), option.WithoutAuthentication(), option.WithTelemetryDisabled(), storage.WithJSONReads())
	}
	if err != nil {
		return nil, errors.Join(err, srv.Close())
	}
	return &place{
		uri: "gs://" + benchBucket, options: map[string]string{"endpoint": srv.Endpoint(), "credentials": "anonymous", "part_size": "8MiB"},
		// The server searches for each object among all.
		rival: gcsRival{api.Bucket(benchBucket)}, entries: 1000, scarce: true,
		stop: func() error { return errors.Join(api.Close(), srv.Close()) },
	}, nil
}

// gcsRival is a bucket through the SDK.
type gcsRival struct{ api *storage.BucketHandle }

func (r gcsRival) put(ctx context.Context, key string, data []byte) error {
	w := r.api.Object(key).NewWriter(ctx)
	w.ChunkSize = 0
	_, err := w.Write(data)
	return errors.Join(err, w.Close())
}

func (r gcsRival) list(ctx context.Context, dir string) (int, error) {
	n := 0
	for all := r.api.Objects(ctx, &storage.Query{Prefix: dir + "/", Delimiter: "/"}); ; n++ {
		if _, err := all.Next(); errors.Is(err, iterator.Done) {
			return n, nil
		} else if err != nil {
			return 0, err
		}
	}
}

func (r gcsRival) upload(ctx context.Context, key string, data []byte) error {
	w := r.api.Object(key).NewWriter(ctx)
	w.ChunkSize = partSize
	_, err := w.Write(data)
	return errors.Join(err, w.Close())
}

func (r gcsRival) readAt(ctx context.Context, key string, off int64, buf []byte) error {
	in, err := r.api.Object(key).NewRangeReader(ctx, off, int64(len(buf)))
	if err != nil {
		return err
	}
	_, err = io.ReadFull(in, buf)
	return errors.Join(err, in.Close())
}
