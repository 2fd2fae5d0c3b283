package sim_test

import (
	"bytes"
	"context"
	"io"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
)

// maxOpLifetime is what the storage says of late effects, lateness how late one is
// at most.
const (
	maxOpLifetime = 10 * time.Second
	lateness      = 6 * time.Second
)

// spell is what a key held from a moment on: a version, or 0 for nothing.
type spell struct {
	at      time.Time
	version int
}

// bucket is the storage that all clusters share, with the history of its keys.
type bucket struct {
	store *mem.Store

	mu   sync.Mutex
	gate func(by *site, step, key string) // called when the storage has answered a look, if not nil
	held map[string]int
	past map[string][]spell
	late sync.WaitGroup
	open map[upload]string   // uploads that nobody has ended, with who began them
	kept map[upload]bool     // those that somebody could not end
	owes map[upload]*process // those whose writer could not end them yet, and goes on trying
	soon map[upload]bool     // those that were ended before they began

	writers map[freshet.OpID]*flakyWriter // of all uploads
	ships   map[freshet.OpID]*shipment    // of those that were permitted
}

// upload is an upload by what it is for.
type upload struct {
	key string
	op  freshet.OpID
}

// excuse lets the open uploads of a site stay behind: nobody can remove them.
func (b *bucket) excuse(s *site) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for u, by := range b.open {
		if strings.HasPrefix(by, s.name+"-") {
			b.kept[u] = true
		}
	}
}

// leave lets an upload stay behind: who has to end it could not, and tries once only.
func (b *bucket) leave(key string, op freshet.OpID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept[upload{key, op}] = true
}

// orphan reports whether an upload may stay behind until it is cleared away with all that
// is old.
func (b *bucket) orphan(u upload) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.owes[u]
	if w := b.writers[u.op]; w != nil && b.soon[u] {
		p = w.f.p
	}
	return b.kept[u] || p != nil && p.dead()
}

// forestall notes that somebody ends an upload, which may begin yet: its writer ends it then.
func (b *bucket) forestall(key string, op freshet.OpID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, begun := b.open[upload{key, op}]; !begun {
		b.soon[upload{key, op}] = true
	}
}

// uploading reports whether nobody has ended an upload.
func (b *bucket) uploading(key string, op freshet.OpID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.open[upload{key, op}]
	return ok
}

// uploaded notes that an upload began, or with nobody that it ended.
func (b *bucket) uploaded(key string, op freshet.OpID, by string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if by == "" {
		delete(b.open, upload{key, op})
		return
	}
	b.open[upload{key, op}] = by
}

func newBucket(w *world, mode mem.Mode) *bucket {
	b := &bucket{held: map[string]int{}, past: map[string][]spell{}, open: map[upload]string{}, kept: map[upload]bool{}, owes: map[upload]*process{}, soon: map[upload]bool{}}
	b.writers, b.ships = map[freshet.OpID]*flakyWriter{}, map[freshet.OpID]*shipment{}
	b.store = mem.New(mem.Options{Mode: mode, PageSize: 7, MaxOpLifetime: maxOpLifetime, Hook: func(step, _ string) error {
		b.observe()
		switch step {
		case "copy", "delete", "list", "read":
			time.Sleep(w.chance.upTo(3 * time.Millisecond)) // fake time: steps of others come in between
		}
		return nil
	}})
	return b
}

// observe writes down what changed since the last time. It is called around each
// step that changes the storage, at the same fake time.
func (b *bucket) observe() {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	next := map[string]int{}
	for key, data := range b.store.Snapshot() {
		next["/"+key] = versionOf(data)
	}
	for key, v := range next {
		if b.held[key] != v {
			b.past[key] = append(b.past[key], spell{now, v})
		}
	}
	for key := range b.held {
		if _, ok := next[key]; !ok {
			b.past[key] = append(b.past[key], spell{now, 0})
		}
	}
	b.held = next
}

