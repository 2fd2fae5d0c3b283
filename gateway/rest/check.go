package rest

import (
	"context"
	"net/http"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// NewCheck returns the handler of POST /v1/check.
func NewCheck(c rpc.Checker) http.Handler {
	return streamed(func(ctx context.Context, body []byte, s *lines) error {
		req := &freshetv1.CheckRequest{}
		if err := unmarshal("check", body, req); err != nil {
			return err
		}
		q, err := rpc.CheckQueryOfWire(req)
		if err != nil {
			return err
		}
		return c.Check(ctx, q, func(report freshet.CheckReport) error {
			return s.send("check", rpc.CheckReportToWire(report))
		})
	})
}
