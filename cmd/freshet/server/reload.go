package server

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/ufs/all"
)

// reload reads the file of this server again at each SIGHUP until ctx ends. Of a
// running server the level of the log can change, and what its parts have told
// onReload; certificates and keys are read again by themselves.
func (p *Process) reload(ctx context.Context, file string, opts config.ValidateOptions) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-hup:
			p.reloadOnce(ctx, file, opts)
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *Process) reloadOnce(ctx context.Context, file string, opts config.ValidateOptions) {
	opts.UFS = all.Openers(nil, nil)
	f, err := config.Read(file)
	if err == nil {
		err = f.Validate(opts)
	}
	if err != nil {
		p.Log.ErrorContext(ctx, "the configuration was not reloaded", slog.String("error", err.Error()))
		return
	}
	p.setLevel(f.Log)
	keys := []string{"log.level"}
	p.reloads.mu.Lock()
	for _, r := range p.reloads.list {
		r.set(f)
		keys = append(keys, r.key)
	}
	p.reloads.mu.Unlock()
	p.Log.WarnContext(ctx, "reloaded what can change while the server runs; certificates are read again by themselves, all else needs a restart",
		slog.String("reloaded", strings.Join(keys, ", ")), slog.String("level", f.Log.Level))
}

// reloads are the parts of a server whose settings can change while it runs.
type reloads struct {
	mu   sync.Mutex
	list []reloadable
}

type reloadable struct {
	key string // of the configuration
	set func(*config.File)
}

// onReload lets set see the file each time it was read again.
func (p *Process) onReload(key string, set func(*config.File)) {
	p.reloads.mu.Lock()
	defer p.reloads.mu.Unlock()
	p.reloads.list = append(p.reloads.list, reloadable{key, set})
}
