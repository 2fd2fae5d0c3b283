// Package fingerprint owns the identity of one version of a file in
// under-storage: what the storage said of it, and when two such sayings mean the
// same bytes. It does no I/O, knows no storage client and keeps no state.
//
// A Fingerprint has three parts. Content names the bytes, by the strongest
// change token that the storage puts into its own listing (ETag and size on S3,
// inode, size and modification time on a local file system). Change is a weaker
// hint that something changed which Content may have missed: the inode change
// time of a local file. Meta names owner, group and mode, so that a chmod does
// not cost the cached blocks. An empty part is unknown, and unknown equals
// nothing.
package fingerprint

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

// MaxLen is the largest encoded size of a Fingerprint in bytes, in its binary
// and in its text form.
const MaxLen = 256

// maxToken bounds a change token taken verbatim from a storage. A longer one is
// treated as unknown, which costs a cache miss, never a wrong hit.
const maxToken = 128

// maxName and maxMeta bound a name in a Meta part, and a whole one; hashMark
// starts what stands for something longer.
const (
	maxName  = 32
	maxMeta  = 2*maxName + 16
	hashMark = "#"
)

// NoMeta is the Meta part of storages that have no owner, group or mode.
const NoMeta = "none"

// Fingerprint identifies one version of a file. It is comparable and immutable;
// the zero value is unknown. The parts are printable ASCII without spaces and
// without ';'. Compare with SameContent, SameMeta and Equal, not with ==.
type Fingerprint struct {
	Content string // which bytes; "" is unknown
	Change  string // inode change time where there is one, else ""
	Meta    string // owner, group, mode; NoMeta where there are none; "" is unknown
}

// IsZero reports whether nothing at all is known.
func (f Fingerprint) IsZero() bool { return f == Fingerprint{} }

// Known reports whether the content part is known.
func (f Fingerprint) Known() bool { return f.Content != "" }

// SameContent reports whether f and g certainly name the same bytes: both
// contents are known and equal, and the change hints do not contradict. A change
// hint that moved is excused when the metadata moved with it, for a chmod moves
// the inode change time too.
func (f Fingerprint) SameContent(g Fingerprint) bool {
	if f.Content == "" || f.Content != g.Content {
		return false
	}
	return f.Change == g.Change || (f.Meta != "" && g.Meta != "" && f.Meta != g.Meta)
}

// SameMeta reports whether both metadata parts are known and equal.
func (f Fingerprint) SameMeta(g Fingerprint) bool { return f.Meta != "" && f.Meta == g.Meta }

// Equal reports whether f and g certainly name the same version: content and
// metadata both.
func (f Fingerprint) Equal(g Fingerprint) bool { return f.SameContent(g) && f.SameMeta(g) }

// Moved reports whether f, taken after a rename, names the bytes that before named
// before it: a rename moves the inode change time, which says nothing then.
func (f Fingerprint) Moved(before Fingerprint) bool {
	return f.Content != "" && f.Content == before.Content
}

// ETag returns a strong HTTP entity tag of the content, with its quotes: equal in
// every cluster for the same version. It is "" when the content is unknown.
func (f Fingerprint) ETag() string {
	if !f.Known() {
		return ""
	}
	var buf [32]byte
	return string(f.AppendETag(buf[:0]))
}

// AppendETag appends ETag to b.
func (f Fingerprint) AppendETag(b []byte) []byte {
	if !f.Known() {
		return b
	}
	var buf [MaxLen]byte
	text := append(append(append(buf[:0], f.Content...), ';'), f.Change...)
	sum := sha256.Sum256(text)
	return append(base64.RawURLEncoding.AppendEncode(append(b, '"'), sum[:16]), '"')
}

// Hash returns 8 bytes of a hash over all parts, for gossip frames, where an
// accidental match costs nothing but a spared mark on a known hint channel.
func (f Fingerprint) Hash() [8]byte {
	sum := sha256.Sum256([]byte(f.String()))
	return [8]byte(sum[:8])
}

// S3 returns the fingerprint of an object by its ETag, verbatim with or without
// the quotes, and its size in bytes.
func S3(etag string, size int64) Fingerprint {
	return token("s3:"+strconv.FormatInt(size, 10)+":", strings.Trim(etag, `"`), NoMeta)
}

// Azure returns the fingerprint of a blob by its ETag.
func Azure(etag string) Fingerprint { return token("azure:", strings.Trim(etag, `"`), NoMeta) }

