package tier_test

import (
	"bufio"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
)

// A trace is a list of reads of whole blocks, and the capacity at which the
// policies are compared over it.
type trace struct {
	name     string
	capacity int64
	reads    []access
}

type access struct {
	id   int
	size int64 // bytes
}

// sizeOf gives a block its length: most files are small and most bytes are in big
// ones, up to 64 MiB.
func sizeOf(id int) int64 {
	u := float64(uint64(id)*0x9e3779b97f4a7c15>>11) / (1 << 53)
	return int64(min(16384*math.Pow(max(1-u, 1e-9), -1.1), 64<<20))
}

// share returns a part of the bytes of that many blocks.
func share(blocks, part int) int64 {
	var sum int64
	for id := range blocks {
		sum += sizeOf(id)
	}
	return sum / int64(part)
}

// traces returns the synthetic traces, each of that many reads of that many
// blocks: the same each time.
func traces(reads, blocks int) []trace {
	r := rand.New(rand.NewPCG(1, 2))
	zipf := func(s float64) func() int {
		z := rand.NewZipf(r, s, 1, uint64(blocks)-1)
		names := r.Perm(blocks) // how often a block is read says nothing about its size
		return func() int { return names[z.Uint64()] }
	}
	generate := func(next func(i int) int) []access {
		list := make([]access, reads)
		for i := range list {
			id := next(i)
			list[i] = access{id, sizeOf(id)}
		}
		return list
	}
	hot, warm, mixed, far := zipf(1.1), zipf(1.01), zipf(1.1), zipf(1.1)
	once := blocks
	order := r.Perm(blocks / 4)
	tenth := share(blocks, 10)
	return []trace{
		{"zipf 1.1", tenth, generate(func(int) int { return hot() })},
		{"zipf 1.01", tenth, generate(func(int) int { return warm() })},
		{"zipf and scans", tenth, generate(func(i int) int { // two in five reads are of data read once
			if i%5 < 2 {
				once++
				return once
			}
			return mixed()
		})},
		{"loop", share(blocks/4, 2), generate(func(i int) int { return i % (blocks / 4) })},
		{"shuffled epochs", share(blocks/4, 2), generate(func(i int) int {
			if i%len(order) == 0 {
				r.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
			}
			return order[i%len(order)]
		})},
		{"shifting", tenth, generate(func(i int) int { return (far() + i/(reads/5)*7919) % blocks })},
	}
}

// replay returns which part of the reads, and of the bytes, a tier with the policy
// would have had.
func replay(tb testing.TB, policy string, tr trace) (reads, bytes float64) {
	tb.Helper()
	p := must2(tier.NewPolicy(policy, tr.capacity))(tb)
	sizes := make(map[freshet.BlockID]int64)
	var used, hits, hitBytes, all int64
	for _, a := range tr.reads {
		id := block(a.id+1, 0)
		all += a.size
		if _, ok := sizes[id]; ok {
			hits++
			hitBytes += a.size
			p.Touch(id)
			continue
		}
		if a.size > tr.capacity {
			continue
		}
		for used+a.size > tr.capacity {
			v, ok := p.Victim(func(freshet.BlockID) bool { return false })
			if !ok {
				tb.Fatalf("%s: %d bytes are taken and there is no victim", policy, used)
			}
			p.Remove(v)
			used -= sizes[v]
			delete(sizes, v)
		}
		p.Add(id, a.size)
		sizes[id] = a.size
		used += a.size
	}
	return float64(hits) / float64(len(tr.reads)), float64(hitBytes) / float64(all)
}

// BenchmarkHitRatio compares the policies over synthetic traces and, if
// FRESHET_TRACE names a file of lines "block,bytes", over that one, at a tenth of
// its bytes. Its figures are hit% and byte-hit%; ns/op is of one read.
func BenchmarkHitRatio(b *testing.B) {
	all := traces(400_000, 40_000)
	if name := os.Getenv("FRESHET_TRACE"); name != "" {
		all = append(all, readTrace(b, name))
	}
	for _, tr := range all {
		for _, policy := range tier.Policies() {
			b.Run(fmt.Sprintf("%s/%s", tr.name, policy), func(b *testing.B) {
				var reads, bytes float64
				n := 0
				for b.Loop() {
					reads, bytes = replay(b, policy, tr)
					n += len(tr.reads)
				}
				b.ReportMetric(100*reads, "hit%")
				b.ReportMetric(100*bytes, "byte-hit%")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/op")
			})
		}
	}
}

func readTrace(tb testing.TB, name string) trace {
	tb.Helper()
	f := must2(os.Open(name))(tb)
	defer func() { _ = f.Close() }()
	ids := map[string]int{}
	tr := trace{name: "recorded"}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		id, size, ok := strings.Cut(lines.Text(), ",")
		n, err := strconv.ParseInt(size, 10, 64)
		if !ok || err != nil || n <= 0 {
			tb.Fatalf("%s: %q is not block,bytes", name, lines.Text())
		}
		if _, known := ids[id]; !known {
			ids[id] = len(ids)
			tr.capacity += n
		}
		tr.reads = append(tr.reads, access{ids[id], n})
	}
	tr.capacity /= 10
	return tr
}

// TestHitRatios holds the policies to what they are chosen for.
func TestHitRatios(t *testing.T) {
	t.Parallel()
	got := map[string]map[string]float64{}
	for _, tr := range traces(60_000, 6000) {
		got[tr.name] = map[string]float64{}
		for _, policy := range tier.Policies() {
			got[tr.name][policy], _ = replay(t, policy, tr)
		}
	}
	for _, c := range []struct{ trace, better, worse string }{
		{"zipf 1.1", "s3-fifo", "lru"},
		{"zipf 1.1", "sieve", "lru"},
		{"zipf and scans", "s3-fifo", "lru"},
		{"zipf and scans", "sieve", "lru"},
		{"zipf and scans", "lfu", "lru"},
		{"shuffled epochs", "sieve", "lru"},
	} {
		if r := got[c.trace]; r[c.better] <= r[c.worse] {
			t.Errorf("%s: %s has %.3f, %s has %.3f", c.trace, c.better, r[c.better], c.worse, r[c.worse])
		}
	}
}
