//go:build !nohdfs

package all

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/hdfs"
)

func hadoop(log *slog.Logger, _ prometheus.Registerer) ufs.Openers {
	return ufs.Openers{hdfs.NewOpener(hdfs.Options{Log: log})}
}
