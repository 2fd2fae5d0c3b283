package azblob_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/lease"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

func (b bucket) put(tb testing.TB, name string, data []byte, metadata map[string]*string) {
	tb.Helper()
	_, err := b.api.NewBlockBlobClient(name).Upload(context.Background(), streaming.NopCloser(bytes.NewReader(data)), &blockblob.UploadOptions{Metadata: metadata})
	if err != nil {
		tb.Fatal(err)
	}
}

// A container that is missing is no absent file, and whoever adds the mount is
// told what to do.
func TestNoContainer(t *testing.T) {
	b := newBucket(t)
	b.name = "missing"
	fs := b.open(t, "p", nil)
	_, err := fs.Stat(t.Context(), "f")
	wantKind(t, "stat", err, freshet.KindUnavailable)
	_, err = names(t.Context(), fs, "", ufs.ListOptions{})
	wantKind(t, "list", err, freshet.KindUnavailable)
	_, err = write(t.Context(), fs, "f", []byte("x"), ufs.CreateOptions{Vouched: true})
	wantKind(t, "create", err, freshet.KindUnavailable)
	err = ufs.Probe(t.Context(), fs)
	if !freshet.IsKind(err, freshet.KindNotExist) || !strings.Contains(err.Error(), `container "missing"`) {
		t.Errorf("probe: %v", err)
	}
}

