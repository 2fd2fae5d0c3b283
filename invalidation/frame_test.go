package invalidation_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/invalidation"
)

func batchOf(keys ...string) invalidation.Batch {
	b := invalidation.Batch{Publisher: uuid.UUID{1}, Epoch: 1_700_000_000, Domain: freshet.DomainID{2}, After: 41}
	for i, key := range keys {
		b.Records = append(b.Records, invalidation.Record{
			Seq: 42 + uint64(i), Kind: invalidation.KindContent, Key: key, Fingerprint: fingerprint.S3(fmt.Sprint("tag", i), 1),
		})
	}
	return b
}

func TestFrameHoldsAPrefixWithinItsLimit(t *testing.T) {
	keys := make([]string, 100)
	for i := range keys {
		keys[i] = fmt.Sprintf("/warehouse/table/day=2026-01-%02d/part-%05d.parquet", i%30, i)
	}
	b := batchOf(keys...)
	b.Records[3].Kind, b.Records[3].Key2, b.Records[3].Recursive = invalidation.KindRename, "/elsewhere", true
	payload, n := invalidation.PackFrame(b, invalidation.MaxFrame)
	if n < 20 || n >= len(keys) || len(payload) > invalidation.MaxFrame {
		t.Fatalf("%d records in %d bytes", n, len(payload))
	}
	f, err := invalidation.DecodeFrame(payload)
	if err != nil {
		t.Fatal(err)
	}
	if f.Publisher != b.Publisher || f.Epoch != b.Epoch || f.Domain != b.Domain || f.First != 42 || f.Last() != 41+uint64(n) {
		t.Errorf("head %+v", f)
	}
	for i, h := range f.Hints {
		r := b.Records[i]
		want := invalidation.Hint{Kind: r.Kind, Key: r.Key, Key2: r.Key2, Recursive: r.Recursive, Version: r.Fingerprint.Hash()}
		if h != want {
			t.Errorf("hint %d is %+v, want %+v", i, h, want)
		}
	}
}

func TestC26KeysLongerThanAFrameAreNotGossiped(t *testing.T) {
	if payload, n := invalidation.PackFrame(batchOf("/"+strings.Repeat("x", 1200)), invalidation.MaxFrame); n != 0 || payload != nil {
		t.Errorf("packed %d records in %d bytes", n, len(payload))
	}
}

func TestFrameOfANewerKindWidens(t *testing.T) {
	b := batchOf("/a/b/c")
	b.Records[0].Kind = 12
	payload, _ := invalidation.PackFrame(b, invalidation.MaxFrame)
	f, err := invalidation.DecodeFrame(payload)
	if err != nil {
		t.Fatal(err)
	}
	want := invalidation.Hint{Kind: invalidation.KindSubtree, Key: "/a/b", Recursive: true}
	if f.Hints[0] != want {
		t.Errorf("got %+v, want %+v", f.Hints[0], want)
	}
}

func TestDigestRoundTrip(t *testing.T) {
	g := invalidation.Digest{Publisher: uuid.UUID{1}, Epoch: 9}
	for i := range 40 {
		g.Heads = append(g.Heads, invalidation.Head{Domain: freshet.DomainID{byte(i)}, Low: 1, High: uint64(i) << 40, Hash: invalidation.Hash{byte(i)}})
	}
	payload, n := invalidation.PackDigest(g, invalidation.MaxFrame)
	if n < 18 || n >= 40 || len(payload) > invalidation.MaxFrame {
		t.Fatalf("%d heads in %d bytes", n, len(payload))
	}
	got, err := invalidation.DecodeDigest(payload)
	if err != nil {
		t.Fatal(err)
	}
	g.Heads = g.Heads[:n]
	if !reflect.DeepEqual(got, g) {
		t.Errorf("got %+v, want %+v", got, g)
	}
}

