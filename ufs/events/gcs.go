package events

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/freshet-io/freshet/fingerprint"
)

const gcsScheme = "gs://"

// gcsResource is the part of an object's description by Cloud Storage that is of
// use. Names are not encoded.
type gcsResource struct {
	Bucket         text `json:"bucket"`
	Name           text `json:"name"`
	Generation     text `json:"generation"`
	Metageneration text `json:"metageneration"`
	Updated        text `json:"updated"`
}

func (r *gcsResource) version() fingerprint.Fingerprint {
	g, err := strconv.ParseInt(string(r.Generation), 10, 64)
	if err != nil || g <= 0 {
		return fingerprint.Fingerprint{}
	}
	m, err := strconv.ParseInt(string(r.Metageneration), 10, 64)
	if err != nil || m <= 0 {
		return fingerprint.Fingerprint{}
	}
	return fingerprint.GCS(g, m)
}

// pubSub reads a message of Google Pub/Sub as it is pushed or pulled.
func (p *parser) pubSub(body []byte) error {
	var m struct {
		Message *struct {
			Attributes map[string]text `json:"attributes"`
			Data       []byte          `json:"data"`
		} `json:"message"`
	}
	switch err := json.Unmarshal(body, &m); {
	case err != nil:
		return err
	case m.Message == nil:
		return p.unread("a message of Pub/Sub is empty")
	}
	a := m.Message.Attributes
	if a["eventType"] == "" && a["bucketId"] == "" && a["objectId"] == "" {
		return p.skip(SkipForeign)
	}
	var r gcsResource
	_ = json.Unmarshal(m.Message.Data, &r) // the payload may be NONE: attributes suffice
	if r.Bucket != a["bucketId"] || r.Name != a["objectId"] || r.Generation != a["objectGeneration"] {
		r = gcsResource{Bucket: a["bucketId"], Name: a["objectId"]}
	}
	o := object{at: when(a["eventTime"])}
	switch a["eventType"] {
	case "OBJECT_FINALIZE", "OBJECT_METADATA_UPDATE":
		o.version = r.version()
	case "OBJECT_DELETE", "OBJECT_ARCHIVE":
		if a["overwrittenByGeneration"] == "" {
			o.change = removed
		}
	}
	return p.gcs(o, &r)
}

func (p *parser) gcs(o object, r *gcsResource) error {
	if r.Bucket == "" || r.Name == "" {
		return p.unread("a message of Cloud Storage names no bucket or no object")
	}
	o.authority, o.names = gcsScheme+string(r.Bucket), []string{string(r.Name)}
	return p.add(o)
}

// gcsObject reads an object's description by itself, as Pub/Sub pushes it
// without its wrapper: what happened is in headers then, so that the object may
// be gone as well.
func (p *parser) gcsObject(body []byte) error {
	var r gcsResource
	if err := json.Unmarshal(body, &r); err != nil {
		return err
	}
	return p.gcs(object{change: removed, at: when(r.Updated)}, &r)
}

// gcsCloudEvent reads an event that Eventarc sends.
func (p *parser) gcsCloudEvent(m *cloudEvent) error {
	var r gcsResource
	_ = json.Unmarshal(m.Data, &r) // the subject suffices
	o := object{at: when(m.Time)}
	switch strings.TrimPrefix(string(m.Type), gcsEventPrefix) {
	case "v1.finalized", "v1.metadataUpdated":
		o.version = r.version()
	case "v1.deleted", "v1.archived":
		o.change = removed // perhaps by a newer generation: this event doesn't tell
	}
	if _, bucket, ok := strings.Cut(string(m.Source), "/buckets/"); ok && r.Bucket == "" {
		r.Bucket = text(bucket)
	}
	if name, ok := strings.CutPrefix(string(m.Subject), "objects/"); ok && r.Name == "" {
		r.Name = text(name)
	}
	return p.gcs(o, &r)
}
