package s3_test

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/s3"
)

// recorder is a storage with one object that keeps the heads of all requests, by
// the operation.
type recorder struct {
	mu   sync.Mutex
	seen map[string][]*http.Request
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	if r.seen == nil {
		r.seen = map[string][]*http.Request{}
	}
	op := operationOf(req)
	r.seen[op] = append(r.seen[op], req)
	r.mu.Unlock()
	_, _ = io.Copy(io.Discard, req.Body)
	switch op {
	case "GetObject":
		w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef"`)
		_, _ = io.WriteString(w, "x")
	case "UploadPartCopy":
		_, _ = io.WriteString(w, `<CopyPartResult><ETag>"0123456789abcdef0123456789abcdef"</ETag></CopyPartResult>`)
	default:
		answer(w, req)
	}
}

func operationOf(r *http.Request) string {
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPut && q.Has("partNumber") && r.Header.Get("X-Amz-Copy-Source") != "":
		return "UploadPartCopy"
	case r.Method == http.MethodPut && q.Has("partNumber"):
		return "UploadPart"
	case r.Method == http.MethodPost && q.Has("uploads"):
		return "CreateMultipartUpload"
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		return "AbortMultipartUpload"
	case r.Method == http.MethodHead:
		return "HeadObject"
	case r.Method == http.MethodGet && q.Has("list-type"):
		return "ListObjectsV2"
	case r.Method == http.MethodGet:
		return "GetObject"
	}
	return effectOf(r)
}

