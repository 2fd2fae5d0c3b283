package s3_test

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/test/sqstest"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/s3"
)

// hearing is a mount that hears of changes in its bucket by a queue, and clients
// of others.
type hearing struct {
	fs       ufs.FS
	api      *awss3.Client
	queues   *sqs.Client
	bucket   string
	url, arn string // of the queue
	notices  <-chan heard
	server   *sqstest.Server
}

type heard struct {
	n   ufs.Notice
	err error
}

func hear(t *testing.T, srv *sqstest.Server, root string) *hearing {
	t.Helper()
	h := &hearing{server: srv, bucket: srv.NewBucket(t), api: srv.S3(), queues: srv.SQS()}
	h.url, h.arn = srv.NewQueue(t)
	srv.Notify(t, h.bucket, h.arn)
	h.fs = h.open(t, "s3://"+h.bucket+root, map[string]string{"events": "sqs:" + h.url})
	return h
}

func (h *hearing) open(t *testing.T, uri string, more map[string]string) ufs.FS {
	t.Helper()
	opts := map[string]string{
		"endpoint": h.server.Endpoint(), "region": h.server.Region(), "access_key": "env:KEY", "secret_key": "env:SECRET", "retries": "1", "events_endpoint": h.server.Endpoint(),
	}
	maps.Copy(opts, more)
	fs, err := s3.NewOpener(s3.Options{}).Open(ufs.Spec{URI: uri, Options: opts}, ufs.Environment{
		AllowedEndpoints: []string{"127.0.0.0/8"},
		Getenv: func(name string) string {
			return map[string]string{"KEY": h.server.AccessKey(), "SECRET": h.server.SecretKey()}[name]
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fs.Close() })
	return fs
}

// watch follows the mount's queue until the test ends, and returns once the watch
// is established.
func (h *hearing) watch(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c, ended := make(chan heard), make(chan struct{})
	go func() {
		defer close(ended)
		for n, err := range ufs.WatcherOf(h.fs).Watch(ctx, nil) {
			select {
			case c <- heard{n, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	h.notices = c
	if first := h.next(t); first.err != nil {
		t.Fatal(first.err)
	}
}

func (h *hearing) next(t *testing.T) heard {
	t.Helper()
	select {
	case n := <-h.notices:
		return n
	case <-time.After(60 * time.Second):
		t.Fatal("nothing was heard")
		return heard{}
	}
}

// until returns what was heard up to the record that ok accepts.
func (h *hearing) until(t *testing.T, ok func(of string, r invalidation.Record) bool) []invalidation.Record {
	t.Helper()
	var all []invalidation.Record
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); {
		n := h.next(t)
		if n.err != nil {
			t.Fatal(n.err)
		}
		if n.n.Gap != "" {
			t.Errorf("gap: %s", n.n.Gap)
		}
		found := false
		for _, r := range n.n.Changes {
			all = append(all, r)
			found = found || ok(n.n.Of, r)
		}
		if found {
			return all
		}
	}
	t.Fatalf("never heard; heard %+v", all)
	return nil
}

func (h *hearing) put(t *testing.T, key, body string) {
	t.Helper()
	if _, err := h.api.PutObject(t.Context(), &awss3.PutObjectInput{Bucket: &h.bucket, Key: &key, Body: strings.NewReader(body)}); err != nil {
		t.Fatal(err)
	}
}

func (h *hearing) remove(t *testing.T, key string) {
	t.Helper()
	if _, err := h.api.DeleteObject(t.Context(), &awss3.DeleteObjectInput{Bucket: &h.bucket, Key: &key}); err != nil {
		t.Fatal(err)
	}
}

func about(key string) func(string, invalidation.Record) bool {
	return func(_ string, r invalidation.Record) bool { return r.Key == key }
}

// TestQueue asks a server that speaks the protocols of S3 and SQS.
func TestQueue(t *testing.T) {
	srv := sqstest.Start(t)
	t.Run("latency", func(t *testing.T) { queueLatency(t, srv) })
	for name, test := range map[string]func(*testing.T, *sqstest.Server){
		"writes": queueTellsOfWrites, "copies and multipart": queueTellsOfCopiesAndMultipart, "two buckets": queueOfTwoBuckets,
		"shapes and poison": queueShapesAndPoison, "gone or unfed": queueGoneOrUnfed,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, srv)
		})
	}
}

func queueTellsOfWrites(t *testing.T, srv *sqstest.Server) {
	t.Helper()
	h := hear(t, srv, "/p")
	h.watch(t)
	for _, key := range []string{
		"p/plain", "p/with space", "p/plus+plus", "p/percent%20", "p/100%", "p/ümläut", "p/日本", "p/a=b&c?d#e", "p/quote\"'", "p/tilde~-_.!*()", "p/q/w/e/deep", "outside",
	} {
		h.put(t, key, "one")
		got := h.until(t, about("/"+key))
		if rest, ok := strings.CutPrefix(key, "p/"); ok {
			st, err := h.fs.Stat(t.Context(), rest)
			if err != nil {
				t.Fatal(err)
			}
			if i := slices.IndexFunc(got, func(r invalidation.Record) bool { return r.Key == "/"+key }); !got[i].Fingerprint.Equal(st.Fingerprint) {
				t.Errorf("%q: told version %v, have %v", key, got[i].Fingerprint, st.Fingerprint)
			}
		}
		h.put(t, key, "two!")
		h.until(t, func(_ string, r invalidation.Record) bool {
			return r.Key == "/"+key && strings.Contains(r.Fingerprint.Content, ":4:")
		})
		h.remove(t, key)
		h.until(t, func(_ string, r invalidation.Record) bool {
			return r.Key == "/"+key && r.Kind == invalidation.KindDelete
		})
	}
}

func queueTellsOfCopiesAndMultipart(t *testing.T, srv *sqstest.Server) {
	t.Helper()
	h := hear(t, srv, "")
	h.watch(t)
	h.put(t, "dir/a", "x")
	h.until(t, about("/dir/a"))
	if _, err := h.api.CopyObject(t.Context(), &awss3.CopyObjectInput{Bucket: &h.bucket, Key: aws.String("dir/copy"), CopySource: aws.String(h.bucket + "/dir/a")}); err != nil {
		t.Fatal(err)
	}
	h.until(t, about("/dir/copy"))
	key := "dir/big"
	up, err := h.api.CreateMultipartUpload(t.Context(), &awss3.CreateMultipartUploadInput{Bucket: &h.bucket, Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	part, err := h.api.UploadPart(t.Context(), &awss3.UploadPartInput{Bucket: &h.bucket, Key: &key, UploadId: up.UploadId, PartNumber: aws.Int32(1), Body: bytes.NewReader(make([]byte, 6<<20))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.api.CompleteMultipartUpload(t.Context(), &awss3.CompleteMultipartUploadInput{
		Bucket: &h.bucket, Key: &key, UploadId: up.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{ETag: part.ETag, PartNumber: aws.Int32(1)}}},
	}); err != nil {
		t.Fatal(err)
	}
	h.until(t, about("/dir/big"))
	h.put(t, "dir/sub/", "")
	h.until(t, func(_ string, r invalidation.Record) bool {
		return r.Key == "/dir/sub" && r.Kind == invalidation.KindMkdir
	})
	if _, err := h.api.DeleteObjects(t.Context(), &awss3.DeleteObjectsInput{Bucket: &h.bucket, Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: aws.String("dir/a")}, {Key: aws.String("dir/big")}}}}); err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{"/dir/a": true, "/dir/big": true, "/dir": true}
	h.until(t, func(_ string, r invalidation.Record) bool { delete(missing, r.Key); return len(missing) == 0 })
}

