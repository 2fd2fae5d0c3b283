package coordinator_test

import (
	"context"
	"iter"
	"sync"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// faults is what the members' storage does beside what it should.
type faults struct {
	mu       sync.Mutex
	after    func()            // once, after a stat was answered
	specials map[string]string // by key
}

// afterStat has fn called once, between the storage's answer to a stat and the
// caller.
func (f *faults) afterStat(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after = fn
}

func (f *faults) special(key, what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.specials[key] = what
}

func (f *faults) change(st ufs.Status) ufs.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	st.Special = f.specials[st.Key]
	return st
}

type faulty struct {
	ufs.FS
	f *faults
}

func (f *faulty) Unwrap() ufs.FS { return f.FS }

func (f *faulty) Stat(ctx context.Context, key string) (ufs.Status, error) {
	st, err := f.FS.Stat(ctx, key)
	f.f.mu.Lock()
	after := f.f.after
	f.f.after = nil
	f.f.mu.Unlock()
	if after != nil {
		after()
	}
	return f.f.change(st), err
}

func (f *faulty) List(ctx context.Context, dir string, opts ufs.ListOptions) iter.Seq2[ufs.Status, error] {
	return func(yield func(ufs.Status, error) bool) {
		for st, err := range f.FS.List(ctx, dir, opts) {
			if !yield(f.f.change(st), err) {
				return
			}
		}
	}
}

func (w *world) fault() *faults { return w.faults }

// node has a cache node register with the leader.
func (w *world) node(m *member, name string) freshet.Node {
	w.Helper()
	n := freshet.Node{ID: freshet.NodeID(name), Name: name, GRPC: name + ":7410", HTTP: name + ":7411", Host: name}
	w.beat(m, freshet.Heartbeat{Node: n, Incarnation: 1, Full: true, Capacity: 1 << 30})
	return n
}

func (w *world) beat(m *member, h freshet.Heartbeat) freshet.HeartbeatReply {
	w.Helper()
	r, err := m.Heartbeat(w.Context(), h)
	if err != nil {
		w.Fatal(err)
	}
	return r
}