// everything makes each kind of request once or more.
func everything(t *testing.T, fs ufs.FS) {
	t.Helper()
	for _, size := range []int{10, 100 << 10} {
		if _, err := write(t.Context(), fs, "f", make([]byte, size), ufs.CreateOptions{Op: opID(1)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := fs.Stat(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	if _, err := read(t.Context(), fs, "f", ufs.OpenOptions{Length: -1}); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Rename(t.Context(), "f", "g"); err != nil {
		t.Fatal(err)
	}
	fs.(*s3.FS).SetCopyLimits(0, 1)
	if _, err := fs.Rename(t.Context(), "f", "g"); err != nil {
		t.Fatal(err)
	}
	if _, err := listAll(t.Context(), fs); err != nil {
		t.Fatal(err)
	}
}

// Each option comes out as the headers that the protocol has for it, on the
// requests that take it and on no others, and signed.
func TestOptionsBecomeSignedHeaders(t *testing.T) {
	t.Parallel()
	key := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	makes := "PutObject CreateMultipartUpload CopyObject"
	reads := "HeadObject GetObject ListObjectsV2 UploadPart UploadPartCopy CompleteMultipartUpload DeleteObject"
	for name, tc := range map[string]struct {
		options  map[string]string
		header   map[string]string
		on, none string
	}{
		"sse": {
			options: map[string]string{"sse": "AES256"}, on: makes, none: reads,
			header: map[string]string{"X-Amz-Server-Side-Encryption": "AES256"},
		},
		"kms": {
			options: map[string]string{"sse": "aws:kms", "sse_kms_key_id": "arn:aws:kms:eu-west-1:1:key/k"}, on: makes, none: reads,
			header: map[string]string{"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "arn:aws:kms:eu-west-1:1:key/k"},
		},
		"dsse": {
			options: map[string]string{"sse": "aws:kms:dsse"}, on: makes, none: reads,
			header: map[string]string{"X-Amz-Server-Side-Encryption": "aws:kms:dsse"},
		},
		"storage class": {
			options: map[string]string{"storage_class": "STANDARD_IA"}, on: makes, none: reads,
			header: map[string]string{"X-Amz-Storage-Class": "STANDARD_IA"},
		},
		"requester pays": {
			options: map[string]string{"requester_pays": "true"}, on: makes + " " + reads,
			header: map[string]string{"X-Amz-Request-Payer": "requester"},
		},
		"customer key": {
			options: map[string]string{"sse_c_key": "env:SSEC"},
			on:      makes + " HeadObject GetObject UploadPart UploadPartCopy CompleteMultipartUpload", none: "ListObjectsV2 DeleteObject",
			header: map[string]string{
				"X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256", "X-Amz-Server-Side-Encryption-Customer-Key": key,
				"X-Amz-Server-Side-Encryption-Customer-Key-Md5": "mT2HRsMGJ5IX5C+0rreZ8Q==",
			},
		},
		"customer key of the source": {
			options: map[string]string{"sse_c_key": "env:SSEC"}, on: "CopyObject UploadPartCopy", none: "PutObject GetObject",
			header: map[string]string{"X-Amz-Copy-Source-Server-Side-Encryption-Customer-Key": key},
		},
		"checksum": {
			options: map[string]string{"checksum": "when_supported"}, on: "GetObject", none: "ListObjectsV2",
			header: map[string]string{"X-Amz-Checksum-Mode": "ENABLED"},
		},
		"checksum of an upload": {
			options: map[string]string{"checksum": "when_supported"}, on: "CreateMultipartUpload", none: "ListObjectsV2 GetObject",
			header: map[string]string{"X-Amz-Checksum-Algorithm": "CRC32"},
		},
		"no checksum": {
			options: map[string]string{}, none: makes + " " + reads,
			header: map[string]string{"X-Amz-Checksum-Mode": "", "X-Amz-Checksum-Crc32": "", "X-Amz-Trailer": ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := &recorder{}
			fs := overTLS(t, rec, tc.options, map[string]string{"SSEC": key})
			everything(t, fs)
			for op := range strings.FieldsSeq(tc.on) {
				if len(rec.seen[op]) == 0 {
					t.Errorf("no request %s was made", op)
				}
				for _, r := range rec.seen[op] {
					for h, want := range tc.header {
						if got := r.Header.Get(h); got != want {
							t.Errorf("%s has %s=%q, want %q", op, h, got, want)
						}
						if !signs(r, h) {
							t.Errorf("%s is signed without %s: %s", op, h, r.Header.Get("Authorization"))
						}
					}
				}
			}
			for op := range strings.FieldsSeq(tc.none) {
				for _, r := range rec.seen[op] {
					for h := range tc.header {
						if r.Header.Values(h) != nil {
							t.Errorf("%s has %s=%q, which it does not take", op, h, r.Header.Get(h))
						}
					}
				}
			}
		})
	}
}

func signs(r *http.Request, header string) bool {
	_, rest, _ := strings.Cut(r.Header.Get("Authorization"), "SignedHeaders=")
	list, _, _ := strings.Cut(rest, ",")
	return strings.Contains(";"+list+";", ";"+strings.ToLower(header)+";")
}

// overTLS opens a mount with keys at a server with a certificate of its own.
func overTLS(t *testing.T, handler http.Handler, more, environ map[string]string) ufs.FS {
	t.Helper()
	srv := httptest.NewTLSServer(handler)
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	opts := map[string]string{"endpoint": srv.URL, "access_key": "env:KEY", "secret_key": "env:SECRET", "ca_file": ca, "retries": "0"}
	maps.Copy(opts, more)
	fs, err := s3.NewOpener(s3.Options{}).Open(ufs.Spec{URI: "s3://bucket/p", Options: opts}, ufs.Environment{
		AllowedEndpoints: []string{"127.0.0.0/8"},
		Getenv: func(name string) string {
			if v, ok := environ[name]; ok {
				return v
			}
			return map[string]string{"KEY": "AKIDEXAMPLE", "SECRET": "secret-of-the-test"}[name]
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fs.Close() })
	return fs
}

func TestOptionsThatExcludeEachOther(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		says    string
		options map[string]string
	}{
		{"needs sse=aws:kms", map[string]string{"sse_kms_key_id": "k"}},
		{"needs sse=aws:kms", map[string]string{"sse_kms_key_id": "k", "sse": "AES256"}},
		{"is not one of AES256", map[string]string{"sse": "aes256"}},
		{"either sse or sse_c_key", map[string]string{"sse": "AES256", "sse_c_key": "env:K"}},
		{"needs an https endpoint", map[string]string{"sse_c_key": "env:K", "endpoint": "http://10.1.2.3:9000"}},
		{"references to one value", map[string]string{"sse_c_key": "env"}},
		{"use env: or file: reference", map[string]string{"sse_c_key": "a2trawo="}},
		{"STANDARD_IA", map[string]string{"storage_class": "a\u00e9"}},
		{"is not one of when_required", map[string]string{"checksum": "never"}},
		{"need assume_role_arn", map[string]string{"external_id": "x"}},
		{"need assume_role_arn", map[string]string{"sts_endpoint": "https://sts.example.com"}},
		{"not anonymous", map[string]string{"assume_role_arn": "arn:aws:iam::1:role/r", "credentials": "anonymous"}},
		{"is not such as arn:aws:iam", map[string]string{"assume_role_arn": "role"}},
		{"role_session_name", map[string]string{"assume_role_arn": "arn:aws:iam::1:role/r", "role_session_name": "a b"}},
		{"option 'sts_endpoint'", map[string]string{"assume_role_arn": "arn:aws:iam::1:role/r", "sts_endpoint": "sts"}},
		{"credentials in the URL", map[string]string{"assume_role_arn": "arn:aws:iam::1:role/r", "sts_endpoint": "https://u:p@sts"}},
		{"allowed is 1h", map[string]string{"clean_untagged_after": "1m"}},
		{"did you mean 'assume_role_arn'", map[string]string{"assume_rol_arn": "x"}},
	} {
		_, err := s3.NewOpener(s3.Options{}).Parse(ufs.Spec{URI: "s3://bucket", Options: c.options})
		if !freshet.IsKind(err, freshet.KindInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, want one that says %q", c.options, err, c.says)
		}
	}
	for name, value := range map[string]string{"short": "a2trawo=", "no base64": "?", "not set": ""} {
		_, err := s3.NewOpener(s3.Options{}).Open(ufs.Spec{URI: "s3://bucket", Options: map[string]string{"sse_c_key": "env:K"}},
			ufs.Environment{Getenv: func(string) string { return value }})
		if !freshet.IsKind(err, freshet.KindInvalid) || value != "" && strings.Contains(fmt.Sprint(err), value) && len(value) > 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
