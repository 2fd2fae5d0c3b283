package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/internal/run"
	"github.com/freshet-io/freshet/ufs/all"
)

// dev is one cluster in one process.
type dev struct {
	Options

	dir, storage string
	options      map[string]string
	client, http string
	level        string
}

func (d *dev) run(ctx context.Context) error {
	persist := d.dir != ""
	if !persist {
		dir, remove, err := tempDir("freshet-dev-")
		if err != nil {
			return err
		}
		defer remove()
		d.dir = dir
	}
	dir, err := filepath.Abs(d.dir)
	if err != nil {
		return freshet.Errorf(freshet.KindInvalid, "dev", "", "--data-dir: %w", err)
	}
	d.dir = dir
	if d.storage == "" {
		d.storage = "file://" + filepath.Join(d.dir, "storage")
		if err := os.MkdirAll(filepath.Join(d.dir, "storage"), 0o755); err != nil {
			return freshet.Errorf(freshet.KindUnavailable, "dev", "", "%w", err)
		}
	}
	return d.serve(ctx, persist)
}

func (d *dev) serve(ctx context.Context, persist bool) error {
	coord := d.coordinatorFile()
	if err := coord.Validate(config.ValidateOptions{Name: "dev", Role: config.RoleCoordinator, UFS: all.Openers(nil, nil)}); err != nil {
		return err
	}
	bound := make(chan Addresses, 1)
	p := NewProcess(coord.Log, d.Err, d.Getenv)
	p.Ready = func(a Addresses) { bound <- a }
	return run.Ordered(ctx,
		run.Part{Name: "coordinator", Run: func(ctx context.Context) error { return p.Coordinator(ctx, coord) }},
		run.Part{Name: "cache node", Run: func(ctx context.Context) error {
			select {
			case a := <-bound:
				return d.serveNode(ctx, a, persist)
			case <-ctx.Done():
				return nil
			}
		}},
	)
}

func (d *dev) serveNode(ctx context.Context, coord Addresses, persist bool) error {
	node := d.nodeFile(coord.Client)
	if err := node.Validate(config.ValidateOptions{Name: "dev", Role: config.RoleCacheNode}); err != nil {
		return err
	}
	p := NewProcess(node.Log, d.Err, d.Getenv)
	p.Ready = func(a Addresses) { d.welcome(coord, a, persist) }
	return p.CacheNode(ctx, node)
}

func (d *dev) welcome(coord, node Addresses, persist bool) {
	kept := "lost at exit; keep it with --data-dir DIR"
	if persist {
		kept = "kept in " + d.dir
	}
	fmt.Fprintf(d.Out, `Freshet dev: one cluster in this process, on loopback, without TLS. NOT for production.
  storage        %s mounted at /
  cluster state  %s
  clients        freshet --addr %s fs ls /
  REST           http://%s/v1/list?path=/
  data           http://%s/v1/data/PATH
  health         http://%s/readyz    metrics http://%s/metrics
Stop it with Ctrl-C.
`, d.storage, kept, coord.Client, coord.HTTP, node.HTTP, coord.HTTP, coord.HTTP)
}

func (d *dev) coordinatorFile() *config.File {
	return &config.File{
		Cluster: "dev", Node: config.Node{Name: "dev", DataDir: filepath.Join(d.dir, "coordinator")},
		Listen: config.Listen{Client: d.client, HTTP: d.http, Raft: "127.0.0.1:0"},
		Raft:   config.Raft{BootstrapExpect: 1},
		Mounts: []config.Mount{{Path: "/", UFS: d.storage, Options: d.options}},
		UFS:    config.UFS{AllowedEndpoints: []string{"127.0.0.0/8", "::1/128"}},
		Log:    config.Log{Level: d.level},
	}
}

func (d *dev) nodeFile(coordinator string) *config.File {
	return &config.File{
		Cluster: "dev", Node: config.Node{Name: "dev-node", DataDir: filepath.Join(d.dir, "node")},
		Listen:       config.Listen{Data: "127.0.0.1:0", HTTP: "127.0.0.1:0"},
		Coordinators: []string{coordinator},
		Cache:        config.Cache{Tiers: []config.Tier{{Kind: "disk", Path: filepath.Join(d.dir, "node", "blocks"), Size: "4GiB"}}},
		UFS:          config.UFS{AllowedEndpoints: []string{"127.0.0.0/8", "::1/128"}},
		Log:          config.Log{Level: d.level},
	}
}
