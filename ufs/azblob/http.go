package azblob

import (
	"errors"
	"net/http"
	"net/url"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs/httpclient"
)

// refusedError keeps the SDK from asking again for what was refused on our side.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// NonRetriable is how the SDK asks.
func (*refusedError) NonRetriable() {}

// doer sends requests for the SDK. Its errors never hold a URL, which may hold a
// signature, and those that a repetition can't mend say so.
type doer struct{ client *http.Client }

// Do implements the SDK's HTTP client.
func (d *doer) Do(req *http.Request) (*http.Response, error) {
	resp, err := d.client.Do(req) //nolint:bodyclose,gosec // the caller closes it; the client dials by the endpoint policy
	if err == nil {
		return resp, nil
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if errors.Is(err, httpclient.ErrLate) || freshet.IsKind(err, freshet.KindPermission) { // by the endpoint policy, or a redirect
		err = &refusedError{err}
	}
	return nil, err
}
