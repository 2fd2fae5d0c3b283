package ufs

import (
	"errors"
	"log/slog"
	"maps"
	"sync"

	"github.com/freshet-io/freshet"
)

// MountsOptions change how Mounts work. The zero value is usable.
type MountsOptions struct {
	// Wrap, if not nil, is put around each FS that is opened, and WrapMount, if
	// not nil, around that.
	Wrap      func(FS) FS
	WrapMount func(freshet.Mount, FS) FS
	// Log tells of storages that could not be opened or closed; nil discards.
	Log *slog.Logger
}

// Mounts is the set of storages that a process has open, by mount. A storage
// that was replaced or removed stays open until its last user has released it.
// It is safe for concurrent use.
type Mounts struct {
	opener Opener
	env    Environment
	opts   MountsOptions

	change sync.Mutex // held while storages are opened; taken before mu
	mu     sync.Mutex
	open   map[freshet.MountID]*mounted
	closed bool
}

// mounted is one open storage. users counts those who Get it, and one for the
// set itself; the last to leave closes it.
type mounted struct {
	mount freshet.Mount
	fs    FS
	err   error // why it could not be opened
	users int
}

// NewMounts returns an empty set.
func NewMounts(opener Opener, env Environment, opts MountsOptions) *Mounts {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Mounts{opener: opener, env: env, opts: opts, open: map[freshet.MountID]*mounted{}}
}

// Put opens the storage of mount in the place of an older generation. The same
// or an older generation changes nothing but bounds, see Adjuster, unless the same
// one could not be opened before. When it can't be opened, Get gives that error.
func (m *Mounts) Put(mount freshet.Mount) error {
	m.change.Lock()
	defer m.change.Unlock()
	return m.put(mount)
}

func (m *Mounts) put(mount freshet.Mount) error {
	m.mu.Lock()
	old, closed := m.open[mount.ID], m.closed
	m.mu.Unlock()
	switch {
	case closed:
		return freshet.Errorf(freshet.KindUnavailable, "open mount", mount.Path, "the process is shutting down")
	case old != nil && (old.mount.Generation > mount.Generation || (old.mount.Generation == mount.Generation && old.err == nil)):
		return m.adjust(old, mount)
	}
	next := &mounted{mount: mount, users: 1}
	next.fs, next.err = m.opener.Open(Spec{URI: mount.URI, Options: mount.Options}, m.env)
	if next.err != nil {
		next.fs, next.err = nil, notAbsent(mount, next.err)
		m.opts.Log.Error("storage of a mount can't be opened", "mount_id", uint64(mount.ID), "generation", mount.Generation, "error", next.err)
	} else {
		next.fs = m.wrap(mount, next.fs)
	}
	m.mu.Lock()
	m.open[mount.ID] = next
	m.mu.Unlock()
	m.leave(old)
	return next.err
}

// adjust gives an open storage the bounds that its mount has now.
func (m *Mounts) adjust(at *mounted, mount freshet.Mount) error {
	m.mu.Lock()
	same := at.mount.Generation != mount.Generation || maps.Equal(at.mount.Options, mount.Options) || !SameStorage(at.mount.Options, mount.Options)
	if !same {
		at.mount = mount
	}
	m.mu.Unlock()
	if same {
		return nil
	}
	return adjust(at.fs, mount)
}

func (m *Mounts) wrap(mount freshet.Mount, fs FS) FS {
	if m.opts.Wrap != nil {
		fs = m.opts.Wrap(fs)
	}
	if m.opts.WrapMount != nil {
		fs = m.opts.WrapMount(mount, fs)
	}
	return fs
}

// notAbsent wraps the error of a storage that can't be opened. That a mount's own
// root is missing says nothing about the files in it: it may be a file system
// that is not mounted yet. So it must not look like their absence.
func notAbsent(mount freshet.Mount, err error) error {
	k := freshet.KindOf(err)
	if k == freshet.KindNotExist || k == freshet.KindInternal {
		k = freshet.KindUnavailable
	}
	return &freshet.Error{Op: "open mount", Path: mount.Path, Kind: k, Err: err}
}

