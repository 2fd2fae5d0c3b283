// Package gcs is the Google Cloud Storage server of tests: fake-gcs-server in memory,
// corrected where it differs from the documented API in what a storage driver leans on.
// It owns the corrections: preconditions of every operation, metageneration, pages of
// listings, and no MD5 of composed objects. It never serves anything but tests.
//
// Still unfaithful: the etag is the MD5 and does not change with the metadata, and
// credentials are not looked at.
package gcs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

// Handler serves the JSON API.
type Handler struct {
	fake *fakestorage.Server
	next http.Handler

	// mu makes a precondition and what it guards one step: changes that have one hold
	// it alone, the others together.
	mu sync.RWMutex

	sessions map[string]session // of resumable uploads that are over; mu guards it

	extraMu sync.Mutex
	extra   map[version]extra
}

// session is how a resumable upload came to its end.
type session uint8

const (
	sessionEnded session = iota + 1
	sessionCancelled
)

// version is one generation of one object.
type version struct {
	bucket, object string
	generation     int64
}

// extra is what the fake does not keep of a version.
type extra struct {
	metageneration int64 // 0 means 1
	updated        time.Time
	composed       bool
}

// New returns a server without buckets. endpoint is the URL that clients reach it by.
func New(endpoint string) (*Handler, error) {
	fake, err := fakestorage.NewServerWithOptions(fakestorage.Options{
		NoListener: true, Scheme: "http", ExternalURL: endpoint, PublicHost: strings.TrimPrefix(endpoint, "http://"),
		Writer: io.Discard,
	})
	if err != nil {
		return nil, err
	}
	return &Handler{fake: fake, next: fake.HTTPHandler(), extra: map[version]extra{}, sessions: map[string]session{}}, nil
}

const apiPrefix = "/storage/v1/b/"

// target is what a request of the JSON API names.
type target struct {
	bucket, object string
	action         string // "", rewriteTo, copyTo, compose or acl
	// Of rewriteTo and copyTo, whose object above is the source.
	destBucket, destObject string
	listing                bool
}

// parse reads /storage/v1/b/BUCKET/o/OBJECT, whose parts may contain escaped slashes.
func parse(u *url.URL) (target, bool) {
	rest, ok := strings.CutPrefix(u.EscapedPath(), apiPrefix)
	if !ok {
		rest, ok = strings.CutPrefix(u.EscapedPath(), "/download"+apiPrefix)
	}
	if !ok {
		return target{}, false
	}
	parts := strings.Split(rest, "/")
	for i := range parts {
		if plain, err := url.PathUnescape(parts[i]); err == nil {
			parts[i] = plain
		}
	}
	if len(parts) < 2 || parts[1] != "o" {
		return target{}, false
	}
	t := target{bucket: parts[0]}
	if len(parts) == 2 || (len(parts) == 3 && parts[2] == "") {
		t.listing = true
		return t, true
	}
	t.object = parts[2]
	if len(parts) > 3 {
		t.action = parts[3]
	}
	if len(parts) == 8 && parts[4] == "b" && parts[6] == "o" {
		t.destBucket, t.destObject = parts[5], parts[7]
	}
	return t, true
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t, isObject := parse(r.URL)
	switch {
	case !isObject && r.URL.Query().Has("upload_id"):
		h.session(w, r)
	case !isObject && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		h.readXML(w, r)
	case !isObject:
		h.change(w, r, nil) // uploads, whose conditions the fake knows, and buckets
	case t.listing && r.Method == http.MethodGet:
		h.list(w, r, t.bucket)
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		h.read(w, r, t)
	default:
		h.change(w, r, &t)
	}
}

func (h *Handler) read(w http.ResponseWriter, r *http.Request, t target) {
	attrs, found := h.attrs(t.bucket, t.object, r.URL.Query().Get("generation"))
	if status := check(r.URL.Query(), "if", attrs, found); status != 0 {
		fail(w, status)
		return
	}
	if r.URL.Query().Get("alt") == "media" || strings.HasPrefix(r.URL.Path, "/download") || t.action != "" || !found {
		h.next.ServeHTTP(w, r)
		return
	}
	answer(w, attrs)
}

// readXML adds what the fake leaves out of the head of /BUCKET/OBJECT.
func (h *Handler) readXML(w http.ResponseWriter, r *http.Request) {
	bucket, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if attrs, found := h.attrs(bucket, name, r.URL.Query().Get("generation")); found && name != "" {
		w.Header().Set("X-Goog-Metageneration", strconv.FormatInt(attrs.metageneration(), 10))
		w.Header().Set("X-Goog-Hash", "crc32c="+attrs.CRC32C)
		for key, value := range attrs.Metadata {
			w.Header().Set("X-Goog-Meta-"+key, value)
		}
	}
	h.next.ServeHTTP(w, r)
}

// statusCancelled is the answer to a resumable upload that was cancelled.
const statusCancelled = 499