// answered is called when the storage has answered a look and the answer is on its
// way.
func (b *bucket) answered(by *site, step, key string) {
	b.mu.Lock()
	gate := b.gate
	b.mu.Unlock()
	if gate != nil {
		gate(by, step, key)
	}
}

// setGate sets what happens to answers on their way.
func (b *bucket) setGate(gate func(by *site, step, key string)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gate = gate
}

// during returns the versions that a key held at any moment from..to.
func (b *bucket) during(key string, from, to time.Time) map[int]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[int]bool{}
	first := 0
	for _, s := range b.past[key] {
		switch {
		case s.at.Before(from):
			first = s.version
		case !s.at.After(to):
			if s.at.After(from) && len(out) == 0 {
				out[first] = true
			}
			out[s.version] = true
		}
	}
	if len(out) == 0 {
		out[first] = true
	}
	return out
}

// changed returns when a key first changed at or after a moment, to the version if
// that is not negative.
func (b *bucket) changed(key string, from time.Time, version int) (time.Time, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.past[key] {
		if !s.at.Before(from) && (version < 0 || s.version == version) {
			return s.at, true
		}
	}
	return time.Time{}, false
}

// keys returns all keys that ever held something at or below a key.
func (b *bucket) keys(below string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for key := range b.past {
		if covers(below, key) {
			out = append(out, key)
		}
	}
	return out
}

func covers(dir, key string) bool {
	return dir == "/" || key == dir || strings.HasPrefix(key, dir+"/")
}

// mood is how the storage treats one cluster.
type mood struct {
	down                  bool
	uncertain, late, lost float64 // shares of the effects
	latency               time.Duration
	after                 time.Duration // how late a late effect is; 0: at random
	single                bool          // uploads are single requests, which an abort does not find
}

// flaky is the storage as one process reaches it.
type flaky struct {
	inner ufs.FS
	p     *process
}

var _ ufs.FS = (*flaky)(nil)

func broken(step, key string, kind freshet.Kind, why string) error {
	return ufs.Errorf(kind, step, key, "%s", why)
}

// look is what a call that changes nothing has to pass.
func (f *flaky) look(ctx context.Context, step, key string) error {
	m := f.p.site.mood()
	pause(ctx, f.p.w.chance.upTo(m.latency))
	switch {
	case f.p.dead():
		return broken(step, key, freshet.KindUnavailable, "the process is dead")
	case ctx.Err() != nil:
		return ufs.ContextError(ctx, step, key)
	case m.down:
		return broken(step, key, freshet.KindUnavailable, "the storage is down")
	}
	return nil
}

// effect is what a call that changes something goes through. Late prepares the
// effect for landing after its caller was told that nobody knows.
func (f *flaky) effect(ctx context.Context, step, key string, do func(context.Context) error, late func(context.Context) func(context.Context) error) error {
	if err := f.look(ctx, step, key); err != nil {
		return err
	}
	w, m := f.p.w, f.p.site.mood()
	switch draw := w.chance.float(); {
	case draw < m.lost:
		return broken(step, key, freshet.KindDeadline, "no answer; the request was lost")
	case draw < m.lost+m.uncertain:
		err := do(ctx)
		w.bucket.observe()
		w.note("storage: %s %s of %s happened (%v), its answer is lost", step, key, f.p.name, err)
		return broken(step, key, freshet.KindDeadline, "no answer; the answer was lost")
	case draw < m.lost+m.uncertain+m.late:
		f.later(ctx, step, key, late(ctx))
		return broken(step, key, freshet.KindDeadline, "no answer; the request is late")
	}
	err := do(ctx)
	w.bucket.observe()
	pause(context.Background(), w.chance.upTo(m.latency))
	if f.p.dead() {
		return broken(step, key, freshet.KindUnavailable, "the process is dead")
	}
	return err
}

