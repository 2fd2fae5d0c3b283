//go:build !noazure

package all

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/azblob"
)

func azure(log *slog.Logger, reg prometheus.Registerer) ufs.Openers {
	return ufs.Openers{azblob.NewOpener(azblob.Options{Log: log, Registerer: reg})}
}
