package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
)

// Store is one bucket of an object store, in plain values: the whole of what a
// driver has to supply. Names are those of the objects in the bucket. All methods
// are safe for concurrent use.
//
// Errors carry a Kind (see Errorf); FS adds the operation and the key. An outage,
// a missing bucket and an answer that is not of such a storage are
// KindUnavailable, never KindNotExist; a refusal is KindPermission; a store that
// can't be retried into success says so by another Kind. A call whose ctx ended is
// KindDeadline.
//
// Effects (Put, Parts.Complete, Copy, Mark, Delete) are sent at most once, unless
// a repetition can do no harm, and only while ctx has not ended by the clocks
// (C13). KindDeadline says that the effect may have happened or may yet happen;
// any other Kind says that it neither did nor will. ufs.ErrNotSent in the chain
// says that the request certainly never left this process, whatever the Kind; of a
// call that sends several, see Outcome.
type Store interface {
	// Limits is constant.
	Limits() Limits

	// Head returns what the store says of one object; KindNotExist if there is
	// none. Where such an answer can't be told from that of a missing bucket it may
	// be KindNotExist all the same: FS lists before it calls anything absent.
	Head(ctx context.Context, name string) (Object, error)

	// List returns one page of the names that begin with a prefix. A missing
	// bucket is KindUnavailable.
	List(ctx context.Context, req ListRequest) (Page, error)

	// Get reads bytes of one version. KindNotExist if there is no object,
	// KindStale if another version is there or Want names none of this kind of
	// store, ErrRange if nothing is at the offset. It need not check that the
	// answer is what was asked for: FS does.
	Get(ctx context.Context, name string, req GetRequest) (Answer, error)

	// Put writes an object by one request. KindExist and KindStale are the
	// refusals of the conditions in opts. The status comes from the answer itself.
	Put(ctx context.Context, name string, data []byte, opts PutOptions) (Object, error)

	// Begin starts an upload in parts. Nothing is visible before Complete. ctx
	// ends with the upload.
	Begin(ctx context.Context, name string, opts PutOptions) (Parts, error)

	// Copy copies the version that from describes to the name to, with its Op.
	// KindStale if from is no longer there.
	Copy(ctx context.Context, from Object, to string) (Object, error)

	// Mark makes the marker of a directory, whose name ends in a slash.
	Mark(ctx context.Context, name string) error

	// Delete removes objects, in no order, up to Limits.DeleteBatch of them. That
	// one is missing is no error.
	Delete(ctx context.Context, names []string) error

	// Close frees what the store holds.
	Close() error
}

// Aborter is implemented by stores that know of uploads that are not finished.
type Aborter interface {
	// AbortUploads ends the uploads of op to name that other processes left, and
	// reports whether no effect of op on that object can land any more.
	AbortUploads(ctx context.Context, name string, op freshet.OpID) (ended bool, err error)
}

// Parts is one upload in parts.
type Parts interface {
	// Part sends part number, counted from 1; several may be sent at a time if
	// Limits.Concurrency allows it. It may be repeated within, since nobody sees
	// it. data is the caller's again when it returns without an error, and nobody's
	// after one.
	Part(ctx context.Context, number int, data []byte) error
	// Complete publishes parts 1 to count, size bytes in all. It is called once,
	// after all of them were sent.
	Complete(ctx context.Context, count int, size int64) (Object, error)
	// Abort drops the upload; no Part is under way then. ended says that nothing
	// of it can be published any more, even by a Complete whose outcome is unknown.
	Abort(ctx context.Context) (ended bool, err error)
}

// Preparer is implemented by Parts of which the storage needs more than the data.
type Preparer interface {
	// Prepare is called once, after Begin, and runs beside Part; it has returned
	// before Complete or Abort is called. Its failure ends the upload.
	Prepare(ctx context.Context) error
}

