package server

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/ufs/all"
)

// reload reads the file of this server again at each SIGHUP until ctx ends. Of a
// running server only the level of the log can change; certificates and keys are
// read again by themselves.
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
	p.Log.WarnContext(ctx, "reloaded log.level; certificates are read again by themselves, all else needs a restart", slog.String("level", f.Log.Level))
}
