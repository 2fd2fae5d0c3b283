// Package load owns what a measurement of a cluster needs apart from the cluster:
// running operations side by side, what they took, contents that can't be compressed
// away, and recorded traces. It knows no cluster.
package load

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"
)

// Op is what one operation did.
type Op struct {
	Bytes  int64
	Origin string        // where the bytes came from, "" if that means nothing
	Idle   time.Duration // how long it waited for its turn: no part of its latency
}

// Result is what operations took together. It is made by Run.
type Result struct {
	Ops            int64             `json:"ops,string"`
	Errors         int64             `json:"errors,string"`
	Bytes          int64             `json:"bytes,string"`
	Seconds        float64           `json:"seconds"`
	OpsPerSecond   float64           `json:"opsPerSecond"`
	BytesPerSecond float64           `json:"bytesPerSecond"`
	Latency        Summary           `json:"latency"`
	Origins        map[string]Origin `json:"origins,omitempty"`
	// HitRatio is the share of operations, ByteHitRatio that of bytes, that came from
	// caches: from the node that was asked or another one; absent if nothing tells.
	HitRatio     *float64 `json:"hitRatio,omitempty"`
	ByteHitRatio *float64 `json:"byteHitRatio,omitempty"`
	// Failures are the first errors.
	Failures []string `json:"failures,omitempty"`
}

// Origin is what came from one place.
type Origin struct {
	Ops   int64 `json:"ops,string"`
	Bytes int64 `json:"bytes,string"`
}

// OriginStorage is the Origin of operations that no cache served.
const OriginStorage = "ufs"

const keptFailures = 5

// Options say how operations are run.
type Options struct {
	// Threads is how many operations run at a time; 0 is 1.
	Threads int
	// Ops is after how many no more are begun, Duration after which time; 0: never.
	// One of them must be set.
	Ops      int64
	Duration time.Duration
	// Report, if not nil, is called now and then with what was done so far.
	Report func(Result)
}

// reportEvery is the time between two calls of Options.Report.
const reportEvery = 250 * time.Millisecond

// Run runs op with the numbers 0, 1, … until enough were run or ctx has ended. An error
// of an operation is counted and ends nothing, but with the end of ctx.
func Run(ctx context.Context, opts Options, op func(ctx context.Context, n int64) (Op, error)) Result {
	r := run{began: time.Now(), opts: opts}
	var wg sync.WaitGroup
	for range max(opts.Threads, 1) {
		wg.Go(func() {
			for {
				n, ok := r.next()
				if !ok || ctx.Err() != nil {
					return
				}
				begun := time.Now()
				did, err := op(ctx, n)
				if ctx.Err() != nil {
					return // cut off, not failed
				}
				r.note(did, time.Since(begun)-did.Idle, err)
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		wg.Wait()
		close(ended)
	}()
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if opts.Report != nil {
				opts.Report(r.result())
			}
		case <-ended:
			return r.result()
		}
	}
}

type run struct {
	began time.Time
	opts  Options

	mu        sync.Mutex
	begun     int64
	sum       Result
	latencies Latencies
	origins   map[string]Origin
}

func (r *run) next() (int64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if (r.opts.Ops > 0 && r.begun >= r.opts.Ops) || (r.opts.Duration > 0 && time.Since(r.began) >= r.opts.Duration) {
		return 0, false
	}
	r.begun++
	return r.begun - 1, true
}

func (r *run) note(did Op, took time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.sum.Errors++
		if text := err.Error(); len(r.sum.Failures) < keptFailures && !slices.Contains(r.sum.Failures, text) {
			r.sum.Failures = append(r.sum.Failures, text)
		}
		return
	}
	r.sum.Ops++
	r.sum.Bytes += did.Bytes
	r.latencies.Add(took)
	if did.Origin != "" {
		if r.origins == nil {
			r.origins = map[string]Origin{}
		}
		o := r.origins[did.Origin]
		o.Ops++
		o.Bytes += did.Bytes
		r.origins[did.Origin] = o
	}
}

func (r *run) result() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.sum
	out.Failures = slices.Clone(out.Failures)
	out.Seconds = time.Since(r.began).Seconds()
	if out.Seconds > 0 {
		out.OpsPerSecond, out.BytesPerSecond = float64(out.Ops)/out.Seconds, float64(out.Bytes)/out.Seconds
	}
	out.Latency = r.latencies.Summary()
	if len(r.origins) == 0 {
		return out
	}
	out.Origins = map[string]Origin{}
	var all, cached Origin
	for name, o := range r.origins {
		out.Origins[name] = o
		all.Ops, all.Bytes = all.Ops+o.Ops, all.Bytes+o.Bytes
		if name != OriginStorage {
			cached.Ops, cached.Bytes = cached.Ops+o.Ops, cached.Bytes+o.Bytes
		}
	}
	ops := float64(cached.Ops) / float64(all.Ops)
	out.HitRatio = &ops
	if all.Bytes > 0 {
		bytes := float64(cached.Bytes) / float64(all.Bytes)
		out.ByteHitRatio = &bytes
	}
	return out
}

// Summary is the distribution of latencies, in seconds. Quantiles are at most 4 % too
// high.
type Summary struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Latencies counts durations in classes of 4 %. Not safe for concurrent use.
type Latencies struct {
	classes [1024]int64 // from a microsecond to 1.04^1023 of it
	count   int64
	max     time.Duration
}

const classWidth = 1.04

// Add counts one.
func (l *Latencies) Add(d time.Duration) {
	class := 0
	if us := float64(d) / float64(time.Microsecond); us > 1 {
		class = int(math.Ceil(math.Log(us) / math.Log(classWidth)))
	}
	l.classes[min(class, len(l.classes)-1)]++
	l.count++
	l.max = max(l.max, d)
}

// Quantile returns the duration that a share q of all is not above.
func (l *Latencies) Quantile(q float64) time.Duration {
	if l.count == 0 {
		return 0
	}
	want := max(int64(math.Ceil(q*float64(l.count))), 1)
	for class, n := range l.classes {
		if want -= n; want <= 0 {
			return min(time.Duration(math.Pow(classWidth, float64(class))*float64(time.Microsecond)), l.max)
		}
	}
	return l.max
}

// Summary returns the distribution.
func (l *Latencies) Summary() Summary {
	return Summary{P50: l.Quantile(0.5).Seconds(), P90: l.Quantile(0.9).Seconds(), P99: l.Quantile(0.99).Seconds(), Max: l.max.Seconds()}
}
