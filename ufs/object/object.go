// Package object owns what all object stores have in common: a tree of files and
// directories over flat names. A driver supplies a Store, FS is the rest of its
// ufs.FS. It never retries, knows no storage client, and never sends an effect a
// second time.
//
// Directories. A key is a directory if its marker, the object "key/", or any
// object below "key/" exists, or if the store says that the object "key" stands
// for one. Where both a file "a" and keys below "a/" exist, List yields both and
// Stat gives the file. Names that no path can have (with an empty, "." or ".."
// segment, a control character, bytes that are not UTF-8, or too long) are skipped
// with a warning and counted. Before the last child of a directory is removed, the
// directory's marker is written: it does not vanish with it.
//
// Moves are copies and deletions, object by object, and not atomic; the same call
// made again after a failure goes on where it ended.
package object

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// Options of an FS; the zero value works.
type Options struct {
	// Root is the prefix of every object, "" or one that ends in a slash.
	Root string
	// Log gets warnings; nil drops them.
	Log *slog.Logger
	// Buffers bounds the memory of parts; nil has no bound.
	Buffers *ufs.Buffers
	// Skips counts the names that List can't show; nil counts nowhere.
	Skips prometheus.Counter
}

// FS is one prefix of one bucket. Safe for concurrent use.
type FS struct {
	store  Store
	limits Limits
	root   string
	log    *slog.Logger
	skips  prometheus.Counter
	memory *ufs.Buffers
	parts  sync.Pool // *[]byte of limits.PartSize

	segmented sync.Once // the warning that nobody said so

	live     liveUploads
	mu       sync.Mutex
	removing map[string]int // removals under way, by parent directory
}

var _ ufs.FS = (*FS)(nil)

// New returns an FS over store, which Close closes.
func New(store Store, opts Options) *FS {
	f := &FS{
		store: store, limits: store.Limits(), root: opts.Root, log: opts.Log, skips: opts.Skips, memory: opts.Buffers,
		removing: map[string]int{},
	}
	f.limits.SinglePut = min(f.limits.SinglePut, f.limits.PartSize)
	f.limits.Concurrency = max(f.limits.Concurrency, 1)
	f.limits.DeleteBatch = max(f.limits.DeleteBatch, 1)
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if f.skips == nil {
		f.skips = NewSkips(nil)
	}
	return f
}

// NewSkips returns the counter of the names that listings leave out. All drivers
// of a process that give the same r share one; nil keeps it unregistered.
func NewSkips(r prometheus.Registerer) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "freshet_ufs_skipped_keys_total",
		Help: "Object names left out of listings because no path can name them.",
	})
	if r == nil {
		return c
	}
	if err := r.Register(c); err != nil {
		if again, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
			if existing, ok := again.ExistingCollector.(prometheus.Counter); ok {
				return existing
			}
		}
	}
	return c
}

// Features says what the store can do.
func (f *FS) Features() ufs.Features {
	return ufs.Features{
		Kind:               f.limits.Kind,
		CreateIfAbsent:     f.limits.IfAbsent,
		ReplaceIf:          f.limits.IfMatch,
		AbortEndsEffects:   f.limits.AbortEndsEffects,
		OperationMark:      f.limits.OperationMark,
		ModTimeResolution:  f.limits.ModTimeResolution,
		MaxOpLifetime:      f.limits.MaxOpLifetime,
		ListPage:           f.limits.ListPage,
		DirectoryListsSelf: true,
		FlatList:           f.limits.ListPage > 0 && !f.limits.Segmented,
	}
}

// Close closes the store.
func (f *FS) Close() error { return f.store.Close() }

// SetAttr is unsupported: objects have no owners and modes.
func (f *FS) SetAttr(_ context.Context, key string, _ ufs.Attr) (ufs.Status, error) {
	return ufs.Status{}, ufs.Errorf(freshet.KindUnsupported, "setattr", key, "the storage keeps no owner, group or mode")
}

// marker returns the name of the marker of the directory key, which is also the
// prefix of all below it.
func (f *FS) marker(key string) string {
	if key == "" {
		return f.root
	}
	return f.root + key + "/"
}

func directory(key string) ufs.Status {
	return ufs.Status{Key: key, Type: freshet.TypeDirectory}
}

// status makes the status of a file, or of the directory that o stands for.
func (f *FS) status(o *Object) ufs.Status {
	key := strings.TrimPrefix(o.Name, f.root)
	if o.Dir {
		return directory(key)
	}
	return ufs.Status{Key: key, Length: o.Size, ModTime: o.ModTime, Fingerprint: o.Fingerprint, Op: o.Op}
}

