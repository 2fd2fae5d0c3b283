package metasync

import (
	"slices"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
)

// A storage lists a directory in the order of sort keys, in which a directory's
// name is followed by "/" ("a-b" < "a/" < "a0"); the state holds its children in
// the order of their names ("a" < "a-b" < "a0"). To compare both without holding
// either, the held children are brought into the storage's order: a directory
// waits until no held name before its sort key can follow. Only names that begin
// with it can come in between, so as many wait as one name has prefixes.

// held is a child as the state holds it.
type held struct {
	name  string
	dir   bool
	child namespace.Child
}

// sortKey is the child's place in a storage's listing.
func (h *held) sortKey() string {
	if h.dir {
		return h.name + "/"
	}
	return h.name
}

// reorder turns children in the order of names into children in the order of
// sort keys.
type reorder struct {
	next    func() (held, bool, error) // in the order of names
	waiting []held                     // directories, the smallest sort key last
	ahead   *held                      // a file that was read
	low     string                     // the last name that was read
	end     bool
}

// peek returns the next child without taking it, nil at the end.
func (r *reorder) peek() (*held, error) {
	for !r.end && r.ahead == nil && !r.safe() {
		h, ok, err := r.next()
		switch {
		case err != nil:
			return nil, err
		case !ok:
			r.end = true
		case h.dir:
			r.low = h.name
			r.wait(h)
		default:
			r.low, r.ahead = h.name, &h
		}
	}
	if r.first() {
		return &r.waiting[len(r.waiting)-1], nil
	}
	return r.ahead, nil
}

// safe reports whether no child that is still to come sorts before the first
// that waits.
func (r *reorder) safe() bool {
	n := len(r.waiting)
	return n > 0 && r.waiting[n-1].sortKey() < r.low
}

// first reports whether the first that waits is the next of all.
func (r *reorder) first() bool {
	n := len(r.waiting)
	return n > 0 && (r.ahead == nil || r.waiting[n-1].sortKey() < r.ahead.name)
}

// take removes what peek returned.
func (r *reorder) take() {
	if r.first() {
		r.waiting = r.waiting[:len(r.waiting)-1]
		return
	}
	r.ahead = nil
}

// drop removes a directory of that name if it waits, and returns it.
func (r *reorder) drop(name string) (held, bool) {
	for i := range r.waiting {
		if h := r.waiting[i]; h.name == name {
			r.waiting = slices.Delete(r.waiting, i, i+1)
			return h, true
		}
	}
	return held{}, false
}

func (r *reorder) wait(h held) {
	i, _ := slices.BinarySearchFunc(r.waiting, h.sortKey(), func(w held, k string) int {
		return -strings.Compare(w.sortKey(), k)
	})
	r.waiting = slices.Insert(r.waiting, i, h)
}

// shadow finds directories that a file of the same name hides: a storage of
// objects may hold both "a" and "a/b", and then the file is what Stat gives.
type shadow struct{ files []string }

// hides reports whether st, the next of a listing, is hidden by a file before it.
func (s *shadow) hides(st ufs.Status, name string) bool {
	key := name
	if st.IsDir() {
		key = name + "/"
	}
	for n := len(s.files); n > 0 && s.files[n-1]+"/" < key; n-- {
		s.files = s.files[:n-1]
	}
	if st.IsDir() {
		return slices.Contains(s.files, name)
	}
	s.files = append(s.files, name)
	return false
}

// nameIn returns the name of a status in the listing of a directory, and whether
// it can be a name in the namespace: one segment that a path may have.
func nameIn(dirKey, key string) (string, bool) {
	name := key
	if dirKey != "" {
		rest, ok := strings.CutPrefix(key, dirKey+"/")
		if !ok {
			return "", false
		}
		name = rest
	}
	if name == "" || strings.Contains(name, "/") || strings.HasPrefix(name, freshet.ReservedPrefix) {
		return name, false
	}
	p, err := freshet.ParsePath("/" + name)
	return name, err == nil && string(p) == "/"+name
}
