package rest

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// eventCounts is the answer to a post of events.
type eventCounts struct {
	Marked  int64  `json:"marked"`
	Ignored int64  `json:"ignored"`
	Unread  int64  `json:"unread"`
	Confirm string `json:"confirm,omitempty"`
}

// NewEvents returns the handler of POST /v1/events: what clouds send when objects
// change. It answers when the marks are replicated: 200, 202 if nothing that is
// mounted was named, 503 while there is no leader. The body is of the sender's form,
// so that the gateway can't read it.
func NewEvents(events freshetv1.EventServiceServer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body []byte
		switch r.Method {
		case http.MethodPost:
			if refuseEncoding(w, r) {
				return
			}
			limitJSON(w, r)
			var err error
			if body, err = io.ReadAll(r.Body); err != nil {
				writeError(w, r, err)
				return
			}
		case http.MethodOptions:
			body = []byte("[]") // asks only whether the sender may post
		default:
			w.Header().Set("Allow", "POST, OPTIONS")
			writeRoutingError(w, r, http.StatusMethodNotAllowed)
			return
		}
		if r.URL.RawQuery != "" {
			writeError(w, r, freshet.Errorf(freshet.KindInvalid, "read query", "", "this route has no query parameters: the form of events is found out, and a token belongs into the header Authorization"))
			return
		}
		a, err := events.PostEvents(r.Context(), &freshetv1.PostEventsRequest{Body: body, Token: bearer(r), Trusted: trusted(r)})
		if err != nil {
			if err = rpc.ErrorOf(err); freshet.IsKind(err, freshet.KindUnauthenticated) {
				w.Header().Set("WWW-Authenticate", "Bearer")
			}
			writeError(w, r, err)
			return
		}
		answerEvents(w, r, a)
	})
}

func answerEvents(w http.ResponseWriter, r *http.Request, a *freshetv1.PostEventsResponse) {
	var out any = eventCounts{Marked: a.GetMarked(), Ignored: a.GetIgnored(), Unread: a.GetUnread(), Confirm: a.GetConfirm()}
	status := http.StatusOK
	h := w.Header()
	switch origin := r.Header.Get("WebHook-Request-Origin"); {
	case r.Method == http.MethodOptions:
		// The handshake of CloudEvents.
		h.Set("Allow", "POST, OPTIONS")
		if origin != "" {
			h.Set("WebHook-Allowed-Origin", origin)
			h.Set("WebHook-Allowed-Rate", "*")
		}
		w.WriteHeader(http.StatusOK)
		return
	case a.GetValidation() != "":
		out = map[string]string{"validationResponse": a.GetValidation()} // of Azure Event Grid
	case a.GetMarked() == 0 && a.GetUnread() == 0:
		status = http.StatusAccepted
	}
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(out) // the client is gone if this fails
}

func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// trusted reports whether the caller is on this machine, and not behind a proxy
// that says so, or showed a certificate of the cluster's authority.
func trusted(r *http.Request) bool {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return true
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
