package gcstest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"cloud.google.com/go/storage"
	"go.uber.org/goleak"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"github.com/freshet-io/freshet/test/child"
	"github.com/freshet-io/freshet/test/gcstest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(child.Main{M: m, Stop: gcstest.StopShared},
		// Started by a package that the SDK imports.
		goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"))
}

func newBucket(t *testing.T) *storage.BucketHandle {
	t.Helper()
	srv := gcstest.Shared(t)
	t.Setenv("STORAGE_EMULATOR_HOST", strings.TrimPrefix(srv.Endpoint(), "http://"))
	hc := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(hc.CloseIdleConnections)
	client, err := storage.NewClient(t.Context(), option.WithEndpoint(srv.Endpoint()+"/storage/v1/"),
		option.WithHTTPClient(hc), storage.WithJSONReads())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client.Bucket(srv.NewBucket(t))
}

func put(t *testing.T, o *storage.ObjectHandle, content []byte, chunk int) *storage.ObjectAttrs {
	t.Helper()
	attrs, err := tryPut(t, o, content, chunk)
	if err != nil {
		t.Fatal(err)
	}
	return attrs
}

func tryPut(t *testing.T, o *storage.ObjectHandle, content []byte, chunk int) (*storage.ObjectAttrs, error) {
	t.Helper()
	w := o.NewWriter(t.Context())
	w.ChunkSize = chunk
	if _, err := w.Write(content); err != nil {
		_ = w.Close()
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return w.Attrs(), nil
}

func isPrecondition(err error) bool {
	var api *googleapi.Error
	return errors.As(err, &api) && api.Code == http.StatusPreconditionFailed
}

func TestWriteAndReadBack(t *testing.T) {
	b := newBucket(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB
	for name, tt := range map[string]struct {
		content []byte
		chunk   int
	}{
		"empty":                  {nil, 0},
		"one request/a b+c%d é#": {[]byte("hello"), 0},
		"resumable, 4 chunks":    {big, 256 << 10},
	} {
		o := b.Object(name)
		written := put(t, o, tt.content, tt.chunk)
		if written.Metageneration != 1 || written.Size != int64(len(tt.content)) {
			t.Errorf("%s: metageneration %d, size %d", name, written.Metageneration, written.Size)
		}
		r, err := o.Generation(written.Generation).NewReader(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := io.ReadAll(r)
		_ = r.Close()
		if err != nil || !bytes.Equal(got, tt.content) {
			t.Errorf("%s: read %d bytes, %v, want %d", name, len(got), err, len(tt.content))
		}
	}
	r, err := b.Object("resumable, 4 chunks").NewRangeReader(t.Context(), 300_000, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, big[300_000:300_100]) {
		t.Errorf("range: %q, %v", got, err)
	}
}

// Each precondition holds for each operation that has it.
func TestPreconditions(t *testing.T) {
	b := newBucket(t)
	o := b.Object("x")
	first := put(t, o.If(storage.Conditions{DoesNotExist: true}), []byte("1"), 0)
	if _, err := tryPut(t, o.If(storage.Conditions{DoesNotExist: true}), []byte("2"), 0); !isPrecondition(err) {
		t.Errorf("create of what exists: %v", err)
	}
	second := put(t, o.If(storage.Conditions{GenerationMatch: first.Generation}), []byte("2"), 0)
	if second.Generation == first.Generation {
		t.Error("a write does not change the generation")
	}
	stale := o.If(storage.Conditions{GenerationMatch: first.Generation})
	if _, err := tryPut(t, stale, []byte("3"), 0); !isPrecondition(err) {
		t.Errorf("write over another generation: %v", err)
	}
	if _, err := tryPut(t, stale, bytes.Repeat([]byte("3"), 300<<10), 256<<10); !isPrecondition(err) {
		t.Errorf("resumable write over another generation: %v", err)
	}
	if err := stale.Delete(t.Context()); !isPrecondition(err) {
		t.Errorf("delete of another generation: %v", err)
	}
	if _, err := stale.Attrs(t.Context()); !isPrecondition(err) {
		t.Errorf("attributes of another generation: %v", err)
	}
	if _, err := stale.NewReader(t.Context()); !isPrecondition(err) {
		t.Errorf("read of another generation: %v", err)
	}
	if _, err := o.Generation(first.Generation).NewReader(t.Context()); !errors.Is(err, storage.ErrObjectNotExist) {
		t.Errorf("read of a generation that is gone: %v", err)
	}
	if _, err := stale.Update(t.Context(), storage.ObjectAttrsToUpdate{ContentType: "a/b"}); !isPrecondition(err) {
		t.Errorf("update of another generation: %v", err)
	}
	other := b.Object("other")
	copyOf := func(src *storage.ObjectHandle, dst storage.Conditions) error {
		_, err := other.If(dst).CopierFrom(src).Run(t.Context())
		return err
	}
	if err := copyOf(stale, storage.Conditions{DoesNotExist: true}); !isPrecondition(err) {
		t.Errorf("copy of another generation: %v", err)
	}
	if err := copyOf(o, storage.Conditions{DoesNotExist: true}); err != nil {
		t.Errorf("copy: %v", err)
	}
	if err := copyOf(o, storage.Conditions{DoesNotExist: true}); !isPrecondition(err) {
		t.Errorf("copy to what exists: %v", err)
	}
	if err := o.If(storage.Conditions{GenerationMatch: second.Generation}).Delete(t.Context()); err != nil {
		t.Errorf("delete: %v", err)
	}
	if err := o.Delete(t.Context()); !errors.Is(err, storage.ErrObjectNotExist) {
		t.Errorf("second delete: %v", err)
	}
}

func TestMetadataChangeShows(t *testing.T) {
	b := newBucket(t)
	o := b.Object("x")
	before := put(t, o, []byte("1"), 0)
	after, err := o.Update(t.Context(), storage.ObjectAttrsToUpdate{Metadata: map[string]string{"owner": "me"}})
	if err != nil {
		t.Fatal(err)
	}
	if after.Generation != before.Generation || after.Metageneration != 2 || after.Metadata["owner"] != "me" {
		t.Errorf("after the update: generation %d→%d, metageneration %d, metadata %v",
			before.Generation, after.Generation, after.Metageneration, after.Metadata)
	}
	read, err := o.Attrs(t.Context())
	if err != nil || read.Metageneration != 2 {
		t.Errorf("read back: %+v, %v", read, err)
	}
	listed, err := b.Objects(t.Context(), nil).Next()
	if err != nil || listed.Metageneration != 2 || listed.Metadata["owner"] != "me" {
		t.Errorf("listed: %+v, %v", listed, err)
	}
}

func TestComposedObjectHasNoMD5(t *testing.T) {
	b := newBucket(t)
	put(t, b.Object("a"), []byte("a"), 0)
	put(t, b.Object("b"), []byte("b"), 0)
	attrs, err := b.Object("ab").ComposerFrom(b.Object("a"), b.Object("b")).Run(t.Context())
	if err != nil || len(attrs.MD5) != 0 || attrs.CRC32C == 0 || attrs.Size != 2 {
		t.Errorf("composed: %+v, %v", attrs, err)
	}
}

// Pages hold objects and prefixes together, in order, each once.
func TestPages(t *testing.T) {
	b := newBucket(t)
	var want []string
	for i := range 5 {
		put(t, b.Object(fmt.Sprintf("d/%d", i)), nil, 0)
		put(t, b.Object(fmt.Sprintf("d/%d/x", i)), nil, 0)
		put(t, b.Object(fmt.Sprintf("d/%d/y", i)), nil, 0)
		want = append(want, fmt.Sprintf("d/%d", i), fmt.Sprintf("d/%d/", i))
	}
	put(t, b.Object("e"), nil, 0)
	for _, size := range []int{1, 2, 3, 7, 100} {
		var got []string
		token := ""
		for pages := 1; ; pages++ {
			var found []*storage.ObjectAttrs
			it := b.Objects(t.Context(), &storage.Query{Prefix: "d/", Delimiter: "/"})
			next, err := iterator.NewPager(it, size, token).NextPage(&found)
			if err != nil {
				t.Fatal(err)
			}
			if len(found) > size || (next != "" && len(found) < size) {
				t.Errorf("page size %d: page %d has %d entries", size, pages, len(found))
			}
			for _, a := range found {
				got = append(got, a.Prefix+a.Name)
			}
			if token = next; token == "" {
				break
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("page size %d: got %q, want %q", size, got, want)
		}
	}
}

func TestCloseLeavesNoProcess(t *testing.T) {
	srv, err := gcstest.Launch(t.Context(), gcstest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := syscall.Kill(srv.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", srv.PID(), err)
	}
}
