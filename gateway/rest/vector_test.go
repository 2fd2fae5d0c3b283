package rest_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"

	"github.com/freshet-io/freshet/gateway/rest"
)

// scattered are bytes in pieces; from a place on they lie nowhere and have to be
// written.
type scattered struct {
	rest   []byte
	whole  int // of rest, how many have to be written by WriteTo at the end
	pieces int // that were given away
}

func (s *scattered) Pieces(n int64) (all [][]byte) {
	for n > 0 && len(s.rest) > s.whole {
		k := min(int(n), 1000, len(s.rest)-s.whole)
		all, s.rest = append(all, s.rest[:k]), s.rest[k:]
		n -= int64(k)
		s.pieces++
	}
	return all
}

func (s *scattered) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *scattered) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(s.rest)
	s.rest = s.rest[n:]
	return int64(n), err
}

func TestScatteredBytesArriveInOrder(t *testing.T) {
	all := make([]byte, 17<<20+77)
	for i := range all {
		all[i] = byte(i * 7 / 3)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	given := make(chan int, 1)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := &scattered{rest: all}
		var src io.Reader = s
		switch r.URL.Path {
		case "/half":
			s.whole = len(all) / 2
		case "/plain":
			src = struct{ io.Reader }{bytes.NewReader(all)}
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(all)))
		to, ok := w.(io.ReaderFrom)
		if !ok {
			t.Error("the server's writer takes no sources")
			return
		}
		if n, err := to.ReadFrom(src); err != nil || n != int64(len(all)) {
			t.Errorf("%s: %d bytes, %v", r.URL.Path, n, err)
		}
		given <- s.pieces
	})} //nolint:gosec // a test
	done := make(chan error, 1)
	go func() { done <- srv.Serve(rest.Vectored(l)) }()
	client := &http.Client{Transport: &http.Transport{}}
	for _, path := range []string{"/pieces", "/half", "/plain", "/pieces"} {
		r, err := client.Get("http://" + l.Addr().String() + path) //nolint:noctx // a test
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if err != nil || !bytes.Equal(got, all) {
			t.Errorf("%s: %d bytes, %v, or others", path, len(got), err)
		}
		if n := <-given; (n > 0) != (path != "/plain") {
			t.Errorf("%s: %d pieces", path, n)
		}
	}
	client.CloseIdleConnections()
	_ = srv.Close()
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}