// AzureBlob returns the fingerprint of a blob by its ETag, verbatim with or without
// the quotes, and its length in bytes. Azure gives a new ETag to each write, also
// to one of metadata alone. The MD5 of a blob is no part of it: whoever writes may
// set it to anything.
func AzureBlob(etag string, length int64) Fingerprint {
	return token("azure:"+strconv.FormatInt(length, 10)+":", strings.Trim(etag, `"`), NoMeta)
}

// GCS returns the fingerprint of an object by its generation.
func GCS(generation, metageneration int64) Fingerprint {
	return Fingerprint{
		Content: "gcs:" + strconv.FormatInt(generation, 10),
		Meta:    "mg" + strconv.FormatInt(metageneration, 10),
	}
}

// LocalFile is what the operating system says of a regular file. The device
// number is left out: it differs between the clients of one NFS export.
type LocalFile struct {
	Inode        uint64
	Size         int64
	ModTime      time.Time
	ChangeTime   time.Time
	Owner, Group string
	Mode         uint32 // permission bits
}

// Local returns the fingerprint of a regular file on a local file system or NFS.
// A listing makes one per file, so it costs two allocations.
func Local(s LocalFile) Fingerprint {
	var buf [128]byte
	b := append(buf[:0], "local:"...)
	b = strconv.AppendUint(b, s.Inode, 10)
	b = strconv.AppendInt(append(b, ':'), s.Size, 10)
	b = appendNanos(append(b, ':'), s.ModTime)
	n := len(b)
	b = appendNanos(b, s.ChangeTime)
	text := string(b)
	return Fingerprint{Content: text[:n], Change: text[n:], Meta: PosixMeta(s.Owner, s.Group, s.Mode)}
}

// appendNanos is exact for every time that a file system can hold.
func appendNanos(b []byte, t time.Time) []byte {
	b = append(strconv.AppendInt(b, t.Unix(), 10), '.')
	return strconv.AppendInt(b, int64(t.Nanosecond()), 10)
}

// unpersisted begins the content of versions that no storage has.
const unpersisted = "unpersisted:"

// Unpersisted returns the fingerprint of a version of a file that lies on cache nodes
// alone, by its file ID: no storage ever names it.
func Unpersisted(fileID uint64) Fingerprint {
	return Fingerprint{Content: unpersisted + strconv.FormatUint(fileID, 16), Meta: NoMeta}
}

// IsUnpersisted reports whether f is a fingerprint that Unpersisted returned: no
// storage has to be asked for the version.
func (f Fingerprint) IsUnpersisted() bool { return strings.HasPrefix(f.Content, unpersisted) }

// HDFS returns the fingerprint of a file by its file ID, length in bytes and
// modification time, of which HDFS keeps milliseconds. Meta is made by PosixMeta.
func HDFS(fileID uint64, length int64, modTime time.Time, meta string) Fingerprint {
	return Fingerprint{
		Content: "hdfs:" + strconv.FormatUint(fileID, 10) + ":" + strconv.FormatInt(length, 10) + ":" + strconv.FormatInt(modTime.UnixMilli(), 10),
		Meta:    clean(meta, maxMeta),
	}
}

// PosixMeta returns the Meta part for an owner, a group and permission bits. It
// differs for different values, whatever characters are in the names.
func PosixMeta(owner, group string, mode uint32) string {
	var buf [96]byte
	b := append(append(buf[:0], cleanName(owner)...), ',')
	b = append(append(b, cleanName(group)...), ',')
	return string(strconv.AppendUint(b, uint64(mode), 8))
}

// token makes a fingerprint of a change token. What can't be kept verbatim, and a
// weak entity tag, which does not promise equal bytes, is unknown.
func token(prefix, tok, meta string) Fingerprint {
	if tok == "" || len(tok) > maxToken || !printable(tok) || strings.HasPrefix(tok, "W/") {
		return Fingerprint{Meta: meta}
	}
	return Fingerprint{Content: prefix + tok, Meta: meta}
}

// cleanName is clean for one of several names that commas join.
func cleanName(s string) string {
	if strings.ContainsRune(s, ',') {
		return hashed(s)
	}
	return clean(s, maxName)
}

// clean returns s if it may stand in a part and is not longer than limit, else a
// hash of it. What looks like a hash is hashed too, so no two texts meet.
func clean(s string, limit int) string {
	if len(s) > limit || !printable(s) || strings.HasPrefix(s, hashMark) {
		return hashed(s)
	}
	return s
}

func hashed(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hashMark + base64.RawURLEncoding.EncodeToString(sum[:12])
}

func printable(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == ';' {
			return false
		}
	}
	return true
}
