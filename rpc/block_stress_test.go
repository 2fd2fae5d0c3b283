package rpc_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

// Readers of several files at once, of whom some leave in the middle or read in small
// pieces: buffers are used again all the time, in both processes' roles, and are
// overwritten with nonsense as soon as they are free if the race detector runs. Nobody ever gets
// a byte that is not of his file, version and place.
func TestStreamsStayApart(t *testing.T) {
	for _, views := range []bool{false, true} {
		shelf := newShelf(views)
		read := func(q freshet.BlockRead) (freshet.BlockStream, error) {
			s, err := shelf.read(q)
			if err != nil {
				return nil, err
			}
			return s, s.(*turning).Turn(q.Offset, q.Length)
		}
		node := freshet.Node{GRPC: start(t, &fake{read: read}, nil, rpc.ServerOptions{MaxMessage: rpc.MaxDataMessage}).addr}
		p := pool(t)
		var wg sync.WaitGroup
		for c := range 8 {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(uint64(c), 2)) //nolint:gosec // a test
				for range 12 {
					readSome(t, p, node, shelf, random)
				}
			})
		}
		wg.Wait()
	}
}

func readSome(t *testing.T, p *rpc.NodePool, node freshet.Node, shelf *shelf, random *rand.Rand) {
	f := freshet.FileID(random.IntN(3) + 1)
	off := random.Int64N(shelfSize)
	n := random.Int64N(shelfSize - off)
	r := rangeOf(f, shelfSize, off, 0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	body, err := p.ReadBlock(ctx, node, freshet.BlockRead{Block: r.Block, Source: r.Source, Offset: off, Length: n})
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = body.Close() }()
	want := shelf.blocks[f][off : off+n]
	piece := make([]byte, 1+random.IntN(200_000))
	for leave := random.IntN(3) == 0; len(want) > 0; {
		k, err := io.ReadFull(body, piece[:min(len(piece), len(want))])
		if err != nil || !bytes.Equal(piece[:k], want[:k]) {
			t.Errorf("file %d: %d bytes at %d are not those of the file, %v", f, k, off+n-int64(len(want)), err)
			return
		}
		if want = want[k:]; leave && random.IntN(4) == 0 {
			if random.IntN(2) == 0 {
				cancel()
			}
			return
		}
	}
	if k, err := body.Read(piece); k != 0 || err != io.EOF { //nolint:errorlint // io.Reader promises io.EOF itself
		t.Errorf("behind the end: %d bytes, %v", k, err)
	}
}

// Uploads at once, of which each has bytes of its own.
func TestUploadsStayApart(t *testing.T) {
	f := &fake{write: func(ticket freshet.Ticket, body io.Reader, _ int64) (freshet.Completed, error) {
		got, err := io.ReadAll(body)
		want := stamped(ticket.File, 1, len(got))
		if err == nil && (len(got) == 0 || !bytes.Equal(got, want)) {
			err = freshet.Errorf(freshet.KindCorrupt, "write", "", "other bytes")
		}
		return freshet.Completed{Info: freshet.Info{Path: "/x", Type: freshet.TypeFile}}, err
	}}
	node := freshet.Node{GRPC: start(t, f, nil, rpc.ServerOptions{MaxMessage: rpc.MaxDataMessage}).addr}
	p := pool(t)
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			for i := range 4 {
				all := stamped(freshet.FileID(c+1), 1, 1+(c*4+i)*200_003)
				ticket := freshet.Ticket{Node: node, File: freshet.FileID(c + 1), Path: "/x"}
				if _, err := p.WriteFile(t.Context(), ticket, bytes.NewReader(all), int64(len(all))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
