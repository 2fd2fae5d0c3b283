package rpc

import (
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/freshet-io/freshet"
)

// Stat, BatchStat and List are asked more often than all else, and the messages of
// their answers cost more than the answers: twenty fields an entry, most of them
// texts, in structs that exist between two encodings only. So these answers are
// written from the values and read into them. The messages are those of
// namespace.proto and types.proto; a field that is added there is added here, or
// the tests fail that hold this to the generated code.

// The fields with their wire types, as they are on the wire.
const (
	asVarint = byte(protowire.VarintType)
	asBytes  = byte(protowire.BytesType)

	entryPath        = 1<<3 | asBytes
	entryKind        = 2<<3 | asBytes
	entryLength      = 3<<3 | asVarint
	entryMtime       = 4<<3 | asBytes
	entryOwner       = 5<<3 | asBytes
	entryGroup       = 6<<3 | asBytes
	entryMode        = 7<<3 | asVarint
	entryFingerprint = 8<<3 | asBytes
	entryFileID      = 9<<3 | asVarint
	entryBlockSize   = 10<<3 | asVarint
	entryMount       = 11<<3 | asVarint
	entryMountPoint  = 12<<3 | asVarint
	entryFromCache   = 13<<3 | asVarint
	entryETag        = 14<<3 | asBytes
	entryCached      = 15<<3 | asVarint
	entryFreshness   = 16 // its number: the key takes two bytes

	freshFresh    = 1<<3 | asVarint
	freshLevel    = 2<<3 | asBytes
	freshInterval = 3<<3 | asBytes
	freshRule     = 4<<3 | asBytes
	freshAge      = 5<<3 | asBytes
	freshDegraded = 6<<3 | asVarint
	freshReason   = 7<<3 | asBytes

	timeSeconds = 1<<3 | asVarint // of a timestamp, and of a duration
	timeNanos   = 2<<3 | asVarint

	statEntry = 1<<3 | asBytes
	statLease = 100 // its number: the key takes two bytes

	batchResult   = 1<<3 | asBytes
	resultEntry   = 1<<3 | asBytes
	resultError   = 2<<3 | asBytes
	resultMessage = 3<<3 | asBytes
	errorKind     = 1<<3 | asBytes
	errorOp       = 2<<3 | asBytes
	errorPath     = 3<<3 | asBytes
	errorLeader   = 4<<3 | asBytes

	pageEntries = 1<<3 | asBytes
	pageToken   = 2<<3 | asBytes

	streamPage = 1<<3 | asBytes
)

var (
	errText  = errors.New("a text is not valid UTF-8")
	errField = errors.New("a field has a number that none can have")
)

// writer appends fields. Fields of their zero value are left out, as they are in
// the messages. The first error stays.
type writer struct {
	b   []byte
	err error
}

func (w *writer) varint(key byte, v uint64) {
	if v != 0 {
		w.b = protowire.AppendVarint(append(w.b, key), v)
	}
}

func (w *writer) bool(key byte, v bool) {
	if v {
		w.b = append(w.b, key, 1)
	}
}

func (w *writer) text(key byte, s string) {
	if s == "" {
		return
	}
	if !utf8.ValidString(s) {
		w.err = errText
	}
	w.b = protowire.AppendString(append(w.b, key), s)
}

// open begins a message in a field, whose key was appended; end ends it.
func (w *writer) open() (at int) {
	w.b = append(w.b, 0) // most lengths take one byte or two
	return len(w.b)
}

func (w *writer) end(at int) {
	n := len(w.b) - at
	if n < 1<<7 {
		w.b[at-1] = byte(n)
		return
	}
	var room [10]byte
	more := protowire.SizeVarint(uint64(n)) - 1
	w.b = append(w.b, room[:more]...)
	copy(w.b[at+more:], w.b[at:at+n])
	protowire.AppendVarint(w.b[:at-1], uint64(n))
}

func (w *writer) message(key byte) (at int) {
	w.b = append(w.b, key)
	return w.open()
}

// The first second that a timestamp can hold, and the first that it can't.
const (
	minSeconds = -62135596800
	maxSeconds = 253402300800
)

func (w *writer) time(key byte, t time.Time) {
	if t.IsZero() {
		return
	}
	if sec := t.Unix(); sec < minSeconds || sec >= maxSeconds {
		t = wireTime(t)
	}
	w.span(key, t.Unix(), int64(t.Nanosecond()))
}

func (w *writer) span(key byte, seconds, nanos int64) {
	at := w.message(key)
	w.varint(timeSeconds, uint64(seconds))
	w.varint(timeNanos, uint64(nanos))
	w.end(at)
}

