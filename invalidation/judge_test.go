package invalidation_test

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
)

func withChecksum(b []byte) []byte {
	out := append([]byte(nil), b...)
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out, crc32.MakeTable(crc32.Castagnoli)))
}

// log is a publisher's log of one domain, as simple as can be.
type log struct {
	publisher invalidation.Publisher
	domain    freshet.DomainID
	records   []invalidation.Record
	hashes    []invalidation.Hash // before each record, and after the last
}

func newLog(epoch uint64, keys ...string) *log {
	l := &log{publisher: invalidation.Publisher{Cluster: uuid.UUID{9}, Epoch: epoch}, domain: freshet.DomainID{7}, hashes: make([]invalidation.Hash, 1)}
	for _, key := range keys {
		l.add(key)
	}
	return l
}

func (l *log) add(key string) {
	r := invalidation.Record{Seq: uint64(len(l.records)) + 1, Kind: invalidation.KindContent, Key: key}
	l.hashes = append(l.hashes, l.hashes[len(l.records)].Next(r))
	l.records = append(l.records, r)
}

func (l *log) batch(after, last int) invalidation.Batch {
	return invalidation.Batch{
		Publisher: l.publisher.Cluster, Epoch: l.publisher.Epoch, Domain: l.domain,
		After: uint64(after), AfterHash: l.hashes[after], Records: l.records[after:last],
	}
}

func (l *log) head() invalidation.Head {
	return invalidation.Head{Domain: l.domain, Low: 1, High: uint64(len(l.records)), Hash: l.hashes[len(l.records)]}
}

func (l *log) at(applied int) invalidation.Subscription {
	return invalidation.Subscription{
		Publisher: l.publisher, Domain: l.domain, State: invalidation.StateSynced,
		Applied: uint64(applied), Hash: l.hashes[applied],
	}
}

func TestJudge(t *testing.T) {
	l := newLog(5, "/a", "/b", "/c", "/d", "/e")
	other := newLog(5, "/a", "/b", "/X", "/d", "/e")
	hole := l.batch(2, 5)
	hole.Records = append([]invalidation.Record{l.records[2]}, l.records[4])
	renumbered := l.batch(0, 3)
	renumbered.After, renumbered.AfterHash = 2, l.hashes[2]
	far := l.batch(5, 5)
	far.After = 1<<64 - 1
	reset := l.at(2)
	reset.State = invalidation.StateReset
	tests := []struct {
		name  string
		at    invalidation.Subscription
		in    invalidation.Batch
		want  invalidation.Verdict
		news  uint64
		after uint64
	}{
		{"next", l.at(2), l.batch(2, 4), invalidation.VerdictApply, 2, 4},
		{"overlapping", l.at(2), l.batch(0, 4), invalidation.VerdictApply, 2, 4},
		{"repeated", l.at(4), l.batch(2, 4), invalidation.VerdictIgnore, 0, 4},
		{"behind", l.at(5), l.batch(0, 2), invalidation.VerdictIgnore, 0, 5},
		{"empty here", l.at(3), l.batch(3, 3), invalidation.VerdictIgnore, 0, 3},
		{"empty behind", l.at(3), l.batch(1, 1), invalidation.VerdictIgnore, 0, 3},
		{"S3 ahead is never skipped to", l.at(1), l.batch(3, 5), invalidation.VerdictGap, 0, 1},
		{"C22 another log, next", l.at(3), other.batch(3, 5), invalidation.VerdictReset, 0, 3},
		{"C22 another log, overlapping", l.at(3), other.batch(0, 5), invalidation.VerdictReset, 0, 3},
		{"C22 another log, ends here", l.at(3), other.batch(0, 3), invalidation.VerdictReset, 0, 3},
		{"C22 another log, empty here", l.at(3), other.batch(3, 3), invalidation.VerdictReset, 0, 3},
		{"C22 same beginning is no other log", l.at(2), other.batch(0, 2), invalidation.VerdictIgnore, 0, 2},
		{"S3 hole inside", l.at(2), hole, invalidation.VerdictReset, 0, 2},
		{"S3 sequence numbers not those of the run", l.at(2), renumbered, invalidation.VerdictReset, 0, 2},
		{"C20 nothing applies in reset", reset, l.batch(2, 4), invalidation.VerdictReset, 0, 2},
		{"newer epoch", l.at(2), newLog(6, "/a", "/b", "/c").batch(2, 3), invalidation.VerdictReset, 0, 2},
		{"S12 older epoch", l.at(2), newLog(4, "/a", "/b", "/c").batch(2, 3), invalidation.VerdictIgnore, 0, 2},
		{"far ahead", l.at(2), far, invalidation.VerdictGap, 0, 2},
		{"of another publisher", l.at(2), invalidation.Batch{Publisher: uuid.UUID{8}, Domain: l.domain, Epoch: 9}, invalidation.VerdictIgnore, 0, 2},
		{"of another domain", l.at(2), invalidation.Batch{Publisher: l.publisher.Cluster, Epoch: 9}, invalidation.VerdictIgnore, 0, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			verdict, news, next := tt.at.Judge(tt.in)
			if verdict != tt.want || uint64(len(news)) != tt.news || next.Applied != tt.after {
				t.Errorf("verdict %d, %d news, applied %d; want %d, %d, %d", verdict, len(news), next.Applied, tt.want, tt.news, tt.after)
			}
			if verdict == invalidation.VerdictApply && next.Hash != l.hashes[next.Applied] {
				t.Error("the chain was not extended")
			}
		})
	}
}

