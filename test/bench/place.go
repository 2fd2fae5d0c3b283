package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/test/child"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/all"
)

// rival is the storage's own client, without us: what our driver is compared with,
// and who changes the storage behind a region's back. Keys are as in ufs.
type rival interface {
	// put makes or replaces a small file.
	put(ctx context.Context, key string, data []byte) error
	// list counts the entries of a directory, with what a caller would need of each.
	list(ctx context.Context, dir string) (int, error)
	// upload makes or replaces a file of data, in parts as the driver does.
	upload(ctx context.Context, key string, data []byte) error
	// readAt fills buf by one request.
	readAt(ctx context.Context, key string, off int64, buf []byte) error
}

// place is a storage that runs, and an empty root in it to mount.
type place struct {
	name    string
	uri     string
	dir     string // of a local one
	options map[string]string
	env     []string // what options refer to, for servers and for our own driver
	rival   rival
	entries int  // how many files of a directory the server can list in good time
	scarce  bool // the server is slow to take bytes, or keeps all that it ever took
	stop    func() error
}

// partSize is that of uploads, for the drivers and for their rivals alike.
const partSize = 8 << 20

// starters know every storage by the name that the flag -storages has.
func (b *bench) starters() map[string]func(context.Context) (*place, error) {
	return map[string]func(context.Context) (*place, error){
		"local": b.startLocal, "s3": startS3, "hdfs": b.startHDFS, "azure": startAzure, "gcs": startGCS, "sqs": startSQS, linked: startS3Link,
	}
}

// start starts a storage; nil if this machine can't have it or it was not asked for.
func (b *bench) start(ctx context.Context, name string) (*place, error) {
	if !slices.Contains(strings.Split(b.storages, ","), name) {
		return nil, nil //nolint:nilnil // the doc says so
	}
	p, err := b.starters()[name](ctx)
	if _, missing := errors.AsType[*child.UnavailableError](err); missing && !child.Required(name) {
		b.add("SKIPPED "+name, fmt.Sprintf("not measured: %v", err), "", "")
		return nil, nil //nolint:nilnil // the doc says so
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.name = name
	return p, nil
}

// getenv resolves references in the options of the place.
func (p *place) getenv(name string) string {
	for _, v := range p.env {
		if k, value, _ := strings.Cut(v, "="); k == name {
			return value
		}
	}
	return ""
}

// open opens the driver alone, without what servers wrap around it.
func (p *place) open() (ufs.FS, error) {
	return all.Openers(nil, nil).Open(ufs.Spec{URI: p.uri, Options: p.options}, ufs.Environment{
		AllowedEndpoints: []string{"127.0.0.0/8"}, Getenv: p.getenv,
	})
}

// mount is the place as a mount of a region, in which nothing but notices or a sync
// finds changes.
func (p *place) mount(active bool) config.Mount {
	return config.Mount{
		Path: "/m", UFS: p.uri, Options: p.options, Consistency: config.Consistency{ActiveSync: active, DegradedInterval: "24h"},
	}
}

// listDir is the directory that is listed and synced.
const listDir = "list"

// fill makes the directory that is listed.
func (p *place) fill(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range p.entries {
		group.Go(func() error { return p.rival.put(ctx, fmt.Sprintf("%s/part-%06d.parquet", listDir, i), []byte("x")) })
	}
	return group.Wait()
}

func (b *bench) startLocal(context.Context) (*place, error) {
	dir, err := os.MkdirTemp(b.dir, "local-")
	if err != nil {
		return nil, err
	}
	return &place{uri: "file://" + dir, dir: dir, rival: localRival(dir), entries: 5000, stop: func() error { return os.RemoveAll(dir) }}, nil
}
