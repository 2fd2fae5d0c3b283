package rpc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// pageSize is the part of a stamped file that says what it is.
const pageSize = 4 << 10

// stamped returns a block of which each page says what file it is of, which version
// and where it lies in it.
func stamped(file freshet.FileID, version byte, size int) []byte {
	b := make([]byte, size)
	for off := 0; off < size; off += pageSize {
		page := b[off:min(size, off+pageSize)]
		for i := range page {
			page[i] = byte(i)
		}
		if len(page) >= 24 {
			binary.BigEndian.PutUint64(page, uint64(file))
			binary.BigEndian.PutUint64(page[8:], uint64(version))
			binary.BigEndian.PutUint64(page[16:], uint64(off))
		}
	}
	return b
}

// shelf serves stamped blocks, from memory or by reading.
type shelf struct {
	blocks map[freshet.FileID][]byte
	views  bool
	reads  atomic.Int64
}

func (s *shelf) read(q freshet.BlockRead) (freshet.BlockStream, error) {
	s.reads.Add(1)
	all, ok := s.blocks[q.Block.ID.File]
	if !ok || q.Source.Fingerprint.Content != versionOf(q.Block.ID.File) {
		return nil, freshet.Errorf(freshet.KindNotExist, "read block", "", "this node does not hold the block")
	}
	step := int64(0)
	if s.views {
		step = 1000
	}
	return &turning{viewed: viewed{stream: stream{length: q.Length}, all: all, step: step}, block: all}, nil
}

// turning is a stream that can go on elsewhere.
type turning struct {
	viewed

	block []byte
}

func (s *turning) Turn(off, n int64) error {
	s.all = s.block[off : off+n]
	return nil
}

// rotten is one whose bytes can't be read.
type rotten struct{ stream }

func (rotten) Turn(int64, int64) error { return nil }

func versionOf(f freshet.FileID) string { return fmt.Sprintf("local:%d", f) }

func rangeOf(f freshet.FileID, size, off, n int64) rpc.RangeRead {
	return rpc.RangeRead{
		Block:  freshet.Block{ID: freshet.BlockID{File: f}, Length: size},
		Source: freshet.Source{Fingerprint: fingerprint.Fingerprint{Content: versionOf(f)}},
		Offset: off, To: make([]byte, n),
	}
}

const shelfSize = 3<<20 + 777

func newShelf(views bool) *shelf {
	s := &shelf{blocks: map[freshet.FileID][]byte{}, views: views}
	for f := freshet.FileID(1); f <= 3; f++ {
		s.blocks[f] = stamped(f, byte(f), shelfSize)
	}
	return s
}

func TestReadRangesGivesWhatWasAskedFor(t *testing.T) {
	for _, views := range []bool{false, true} {
		shelf := newShelf(views)
		node := freshet.Node{GRPC: start(t, &fake{read: shelf.read}, nil, rpc.ServerOptions{MaxMessage: rpc.MaxDataMessage}).addr}
		p := pool(t)
		reads := []rpc.RangeRead{
			rangeOf(1, shelfSize, 0, 4096), rangeOf(2, shelfSize, 777, 1), rangeOf(9, shelfSize, 0, 10), rangeOf(3, shelfSize, shelfSize-5, 5),
			rangeOf(1, shelfSize, 5, 0), rangeOf(1, shelfSize, 4000, rpc.MaxRangeBytes), rangeOf(2, shelfSize, 1<<20, rpc.MaxRangeBytes-1),
		}
		for i := range int64(600) {
			reads = append(reads, rangeOf(freshet.FileID(i%3+1), shelfSize, i*4096, 4096))
		}
		errs, err := p.ReadRanges(t.Context(), node, reads)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range reads {
			if r.Block.ID.File == 9 {
				if !freshet.IsKind(errs[i], freshet.KindNotExist) {
					t.Errorf("a block that is not there: %v", errs[i])
				}
				continue
			}
			if want := shelf.blocks[r.Block.ID.File][r.Offset : r.Offset+int64(len(r.To))]; errs[i] != nil || !bytes.Equal(r.To, want) {
				t.Errorf("views %t, range %d: %v, or other bytes", views, i, errs[i])
			}
		}
	}
}

