package invalidation_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/invalidation"
)

func records() []invalidation.Record {
	at := time.UnixMilli(1_700_000_000_123).UTC()
	fp := fingerprint.S3("0123456789abcdef", 42)
	return []invalidation.Record{
		{Seq: 1, Kind: invalidation.KindContent, Key: "/a/b", Fingerprint: fp, Op: freshet.OpID{1, 2}, PublishedAt: at},
		{Seq: 2, Kind: invalidation.KindRename, Key: "/a/b", Key2: "/a/c", Recursive: true},
		{Seq: 3, Kind: invalidation.KindMeta, Key: "/a/c/with space/ümlaut", PublishedAt: at},
		{Seq: 4, Kind: invalidation.KindDelete, Key: "/a", Recursive: true},
		{Seq: 5, Kind: invalidation.KindAll, Key: "/"},
	}
}

func TestRecordRoundTrip(t *testing.T) {
	for _, want := range records() {
		b := invalidation.AppendRecord(nil, want)
		got, err := invalidation.DecodeRecord(b)
		if err != nil {
			t.Fatalf("decode %v: %v", want, err)
		}
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

// raw builds a record's bytes field by field, as a newer version might.
func raw(kind, flags byte, key, key2 string, more ...byte) []byte {
	b := []byte{1, kind, flags}
	b = binary.AppendUvarint(b, 7)
	b = binary.AppendVarint(b, 0)
	for _, s := range []string{key, key2, ""} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return append(b, more...)
}

func TestC26UnknownRecordsWidenAndKeepTheirChain(t *testing.T) {
	tests := map[string]struct {
		in   []byte
		want string
	}{
		"kind of a newer version":            {raw(99, 0, "/a/b/c", ""), "/a/b"},
		"kind of a newer version, two keys":  {raw(99, 0, "/a/b/c", "/a/x/y/z"), "/a"},
		"kind of a newer version at the top": {raw(99, 0, "/a", ""), "/"},
		"kind 0":                             {raw(0, 0, "/a/b", ""), "/a"},
		"flag and field of a newer version":  {raw(1, 1<<7, "/a/b", "", 1, 2, 3), "/a"},
		"trailing slash":                     {raw(1, 0, "/a/b/", ""), "/a"},
		"empty segment":                      {raw(1, 0, "/a//b", ""), "/"},
		"dot dot":                            {raw(1, 0, "/a/b/../c", ""), "/a"},
		"second key not canonical":           {raw(5, 0, "/a/b/c", "/a/b/./x"), "/a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, err := invalidation.DecodeRecord(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if r.Kind != invalidation.KindSubtree || !r.Recursive || r.Key != tt.want || r.Key2 != "" {
				t.Errorf("got %+v, want the subtree of %q", r, tt.want)
			}
			if again := invalidation.AppendRecord(nil, r); !bytes.Equal(again, tt.in) {
				t.Errorf("encoded as % x, received % x: the chain breaks", again, tt.in)
			}
		})
	}
}

func TestDecodeRecordRefuses(t *testing.T) {
	good := invalidation.AppendRecord(nil, records()[0])
	long := append([]byte{1, 1, 0, 0x87, 0x00}, raw(1, 0, "/a", "")[4:]...) // 7 in two bytes
	tests := map[string][]byte{
		"empty":               {},
		"version":             append([]byte{9}, good[1:]...),
		"truncated":           good[:len(good)-1],
		"too long":            append(bytes.Clone(good), 0),
		"no key":              raw(1, 0, "", ""),
		"relative key":        raw(1, 0, "a", ""),
		"relative second key": raw(5, 0, "/a", "b"),
		"varint not minimal":  long,
		"sequence number 0":   append([]byte{1, 1, 0, 0}, raw(1, 0, "/a", "")[4:]...),
		"huge length":         append([]byte{1, 1, 0, 7, 0}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1),
	}
	for name, in := range tests {
		t.Run(name, func(t *testing.T) {
			if r, err := invalidation.DecodeRecord(in); !errors.Is(err, invalidation.ErrSyntax) {
				t.Errorf("got %+v, %v; want a syntax error", r, err)
			}
		})
	}
}

func FuzzDecodeRecord(f *testing.F) {
	for _, r := range records() {
		f.Add(invalidation.AppendRecord(nil, r))
	}
	f.Add(raw(99, 1, "/a/b", "/a/c", 1, 2))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := invalidation.DecodeRecord(in)
		if err != nil {
			return
		}
		if out := invalidation.AppendRecord(nil, r); !bytes.Equal(in, out) {
			t.Fatalf("read % x, wrote % x", in, out)
		}
		if r.Kind != invalidation.KindAll && r.Key == "" && r.Key2 == "" {
			t.Fatalf("%+v touches nothing", r)
		}
	})
}
