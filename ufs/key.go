package ufs

import (
	"context"
	"fmt"
	"strings"

	"github.com/freshet-io/freshet"
)

// SortKey returns what listings are ordered by: the key, and a "/" after it for
// a directory.
func (s Status) SortKey() string {
	if s.Type == freshet.TypeDirectory {
		return s.Key + "/"
	}
	return s.Key
}

// IsDir reports whether s is a directory.
func (s Status) IsDir() bool { return s.Type == freshet.TypeDirectory }

// CheckKey refuses what can't be a key: a leading, trailing or doubled slash, a
// "." or ".." segment, NUL. It is KindInvalid.
func CheckKey(op, key string) error {
	if key == "" {
		return nil
	}
	if strings.IndexByte(key, 0) >= 0 {
		return freshet.Errorf(freshet.KindInvalid, op, "", "key contains NUL")
	}
	for seg := range strings.SplitSeq(key, "/") {
		switch seg {
		case "":
			return Errorf(freshet.KindInvalid, op, key, "key has an empty segment")
		case ".", "..":
			return Errorf(freshet.KindInvalid, op, key, "key contains %q segment", seg)
		}
	}
	return nil
}

// CheckWrite is CheckKey for operations that create or change: it also refuses
// the root (KindConflict) and names of drivers (KindPermission).
func CheckWrite(op, key string) error {
	if err := CheckKey(op, key); err != nil {
		return err
	}
	if key == "" {
		return Errorf(freshet.KindConflict, op, key, "is the root of the mount")
	}
	if IsTemp(key) {
		return Errorf(freshet.KindPermission, op, key, "reserved name: names that start with %q belong to Freshet", TempPrefix)
	}
	return nil
}

// IsTemp reports whether key is, or lies below, a name that drivers keep for
// themselves.
func IsTemp(key string) bool {
	return strings.HasPrefix(key, TempPrefix) || strings.Contains(key, "/"+TempPrefix)
}

// ParentKey returns the key of the directory that holds key; the root's is "".
func ParentKey(key string) string { return key[:max(0, strings.LastIndexByte(key, '/'))] }

// JoinKey returns the key of the entry name in dir.
func JoinKey(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// Errorf returns the *freshet.Error that drivers return: of kind k, about key.
func Errorf(k freshet.Kind, op, key, format string, args ...any) error {
	return &freshet.Error{Op: op, Path: freshet.Path(key), Kind: k, Err: fmt.Errorf(format, args...)}
}

// ContextError returns the error of a call whose ctx has ended, nil if it has
// not. Its Kind is KindDeadline, and errors.Is finds the context's own error.
func ContextError(ctx context.Context, op, key string) error {
	if err := ctx.Err(); err != nil {
		return &freshet.Error{Op: op, Path: freshet.Path(key), Kind: freshet.KindDeadline, Err: err}
	}
	return nil
}
