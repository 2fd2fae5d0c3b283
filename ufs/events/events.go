// Package events owns the forms in which storages tell of changes of their
// objects: S3 notifications, EventBridge, SNS envelopes, Pub/Sub of Google, Event
// Grid of Azure. It reads a message and says which keys to mark. It does no I/O,
// believes nothing that it reads to be true, and never drops what it can't read
// without saying so.
//
// What a message names is marked, and one mark too many costs a look at the
// storage: so in doubt about the spelling of a name both spellings are marked,
// and a name that is no path becomes the directory above with all that is in it.
package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/freshet-io/freshet/invalidation"
)

// Limits of one message.
const (
	MaxBody    = 1 << 20 // bytes
	MaxRecords = 8192    // changes that the message tells of
	maxEvents  = 4 * MaxRecords
)

// ErrSyntax is the cause of every failed Parse.
var ErrSyntax = errors.New("malformed notification")

// Reasons why a part of a message is no change.
const (
	SkipTest     = "test"      // sent when notifications were set up
	SkipOwn      = "own"       // a temporary name of Freshet
	SkipForeign  = "foreign"   // about something else than an object
	SkipHandover = "handshake" // of a subscription
)

// Event is one change of an object.
type Event struct {
	// Authority names the storage as a mount's URI does: "s3://bucket",
	// "gs://bucket", "abfs://container@account".
	Authority string
	// Record has keys of the storage, no sequence number, and the time of the
	// change by the storage's clock if told.
	Record invalidation.Record
}

// Message is what one notification says.
type Message struct {
	Events []Event
	// Skipped counts parts that are no news, by reason.
	Skipped map[string]int
	// Unread, if not 0, counts changes that could not be made out, and Why says
	// why of the first: who relies on the messages has a gap.
	Unread int
	Why    string
	// Validation is the code that Azure Event Grid wants back.
	Validation string
	// Confirm is the address by which SNS wants a subscription confirmed. It
	// comes from whoever sent the message: never fetch it unasked.
	Confirm string
}

// Parse reads a notification in any of the known forms. An error wraps ErrSyntax
// and means that nothing of it could be read. Safe for concurrent use.
func Parse(body []byte) (Message, error) {
	if len(body) > MaxBody {
		return Message{}, fmt.Errorf("%w: %d bytes, more than %d", ErrSyntax, len(body), MaxBody)
	}
	p := parser{seen: map[Event]bool{}}
	if err := p.document(body, 0); err != nil {
		return Message{}, fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	return p.msg, nil
}

// parser collects what the parts of one message say.
type parser struct {
	msg   Message
	seen  map[Event]bool
	parts int
}

var (
	errTooMany = fmt.Errorf("more than %d changes", MaxRecords)
	errUnknown = errors.New("a form that is not known: expected an S3, EventBridge, SNS, Pub/Sub or Event Grid message")
	errNested  = errors.New("envelopes within envelopes")
)

// maxDepth is how many envelopes may be around a message: an array, SNS.
const maxDepth = 3

// document reads one JSON value: an array of messages, or a message.
func (p *parser) document(body []byte, depth int) error {
	if depth > maxDepth {
		return errNested
	}
	body = bytes.TrimSpace(body)
	if len(body) > 0 && body[0] == '[' {
		var list []json.RawMessage
		if err := json.Unmarshal(body, &list); err != nil {
			return err
		}
		for _, one := range list {
			if err := p.document(one, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	var m form
	if err := json.Unmarshal(body, &m); err != nil {
		return err
	}
	return p.form(&m, body, depth)
}

// form has what tells the forms apart.
type form struct {
	Records     *[]json.RawMessage // S3
	Event       text               // S3, the test event
	DetailType  text               `json:"detail-type"` // EventBridge
	SNSType     text               `json:"Type"`        // SNS, CloudEvents in lower case
	TopicArn    text
	Message     json.RawMessage    // SNS: text; Pub/Sub: an object
	Received    *[]json.RawMessage `json:"receivedMessages"`
	EventType   text               `json:"eventType"` // Event Grid
	SpecVersion text               `json:"specversion"`
	Kind        text               `json:"kind"` // of an object of GCS by itself
}

func (p *parser) form(m *form, body []byte, depth int) error {
	switch {
	case m.Records != nil:
		return p.s3Records(*m.Records)
	case m.Event == "s3:TestEvent":
		return p.skip(SkipTest)
	case m.DetailType != "":
		return p.eventBridge(body)
	case m.SpecVersion != "":
		return p.cloudEvent(body)
	case m.TopicArn != "" && m.SNSType != "":
		return p.sns(string(m.SNSType), body, depth)
	case m.Received != nil:
		for _, one := range *m.Received {
			if err := p.pubSub(one); err != nil {
				return err
			}
		}
		return nil
	case len(m.Message) > 0 && bytes.HasPrefix(bytes.TrimSpace(m.Message), []byte("{")):
		return p.pubSub(body)
	case m.EventType != "":
		return p.eventGrid(body)
	case m.Kind == "storage#object":
		return p.gcsObject(body)
	}
	return errUnknown
}

// sns opens the envelope of Amazon SNS.
func (p *parser) sns(typ string, body []byte, depth int) error {
	var m struct{ Message, SubscribeURL text }
	if err := json.Unmarshal(body, &m); err != nil {
		return err
	}
	switch typ {
	case "Notification":
		return p.document([]byte(m.Message), depth+1)
	case "SubscriptionConfirmation":
		p.msg.Confirm = string(m.SubscribeURL)
	}
	return p.skip(SkipHandover)
}

// part counts one part of the message against the limit.
func (p *parser) part() error {
	if p.parts++; p.parts > MaxRecords {
		return errTooMany
	}
	return nil
}

// skip counts a part that is no news.
func (p *parser) skip(reason string) error {
	if p.msg.Skipped == nil {
		p.msg.Skipped = map[string]int{}
	}
	p.msg.Skipped[reason]++
	return p.part()
}

// unread counts a change that can't be made out.
func (p *parser) unread(format string, args ...any) error {
	if p.msg.Unread == 0 {
		p.msg.Why = fmt.Sprintf(format, args...)
	}
	p.msg.Unread++
	return p.part()
}

// text is a string, or a number written as one: clouds differ.
type text string

// UnmarshalJSON never fails: another type is no text.
func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*t = text(s)
		return nil
	}
	var n json.Number
	if json.Unmarshal(b, &n) == nil {
		*t = text(n)
	}
	return nil
}

// when reads the time of a change; it is for metrics only.
func when(s text) time.Time {
	t, err := time.Parse(time.RFC3339Nano, string(s))
	if err != nil {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Millisecond)
}
