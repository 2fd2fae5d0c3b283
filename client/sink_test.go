package client_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
)

// inMemory is a body that shows its bytes, in pieces, and may break.
type inMemory struct {
	*body
	all    []byte
	broken int // bytes before it breaks; negative: never
}

func (b *inMemory) View(n int64) []byte {
	k := min(int(n), 13, len(b.all))
	if b.broken >= 0 {
		k = min(k, b.broken)
		b.broken -= k
	}
	p := b.all[:k]
	b.all = b.all[k:]
	return p
}

func (b *inMemory) Read(p []byte) (int, error) {
	if b.broken == 0 {
		return 0, freshet.Errorf(freshet.KindUnavailable, "read block", "", "gone")
	}
	if len(b.all) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 7)], b.all)
	b.all = b.all[n:]
	return n, nil
}

func (b *inMemory) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{b}) }

// vector takes what it is given as the connections of servers do.
type vector struct {
	bytes.Buffer
	views int
}

func (v *vector) ReadFrom(r io.Reader) (n int64, err error) {
	first, err := v.Buffer.ReadFrom(io.LimitReader(r, 5)) // as net/http does
	if src, ok := r.(interface{ Pieces(n int64) [][]byte }); ok && err == nil {
		for all := src.Pieces(50); len(all) > 0; all = src.Pieces(50) {
			for _, p := range all {
				v.views++
				_, _ = v.Write(p)
				n += int64(len(p))
			}
		}
	}
	if err == nil {
		var last int64
		last, err = r.(io.WriterTo).WriteTo(struct{ io.Writer }{&v.Buffer}) //nolint:forcetypeassert // a test
		n += last
	}
	return first + n, err
}

// oneBlock is a world of a file of one block, which lies in memory; the first body of
// it breaks.
type oneBlock struct {
	*world
	opened int
}

const oneSize = 300 << 10

func (w *oneBlock) Locate(_ context.Context, q freshet.LocateQuery) (freshet.Location, error) {
	return freshet.Location{
		Info: freshet.Info{Path: q.Path, Length: oneSize, Fingerprint: version(1), FileID: 1}, Source: freshet.Source{Fingerprint: version(1)},
		Blocks: []freshet.Block{{ID: freshet.BlockID{File: 1}, Length: oneSize, Nodes: []freshet.Node{{ID: "a"}}}},
	}, nil
}

func (w *oneBlock) ReadBlock(_ context.Context, _ freshet.Node, q freshet.BlockRead) (freshet.BlockStream, error) {
	w.opened++
	b := &inMemory{body: &body{length: q.Length}, all: bytesOf(1, q.Offset, q.Length), broken: -1}
	if w.opened == 1 {
		b.broken = 100_000
	}
	return b, nil
}

func TestBytesInMemoryAreWrittenWhereTheyLie(t *testing.T) {
	w := &oneBlock{world: newWorld(oneSize)}
	r, err := client.New(w, w, client.Options{}).Open(t.Context(), "/f", client.Whole())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	var to vector
	n, err := r.WriteTo(&to)
	if err != nil || n != oneSize || !bytes.Equal(to.Bytes(), bytesOf(1, 0, oneSize)) {
		t.Errorf("%d bytes, %v, or others", n, err)
	}
	if to.views == 0 || w.opened != 2 {
		t.Errorf("%d pieces, %d bodies", to.views, w.opened)
	}
}