// later lets an effect land when nobody waits for it any more.
func (f *flaky) later(ctx context.Context, step, key string, do func(context.Context) error) {
	w := f.p.w
	d := f.p.site.mood().after
	if d == 0 {
		d = w.chance.upTo(lateness)
	}
	w.note("storage: %s %s of %s will land in %s", step, key, f.p.name, d)
	w.bucket.late.Go(func() {
		time.Sleep(d)
		err := do(context.WithoutCancel(ctx))
		w.bucket.observe()
		w.note("storage: %s %s of %s landed late: %v", step, key, f.p.name, err)
	})
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (f *flaky) Features() ufs.Features { return f.inner.Features() }
func (f *flaky) Close() error           { return f.inner.Close() }

func (f *flaky) Stat(ctx context.Context, key string) (ufs.Status, error) {
	if err := f.look(ctx, "stat", key); err != nil {
		return ufs.Status{}, err
	}
	st, err := f.inner.Stat(ctx, key)
	f.p.w.bucket.answered(f.p.site, "stat", key)
	pause(ctx, f.p.w.chance.upTo(f.p.site.mood().latency)) // the answer is on its way
	return st, err
}

func (f *flaky) List(ctx context.Context, dir string, opts ufs.ListOptions) iter.Seq2[ufs.Status, error] {
	return func(yield func(ufs.Status, error) bool) {
		if err := f.look(ctx, "list", dir); err != nil {
			yield(ufs.Status{}, err)
			return
		}
		f.inner.List(ctx, dir, opts)(yield)
		f.p.w.bucket.answered(f.p.site, "list", dir)
	}
}

func (f *flaky) Open(ctx context.Context, key string, opts ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	if err := f.look(ctx, "open", key); err != nil {
		return nil, ufs.Status{}, err
	}
	return f.inner.Open(ctx, key, opts)
}

// status makes an effect with a status as answer.
func (f *flaky) status(ctx context.Context, step, key string, do func(context.Context) (ufs.Status, error)) (ufs.Status, error) {
	var st ufs.Status
	err := f.effect(ctx, step, key, func(ctx context.Context) (err error) {
		st, err = do(ctx)
		return err
	}, func(context.Context) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := do(ctx)
			return err
		}
	})
	return st, err
}

func (f *flaky) Mkdir(ctx context.Context, key string, opts ufs.MkdirOptions) (ufs.Status, error) {
	return f.status(ctx, "mkdir", key, func(ctx context.Context) (ufs.Status, error) { return f.inner.Mkdir(ctx, key, opts) })
}

func (f *flaky) Rename(ctx context.Context, from, to string) (ufs.Status, error) {
	return f.status(ctx, "rename", from, func(ctx context.Context) (ufs.Status, error) { return f.inner.Rename(ctx, from, to) })
}

func (f *flaky) SetAttr(ctx context.Context, key string, attr ufs.Attr) (ufs.Status, error) {
	return f.status(ctx, "setattr", key, func(ctx context.Context) (ufs.Status, error) { return f.inner.SetAttr(ctx, key, attr) })
}

func (f *flaky) Remove(ctx context.Context, key string, opts ufs.RemoveOptions) error {
	do := func(ctx context.Context) error { return f.inner.Remove(ctx, key, opts) }
	return f.effect(ctx, "remove", key, do, func(context.Context) func(context.Context) error { return do })
}

func (f *flaky) AbortUpload(ctx context.Context, key string, op freshet.OpID) (bool, error) {
	if err := f.look(ctx, "abort upload", key); err != nil {
		f.p.w.bucket.leave(f.p.site.storeKey(key), op)
		return false, err
	}
	f.p.w.bucket.forestall(f.p.site.storeKey(key), op)
	ended, err := f.inner.AbortUpload(ctx, key, op)
	if err == nil {
		f.p.w.bucket.uploaded(f.p.site.storeKey(key), op, "")
	}
	if ended && err == nil {
		f.p.w.bucket.ended(op)
	}
	f.p.w.story.addAbout(f.p.site.storeKey(key), "%s: ends upload %s of %s: %t, %v", f.p.name, op, key, ended, err)
	return ended, err
}

