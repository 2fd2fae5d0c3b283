package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/s3test"
	"github.com/freshet-io/freshet/ufs"
)

const (
	mib     = 1 << 20
	patient = 20 * time.Second
)

func opID(n byte) freshet.OpID { return freshet.OpID{0: 1, 6: 0x70, 8: 0x80, 15: n} }

func content(seed byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i>>8) ^ byte(i)
	}
	return b
}

func write(ctx context.Context, fs ufs.FS, key string, data []byte, opts ufs.CreateOptions) (ufs.Status, error) {
	if opts.Size == 0 {
		opts.Size = int64(len(data))
	}
	w, err := fs.Create(ctx, key, opts)
	if err != nil {
		return ufs.Status{}, err
	}
	if _, err := w.Write(data); err != nil {
		return ufs.Status{}, errors.Join(err, w.Abort(context.WithoutCancel(ctx)))
	}
	return w.Commit(ctx)
}

func mustWrite(t testing.TB, fs ufs.FS, key string, data []byte) ufs.Status {
	t.Helper()
	st, err := write(context.Background(), fs, key, data, ufs.CreateOptions{Op: opID(1), Size: int64(len(data))})
	if err != nil {
		t.Fatalf("write %q: %v", key, err)
	}
	return st
}

func read(ctx context.Context, fs ufs.FS, key string, opts ufs.OpenOptions) ([]byte, error) {
	r, _, err := fs.Open(ctx, key, opts)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

func wantContent(t *testing.T, fs ufs.FS, key string, want []byte) {
	t.Helper()
	got, err := read(t.Context(), fs, key, ufs.OpenOptions{Length: -1})
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("content of %q: %d bytes, %v; want %d", key, len(got), err, len(want))
	}
}

func names(t *testing.T, fs ufs.FS, dir string, opts ufs.ListOptions) []string {
	t.Helper()
	var all []string
	for st, err := range fs.List(t.Context(), dir, opts) {
		if err != nil {
			t.Fatalf("list %q: %v", dir, err)
		}
		all = append(all, st.SortKey())
	}
	return all
}

func wantKind(t *testing.T, err error, kind freshet.Kind) {
	t.Helper()
	if freshet.KindOf(err) != kind {
		t.Fatalf("error %v is %v, want %v", err, freshet.KindOf(err), kind)
	}
}

func uploadsLeft(t *testing.T, m mount) int {
	t.Helper()
	out, err := client(m.srv).ListMultipartUploads(t.Context(), &awss3.ListMultipartUploadsInput{Bucket: aws.String(s3test.DefaultBucket), Prefix: &m.prefix})
	if err != nil {
		t.Fatal(err)
	}
	return len(out.Uploads)
}

func TestReadsAreRetried(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	m := newMount(t, srv, nil)
	data := content(1, 100_000)
	mustWrite(t, m, "d/f", data)
	for _, c := range []struct {
		op   string
		rule s3test.Rule
	}{
		{"HeadObject", s3test.Rule{Action: s3test.ActionStatus, Status: 503}},
		{"HeadObject", s3test.Rule{Action: s3test.ActionReset}},
		{"ListObjectsV2", s3test.Rule{Action: s3test.ActionStatus, Status: 500}},
		{"ListObjectsV2", s3test.Rule{Action: s3test.ActionReset}},
		{"ListObjectsV2", s3test.Rule{Action: s3test.ActionShortBody}},
		{"GetObject", s3test.Rule{Action: s3test.ActionStatus, Status: 503}},
		{"GetObject", s3test.Rule{Action: s3test.ActionReset}},
	} {
		t.Run(c.op+" "+c.rule.Action, func(t *testing.T) {
			c.rule.Op, c.rule.Times = c.op, 1
			srv.AddFault(c.rule)
			defer srv.ClearFaults()
			if st, err := m.Stat(t.Context(), "d/f"); err != nil || st.Length != int64(len(data)) {
				t.Errorf("stat: %+v, %v", st, err)
			}
			if got := names(t, m, "d", ufs.ListOptions{}); fmt.Sprint(got) != "[d/f]" {
				t.Errorf("list: %q", got)
			}
			wantContent(t, m, "d/f", data)
			if srv.Faults()[0].Hits != 1 {
				t.Error("the fault did not happen")
			}
		})
	}
}

