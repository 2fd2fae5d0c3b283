package s3_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/s3test"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/s3"
)

// Directories that users see do not vanish with their last child, however many
// are removed at a time.
func TestDirectoryOutlivesConcurrentRemovals(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{Engine: s3test.GoFakeS3})
	m := newMount(t, srv, nil)
	for round := range 5 {
		dir := fmt.Sprint("d", round)
		for i := range 8 {
			mustWrite(t, m, fmt.Sprintf("%s/f%d", dir, i), []byte("x"))
		}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if err := m.Remove(t.Context(), fmt.Sprintf("%s/f%d", dir, i), ufs.RemoveOptions{}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if st, err := m.Stat(t.Context(), dir); err != nil || !st.IsDir() {
			t.Fatalf("round %d: %+v, %v", round, st, err)
		}
	}
}

func TestRenameResumes(t *testing.T) {
	for _, rule := range []s3test.Rule{
		{Op: "CopyObject", Action: s3test.ActionStatus, Status: 500, After: 5},
		{Op: "CopyObject", Action: s3test.ActionDropResponse, After: 3},
		{Op: "DeleteObjects", Action: s3test.ActionReset},
		{Op: "DeleteObjects", Action: s3test.ActionDropResponse},
		{Op: "PutObject", Action: s3test.ActionReset, After: 1},
		{Op: "DeleteObject", Action: s3test.ActionReset},
	} {
		t.Run(rule.Op+" "+rule.Action, func(t *testing.T) {
			srv := s3test.Start(t, s3test.Options{})
			m := newMount(t, srv, nil)
			var want []string
			for i := range 12 {
				mustWrite(t, m, fmt.Sprintf("a/s%d/f", i%3+10*i), content(byte(i), 100+i))
				want = append(want, fmt.Sprintf("b/s%d/f", i%3+10*i))
			}
			slices.Sort(want)
			srv.AddFault(rule)
			_, err := m.Rename(t.Context(), "a", "b")
			wantKind(t, err, freshet.KindDeadline)
			srv.ClearFaults()
			if _, err := m.Rename(t.Context(), "a", "b"); err != nil {
				t.Fatalf("the second call: %v", err)
			}
			var got []string
			for _, name := range names(t, m, "b", ufs.ListOptions{Recursive: true}) {
				if name[len(name)-1] != '/' {
					got = append(got, name)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if _, err := m.Stat(t.Context(), "a"); !freshet.IsKind(err, freshet.KindNotExist) {
				t.Errorf("the source: %v", err)
			}
			out, err := client(srv).ListObjectsV2(t.Context(), &awss3.ListObjectsV2Input{Bucket: aws.String(s3test.DefaultBucket), Prefix: aws.String(m.prefix + "b/.freshet")})
			if err != nil || len(out.Contents) != 0 {
				t.Errorf("left behind: %v, %v", out.Contents, err)
			}
		})
	}
}

// A file beyond the limit of CopyObject is copied in parts and keeps its mark.
func TestRenameInParts(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	m := newMount(t, srv, nil)
	m.SetCopyLimits(6*mib, 5*mib)
	data := content(7, 12*mib)
	mustWrite(t, m, "a b+c%d", data)
	st, err := m.Rename(t.Context(), "a b+c%d", "to é")
	if err != nil {
		t.Fatal(err)
	}
	wantContent(t, m, "to é", data)
	now, err := m.Stat(t.Context(), "to é")
	if err != nil || !now.Fingerprint.Equal(st.Fingerprint) || now.Op != opID(1) {
		t.Errorf("rename said %+v, stat says %+v, %v", st, now, err)
	}
	if n := srv.Counts().ByOp["UploadPartCopy"]; n != 3 {
		t.Errorf("%d parts copied, want 3", n)
	}
}

// The copy of a source that changes meanwhile is refused.
func TestRenameIsConditional(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	m := newMount(t, srv, nil)
	mustWrite(t, m, "a", []byte("old"))
	srv.AddFault(s3test.Rule{Op: "CopyObject", Action: s3test.ActionHold, Times: 1})
	result := make(chan error, 1)
	go func() { _, err := m.Rename(t.Context(), "a", "b"); result <- err }()
	srv.WaitHeld(1, patient)
	mustWrite(t, m, "a", []byte("newer"))
	srv.Release(s3test.AllHeld)
	wantKind(t, <-result, freshet.KindStale)
	wantContent(t, m, "a", []byte("newer"))
}

// Keys that no path can name are skipped and counted; a file beside a prefix of
// its name is listed, and Stat gives the file.
func TestOddKeys(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{Engine: s3test.GoFakeS3})
	reg := prometheus.NewRegistry()
	env := environment(srv)
	fs, err := s3.NewOpener(s3.Options{Registerer: reg}).Open(ufs.Spec{URI: "s3://" + s3test.DefaultBucket + "/p", Options: options(srv, nil)}, env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fs.Close() })
	bare := client(srv)
	for _, key := range []string{"p/a", "p/a/x", "p/a//y", "p/b/../c", "p/b/./c", "p//z", "p/d/", "p/e f+g%2B&<é>", "p/.freshet.tmp/x", "q"} {
		if _, err := bare.PutObject(t.Context(), &awss3.PutObjectInput{Bucket: aws.String(s3test.DefaultBucket), Key: &key}); err != nil {
			t.Fatalf("put %q: %v", key, err)
		}
	}
	if got, want := fmt.Sprintf("%q", names(t, fs, "", ufs.ListOptions{})), `["a" "a/" "b/" "d/" "e f+g%2B&<é>"]`; got != want {
		t.Errorf("list: %s, want %s", got, want)
	}
	if got, want := fmt.Sprintf("%q", names(t, fs, "", ufs.ListOptions{Recursive: true})), `["a" "a/" "a/x" "b/" "d/" "e f+g%2B&<é>"]`; got != want {
		t.Errorf("recursive: %s, want %s", got, want)
	}
	if st, err := fs.Stat(t.Context(), "a"); err != nil || st.IsDir() {
		t.Errorf("stat: %+v, %v; the file wins", st, err)
	}
	families, err := reg.Gather()
	if err != nil || len(families) != 1 || families[0].GetMetric()[0].GetCounter().GetValue() != 5 {
		t.Errorf("counted %v, %v; want 5: one of the plain, four of the recursive listing", families, err)
	}
}

