package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/internal/run"
	"github.com/freshet-io/freshet/ufs/all"
)

// Options are what the commands need of the process.
type Options struct {
	Out, Err io.Writer
	Getenv   func(string) string
}

// Commands returns the commands that run servers.
func Commands(o Options) []*cobra.Command {
	return []*cobra.Command{
		o.serverCommand("coordinator", "Run a coordinator: a member of the cluster's Raft group", config.RoleCoordinator, (*Process).Coordinator),
		o.serverCommand("cachenode", "Run a cache node: it keeps blocks and serves their bytes", config.RoleCacheNode, (*Process).CacheNode),
		o.devCommand(),
	}
}

func (o Options) serverCommand(use, short string, role config.Role, runServer func(*Process, context.Context, *config.File) error) *cobra.Command {
	var file, addressFile string
	var insecure bool
	c := &cobra.Command{
		Use: use + " --config FILE", Short: short, Args: cobra.NoArgs,
		Long: short + ".\n\nSIGTERM and SIGINT stop it in order. SIGHUP reads log.level, and\n" +
			"sync_engine and placement of a coordinator, of the file again; certificates are read again\n" +
			"when their files change, other settings at a restart. It prints the addresses that it listens on.",
		Example: fmt.Sprintf("  freshet config validate /etc/freshet/%s.yaml\n  freshet %s --config /etc/freshet/%s.yaml", use, use, use),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := config.Read(file)
			if err != nil {
				return err
			}
			opts := config.ValidateOptions{Name: file, Role: role, Insecure: insecure, UFS: all.Openers(nil, nil)}
			if err := f.Validate(opts); err != nil {
				return err
			}
			p := NewProcess(f.Log, o.Err, o.Getenv)
			p.Ready = func(a Addresses) { o.announce(p, addressFile, a) }
			return run.Ordered(cmd.Context(),
				run.Part{Name: "reload", Run: func(ctx context.Context) error { return p.reload(ctx, file, opts) }},
				run.Part{Name: use, Run: func(ctx context.Context) error { return runServer(p, ctx, f) }})
		},
	}
	c.Flags().StringVar(&file, "config", "", "YAML file of this server")
	c.Flags().BoolVar(&insecure, "insecure", false, "allow plain text on addresses that others can reach")
	c.Flags().StringVar(&addressFile, "address-file", "", "write the addresses to this file as JSON once they are bound")
	_ = c.MarkFlagRequired("config") // fails only for a flag that is not there
	return c
}

// announce tells where the process listens.
func (o Options) announce(p *Process, file string, a Addresses) {
	b, err := json.Marshal(a)
	if err != nil {
		p.Log.Error("addresses", "error", err)
		return
	}
	fmt.Fprintf(o.Out, "listening %s\n", b)
	if file == "" {
		return
	}
	if err := writeDurable(file, b); err != nil {
		p.Log.Error("could not write the address file", "error", err)
	}
}

func (o Options) devCommand() *cobra.Command {
	var dir, storage, clientAddr, httpAddr string
	var options map[string]string
	var verbose bool
	c := &cobra.Command{
		Use: "dev", Short: "Run one cluster in one process", Args: cobra.NoArgs,
		Long: "dev runs a coordinator and a cache node in this process, on loopback, over a local directory or any\n" +
			"storage. Without --data-dir nothing of the cluster survives its end; the storage always does.",
		Example: "  freshet dev\n  freshet dev --ufs file:///srv/lake --data-dir ./freshet-dev\n" +
			"  freshet dev --ufs s3://lake --option region=eu-west-1",
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := dev{Options: o, dir: dir, storage: storage, options: options, client: clientAddr, http: httpAddr}
			d.level = "warn"
			if verbose {
				d.level = "info"
			}
			return d.run(cmd.Context())
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "data-dir", "", "keep the cluster's state here; a temporary directory if not given")
	f.StringVar(&storage, "ufs", "", "storage to mount at /, such as file:///srv/lake or s3://lake; a temporary directory if not given")
	f.StringToStringVar(&options, "option", nil, "option of the storage, key=value; repeatable")
	f.StringVar(&clientAddr, "listen", config.DefaultClient, "address for clients (gRPC)")
	f.StringVar(&httpAddr, "http", config.DefaultHTTP, "address of REST, health and metrics")
	f.BoolVar(&verbose, "verbose", false, "log what happens, on stderr")
	return c
}

// tempDir makes a directory that is removed when the returned function is called.
func tempDir(pattern string) (string, func(), error) {
	dir, err := os.MkdirTemp("", pattern)
	if err != nil {
		return "", nil, freshet.Errorf(freshet.KindUnavailable, "make temporary directory", "", "%w", err)
	}
	return dir, func() { _ = os.RemoveAll(dir) }, nil // the system cleans up what is left
}
