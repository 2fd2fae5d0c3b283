package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/events"
	"github.com/freshet-io/freshet/ufs/object"
)

const optEventsEndpoint = "events_endpoint"

func eventOptions() ufs.OptionTable {
	return ufs.OptionTable{
		{Name: events.OptionName, Help: "where changes by others are told: sqs:URL of a queue that the bucket notifies and nobody else reads; webhook: the bucket posts to /v1/events of a coordinator"},
		{Name: optEventsEndpoint, Help: "URL of the SQS server; default as in the URL of the queue"},
	}
}

// eventsConfig says where changes are heard of.
type eventsConfig struct {
	option   string
	queue    string // URL, "" for none
	endpoint string // of SQS
	name     string // account:name, the end of the queue's ARN
	region   string // of the queue, "" as the mount's
}

func parseEvents(v ufs.Values) (eventsConfig, error) {
	c := eventsConfig{option: v.Text(events.OptionName), endpoint: v.Text(optEventsEndpoint)}
	bad := func(format string, args ...any) (eventsConfig, error) {
		return c, freshet.Errorf(freshet.KindInvalid, "check options", "", "option '"+events.OptionName+"': "+format, args...)
	}
	queue, ok := strings.CutPrefix(c.option, events.OptionSQS)
	switch {
	case !ok && c.endpoint != "":
		return c, freshet.Errorf(freshet.KindInvalid, "check options", "", "option '%s' goes with events=sqs:URL", optEventsEndpoint)
	case c.option == "" || c.option == events.OptionWebhook:
		return c, nil
	case !ok:
		return bad("it is %s or sqs: and the URL of a queue, such as sqs:https://sqs.eu-central-1.amazonaws.com/123456789012/freshet", events.OptionWebhook)
	}
	u, err := url.Parse(queue)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return bad("after sqs: comes the URL of a queue, such as https://sqs.eu-central-1.amazonaws.com/123456789012/freshet")
	}
	if u.User != nil {
		return bad("credentials in the URL; those of the mount are used")
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	if len(parts) < 2 || slices.Contains(parts, "") {
		return bad("the URL of a queue ends with /ACCOUNT/NAME")
	}
	c.queue, c.name = queue, strings.Join(parts[len(parts)-2:], ":")
	c.endpoint = strings.TrimSuffix(cmp.Or(c.endpoint, u.Scheme+"://"+u.Host), "/")
	if host := strings.Split(u.Hostname(), "."); len(host) >= 4 && host[0] == "sqs" && host[2] == "amazonaws" {
		c.region = host[1]
	}
	return c, nil
}

// letterCounter counts the messages of queues.
type letterCounter struct{ c *prometheus.CounterVec }

func newLetterCounter(r prometheus.Registerer) letterCounter {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "freshet_ufs_queue_messages_total",
		Help: "Messages received from queues that tell of changes, by what they were: news, nothing, unread, released.",
	}, []string{"what"})
	if r != nil {
		if err := r.Register(c); err != nil {
			if again, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
				if existing, ok := again.ExistingCollector.(*prometheus.CounterVec); ok {
					c = existing
				}
			}
		}
	}
	return letterCounter{c}
}

func (l letterCounter) add(what string) { l.c.WithLabelValues(what).Inc() }

var (
	_ ufs.Watcher       = (*FS)(nil)
	_ ufs.SourceChecker = (*FS)(nil)
)

// Place returns the bucket and the prefix.
func (f *FS) Place() ufs.Place {
	return ufs.Place{Authority: scheme + "://" + f.store.bucket, Key: "/" + strings.TrimSuffix(f.root, "/")}
}

// WatchSource returns the queue or the webhook. Notifications of S3 come late,
// twice and out of order, and are lost when somebody changes the bucket's
// configuration: neither is complete.
func (f *FS) WatchSource() (ufs.WatchSource, error) {
	switch c := f.store.cfg.events; {
	case c.queue != "":
		return ufs.WatchSource{ID: events.OptionSQS + c.queue}, nil
	case c.option == events.OptionWebhook:
		return events.Webhook(f.Place().Authority), nil
	}
	return ufs.WatchSource{}, freshet.Errorf(freshet.KindInvalid, "watch", "", "the mount says not where it hears of changes: set the option events=sqs:URL of a queue that the bucket notifies, or events=webhook")
}