// failure gives an error of the store its operation and key.
func (f *FS) failure(ctx context.Context, op, key string, err error) error {
	if err == nil {
		return nil
	}
	kind, cause := freshet.KindOf(err), err
	if own, ok := err.(*freshet.Error); ok && own.Op == "" && own.Err != nil { //nolint:errorlint // made by Errorf
		cause = own.Err
	}
	switch {
	case ctx.Err() != nil:
		kind, cause = freshet.KindDeadline, errors.Join(ctx.Err(), cause)
	case !freshet.IsKind(err, kinds()...):
		kind = freshet.KindUnavailable // an error that is none of ours: of the network, most likely
	}
	return &freshet.Error{Op: op, Path: freshet.Path(key), Kind: kind, Err: cause}
}

// begun takes the word of err that the storage was not asked back: a step before
// the one that failed was taken.
func begun(err error) error {
	if !errors.Is(err, ufs.ErrNotSent) {
		return err
	}
	own, ok := errors.AsType[*freshet.Error](err)
	if !ok {
		return errors.New(err.Error())
	}
	return &freshet.Error{Op: own.Op, Path: own.Path, Kind: own.Kind, Err: errors.New(own.Err.Error())}
}

// kinds are those that a ufs.FS may return.
func kinds() []freshet.Kind {
	return []freshet.Kind{
		freshet.KindNotExist, freshet.KindExist, freshet.KindPermission, freshet.KindStale, freshet.KindConflict, freshet.KindUnavailable,
		freshet.KindUnsupported, freshet.KindInvalid, freshet.KindExhausted, freshet.KindDeadline,
	}
}

func notExist(op, key string) error {
	return ufs.Errorf(freshet.KindNotExist, op, key, "does not exist")
}

// Stat asks for the object and, if there is none, for any name below it.
func (f *FS) Stat(ctx context.Context, key string) (ufs.Status, error) {
	const op = "stat"
	if err := ufs.CheckKey(op, key); err != nil {
		return ufs.Status{}, err
	}
	if ufs.IsTemp(key) {
		return ufs.Status{}, notExist(op, key)
	}
	if key != "" {
		if st, found, err := f.head(ctx, op, key); found || err != nil {
			return st, err
		}
	}
	first, err := f.first(ctx, op, key, 1)
	switch {
	case err != nil:
		return ufs.Status{}, err
	case len(first) == 0 && key != "":
		return ufs.Status{}, notExist(op, key)
	}
	return directory(key), nil
}

// head asks for the object at key. Who gets found == false must go on to list:
// the store may have no bucket.
func (f *FS) head(ctx context.Context, op, key string) (st ufs.Status, found bool, err error) {
	o, err := f.store.Head(ctx, f.root+key)
	switch {
	case freshet.IsKind(err, freshet.KindNotExist) && ctx.Err() == nil:
		return ufs.Status{}, false, nil
	case err != nil:
		return ufs.Status{}, false, f.failure(ctx, op, key, err)
	}
	o.Name = f.root + key
	return f.status(&o), true, nil
}

// first returns the first n names below the directory key, its marker included.
func (f *FS) first(ctx context.Context, op, key string, n int) ([]string, error) {
	var names []string
	err := f.pages(ctx, op, key, ListRequest{Prefix: f.marker(key), Max: n}, func(p Page) (bool, error) {
		for _, o := range p.Objects {
			names = append(names, o.Name)
		}
		return len(names) < n, nil
	})
	return names, err
}

// pages gives each page of a listing of the directory key to use until that wants
// no more. A name that the store should not have listed is an error.
func (f *FS) pages(ctx context.Context, op, key string, req ListRequest, use func(Page) (more bool, err error)) error {
	for {
		p, err := f.store.List(ctx, req)
		if err != nil {
			return f.failure(ctx, op, key, err)
		}
		for i := range p.Objects {
			if name := p.Objects[i].Name; !strings.HasPrefix(name, req.Prefix) {
				return elsewhere(op, key, name, req.Prefix)
			}
		}
		for _, name := range p.Prefixes {
			if !strings.HasPrefix(name, req.Prefix) {
				return elsewhere(op, key, name, req.Prefix)
			}
		}
		more, err := use(p)
		if err != nil || !more || p.Next == "" {
			return err
		}
		if p.Next == req.Token {
			return ufs.Errorf(freshet.KindUnavailable, op, key, "the storage repeats a page of the listing")
		}
		req.StartAfter, req.Token = "", p.Next
	}
}

func elsewhere(op, key, name, prefix string) error {
	return ufs.Errorf(freshet.KindUnavailable, op, key, "the storage lists %q, which does not begin with %q", name, prefix)
}