// A flipped bit of a payload is found by its checksum, wherever it is.
func TestFlippedBitsAreFound(t *testing.T) {
	frame, _ := invalidation.PackFrame(batchOf("/a/b", "/a/c", "/d"), invalidation.MaxFrame)
	digest, _ := invalidation.PackDigest(invalidation.Digest{Heads: []invalidation.Head{{Low: 1, High: 5}}}, invalidation.MaxFrame)
	for _, payload := range [][]byte{frame, digest} {
		for bit := range len(payload) * 8 {
			bad := append([]byte(nil), payload...)
			bad[bit/8] ^= 1 << (bit % 8)
			_, ferr := invalidation.DecodeFrame(bad)
			_, derr := invalidation.DecodeDigest(bad)
			if !errors.Is(ferr, invalidation.ErrFrame) || !errors.Is(derr, invalidation.ErrFrame) {
				t.Fatalf("bit %d: %v, %v", bit, ferr, derr)
			}
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		bad := append([]byte(nil), frame...)
		for range 1 + rnd.IntN(8) {
			bad[rnd.IntN(len(bad))] ^= byte(1 + rnd.IntN(255))
		}
		if string(bad) == string(frame) {
			continue
		}
		if f, err := invalidation.DecodeFrame(bad); err == nil {
			t.Fatalf("accepted %+v", f)
		}
	}
}

func TestFrameRoundTripProperty(t *testing.T) {
	key := rapid.StringMatching(`(/[a-c]{1,4}){1,5}`)
	rapid.Check(t, func(t *rapid.T) {
		b := batchOf(rapid.SliceOfN(key, 1, 60).Draw(t, "keys")...)
		for i := range b.Records {
			if rapid.Bool().Draw(t, "rename") {
				b.Records[i].Key2, b.Records[i].Recursive = key.Draw(t, "key2"), true
			}
			if rapid.Bool().Draw(t, "gone") {
				b.Records[i].Fingerprint = fingerprint.Fingerprint{}
			}
		}
		payload, n := invalidation.PackFrame(b, rapid.IntRange(100, invalidation.MaxFrame).Draw(t, "limit"))
		if n == 0 {
			return
		}
		f, err := invalidation.DecodeFrame(payload)
		if err != nil || len(f.Hints) != n {
			t.Fatalf("%d of %d hints: %v", len(f.Hints), n, err)
		}
		for i, h := range f.Hints {
			if r := b.Records[i]; h.Key != r.Key || h.Key2 != r.Key2 || h.Recursive != r.Recursive {
				t.Fatalf("hint %d is %+v, want %+v", i, h, r)
			}
		}
	})
}

func FuzzDecodeFrame(f *testing.F) {
	frame, _ := invalidation.PackFrame(batchOf("/a/b", "/a/c", "/d"), invalidation.MaxFrame)
	f.Add(frame[:len(frame)-4])
	f.Fuzz(func(t *testing.T, in []byte) {
		// With a right checksum, so that the fuzzer gets past it.
		got, err := invalidation.DecodeFrame(withChecksum(in))
		if err != nil {
			return
		}
		for _, h := range got.Hints {
			if r := h.Record(1); r.Kind != invalidation.KindAll && r.Key == "" && r.Key2 == "" {
				t.Fatalf("%+v touches nothing", h)
			}
		}
	})
}

func FuzzDecodeDigest(f *testing.F) {
	digest, _ := invalidation.PackDigest(invalidation.Digest{Heads: []invalidation.Head{{Low: 1, High: 5}}}, invalidation.MaxFrame)
	f.Add(digest[:len(digest)-4])
	f.Fuzz(func(t *testing.T, in []byte) {
		g, err := invalidation.DecodeDigest(withChecksum(in))
		if err != nil {
			return
		}
		for _, h := range g.Heads {
			if h.Low == 0 || h.Low-1 > h.High {
				t.Fatalf("impossible head %+v", h)
			}
		}
	})
}