// An outage is an error of its own, never an absence and never a short listing.
func TestOutageIsNeverAbsence(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	m := newMount(t, srv, nil)
	mustWrite(t, m, "d/f", []byte("x"))
	fs := m.again(t, map[string]string{"retries": "1", "request_timeout": "200ms"})
	for _, rule := range []s3test.Rule{
		{Action: s3test.ActionStatus, Status: 503},
		{Action: s3test.ActionStatus, Status: 500},
		{Action: s3test.ActionStatus, Status: 429},
		{Action: s3test.ActionReset},
		{Action: s3test.ActionStall},
		{Action: s3test.ActionStatus, Status: 404, Code: "NoSuchBucket"},
	} {
		t.Run(fmt.Sprint(rule.Action, rule.Status), func(t *testing.T) {
			rule.Op = s3test.AnyOp
			srv.AddFault(rule)
			defer srv.ClearFaults()
			_, err := fs.Stat(t.Context(), "d/f")
			wantKind(t, err, freshet.KindUnavailable)
			_, err = read(t.Context(), fs, "d/f", ufs.OpenOptions{Length: -1})
			wantKind(t, err, freshet.KindUnavailable)
			for _, err = range fs.List(t.Context(), "d", ufs.ListOptions{}) {
				wantKind(t, err, freshet.KindUnavailable)
			}
			wantKind(t, fs.Remove(t.Context(), "d/f", ufs.RemoveOptions{}), freshet.KindUnavailable)
		})
	}
	wantContent(t, m, "d/f", []byte("x"))
}

func TestBodyIsNeverShort(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	m := newMount(t, srv, nil)
	data := content(2, 3*mib)
	st := mustWrite(t, m, "f", data)
	srv.AddFault(s3test.Rule{Op: "GetObject", Action: s3test.ActionShortBody})
	got, err := read(t.Context(), m, "f", ufs.OpenOptions{Want: st.Fingerprint, Offset: 10, Length: 2 * mib})
	wantKind(t, err, freshet.KindUnavailable)
	if !bytes.Equal(got, data[10:10+len(got)]) {
		t.Error("the bytes before the cut are wrong")
	}
}

// C12: an effect without a definite answer is reported as such, and not repeated.
func TestUncertainEffects(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	m := newMount(t, srv, nil)
	mustWrite(t, m, "d/f", []byte("old"))
	fs := m.again(t, map[string]string{"request_timeout": "2s", "retries": "10", "max_op_lifetime": "10s"})
	effects := map[string]func() error{
		"PutObject": func() error {
			_, err := write(t.Context(), fs, "d/put", []byte("new"), ufs.CreateOptions{Op: opID(2), Size: 3})
			return err
		},
		"DeleteObject": func() error { return fs.Remove(t.Context(), "d/f", ufs.RemoveOptions{}) },
		"CopyObject":   func() error { _, err := fs.Rename(t.Context(), "d/f", "d/g"); return err },
	}
	for op, effect := range effects {
		for _, rule := range []s3test.Rule{
			{Action: s3test.ActionReset},
			{Action: s3test.ActionStall},
			{Action: s3test.ActionStatus, Status: 503},
			{Action: s3test.ActionStatus, Status: 500},
		} {
			t.Run(fmt.Sprint(op, " ", rule.Action, rule.Status), func(t *testing.T) {
				rule.Op = op
				srv.AddFault(rule)
				defer srv.ClearFaults()
				srv.ResetCounts()
				wantKind(t, effect(), freshet.KindDeadline)
				if n := srv.Counts().ByOp[op]; n != 1 {
					t.Errorf("%s was sent %d times", op, n)
				}
			})
		}
	}
	wantContent(t, m, "d/f", []byte("old"))
	if _, err := m.Stat(t.Context(), "d/put"); !freshet.IsKind(err, freshet.KindNotExist) {
		t.Errorf("stat of what never landed: %v", err)
	}
}

