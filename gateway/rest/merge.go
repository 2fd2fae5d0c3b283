package rest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"

	"github.com/freshet-io/freshet"
)

// mergePaths lets the routes with a body take the path from the query, as the
// others do. The gateway alone would ignore the query of such a route.
func mergePaths(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		switch r.Method {
		case http.MethodPost, http.MethodPut, http.MethodPatch:
			if err := mergePath(r); err != nil {
				writeError(w, r, err)
				return
			}
		}
		next(w, r, params)
	}
}

// mergePath moves the path of the query, if there is one, into the JSON body of r,
// whose size is bounded. Any other parameter is refused, and so is another path
// than the body's.
func mergePath(r *http.Request) error {
	if r.URL.RawQuery == "" {
		return nil
	}
	path, err := queryPath(r.URL.RawQuery)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if body, err = withPath(body, path); err != nil {
		return err
	}
	r.URL.RawQuery = ""
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return nil
}

// queryPath returns the path in the query of a route with a body.
func queryPath(raw string) (string, error) {
	const op = "read query"
	query, err := url.ParseQuery(raw)
	if err != nil {
		return "", freshet.Errorf(freshet.KindInvalid, op, "", "%w", err)
	}
	for name := range query {
		if name != "path" {
			return "", freshet.Errorf(freshet.KindInvalid, op, "", "unknown query parameter %q: of this route's fields only %q may be in the query, the others belong into the body", name, "path")
		}
	}
	if n := len(query["path"]); n != 1 {
		return "", freshet.Errorf(freshet.KindInvalid, op, "", "query parameter %q is given %d times", "path", n)
	}
	path := query.Get("path")
	if !utf8.ValidString(path) {
		return "", freshet.Errorf(freshet.KindInvalid, op, "", "the path is not valid UTF-8")
	}
	return path, nil
}

// withPath returns the JSON object body with the path. The object's text stays as
// it is, so that whoever decodes it finds what is wrong with it.
func withPath(body []byte, path string) ([]byte, error) {
	const op = "read request"
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		body = []byte("{}")
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
		return nil, freshet.Errorf(freshet.KindInvalid, op, "", "the body is not a JSON object")
	}
	if given, ok := fields["path"]; ok {
		var same string
		if err := json.Unmarshal(given, &same); err != nil || same != path {
			return nil, freshet.Errorf(freshet.KindInvalid, op, "", "the query's path is %q, the body's is %s: give one of them", path, given)
		}
		return body, nil
	}
	name, err := json.Marshal(path)
	if err != nil {
		return nil, freshet.Errorf(freshet.KindInternal, op, "", "%w", err)
	}
	out := append([]byte(`{"path":`), name...)
	if len(fields) > 0 {
		out = append(out, ',')
	}
	return append(out, body[1:]...), nil
}
