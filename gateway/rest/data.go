package rest

import (
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
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
	// Where files are, and whether they may be written, coordinators say, to whom
	// the caller's name goes on.
	ctx, err := rpc.WithUsers(r.Context(), r.Header.Values(HeaderUser)...)
	r = r.WithContext(ctx)
	switch {
	case err != nil:
	case r.Method == http.MethodGet, r.Method == http.MethodHead:
		err = d.read(w, r)
	case r.Method == http.MethodPut:
		err = d.put(w, r)
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

// args returns the path of a data route and its query parameters, of which there
// may be none but known, and each only once: a misspelt one must not be ignored.
func args(r *http.Request, known ...string) (freshet.Path, map[string]string, error) {
	p, err := DataPath(r)
	if err != nil {
		return "", nil, err
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return p, nil, freshet.Errorf(freshet.KindInvalid, "read query", p, "%w", err)
	}
	out := map[string]string{}
	for key, v := range values {
		if !slices.Contains(known, key) {
			return p, nil, freshet.Errorf(freshet.KindInvalid, "read query", p, "unknown query parameter %q of %s; known are %q", key, r.Method, known)
		}
		if len(v) != 1 {
			return p, nil, freshet.Errorf(freshet.KindInvalid, "read query", p, "query parameter %q is given %d times", key, len(v))
		}
		out[key] = v[0]
	}
	return p, out, nil
}

func readArgs(r *http.Request) (freshet.Path, client.ReadOptions, error) {
	opts := client.Whole()
	p, query, err := args(r, "read_type", "sync_interval")
	if err != nil {
		return p, opts, err
	}
	if text, ok := query["sync_interval"]; ok {
		i, err := freshet.ParseInterval(text)
		if err != nil {
			return p, opts, err
		}
		opts.SyncInterval = &i
	}
	if opts.Read, err = freshet.ParseReadType(query["read_type"]); err != nil {
		return p, opts, err
	}
	opts.After, err = freshet.ParseToken(r.Header.Get(HeaderAfter))
	return p, opts, err
}

// maxVersions bounds how often a read begins anew because the file changed
// before its first byte.
const maxVersions = 4

// read answers GET and HEAD. An error is returned only while nothing was sent.
func (d *Data) read(w http.ResponseWriter, r *http.Request) error {
	p, opts, err := readArgs(r)
	if err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		// No Locate: HEAD must work for a file whose bytes can't be had now.
		st, err := d.files.Stat(r.Context(), p, opts.ReadOptions)
		if err != nil {
			return err
		}
		return d.head(w, r, st.Info)
	}
	for version := 1; ; version++ {
		changed, err := d.get(w, r, p, opts)
		if !changed || version == maxVersions {
			return err
		}
	}
}

// get answers GET. changed says that the file was overwritten while the answer
// was prepared; nothing was sent then.
func (d *Data) get(w http.ResponseWriter, r *http.Request, p freshet.Path, opts client.ReadOptions) (changed bool, err error) {
	f, err := d.files.Open(r.Context(), p, opts)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // read only
	info := f.Info()
	setEntryHeaders(w.Header(), info)
	if status := precondition(r, info); status != 0 {
		return false, answerCondition(w, p, status)
	}
	start, n, status := rangeOf(r, info)
	if status == http.StatusRequestedRangeNotSatisfiable {
		return false, refuseRange(w, r, info)
	}
	f.Narrow(start, n)
	// The headers are of this version: the first byte must be, too.
	if err := f.Prime(); err != nil {
		return freshet.IsKind(err, freshet.KindStale), err
	}
	if from := f.From(); from != "" {
		w.Header().Set(HeaderSource, from)
	}
	sendHead(w, start, n, info.Length, status)
	if _, err := f.WriteTo(w); err != nil {
		if r.Context().Err() == nil {
			d.log.WarnContext(r.Context(), "read ended early", slog.String("request_id", requestID(w)), slog.String("error", err.Error()))
		}
		// The status is sent: cutting the connection is the only way left to
		// say that the body is not complete.
		panic(http.ErrAbortHandler)
	}
	return false, nil
}

func sendHead(w http.ResponseWriter, start, n, size int64, status int) {
	if status == http.StatusPartialContent {
		w.Header().Set("Content-Range", contentRange(start, n, size))
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	w.WriteHeader(status)
}

func (d *Data) head(w http.ResponseWriter, r *http.Request, info freshet.Info) error {
	if info.Type == freshet.TypeDirectory {
		return freshet.Errorf(freshet.KindConflict, "read", info.Path, "is a directory")
	}
	setEntryHeaders(w.Header(), info)
	if status := precondition(r, info); status != 0 {
		return answerCondition(w, info.Path, status)
	}
	start, n, status := rangeOf(r, info)
	if status == http.StatusRequestedRangeNotSatisfiable {
		return refuseRange(w, r, info)
	}
	sendHead(w, start, n, info.Length, status)
	return nil
}

// answerCondition answers 304 and 412.
func answerCondition(w http.ResponseWriter, p freshet.Path, status int) error {
	if status == http.StatusNotModified {
		for _, name := range []string{"Content-Type", HeaderFingerprint, "Accept-Ranges"} {
			w.Header().Del(name) // a 304 carries only what a cache needs
		}
		w.WriteHeader(status)
		return nil
	}
	return freshet.Errorf(freshet.KindStale, "read", p, "the file is not the version that the request asks for")
}

// refuseRange answers 416, which must tell the length of the file.
func refuseRange(w http.ResponseWriter, r *http.Request, info freshet.Info) error {
	w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(info.Length, 10))
	writeStatus(w, r, http.StatusRequestedRangeNotSatisfiable,
		freshet.Errorf(freshet.KindInvalid, "read", info.Path, "the range lies outside the file of %d bytes", info.Length))
	return nil
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
func (d *Data) put(w http.ResponseWriter, r *http.Request) error {
	p, query, err := args(r, "write_type", "durable_replicas")
	if err != nil {
		return err
	}
	if refuseEncoding(w, r) {
		return nil
	}
	for _, name := range []string{"If-Match", "If-None-Match", "If-Unmodified-Since", "Content-Range"} {
		if r.Header.Get(name) != "" {
			return freshet.Errorf(freshet.KindUnsupported, "write", p, "%s is not supported on PUT; nothing was written", name)
		}
	}
	typ, err := freshet.ParseWriteType(query["write_type"])
	if err != nil {
		return err
	}
	replicas := 0
	if v, given := query["durable_replicas"]; given {
		if replicas, err = freshet.ParseDurableReplicas(v); err != nil {
			return err
		}
	}
	done, err := d.files.Write(r.Context(), p, newBody(w, r), client.WriteOptions{Length: r.ContentLength, Write: typ, DurableReplicas: replicas})
	if err != nil {
		return err
	}
	h := w.Header()
	if !done.Token.IsZero() { // what is not in the storage yet has none
		h.Set(HeaderToken, done.Token.String())
	}
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
