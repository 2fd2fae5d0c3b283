package s3

import (
	"net/http"
	"time"
)

// Entry is a parsed object of a list answer, for the tests of the parser.
type Entry struct {
	Key, ETag string
	Size      int64
	ModTime   time.Time
}

// ParsePage exposes the parser of list answers.
func ParsePage(doc []byte) (objects []Entry, prefixes []string, next string, err error) {
	p, err := parsePage(doc)
	for _, o := range p.objects {
		objects = append(objects, Entry{Key: o.key, ETag: o.etag, Size: o.size, ModTime: o.modTime})
	}
	return objects, p.prefixes, p.next, err
}

// SetCopyLimits makes objects of more than limit bytes be copied in parts.
func (f *FS) SetCopyLimits(limit, part int64) { f.cfg.maxCopy, f.cfg.copyPart = limit, part }

// PartSize returns the size of the part after sent others of an upload of size
// bytes, < 0 if unknown.
func PartSize(base int, size int64, sent int32) int {
	w := writer{partSize: partSizeFor(base, size), sent: sent}
	w.opts.Size = size
	return w.size()
}

// SetTransport replaces the way to the server.
func (f *FS) SetTransport(rt http.RoundTripper) { f.http.Transport = rt }

// TagSize is the length of the part by which an upload to object is known.
func TagSize(object string) int { return tagSize(object) }

// SetNow replaces the clock of the cleaner.
func (f *FS) SetNow(now func() time.Time) { f.now = now }

// SetPartSize makes parts smaller than the protocol allows.
func (f *FS) SetPartSize(n int) { f.cfg.partSize = n }

// SetForeign sets the option clean_untagged_after.
func (f *FS) SetForeign(d time.Duration) { f.cfg.cleanForeign = d }
