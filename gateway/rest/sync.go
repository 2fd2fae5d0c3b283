package rest

import (
	"encoding/json"
	"io"
	"net/http"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// NewSync returns the handler of POST /v1/sync. The in-process gateway has no
// server streams, so this one is hand-written: lines of {"result": …} in the form
// that the gateway would give them, an {"error": …} line if it fails half-way.
func NewSync(ns rpc.Namespace) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			writeRoutingError(w, r, http.StatusMethodNotAllowed)
			return
		}
		if refuseEncoding(w, r) {
			return
		}
		limitJSON(w, r)
		if err := mergePath(r); err != nil {
			writeError(w, r, err)
			return
		}
		req := &freshetv1.SyncRequest{}
		body, err := io.ReadAll(r.Body)
		if err == nil && len(body) > 0 {
			if jerr := protojson.Unmarshal(body, req); jerr != nil {
				err = freshet.Errorf(freshet.KindInvalid, "sync", "", "%w", jerr)
			}
		}
		if err != nil {
			writeError(w, r, err)
			return
		}
		p, err := freshet.ParsePath(req.GetPath())
		if err != nil {
			writeError(w, r, err)
			return
		}
		s := &lines{w: w}
		err = ns.Sync(rpc.FromUsers(r.Context(), r.Header.Values(HeaderUser)...), p, req.GetRecursive(), s.send)
		switch {
		case err == nil:
		case !s.begun:
			writeError(w, r, err)
		default:
			s.fail(r, err)
		}
	})
}

// lines writes a stream of JSON lines.
type lines struct {
	w     http.ResponseWriter
	begun bool
}

func (s *lines) send(p freshet.SyncProgress) error {
	out, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(rpc.ProgressToWire(p))
	if err != nil {
		return freshet.Errorf(freshet.KindInternal, "sync", "", "encode progress: %w", err)
	}
	return s.line(`{"result":`, out)
}

func (s *lines) line(head string, body []byte) error {
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", "application/x-ndjson")
	}
	_, err := s.w.Write(append(append([]byte(head), body...), "}\n"...))
	if err == nil {
		err = http.NewResponseController(s.w).Flush()
	}
	return err
}

// fail ends the stream with an error in the form that all errors have.
func (s *lines) fail(r *http.Request, err error) {
	out, merr := json.Marshal(bodyOf(s.w, freshet.KindOf(err).Info().HTTP, err))
	if merr == nil && r.Context().Err() == nil {
		_ = s.line(`{"error":`, out) // the client is gone if this fails
	}
}
