package inotify

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/freshet-io/freshet/invalidation"
	hadoopv1 "github.com/freshet-io/freshet/proto/hadoop/v1"
	"github.com/freshet-io/freshet/ufs"
)

// Types of events.
const (
	eventCreate = iota
	eventClose
	eventAppend
	eventRename
	eventMetadata
	eventUnlink
	eventTruncate
)

// edits is an answer of getEditsFromTxid: what the transactions first to last
// changed. Both are -1 if there is none; sync is the last durable one.
type edits struct {
	first, last, sync int64
	batches           []batch
}

// batch is what one transaction changed.
type batch struct {
	txid    int64
	records []invalidation.Record
	// unread says which event was not understood; it may be any change.
	unread string
	digest digest
}

// digest tells transactions of the same number apart.
type digest [16]byte

// newEdits checks and translates an answer.
func newEdits(list *hadoopv1.EventsList) (edits, error) {
	if list == nil || list.FirstTxid == nil || list.LastTxid == nil || list.SyncTxid == nil {
		return edits{}, fmt.Errorf("%w: list of changes without its bounds", errFrame)
	}
	e := edits{first: list.GetFirstTxid(), last: list.GetLastTxid(), sync: list.GetSyncTxid()}
	if e.last < 0 {
		if len(list.GetBatches()) > 0 {
			return edits{}, fmt.Errorf("%w: changes without transactions", errFrame)
		}
		return e, nil
	}
	if e.first < 0 || e.first > e.last {
		return edits{}, fmt.Errorf("%w: transactions %d to %d", errFrame, e.first, e.last)
	}
	at := e.first
	for _, b := range list.GetBatches() {
		if b.Txid == nil || b.GetTxid() < at || b.GetTxid() > e.last {
			return edits{}, fmt.Errorf("%w: transaction %d is not between %d and %d", errFrame, b.GetTxid(), at, e.last)
		}
		at = b.GetTxid()
		e.batches = append(e.batches, newBatch(b))
	}
	return e, nil
}

func newBatch(b *hadoopv1.EventBatch) batch {
	out := batch{txid: b.GetTxid(), digest: digestOf(b)}
	for _, ev := range b.GetEvents() {
		records, err := translate(ev)
		if err != nil {
			out.unread = fmt.Sprintf("transaction %d has an event that is not understood: %v", b.GetTxid(), err)
		}
		out.records = append(out.records, records...)
	}
	return out
}

func digestOf(b *hadoopv1.EventBatch) digest {
	h := sha256.New()
	var n [12]byte
	for _, ev := range b.GetEvents() {
		binary.BigEndian.PutUint32(n[:4], ev.GetType())
		binary.BigEndian.PutUint64(n[4:], uint64(len(ev.GetContents())))
		h.Write(n[:])
		h.Write(ev.GetContents())
	}
	return digest(h.Sum(nil))
}

var errPath = errors.New("its path is not absolute text")

// translate returns what an event changes; nothing for what concerns nobody.
func translate(ev *hadoopv1.Event) ([]invalidation.Record, error) {
	if ev.Type == nil {
		return nil, errors.New("it has no type")
	}
	switch ev.GetType() {
	case eventCreate:
		return translateCreate(ev.GetContents())
	case eventClose, eventTruncate:
		return translateClose(ev.GetContents())
	case eventAppend:
		return translateAppend(ev.GetContents())
	case eventUnlink:
		return translateUnlink(ev.GetContents())
	case eventRename:
		return translateRename(ev.GetContents())
	case eventMetadata:
		return translateMetadata(ev.GetContents())
	}
	return nil, fmt.Errorf("it is of type %d", ev.GetType())
}