func TestReadRangesRefusesTooMuch(t *testing.T) {
	shelf := newShelf(false)
	node := freshet.Node{GRPC: start(t, &fake{read: shelf.read}, nil, rpc.ServerOptions{MaxMessage: rpc.MaxDataMessage}).addr}
	r := rangeOf(1, shelfSize, 0, rpc.MaxRangeBytes+1)
	if err := pool(t).ReadRange(t.Context(), node, r); !freshet.IsKind(err, freshet.KindInvalid) {
		t.Errorf("too long a range: %v", err)
	}
	if shelf.reads.Load() != 0 {
		t.Error("it was read")
	}
	conn, err := rpc.Dial([]string{node.GRPC}, rpc.DialOptions{MaxMessage: rpc.MaxDataMessage})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	half := &freshetv1.BlockRange{FileId: 1, BlockLength: shelfSize, Length: rpc.MaxRangeBytes/2 + 1}
	for name, ranges := range map[string][]*freshetv1.BlockRange{
		"too much together": {half, half}, "too many": make([]*freshetv1.BlockRange, rpc.MaxRanges+1), "a negative length": {{FileId: 1, Length: -1}},
	} {
		stream, err := freshetv1.NewRangeServiceClient(conn).ReadRanges(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range ranges {
			if r == nil {
				ranges[i] = &freshetv1.BlockRange{}
			}
		}
		if err := stream.Send(&freshetv1.ReadRangesRequest{Ranges: ranges}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err == nil {
			t.Errorf("%s: answered", name)
		}
	}
	if shelf.reads.Load() != 0 {
		t.Error("something was read")
	}
}

// Generated code of another language reads what this one writes, and the other way
// round.
func TestReadRangesIsWhatTheProtoFileSays(t *testing.T) {
	shelf := newShelf(true)
	addr := start(t, &fake{read: shelf.read}, nil, rpc.ServerOptions{MaxMessage: rpc.MaxDataMessage}).addr
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	stream, err := freshetv1.NewRangeServiceClient(conn).ReadRanges(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := func(f freshet.FileID) string { return fingerprint.Fingerprint{Content: versionOf(f)}.String() }
	for i := range int64(5) {
		q := &freshetv1.ReadRangesRequest{Ranges: []*freshetv1.BlockRange{
			{FileId: 2, BlockLength: shelfSize, Fingerprint: name(2), Offset: i * 5000, Length: 100},
			{FileId: 9, BlockLength: shelfSize, Fingerprint: name(9), Length: 7},
			{FileId: 1, BlockLength: shelfSize, Fingerprint: name(1), Offset: shelfSize - 9, Length: 9},
		}}
		if err := stream.Send(q); err != nil {
			t.Fatal(err)
		}
		a, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		want := append(slices.Clone(shelf.blocks[2][i*5000:i*5000+100]), shelf.blocks[1][shelfSize-9:]...)
		if len(a.GetOutcomes()) != 3 || a.GetOutcomes()[1].GetError().GetKind() != "not_exist" || !bytes.Equal(a.GetData(), want) {
			t.Errorf("%v", a.GetOutcomes())
		}
	}
	if n := shelf.reads.Load(); n > 40 {
		t.Errorf("blocks were opened %d times for 15 ranges", n)
	}
}

// A block that turns out to be damaged costs its own range only.
func TestARangeThatFailsLeavesTheOthersAlone(t *testing.T) {
	shelf := newShelf(false)
	read := func(q freshet.BlockRead) (freshet.BlockStream, error) {
		if q.Block.ID.File == 2 {
			return &rotten{stream{Reader: broken(content(100), freshet.Errorf(freshet.KindCorrupt, "read block", "", "bit rot")), length: q.Length}}, nil
		}
		return shelf.read(q)
	}
	node := freshet.Node{GRPC: start(t, &fake{read: read}, nil, rpc.ServerOptions{MaxMessage: rpc.MaxDataMessage}).addr}
	reads := []rpc.RangeRead{rangeOf(1, shelfSize, 0, 4096), rangeOf(2, shelfSize, 0, 4096), rangeOf(3, shelfSize, 8192, 4096)}
	errs, err := pool(t).ReadRanges(t.Context(), node, reads)
	if err != nil || errs[0] != nil || errs[2] != nil || !freshet.IsKind(errs[1], freshet.KindCorrupt) {
		t.Fatalf("%v, %v", errs, err)
	}
	for _, i := range []int{0, 2} {
		if !bytes.Equal(reads[i].To, shelf.blocks[reads[i].Block.ID.File][reads[i].Offset:][:4096]) {
			t.Errorf("range %d has other bytes", i)
		}
	}
}

// Many readers of one node, some of whom leave in the middle: nobody ever gets the
// bytes of another.
func TestRangesTravelTogetherAndStayApart(t *testing.T) {
	shelf := newShelf(true)
	node := freshet.Node{GRPC: start(t, &fake{read: shelf.read}, nil, rpc.ServerOptions{MaxMessage: rpc.MaxDataMessage}).addr}
	p := pool(t)
	var wg sync.WaitGroup
	for c := range 16 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(c), 1)) //nolint:gosec // a test
			for i := range 60 {
				f := freshet.FileID(random.IntN(3) + 1)
				r := rangeOf(f, shelfSize, random.Int64N(shelfSize-9000), random.Int64N(9000))
				ctx, cancel := context.WithCancel(t.Context())
				if i%5 == 0 {
					go cancel()
				}
				err := p.ReadRange(ctx, node, r)
				if i%5 != 0 && err != nil {
					t.Errorf("%v", err)
				}
				if err == nil && !bytes.Equal(r.To, shelf.blocks[f][r.Offset:r.Offset+int64(len(r.To))]) {
					t.Errorf("other bytes of file %d at %d+%d", f, r.Offset, len(r.To))
				}
				cancel()
				clear(r.To) // nobody else writes to it any more
			}
		})
	}
	wg.Wait()
}

func BenchmarkReadRange(b *testing.B) {
	for name, views := range map[string]bool{"memory": true, "disk": false} {
		for _, callers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/%d callers", name, callers), func(b *testing.B) {
				shelf := newShelf(views)
				node := freshet.Node{GRPC: start(b, &fake{read: shelf.read}, nil, rpc.ServerOptions{MaxMessage: rpc.MaxDataMessage}).addr}
				p := pool(b)
				b.ReportAllocs()
				b.SetParallelism((callers + 1) / 2)
				b.RunParallel(func(pb *testing.PB) {
					r := rangeOf(1, shelfSize, 0, pageSize)
					for pb.Next() {
						r.Offset = rand.Int64N(shelfSize/pageSize) * pageSize //nolint:gosec // a benchmark
						if err := p.ReadRange(b.Context(), node, r); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	}
}