func TestBehind(t *testing.T) {
	l := newLog(5, "/a", "/b", "/c")
	other := newLog(5, "/a", "/b", "/X")
	compacted := l.head()
	compacted.Low = 3
	empty := invalidation.Head{Domain: l.domain, Low: 4, High: 3, Hash: l.hashes[3]}
	tests := map[string]struct {
		at    invalidation.Subscription
		epoch uint64
		head  invalidation.Head
		want  invalidation.Verdict
	}{
		"level":                            {l.at(3), 5, l.head(), invalidation.VerdictIgnore},
		"records missing":                  {l.at(1), 5, l.head(), invalidation.VerdictGap},
		"log reaches just back":            {l.at(2), 5, compacted, invalidation.VerdictGap},
		"compacted beyond":                 {l.at(1), 5, compacted, invalidation.VerdictReset},
		"compacted whole, level":           {l.at(3), 5, empty, invalidation.VerdictIgnore},
		"compacted whole, behind":          {l.at(2), 5, empty, invalidation.VerdictReset},
		"C22 another log of equal length":  {l.at(3), 5, other.head(), invalidation.VerdictReset},
		"C22 log lost its end, same epoch": {l.at(3), 5, newLog(5, "/a").head(), invalidation.VerdictReset},
		"newer epoch":                      {l.at(3), 6, l.head(), invalidation.VerdictReset},
		"C26 older epoch":                  {l.at(3), 4, newLog(4, "/a").head(), invalidation.VerdictIgnore},
		"never synchronised":               {invalidation.Subscription{}, 5, l.head(), invalidation.VerdictReset},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.at.Behind(tt.epoch, tt.head); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

// Whatever arrives, however often and in whichever order: what was applied is
// exactly a prefix of the log, each record once and in order; and after a pull
// nothing is missing.
func TestS3AppliedIsThePrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLog(3)
		at := l.at(0)
		var got []string
		take := func(b invalidation.Batch) {
			verdict, news, next := at.Judge(b)
			switch {
			case verdict == invalidation.VerdictReset:
				t.Fatalf("reset at %d by a batch after %d", at.Applied, b.After)
			case verdict != invalidation.VerdictApply && (len(news) != 0 || next != at):
				t.Fatal("moved without applying")
			}
			for _, r := range news {
				got = append(got, r.Key)
			}
			at = next
		}
		var wire []invalidation.Batch
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			for range rapid.IntRange(0, 3).Draw(t, "writes") {
				l.add(rapid.SampledFrom([]string{"/a", "/b", "/c"}).Draw(t, "key"))
			}
			from := rapid.IntRange(0, len(l.records)).Draw(t, "from")
			wire = append(wire, l.batch(from, rapid.IntRange(from, len(l.records)).Draw(t, "to")))
			i := rapid.IntRange(0, len(wire)-1).Draw(t, "arrives") // in any order, or never
			take(wire[i])
			if rapid.Bool().Draw(t, "once") {
				wire = append(wire[:i], wire[i+1:]...)
			}
			if verdict := at.Behind(3, l.head()); (verdict == invalidation.VerdictGap) != (at.Applied < l.head().High) || verdict == invalidation.VerdictReset {
				t.Fatalf("verdict %d at %d of %d", verdict, at.Applied, l.head().High)
			}
		}
		take(l.batch(int(at.Applied), len(l.records)))
		if at != l.at(len(l.records)) || len(got) != len(l.records) {
			t.Fatalf("applied %d of %d records", len(got), len(l.records))
		}
		for i, key := range got {
			if key != l.records[i].Key {
				t.Fatalf("record %d is of %q, want %q", i+1, key, l.records[i].Key)
			}
		}
	})
}

// A log that lost its end and grew again is never taken for the one before it,
// whatever of it arrives first.
func TestC22RegrownLogIsFound(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		l := newLog(5)
		for range 1 + rnd.IntN(10) {
			l.add("/old")
		}
		at := l.at(len(l.records))
		lost := newLog(5)
		for range rnd.IntN(len(l.records)) {
			lost.add("/old")
		}
		lost.add("/new")
		for range rnd.IntN(12) {
			lost.add("/old")
		}
		from := rnd.IntN(len(lost.records) + 1)
		verdict, _, _ := at.Judge(lost.batch(from, len(lost.records)))
		if verdict == invalidation.VerdictApply {
			t.Fatalf("applied another log's records at %d", at.Applied)
		}
		if verdict := at.Behind(5, lost.head()); verdict == invalidation.VerdictIgnore {
			t.Fatalf("a head of %d records passed for ours of %d", lost.head().High, at.Applied)
		}
	}
}
