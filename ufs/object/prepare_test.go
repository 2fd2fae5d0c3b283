package object_test

import (
	"context"
	"errors"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/object"
)

// preparing is a store whose uploads need more than their data.
type preparing struct {
	*flat

	prepare  func(ctx context.Context) error
	returned chan struct{} // closed when prepare has
}

type preparedUpload struct {
	object.Parts

	s *preparing
}

func newPreparing(prepare func(context.Context) error) *preparing {
	return &preparing{flat: newFlat(), prepare: prepare, returned: make(chan struct{})}
}

func (s *preparing) Begin(ctx context.Context, name string, o object.PutOptions) (object.Parts, error) {
	p, err := s.flat.Begin(ctx, name, o)
	return preparedUpload{p, s}, err
}

func (u preparedUpload) Prepare(ctx context.Context) error {
	defer close(u.s.returned)
	return u.s.prepare(ctx)
}

func (u preparedUpload) prepared() error {
	select {
	case <-u.s.returned:
		return nil
	default:
		return errors.New("called while the upload is still prepared")
	}
}

func (u preparedUpload) Complete(ctx context.Context, count int, size int64) (object.Object, error) {
	if err := u.prepared(); err != nil {
		return object.Object{}, err
	}
	return u.Parts.Complete(ctx, count, size)
}

func (u preparedUpload) Abort(ctx context.Context) (bool, error) {
	if err := u.prepared(); err != nil {
		return false, err
	}
	return u.Parts.Abort(ctx)
}

func begin(t *testing.T, fs ufs.FS, s *preparing) ufs.Writer {
	t.Helper()
	w, err := fs.Create(t.Context(), "f", ufs.CreateOptions{Op: freshet.OpID{1}, Size: -1, Vouched: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, s.limits.SinglePut+1)); err != nil {
		t.Fatal(err)
	}
	return w
}

// An upload is published when it was prepared, which runs beside its data.
func TestUploadIsPreparedBesideItsData(t *testing.T) {
	seen := make(chan struct{})
	s := newPreparing(func(context.Context) error { <-seen; return nil })
	fs := object.New(s, object.Options{})
	w := begin(t, fs, s)
	if _, err := w.Write(make([]byte, s.limits.PartSize)); err != nil { // a part goes out
		t.Fatal(err)
	}
	close(seen)
	if st, err := w.Commit(t.Context()); err != nil || st.Length != int64(s.limits.SinglePut+1+s.limits.PartSize) {
		t.Errorf("%+v, %v", st, err)
	}
}

// One that can't be prepared is dropped, and its error says why.
func TestUploadThatIsNotPrepared(t *testing.T) {
	s := newPreparing(func(context.Context) error { return object.Errorf(freshet.KindPermission, "no mark") })
	w := begin(t, object.New(s, object.Options{}), s)
	if _, err := w.Commit(t.Context()); !freshet.IsKind(err, freshet.KindPermission) {
		t.Errorf("commit: %v", err)
	}
	if err := w.Abort(t.Context()); err != nil {
		t.Errorf("abort: %v", err)
	}
	if len(s.objects) != 0 || len(s.uploads) != 0 || s.calls["complete"] != 0 {
		t.Errorf("left: %d objects, %d uploads", len(s.objects), len(s.uploads))
	}
}

// Ending an upload from outside waits for what prepares it.
func TestRevokedWhilePrepared(t *testing.T) {
	preparing := make(chan struct{})
	s := newPreparing(func(ctx context.Context) error {
		close(preparing)
		<-ctx.Done()
		return ctx.Err()
	})
	fs := object.New(s, object.Options{})
	w := begin(t, fs, s)
	<-preparing // the upload is begun beside its data
	if ended, err := fs.AbortUpload(t.Context(), "f", freshet.OpID{1}); !ended || err != nil {
		t.Errorf("ended %v, %v", ended, err)
	}
	select {
	case <-s.returned:
	default:
		t.Error("it is still prepared")
	}
	if _, err := w.Commit(t.Context()); !freshet.IsKind(err, freshet.KindConflict) {
		t.Errorf("commit: %v", err)
	}
}
