package main

import (
	"context"
	"errors"
	"io"
	"os"
	slash "path"
	"path/filepath"
	"time"

	"github.com/colinmarc/hdfs/v2"

	"github.com/freshet-io/freshet/test/hdfstest"
)

func (b *bench) startHDFS(ctx context.Context) (*place, error) {
	dir := filepath.Join(b.dir, "hdfs")
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	c, err := hdfstest.Launch(ctx, dir, hdfstest.Options{})
	if err != nil {
		return nil, err
	}
	api, err := hdfs.NewClient(hdfs.ClientOptions{Addresses: []string{c.Addr()}, User: c.User()})
	if err == nil {
		err = errors.Join(api.MkdirAll("/bench", 0o755), api.MkdirAll("/aside", 0o755))
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &place{
		uri: c.URI("/bench"), options: map[string]string{"user": c.User()}, rival: hdfsRival{api, "/bench"}, entries: 5000,
		stop: func() error { return errors.Join(api.Close(), c.Close(), os.RemoveAll(dir)) },
	}, nil
}

// hdfsRival is a directory of HDFS through the library.
type hdfsRival struct {
	api  *hdfs.Client
	root string
}

func (r hdfsRival) at(key string) string { return slash.Join(r.root, key) }

// put gives the file its name by a rename once it is whole, as Hadoop's tools do.
func (r hdfsRival) put(ctx context.Context, key string, data []byte) error {
	aside := "/aside/" + slash.Base(key)
	if err := r.write(ctx, aside, data); err != nil {
		return err
	}
	if err := r.api.MkdirAll(slash.Dir(r.at(key)), 0o755); err != nil {
		return err
	}
	return r.api.Rename(aside, r.at(key))
}

func (r hdfsRival) list(_ context.Context, dir string) (int, error) {
	all, err := r.api.ReadDir(r.at(dir))
	return len(all), err
}

func (r hdfsRival) upload(ctx context.Context, key string, data []byte) error {
	if err := r.api.Remove(r.at(key)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return r.write(ctx, r.at(key), data)
}

func (r hdfsRival) write(ctx context.Context, name string, data []byte) error {
	w, err := r.api.Create(name)
	if err != nil {
		return err
	}
	for len(data) > 0 && err == nil {
		n := min(len(data), chunkSize)
		_, err = w.Write(data[:n])
		data = data[n:]
	}
	closed := w.Close()
	// The library wants to be asked again until the DataNode has reported the block.
	for retry := time.NewTicker(3 * time.Millisecond); hdfs.IsErrReplicating(closed); closed = w.Close() {
		defer retry.Stop()
		select {
		case <-retry.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.Join(err, closed)
}

func (r hdfsRival) readAt(_ context.Context, key string, off int64, buf []byte) error {
	f, err := r.api.Open(r.at(key))
	if err != nil {
		return err
	}
	_, err = f.Seek(off, io.SeekStart)
	if err == nil {
		_, err = io.ReadFull(f, buf)
	}
	return errors.Join(err, f.Close())
}
