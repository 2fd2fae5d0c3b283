package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// Answer is an HTTP answer with its whole body.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// HTTP sends a request and reads the whole answer; header holds pairs of name and
// value. Redirects are not followed.
func HTTP(t testing.TB, method, url, body string, header ...string) Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: string(b)}
}

// Want fails the test unless the answer has the status and says all the words.
func (a Answer) Want(t testing.TB, status int, words ...string) Answer {
	t.Helper()
	if a.Status != status {
		t.Errorf("status %d, want %d: %.500s", a.Status, status, a.Body)
		return a
	}
	for _, w := range words {
		if !strings.Contains(a.Body, w) {
			t.Errorf("does not say %q: %.500s", w, a.Body)
		}
	}
	return a
}

// JSON decodes the body.
func (a Answer) JSON(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Body), into); err != nil {
		t.Fatalf("the body is not JSON: %v: %.500s", err, a.Body)
	}
}
