package s3_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/s3test"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/s3"
)

// TestVirtualHostStyle speaks to a bucket that is named by the host. The server
// checks signatures, of which the host is a part.
func TestVirtualHostStyle(t *testing.T) {
	t.Parallel()
	srv := s3test.Start(t, s3test.Options{})
	spec := ufs.Spec{URI: "s3://" + s3test.DefaultBucket + "/p", Options: map[string]string{
		"endpoint": srv.VirtualHostEndpoint(), "path_style": "false", "region": "us-east-1",
		"access_key": "env:KEY", "secret_key": "env:SECRET",
	}}
	opened, err := s3.NewOpener(s3.Options{}).Open(spec, ufs.Environment{
		AllowedEndpoints: []string{"127.0.0.0/8", "::1/128"},
		Getenv: func(name string) string {
			return map[string]string{"KEY": srv.AccessKey, "SECRET": srv.SecretKey}[name]
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.Close() })
	client := srv.HTTPClient() // names of buckets are unknown to the resolver here
	t.Cleanup(client.CloseIdleConnections)
	opened.(*s3.FS).SetTransport(client.Transport)

	content := bytes.Repeat([]byte("0123456789abcdef"), 10<<10) // in parts
	w, err := opened.Create(t.Context(), "d/a b+c", ufs.CreateOptions{Op: freshet.OpID{1}, Size: int64(len(content))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	written, err := w.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	st, err := opened.Stat(t.Context(), "d/a b+c")
	if err != nil || !st.Fingerprint.SameContent(written.Fingerprint) {
		t.Fatalf("stat: %+v, %v", st, err)
	}
	if n, err := listAll(t.Context(), opened); n != 1 || err != nil {
		t.Errorf("listed %d entries, %v", n, err)
	}
	if _, err := opened.Rename(t.Context(), "d/a b+c", "d/e"); err != nil {
		t.Fatal(err)
	}
	r, _, err := opened.Open(t.Context(), "d/e", ufs.OpenOptions{Offset: 5, Length: 10})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil || string(got) != "56789abcde" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := opened.Remove(t.Context(), "d/e", ufs.RemoveOptions{}); err != nil {
		t.Error(err)
	}
}
