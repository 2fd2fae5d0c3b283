package rpc

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

func marshal(tb testing.TB, m proto.Message) []byte {
	tb.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func hasGroup(b []byte) bool {
	return bytes.ContainsFunc(b, func(r rune) bool { return r&7 == 3 })
}

// FuzzRangesAsked holds requests for ranges to what generated code reads and writes.
func FuzzRangesAsked(f *testing.F) {
	f.Add(marshal(f, &freshetv1.ReadRangesRequest{}))
	f.Add(marshal(f, &freshetv1.ReadRangesRequest{Ranges: []*freshetv1.BlockRange{
		{FileId: 1, Index: 2, BlockLength: 3, Fingerprint: "local:a", Offset: 4, Length: 5},
		{FileId: 1 << 60, Index: 1<<32 - 1, BlockLength: -1, Fingerprint: "local:a", Offset: -5, Length: 1 << 40},
		{},
	}}))
	f.Add([]byte{10, 3, 0x22, 1, 0xff})                                             // no text
	f.Add([]byte{10, 6, 0x10, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x7d, 1, 2, 3, 4})      // too large an index, a field that nobody knows
	f.Add([]byte{10, 8, 0x22, 1, 'a', 0x22, 1, 'b', 8, 1, 10, 4, 8, 1, 8, 2, 8, 0}) // twice
	f.Fuzz(func(t *testing.T, b []byte) {
		var want freshetv1.ReadRangesRequest
		var got rangesAsked
		wrong, err := proto.Unmarshal(b, &want), got.readFrom(b)
		if wrong != nil || len(want.GetRanges()) > MaxRanges {
			if err == nil {
				t.Fatalf("%x is read, which is no request: %v", b, wrong)
			}
			return
		}
		if err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		var r rangeRequest
		for i := range got.ranges {
			r.calls = append(r.calls, &rangeCall{ask: got.ranges[i]})
		}
		out, err := r.appendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range want.GetRanges() {
			one.ProtoReflect().SetUnknown(nil)
		}
		want.ProtoReflect().SetUnknown(nil)
		var again freshetv1.ReadRangesRequest
		if err := proto.Unmarshal(out, &again); err != nil || !proto.Equal(&again, &want) {
			t.Fatalf("%x is written as another request, %x: %v", b, out, err)
		}
	})
}

// FuzzRangesGiven does the same for answers.
func FuzzRangesGiven(f *testing.F) {
	seed := func(m proto.Message) { f.Add(marshal(f, m), uint64(1)) }
	seed(&freshetv1.ReadRangesResponse{})
	seed(&freshetv1.ReadRangesResponse{Outcomes: []*freshetv1.RangeOutcome{
		{Length: 3}, {}, {Error: &freshetv1.ErrorDetail{Kind: "not_exist", Op: "x"}, Message: "it is not there"}, {Length: -1},
	}, Data: []byte("abc")})
	f.Add([]byte{0x12, 1, 'a', 10, 2, 8, 1, 0x12, 1, 'b', 0x7d, 1, 2, 3, 4}, uint64(2)) // data first, and twice
	f.Add([]byte{10, 4, 0x12, 2, 10, 0xff}, uint64(3))
	f.Add([]byte("\xf1\xfe\xff\xff000000000"), uint64(4)) // too large a number of a field
	f.Add([]byte{10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, uint64(4))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		var want freshetv1.ReadRangesResponse
		var got rangesGiven
		wrong := proto.Unmarshal(b, &want)
		err := got.unpack(torn(b, rand.New(rand.NewPCG(seed, 1)))) //nolint:gosec // a test
		if wrong != nil || len(want.GetOutcomes()) > MaxRanges {
			if err == nil {
				t.Fatalf("%x is read, which is no answer: %v", b, wrong)
			}
			return
		}
		if err != nil {
			if hasGroup(b) {
				return
			}
			t.Fatalf("%x: %v", b, err)
		}
		if len(got.outcomes) != len(want.GetOutcomes()) || !bytes.Equal(got.data.Materialize(), want.GetData()) {
			t.Fatalf("%x: %d outcomes, data %x", b, len(got.outcomes), got.data.Materialize())
		}
		for i, o := range want.GetOutcomes() {
			a := got.outcomes[i]
			if a.n != o.GetLength() || a.failed != (o.GetError() != nil) || a.kind != o.GetError().GetKind() || a.reason != o.GetMessage() {
				t.Fatalf("%x: outcome %d is %+v instead of %v", b, i, a, o)
			}
		}
	})
}

// What the node writes is what generated code reads.
func TestRangesGivenAreWrittenAsTheMessage(t *testing.T) {
	a := rangesGiven{outcomes: make([]rangeOutcome, 3), data: torn([]byte("abc"), rand.New(rand.NewPCG(1, 1)))} //nolint:gosec // a test
	a.outcomes[0].n = 3
	a.outcomes[1].fail(freshet.Errorf(freshet.KindNotExist, "read", "", "%s", bytes.Repeat([]byte("ä\xff"), 100)))
	out, err := a.pack()
	if err != nil {
		t.Fatal(err)
	}
	var got freshetv1.ReadRangesResponse
	if err := proto.Unmarshal(out.Materialize(), &got); err != nil {
		t.Fatal(err)
	}
	o := got.GetOutcomes()
	if len(o) != 3 || o[0].GetLength() != 3 || o[0].GetError() != nil || o[1].GetError().GetKind() != "not_exist" || o[1].GetMessage() == "" || o[2].GetLength() != 0 || string(got.GetData()) != "abc" {
		t.Errorf("%v", &got)
	}
}
