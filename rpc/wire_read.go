package rpc

import (
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/freshet-io/freshet"
)

// cursor goes through the fields of a message. Those that are neither a varint nor
// bytes it skips; what it gives that its user does not know is skipped by it.
type cursor struct {
	rest []byte
	err  error

	key   uint64 // number and wire type
	value uint64 // of a varint
	bytes []byte // of what has a length
}

func (c *cursor) next() bool {
	for len(c.rest) > 0 && c.err == nil {
		number, t, n := protowire.ConsumeTag(c.rest)
		if n < 0 || number > protowire.MaxValidNumber {
			return c.fail(n)
		}
		c.rest = c.rest[n:]
		c.key = protowire.EncodeTag(number, t)
		switch t {
		case protowire.VarintType:
			c.value, n = protowire.ConsumeVarint(c.rest)
		case protowire.BytesType:
			c.bytes, n = protowire.ConsumeBytes(c.rest)
		default:
			n = protowire.ConsumeFieldValue(number, t, c.rest)
		}
		if n < 0 {
			return c.fail(n)
		}
		c.rest = c.rest[n:]
		if t == protowire.VarintType || t == protowire.BytesType {
			return true
		}
	}
	return false
}

// fail ends the reading; code is what protowire returned, if that is an error.
func (c *cursor) fail(code int) bool {
	if c.err = protowire.ParseError(code); c.err == nil {
		c.err = errField
	}
	return false
}

// text returns the bytes of a text.
func (c *cursor) text() []byte {
	if !utf8.Valid(c.bytes) {
		c.err = errText
	}
	return c.bytes
}

// The fields of messages as they were read. Where a message is repeated that may
// be there once, the later one lies over the earlier, as the format has it; so a
// struct is reset by whoever reads the next into it.
type (
	span struct {
		set            bool
		seconds, nanos int64
	}
	freshFields struct {
		fresh, degraded               bool
		level, interval, rule, reason []byte
		age                           span
	}
	entryFields struct {
		path, kind, owner, group, fingerprint []byte
		length, blockSize, cached             int64
		mtime                                 span
		mode                                  uint32
		file, mount                           uint64
		mountPoint, fromCache                 bool
		freshness                             freshFields
	}
	resultFields struct {
		entry           entryFields
		hasEntry, isBad bool
		kind, path      []byte
		message         []byte
	}
)

func (s *span) read(b []byte) error {
	s.set = true
	c := cursor{rest: b}
	for c.next() {
		switch c.key {
		case uint64(timeSeconds):
			s.seconds = int64(c.value)
		case uint64(timeNanos):
			s.nanos = int64(int32(c.value))
		}
	}
	return c.err
}

func (f *freshFields) read(b []byte) error {
	c := cursor{rest: b}
	for c.next() {
		switch c.key {
		case uint64(freshFresh):
			f.fresh = c.value != 0
		case uint64(freshLevel):
			f.level = c.text()
		case uint64(freshInterval):
			f.interval = c.text()
		case uint64(freshRule):
			f.rule = c.text()
		case uint64(freshAge):
			c.into(f.age.read)
		case uint64(freshDegraded):
			f.degraded = c.value != 0
		case uint64(freshReason):
			f.reason = c.text()
		}
	}
	return c.err
}

// into lets read have a message.
func (c *cursor) into(read func([]byte) error) { c.err = read(c.bytes) }

func (e *entryFields) read(b []byte) error { //nolint:cyclop // one case a field
	c := cursor{rest: b}
	for c.next() {
		switch c.key {
		case uint64(entryPath):
			e.path = c.text()
		case uint64(entryKind):
			e.kind = c.text()
		case uint64(entryLength):
			e.length = int64(c.value)
		case uint64(entryMtime):
			c.into(e.mtime.read)
		case uint64(entryOwner):
			e.owner = c.text()
		case uint64(entryGroup):
			e.group = c.text()
		case uint64(entryMode):
			e.mode = uint32(c.value)
		case uint64(entryFingerprint):
			e.fingerprint = c.text()
		case uint64(entryFileID):
			e.file = c.value
		case uint64(entryBlockSize):
			e.blockSize = int64(c.value)
		case uint64(entryMount):
			e.mount = c.value
		case uint64(entryMountPoint):
			e.mountPoint = c.value != 0
		case uint64(entryFromCache):
			e.fromCache = c.value != 0
		case uint64(entryETag):
			c.text() // the fingerprint says more
		case uint64(entryCached):
			e.cached = int64(c.value)
		case entryFreshness<<3 | uint64(asBytes):
			c.into(e.freshness.read)
		}
	}
	return c.err
}

func (r *resultFields) read(b []byte) error {
	c := cursor{rest: b}
	for c.next() {
		switch c.key {
		case uint64(resultEntry):
			r.hasEntry = true
			c.into(r.entry.read)
		case uint64(resultError):
			r.isBad = true
			c.into(r.readError)
		case uint64(resultMessage):
			r.message = c.text()
		}
	}
	return c.err
}

func (r *resultFields) readError(b []byte) error {
	c := cursor{rest: b}
	for c.next() {
		switch c.key {
		case uint64(errorKind):
			r.kind = c.text()
		case uint64(errorPath):
			r.path = c.text()
		case uint64(errorOp), uint64(errorLeader):
			c.text()
		}
	}
	return c.err
}

