package ops

import (
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// Operations describes the operations that have begun and not ended and that want
// selects, in the order in which they began, at most limit of them; 0 is all.
func (e *Engine) Operations(limit int, want func(*namespace.Intent) bool) []freshet.Operation {
	var all []freshet.Operation
	for _, in := range e.state.Intents() {
		if limit > 0 && len(all) == limit {
			break
		}
		if !want(&in) {
			continue
		}
		all = append(all, freshet.Operation{
			ID: in.Op, Kind: in.Kind.String(), Path: in.Path, Target: in.Path2, State: in.State.String(), Node: string(in.Node),
			Since: in.At.UTC(), Until: e.until(&in), Remedy: operationRemedy(&in),
		})
	}
	return all
}

// Concerns reports whether an operation is one at p, or on a tree around it.
func Concerns(p freshet.Path) func(*namespace.Intent) bool {
	return func(in *namespace.Intent) bool {
		_, tree := fenceOf(in.Begin)
		for _, q := range []freshet.Path{in.Path, in.Path2} {
			if q == p || (q != "" && tree && q.Contains(p)) {
				return true
			}
		}
		return false
	}
}

// Quarantined reports whether the outcome of an operation is not known.
func Quarantined(in *namespace.Intent) bool { return in.State == namespace.IntentQuarantine }

// until returns when a quarantine ends at the latest, as far as this leader knows.
func (e *Engine) until(in *namespace.Intent) time.Time {
	e.mu.Lock()
	l := e.lead
	e.mu.Unlock()
	if l == nil || in.State != namespace.IntentQuarantine {
		return time.Time{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tracks[in.Op]
	if t == nil || t.until == 0 {
		return time.Time{}
	}
	return e.clock.Now().Add(max(t.until-e.now(), 0)).UTC()
}

func operationRemedy(in *namespace.Intent) string {
	switch {
	case in.State == namespace.IntentQuarantine:
		return "wait: until nothing of it can land any more every read of the path asks the storage (the mount's max_op_lifetime bounds that)"
	case in.State == namespace.IntentUploading && in.Node != "":
		return "wait; if its node died, it is given up within seconds (`freshet cluster nodes`)"
	}
	return "wait: the storage is being asked"
}
