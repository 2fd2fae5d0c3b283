package object_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/object"
)

// counting is a store that counts the bytes of parts that it is sent at a time.
type counting struct {
	*flat

	now, most atomic.Int64
}

type countedUpload struct {
	object.Parts

	s *counting
}

func (s *counting) Begin(ctx context.Context, name string, o object.PutOptions) (object.Parts, error) {
	p, err := s.flat.Begin(ctx, name, o)
	return countedUpload{p, s}, err
}

func (u countedUpload) Part(ctx context.Context, number int, data []byte) error {
	n := u.s.now.Add(int64(len(data)))
	defer u.s.now.Add(-int64(len(data)))
	for most := u.s.most.Load(); n > most && !u.s.most.CompareAndSwap(most, n); most = u.s.most.Load() {
	}
	return u.Parts.Part(ctx, number, data)
}

func bounded(t *testing.T, size int64) *ufs.Buffers {
	t.Helper()
	b, err := ufs.NewBuffers(size, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Many uploads share the memory of few parts, or of less than one: all end, each with
// its bytes.
func TestUploadsShareMemory(t *testing.T) {
	const part, writers = 256 << 10, 20
	for _, size := range []int64{3 * part, part, part / 2} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d bytes, length known: %v", size, known), func(t *testing.T) {
				s := &counting{flat: newFlat()}
				memory := bounded(t, size)
				fs := object.New(s, object.Options{Buffers: memory})
				group, ctx := errgroup.WithContext(t.Context())
				for i := range writers {
					group.Go(func() error { return shares(ctx, fs, i, known) })
				}
				if err := group.Wait(); err != nil {
					t.Fatal(err)
				}
				if most := s.most.Load(); most > max(size, part) {
					t.Errorf("%d bytes of parts at a time in the memory of %d", most, size)
				}
				give, err := memory.Take(t.Context(), size) // nothing was kept
				if err != nil {
					t.Fatal(err)
				}
				give()
			})
		}
	}
}

// shares writes a file in small pieces and reads it again.
func shares(ctx context.Context, fs ufs.FS, i int, known bool) error {
	data := bytes.Repeat([]byte{byte(i), byte(i >> 8), 'x'}, 400_000+i)
	opts := ufs.CreateOptions{Size: -1, Vouched: true}
	if known {
		opts.Size = int64(len(data))
	}
	key := fmt.Sprintf("f%d", i)
	w, err := fs.Create(ctx, key, opts)
	if err != nil {
		return err
	}
	for rest := data; len(rest) > 0; {
		n := min(len(rest), 50_000)
		if _, err := w.Write(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	if _, err := w.Commit(ctx); err != nil {
		return err
	}
	r, _, err := fs.Open(ctx, key, ufs.OpenOptions{Length: -1})
	if err != nil {
		return err
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, data) {
		return fmt.Errorf("read %d other bytes of %s: %w", len(got), key, err)
	}
	return r.Close()
}

// Uploads that fail, are aborted or wait in vain give their memory back.
func TestMemoryOfUploadsThatFail(t *testing.T) { synctest.Test(t, memoryOfUploadsThatFail) }

func memoryOfUploadsThatFail(t *testing.T) {
	const part = 256 << 10
	s := newFlat()
	memory := bounded(t, part)
	fs := object.New(s, object.Options{Buffers: memory})
	create := func(key string) ufs.Writer {
		t.Helper()
		w, err := fs.Create(t.Context(), key, ufs.CreateOptions{Size: -1, Vouched: true})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	holds := create("holds")
	if _, err := holds.Write(make([]byte, part/2)); err != nil {
		t.Fatal(err)
	}
	waits, ended := create("waits"), make(chan error, 1)
	go func() {
		_, err := waits.Write(make([]byte, part))
		ended <- err
	}()
	synctest.Wait()
	select {
	case err := <-ended:
		t.Fatalf("wrote without memory: %v", err)
	default:
	}
	if err := holds.Abort(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.fail = func(call, _ string) error {
		if call == "part" {
			return object.Errorf(freshet.KindPermission, "no")
		}
		return nil
	}
	s.mu.Unlock()
	fails := create("fails")
	_, err := fails.Write(make([]byte, 3*part))
	if _, cerr := fails.Commit(t.Context()); err == nil && cerr == nil {
		t.Error("an upload without its parts was committed")
	}
	for _, w := range []ufs.Writer{waits, fails} {
		if err := w.Abort(t.Context()); err != nil {
			t.Error(err)
		}
	}
	give, err := memory.Take(t.Context(), part)
	if err != nil {
		t.Fatal(err)
	}
	give()
}

// The first part is filled while the storage begins the upload; that it can't is told.
func TestUploadBeginsBesideItsData(t *testing.T) {
	for _, refused := range []bool{false, true} {
		s, asked := newFlat(), make(chan struct{})
		s.fail = func(call, _ string) error {
			if call != "begin" {
				return nil
			}
			<-asked
			if refused {
				return object.Errorf(freshet.KindPermission, "no")
			}
			return nil
		}
		w, err := object.New(s, object.Options{}).Create(t.Context(), "f", ufs.CreateOptions{Size: -1, Vouched: true})
		if err != nil {
			t.Fatal(err)
		}
		size := 2*s.limits.PartSize + 1
		if _, err := w.Write(make([]byte, size)); err != nil {
			t.Errorf("write: %v", err)
		}
		close(asked)
		st, err := w.Commit(t.Context())
		if refused && !freshet.IsKind(err, freshet.KindPermission) || !refused && (err != nil || st.Length != int64(size)) {
			t.Errorf("refused %v: %+v, %v", refused, st, err)
		}
		if err := w.Abort(t.Context()); err != nil {
			t.Errorf("abort: %v", err)
		}
		if refused && (len(s.objects) != 0 || s.calls["part"]+s.calls["complete"] != 0) {
			t.Errorf("an upload that was not begun went on: %v", s.calls)
		}
	}
}