func (f *flaky) Create(ctx context.Context, key string, opts ufs.CreateOptions) (ufs.Writer, error) {
	if err := f.look(ctx, "create", key); err != nil {
		return nil, err
	}
	inner, err := f.inner.Create(ctx, key, opts)
	if err != nil {
		return nil, err
	}
	f.p.w.bucket.uploaded(f.p.site.storeKey(key), opts.Op, f.p.name)
	f.p.w.story.addAbout(f.p.site.storeKey(key), "%s: begins upload %s of %s", f.p.name, opts.Op, key)
	u := &flakyWriter{f: f, ctx: ctx, key: key, opts: opts, inner: inner}
	f.p.w.bucket.begun(u)
	return u, nil
}

// flakyWriter is an upload. The late effect of one is either that of a multipart
// upload, which an abort prevents, or that of a single request on the wire, which
// nothing does.
type flakyWriter struct {
	f     *flaky
	ctx   context.Context //nolint:containedctx // Create's context governs the writes
	key   string
	opts  ufs.CreateOptions
	inner ufs.Writer
	bytes bytes.Buffer
}

func (u *flakyWriter) Write(p []byte) (int, error) {
	if err := u.f.look(u.ctx, "write", u.key); err != nil {
		return 0, err
	}
	u.bytes.Write(p)
	return u.inner.Write(p)
}

func (u *flakyWriter) Seal(ctx context.Context) (f fingerprint.Fingerprint, err error) {
	if err := u.f.look(ctx, "seal", u.key); err != nil {
		return f, err
	}
	return u.inner.Seal(ctx)
}

func (u *flakyWriter) Abort(ctx context.Context) error {
	if err := u.f.look(ctx, "abort", u.key); err != nil {
		b := u.f.p.w.bucket
		b.mu.Lock()
		defer b.mu.Unlock()
		if !u.f.p.dead() {
			b.owes[upload{u.f.p.site.storeKey(u.key), u.opts.Op}] = u.f.p
		}
		return err
	}
	return u.ended(u.inner.Abort(ctx))
}

// ended notes that the upload is not there any more, if there is no error.
func (u *flakyWriter) ended(err error) error {
	if err == nil {
		u.f.p.w.bucket.uploaded(u.f.p.site.storeKey(u.key), u.opts.Op, "")
	}
	return err
}

func (u *flakyWriter) Commit(ctx context.Context) (st ufs.Status, err error) {
	late := func(context.Context) func(context.Context) error {
		return func(ctx context.Context) error {
			u.f.p.w.arrives(u.opts.Op)
			_, err := u.inner.Commit(ctx)
			return u.ended(err)
		}
	}
	if u.f.p.w.settings.mode == mem.Object && u.f.p.w.bucket.uploading(u.f.p.site.storeKey(u.key), u.opts.Op) &&
		(u.f.p.site.mood().single || u.f.p.w.chance.float() < .5) {
		late = u.again
	}
	if u.f.p.dead() { // it died with the request on the wire, or before it
		if u.f.p.w.chance.float() < .5 {
			u.f.later(ctx, "commit", u.key, late(ctx))
		}
		return st, broken("commit", u.key, freshet.KindUnavailable, "the process is dead")
	}
	err = u.f.effect(ctx, "commit", u.key, func(ctx context.Context) (err error) {
		u.f.p.w.arrives(u.opts.Op)
		st, err = u.inner.Commit(ctx)
		return u.ended(err)
	}, late)
	return st, err
}

// again makes the upload a single request on the wire, of which the storage knows
// nothing yet, and which lands whatever is aborted meanwhile.
func (u *flakyWriter) again(ctx context.Context) func(context.Context) error {
	_ = u.ended(u.inner.Abort(ctx)) // it never fails here
	return func(ctx context.Context) error {
		u.f.p.w.arrives(u.opts.Op)
		w, err := u.f.inner.Create(ctx, u.key, u.opts)
		if err != nil {
			return err
		}
		if _, err = w.Write(u.bytes.Bytes()); err == nil {
			_, err = w.Commit(ctx)
		}
		if err != nil {
			_ = w.Abort(ctx) // as the storage would
		}
		return err
	}
}
