package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/freshet-io/freshet/test/s3test"
)

// Object is one entry of a storage.
type Object struct {
	Dir  bool
	Data []byte
}

// Storage is the truth that regions are compared with. Names are relative to the
// storage, without a leading slash.
type Storage interface {
	// Tree returns everything below prefix, by names relative to it.
	Tree(ctx context.Context, prefix string) (map[string]Object, error)
	// Put and Delete change the storage behind the back of all regions.
	Put(ctx context.Context, name string, data []byte) error
	Delete(ctx context.Context, name string) error
	// Leftovers names what unfinished operations left behind.
	Leftovers(ctx context.Context) ([]string, error)
}

// Bucket is a bucket of an S3 server.
type Bucket struct {
	Name string
	// Killed is when nodes or the storage were killed. Uploads that had begun just
	// then and lack the driver's mark may be left: before its mark nobody can tell
	// one from another program's.
	Killed []time.Time
	// Hourly leaves those that have the mark to the hourly cleaner too: a persist that
	// is withdrawn, by a rename, a removal or another version, is ended by its node, and
	// by nobody else if that is killed before it hears of it.
	Hourly bool

	api *s3.Client
}

var _ Storage = (*Bucket)(nil)

// NewBucket makes a bucket for a test.
func NewBucket(t testing.TB, srv *s3test.TestServer, name string) *Bucket {
	t.Helper()
	hc := srv.HTTPClient()
	t.Cleanup(hc.CloseIdleConnections)
	return &Bucket{Name: srv.NewBucket(name), api: s3.New(s3.Options{
		BaseEndpoint: aws.String(srv.Endpoint), Region: "us-east-1", UsePathStyle: true, HTTPClient: hc,
		Credentials: credentials.NewStaticCredentialsProvider(srv.AccessKey, srv.SecretKey, ""),
	})}
}

// BucketOf is the bucket of that name, as a client sees it.
func BucketOf(api *s3.Client, name string) *Bucket { return &Bucket{Name: name, api: api} }

// Tree implements Storage.
func (b *Bucket) Tree(ctx context.Context, prefix string) (map[string]Object, error) {
	out := map[string]Object{}
	pages := s3.NewListObjectsV2Paginator(b.api, &s3.ListObjectsV2Input{Bucket: &b.Name, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, o := range page.Contents {
			key := aws.ToString(o.Key)
			err := AddObject(out, strings.TrimPrefix(key, prefix), func() ([]byte, error) { return b.Get(ctx, key) })
			if err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// AddObject adds what an object store lists as name to a tree, with the directories
// that its name implies.
func AddObject(tree map[string]Object, name string, get func() ([]byte, error)) error {
	name, isDir := strings.CutSuffix(name, "/")
	if name == "" {
		return nil
	}
	addParents(tree, name)
	if isDir {
		tree[name] = Object{Dir: true}
		return nil
	}
	data, err := get()
	tree[name] = Object{Data: data}
	return err
}

// OwnNames returns the names in a tree that are Freshet's own temporary ones.
func OwnNames(tree map[string]Object) []string {
	var own []string
	for name := range tree {
		if strings.HasPrefix(path.Base(name), ".freshet") {
			own = append(own, name)
		}
	}
	return own
}

func addParents(tree map[string]Object, name string) {
	for i := range name {
		if name[i] == '/' {
			tree[name[:i]] = Object{Dir: true}
		}
	}
}

// Get returns an object.
func (b *Bucket) Get(ctx context.Context, key string) ([]byte, error) {
	r, err := b.api.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.Name, Key: &key})
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r.Body)
	return data, errors.Join(err, r.Body.Close())
}

// Put implements Storage.
func (b *Bucket) Put(ctx context.Context, key string, data []byte) error {
	_, err := b.api.PutObject(ctx, &s3.PutObjectInput{Bucket: &b.Name, Key: &key, Body: bytes.NewReader(data)})
	return err
}

// Delete implements Storage.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	_, err := b.api.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.Name, Key: &key})
	return err
}

// Leftovers implements Storage: multipart uploads that were not ended.
func (b *Bucket) Leftovers(ctx context.Context) ([]string, error) {
	r, err := b.api.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &b.Name})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, u := range r.Uploads {
		marked, err := b.marked(ctx, u)
		if err != nil {
			return nil, err
		}
		if marked && !b.Hourly || !b.diedAt(aws.ToTime(u.Initiated)) {
			out = append(out, fmt.Sprintf("multipart upload of %s, begun at %s, marked: %t", aws.ToString(u.Key), aws.ToTime(u.Initiated), marked))
		}
	}
	return out, nil
}

// diedAt reports whether nodes or the storage were killed when what had begun at
// the time may have lacked its mark: the request for it takes 3 s at most here.
func (b *Bucket) diedAt(begun time.Time) bool {
	return slices.ContainsFunc(b.Killed, func(at time.Time) bool { return at.Sub(begun).Abs() < 5*time.Second })
}

// marked reports whether an upload has the part by which the driver knows its own;
// false if it has ended.
func (b *Bucket) marked(ctx context.Context, u types.MultipartUpload) (bool, error) {
	const mark = 10_000
	r, err := b.api.ListParts(ctx, &s3.ListPartsInput{Bucket: &b.Name, Key: u.Key, UploadId: u.UploadId, PartNumberMarker: aws.String(strconv.Itoa(mark - 1))})
	if e, ok := errors.AsType[smithy.APIError](err); ok && e.ErrorCode() == "NoSuchUpload" {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(r.Parts, func(p types.Part) bool { return aws.ToInt32(p.PartNumber) == mark }), nil
}

// Dir is a directory of this machine.
type Dir string

var _ Storage = Dir("")

// Tree implements Storage.
func (d Dir) Tree(_ context.Context, prefix string) (map[string]Object, error) {
	out := map[string]Object{}
	root := filepath.Join(string(d), prefix)
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == root {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		o := Object{Dir: e.IsDir()}
		if !o.Dir {
			if o.Data, err = os.ReadFile(name); err != nil {
				return err
			}
		}
		out[filepath.ToSlash(rel)] = o
		return nil
	})
	return out, err
}

// Put implements Storage.
func (d Dir) Put(_ context.Context, name string, data []byte) error {
	file := filepath.Join(string(d), name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o600)
}

// Delete implements Storage.
func (d Dir) Delete(_ context.Context, name string) error {
	return os.Remove(filepath.Join(string(d), name))
}

// Leftovers implements Storage: temporary files.
func (d Dir) Leftovers(context.Context) ([]string, error) {
	var out []string
	err := filepath.WalkDir(string(d), func(name string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(filepath.Base(name), ".freshet") {
			out = append(out, name)
		}
		return err
	})
	return out, err
}
