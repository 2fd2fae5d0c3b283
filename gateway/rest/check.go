package rest

import (
	"io"
	"net/http"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// NewCheck returns the handler of POST /v1/check, a stream of lines in the form of
// those of NewSync.
func NewCheck(c rpc.Checker) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			writeRoutingError(w, r, http.StatusMethodNotAllowed)
			return
		}
		if refuseEncoding(w, r) {
			return
		}
		q, err := checkQuery(w, r)
		if err != nil {
			writeError(w, r, err)
			return
		}
		s := &lines{w: w}
		err = c.Check(rpc.FromUsers(r.Context(), r.Header.Values(HeaderUser)...), q, s.sendCheck)
		switch {
		case err == nil:
		case !s.begun:
			writeError(w, r, err)
		default:
			s.fail(r, err)
		}
	})
}

// checkQuery reads the body of a request.
func checkQuery(w http.ResponseWriter, r *http.Request) (freshet.CheckQuery, error) {
	limitJSON(w, r)
	if err := mergePath(r); err != nil {
		return freshet.CheckQuery{}, err
	}
	req := &freshetv1.CheckRequest{}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return freshet.CheckQuery{}, err
	}
	if len(body) > 0 {
		if err := protojson.Unmarshal(body, req); err != nil {
			return freshet.CheckQuery{}, freshet.Errorf(freshet.KindInvalid, "check", "", "%w", err)
		}
	}
	return rpc.CheckQueryOfWire(req)
}

func (s *lines) sendCheck(report freshet.CheckReport) error {
	out, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(rpc.CheckReportToWire(report))
	if err != nil {
		return freshet.Errorf(freshet.KindInternal, "check", "", "encode report: %w", err)
	}
	return s.line(`{"result":`, out)
}
