package rest

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/freshet-io/freshet"
)

// A sender may be idle for bodyGrace in all, and for the time that its bytes take
// at minBodyRate bytes per second: a body that trickles must not hold a
// connection, and an upload, for ever.
const (
	bodyGrace   = 30 * time.Second
	minBodyRate = 1 << 10
)

// body is the body of a request. Its errors are the caller's: a body that ends
// before its declared length, or that is too slow.
type body struct {
	io.ReadCloser

	control *http.ResponseController
	waited  time.Duration // for the sender, in all
	read    int64
}

func newBody(w http.ResponseWriter, r *http.Request) *body {
	return &body{ReadCloser: r.Body, control: http.NewResponseController(w)}
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	start := time.Now()
	left := bodyGrace + time.Duration(b.read/minBodyRate)*time.Second - b.waited
	// Only connections in tests have no deadlines.
	_ = b.control.SetReadDeadline(start.Add(left))
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.control.SetReadDeadline(time.Time{}) // the server goes on to watch for the end of the connection
	}
	b.waited += time.Since(start)
	b.read += int64(n)
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return n, err
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = freshet.Errorf(freshet.KindInvalid, "read body", "", "the body is shorter than its declared length: %w", err)
	case errors.As(err, &timeout) && timeout.Timeout():
		err = freshet.Errorf(freshet.KindInvalid, "read body", "", "the body arrives at less than %d bytes per second: %w", minBodyRate, err)
	}
	return n, err
}

// refuseEncoding answers requests with compressed bodies: what they unpack to
// has no bound.
func refuseEncoding(w http.ResponseWriter, r *http.Request) bool {
	if e := r.Header.Get("Content-Encoding"); e == "" || e == "identity" {
		return false
	}
	writeStatus(w, r, http.StatusUnsupportedMediaType,
		freshet.Errorf(freshet.KindUnsupported, "read request", "", "compressed requests are not accepted"))
	return true
}

// limitJSON bounds the size of a JSON body, and the time that it may take.
func limitJSON(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, newBody(w, r), maxJSONBody)
}
