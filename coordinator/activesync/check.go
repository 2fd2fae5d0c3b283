package activesync

import (
	"context"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// checkTimeout bounds how long a storage may take to say whether it tells a source.
const checkTimeout = 15 * time.Second

// checkSources asks the storages now and then, and at each change of the plan,
// whether they tell the sources that they are heard by: a source is watched through
// one of them only.
func (e *Engine) checkSources(ctx context.Context, planned <-chan struct{}) error {
	for {
		again := e.clock.NewTimer(e.opts.Check)
		select {
		case <-planned:
		case <-again.C():
		case <-ctx.Done():
			again.Stop()
			return nil
		}
		again.Stop()
		h := e.ears.Load()
		if h == nil {
			continue
		}
		for _, at := range h.ears {
			if ear, ok := at.(sourceEar); ok {
				e.check(ctx, ear)
			}
		}
	}
}

// check asks one storage. If it can't be asked now, what it said last stays.
func (e *Engine) check(ctx context.Context, ear sourceEar) {
	fs, release, err := e.deps.Storage(ear.user.Mount)
	if err != nil {
		return
	}
	defer release()
	asker, ok := ufs.WatcherOf(fs).(ufs.SourceChecker)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	switch err := asker.CheckSource(ctx); {
	case err == nil:
		ear.source.judge(ear.user.Generation, "")
	case ctx.Err() == nil && !freshet.IsKind(err, freshet.KindUnavailable, freshet.KindDeadline, freshet.KindExhausted):
		ear.source.judge(ear.user.Generation, err.Error())
	}
}
