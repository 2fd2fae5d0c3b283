//go:build nohdfs

package all

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet/ufs"
)

func hadoop(*slog.Logger, prometheus.Registerer) ufs.Openers { return nil }
