package rest

import (
	"context"
	"net/http"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// NewSync returns the handler of POST /v1/sync.
func NewSync(ns rpc.Namespace) http.Handler {
	return streamed(func(ctx context.Context, body []byte, s *lines) error {
		req := &freshetv1.SyncRequest{}
		if err := unmarshal("sync", body, req); err != nil {
			return err
		}
		p, err := freshet.ParsePath(req.GetPath())
		if err != nil {
			return err
		}
		return ns.Sync(ctx, p, req.GetRecursive(), func(p freshet.SyncProgress) error {
			return s.send("sync", rpc.ProgressToWire(p))
		})
	})
}
