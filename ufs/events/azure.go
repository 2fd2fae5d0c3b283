package events

import (
	"encoding/json"
	"net/url"
	"strings"

	"github.com/freshet-io/freshet/fingerprint"
)

const (
	azurePrefix    = "Microsoft.Storage."
	azureHandshake = "Microsoft.EventGrid.SubscriptionValidationEvent"
	gcsEventPrefix = "google.cloud.storage.object."
)

// cloudEvent is an event in the schema of CloudEvents 1.0.
type cloudEvent struct {
	Type    text            `json:"type"`
	Source  text            `json:"source"`
	Subject text            `json:"subject"`
	Time    text            `json:"time"`
	Data    json.RawMessage `json:"data"`
}

func (p *parser) cloudEvent(body []byte) error {
	var m cloudEvent
	if err := json.Unmarshal(body, &m); err != nil {
		return err
	}
	if strings.HasPrefix(string(m.Type), gcsEventPrefix) {
		return p.gcsCloudEvent(&m)
	}
	return p.azure(&m)
}

// eventGrid reads an event in the schema of Azure Event Grid.
func (p *parser) eventGrid(body []byte) error {
	var m struct {
		Topic     text            `json:"topic"`
		Subject   text            `json:"subject"`
		EventType text            `json:"eventType"`
		EventTime text            `json:"eventTime"`
		Data      json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return err
	}
	return p.azure(&cloudEvent{Type: m.EventType, Source: m.Topic, Subject: m.Subject, Time: m.EventTime, Data: m.Data})
}

// azureData is what an event of Azure Storage says besides its subject.
type azureData struct {
	ETag           text   `json:"eTag"`
	ContentLength  *int64 `json:"contentLength"`
	URL            text   `json:"url"`
	SourceURL      text   `json:"sourceUrl"`
	DestinationURL text   `json:"destinationUrl"`
	ValidationCode text   `json:"validationCode"`
}

func (p *parser) azure(m *cloudEvent) error {
	var d azureData
	_ = json.Unmarshal(m.Data, &d) // the subject suffices
	if m.Type == azureHandshake {
		p.msg.Validation = string(d.ValidationCode)
		return p.skip(SkipHandover)
	}
	what, ok := strings.CutPrefix(string(m.Type), azurePrefix)
	if !ok || !strings.HasPrefix(what, "Blob") && !strings.HasPrefix(what, "Directory") || strings.HasPrefix(what, "BlobInventory") {
		return p.skip(SkipForeign)
	}
	if what == "BlobRenamed" || what == "DirectoryRenamed" {
		return p.azureRename(m, &d)
	}
	o := object{at: when(m.Time)}
	switch what {
	case "BlobCreated":
		if d.ContentLength == nil {
			break
		}
		if v := fingerprint.AzureBlob(string(d.ETag), *d.ContentLength); v.Known() {
			o.version = v
		}
	case "BlobDeleted":
		o.change = removed
	case "DirectoryCreated":
		o.change = movedAll
	case "DirectoryDeleted":
		o.change = removedAll
	}
	account, container, name := blobOfURL(d.URL)
	if topic := accountOf(m.Source); topic != "" {
		account = topic
	}
	if c, n, ok := blobOfSubject(m.Subject); ok {
		container = c
		o.names = append(o.names, n)
	}
	if account == "" || container == "" || name == "" && len(o.names) == 0 {
		return p.unread("an event of Azure names no account, container or blob")
	}
	o.authority = azureAuthority(account, container)
	o.names = append(o.names, azureSpellings(name)...)
	return p.add(o)
}

// azureRename marks both ends; each may be a directory, or in another container.
func (p *parser) azureRename(m *cloudEvent, d *azureData) error {
	for _, end := range []text{d.SourceURL, d.DestinationURL} {
		account, container, name := blobOfURL(end)
		if topic := accountOf(m.Source); topic != "" {
			account = topic
		}
		if account == "" || container == "" || name == "" {
			if err := p.unread("a renaming on Azure names no source or no destination"); err != nil {
				return err
			}
			continue
		}
		o := object{authority: azureAuthority(account, container), names: azureSpellings(name), change: movedAll, at: when(m.Time)}
		if err := p.add(o); err != nil {
			return err
		}
	}
	return nil
}

// azureAuthority is that of a mount of the container.
func azureAuthority(account, container string) string {
	return "abfs://" + container + "@" + strings.ToLower(account)
}

// accountOf returns the account in a topic such as
// /subscriptions/…/providers/Microsoft.Storage/storageAccounts/ACCOUNT.
func accountOf(topic text) string {
	parts := strings.Split(string(topic), "/")
	for i, part := range parts[:len(parts)-1] {
		if strings.EqualFold(part, "storageAccounts") {
			return parts[i+1]
		}
	}
	return ""
}

// blobOfSubject reads /blobServices/default/containers/CONTAINER/blobs/NAME.
func blobOfSubject(subject text) (container, name string, ok bool) {
	_, rest, ok := strings.Cut(string(subject), "/containers/")
	if !ok {
		return "", "", false
	}
	container, name, ok = strings.Cut(rest, "/blobs/")
	return container, name, ok && container != "" && name != ""
}

// blobOfURL reads https://ACCOUNT.blob.core.windows.net/CONTAINER/NAME, where not
// all senders encode the name.
func blobOfURL(raw text) (account, container, name string) {
	_, rest, ok := strings.Cut(string(raw), "://")
	if !ok {
		return "", "", ""
	}
	host, path, _ := strings.Cut(rest, "/")
	account, _, _ = strings.Cut(host, ".")
	container, name, _ = strings.Cut(path, "/")
	return account, container, name
}

// azureSpellings returns what the name in a URL may mean.
func azureSpellings(name string) []string {
	decoded, err := url.PathUnescape(name)
	switch {
	case name == "":
		return nil
	case err != nil || decoded == name:
		return []string{name}
	}
	return []string{decoded, name}
}