// session does a request of a resumable upload. One that was cancelled goes on no
// more; one that has ended can't be cancelled.
func (h *Handler) session(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("upload_id")
	if r.Method == http.MethodDelete {
		h.mu.Lock() // not while its last chunk is on the way
		defer h.mu.Unlock()
		if h.sessions[id] == sessionEnded {
			fail(w, http.StatusGone)
			return
		}
		h.sessions[id] = sessionCancelled
		w.WriteHeader(statusCancelled)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sessions[id] == sessionCancelled {
		fail(w, http.StatusGone)
		return
	}
	rec := httptest.NewRecorder()
	h.next.ServeHTTP(rec, r)
	if rec.Code == http.StatusOK || rec.Code == http.StatusCreated {
		h.sessions[id] = sessionEnded
	}
	replay(w, rec)
}

// change does what may change objects. A body is read first: nobody waits for a slow
// client while the lock is held.
func (h *Handler) change(w http.ResponseWriter, r *http.Request, t *target) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if t == nil {
		h.mu.RLock()
		defer h.mu.RUnlock()
		h.next.ServeHTTP(w, r)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if status := h.checkChange(r, *t); status != 0 {
		fail(w, status)
		return
	}
	switch {
	case r.Method == http.MethodPatch || (t.action == "" && r.Method != http.MethodDelete):
		h.update(w, r, *t)
	case t.action == "compose":
		h.compose(w, r, *t)
	default:
		h.next.ServeHTTP(w, r)
	}
}

// checkChange tests the preconditions of a change.
func (h *Handler) checkChange(r *http.Request, t target) int {
	q := r.URL.Query()
	guarded, found := h.attrs(t.bucket, t.object, q.Get("generation"))
	if t.destObject != "" {
		if status := check(q, "ifSource", guarded, found); status != 0 {
			return status
		}
		guarded, found = h.attrs(t.destBucket, t.destObject, "")
	}
	return check(q, "if", guarded, found)
}

// check tests the four preconditions whose names begin with prefix, and returns the
// status of the first that does not hold, or 0.
func check(q url.Values, prefix string, o object, found bool) int {
	for _, c := range []struct {
		name      string
		have      int64
		wantEqual bool
	}{
		{"GenerationMatch", o.generation(), true},
		{"GenerationNotMatch", o.generation(), false},
		{"MetagenerationMatch", o.metageneration(), true},
		{"MetagenerationNotMatch", o.metageneration(), false},
	} {
		text := q.Get(prefix + c.name)
		if text == "" {
			continue
		}
		want, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return http.StatusBadRequest
		}
		if !found && want != 0 && c.wantEqual {
			return http.StatusPreconditionFailed
		}
		if (c.have == want) != c.wantEqual {
			return http.StatusPreconditionFailed
		}
	}
	return 0
}

// update changes metadata: the fake's answer lacks most fields.
func (h *Handler) update(w http.ResponseWriter, r *http.Request, t target) {
	rec := httptest.NewRecorder()
	h.next.ServeHTTP(rec, r)
	attrs, found := h.attrs(t.bucket, t.object, r.URL.Query().Get("generation"))
	if rec.Code != http.StatusOK || !found {
		replay(w, rec)
		return
	}
	v := version{t.bucket, t.object, attrs.generation()}
	h.extraMu.Lock()
	e := h.extra[v]
	e.metageneration = max(e.metageneration, 1) + 1
	e.updated = time.Now()
	h.extra[v] = e
	h.extraMu.Unlock()
	attrs, _ = h.attrs(t.bucket, t.object, strconv.FormatInt(v.generation, 10))
	answer(w, attrs)
}

func (h *Handler) compose(w http.ResponseWriter, r *http.Request, t target) {
	rec := httptest.NewRecorder()
	h.next.ServeHTTP(rec, r)
	attrs, found := h.attrs(t.bucket, t.object, "")
	if rec.Code != http.StatusOK || !found {
		replay(w, rec)
		return
	}
	v := version{t.bucket, t.object, attrs.generation()}
	h.extraMu.Lock()
	h.extra[v] = extra{composed: true}
	h.extraMu.Unlock()
	attrs, _ = h.attrs(t.bucket, t.object, "")
	answer(w, attrs)
}

// attrs returns an object; an empty generation is the live one.
func (h *Handler) attrs(bucket, name, generation string) (object, bool) {
	var gen int64
	if generation != "" {
		var err error
		if gen, err = strconv.ParseInt(generation, 10, 64); err != nil {
			return object{}, false
		}
	}
	found, err := h.fake.GetObjectWithGenerationStreaming(bucket, name, gen)
	if gen == 0 {
		found, err = h.fake.GetObjectStreaming(bucket, name)
	}
	if err != nil {
		return object{}, false
	}
	defer found.Close()
	return h.object(found.ObjectAttrs), true
}

func replay(w http.ResponseWriter, rec *httptest.ResponseRecorder) {
	maps.Copy(w.Header(), rec.Header())
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// fail answers an error as the JSON API does.
func fail(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"error":{"code":%d,"message":%q,"errors":[{"reason":%q,"message":%q}]}}`,
		status, http.StatusText(status), reasons[status], http.StatusText(status))
}

var reasons = map[int]string{
	http.StatusPreconditionFailed: "conditionNotMet",
	http.StatusBadRequest:         "invalid",
	http.StatusNotFound:           "notFound",
}
