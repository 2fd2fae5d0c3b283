// Package pathtree keeps values by paths of the namespace such that all on the line of
// a path are found: at it, above it and below it. It never looks into a value, and is
// not safe for concurrent use: who has a tree locks it.
package pathtree

import (
	"strings"

	"github.com/freshet-io/freshet"
)

// Tree holds one value of type V per path. The zero value is empty.
type Tree[V any] struct {
	root node[V]
	n    int
}

type node[V any] struct {
	kids map[string]*node[V]
	has  bool
	v    V
}

// Len returns how many paths have a value.
func (t *Tree[V]) Len() int { return t.n }

// next cuts the first segment off the rest of a path, which begins with a slash or is
// empty.
func next(rest string) (name, after string) {
	rest = rest[1:]
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return rest[:i], rest[i:]
	}
	return rest, ""
}

// rest returns p without the slash that the root is.
func rest(p freshet.Path) string {
	if p.IsRoot() {
		return ""
	}
	return string(p)
}

// Get returns the value of exactly p.
func (t *Tree[V]) Get(p freshet.Path) (v V, ok bool) {
	n := &t.root
	for r := rest(p); r != ""; {
		var name string
		name, r = next(r)
		if n = n.kids[name]; n == nil {
			return v, false
		}
	}
	return n.v, n.has
}

// Set sets the value of p.
func (t *Tree[V]) Set(p freshet.Path, v V) {
	n := &t.root
	for r := rest(p); r != ""; {
		var name string
		name, r = next(r)
		kid := n.kids[name]
		if kid == nil {
			if n.kids == nil {
				n.kids = map[string]*node[V]{}
			}
			kid = &node[V]{}
			n.kids[name] = kid
		}
		n = kid
	}
	if !n.has {
		t.n++
	}
	n.v, n.has = v, true
}

// Delete removes the value of p, and what only led to it.
func (t *Tree[V]) Delete(p freshet.Path) {
	var way [32]*node[V]
	nodes, names := way[:0], make([]string, 0, len(way))
	n := &t.root
	for r := rest(p); r != ""; {
		var name string
		name, r = next(r)
		nodes, names = append(nodes, n), append(names, name)
		if n = n.kids[name]; n == nil {
			return
		}
	}
	if !n.has {
		return
	}
	var zero V
	n.v, n.has = zero, false
	t.n--
	for i := len(nodes) - 1; i >= 0 && !n.has && len(n.kids) == 0; i-- {
		n = nodes[i]
		delete(n.kids, names[i])
	}
}

// Above yields the values at p and above it, from the root down, with their paths.
func (t *Tree[V]) Above(p freshet.Path, yield func(freshet.Path, V) bool) {
	t.walk(p, yield)
}

// Line yields the values at p, above it and below it. The tree must not be changed
// meanwhile.
func (t *Tree[V]) Line(p freshet.Path, yield func(freshet.Path, V) bool) {
	if n := t.walk(p, yield); n != nil {
		n.below(p, yield)
	}
}

// walk yields what is at p and above it, and returns the node of p: nil if there is
// none, or enough was seen.
func (t *Tree[V]) walk(p freshet.Path, yield func(freshet.Path, V) bool) *node[V] {
	n, r := &t.root, rest(p)
	for {
		if n.has {
			at := p[:len(p)-len(r)]
			if at == "" {
				at = freshet.Root
			}
			if !yield(at, n.v) {
				return nil
			}
		}
		if r == "" {
			return n
		}
		var name string
		name, r = next(r)
		if n = n.kids[name]; n == nil {
			return nil
		}
	}
}

func (n *node[V]) below(p freshet.Path, yield func(freshet.Path, V) bool) bool {
	for name, kid := range n.kids {
		at := p.Join(name)
		if kid.has && !yield(at, kid.v) || !kid.below(at, yield) {
			return false
		}
	}
	return true
}
