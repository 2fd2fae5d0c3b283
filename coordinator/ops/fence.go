package ops

import (
	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// fence is an operation that moves or removes whole trees, or a file by a copy
// and a delete. Until it ends nothing else of this cluster may begin at or below
// its paths: a file written there would be left behind, or removed when the
// operation is rolled forward after a crash.
type fence struct {
	kind  namespace.OpKind
	paths []freshet.Path
}

func fenceOf(in namespace.Begin) (fence, bool) {
	switch {
	case in.Kind == namespace.OpRename:
		return fence{in.Kind, []freshet.Path{in.Path, in.Path2}}, true
	case in.Kind == namespace.OpRemove && in.Recursive:
		return fence{in.Kind, []freshet.Path{in.Path}}, true
	}
	return fence{}, false
}

// raise puts up the fence of an operation if it needs one, unless another one
// stands in its way.
func (l *lead) raise(begin namespace.Begin) error {
	f, tree := fenceOf(begin)
	if !tree {
		f.paths = []freshet.Path{begin.Path}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range f.paths {
		if err := l.fenced(begin.Kind.String(), p, tree); err != nil {
			return err
		}
	}
	if tree {
		l.fences[begin.Op] = f
	}
	return nil
}

func (l *lead) lower(op freshet.OpID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.fences, op)
}

// checkFences is KindUnavailable while an operation on p, or on a tree around it,
// has not ended.
func (l *lead) checkFences(op string, p freshet.Path) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fenced(op, p, false)
}

// fenced looks at all fences; tree says that everything below p counts too.
func (l *lead) fenced(op string, p freshet.Path, tree bool) error {
	for _, f := range l.fences {
		for _, q := range f.paths {
			if q.Contains(p) || (tree && p.Contains(q)) {
				return freshet.Errorf(freshet.KindUnavailable, op, p, "a %s of %s has not ended: try again later", f.kind, q)
			}
		}
	}
	return nil
}

// reserve makes room for one more operation, unless too many are open. Once its
// Begin was answered, begun gives that room back: the state counts it then.
func (e *Engine) reserve(l *lead) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.state.OpenOps()+l.begins >= e.opts.MaxIntents {
		return false
	}
	l.begins++
	return true
}

func (l *lead) begun(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begins -= n
}