// entry appends the fields of an entry up to its ETag.
func (w *writer) entry(in *freshet.Info) {
	w.text(entryPath, string(in.Path))
	w.text(entryKind, in.Type.String())
	w.varint(entryLength, uint64(in.Length))
	w.time(entryMtime, in.ModTime)
	w.text(entryOwner, in.Owner)
	w.text(entryGroup, in.Group)
	w.varint(entryMode, uint64(in.Mode))
	at := w.message(entryFingerprint)
	w.b = in.Fingerprint.Append(w.b)
	w.end(at)
	w.varint(entryFileID, uint64(in.FileID))
	w.varint(entryBlockSize, uint64(in.BlockSize))
	w.varint(entryMount, uint64(in.Mount))
	w.bool(entryMountPoint, in.MountPoint)
	w.bool(entryFromCache, in.FromCache)
	if in.Fingerprint.Known() {
		at := w.message(entryETag)
		w.b = in.Fingerprint.AppendETag(w.b)
		w.end(at)
	}
}

func (w *writer) status(key byte, in *freshet.Status) {
	at := w.message(key)
	w.entry(&in.Info)
	w.varint(entryCached, uint64(in.CachedBytes))
	w.b = protowire.AppendTag(w.b, entryFreshness, protowire.BytesType)
	inner := w.open()
	f := &in.Freshness
	w.bool(freshFresh, f.Fresh)
	w.text(freshLevel, f.Level.String())
	w.text(freshInterval, f.Interval.String())
	w.text(freshRule, string(f.Rule))
	if f.Age >= 0 { // a negative one means "never"
		w.span(freshAge, int64(f.Age/time.Second), int64(f.Age%time.Second))
	}
	w.bool(freshDegraded, f.Degraded)
	w.text(freshReason, f.DegradedReason)
	w.end(inner)
	w.end(at)
}

func (w *writer) page(in *freshet.ListPage) {
	for i := range in.Entries {
		at := w.message(pageEntries)
		w.entry(&in.Entries[i])
		w.end(at)
	}
	w.text(pageToken, in.NextPageToken)
}

// entrySize is about how long an entry is on the wire.
func entrySize(in *freshet.Info) int {
	f := &in.Fingerprint
	return 112 + len(in.Path) + len(in.Owner) + len(in.Group) + len(f.Content) + len(f.Change) + len(f.Meta)
}

// statusSize is about how much longer a status is.
const statusSize = 64

// answerStat is a StatResponse. err of this and the others is why what was read
// stands for no value, though it is the message.
type answerStat struct {
	status freshet.Status
	err    error
}

func (a *answerStat) size() int { return entrySize(&a.status.Info) + statusSize }

func (a *answerStat) appendTo(b []byte) ([]byte, error) {
	w := writer{b: b}
	w.status(statEntry, &a.status)
	if ns := leaseTimeToWire(a.status.Lease); ns != 0 {
		w.b = protowire.AppendVarint(protowire.AppendTag(w.b, statLease, protowire.VarintType), ns)
	}
	return w.b, w.err
}

// answerBatch is a BatchStatResponse.
type answerBatch struct {
	outcomes []freshet.StatOutcome
	paths    []string // as they were asked for
	err      error
}

func (a *answerBatch) size() int {
	n := 0
	for i := range a.outcomes {
		n += entrySize(&a.outcomes[i].Status.Info) + statusSize
	}
	return n
}

func (a *answerBatch) appendTo(b []byte) ([]byte, error) {
	w := writer{b: b}
	for i := range a.outcomes {
		at := w.message(batchResult)
		if err := a.outcomes[i].Err; err != nil {
			inner := w.message(resultError)
			w.text(errorKind, kindOf(err).String())
			w.text(errorPath, a.paths[i])
			w.end(inner)
			w.text(resultMessage, strings.ToValidUTF8(err.Error(), "\ufffd"))
		} else {
			w.status(resultEntry, &a.outcomes[i].Status)
		}
		w.end(at)
	}
	return w.b, w.err
}

// answerPage is a ListResponse, or a ListStreamResponse if streamed is set.
type answerPage struct {
	page     freshet.ListPage
	streamed bool
	err      error
}

func (a *answerPage) size() int {
	n := len(a.page.NextPageToken) + 16
	for i := range a.page.Entries {
		n += entrySize(&a.page.Entries[i])
	}
	return n
}

func (a *answerPage) appendTo(b []byte) ([]byte, error) {
	w := writer{b: b}
	if !a.streamed {
		w.page(&a.page)
		return w.b, w.err
	}
	at := w.message(streamPage)
	w.page(&a.page)
	w.end(at)
	return w.b, w.err
}
