package ops

import (
	"context"
	"fmt"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// sample is where the log was at some time.
type sample struct {
	at    time.Duration
	index uint64
}

// samplesPerKeep is how many samples span Options.KeepOutcomes.
const samplesPerKeep = 12

// forgetOutcomes has the outcomes of operations forgotten that ended so long ago
// that no client asks for them again. Ages count from this leader's beginning.
func (e *Engine) forgetOutcomes(ctx context.Context, l *lead) error {
	every := e.opts.KeepOutcomes / samplesPerKeep
	samples := []sample{{e.now(), e.state.Applied()}}
	forgotten := uint64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.clock.After(every):
		}
		now := e.now()
		samples = append(samples, sample{now, e.state.Applied()})
		upTo := uint64(0)
		for len(samples) > 0 && now-samples[0].at >= e.opts.KeepOutcomes {
			upTo, samples = samples[0].index, samples[1:]
		}
		if upTo <= forgotten {
			continue
		}
		if _, err := e.propose(ctx, namespace.Command{ForgetOps: &namespace.ForgetOps{Index: upTo}}); err != nil {
			if l.ctx.Err() == nil {
				e.log.Warn("old outcomes could not be forgotten yet", "error", err)
			}
			continue
		}
		forgotten = upTo
	}
}

// Unresolved describes, in words, the operations at p, and those on trees around
// it, that have begun and not ended.
func (e *Engine) Unresolved(p freshet.Path) []string {
	var all []string
	for _, in := range e.state.Intents() {
		_, tree := fenceOf(in.Begin)
		for _, q := range []freshet.Path{in.Path, in.Path2} {
			if q == p || (q != "" && tree && q.Contains(p)) {
				all = append(all, describe(in))
				break
			}
		}
	}
	return all
}

func describe(in namespace.Intent) string {
	text := fmt.Sprintf("%s of %s", in.Kind, in.Path)
	if in.Path2 != "" {
		text += " to " + string(in.Path2)
	}
	text += fmt.Sprintf(" (operation %s", in.Op)
	if in.Node != "" {
		text += " on node " + string(in.Node)
	}
	return text + "): " + in.State.String()
}