func translateCreate(contents []byte) ([]invalidation.Record, error) {
	var ev hadoopv1.CreateEvent
	if err := proto.Unmarshal(contents, &ev); err != nil {
		return nil, err
	}
	r := invalidation.Record{Kind: invalidation.KindCreate, PublishedAt: when(ev.GetCtime())}
	switch {
	case ev.Type == nil:
		return nil, errors.New("it creates nothing known")
	case ev.GetType() == 1:
		r.Kind = invalidation.KindMkdir
	case ev.GetOverwrite():
		r.Kind = invalidation.KindContent
	}
	return record(ev.GetPath(), r)
}

func translateClose(contents []byte) ([]invalidation.Record, error) {
	var ev hadoopv1.CloseEvent
	if err := proto.Unmarshal(contents, &ev); err != nil {
		return nil, err
	}
	return record(ev.GetPath(), invalidation.Record{Kind: invalidation.KindContent, PublishedAt: when(ev.GetTimestamp())})
}

func translateAppend(contents []byte) ([]invalidation.Record, error) {
	var ev hadoopv1.AppendEvent
	if err := proto.Unmarshal(contents, &ev); err != nil {
		return nil, err
	}
	return record(ev.GetPath(), invalidation.Record{Kind: invalidation.KindContent})
}

// translateUnlink: there is one event for the top of a tree, whatever is below it.
func translateUnlink(contents []byte) ([]invalidation.Record, error) {
	var ev hadoopv1.UnlinkEvent
	if err := proto.Unmarshal(contents, &ev); err != nil {
		return nil, err
	}
	return record(ev.GetPath(), invalidation.Record{Kind: invalidation.KindDelete, Recursive: true, PublishedAt: when(ev.GetTimestamp())})
}

func translateMetadata(contents []byte) ([]invalidation.Record, error) {
	var ev hadoopv1.MetadataEvent
	if err := proto.Unmarshal(contents, &ev); err != nil {
		return nil, err
	}
	if ev.Type == nil {
		return nil, errors.New("it changes no known attribute")
	}
	// Each reader makes the NameNode note the time, once an hour and file.
	if ev.GetType() == 0 && ev.Mtime != nil && ev.GetMtime() == -1 {
		return nil, nil
	}
	return record(ev.GetPath(), invalidation.Record{Kind: invalidation.KindMeta})
}

// translateRename takes a move for one of a whole tree, as the event does not
// say what was moved. What Freshet's own drivers do under temporary names is no
// change of anything; the last step, from such a name, is the change.
func translateRename(contents []byte) ([]invalidation.Record, error) {
	var ev hadoopv1.RenameEvent
	if err := proto.Unmarshal(contents, &ev); err != nil {
		return nil, err
	}
	from, to := ev.GetSource(), ev.GetDestination()
	if !legal(from) || !legal(to) {
		return nil, errPath
	}
	r := invalidation.Record{Kind: invalidation.KindRename, Recursive: true, PublishedAt: when(ev.GetTimestamp())}
	switch {
	case temporary(from):
		r.Kind = invalidation.KindContent
		return record(to, r)
	case temporary(to):
		r.Kind = invalidation.KindDelete
		return record(from, r)
	}
	r.Key, r.Key2 = from, to
	return []invalidation.Record{r}, nil
}

// when returns the time of an event, zero if it has none. It is the NameNode's
// clock, for metrics only.
func when(millis int64) time.Time {
	if millis <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(millis)
}

// record returns r for path, nothing for a temporary name.
func record(path string, r invalidation.Record) ([]invalidation.Record, error) {
	if !legal(path) {
		return nil, errPath
	}
	if temporary(path) {
		return nil, nil
	}
	r.Key = path
	return []invalidation.Record{r}, nil
}

func temporary(path string) bool { return ufs.IsTemp(strings.TrimPrefix(path, "/")) }

// legal reports whether path is a key of a domain.
func legal(path string) bool {
	return path == "/" || strings.HasPrefix(path, "/") && !strings.HasSuffix(path, "/") &&
		!strings.Contains(path, "//") && utf8.ValidString(path)
}
