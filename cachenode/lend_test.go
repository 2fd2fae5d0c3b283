package cachenode_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

func TestTheNodeLendsWhatItHolds(t *testing.T) {
	dir := t.TempDir()
	partial := cachenode.Options{Caching: ufs.Caching{Partial: true}} // else nothing is fetched ahead
	bubble(t, settings{dir: dir, opts: partial}, func(t *testing.T, b *bed) {
		data := random(blockSize, 9)
		done, err := b.write(b.ticket(5), data)
		check(t, err)
		id := freshet.BlockID{File: 5}
		req := freshet.BlockRead{
			Block: freshet.Block{ID: id, Length: blockSize}, Source: freshet.Source{Mount: 1, Key: "f", Fingerprint: done.Info.Fingerprint}, Length: -1,
		}
		b.blocks.Remove(id)
		_, err = b.node.Lend(t.Context(), req)
		wantKind(t, err, freshet.KindNotExist)
		if !b.node.ReadAhead(t.Context(), req) {
			t.Fatal("the node does not fetch it ahead")
		}
		synctest.Wait()
		if _, ok := b.blocks.Stat(id); !ok || !b.node.ReadAhead(t.Context(), req) {
			t.Fatal("the block was not fetched ahead")
		}
		l, err := b.node.Lend(t.Context(), req)
		check(t, err)
		at := l.Layout()
		got, err := io.ReadAll(io.NewSectionReader(l.File(), at.Offset, at.Length))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		l.Close()

		// A client that is wrong about damage changes nothing; one that is right does.
		for _, chunk := range []int64{0, 7, -1, 1 << 40} {
			b.node.Inspect(req, chunk)
		}
		if _, ok := b.blocks.Stat(id); !ok {
			t.Fatal("a sound block was dropped")
		}
		files, err := filepath.Glob(filepath.Join(dir, "blocks", "blocks", "*", "*"))
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		f, err := os.OpenFile(files[0], os.O_RDWR, 0)
		check(t, err)
		_, err = f.WriteAt([]byte("damage"), 5000)
		check(t, err)
		check(t, f.Close())
		b.node.Inspect(req, 0)
		if _, ok := b.blocks.Stat(id); ok {
			t.Error("a damaged block stays")
		}

		_, err = b.write(b.ticket(6), data)
		check(t, err)
		other := req
		other.Block.ID.File, other.Source.Fingerprint = 6, fingerprint.S3("another", 1)
		_, err = b.node.Lend(t.Context(), other)
		wantKind(t, err, freshet.KindNotExist)
	})
}
