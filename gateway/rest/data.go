package rest

import (
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"

	"google.golang.org/protobuf/encoding/protojson"
)

// DataPrefix is the route of file contents.
const DataPrefix = "/v1/data"

// Data serves the contents of files.
type Data struct {
	files *client.Client
	log   *slog.Logger
}

// NewData returns the handler of /v1/data/….
func NewData(files *client.Client, log *slog.Logger) *Data { return &Data{files: files, log: log} }

// ServeHTTP implements http.Handler.
func (d *Data) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, opts, err := dataArgs(r)
	if err != nil {
		writeError(w, r, err)
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		err = d.get(w, r, p, opts)
	case http.MethodPut:
		err = d.put(w, r, p)
	default:
		w.Header().Set("Allow", "GET, HEAD, PUT")
		writeRoutingError(w, r, http.StatusMethodNotAllowed)
	}
	if err != nil {
		writeError(w, r, err)
	}
}

// DataPath returns the namespace path of a data route.
func DataPath(r *http.Request) (freshet.Path, error) {
	rest := strings.TrimPrefix(r.URL.Path, DataPrefix)
	if rest == "" {
		rest = "/"
	}
	return freshet.ParsePath(rest)
}

func dataArgs(r *http.Request) (freshet.Path, client.ReadOptions, error) {
	opts := client.Whole()
	p, err := DataPath(r)
	if err != nil {
		return "", opts, err
	}
	for key, values := range r.URL.Query() {
		switch key {
		case "sync_interval":
			i, err := freshet.ParseInterval(values[0])
			if err != nil {
				return p, opts, err
			}
			opts.SyncInterval = &i
		case "read_type":
			if opts.Read, err = freshet.ParseReadType(values[0]); err != nil {
				return p, opts, err
			}
		case "write_type": // read by put
		default:
			return p, opts, freshet.Errorf(freshet.KindInvalid, "read query", p,
				"unknown query parameter %q; known are \"read_type\", \"sync_interval\" and \"write_type\"", key)
		}
	}
	opts.After, err = freshet.ParseToken(r.Header.Get(HeaderAfter))
	return p, opts, err
}

// get answers GET and HEAD. An error is returned only while nothing was sent.
func (d *Data) get(w http.ResponseWriter, r *http.Request, p freshet.Path, opts client.ReadOptions) error {
	if r.Method == http.MethodHead {
		// No Locate: HEAD must work for a file whose bytes can't be had now.
		st, err := d.files.Stat(r.Context(), p, opts.ReadOptions)
		if err != nil {
			return err
		}
		return d.head(w, r, st.Info)
	}
	f, err := d.files.Open(r.Context(), p, opts)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	info := f.Info()
	setEntryHeaders(w.Header(), info)
	if status := precondition(r, info); status != 0 {
		return answerCondition(w, r, p, status)
	}
	start, n, status := rangeOf(r, info)
	if status == http.StatusRequestedRangeNotSatisfiable {
		w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(info.Length, 10))
		return answerCondition(w, r, p, status)
	}
	f.Narrow(start, n)
	if err := f.Prime(); err != nil {
		return err
	}
	if status == http.StatusPartialContent {
		w.Header().Set("Content-Range", contentRange(start, n, info.Length))
	}
	if from := f.From(); from != "" {
		w.Header().Set(HeaderSource, from)
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	w.WriteHeader(status)
	if _, err := f.WriteTo(w); err != nil {
		if r.Context().Err() == nil {
			d.log.WarnContext(r.Context(), "read ended early", slog.String("request_id", requestID(w)), slog.String("error", err.Error()))
		}
		// The status is sent: cutting the connection is the only way left to
		// say that the body is not complete.
		panic(http.ErrAbortHandler)
	}
	return nil
}

func (d *Data) head(w http.ResponseWriter, r *http.Request, info freshet.Info) error {
	if info.Type == freshet.TypeDirectory {
		return freshet.Errorf(freshet.KindConflict, "read", info.Path, "is a directory")
	}
	setEntryHeaders(w.Header(), info)
	if status := precondition(r, info); status != 0 {
		return answerCondition(w, r, info.Path, status)
	}
	start, n, status := rangeOf(r, info)
	switch status {
	case http.StatusRequestedRangeNotSatisfiable:
		w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(info.Length, 10))
		return answerCondition(w, r, info.Path, status)
	case http.StatusPartialContent:
		w.Header().Set("Content-Range", contentRange(start, n, info.Length))
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	w.WriteHeader(status)
	return nil
}

// answerCondition answers 304, 412 and 416.
func answerCondition(w http.ResponseWriter, r *http.Request, p freshet.Path, status int) error {
	switch status {
	case http.StatusNotModified:
		w.WriteHeader(status)
		return nil
	case http.StatusRequestedRangeNotSatisfiable:
		size := w.Header().Get("Content-Range")
		err := freshet.Errorf(freshet.KindInvalid, "read", p, "the range lies outside the file (%s)", size)
		writeRange(w, r, err, size)
		return nil
	}
	return freshet.Errorf(freshet.KindStale, "read", p, "the file is not the version that the request asks for")
}

