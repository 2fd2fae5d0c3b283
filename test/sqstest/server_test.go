package sqstest_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"go.uber.org/goleak"

	"github.com/freshet-io/freshet/test/child"
	"github.com/freshet-io/freshet/test/sqstest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(child.Main{M: m, Stop: sqstest.StopShared})
}

type record struct {
	EventName string
	S3        struct {
		Bucket struct{ Name string }
		Object struct{ Key string }
	}
}

// receive returns the next record that is of an object, and deletes its message.
func receive(ctx context.Context, t *testing.T, client *sqs.Client, queue string) record {
	t.Helper()
	for {
		out, err := client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: aws.String(queue), WaitTimeSeconds: 5, MaxNumberOfMessages: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range out.Messages {
			if _, err := client.DeleteMessage(ctx, &sqs.DeleteMessageInput{
				QueueUrl: aws.String(queue), ReceiptHandle: m.ReceiptHandle,
			}); err != nil {
				t.Fatal(err)
			}
			var body struct{ Records []record }
			if err := json.Unmarshal([]byte(aws.ToString(m.Body)), &body); err != nil {
				t.Fatalf("message %q: %v", aws.ToString(m.Body), err)
			}
			if len(body.Records) == 1 { // none: the test event
				return body.Records[0]
			}
		}
	}
}

func TestChangesOfABucketArriveInTheQueue(t *testing.T) {
	s := sqstest.Shared(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	bucket := s.NewBucket(t)
	queue, arn := s.NewQueue(t)
	s.Notify(t, bucket, arn)
	const key = "d/a b+c%d é"
	if _, err := s.S3().PutObject(ctx, &s3.PutObjectInput{
		Bucket: aws.String(bucket), Key: aws.String(key), Body: strings.NewReader("hello"),
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.S3().DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String(bucket), Key: aws.String(key)}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ObjectCreated:Put", "ObjectRemoved:Delete"} {
		r := receive(ctx, t, s.SQS(), queue)
		got, err := url.QueryUnescape(r.S3.Object.Key)
		if err != nil || got != key || r.EventName != want || r.S3.Bucket.Name != bucket {
			t.Errorf("got %+v with key %q, %v, want %s of %q", r, got, err, want, key)
		}
	}
}

func TestCloseLeavesNoProcess(t *testing.T) {
	s, err := sqstest.Launch(t.Context(), sqstest.Options{})
	if err != nil {
		child.FailOrSkip(t, err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := syscall.Kill(s.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", s.PID(), err)
	}
}
