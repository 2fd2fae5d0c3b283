package events

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// OptionName is the name of the option by which a mount of an object store says
// where it hears of changes.
const OptionName = "events"

// Values of the option.
const (
	OptionWebhook = "webhook"
	OptionSQS     = "sqs:" // before the URL of a queue; S3 only
)

const webhookPrefix = "webhook:"

// Option returns the row of the option for a storage that is heard of by the
// webhook only.
func Option() ufs.Option {
	return ufs.Option{Name: OptionName, Type: ufs.OptionChoice, Choices: []string{OptionWebhook}, Help: "webhook: the storage tells of changes by POST to /v1/events of a coordinator"}
}

// Webhook returns the source of mounts of the storage authority which the webhook
// feeds. It is never complete: who posts may lose or invent messages.
func Webhook(authority string) ufs.WatchSource {
	return ufs.WatchSource{ID: webhookPrefix + authority}
}

// IsWebhook returns the storage that a source made by Webhook is about.
func IsWebhook(id string) (authority string, ok bool) {
	return strings.CutPrefix(id, webhookPrefix)
}

// Hooked is the ufs.Watcher of a storage that is heard of by the webhook only. A
// driver embeds it.
type Hooked struct {
	on    bool
	place ufs.Place
}

// NewHooked returns the Watcher of a mount at place, by the value of the option.
func NewHooked(option string, place ufs.Place) Hooked {
	return Hooked{on: option == OptionWebhook, place: place}
}

// Place returns where the mount lies.
func (h Hooked) Place() ufs.Place { return h.place }

// WatchSource returns the webhook's source, or KindInvalid if the option is not set.
func (h Hooked) WatchSource() (ufs.WatchSource, error) {
	if !h.on {
		return ufs.WatchSource{}, freshet.Errorf(freshet.KindInvalid, "watch", "", "the mount says not where it hears of changes: set the option %s=%s and let the storage post there", OptionName, OptionWebhook)
	}
	return Webhook(h.place.Authority), nil
}

// Watch is KindUnsupported: messages come by the webhook, not from here.
func (h Hooked) Watch(context.Context, []byte) iter.Seq2[ufs.Notice, error] {
	return func(yield func(ufs.Notice, error) bool) {
		yield(ufs.Notice{}, &freshet.Error{Op: "watch", Kind: freshet.KindUnsupported, Err: fmt.Errorf("changes of %s come by the webhook", h.place.Authority)})
	}
}
