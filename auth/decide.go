package auth

import (
	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/acl"
)

// The bits of a mode beside the permissions.
const (
	setgid = 0o2000
	sticky = 0o1000
)

// mayBy reports whether the mode alone gives a caller what it wants, which is all
// there is to say where there is no list.
func mayBy(who *Caller, r *freshet.Rights, want acl.Perm) bool {
	bits := r.Mode
	switch {
	case who.Name == r.Owner:
		bits >>= 6
	case who.in(r.Group):
		bits >>= 3
	}
	return acl.Perm(bits&7)&want == want //nolint:gosec // three bits
}

// mayByList decides as POSIX 1003.1e does: the first of owner, named user, groups
// and other that is about the caller decides, of the groups any one that gives all.
func mayByList(who *Caller, r *freshet.Rights, list acl.List, want acl.Perm) bool {
	gives := func(e acl.Entry) bool { return list.Effective(e)&want == want }
	inGroup := false
	var other acl.Entry
	for _, tag := range []acl.Tag{acl.User, acl.Group, acl.Other} {
		for _, e := range list {
			if e.Default || e.Tag != tag {
				continue
			}
			switch {
			case tag == acl.Other:
				other = e
			case tag == acl.Group && (e.Name == "" && who.in(r.Group) || who.in(e.Name)):
				if gives(e) {
					return true
				}
				inGroup = true
			case tag == acl.User && (e.Name == "" && who.Name == r.Owner || e.Name != "" && e.Name == who.Name):
				return gives(e)
			}
		}
	}
	return !inGroup && gives(other)
}