func writeRange(w http.ResponseWriter, r *http.Request, err error, size string) {
	writeStatus(rangeKeeper{w, size}, r, http.StatusRequestedRangeNotSatisfiable, err)
}

// rangeKeeper keeps Content-Range, which a 416 must carry, through writeStatus.
type rangeKeeper struct {
	http.ResponseWriter

	size string
}

func (k rangeKeeper) WriteHeader(status int) {
	k.Header().Set("Content-Range", k.size)
	k.ResponseWriter.WriteHeader(status)
}

func setEntryHeaders(h http.Header, info freshet.Info) {
	if tag := info.Fingerprint.ETag(); tag != "" {
		h.Set("ETag", tag)
	}
	if !info.ModTime.IsZero() {
		h.Set("Last-Modified", info.ModTime.UTC().Format(http.TimeFormat))
	}
	h.Set("Accept-Ranges", "bytes")
	h.Set(HeaderFingerprint, info.Fingerprint.String())
	h.Set("X-Content-Type-Options", "nosniff")
	typ := mime.TypeByExtension(path.Ext(string(info.Path)))
	if typ == "" || strings.HasPrefix(typ, "text/html") || strings.Contains(typ, "script") || strings.Contains(typ, "svg") {
		typ = "application/octet-stream" // never a page that runs in our origin
	}
	h.Set("Content-Type", typ)
}

// put streams the body into the file.
func (d *Data) put(w http.ResponseWriter, r *http.Request, p freshet.Path) error {
	for _, name := range []string{"If-Match", "If-None-Match", "If-Unmodified-Since", "Content-Range", "Content-Encoding"} {
		if r.Header.Get(name) != "" {
			return freshet.Errorf(freshet.KindUnsupported, "write", p, "%s is not supported on PUT; nothing was written", name)
		}
	}
	typ, err := freshet.ParseWriteType(r.URL.Query().Get("write_type"))
	if err != nil {
		return err
	}
	done, err := d.files.Write(r.Context(), p, bodyReader{r.Body}, client.WriteOptions{Length: r.ContentLength, Write: typ})
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set(HeaderToken, done.Token.String())
	if tag := done.Info.Fingerprint.ETag(); tag != "" {
		h.Set("ETag", tag)
	}
	h.Set(HeaderFingerprint, done.Info.Fingerprint.String())
	h.Set("Content-Type", "application/json")
	out, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(
		&freshetv1.WriteFileResponse{Entry: rpc.EntryToWire(done.Info), Token: done.Token.String()})
	if err != nil {
		return freshet.Errorf(freshet.KindInternal, "write", p, "encode the answer: %w", err)
	}
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(append(out, '\n')) // the client is gone if this fails
	return nil
}

// bodyReader makes a body that ends before its declared length an error of the
// caller's.
type bodyReader struct{ io.Reader }

func (b bodyReader) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = freshet.Errorf(freshet.KindInvalid, "write", "", "the body is shorter than its declared length: %w", err)
	}
	return n, err
}

// Redirect answers data requests on a coordinator: 307 to a live cache node.
func Redirect(pick func(r *http.Request) (hostPort string, err error), secure bool) http.Handler {
	scheme := "http"
	if secure {
		scheme = "https"
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := DataPath(r); err != nil {
			writeError(w, r, err)
			return
		}
		to, err := pick(r)
		if err != nil {
			writeError(w, r, err)
			return
		}
		u := *r.URL
		u.Scheme, u.Host = scheme, to
		w.Header().Set("Location", u.String())
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
}

// precondition evaluates If-Match, If-None-Match and the dates as RFC 9110,
// section 13.2.2, orders them; 0 means go on.
func precondition(r *http.Request, info freshet.Info) int {
	tag := info.Fingerprint.ETag()
	if v := r.Header.Get("If-Match"); v != "" {
		if !matches(v, tag, false) {
			return http.StatusPreconditionFailed
		}
	} else if since, ok := headerTime(r, "If-Unmodified-Since"); ok && info.ModTime.Truncate(time.Second).After(since) {
		return http.StatusPreconditionFailed
	}
	if v := r.Header.Get("If-None-Match"); v != "" {
		if matches(v, tag, true) {
			return http.StatusNotModified
		}
	} else if since, ok := headerTime(r, "If-Modified-Since"); ok && !info.ModTime.IsZero() && !info.ModTime.Truncate(time.Second).After(since) {
		return http.StatusNotModified
	}
	return 0
}

func headerTime(r *http.Request, name string) (time.Time, bool) {
	t, err := http.ParseTime(r.Header.Get(name))
	return t, err == nil
}

// matches reports whether the list of entity tags names tag; weak tags count
// only in a weak comparison.
func matches(list, tag string, weak bool) bool {
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if item == "*" {
			return true
		}
		if strings.HasPrefix(item, "W/") {
			if !weak {
				continue
			}
			item = item[2:]
		}
		if tag != "" && item == tag {
			return true
		}
	}
	return false
}
