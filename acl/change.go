package acl

import (
	"fmt"
	"slices"
)

// Kind says what a Change does.
type Kind uint8

// The kinds, with the options of setfacl that they are named by.
const (
	Modify        Kind = iota // -m: add entries, or change those that are there
	Remove                    // -x: remove entries; their permissions do not count
	Set                       // --set: replace the scopes that entries are given for
	RemoveAll                 // -b: leave owner, group and other
	RemoveDefault             // -k: leave the access scope alone
)

var kinds = [...]string{Modify: "modify", Remove: "remove", Set: "set", RemoveAll: "remove_all", RemoveDefault: "remove_default"}

// String returns the name of the kind on the wire.
func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// ParseKind reads what String returns.
func ParseKind(s string) (Kind, error) {
	if i := slices.Index(kinds[:], s); i >= 0 {
		return Kind(i), nil //nolint:gosec // an index of kinds
	}
	return 0, fmt.Errorf("%w: %q is no change; known are %q", ErrInvalid, s, kinds)
}

// Change turns one list into another.
type Change struct {
	Kind    Kind
	Entries List // none for RemoveAll and RemoveDefault
}

// Check returns nil for a change that can be applied to some list.
func (c Change) Check() error {
	removal := c.Kind == RemoveAll || c.Kind == RemoveDefault
	switch {
	case int(c.Kind) >= len(kinds):
		return fmt.Errorf("%w: no change of %s", ErrInvalid, c.Kind)
	case removal && len(c.Entries) > 0:
		return fmt.Errorf("%w: %s takes no entries", ErrInvalid, c.Kind)
	case !removal && len(c.Entries) == 0:
		return fmt.Errorf("%w: %s needs entries", ErrInvalid, c.Kind)
	}
	for i, e := range c.Entries {
		if c.Entries[i+1:].find(e) >= 0 {
			return fmt.Errorf("%w: two entries for %s", ErrInvalid, e.who())
		}
		if c.Kind == Remove && !e.named() && !e.Default && e.Tag != Mask {
			return fmt.Errorf("%w: the entry for %s can't be removed", ErrInvalid, e.who())
		}
	}
	return nil
}

// Apply returns what the change makes of old, the list of a directory or of
// something else; old stays as it is. The result is what setfacl and HDFS make: a
// mask that was not given is the union of what it bounds, in each scope that
// changed; a new default scope takes what it lacks of owner, group and other from
// the access scope.
func (c Change) Apply(old List, dir bool) (List, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	next := slices.Clone(old)
	for _, isDefault := range []bool{false, true} {
		next = c.applyTo(next, isDefault)
	}
	next = next.Sorted()
	if err := next.Check(dir); err != nil {
		return nil, err
	}
	return next, nil
}

func (c Change) applyTo(l List, isDefault bool) List {
	given := c.Entries.Scope(isDefault)
	in := func(e Entry) bool { return e.Default == isDefault }
	switch c.Kind {
	case RemoveAll:
		return slices.DeleteFunc(l, func(e Entry) bool { return e.Default || e.named() || e.Tag == Mask })
	case RemoveDefault:
		return slices.DeleteFunc(l, func(e Entry) bool { return e.Default })
	case Remove:
		before := len(l)
		l = slices.DeleteFunc(l, func(e Entry) bool { return given.find(e) >= 0 })
		if len(l) == before {
			return l
		}
		return l.masked(isDefault, nil)
	case Set:
		if len(given) == 0 {
			return l
		}
		l = slices.DeleteFunc(l, in)
	case Modify:
	}
	if len(given) == 0 {
		return l
	}
	for _, e := range given {
		if i := l.find(e); i >= 0 {
			l[i] = e
		} else {
			l = append(l, e)
		}
	}
	if isDefault {
		l = l.withDefaults()
	}
	return l.masked(isDefault, given)
}

// withDefaults completes the default scope from the access scope.
func (l List) withDefaults() List {
	for _, tag := range []Tag{User, Group, Other} {
		base := Entry{Default: true, Tag: tag}
		if l.find(base) >= 0 {
			continue
		}
		if p, ok := l.Perm(false, tag, ""); ok {
			base.Perm = p
			l = append(l, base)
		}
	}
	return l
}

// masked gives the scope the mask that it needs, unless given holds one. What was
// removed on purpose and is needed stays missing, which Check refuses.
func (l List) masked(isDefault bool, given List) List {
	mask := Entry{Default: isDefault, Tag: Mask}
	if given.find(mask) >= 0 {
		return l
	}
	named := false
	for _, e := range l.Scope(isDefault) {
		if e.groupClass() {
			mask.Perm |= e.Perm
		}
		named = named || e.named()
	}
	switch i := l.find(mask); {
	case i >= 0:
		l[i] = mask
	case named && given != nil:
		l = append(l, mask)
	}
	return l
}