// What each call costs, in requests.
func TestRequests(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	m := newMount(t, srv, map[string]string{"part_size": "5MiB"})
	for i := range 25 {
		mustWrite(t, m, fmt.Sprintf("d/f%02d", i), []byte("x"))
	}
	large := content(1, 12*mib)
	st := mustWrite(t, m, "large", large)
	for _, c := range []struct {
		name string
		call func() error
		want string
	}{
		{"stat", func() error { _, err := m.Stat(t.Context(), "large"); return err }, "map[HeadObject:1]"},
		{"stat of a directory", func() error { _, err := m.Stat(t.Context(), "d"); return err }, "map[HeadObject:1 ListObjectsV2:1]"},
		{"list", func() error { names(t, m, "d", ufs.ListOptions{PageSize: 10}); return nil }, "map[ListObjectsV2:3]"},
		{"list all", func() error { names(t, m, "", ufs.ListOptions{Recursive: true}); return nil }, "map[ListObjectsV2:1]"},
		{"open", func() error {
			_, err := read(t.Context(), m, "large", ufs.OpenOptions{Want: st.Fingerprint, Offset: 100, Length: 1000})
			return err
		}, "map[GetObject:1]"},
		{"small file, vouched", func() error {
			_, err := write(t.Context(), m, "d/v", []byte("x"), ufs.CreateOptions{Vouched: true})
			return err
		}, "map[PutObject:1]"},
		{"small file", func() error {
			_, err := write(t.Context(), m, "d/w", []byte("x"), ufs.CreateOptions{})
			return err
		}, "map[ListObjectsV2:2 PutObject:1]"},
		{"large file, vouched", func() error {
			_, err := write(t.Context(), m, "d/l", large, ufs.CreateOptions{Op: opID(1), Vouched: true, Size: int64(len(large))})
			return err
		}, "map[CompleteMultipartUpload:1 CreateMultipartUpload:1 UploadPart:4]"},
		{"remove", func() error { return m.Remove(t.Context(), "d/v", ufs.RemoveOptions{}) }, "map[DeleteObject:1 HeadObject:1 ListObjectsV2:1]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv.ResetCounts()
			if err := c.call(); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(srv.Counts().ByOp); got != c.want {
				t.Errorf("requests: %s, want %s", got, c.want)
			}
		})
	}
}
