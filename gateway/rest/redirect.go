package rest

import (
	"net/http"
	"net/url"

	"github.com/freshet-io/freshet"
)

// Redirect answers data requests on a coordinator: 307 to the cache node that
// pick names for the path, as host:port.
func Redirect(pick func(r *http.Request, p freshet.Path) (hostPort string, err error), secure bool) http.Handler {
	scheme := "http"
	if secure {
		scheme = "https"
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := DataPath(r)
		var to string
		if err == nil {
			to, err = pick(r, p)
		}
		if err != nil {
			writeError(w, r, err)
			return
		}
		// The path keeps the escapes that it came with; nothing else of the
		// request's URL is ours to repeat.
		u := url.URL{Scheme: scheme, Host: to, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
		w.Header().Set("Location", u.String())
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
}
