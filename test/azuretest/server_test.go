package azuretest_test

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"go.uber.org/goleak"

	"github.com/freshet-io/freshet/test/azuretest"
	"github.com/freshet-io/freshet/test/child"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(child.Main{M: m, Stop: azuretest.StopShared})
}

func newClient(t *testing.T, s *azuretest.Server, key string) *azblob.Client {
	t.Helper()
	cred, err := azblob.NewSharedKeyCredential(s.Account(), key)
	if err != nil {
		t.Fatal(err)
	}
	hc := child.HTTPClient()
	t.Cleanup(hc.CloseIdleConnections)
	client, err := azblob.NewClientWithSharedKeyCredential(s.Endpoint(), cred,
		&azblob.ClientOptions{ClientOptions: policy.ClientOptions{Transport: hc, Retry: policy.RetryOptions{MaxRetries: -1}}})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestWriteListAndReadBack(t *testing.T) {
	s := azuretest.Shared(t)
	client := newClient(t, s, s.Key())
	box := s.NewContainer(t)
	const name, content = "d/a b+c%d é", "hello"
	written, err := client.UploadBuffer(t.Context(), box, name, []byte(content), nil)
	if err != nil {
		t.Fatal(err)
	}
	page, err := client.NewListBlobsFlatPager(box, nil).NextPage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	items := page.Segment.BlobItems
	if len(items) != 1 || *items[0].Name != name || *items[0].Properties.ContentLength != int64(len(content)) {
		t.Errorf("listed %d blobs", len(items))
	}
	read, err := client.DownloadStream(t.Context(), box, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer read.Body.Close()
	got, err := io.ReadAll(read.Body)
	if err != nil || string(got) != content || *read.ETag != *written.ETag {
		t.Errorf("read %q with etag %s, %v; wrote %s", got, *read.ETag, err, *written.ETag)
	}
	create := &azblob.UploadBufferOptions{AccessConditions: &blob.AccessConditions{
		ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETagAny)},
	}}
	if _, err := client.UploadBuffer(t.Context(), box, name, nil, create); !bloberror.HasCode(err, bloberror.BlobAlreadyExists) {
		t.Errorf("create of what exists: %v", err)
	}
}

func TestAnotherKeyIsRefused(t *testing.T) {
	s := azuretest.Shared(t)
	client := newClient(t, s, "d3Jvbmc=")
	_, err := client.UploadBuffer(t.Context(), s.NewContainer(t), "x", nil, nil)
	if !bloberror.HasCode(err, bloberror.AuthenticationFailed, bloberror.AuthorizationFailure) {
		t.Errorf("got %v, want a refusal", err)
	}
	if err != nil && strings.Contains(err.Error(), s.Key()) {
		t.Error("the error shows the key")
	}
}

func TestCloseLeavesNoProcess(t *testing.T) {
	s, err := azuretest.Launch(t.Context(), azuretest.Options{})
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
