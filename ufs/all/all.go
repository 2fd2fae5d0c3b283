// Package all owns the list of storages that this build can mount. It is the one
// place that names them. The build tags noazure, nogcs and nohdfs leave a
// storage out, for a smaller binary.
package all

import (
	"log/slog"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/local"
	"github.com/freshet-io/freshet/ufs/s3"
)

// Openers returns an opener per storage; log and reg may be nil.
func Openers(log *slog.Logger, reg prometheus.Registerer) ufs.Openers {
	return slices.Concat(
		ufs.Openers{local.Opener{}, s3.NewOpener(s3.Options{Log: log, Registerer: reg})},
		azure(log, reg),
		googleCloud(log, reg),
		hadoop(log, reg),
	)
}
