package ufs

import (
	"context"
	"slices"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/acl"
)

// Xattrs is an FS whose storage keeps extended attributes of users, by names that
// begin with freshet.XattrPrefix. Attributes of the storage's own are neither shown
// nor changed. KindUnsupported where what lies below keeps none; KindNotExist for a
// key, and for an attribute, that is not there.
type Xattrs interface {
	// Xattrs returns the attributes of key with their values.
	Xattrs(ctx context.Context, key string) (map[string][]byte, error)
	// SetXattr sets one. KindExhausted if the storage has no room for it.
	SetXattr(ctx context.Context, key, name string, value []byte, when freshet.XattrWhen) error
	// RemoveXattr removes one.
	RemoveXattr(ctx context.Context, key, name string) error
}

// ACLs is an FS whose storage keeps POSIX access control lists. KindUnsupported
// where what lies below keeps none, KindInvalid for a list that key can't have or
// that names a user or a group that nobody knows.
type ACLs interface {
	// ACL returns the list of key; what only has a mode has the list that the mode
	// stands for.
	ACL(ctx context.Context, key string) (acl.List, error)
	// ChangeACL changes the list as acl.Change.Apply does. Changes of one list by
	// this process do not overwrite each other.
	ChangeACL(ctx context.Context, key string, change acl.Change) error
}

// Call names a call of an optional interface to the wrappers of a storage.
type Call struct {
	Op, Key string
	// Repeatable says that a second call does what the first did.
	Repeatable bool
}

// Interceptor is a wrapper through which the calls of optional interfaces pass,
// too: it does around them what it does around its own.
type Interceptor interface {
	FS
	// Unwrap returns the FS below.
	Unwrap() FS
	// Intercept makes the call, not at all, once or again. Its error is the result.
	Intercept(ctx context.Context, c Call, call func(context.Context) error) error
}

// The calls of the optional interfaces, by the names that wrappers see.
const (
	OpXattrs      = "xattrs"
	OpSetXattr    = "set_xattr"
	OpRemoveXattr = "remove_xattr"
	OpACL         = "acl"
	OpChangeACL   = "change_acl"
)

// XattrsOf returns the Xattrs of fs, below its wrappers and through them, false if
// its storage keeps none.
func XattrsOf(fs FS) (Xattrs, bool) {
	x, around, ok := optional[Xattrs](fs)
	return xattrs{x, around}, ok
}

// ACLsOf returns the ACLs of fs, below its wrappers and through them, false if its
// storage keeps none.
func ACLsOf(fs FS) (ACLs, bool) {
	a, around, ok := optional[ACLs](fs)
	return acls{a, around}, ok
}

// optional finds the optional interface T, and the interceptors above it from the
// inside out.
func optional[T any](fs FS) (found T, around []Interceptor, ok bool) {
	for fs != nil {
		if found, ok = fs.(T); ok {
			slices.Reverse(around)
			return found, around, true
		}
		if i, ok := fs.(Interceptor); ok {
			around = append(around, i)
		}
		u, wraps := fs.(interface{ Unwrap() FS })
		if !wraps {
			break
		}
		fs = u.Unwrap()
	}
	return found, nil, false
}

// through makes a call through all interceptors.
func through(ctx context.Context, around []Interceptor, c Call, call func(context.Context) error) error {
	for _, i := range around {
		inner := call
		call = func(ctx context.Context) error { return i.Intercept(ctx, c, inner) }
	}
	return call(ctx)
}

type xattrs struct {
	inner  Xattrs
	around []Interceptor
}

func (x xattrs) Xattrs(ctx context.Context, key string) (all map[string][]byte, err error) {
	err = through(ctx, x.around, Call{OpXattrs, key, true}, func(ctx context.Context) (err error) {
		all, err = x.inner.Xattrs(ctx, key)
		return err
	})
	return all, err
}

func (x xattrs) SetXattr(ctx context.Context, key, name string, value []byte, when freshet.XattrWhen) error {
	return through(ctx, x.around, Call{OpSetXattr, key, false}, func(ctx context.Context) error {
		return x.inner.SetXattr(ctx, key, name, value, when)
	})
}

func (x xattrs) RemoveXattr(ctx context.Context, key, name string) error {
	return through(ctx, x.around, Call{OpRemoveXattr, key, false}, func(ctx context.Context) error {
		return x.inner.RemoveXattr(ctx, key, name)
	})
}

type acls struct {
	inner  ACLs
	around []Interceptor
}

func (a acls) ACL(ctx context.Context, key string) (l acl.List, err error) {
	err = through(ctx, a.around, Call{OpACL, key, true}, func(ctx context.Context) (err error) {
		l, err = a.inner.ACL(ctx, key)
		return err
	})
	return l, err
}

func (a acls) ChangeACL(ctx context.Context, key string, change acl.Change) error {
	return through(ctx, a.around, Call{OpChangeACL, key, false}, func(ctx context.Context) error {
		return a.inner.ChangeACL(ctx, key, change)
	})
}

// IsUserXattr reports whether an attribute is one that Xattrs shows.
func IsUserXattr(name string) bool { return strings.HasPrefix(name, freshet.XattrPrefix) }
