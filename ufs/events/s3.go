package events

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/freshet-io/freshet/fingerprint"
)

const s3Scheme = "s3://"

// s3Record is a record of a notification by S3 or a server that does likewise.
type s3Record struct {
	EventSource text `json:"eventSource"`
	EventName   text `json:"eventName"`
	EventTime   text `json:"eventTime"`
	S3          *struct {
		Bucket struct {
			Name text `json:"name"`
			ARN  text `json:"arn"`
		} `json:"bucket"`
		Object struct {
			Key  text `json:"key"`
			Size text `json:"size"`
			ETag text `json:"eTag"`
		} `json:"object"`
	} `json:"s3"`
}

func (p *parser) s3Records(records []json.RawMessage) error {
	for _, raw := range records {
		if err := p.s3Record(raw); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) s3Record(raw json.RawMessage) error {
	var r s3Record
	switch err := json.Unmarshal(raw, &r); {
	case err != nil:
		return p.unread("a record is not like one of S3: %v", err)
	case r.S3 == nil:
		return p.skip(SkipForeign)
	}
	bucket := r.S3.Bucket.Name
	if bucket == "" {
		bucket = bucketOfARN(r.S3.Bucket.ARN)
	}
	key := string(r.S3.Object.Key)
	if bucket == "" || key == "" {
		return p.unread("a record of S3 names no bucket or no key")
	}
	name, prefixed := strings.CutPrefix(string(r.EventName), "s3:")
	o := object{
		authority: s3Scheme + string(bucket), at: when(r.EventTime),
		// AWS encodes keys. Others put "s3:" before the event or name themselves
		// as the source, and not all of them encode.
		names: spellings(key, r.EventSource == "aws:s3" && !prefixed && name != ""),
	}
	switch {
	case strings.HasPrefix(name, "ObjectRemoved:"), strings.HasPrefix(name, "LifecycleExpiration:"):
		o.change = removed
	case strings.HasPrefix(name, "ObjectCreated:"):
		o.version = s3Version(r.S3.Object.ETag, r.S3.Object.Size)
	}
	return p.add(o)
}

// bucketOfARN returns the bucket of arn:aws:s3:::bucket, to which some servers
// append the key.
func bucketOfARN(arn text) text {
	parts := strings.SplitN(string(arn), ":", 6)
	if len(parts) != 6 || parts[2] != "s3" {
		return ""
	}
	bucket, _, _ := strings.Cut(parts[5], "/")
	return text(bucket)
}

// s3Version is unknown unless both are told.
func s3Version(etag, size text) fingerprint.Fingerprint {
	n, err := strconv.ParseInt(string(size), 10, 64)
	if err != nil || n < 0 {
		return fingerprint.Fingerprint{}
	}
	if v := fingerprint.S3(string(etag), n); v.Known() {
		return v
	}
	return fingerprint.Fingerprint{}
}

// eventBridge reads an event of Amazon EventBridge, in which keys are not encoded.
func (p *parser) eventBridge(body []byte) error {
	var m struct {
		DetailType text `json:"detail-type"`
		Source     text `json:"source"`
		Time       text `json:"time"`
		Detail     struct {
			Bucket struct {
				Name text `json:"name"`
			} `json:"bucket"`
			Object struct {
				Key  text `json:"key"`
				Size text `json:"size"`
				ETag text `json:"etag"`
			} `json:"object"`
		} `json:"detail"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return err
	}
	if m.Source != "aws.s3" {
		return p.skip(SkipForeign)
	}
	d := &m.Detail
	switch {
	case d.Bucket.Name == "" && d.Object.Key == "" && !strings.HasPrefix(string(m.DetailType), "Object "):
		return p.skip(SkipForeign)
	case d.Bucket.Name == "" || d.Object.Key == "":
		return p.unread("an event of EventBridge names no bucket or no key")
	}
	o := object{authority: s3Scheme + string(d.Bucket.Name), names: []string{string(d.Object.Key)}, at: when(m.Time)}
	switch m.DetailType {
	case "Object Deleted":
		o.change = removed
	case "Object Created":
		o.version = s3Version(d.Object.ETag, d.Object.Size)
	}
	return p.add(o)
}