// A PUT whose answer is lost has landed; its mark tells whose it is.
func TestLostAnswerOfPut(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	m := newMount(t, srv, nil)
	srv.AddFault(s3test.Rule{Op: "PutObject", Action: s3test.ActionDropResponse, Times: 1})
	w, err := m.Create(t.Context(), "f", ufs.CreateOptions{Op: opID(3), Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("landed")); err != nil {
		t.Fatal(err)
	}
	_, err = w.Commit(t.Context())
	wantKind(t, err, freshet.KindDeadline)
	wantKind(t, w.Abort(t.Context()), freshet.KindDeadline)
	st, err := m.Stat(t.Context(), "f")
	if err != nil || st.Op != opID(3) {
		t.Errorf("stat: %+v, %v", st, err)
	}
	ended, err := m.AbortUpload(t.Context(), "f", opID(3))
	if err != nil || ended {
		t.Errorf("AbortUpload of a single PUT: ended %v, %v; nothing can call it back", ended, err)
	}
}

// A PUT that the driver gave up may land later: the error said so.
func TestLatePut(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	m := newMount(t, srv, nil)
	srv.AddFault(s3test.Rule{Op: "PutObject", Action: s3test.ActionHold, Times: 1})
	fs := m.again(t, map[string]string{"request_timeout": "2s"})
	_, err := write(t.Context(), fs, "f", []byte("late"), ufs.CreateOptions{Op: opID(4), Size: 4, Vouched: true})
	wantKind(t, err, freshet.KindDeadline)
	if _, err := m.Stat(t.Context(), "f"); !freshet.IsKind(err, freshet.KindNotExist) {
		t.Fatalf("before it landed: %v", err)
	}
	srv.WaitHeld(1, patient)
	srv.Release(s3test.AllHeld)
	wantContent(t, m, "f", []byte("late"))
}

// The completion of a multipart upload is repeated, and recognises its own work.
func TestLostAnswerOfCompletion(t *testing.T) {
	for _, action := range []string{s3test.ActionDropResponse, s3test.ActionReset, s3test.ActionStatus} {
		t.Run(action, func(t *testing.T) {
			srv := s3test.Start(t, s3test.Options{})
			m := newMount(t, srv, nil)
			data := content(3, 200_000)
			srv.AddFault(s3test.Rule{Op: "CompleteMultipartUpload", Action: action, Times: 1})
			for _, absent := range []bool{false, true} {
				key := fmt.Sprint("f", absent)
				st, err := write(t.Context(), m, key, data, ufs.CreateOptions{Op: opID(5), Size: -1, IfAbsent: absent})
				if err != nil {
					t.Fatal(err)
				}
				wantContent(t, m, key, data)
				if now, err := m.Stat(t.Context(), key); err != nil || !now.Fingerprint.Equal(st.Fingerprint) || now.Op != opID(5) {
					t.Errorf("commit said %+v, stat says %+v, %v", st, now, err)
				}
			}
			if n := uploadsLeft(t, m); n != 0 {
				t.Errorf("%d uploads left", n)
			}
		})
	}
}

func TestPartsAreRetriedAndLeaveNothing(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	m := newMount(t, srv, map[string]string{"part_size": "5MiB", "retries": "2"})
	data := content(4, 17*mib)
	srv.AddFault(s3test.Rule{Op: "UploadPart", Action: s3test.ActionReset, After: 1, Times: 2})
	mustWrite(t, m, "f", data)
	wantContent(t, m, "f", data)
	srv.ClearFaults()
	srv.AddFault(s3test.Rule{Op: "UploadPart", Action: s3test.ActionStatus, Status: 500, After: 2})
	_, err := write(t.Context(), m, "g", data, ufs.CreateOptions{Op: opID(6), Size: -1})
	wantKind(t, err, freshet.KindUnavailable)
	srv.ClearFaults()
	if n := uploadsLeft(t, m); n != 0 {
		t.Errorf("%d uploads left", n)
	}
	if _, err := m.Stat(t.Context(), "g"); !freshet.IsKind(err, freshet.KindNotExist) {
		t.Errorf("stat: %v", err)
	}
}

// Another process aborts the upload of a dead writer, and no one else's.
func TestAbortUploadOfAnotherProcess(t *testing.T) {
	for _, engine := range []s3test.Engine{s3test.VersityGW, s3test.GoFakeS3} {
		t.Run(string(engine), func(t *testing.T) {
			srv := s3test.Start(t, s3test.Options{Engine: engine})
			m := newMount(t, srv, map[string]string{"part_size": "5MiB"})
			other := m.again(t, nil)
			writers := map[freshet.OpID]ufs.Writer{}
			for n := range byte(3) {
				w, err := m.Create(t.Context(), "f", ufs.CreateOptions{Op: opID(n + 1), Size: -1})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.Write(content(n, 5*mib)); err != nil {
					t.Fatal(err)
				}
				writers[opID(n+1)] = w
			}
			waitParts(t, m, 6)
			if ended, err := other.AbortUpload(t.Context(), "f", opID(2)); err != nil || !ended {
				t.Fatalf("ended %v, %v", ended, err)
			}
			if ended, err := other.AbortUpload(t.Context(), "f", opID(9)); err != nil || ended {
				t.Errorf("unknown operation: ended %v, %v", ended, err)
			}
			if _, err := writers[opID(2)].Commit(t.Context()); err == nil {
				t.Error("the aborted upload was committed")
			}
			if err := writers[opID(1)].Abort(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := writers[opID(3)].Commit(t.Context()); err != nil {
				t.Errorf("the upload of another operation was hurt: %v", err)
			}
			wantContent(t, m, "f", content(2, 5*mib))
			ended, err := other.AbortUpload(t.Context(), "f", opID(3))
			if want := engine == s3test.VersityGW; err != nil || ended != want { // the other engine's ETags do not tell parts
				t.Errorf("abort of the completed upload: ended %v, %v; want %v", ended, err, want)
			}
			if n := uploadsLeft(t, m); n != 0 {
				t.Errorf("%d uploads left", n)
			}
		})
	}
}

// waitParts waits until n parts were stored.
func waitParts(t *testing.T, m mount, n int) {
	t.Helper()
	for deadline := time.Now().Add(patient); ; {
		done := 0
		for _, r := range m.srv.Requests() {
			if r.Op == "UploadPart" && r.Done && r.Status == 200 {
				done++
			}
		}
		if done >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d parts stored, want %d", done, n)
		}
	}
}

func TestStallEndsInTime(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	m := newMount(t, srv, map[string]string{"request_timeout": "100ms", "retries": "0"})
	srv.AddFault(s3test.Rule{Op: s3test.AnyOp, Action: s3test.ActionStall})
	start := time.Now()
	_, err := m.Stat(t.Context(), "f")
	wantKind(t, err, freshet.KindUnavailable)
	if d := time.Since(start); d > patient {
		t.Errorf("it took %v", d)
	}
}

// After a refusal, or when nothing could be sent, Abort confirms that nothing is
// left; only an unknown outcome makes it say so.
func TestAbortAfterRefusal(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	m := newMount(t, srv, nil)
	mustWrite(t, m, "f", []byte("old"))
	start := func(fs ufs.FS, data []byte, opts ufs.CreateOptions) ufs.Writer {
		t.Helper()
		opts.Size, opts.Vouched = -1, true
		w, err := fs.Create(t.Context(), "f", opts)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		return w
	}
	for _, size := range []int{3, 100_000} {
		w := start(m, content(1, size), ufs.CreateOptions{IfAbsent: true, Op: opID(2)})
		_, err := w.Commit(t.Context())
		wantKind(t, err, freshet.KindExist)
		if err := w.Abort(t.Context()); err != nil {
			t.Errorf("%d bytes: abort after a refusal: %v", size, err)
		}
		w = start(m, content(1, size), ufs.CreateOptions{Op: opID(2)})
		srv.AddFault(s3test.Rule{Op: s3test.AnyOp, Action: s3test.ActionReset})
		_, err = w.Commit(t.Context())
		wantKind(t, err, map[bool]freshet.Kind{true: freshet.KindDeadline, false: freshet.KindOf(err)}[size < 64<<10])
		srv.ClearFaults()
		err = w.Abort(t.Context())
		if size < 64<<10 {
			wantKind(t, err, freshet.KindDeadline)
		} else if err != nil {
			t.Errorf("abort of an upload that can be aborted: %v", err)
		}
	}
	down := m.again(t, map[string]string{"endpoint": "http://127.0.0.1:1", "retries": "0"})
	w := start(down, []byte("x"), ufs.CreateOptions{})
	_, err := w.Commit(t.Context())
	wantKind(t, err, freshet.KindUnavailable)
	if err := w.Abort(t.Context()); err != nil {
		t.Errorf("abort of what was never sent: %v", err)
	}
	wantContent(t, m, "f", []byte("old"))
	if n := uploadsLeft(t, m); n != 0 {
		t.Errorf("%d uploads left", n)
	}
}

// What the repetition of a completion is told does not hide that the first one may
// have landed.
func TestRefusalAfterLostCompletion(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	m := newMount(t, srv, nil)
	data := content(8, 100_000)
	srv.AddFault(
		s3test.Rule{Op: "CompleteMultipartUpload", Action: s3test.ActionDropResponse, Times: 1},
		s3test.Rule{Op: "CompleteMultipartUpload", Action: s3test.ActionStatus, Status: 403, Code: "AccessDenied"},
		s3test.Rule{Op: "HeadObject", Action: s3test.ActionStatus, Status: 403, Code: "AccessDenied"},
	)
	w, err := m.Create(t.Context(), "f", ufs.CreateOptions{Op: opID(7), Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	_, err = w.Commit(t.Context())
	wantKind(t, err, freshet.KindDeadline)
	srv.ClearFaults()
	wantKind(t, w.Abort(t.Context()), freshet.KindDeadline)
	wantContent(t, m, "f", data)
}