// Watch receives from the queue.
func (f *FS) Watch(ctx context.Context, since []byte) iter.Seq2[ufs.Notice, error] {
	if f.queue == nil {
		return events.NewHooked(f.store.cfg.events.option, f.Place()).Watch(ctx, since)
	}
	return func(yield func(ufs.Notice, error) bool) {
		r := events.NewReceiver(f.queue, events.ReceiverOptions{
			Own: f.Place().Authority, Retention: f.queue.retention(ctx), Check: f.CheckSource, Count: f.letters.add, Log: f.log,
		})
		for n, err := range r.Watch(ctx, since) {
			if !yield(n, err) {
				return
			}
		}
	}
}

// CheckSource asks whether the bucket notifies the queue of what happens below
// the mount's root. Who may not ask is believed: it is said once.
func (f *FS) CheckSource(ctx context.Context) error {
	const op = "check notifications"
	if f.queue == nil {
		return nil
	}
	out, err := f.store.api.GetBucketNotificationConfiguration(ctx, &awss3.GetBucketNotificationConfigurationInput{Bucket: &f.store.bucket})
	if err != nil {
		err = freshet.Wrap(op, "", f.store.failure(ctx, err, object.Reads))
		if kind := freshet.KindOf(err); kind == freshet.KindPermission || kind == freshet.KindUnsupported {
			f.uncheckable.Do(func() {
				f.log.Warn("can't look whether the bucket notifies the queue; allow s3:GetBucketNotification to be told when it no longer does", "bucket", f.store.bucket, "err", err)
			})
			return nil
		}
		return err
	}
	if why := f.unheard(out); why != "" {
		return freshet.Errorf(freshet.KindInvalid, op, "", "bucket %q %s: add a notification of s3:ObjectCreated:* and s3:ObjectRemoved:* to the queue %s (directly, by SNS or by EventBridge)", f.store.bucket, why, f.store.cfg.events.queue)
	}
	return nil
}

// unheard says what of the mount the queue is not told, "" if nothing. What goes
// to a topic or to EventBridge may reach the queue from there.
func (f *FS) unheard(c *awss3.GetBucketNotificationConfigurationOutput) string {
	if c.EventBridgeConfiguration != nil || len(c.TopicConfigurations) > 0 {
		return ""
	}
	found, reached := false, false
	missing := map[string]bool{"s3:ObjectCreated:": true, "s3:ObjectRemoved:": true}
	for _, q := range c.QueueConfigurations {
		if !strings.HasSuffix(aws.ToString(q.QueueArn), ":"+f.store.cfg.events.name) {
			continue
		}
		found = true
		if !overlaps(q.Filter, f.root) {
			continue
		}
		reached = true
		for _, e := range q.Events {
			for kind := range missing {
				if strings.HasPrefix(string(e), kind) {
					delete(missing, kind)
				}
			}
		}
	}
	switch {
	case !found:
		return "does not notify the queue"
	case !reached:
		return fmt.Sprintf("notifies the queue of other prefixes than %q only", f.root)
	case len(missing) == 1 && missing["s3:ObjectRemoved:"]:
		return "does not notify the queue of removed objects"
	case len(missing) > 0:
		return "does not notify the queue of created objects"
	}
	return ""
}

// overlaps reports whether the filter lets names through that begin with root.
func overlaps(filter *types.NotificationConfigurationFilter, root string) bool {
	if filter == nil || filter.Key == nil {
		return true
	}
	for _, r := range filter.Key.FilterRules {
		if v := aws.ToString(r.Value); strings.EqualFold(string(r.Name), "prefix") && !strings.HasPrefix(v, root) && !strings.HasPrefix(root, v) {
			return false
		}
	}
	return true
}
