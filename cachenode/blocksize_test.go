package cachenode_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/freshet-io/freshet"
)

// readSmall reads n bytes from off of one block of a file of a given length.
func (b *bed) readSmall(id freshet.BlockID, size, off, n int64, done freshet.Completed) []byte {
	b.t.Helper()
	at := int64(id.Index) * size
	s, err := b.node.Read(b.t.Context(), freshet.BlockRead{
		Block:  freshet.Block{ID: id, Offset: at, Length: min(size, done.Info.Length-at)},
		Source: freshet.Source{Mount: 1, Key: "f", Fingerprint: done.Info.Fingerprint}, Offset: off, Length: n,
	})
	check(b.t, err)
	data, err := io.ReadAll(s)
	check(b.t, err)
	check(b.t, s.Close())
	return data
}

// wantCached expects that all blocks of a file are in the tier and nothing else is.
func (b *bed) wantCached(file freshet.FileID, size, length int64) {
	b.t.Helper()
	var want []string
	for at := int64(0); at < length; at += size {
		want = append(want, fmt.Sprintf("%d/%d: %d", file, at/size, min(size, length-at)))
	}
	var got []string
	for _, r := range b.blocks.List() {
		got = append(got, fmt.Sprintf("%d/%d: %d", r.ID.File, r.ID.Index, r.Length))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		b.t.Errorf("cached are %v, want %v", got, want)
	}
}

// Blocks that an upload leaves are those that later reads ask for, whatever their size.
func TestUploadsAndReadsAgreeOnBlocks(t *testing.T) {
	t.Parallel()
	const length = 1 << 20
	for _, size := range []int64{64 << 10, 192 << 10, 1 << 20} {
		for _, dir := range []bool{false, true} {
			s := settings{}
			if dir {
				s.dir = t.TempDir()
			}
			bubble(t, s, func(t *testing.T, b *bed) {
				data := random(length, 3)
				ticket := b.ticket(5)
				ticket.BlockSize = size
				done, err := b.write(ticket, data)
				check(t, err)
				b.wantCached(5, size, length)
				for round, source := range []string{"hit", "ufs"} {
					before := b.metric("freshet_reads_total")[source]
					var got []byte
					for at := int64(0); at < length; at += size {
						got = append(got, b.readSmall(freshet.BlockID{File: 5, Index: uint32(at / size)}, size, 0, -1, done)...)
					}
					synctest.Wait()
					if n := b.metric("freshet_reads_total")[source] - before; !bytes.Equal(got, data) || int64(n) != (length+size-1)/size {
						t.Errorf("blocks of %d, round %d: the same bytes: %t, %v from %s", size, round, bytes.Equal(got, data), n, source)
					}
					b.wantCached(5, size, length)
					// A version that is no longer wanted goes as a whole.
					var all []freshet.BlockID
					for _, r := range b.blocks.List() {
						all = append(all, r.ID)
					}
					b.leader.set(func() { b.leader.reply.Free = all })
					b.nextBeat()
					b.wantCached(5, size, 0)
				}
			})
		}
	}
}

// An upload keeps so many files open, and no more.
func TestAnUploadOfManyBlocksKeepsTheFirst(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		const size, kept = 1 << 10, 1024
		data := random((kept+20)*size, 4)
		ticket := b.ticket(6)
		ticket.BlockSize = size
		done, err := b.write(ticket, data)
		check(t, err)
		if !bytes.Equal(b.visible(), data) {
			t.Error("other bytes were written")
		}
		b.wantCached(6, size, kept*size)
		last := freshet.BlockID{File: 6, Index: kept}
		if got := b.readSmall(last, size, 10, 100, done); !bytes.Equal(got, data[kept*size+10:kept*size+110]) {
			t.Error("other bytes are read of the first block that was not kept")
		}
	})
}