// A queue that two buckets notify tells each apart, and a mount that the options
// put elsewhere gets its own keys.
func queueOfTwoBuckets(t *testing.T, srv *sqstest.Server) {
	t.Helper()
	h := hear(t, srv, "/data")
	other := h.server.NewBucket(t)
	h.server.Notify(t, other, h.arn)
	h.watch(t)
	if _, err := h.api.PutObject(t.Context(), &awss3.PutObjectInput{Bucket: &other, Key: aws.String("k"), Body: strings.NewReader("x")}); err != nil {
		t.Fatal(err)
	}
	h.until(t, func(of string, r invalidation.Record) bool { return of == "s3://"+other && r.Key == "/k" })
	moved := h.open(t, "s3://"+h.bucket+"/data", map[string]string{"events": "sqs:" + h.url, "domain": "company", "domain_root": "/x/y"})
	place, ok := ufs.PlaceOf(moved)
	if !ok {
		t.Fatal("no place")
	}
	h.put(t, "data/f", "x")
	h.until(t, func(of string, r invalidation.Record) bool {
		got, ok := place.Translate("/x/y", of, r)
		return ok && got.Key == "/x/y/f"
	})
	src, err := ufs.WatcherOf(moved).WatchSource()
	same, err2 := ufs.WatcherOf(h.fs).WatchSource()
	if err != nil || err2 != nil || src != same || src.Complete {
		t.Errorf("%+v, %v; %+v, %v", src, err, same, err2)
	}
}

func (h *hearing) send(t *testing.T, body string) {
	t.Helper()
	if _, err := h.queues.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &h.url, MessageBody: &body}); err != nil {
		t.Fatal(err)
	}
}

// left returns how many messages the queue has, received ones included.
func (h *hearing) left(t *testing.T) string {
	t.Helper()
	out, err := h.queues.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &h.url, AttributeNames: []sqstypes.QueueAttributeName{"All"}})
	if err != nil {
		t.Fatal(err)
	}
	return out.Attributes["ApproximateNumberOfMessages"] + "+" + out.Attributes["ApproximateNumberOfMessagesNotVisible"]
}