// Reopen tries to open again what could not be opened before.
func (m *Mounts) Reopen() error {
	m.change.Lock()
	defer m.change.Unlock()
	var broken []freshet.Mount
	m.mu.Lock()
	for _, at := range m.open {
		if at.err != nil {
			broken = append(broken, at.mount)
		}
	}
	m.mu.Unlock()
	var errs []error
	for _, mount := range broken {
		errs = append(errs, m.put(mount))
	}
	return joined("reopen mounts", errs)
}

func joined(op string, errs []error) error {
	if err := errors.Join(errs...); err != nil {
		return &freshet.Error{Op: op, Kind: freshet.KindUnavailable, Err: err}
	}
	return nil
}

// Set makes the set equal to mounts: what is new or changed is opened, what is
// missing is removed. It goes on after an error and returns all of them.
func (m *Mounts) Set(mounts []freshet.Mount) error {
	m.change.Lock()
	defer m.change.Unlock()
	keep := make(map[freshet.MountID]bool, len(mounts))
	var errs []error
	for _, mount := range mounts {
		keep[mount.ID] = true
		errs = append(errs, m.put(mount))
	}
	var gone []*mounted
	m.mu.Lock()
	for id, old := range m.open {
		if !keep[id] {
			delete(m.open, id)
			gone = append(gone, old)
		}
	}
	m.mu.Unlock()
	for _, old := range gone {
		m.leave(old)
	}
	return joined("set mounts", errs)
}

// Remove takes the mount out of the set.
func (m *Mounts) Remove(id freshet.MountID) {
	m.change.Lock()
	defer m.change.Unlock()
	m.mu.Lock()
	old := m.open[id]
	delete(m.open, id)
	m.mu.Unlock()
	m.leave(old)
}

// Get returns the storage of the mount as it is now. The caller must call release
// once it, and all that it opened, is done with it; a second call does nothing.
func (m *Mounts) Get(id freshet.MountID) (fs FS, release func(), err error) {
	return m.get(id, 0)
}

// GetAt is Get for one generation of the mount; KindStale if the process has
// another one.
func (m *Mounts) GetAt(id freshet.MountID, generation uint64) (fs FS, release func(), err error) {
	return m.get(id, generation)
}

func (m *Mounts) get(id freshet.MountID, generation uint64) (FS, func(), error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.open[id]
	switch {
	case at == nil:
		return nil, nil, freshet.Errorf(freshet.KindNotExist, "get mount", "", "mount %d is not known to this process", id)
	case generation != 0 && generation != at.mount.Generation:
		return nil, nil, freshet.Errorf(freshet.KindStale, "get mount", at.mount.Path, "the mount is of generation %d here, not %d", at.mount.Generation, generation)
	case at.err != nil:
		return nil, nil, at.err
	}
	at.users++
	var once sync.Once
	return at.fs, func() { once.Do(func() { m.leave(at) }) }, nil
}

// All returns the mounts of the set, in no order.
func (m *Mounts) All() []freshet.Mount {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]freshet.Mount, 0, len(m.open))
	for _, at := range m.open {
		all = append(all, at.mount)
	}
	return all
}

// leave takes one user away and closes what has none left.
func (m *Mounts) leave(at *mounted) {
	if at == nil {
		return
	}
	m.mu.Lock()
	at.users--
	last := at.users == 0 && at.fs != nil
	m.mu.Unlock()
	if !last {
		return
	}
	if err := at.fs.Close(); err != nil {
		m.opts.Log.Warn("storage of a mount did not close cleanly", "mount_id", uint64(at.mount.ID), "error", err)
	}
}

// Close empties the set; storages in use are closed by their last user.
func (m *Mounts) Close() error {
	err := m.Set(nil)
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	return err
}
