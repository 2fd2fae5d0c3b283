package s3

import (
	"net/http"
	"time"

	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs/httpclient"
	"github.com/freshet-io/freshet/ufs/object"
)

// Entry is a parsed object of a list answer, for the tests of the parser.
type Entry struct {
	Key, ETag string
	Size      int64
	ModTime   time.Time
}

// ParsePage exposes the parser of list answers.
func ParsePage(doc []byte) (objects []Entry, prefixes []string, next string, err error) {
	var etags []string
	p, err := parseList(doc, func(etag string, size int64) fingerprint.Fingerprint {
		etags = append(etags, etag)
		return fingerprint.S3(etag, size)
	})
	for i, o := range p.Objects {
		objects = append(objects, Entry{Key: o.Name, ETag: etags[i], Size: o.Size, ModTime: o.ModTime})
	}
	return objects, p.Prefixes, p.Next, err
}

// SetCopyLimits makes objects of more than limit bytes be copied in parts.
func (f *FS) SetCopyLimits(limit, part int64) {
	f.store.cfg.maxCopy, f.store.cfg.copyPart = limit, part
}

// PartSize returns the size of the part after sent others of an upload of size
// bytes, < 0 if unknown.
func PartSize(base int, size int64, sent int32) int {
	l := (&store{cfg: config{partSize: base}}).Limits()
	return l.PartLength(size, int(sent))
}

// SetTransport replaces the way to the server.
func (f *FS) SetTransport(rt http.RoundTripper) {
	f.store.http.Transport.(*httpclient.Transport).Base = rt //nolint:forcetypeassert // made by Open
}

// TagSize is the length of the part by which an upload to object is known.
func TagSize(object string) int { return tagSize(object) }

// SetNow replaces the clock of the cleaner.
func (f *FS) SetNow(now func() time.Time) { f.now = now }

// SetPartSize makes parts smaller than the protocol allows.
func (f *FS) SetPartSize(n int) {
	f.store.cfg.partSize = n
	f.FS = object.New(f.store, object.Options{Root: f.root})
}

// SetForeign sets the option clean_untagged_after.
func (f *FS) SetForeign(d time.Duration) { f.store.cfg.cleanForeign = d }
