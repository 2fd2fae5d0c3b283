package s3

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/events"
	"github.com/freshet-io/freshet/ufs/httpclient"
	"github.com/freshet-io/freshet/ufs/object"
)

const (
	queueBatch = 10 // messages, the protocol's maximum
	// visibility is how long a message stays ours, in seconds.
	visibility = 30
	// moreReceives go out at once when one brought all that it could: a queue
	// answers each from a part of its servers.
	moreReceives    = 4
	retentionAsk    = 5 * time.Second
	attributeRetain = types.QueueAttributeNameMessageRetentionPeriod
)

// queue is the SQS queue that a bucket notifies.
type queue struct {
	store *store
	log   *slog.Logger
	api   *sqs.Client
	url   string
}

var _ events.Queue = (*queue)(nil)

// openQueue returns the queue of the option events, nil if there is none. It has
// the credentials and the rules of the mount.
func (f *FS) openQueue(creds aws.CredentialsProvider, region string, policy ufs.EndpointPolicy) (*queue, error) {
	c := f.store.cfg.events
	if c.queue == "" {
		return nil, nil //nolint:nilnil // none is an answer
	}
	if err := policy.CheckURL(c.endpoint); err != nil {
		return nil, freshet.Wrap("option '"+events.OptionName+"'", "", err)
	}
	if c.region != "" {
		region = c.region
	}
	return &queue{store: f.store, log: f.log, url: c.queue, api: sqs.New(sqs.Options{
		Region:       region,
		Credentials:  creds,
		BaseEndpoint: &c.endpoint,
		HTTPClient:   f.store.http,
		Retryer:      f.store.again,
	})}, nil
}

// Receive waits for a message, and takes more at once if there are many.
func (q *queue) Receive(ctx context.Context, wait time.Duration) ([]events.Letter, error) {
	const op = "receive from queue"
	first, err := q.receive(ctx, wait)
	if err != nil {
		return nil, q.failure(ctx, op, err)
	}
	if len(first) < queueBatch {
		return first, nil
	}
	var g errgroup.Group
	all := [1 + moreReceives][]events.Letter{first}
	for i := range moreReceives {
		g.Go(func() error {
			all[1+i], _ = q.receive(ctx, 0) // the next Receive tells
			return nil
		})
	}
	_ = g.Wait()
	return slices.Concat(all[:]...), nil
}

func (q *queue) receive(ctx context.Context, wait time.Duration) ([]events.Letter, error) {
	seconds := int32(wait / time.Second)
	out, err := q.api.ReceiveMessage(httpclient.WithPatience(ctx, q.store.cfg.requestTimeout+wait), &sqs.ReceiveMessageInput{
		QueueUrl: &q.url, MaxNumberOfMessages: queueBatch, WaitTimeSeconds: seconds, VisibilityTimeout: visibility,
	})
	if err != nil {
		return nil, err
	}
	letters := make([]events.Letter, 0, len(out.Messages))
	for _, m := range out.Messages {
		letters = append(letters, events.Letter{Receipt: aws.ToString(m.ReceiptHandle), Body: []byte(aws.ToString(m.Body))})
	}
	return letters, nil
}

// Delete deletes letters. One whose time was over is delivered again.
func (q *queue) Delete(ctx context.Context, letters []events.Letter) error {
	const op = "delete from queue"
	var g errgroup.Group
	for batch := range slices.Chunk(letters, queueBatch) {
		g.Go(func() error {
			in := &sqs.DeleteMessageBatchInput{QueueUrl: &q.url}
			for i, l := range batch {
				in.Entries = append(in.Entries, types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: &l.Receipt})
			}
			out, err := q.api.DeleteMessageBatch(ctx, in)
			if err != nil {
				return q.failure(ctx, op, err)
			}
			for _, e := range out.Failed {
				if e.SenderFault && aws.ToString(e.Code) != "ReceiptHandleIsInvalid" {
					return freshet.Errorf(freshet.KindUnavailable, op, "", "the queue %s keeps messages that were handled: %s", q.url, aws.ToString(e.Code))
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// Release makes letters visible to other receivers.
func (q *queue) Release(ctx context.Context, letters []events.Letter) {
	for batch := range slices.Chunk(letters, queueBatch) {
		in := &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &q.url}
		for i, l := range batch {
			in.Entries = append(in.Entries, types.ChangeMessageVisibilityBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: &l.Receipt})
		}
		if _, err := q.api.ChangeMessageVisibilityBatch(ctx, in); err != nil {
			q.log.Info("messages of the queue come back later", "err", q.failure(ctx, "release to queue", err))
			return
		}
	}
}

// retention returns how long the queue keeps messages, 0 if it doesn't say.
func (q *queue) retention(ctx context.Context) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, retentionAsk)
	defer cancel()
	out, err := q.api.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &q.url, AttributeNames: []types.QueueAttributeName{attributeRetain}})
	if err != nil {
		return 0
	}
	seconds, err := strconv.ParseInt(out.Attributes[string(attributeRetain)], 10, 32)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// failure makes the error of the contract from one of SQS.
func (q *queue) failure(ctx context.Context, op string, err error) error {
	status, code := statusOf(err), codeOf(err)
	say := func(kind freshet.Kind, text string) error {
		return &freshet.Error{Op: op, Kind: kind, Err: &object.AnswerError{Text: text, Err: err}}
	}
	switch code {
	case "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue":
		return say(freshet.KindUnavailable, "queue "+q.url+" does not exist: create it, or correct the option events")
	case "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException", "InvalidSecurity", "SignatureDoesNotMatch":
		return say(freshet.KindPermission, "the queue "+q.url+" refuses the mount's credentials ("+code+"): renew them")
	case "AccessDenied", "AccessDeniedException", "KMS.AccessDeniedException", "KmsAccessDenied":
		status = http.StatusForbidden
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return say(freshet.KindPermission, "the queue "+q.url+" denies it: allow sqs:ReceiveMessage, sqs:DeleteMessage, sqs:ChangeMessageVisibility and sqs:GetQueueAttributes to the mount's credentials, and kms:Decrypt if the queue is encrypted")
	case http.StatusNotFound:
		return say(freshet.KindUnavailable, "the endpoint "+q.store.cfg.events.endpoint+" does not answer like an SQS server")
	}
	return freshet.Wrap(op, "", q.store.failure(ctx, err, object.Reads))
}