// maker makes values of fields. What entries of one answer have in common it makes
// once.
type maker struct {
	scratch               []byte
	owner, group, rule    string
	levelText             string
	level                 freshet.Level
	intervalText          string
	interval              freshet.Interval
	knowsLevel, knowsTime bool
}

// same returns b as a text, and last itself if it is the same.
func same(last *string, b []byte) string {
	if string(b) != *last {
		*last = string(b)
	}
	return *last
}

// info sets out to what EntryOfWire makes of the message. Its path and fingerprint
// are one text.
func (m *maker) info(e *entryFields, out *freshet.Info) error {
	m.scratch = append(append(m.scratch[:0], e.path...), e.fingerprint...)
	text := string(m.scratch)
	fp, err := fingerprintOfWire(text[len(e.path):])
	if err != nil {
		return err
	}
	typ, err := typeOfWire(e.kind)
	if err != nil {
		return err
	}
	*out = freshet.Info{
		Path: freshet.Path(text[:len(e.path)]), Type: typ, Length: e.length,
		Owner: same(&m.owner, e.owner), Group: same(&m.group, e.group), Mode: e.mode, Fingerprint: fp,
		FileID: freshet.FileID(e.file), BlockSize: e.blockSize, Mount: freshet.MountID(e.mount),
		MountPoint: e.mountPoint, FromCache: e.fromCache,
	}
	if e.mtime.set {
		out.ModTime = time.Unix(e.mtime.seconds, e.mtime.nanos).UTC()
	}
	return nil
}

// status sets out to the entry and what freshnessOfWire makes of the message.
func (m *maker) status(e *entryFields, out *freshet.Status) error {
	if err := m.info(e, &out.Info); err != nil {
		return err
	}
	out.CachedBytes = e.cached
	f := &e.freshness
	out.Freshness = freshet.Freshness{
		Fresh: f.fresh, Rule: freshet.Path(same(&m.rule, f.rule)), Age: -1, Degraded: f.degraded, DegradedReason: string(f.reason),
	}
	if f.age.set {
		out.Freshness.Age = (&durationpb.Duration{Seconds: f.age.seconds, Nanos: int32(f.age.nanos)}).AsDuration()
	}
	var err error
	if !m.knowsLevel || m.levelText != string(f.level) {
		if m.level, err = freshet.ParseLevel(same(&m.levelText, f.level)); err != nil {
			return err
		}
		m.knowsLevel = true
	}
	out.Freshness.Level = m.level
	if len(f.interval) == 0 {
		return nil
	}
	if !m.knowsTime || m.intervalText != string(f.interval) {
		if m.interval, err = freshet.ParseInterval(same(&m.intervalText, f.interval)); err != nil {
			return err
		}
		m.knowsTime = true
	}
	out.Freshness.Interval = m.interval
	return nil
}

// outcome returns what one path of a batch came to.
func (m *maker) outcome(r *resultFields) (out freshet.StatOutcome, err error) {
	if !r.isBad {
		return out, m.status(&r.entry, &out.Status)
	}
	kind, known := freshet.ParseKind(string(r.kind))
	if !known {
		kind = freshet.KindInternal
	}
	out.Err = &freshet.Error{Kind: kind, Err: &remoteError{kind: kind, path: freshet.Path(r.path), message: string(r.message)}}
	return out, nil
}

func (a *answerStat) readFrom(b []byte) error {
	var e entryFields
	lease := uint64(0)
	c := cursor{rest: b}
	for c.next() {
		switch c.key {
		case uint64(statEntry):
			c.into(e.read)
		case statLease<<3 | uint64(asVarint):
			lease = c.value
		}
	}
	if c.err == nil {
		var m maker
		a.err = m.status(&e, &a.status)
		a.status.Lease = leaseTimeOfWire(lease)
	}
	return c.err
}

func (a *answerBatch) readFrom(b []byte) error {
	var m maker
	c := cursor{rest: b}
	for c.next() {
		if c.key != uint64(batchResult) {
			continue
		}
		var r resultFields
		if c.into(r.read); c.err == nil && a.err == nil {
			var out freshet.StatOutcome
			out, a.err = m.outcome(&r)
			a.outcomes = append(a.outcomes, out)
		}
	}
	return c.err
}

func (a *answerPage) readFrom(b []byte) error {
	if !a.streamed {
		return a.readPage(b)
	}
	c := cursor{rest: b}
	for c.next() {
		if c.key == uint64(streamPage) {
			c.into(a.readPage)
		}
	}
	return c.err
}

// typicalEntry is about how many bytes an entry takes.
const typicalEntry = 200

func (a *answerPage) readPage(b []byte) error {
	var m maker
	var e entryFields
	if a.page.Entries == nil {
		a.page.Entries = make([]freshet.Info, 0, len(b)/typicalEntry)
	}
	c := cursor{rest: b}
	for c.next() {
		switch c.key {
		case uint64(pageEntries):
			e = entryFields{}
			if c.into(e.read); c.err != nil || a.err != nil {
				continue
			}
			var info freshet.Info
			if a.err = m.info(&e, &info); a.err == nil {
				a.page.Entries = append(a.page.Entries, info)
			}
		case uint64(pageToken):
			a.page.NextPageToken = string(c.text())
		}
	}
	return c.err
}
