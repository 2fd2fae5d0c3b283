package rest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

// streamed returns the handler of a POST that is answered by a stream. The in-process
// gateway has no server streams, so these are hand-written: lines of {"result": …}
// in the form that the gateway would give them, an {"error": …} line if it fails
// half-way.
func streamed(serve func(ctx context.Context, body []byte, s *lines) error) http.Handler {
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
		err := mergePath(r)
		var body []byte
		if err == nil {
			body, err = io.ReadAll(r.Body)
		}
		s := &lines{w: w}
		if err == nil {
			err = serve(rpc.FromUsers(r.Context(), r.Header.Values(HeaderUser)...), body, s)
		}
		switch {
		case err == nil:
		case !s.begun:
			writeError(w, r, err)
		default:
			s.fail(r, err)
		}
	})
}

// unmarshal reads the body of a request; an empty one asks for nothing in particular.
func unmarshal(op string, body []byte, req proto.Message) error {
	if len(body) == 0 {
		return nil
	}
	if err := protojson.Unmarshal(body, req); err != nil {
		return freshet.Errorf(freshet.KindInvalid, op, "", "%w", err)
	}
	return nil
}

// lines writes a stream of JSON lines.
type lines struct {
	w     http.ResponseWriter
	begun bool
}

func (s *lines) send(op string, m proto.Message) error {
	out, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return freshet.Errorf(freshet.KindInternal, op, "", "encode a line: %w", err)
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
