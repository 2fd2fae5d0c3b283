//go:build noazure

package all

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet/ufs"
)

func azure(*slog.Logger, prometheus.Registerer) ufs.Openers { return nil }
