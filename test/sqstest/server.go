// Package sqstest starts moto's servers of S3 and SQS, in one child process, for tests of
// notifications that go from a bucket into a queue. It makes the program from the lock
// file in test/backends/moto and owns the process; the queues and buckets that it makes
// go through the real SDK.
package sqstest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/freshet-io/freshet/test/child"
)

// Credentials and region of every server, which checks no signature.
const (
	AccessKey = "test"
	SecretKey = "testtesttest"
	Region    = "us-east-1"
)

// startTimeout is the limit of waiting for the child.
const startTimeout = 90 * time.Second

// Options of a server. The zero value is usable.
type Options struct {
	// Log receives the server's log. Nil discards it; Start and Shared set it.
	Log io.Writer
}

// Server is a running server of both services, with all state in memory. Its methods are
// safe for concurrent use.
type Server struct {
	process *child.Process
	http    *http.Client
	names   atomic.Int64
}

// Launch starts a server, making its program first if necessary. The caller must Close
// it; it also ends with this process. ctx limits only the start.
func Launch(ctx context.Context, opt Options) (*Server, error) {
	dir, err := Provision(ctx)
	if err != nil {
		return nil, err
	}
	port, err := child.FreePort()
	if err != nil {
		return nil, fmt.Errorf("sqstest: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	p, err := child.Start(ctx, child.Options{
		Path: python(dir), Args: []string{filepath.Join(dir, "server.py"), strconv.Itoa(port)}, Log: opt.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("sqstest: %w", err)
	}
	return &Server{process: p, http: child.HTTPClient()}, nil
}

// Close ends the server; everything in it is gone.
func (s *Server) Close() error {
	s.http.CloseIdleConnections()
	return s.process.Stop()
}

func (o Options) launcher() child.Launch[*Server] {
	return func(ctx context.Context, _ string, log io.Writer) (*Server, error) {
		if o.Log == nil {
			o.Log = log
		}
		return Launch(ctx, o)
	}
}

// Start starts a server of tb's own, which ends with tb.
func Start(tb testing.TB) *Server {
	tb.Helper()
	return child.StartFor(tb, Options{}.launcher())
}

// shared is the process's one server.
var shared child.Shared[*Server]

// Shared returns the server that all tests of the process use. A test that pauses it
// takes one by Start instead.
func Shared(tb testing.TB) *Server {
	tb.Helper()
	return shared.Get(tb, Options{}.launcher())
}

// StopShared ends the server of Shared, if there is one. It is for TestMain.
func StopShared() { shared.Stop() }

// Endpoint is the address of both services, http://127.0.0.1:PORT.
func (s *Server) Endpoint() string { return s.process.Field("endpoint") }

// AccessKey is the key that clients name.
func (s *Server) AccessKey() string { return AccessKey }

// SecretKey is the secret that clients sign with.
func (s *Server) SecretKey() string { return SecretKey }

// Region is where everything is.
func (s *Server) Region() string { return Region }

// PID is the number of the process.
func (s *Server) PID() int { return s.process.PID() }

// S3 returns a client. Its connections end with the server's Close.
func (s *Server) S3() *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(s.Endpoint()), Region: Region, UsePathStyle: true, HTTPClient: s.http,
		Credentials: credentials.NewStaticCredentialsProvider(AccessKey, SecretKey, ""),
	})
}

// SQS returns a client. Its connections end with the server's Close.
func (s *Server) SQS() *sqs.Client {
	return sqs.New(sqs.Options{
		BaseEndpoint: aws.String(s.Endpoint()), Region: Region, HTTPClient: s.http,
		Credentials: credentials.NewStaticCredentialsProvider(AccessKey, SecretKey, ""),
	})
}

// NewBucket makes a bucket of a new name.
func (s *Server) NewBucket(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test-bucket-%d", s.names.Add(1))
	if _, err := s.S3().CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: aws.String(name)}); err != nil {
		tb.Fatal(err)
	}
	return name
}

// NewQueue makes a queue of a new name.
func (s *Server) NewQueue(tb testing.TB) (url, arn string) {
	tb.Helper()
	url, arn, err := s.MakeQueue(context.Background(), fmt.Sprintf("test-queue-%d", s.names.Add(1)))
	if err != nil {
		tb.Fatal(err)
	}
	return url, arn
}

// MakeQueue makes a queue.
func (s *Server) MakeQueue(ctx context.Context, name string) (url, arn string, err error) {
	client := s.SQS()
	queue, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(name)})
	if err != nil {
		return "", "", fmt.Errorf("sqstest: queue %s: %w", name, err)
	}
	attrs, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: queue.QueueUrl, AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameQueueArn},
	})
	if err != nil {
		return "", "", fmt.Errorf("sqstest: queue %s: %w", name, err)
	}
	return aws.ToString(queue.QueueUrl), attrs.Attributes[string(sqstypes.QueueAttributeNameQueueArn)], nil
}

// Notify has the bucket send a message of every created and removed object to the queue.
// The first message is a test event, as from the real service.
func (s *Server) Notify(tb testing.TB, bucket, queueARN string) {
	tb.Helper()
	if err := s.Connect(context.Background(), bucket, queueARN); err != nil {
		tb.Fatal(err)
	}
}

// Connect is Notify without a test.
func (s *Server) Connect(ctx context.Context, bucket, queueARN string) error {
	_, err := s.S3().PutBucketNotificationConfiguration(ctx, &s3.PutBucketNotificationConfigurationInput{
		Bucket: aws.String(bucket),
		NotificationConfiguration: &types.NotificationConfiguration{QueueConfigurations: []types.QueueConfiguration{{
			QueueArn: aws.String(queueARN), Events: []types.Event{"s3:ObjectCreated:*", "s3:ObjectRemoved:*"},
		}}},
	})
	if err != nil {
		return fmt.Errorf("sqstest: notification of %s: %w", bucket, err)
	}
	return nil
}

// Pause has the server answer nothing while connections stay open, until Resume.
func (s *Server) Pause(tb testing.TB) {
	tb.Helper()
	if err := s.process.Pause(); err != nil {
		tb.Fatal(err)
	}
}

// Resume ends Pause.
func (s *Server) Resume(tb testing.TB) {
	tb.Helper()
	if err := s.process.Resume(); err != nil {
		tb.Fatal(err)
	}
}
