package server

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/internal/run"
	"github.com/freshet-io/freshet/rpc/local"
	"github.com/freshet-io/freshet/ufs"
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
		if err := os.MkdirAll(filepath.Join(d.dir, "storage"), 0o750); err != nil {
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
	if err := d.probe(ctx, coord); err != nil {
		return err
	}
	bound, nodeBound := make(chan Addresses, 1), make(chan Addresses, 1)
	var at Addresses
	p := NewProcess(coord.Log, d.Err, d.Getenv)
	p.Ready = func(a Addresses) { bound <- a }
	return run.Ordered(ctx,
		run.Part{Name: "coordinator", Run: func(ctx context.Context) error { return p.Coordinator(ctx, coord) }},
		run.Part{Name: "cache node", Run: func(ctx context.Context) error {
			select {
			case at = <-bound:
				return d.serveNode(ctx, at, nodeBound)
			case <-ctx.Done():
				return nil
			}
		}},
		run.Part{Name: "welcome", Run: func(ctx context.Context) error {
			select {
			case node := <-nodeBound: // the coordinator's addresses are known by then
				if awaitReady(ctx, at.HTTP) && awaitReady(ctx, node.HTTP) {
					d.welcome(at, node, persist)
				}
			case <-ctx.Done():
			}
			<-ctx.Done()
			return nil
		}},
	)
}

// probePatience is how long the storage may take to answer before dev starts.
const probePatience = 10 * time.Second

// probe refuses a storage that can't be right. One that is down may come back.
func (d *dev) probe(ctx context.Context, coord *config.File) error {
	fs, err := all.Openers(nil, nil).Open(ufs.Spec{URI: d.storage, Options: d.options}, environment(coord, d.Getenv))
	if err != nil {
		return freshet.Wrap("dev", "", err)
	}
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	err = ufs.Probe(ctx, fs)
	_ = fs.Close() // nothing was opened
	if freshet.IsKind(err, freshet.KindNotExist, freshet.KindPermission, freshet.KindInvalid, freshet.KindConflict) {
		return freshet.Wrap("dev", "", err)
	}
	return nil
}

// awaitReady waits until a server of this process says that it is ready; false if
// ctx ended first.
func awaitReady(ctx context.Context, addr string) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if isReady(ctx, addr) {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

func isReady(ctx context.Context, addr string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }() // read only
	return resp.StatusCode == http.StatusOK
}

func (d *dev) serveNode(ctx context.Context, coord Addresses, bound chan<- Addresses) error {
	node := d.nodeFile(coord.Client)
	if err := node.Validate(config.ValidateOptions{Name: "dev", Role: config.RoleCacheNode}); err != nil {
		return err
	}
	p := NewProcess(node.Log, d.Err, d.Getenv)
	p.Ready = func(a Addresses) { bound <- a }
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

// socket is for readers on this machine; none where the path would be too long, or
// the system has no use for it.
func (d *dev) socket() string {
	path := filepath.Join(d.dir, "node.sock")
	if !local.Supported || len(path) > config.MaxSocketPath {
		return ""
	}
	return path
}

func (d *dev) nodeFile(coordinator string) *config.File {
	return &config.File{
		Cluster: "dev", Node: config.Node{Name: "dev-node", DataDir: filepath.Join(d.dir, "node")},
		Listen:       config.Listen{Data: "127.0.0.1:0", HTTP: "127.0.0.1:0", Socket: d.socket()},
		Coordinators: []string{coordinator},
		Cache:        config.Cache{Tiers: []config.Tier{{Kind: "disk", Path: filepath.Join(d.dir, "node", "blocks"), Size: "4GiB"}}},
		UFS:          config.UFS{AllowedEndpoints: []string{"127.0.0.0/8", "::1/128"}},
		Log:          config.Log{Level: d.level},
	}
}
