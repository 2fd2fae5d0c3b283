// Package api holds the OpenAPI description of the REST API.
package api

import _ "embed"

// OpenAPI is the description as JSON.
//
//go:embed freshet.swagger.json
var OpenAPI string