// Of two large uploads to one file the first to end wins; the other is told, and
// the file is one of the two, whole.
func TestLargeUploadsToOneFile(t *testing.T) {
	b := newBucket(t)
	fs := b.open(t, "p", nil)
	var writers [2]ufs.Writer
	for i := range writers {
		w, err := fs.Create(t.Context(), "f", ufs.CreateOptions{Op: opID(byte(i)), Size: -1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content(byte(i), 2*mib+i)); err != nil {
			t.Fatal(err)
		}
		writers[i] = w
	}
	if _, err := writers[1].Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := writers[0].Commit(t.Context())
	if err == nil { // the emulator may keep the blocks of others
		wantContent(t, fs, "f", content(0, 2*mib))
		return
	}
	wantKind(t, "the second commit", err, freshet.KindConflict)
	if err := writers[0].Abort(t.Context()); err != nil {
		t.Errorf("abort of a refused upload: %v", err)
	}
	wantContent(t, fs, "f", content(1, 2*mib+1))
}

// Blocks that another program left unfinished are in nobody's way, or it is said
// so.
func TestForeignBlocks(t *testing.T) {
	b := newBucket(t)
	fs := b.open(t, "p", nil)
	id := base64.StdEncoding.EncodeToString([]byte("1"))
	if _, err := b.api.NewBlockBlobClient("p/f").StageBlock(t.Context(), id, streaming.NopCloser(bytes.NewReader([]byte("x"))), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Stat(t.Context(), "f"); !freshet.IsKind(err, freshet.KindNotExist) {
		t.Errorf("unfinished blocks are visible: %v", err)
	}
	data := content(1, 2*mib)
	if _, err := write(t.Context(), fs, "f", data, ufs.CreateOptions{}); err != nil {
		wantKind(t, "write", err, freshet.KindConflict)
		return
	}
	wantContent(t, fs, "f", data)
}

// Blobs that stand for directories, as Hadoop's clients make them.
func TestFolders(t *testing.T) {
	b := newBucket(t)
	yes := "true"
	folder := map[string]*string{"hdi_isfolder": &yes}
	b.put(t, "p/empty", nil, folder)
	b.put(t, "p/d", nil, folder)
	b.put(t, "p/d-x", []byte("x"), nil)
	b.put(t, "p/d/f", []byte("x"), nil)
	b.put(t, "p/d/in", nil, folder)
	b.put(t, "p/d/in/g", []byte("x"), nil)
	fs := b.open(t, "p", nil)
	for _, page := range []int{0, 1, 2} {
		got, err := names(t.Context(), fs, "", ufs.ListOptions{Recursive: true, PageSize: page})
		if want := []string{"d-x", "d/", "d/f", "d/in/", "d/in/g", "empty/"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("page %d: %q, %v; want %q", page, got, err, want)
		}
		got, err = names(t.Context(), fs, "", ufs.ListOptions{PageSize: page})
		if want := []string{"d-x", "d/", "empty/"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("page %d, not recursive: %q, %v; want %q", page, got, err, want)
		}
	}
	if st, err := fs.Stat(t.Context(), "empty"); err != nil || !st.IsDir() {
		t.Errorf("stat: %+v, %v", st, err)
	}
	if _, err := read(t.Context(), fs, "empty", ufs.OpenOptions{Length: -1}); !freshet.IsKind(err, freshet.KindConflict) {
		t.Errorf("open: %v", err)
	}
	if _, err := write(t.Context(), fs, "empty", []byte("x"), ufs.CreateOptions{}); !freshet.IsKind(err, freshet.KindConflict) {
		t.Errorf("create: %v", err)
	}
	if got, err := names(t.Context(), fs, "empty", ufs.ListOptions{}); err != nil || len(got) != 0 {
		t.Errorf("list of the empty one: %q, %v", got, err)
	}
	if _, err := fs.Rename(t.Context(), "d", "moved"); err != nil {
		t.Error(err)
	}
	if err := fs.Remove(t.Context(), "empty", ufs.RemoveOptions{}); err != nil {
		t.Error(err)
	}
	got, err := names(t.Context(), fs, "", ufs.ListOptions{Recursive: true})
	if want := []string{"d-x", "moved/", "moved/f", "moved/in/", "moved/in/g"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("after the move: %q, %v; want %q", got, err, want)
	}
}

// With the option hierarchical, directories are made as a hierarchical namespace
// has them.
func TestHierarchicalMarks(t *testing.T) {
	b := newBucket(t)
	fs := b.open(t, "p", map[string]string{"hierarchical": "true"})
	if _, err := fs.Mkdir(t.Context(), "a/b", ufs.MkdirOptions{}); err != nil {
		t.Fatal(err)
	}
	out, err := b.api.NewBlobClient("p/a/b").GetProperties(t.Context(), nil)
	if err != nil || len(out.Metadata) != 1 {
		t.Errorf("%v, %v", out.Metadata, err)
	}
	mustWrite(t, fs, "c/f", []byte("x"))
	if err := fs.Remove(t.Context(), "c/f", ufs.RemoveOptions{}); err != nil {
		t.Error(err)
	}
	if st, err := fs.Stat(t.Context(), "c"); err != nil || !st.IsDir() {
		t.Errorf("the directory vanished with its child: %+v, %v", st, err)
	}
	if err := fs.Remove(t.Context(), "a", ufs.RemoveOptions{Recursive: true}); err != nil {
		t.Error(err)
	}
	if got, err := names(t.Context(), fs, "", ufs.ListOptions{Recursive: true}); err != nil || !slices.Equal(got, []string{"c/"}) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestOddNames(t *testing.T) {
	b := newBucket(t)
	fs := b.open(t, "p", nil)
	var want []string
	for _, name := range []string{
		" leading", "trailing ", "two  spaces", "per%cent", "%2e%2e%2f", "%00", "plus+plus", "quote'single", `quote"double`, "%5c",
		"semi;colon", "a&b=c?d#e", "<img src=x onerror=alert(1)>", "star*[x]{y}", "tilde~", ".hidden", "...", "-dash", "ünïcödé", "日本語", "e\u0301 vs é",
		"emoji🙂", "\u202egnp.exe", strings.Repeat("n", 200),
	} {
		data := []byte("content of " + name)
		mustWrite(t, fs, "odd/"+name, data)
		wantContent(t, fs, "odd/"+name, data)
		want = append(want, "odd/"+name)
	}
	slices.Sort(want)
	for _, o := range []ufs.ListOptions{{}, {Recursive: true, PageSize: 3}} {
		if got, err := names(t.Context(), fs, "odd", o); err != nil || !slices.Equal(got, want) {
			t.Errorf("%+v: %v\n got %q\nwant %q", o, err, got, want)
		}
	}
}

// Azure takes a backslash for a slash: a name with one is never another's.
func TestBackslash(t *testing.T) {
	b := newBucket(t)
	fs := b.open(t, "p", nil)
	mustWrite(t, fs, "a/b", []byte("x"))
	for what, err := range map[string]error{
		"stat": second(fs.Stat(t.Context(), `a\b`)), "open": second(read(t.Context(), fs, `a\b`, ufs.OpenOptions{Length: -1})),
		"list": second(names(t.Context(), fs, `a\`, ufs.ListOptions{})), "remove": fs.Remove(t.Context(), `a\b`, ufs.RemoveOptions{}),
	} {
		wantKind(t, what, err, freshet.KindNotExist)
	}
	for what, err := range map[string]error{
		"create": second(write(t.Context(), fs, `a\b`, []byte("y"), ufs.CreateOptions{})),
		"large":  second(write(t.Context(), fs, `a\b`, content(1, 2*mib), ufs.CreateOptions{})),
		"mkdir":  second(fs.Mkdir(t.Context(), `a\c`, ufs.MkdirOptions{})), "rename": second(fs.Rename(t.Context(), "a/b", `a\c`)),
		"long": second(write(t.Context(), fs, strings.Repeat("n/", 512), []byte("y"), ufs.CreateOptions{})),
	} {
		wantKind(t, what, err, freshet.KindInvalid)
	}
	wantContent(t, fs, "a/b", []byte("x"))
}

// Each write is a version of its own, one of metadata too; a fingerprint of
// another storage is none of ours.
func TestVersions(t *testing.T) {
	b := newBucket(t)
	fs := b.open(t, "p", nil)
	first := mustWrite(t, fs, "f", []byte("same"))
	second := mustWrite(t, fs, "f", []byte("same"))
	if first.Fingerprint.SameContent(second.Fingerprint) {
		t.Error("two writes have one version")
	}
	value := "v"
	if _, err := b.api.NewBlobClient("p/f").SetMetadata(t.Context(), map[string]*string{"k": &value}, nil); err != nil {
		t.Fatal(err)
	}
	third, err := fs.Stat(t.Context(), "f")
	if err != nil || third.Fingerprint.SameContent(second.Fingerprint) {
		t.Errorf("%+v, %v", third, err)
	}
	for _, fp := range []fingerprint.Fingerprint{fingerprint.S3("x", 4), fingerprint.Azure("x"), {Content: "azure:x:y"}, {Content: "azure:4:"}} {
		_, err := read(t.Context(), fs, "f", ufs.OpenOptions{Want: fp, Length: -1})
		wantKind(t, "open "+fp.Content, err, freshet.KindStale)
		for _, size := range []int{1, 2 * mib} {
			_, err = write(t.Context(), fs, "f", make([]byte, size), ufs.CreateOptions{IfMatch: fp})
			wantKind(t, "replace "+fp.Content, err, freshet.KindStale)
		}
	}
}

func TestSnapshotsStay(t *testing.T) {
	b := newBucket(t)
	fs := b.open(t, "p", nil)
	mustWrite(t, fs, "f", []byte("x"))
	if _, err := b.api.NewBlobClient("p/f").CreateSnapshot(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	err := fs.Remove(t.Context(), "f", ufs.RemoveOptions{})
	if !freshet.IsKind(err, freshet.KindConflict) || !strings.Contains(err.Error(), "delete_snapshots") {
		t.Errorf("remove: %v", err)
	}
	if err := b.open(t, "p", map[string]string{"delete_snapshots": "true"}).Remove(t.Context(), "f", ufs.RemoveOptions{}); err != nil {
		t.Error(err)
	}
}

// A lease of somebody else is not another version.
func TestLease(t *testing.T) {
	b := newBucket(t)
	fs := b.open(t, "p", nil)
	st := mustWrite(t, fs, "f", []byte("x"))
	client, err := lease.NewBlobClient(b.api.NewBlobClient("p/f"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.AcquireLease(t.Context(), 60, nil); err != nil {
		t.Fatal(err)
	}
	_, err = write(t.Context(), fs, "f", []byte("y"), ufs.CreateOptions{IfMatch: st.Fingerprint})
	wantKind(t, "replace", err, freshet.KindConflict)
	wantKind(t, "remove", fs.Remove(t.Context(), "f", ufs.RemoveOptions{}), freshet.KindConflict)
	if !strings.Contains(err.Error(), "lease") {
		t.Errorf("%v does not speak of the lease", err)
	}
}

// The copy of a source that changes meanwhile is refused; one that the service
// does in the background is waited for.
func TestCopies(t *testing.T) {
	b := newBucket(t)
	p := newProxy(t, b)
	fs := p.mount(t, b, "p", nil)
	mustWrite(t, fs, "a", []byte("old"))
	p.script(func(c string, _ *http.Request) fault {
		if c == "Copy" {
			b.put(t, "p/a", []byte("newer"), nil)
		}
		return pass
	})
	_, err := fs.Rename(t.Context(), "a", "b")
	wantKind(t, "the source changed", err, freshet.KindStale)
	p.set(pass, 0)
	wantContent(t, fs, "a", []byte("newer"))

	for _, end := range []fault{pass, failed, notThere} {
		mustWrite(t, fs, "d/slow", content(1, 1000))
		heads := 0
		p.script(func(c string, r *http.Request) fault {
			switch {
			case c == "Copy":
				return pending
			case c == "Head" && strings.HasSuffix(r.URL.Path, "moved"):
				if heads++; heads == 1 {
					return pass // the way is looked at
				}
				if heads == 2 {
					return pending
				}
				return end
			}
			return pass
		})
		st, err := fs.Rename(t.Context(), "d/slow", "moved")
		p.set(pass, 0)
		switch end {
		case pass:
			now, statErr := fs.Stat(t.Context(), "moved")
			if err != nil || statErr != nil || !now.Fingerprint.Equal(st.Fingerprint) || now.Op != opID(1) || heads != 3 {
				t.Errorf("after %d looks: %+v, %v; now %+v, %v", heads, st, err, now, statErr)
			}
			continue
		case failed:
			wantKind(t, "a copy that failed", err, freshet.KindUnavailable)
		default:
			wantKind(t, "a copy of which nothing is known", err, freshet.KindDeadline)
		}
		wantContent(t, fs, "d/slow", content(1, 1000))
	}
}

// What each call costs, in requests.
func TestRequests(t *testing.T) {
	b := newBucket(t)
	p := newProxy(t, b)
	fs := p.mount(t, b, "p", nil)
	for i := range 25 {
		mustWrite(t, fs, fmt.Sprintf("d/f%02d", i), []byte("x"))
	}
	large := content(1, 3*mib+5)
	st := mustWrite(t, fs, "large", large)
	for _, c := range []struct {
		name string
		call func() error
		want string
	}{
		{"stat", func() error { return second(fs.Stat(t.Context(), "large")) }, "map[Head:1]"},
		{"stat of a directory", func() error { return second(fs.Stat(t.Context(), "d")) }, "map[Head:1 List:1]"},
		{"list", func() error { return second(names(t.Context(), fs, "d", ufs.ListOptions{PageSize: 10})) }, "map[List:3]"},
		{"list all", func() error { return second(names(t.Context(), fs, "", ufs.ListOptions{Recursive: true})) }, "map[List:1]"},
		{"open", func() error {
			return second(read(t.Context(), fs, "large", ufs.OpenOptions{Want: st.Fingerprint, Offset: 100, Length: 1000}))
		}, "map[Get:1]"},
		{"small, vouched", func() error {
			return second(write(t.Context(), fs, "d/v", []byte("x"), ufs.CreateOptions{Vouched: true}))
		}, "map[PutBlob:1]"},
		{"one block, vouched", func() error {
			return second(write(t.Context(), fs, "d/w", large[:mib], ufs.CreateOptions{Vouched: true}))
		}, "map[PutBlob:1]"},
		{"new, not vouched", func() error { return second(write(t.Context(), fs, "d/x", []byte("x"), ufs.CreateOptions{})) }, "map[Head:1 List:2 PutBlob:1]"},
		{"large, vouched", func() error {
			return second(write(t.Context(), fs, "d/l", large, ufs.CreateOptions{Vouched: true}))
		}, "map[PutBlock:4 PutBlockList:1]"},
		{"remove", func() error { return fs.Remove(t.Context(), "d/v", ufs.RemoveOptions{}) }, "map[Delete:1 Head:1 List:1]"},
	} {
		p.set(pass, 0)
		if err := c.call(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := fmt.Sprint(p.counts()); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// pausedContext is how a context looks to a process that was paused beyond its
// deadline and has just woken up: no timer has fired yet.
type pausedContext struct {
	context.Context
	late *atomic.Bool
}

func (c pausedContext) Deadline() (time.Time, bool) {
	if c.late.Load() {
		return time.Now().Add(-time.Minute), true
	}
	return time.Now().Add(time.Hour), true
}

// An effect is sent only if its time is not over when it has been signed, whatever
// timers say. Each case is paused while the request before the effect is answered.
func TestC13APausedProcessSendsNoEffect(t *testing.T) {
	b := newBucket(t)
	p := newProxy(t, b)
	fs := p.mount(t, b, "p", nil)
	put := func(size int) func(context.Context) error {
		return func(ctx context.Context) error {
			return second(write(ctx, fs, "new", make([]byte, size), ufs.CreateOptions{}))
		}
	}
	for effect, tc := range map[string]struct {
		call   func(context.Context) error
		before string
	}{
		"PutBlob":      {put(10), "Head"},
		"PutBlockList": {put(2 * mib), "PutBlock"},
		"Delete":       {func(ctx context.Context) error { return fs.Remove(ctx, "d/f", ufs.RemoveOptions{}) }, "Head"},
		"Copy":         {func(ctx context.Context) error { return second(fs.Rename(ctx, "d/f", "g")) }, "List"},
	} {
		for _, paused := range []bool{false, true} {
			p.set(pass, 0)
			mustWrite(t, fs, "d/f", []byte("x"))
			mustWrite(t, fs, "d/keep", []byte("x"))
			for _, key := range []string{"new", "g"} {
				_ = fs.Remove(t.Context(), key, ufs.RemoveOptions{})
			}
			var late atomic.Bool
			p.script(func(c string, _ *http.Request) fault {
				if paused && c == tc.before {
					late.Store(true)
				}
				return pass
			})
			err := tc.call(pausedContext{t.Context(), &late})
			if sent := p.counts()[effect] > 0; sent == paused {
				t.Errorf("%s, paused %v: sent is %v", effect, paused, sent)
			}
			if paused {
				wantKind(t, effect, err, freshet.KindDeadline)
			} else if err != nil {
				t.Errorf("%s: %v", effect, err)
			}
		}
	}
}

// Directories do not vanish with their last child, however many are removed at a
// time.
func TestDirectoryOutlivesConcurrentRemovals(t *testing.T) {
	b := newBucket(t)
	fs := b.open(t, "p", nil)
	for i := range 8 {
		mustWrite(t, fs, fmt.Sprintf("d/f%d", i), []byte("x"))
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := fs.Remove(t.Context(), fmt.Sprintf("d/f%d", i), ufs.RemoveOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if st, err := fs.Stat(t.Context(), "d"); err != nil || !st.IsDir() {
		t.Fatalf("%+v, %v", st, err)
	}
}
