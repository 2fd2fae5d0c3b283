package object

import (
	"net/http"

	"github.com/freshet-io/freshet"
)

// Effect says whether a request changes what others see: the outcome of such a one
// that got no definite answer is not known.
type Effect bool

// The effects of requests.
const (
	Reads   Effect = false
	Changes Effect = true
)

// AnswerError is an error of a storage's client with a text that is short and says
// what to do. The client's own stays in the chain.
type AnswerError struct {
	Text string
	Err  error
}

// Error returns the text.
func (e *AnswerError) Error() string { return e.Text }

// Unwrap returns the client's own error.
func (e *AnswerError) Unwrap() error { return e.Err }

// ClassifyStatus gives the Kind of an answer that says no more than its HTTP status,
// 0 for none, and a text that says what to do. service is what should have answered,
// such as "an S3 server". A 404 without a word about an object is KindUnavailable:
// something else may listen there.
func ClassifyStatus(status int, service, text string) (freshet.Kind, string) {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return freshet.KindPermission, "the storage denies it: check the mount's credentials and their rights: " + text
	case http.StatusNotFound:
		return freshet.KindUnavailable, "the endpoint does not answer like " + service + ": " + text
	case http.StatusPreconditionFailed:
		return freshet.KindStale, text
	case http.StatusConflict:
		return freshet.KindConflict, text
	case http.StatusNotImplemented, http.StatusMethodNotAllowed:
		return freshet.KindUnsupported, text
	case http.StatusInsufficientStorage:
		return freshet.KindExhausted, text
	case 0, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return freshet.KindUnavailable, text
	}
	switch status / 100 {
	case 3:
		return freshet.KindPermission, "redirect refused: correct the options region and endpoint: " + text
	case 4:
		return freshet.KindInvalid, text
	}
	return freshet.KindUnavailable, text
}
