package gcs

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

// object is the resource of the JSON API, as far as a driver reads it.
type object struct {
	Kind               string            `json:"kind"`
	ID                 string            `json:"id"`
	Name               string            `json:"name"`
	Bucket             string            `json:"bucket"`
	Generation         string            `json:"generation"`
	Metageneration     string            `json:"metageneration"`
	ContentType        string            `json:"contentType,omitempty"`
	ContentEncoding    string            `json:"contentEncoding,omitempty"`
	ContentDisposition string            `json:"contentDisposition,omitempty"`
	ContentLanguage    string            `json:"contentLanguage,omitempty"`
	CacheControl       string            `json:"cacheControl,omitempty"`
	StorageClass       string            `json:"storageClass"`
	Size               string            `json:"size"`
	MD5Hash            string            `json:"md5Hash,omitempty"`
	CRC32C             string            `json:"crc32c"`
	ETag               string            `json:"etag"`
	TimeCreated        string            `json:"timeCreated"`
	Updated            string            `json:"updated"`
	ComponentCount     int               `json:"componentCount,omitempty"`
	Metadata           map[string]string `json:"metadata,omitempty"`

	gen, metagen int64
}

func (o object) generation() int64     { return o.gen }
func (o object) metageneration() int64 { return o.metagen }

func (h *Handler) object(a fakestorage.ObjectAttrs) object {
	h.extraMu.Lock()
	e := h.extra[version{a.BucketName, a.Name, a.Generation}]
	h.extraMu.Unlock()
	o := object{
		Kind: "storage#object", Name: a.Name, Bucket: a.BucketName, ID: a.BucketName + "/" + a.Name + "/" + strconv.FormatInt(a.Generation, 10),
		Generation: strconv.FormatInt(a.Generation, 10), ContentType: a.ContentType, ContentEncoding: a.ContentEncoding,
		ContentDisposition: a.ContentDisposition, ContentLanguage: a.ContentLanguage, CacheControl: a.CacheControl,
		StorageClass: a.StorageClass, Size: strconv.FormatInt(a.Size, 10), MD5Hash: a.Md5Hash, CRC32C: a.Crc32c, ETag: a.Etag,
		TimeCreated: stamp(a.Created), Updated: stamp(a.Updated), Metadata: a.Metadata,
		gen: a.Generation, metagen: max(e.metageneration, 1),
	}
	o.Metageneration = strconv.FormatInt(o.metagen, 10)
	if !e.updated.IsZero() {
		o.Updated = stamp(e.updated)
	}
	if e.composed {
		o.MD5Hash, o.ComponentCount = "", 1
	}
	return o
}

// stamp has the resolution of the real API.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// maxPage is the most entries, objects and prefixes together, of one page.
const maxPage = 1000

type page struct {
	Kind          string   `json:"kind"`
	NextPageToken string   `json:"nextPageToken,omitempty"`
	Prefixes      []string `json:"prefixes,omitempty"`
	Items         []object `json:"items,omitempty"`
}

// list answers one page: in the fake, prefixes do not count, come again on each page,
// and are cut off by startOffset though objects below them are not.
func (h *Handler) list(w http.ResponseWriter, r *http.Request, bucket string) {
	q := r.URL.Query()
	limit := maxPage
	if text := q.Get("maxResults"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			fail(w, http.StatusBadRequest)
			return
		}
		if n > 0 {
			limit = min(n, maxPage)
		}
	}
	last, err := base64.URLEncoding.DecodeString(q.Get("pageToken"))
	if err != nil {
		fail(w, http.StatusBadRequest)
		return
	}
	all, err := h.fake.ListObjectsWithOptionsPaginated(bucket, fakestorage.ListOptions{
		Prefix: q.Get("prefix"), Versions: q.Get("versions") == "true",
		StartOffset: max(q.Get("startOffset"), string(last)), EndOffset: q.Get("endOffset"),
	})
	if err != nil {
		fail(w, http.StatusNotFound)
		return
	}
	answer(w, h.cut(all.Objects, cutOptions{
		prefix: q.Get("prefix"), delimiter: q.Get("delimiter"), trailing: q.Get("includeTrailingDelimiter") == "true",
		last: string(last), limit: limit,
	}))
}

type cutOptions struct {
	prefix, delimiter string
	trailing          bool   // objects that are equal to a prefix are items too
	last              string // of the page before
	limit             int
}

// cut makes a page of objects in order. Versions of an object stay on one page.
func (h *Handler) cut(objects []fakestorage.ObjectAttrs, opt cutOptions) page {
	p := page{Kind: "storage#objects"}
	latest := opt.last // the newest entry of the page
	for _, a := range objects {
		name, isPrefix := a.Name, false
		if opt.delimiter != "" {
			rest := strings.TrimPrefix(a.Name, opt.prefix)
			if i := strings.Index(rest, opt.delimiter); i >= 0 {
				name, isPrefix = opt.prefix+rest[:i+len(opt.delimiter)], true
			}
		}
		if name == opt.last && opt.last != "" {
			continue // on the page before, or below a prefix there
		}
		if name != latest && len(p.Items)+len(p.Prefixes) >= opt.limit {
			p.NextPageToken = base64.URLEncoding.EncodeToString([]byte(latest))
			return p
		}
		if isPrefix && name != latest {
			p.Prefixes = append(p.Prefixes, name)
		}
		if !isPrefix || (opt.trailing && a.Name == name) {
			p.Items = append(p.Items, h.object(a))
		}
		latest = name
	}
	return p
}
