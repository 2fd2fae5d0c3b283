package rpc

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// torn returns b in buffers that end anywhere.
func torn(b []byte, random *rand.Rand) mem.BufferSlice {
	var out mem.BufferSlice
	for len(b) > 0 {
		n := min(random.IntN(7)*random.IntN(7), len(b))
		out = append(out, mem.SliceBuffer(bytes.Clone(b[:n])))
		b = b[n:]
	}
	return out
}

// FuzzPayload holds a message whose data stay apart to the message as generated code
// reads and writes it.
func FuzzPayload(f *testing.F) {
	seed := func(m proto.Message) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint64(1))
	}
	seed(&freshetv1.WriteFileRequest{})
	seed(&freshetv1.WriteFileRequest{Data: []byte("data"), End: true})
	seed(&freshetv1.WriteFileRequest{Ticket: &freshetv1.Ticket{Target: &freshetv1.Source{Key: "x"}}, Length: -1, Data: bytes.Repeat([]byte("x"), 300)})
	f.Add([]byte{0x1a, 1, 'a', 0x1a, 1, 'b', 0x7d, 1, 2, 3, 4, 0x79, 1, 2, 3, 4, 5, 6, 7, 8}, uint64(2)) // twice, and what nobody knows
	f.Add([]byte{0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, uint64(3))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		var want, got freshetv1.WriteFileRequest
		wrong := proto.Unmarshal(b, &want)
		p := partOf(&got)
		err := p.unpack(torn(b, rand.New(rand.NewPCG(seed, 1)))) //nolint:gosec // a test
		if wrong != nil {
			if err == nil {
				t.Fatalf("%x is read, which is no message: %v", b, wrong)
			}
			return
		}
		if err != nil {
			if bytes.ContainsFunc(b, func(r rune) bool { return r&7 == 3 }) { // it may have a group
				return
			}
			t.Fatalf("%x: %v", b, err)
		}
		data := p.data.Materialize()
		if !bytes.Equal(data, want.GetData()) {
			t.Fatalf("%x: data %x instead of %x", b, data, want.GetData())
		}
		out, err := p.pack()
		if err != nil {
			t.Fatal(err)
		}
		var again freshetv1.WriteFileRequest
		if err := proto.Unmarshal(out.Materialize(), &again); err != nil || !proto.Equal(&again, &want) {
			t.Fatalf("%x is written as another message: %v", b, err)
		}
	})
}

func TestChunksShrinkWithTheNumberOfStreams(t *testing.T) {
	var r room
	var leave []func()
	for _, c := range []struct {
		streams int
		want    int64
	}{{0, ChunkSize}, {1, ChunkSize}, {64, ChunkSize}, {65, ChunkSize / 2}, {129, ChunkSize / 4}, {512, ChunkSize / 8}, {4096, minChunk}} {
		for len(leave) < c.streams {
			leave = append(leave, r.enter())
		}
		if got := r.chunk(); got != c.want {
			t.Errorf("%d streams: %d bytes, want %d", c.streams, got, c.want)
		}
	}
	for _, f := range leave {
		f()
	}
	if got := r.chunk(); got != ChunkSize {
		t.Errorf("when all have left: %d bytes", got)
	}
}

func TestRoomGivesBuffersOfAnyLength(t *testing.T) {
	var r room
	for _, n := range []int{0, 1, 2, 3, 1023, 1024, 1025, ChunkSize - 1, ChunkSize, ChunkSize + 1} {
		for range 3 {
			b := r.Get(n)
			if len(*b) != n {
				t.Fatalf("%d bytes instead of %d", len(*b), n)
			}
			*b = (*b)[:n/2] // as the library may leave it
			r.Put(b)
		}
	}
}
