// Package mem owns an under file system in memory, for simulations and tests: a
// Store is the storage, and each FS over it one process that has mounted it. A
// Store behaves like an object store or like a local file system. It starts no
// goroutine and reads time only through its clock, so it runs in a
// testing/synctest bubble. It never persists anything.
package mem

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/btree"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

// Mode is which kind of storage a Store behaves like.
type Mode uint8

// The modes.
const (
	// Object has no directories but markers, renames by copying, and ETags.
	Object Mode = iota
	// Local has directories, atomic renames, owners and modes.
	Local
)

// Options change how a Store behaves. The zero value is an object store.
type Options struct {
	Mode Mode
	// Now tells the time of a change; nil is time.Now.
	Now func() time.Time
	// PageSize is the storage's own maximum of entries per list call; 0 is 1000.
	PageSize int
	// MaxOpLifetime is what Features say.
	MaxOpLifetime time.Duration
	// Hook, if not nil, is called before every step on the storage, without
	// any lock held, with the key inside the store. It may block; its error is
	// the step's error. The steps: stat, list (once per page), open, read, create,
	// write, commit, abort, mkdir, copy, delete, rename, setattr.
	Hook func(step, key string) error
}

// Store is a storage in memory. It is safe for concurrent use.
type Store struct {
	opts Options

	mu      sync.Mutex
	tree    btree.Map[string, *object] // files by key, directories and markers by key + "/"
	uploads map[*upload]struct{}
	moving  map[[2]string]struct{} // directories whose move has begun and not ended
	seq     int64
	calls   map[string]int
}

// object is one file or one directory. The bytes of data are never changed, only
// replaced together with version.
type object struct {
	data    []byte
	version int64
	inode   uint64
	etag    string
	modTime time.Time
	change  time.Time
	owner   string
	group   string
	mode    uint32
	op      freshet.OpID
}

// New returns an empty Store.
func New(opts Options) *Store {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.PageSize <= 0 {
		opts.PageSize = 1000
	}
	return &Store{opts: opts, uploads: map[*upload]struct{}{}, moving: map[[2]string]struct{}{}, calls: map[string]int{}}
}

// Calls returns how often each step was taken since the Store was made.
func (s *Store) Calls() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.calls)
}

// Put creates or replaces the object at key of the store, as another program
// would. On an object store the key may end in a slash.
func (s *Store) Put(key string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opts.Mode == Local {
		s.makeParents(key, "", "")
	}
	s.tree.Set(key, s.newObject(data, freshet.OpID{}, 0))
}

// Rewrite changes the bytes of the file at key in place: on a local file system
// the inode, and the modification time if the size is the same, stay. It reports
// whether the file is there.
func (s *Store) Rewrite(key string, data []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.tree.Get(key)
	if !ok {
		return false
	}
	if s.opts.Mode == Object {
		s.tree.Set(key, s.newObject(data, freshet.OpID{}, 0))
		return true
	}
	o.data = append([]byte(nil), data...)
	o.version++
	o.change = s.tick()
	return true
}

// Remove removes the file at key, as another program would, and reports whether
// it was there.
func (s *Store) Remove(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.tree.Delete(key)
	return ok
}

// Snapshot returns the bytes of every file by its key. The bytes must not be
// changed.
func (s *Store) Snapshot() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string][]byte{}
	s.tree.Scan(func(key string, o *object) bool {
		if !strings.HasSuffix(key, "/") {
			out[key] = o.data
		}
		return true
	})
	return out
}

// Uploads returns how many uploads are neither committed nor aborted.
func (s *Store) Uploads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.uploads)
}

func (s *Store) step(step, key string) error {
	s.mu.Lock()
	s.calls[step]++
	s.mu.Unlock()
	if s.opts.Hook != nil {
		return s.opts.Hook(step, key)
	}
	return nil
}

// tick returns a change time that no other change has. The lock is held.
func (s *Store) tick() time.Time {
	s.seq++
	return s.opts.Now().Add(time.Duration(s.seq))
}

func (s *Store) newObject(data []byte, op freshet.OpID, mode uint32) *object {
	if mode == 0 {
		mode = 0o644
	}
	data = append([]byte(nil), data...)
	sum := sha256.Sum256(data)
	t := s.tick()
	o := &object{data: data, inode: uint64(s.seq), etag: hex.EncodeToString(sum[:16]), modTime: s.opts.Now(), change: t, op: op}
	if s.opts.Mode == Local {
		o.owner, o.group, o.mode, o.op = "user", "group", mode, freshet.OpID{}
	}
	return o
}

// makeParents makes the directories above key. The lock is held.
func (s *Store) makeParents(key, owner, group string) {
	for i := range len(key) {
		if key[i] == '/' {
			if _, ok := s.tree.Get(key[:i+1]); !ok {
				dir := s.newDir(0)
				dir.give(owner, group)
				s.tree.Set(key[:i+1], dir)
			}
		}
	}
}

// give makes a new object somebody's; "" leaves it whose it is.
func (o *object) give(owner, group string) {
	if owner != "" {
		o.owner = owner
	}
	if group != "" {
		o.group = group
	}
}

func (s *Store) newDir(mode uint32) *object {
	if mode == 0 {
		mode = 0o755
	}
	return s.newObject(nil, freshet.OpID{}, mode)
}

// status describes the object stored at key; key ends in a slash for a
// directory. The lock is held.
func (s *Store) status(rel string, o *object) ufs.Status {
	if strings.HasSuffix(rel, "/") || rel == "" {
		st := ufs.Status{Key: strings.TrimSuffix(rel, "/"), Type: freshet.TypeDirectory}
		if o != nil {
			st.ModTime, st.Owner, st.Group, st.Mode = o.modTime, o.owner, o.group, o.mode
		}
		return st
	}
	st := ufs.Status{Key: rel, Length: int64(len(o.data)), ModTime: o.modTime, Owner: o.owner, Group: o.group, Mode: o.mode, Op: o.op}
	if s.opts.Mode == Local {
		st.Fingerprint = fingerprint.Local(fingerprint.LocalFile{
			Inode: o.inode, Size: st.Length, ModTime: o.modTime, ChangeTime: o.change, Owner: o.owner, Group: o.group, Mode: o.mode,
		})
	} else {
		st.Fingerprint = fingerprint.S3(o.etag, st.Length)
	}
	return st
}

// isDir reports whether key is a directory and gives its marker, if it has one.
// The lock is held.
func (s *Store) isDir(key string) (marker *object, ok bool) {
	if key == "" {
		return nil, true
	}
	if o, found := s.tree.Get(key + "/"); found {
		return o, true
	}
	return nil, s.holdsMore(key + "/")
}

// holdsMore reports whether any key lies below prefix. The lock is held.
func (s *Store) holdsMore(prefix string) bool {
	found := false
	s.tree.Ascend(prefix, func(key string, _ *object) bool {
		if key == prefix {
			return true
		}
		found = strings.HasPrefix(key, prefix)
		return false
	})
	return found
}
