//go:build !nogcs

package all

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/gcs"
)

func googleCloud(log *slog.Logger, reg prometheus.Registerer) ufs.Openers {
	return ufs.Openers{gcs.NewOpener(gcs.Options{Log: log, Registerer: reg})}
}
