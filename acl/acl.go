// Package acl owns POSIX access control lists: their entries, their text form and
// how a change turns one list into another. It knows no storage, no user database
// and no clock, and decides nobody's rights.
//
// A list has the entries of the access scope, which every file has, and those of
// the default scope, which only directories have and which entries made in them
// inherit. Users and groups are names; what a storage keeps as a number without a
// name is that number in digits.
package acl

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// ErrInvalid is the cause of every error of this package: a text that can't be
// read, a list that no file can have, a change that does not fit.
var ErrInvalid = errors.New("invalid access control list")

// Tag says whom an entry is about.
type Tag uint8

// The tags, in the order of a list.
const (
	User  Tag = iota // the owner or, with a name, a user
	Group            // the owning group or, with a name, a group
	Mask             // the most that the group class gets: all but owner and other
	Other            // everybody else
)

// String returns the name in the text form.
func (t Tag) String() string {
	switch t {
	case User:
		return "user"
	case Group:
		return "group"
	case Mask:
		return "mask"
	case Other:
		return "other"
	}
	return fmt.Sprintf("tag %d", uint8(t))
}

// Perm is a set of permissions.
type Perm uint8

// The permissions.
const (
	Execute Perm = 1 << iota
	Write
	Read
)

// String returns the permissions as "rwx" with "-" for what is missing.
func (p Perm) String() string {
	text := []byte("rwx")
	for i, bit := range []Perm{Read, Write, Execute} {
		if p&bit == 0 {
			text[i] = '-'
		}
	}
	return string(text)
}

// Entry is one line of a list.
type Entry struct {
	Default bool
	Tag     Tag
	Name    string // "" is the owner, the owning group, the mask or other
	Perm    Perm
}

// about reports whether e and f are about the same one.
func (e Entry) about(f Entry) bool {
	return e.Default == f.Default && e.Tag == f.Tag && e.Name == f.Name
}

// named reports whether e is about a user or a group by name.
func (e Entry) named() bool { return e.Name != "" }

// groupClass reports whether the mask bounds e.
func (e Entry) groupClass() bool { return e.named() || e.Tag == Group }

// List is an access control list, sorted: the access scope before the default
// one, by tag, the entry without a name first, then by name.
type List []Entry

// Sorted sorts the list in place and returns it.
func (l List) Sorted() List {
	slices.SortFunc(l, func(a, b Entry) int {
		switch {
		case a.Default != b.Default && b.Default:
			return -1
		case a.Default != b.Default:
			return 1
		}
		return cmp.Or(cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Name, b.Name))
	})
	return l
}

// find returns the place of the entry that is about the same as e, or -1.
func (l List) find(e Entry) int {
	return slices.IndexFunc(l, func(f Entry) bool { return e.about(f) })
}

// Scope returns the entries of one scope.
func (l List) Scope(isDefault bool) List {
	var out List
	for _, e := range l {
		if e.Default == isDefault {
			out = append(out, e)
		}
	}
	return out
}

// Extended reports whether the list says more than a mode can.
func (l List) Extended() bool {
	return slices.ContainsFunc(l, func(e Entry) bool { return e.Default || e.named() || e.Tag == Mask })
}

// Perm returns the permissions of the entry for tag and name of the scope, not ok
// if there is none.
func (l List) Perm(isDefault bool, tag Tag, name string) (p Perm, ok bool) {
	if i := l.find(Entry{Default: isDefault, Tag: tag, Name: name}); i >= 0 {
		return l[i].Perm, true
	}
	return 0, false
}

// Effective returns what e grants when the mask of its scope is taken into account.
func (l List) Effective(e Entry) Perm {
	if mask, ok := l.Perm(e.Default, Mask, ""); ok && e.groupClass() {
		return e.Perm & mask
	}
	return e.Perm
}

// FromMode returns the list that the permission bits of a mode stand for.
func FromMode(mode uint32) List {
	return List{
		{Tag: User, Perm: Perm(mode>>6) & 7}, {Tag: Group, Perm: Perm(mode>>3) & 7}, {Tag: Other, Perm: Perm(mode) & 7}, //nolint:gosec // three bits each
	}
}

// Mode returns the nine permission bits that a file with the list has: those of the
// group are the mask, where there is one.
func (l List) Mode() uint32 {
	user, _ := l.Perm(false, User, "")
	group, _ := l.Perm(false, Group, "")
	other, _ := l.Perm(false, Other, "")
	if mask, ok := l.Perm(false, Mask, ""); ok {
		group = mask
	}
	return uint32(user)<<6 | uint32(group)<<3 | uint32(other)
}

// WithoutGroup returns the list for a file that belongs to another group: the owning
// group gets no right that others do not have.
func (l List) WithoutGroup() List {
	out := slices.Clone(l)
	for i, e := range out {
		if e.Tag == Group && !e.named() {
			other, _ := l.Perm(e.Default, Other, "")
			out[i].Perm &= other
		}
	}
	return out
}

// Check returns nil for a list that a file can have: no entry twice, in each scope
// that there is owner, group and other, and a mask where there are names. A file
// that is no directory has no default scope.
func (l List) Check(dir bool) error {
	for i, e := range l {
		if e.Tag > Other || e.Perm > 7 || (e.named() && e.Tag > Group) {
			return fmt.Errorf("%w: %s is no entry", ErrInvalid, e)
		}
		if l[i+1:].find(e) >= 0 {
			return fmt.Errorf("%w: two entries for %s", ErrInvalid, e.who())
		}
	}
	if len(l.Scope(false)) == 0 {
		return fmt.Errorf("%w: it has no entries", ErrInvalid)
	}
	for _, scope := range []List{l.Scope(false), l.Scope(true)} {
		if err := scope.complete(); err != nil {
			return err
		}
	}
	if !dir && len(l.Scope(true)) > 0 {
		return fmt.Errorf("%w: only directories have default entries", ErrInvalid)
	}
	return nil
}

// complete checks one scope.
func (l List) complete() error {
	if len(l) == 0 {
		return nil
	}
	need := []Entry{{Tag: User}, {Tag: Group}, {Tag: Other}}
	if slices.ContainsFunc(l, Entry.named) {
		need = append(need, Entry{Tag: Mask})
	}
	for _, e := range need {
		if e.Default = l[0].Default; l.find(e) < 0 {
			return fmt.Errorf("%w: it needs an entry for %s", ErrInvalid, e.who())
		}
	}
	return nil
}
