package rest

import (
	_ "embed"
	"encoding/json"

	"github.com/freshet-io/freshet"
)

// handWritten describes what the generator can't know: the data routes, the
// stream of a sync, the headers and the form of errors.
//
//go:embed openapi.json
var handWritten []byte

// OpenAPI completes the description that was generated from the services with
// the hand-written routes, the headers and the one form of errors.
func OpenAPI(generated string) ([]byte, error) {
	var doc, own map[string]any
	if err := json.Unmarshal([]byte(generated), &doc); err != nil {
		return nil, freshet.Errorf(freshet.KindInternal, "build OpenAPI", "", "generated part: %w", err)
	}
	if err := json.Unmarshal(handWritten, &own); err != nil {
		return nil, freshet.Errorf(freshet.KindInternal, "build OpenAPI", "", "hand-written part: %w", err)
	}
	merge(doc, own)
	describeHeaders(doc)
	if definitions, ok := doc["definitions"].(map[string]any); ok {
		delete(definitions, "rpcStatus")
		delete(definitions, "protobufAny")
	}
	out, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, freshet.Errorf(freshet.KindInternal, "build OpenAPI", "", "%w", err)
	}
	return append(out, '\n'), nil
}

// merge adds src to dst; src wins, object by object.
func merge(dst, src map[string]any) {
	for key, v := range src {
		inner, isMap := v.(map[string]any)
		have, hasMap := dst[key].(map[string]any)
		if isMap && inner["x-replace"] == nil {
			if !hasMap {
				have = map[string]any{}
				dst[key] = have
			}
			merge(have, inner)
			continue
		}
		if isMap {
			delete(inner, "x-replace")
		}
		dst[key] = v
	}
}

// describeHeaders gives every JSON route the headers and errors that all have.
func describeHeaders(doc map[string]any) {
	routes, _ := doc["paths"].(map[string]any)
	for _, methods := range routes {
		all, _ := methods.(map[string]any)
		for method, op := range all {
			operation, ok := op.(map[string]any)
			if !ok || operation["x-complete"] != nil {
				delete(operation, "x-complete")
				continue
			}
			responses, _ := operation["responses"].(map[string]any)
			responses["default"] = map[string]any{"$ref": "#/responses/Error"}
			success, _ := responses["200"].(map[string]any)
			headers := map[string]any{HeaderRequestID: map[string]any{"type": "string"}}
			if method == "get" {
				params, _ := operation["parameters"].([]any)
				operation["parameters"] = append(params, map[string]any{"$ref": "#/parameters/After"})
			} else if method == "post" {
				headers[HeaderToken] = map[string]any{"type": "string", "description": "Session token of a change of the namespace."}
			}
			success["headers"] = headers
		}
	}
}