// Messages of every shape, twice, and one that nobody can read.
func queueShapesAndPoison(t *testing.T, srv *sqstest.Server) {
	t.Helper()
	h := hear(t, srv, "")
	h.watch(t)
	inner := `{"Records":[{"eventSource":"aws:s3","eventName":"ObjectRemoved:Delete","s3":{"bucket":{"name":"` + h.bucket + `"},"object":{"key":"by+sns"}}}]}`
	for key, body := range map[string]string{
		"/by sns":    `{"Type":"Notification","TopicArn":"arn:aws:sns:us-east-1:1:t","Message":` + quoted(inner) + `}`,
		"/by bridge": `{"version":"0","detail-type":"Object Created","source":"aws.s3","detail":{"bucket":{"name":"` + h.bucket + `"},"object":{"key":"by bridge","size":1,"etag":"e"}}}`,
		"/prefixed":  `{"Records":[{"eventSource":"aws:s3","eventName":"s3:ObjectCreated:Put","s3":{"bucket":{"name":"` + h.bucket + `","arn":"arn:aws:s3:::` + h.bucket + `/prefixed"},"object":{"key":"prefixed","eTag":"\"e\"","size":1}}}]}`,
	} {
		for range 2 {
			h.send(t, body)
		}
		h.until(t, about(key))
	}
	h.send(t, `{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"`+h.bucket+`"}`)
	h.send(t, "poison")
	for gaps := 0; gaps == 0; {
		n := h.next(t)
		if n.err != nil {
			t.Fatal(n.err)
		}
		if n.n.Gap != "" {
			gaps++
		}
	}
	for deadline := time.Now().Add(60 * time.Second); h.left(t) != "0+0"; {
		if time.Now().After(deadline) {
			t.Fatalf("%s messages are left", h.left(t))
		}
		if n := h.next(t); n.err != nil {
			t.Fatal(n.err)
		}
	}
}

func queueGoneOrUnfed(t *testing.T, srv *sqstest.Server) {
	t.Helper()
	h := hear(t, srv, "/p")
	checker := h.fs.(ufs.SourceChecker)
	if err := checker.CheckSource(t.Context()); err != nil {
		t.Errorf("fed: %v", err)
	}
	configure := func(c *types.NotificationConfiguration) {
		t.Helper()
		if _, err := h.api.PutBucketNotificationConfiguration(t.Context(), &awss3.PutBucketNotificationConfigurationInput{Bucket: &h.bucket, NotificationConfiguration: c}); err != nil {
			t.Fatal(err)
		}
	}
	queue := func(prefix string, on ...types.Event) *types.NotificationConfiguration {
		c := types.QueueConfiguration{QueueArn: &h.arn, Events: on}
		if prefix != "" {
			c.Filter = &types.NotificationConfigurationFilter{Key: &types.S3KeyFilter{FilterRules: []types.FilterRule{{Name: types.FilterRuleNamePrefix, Value: &prefix}}}}
		}
		return &types.NotificationConfiguration{QueueConfigurations: []types.QueueConfiguration{c}}
	}
	both := []types.Event{"s3:ObjectCreated:*", "s3:ObjectRemoved:*"}
	for name, tt := range map[string]struct {
		config *types.NotificationConfiguration
		want   string // "" is fine
	}{
		"all":          {queue("", both...), ""},
		"the mount":    {queue("p/", both...), ""},
		"part of it":   {queue("p/q", both...), ""},
		"elsewhere":    {queue("q/", both...), "other prefixes"},
		"only created": {queue("", both[0]), "removed"},
		"only removed": {queue("", both[1]), "created"},
		"nothing":      {&types.NotificationConfiguration{}, "does not notify"},
	} {
		configure(tt.config)
		err := checker.CheckSource(t.Context())
		if tt.want == "" && err != nil || tt.want != "" && (!freshet.IsKind(err, freshet.KindInvalid) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	configure(&types.NotificationConfiguration{})
	for _, err := range ufs.WatcherOf(h.fs).Watch(t.Context(), nil) {
		wantKind(t, err, freshet.KindInvalid)
	}
	configure(queue("", both...))
	h.watch(t)
	if _, err := h.queues.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &h.url}); err != nil {
		t.Fatal(err)
	}
	for {
		if n := h.next(t); n.err != nil {
			wantKind(t, n.err, freshet.KindUnavailable)
			if !strings.Contains(n.err.Error(), "does not exist") {
				t.Error(n.err)
			}
			break
		}
	}
}

// How soon a change is heard of; the median is in the documentation.
func queueLatency(t *testing.T, srv *sqstest.Server) {
	t.Helper()
	h := hear(t, srv, "")
	h.watch(t)
	var took []time.Duration
	for range 100 {
		h.put(t, "f", time.Now().String())
		start := time.Now()
		h.until(t, about("/f"))
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	t.Logf("from the answer to the put to the notice: p50 %v, p99 %v", took[50], took[99])
	if took[50] > 3*time.Second { // of a busy machine; a queue that is asked now and then would take longer
		t.Errorf("p50 is %v", took[50])
	}
}

func quoted(s string) string {
	b, _ := json.Marshal(s) //nolint:errchkjson // a string
	return string(b)
}
