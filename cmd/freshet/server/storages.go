package server

import (
	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/all"
	"github.com/freshet-io/freshet/ufs/breaker"
	"github.com/freshet-io/freshet/ufs/limit"
	"github.com/freshet-io/freshet/ufs/metered"
	"github.com/freshet-io/freshet/ufs/retry"
	"github.com/freshet-io/freshet/ufs/traced"
)

// mounts makes the set of storages of a process.
func (p *Process) mounts(f *config.File) (*ufs.Mounts, error) {
	wrap, err := p.wrap()
	if err != nil {
		return nil, err
	}
	env := environment(f, p.Getenv)
	if env.Buffers, err = ufs.NewBuffers(f.Cache.Uploads.Memory.Bytes(), p.Metrics); err != nil {
		return nil, err
	}
	return ufs.NewMounts(all.Openers(p.Log, p.Metrics), env, ufs.MountsOptions{WrapMount: wrap, Log: p.Log}), nil
}

// wrap returns what every process, coordinator and cache node alike, puts around
// the storage of every mount. From the outside in:
//
//	traced    one span is one call of ours, with all its waiting and repetition
//	breaker   outside of retry: a storage that is left alone is not asked four
//	          times, and what counts as a failure is a call that repetition could
//	          not save; outside of limit: nobody queues for a storage that is down
//	retry     outside of limit: each repetition is a request that the storage
//	          sees, so it needs a token of its own, and no slot while it waits
//	limit     outside of metered: waiting for a token is not the storage's latency
//	metered   next to the storage: every request that it really got
//	the storage
func (p *Process) wrap() (func(freshet.Mount, ufs.FS) ufs.FS, error) {
	requests, err := metered.NewMetrics(p.Metrics)
	if err != nil {
		return nil, err
	}
	waits, err := limit.NewMetrics(p.Metrics)
	if err != nil {
		return nil, err
	}
	breakers, err := breaker.NewMetrics(p.Metrics)
	if err != nil {
		return nil, err
	}
	return func(mount freshet.Mount, fs ufs.FS) ufs.FS {
		g, err := ufs.ParseGuards(mount.Options)
		if err != nil { // the storage opened with them: it does not know them
			p.Log.Warn("bounds of a mount are not read; it has none", "mount_id", uint64(mount.ID), "error", err)
		}
		fs = metered.New(fs, requests)
		// Also without a bound: it may get one while it works.
		fs = limit.New(fs, limit.Options{PerSecond: g.RequestsPerSecond, Concurrent: g.ConcurrentRequests, Metrics: waits})
		fs = retry.New(fs, retry.Options{})
		if g.BreakerFailures > 0 {
			fs = breaker.New(fs, breaker.Options{Failures: g.BreakerFailures, Pause: g.BreakerPause, Mount: mount.ID, Metrics: breakers})
		}
		if p.tracer != nil {
			fs = traced.New(fs, p.tracer)
		}
		return fs
	}, nil
}