// Limits say what a store can do and how it wants to be asked.
type Limits struct {
	Kind      string // of Features, such as "s3"
	Bucket    string // for log lines
	ListPage  int    // entries of a page, at most
	SinglePut int    // largest object in bytes that is written by one Put
	PartSize  int    // bytes of a part, unless the file needs larger ones
	MaxPart   int64  // largest part in bytes; 0 is no limit
	MaxParts  int    // parts of one object, at most; 0 is no limit
	// Concurrency is how many parts of one file are sent at a time. With 1 they
	// come in order.
	Concurrency int
	DeleteBatch int // names of one Delete
	// DirObjects says that a directory may also be an object without a slash,
	// which Object.Dir tells. It costs a look before each write that is not vouched
	// for.
	DirObjects bool
	// Segmented says that names may come in the order of their segments ("d", "d/a",
	// "d-x"), as in a hierarchical namespace. A recursive listing is then made of one
	// for each directory.
	Segmented bool

	IfAbsent, IfMatch bool // the store decides these conditions
	OperationMark     bool // Put and Complete keep the OpID
	AbortEndsEffects  bool // as in ufs.Features
	ModTimeResolution time.Duration
	MaxOpLifetime     time.Duration
}

// PartLength returns the length in bytes of the part after sent others of a file of
// size bytes, < 0 if that is not known. It is so large that there are always enough
// parts: where the length is known by as many doublings of PartSize as it takes, else
// by one now and then.
func (l Limits) PartLength(size int64, sent int) int {
	length := int64(l.PartSize)
	switch {
	case size < 0 && l.MaxParts >= 10:
		length <<= sent / (l.MaxParts / 10)
	case l.MaxParts > 0:
		for length < size/int64(max(l.MaxParts-1, 1))+1 {
			length *= 2
		}
	}
	if l.MaxPart > 0 {
		length = min(length, l.MaxPart)
	}
	return int(length)
}

// Object is what a store says of one object.
type Object struct {
	Name        string // in the bucket
	Size        int64
	ModTime     time.Time
	Fingerprint fingerprint.Fingerprint
	Op          freshet.OpID // zero if there is none or the call does not tell
	Dir         bool         // it stands for a directory, although no slash ends its name
}

// ListRequest asks for one page.
type ListRequest struct {
	Prefix string
	// Delimited asks that names with a slash after the prefix be given as their
	// common prefixes.
	Delimited bool
	// StartAfter, if not empty, lets the store leave out names up to and with it.
	// It may ignore that.
	StartAfter string
	// Token is that of the page before; "" for the first one.
	Token string
	Max   int // entries; 0 is Limits.ListPage
}

// Page is one answer to a ListRequest. It may be short, even empty, although
// others follow. Pages are in ascending byte order of the names, unless
// Limits.Segmented; within a page objects and prefixes may be in any.
type Page struct {
	Objects  []Object
	Prefixes []string // common prefixes, each with its slash; one may come on two pages
	Next     string   // token of the next page, "" at the end
	// Segmented says of the first page that shows names, if Limits.Segmented does not,
	// that it should have.
	Segmented bool
}

// GetRequest selects bytes.
type GetRequest struct {
	Want   fingerprint.Fingerprint // unknown: whatever is there
	Offset int64
	Length int64 // < 0: to the end; never 0
}

// Answer is the answer to a Get.
type Answer struct {
	Object Object // as a whole
	Body   io.ReadCloser
	First  int64 // offset of the first byte of Body
	Length int64 // bytes that Body is to have
}

// PutOptions guide a write.
type PutOptions struct {
	Op       freshet.OpID // to be kept with the object, unless zero
	IfAbsent bool
	IfMatch  fingerprint.Fingerprint // unknown: no condition
	Size     int64                   // of the whole object; < 0 if not known
}

// ErrRange is in the chain of the error of a Get whose offset is not below the
// length of the object.
var ErrRange = errors.New("the offset is not in the object")

// Errorf returns the error of a Store.
func Errorf(k freshet.Kind, format string, args ...any) error {
	return &freshet.Error{Kind: k, Err: fmt.Errorf(format, args...)}
}
