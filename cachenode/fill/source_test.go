package fill_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// ask is one request to a storage.
type ask struct{ off, n int64 }

// recorder notes what is asked of a storage, and lets a test hold it up or break it.
type recorder struct {
	ufs.FS

	mu   sync.Mutex
	asks []ask
	want []string // the versions that were asked for
	// onOpen, if not nil, is called with the number of the request, from 0 on.
	onOpen func(ctx context.Context, i int, a ask) error
	// body, if not nil, replaces a body.
	body func(ctx context.Context, i int, rc io.ReadCloser) io.ReadCloser
}

// record puts a recorder before the storage of the bed.
func (b *bed) record() *recorder {
	r := &recorder{}
	r.FS = b.setFS(r)
	return r
}

func (r *recorder) Open(ctx context.Context, key string, opts ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	a := ask{opts.Offset, opts.Length}
	r.mu.Lock()
	i, onOpen, body := len(r.asks), r.onOpen, r.body
	r.asks, r.want = append(r.asks, a), append(r.want, opts.Want.String())
	r.mu.Unlock()
	if onOpen != nil {
		if err := onOpen(ctx, i, a); err != nil {
			return nil, ufs.Status{}, err
		}
	}
	rc, st, err := r.FS.Open(ctx, key, opts)
	if err == nil && body != nil {
		rc = body(ctx, i, rc)
	}
	return rc, st, err
}

// all returns the requests so far and how many bytes they asked for.
func (r *recorder) all() (asks []ask, total int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.asks {
		total += a.n
	}
	return append([]ask(nil), r.asks...), total
}

// breaking is a body that breaks off after some bytes.
type breaking struct {
	io.ReadCloser

	left int
	err  error
}

func (b *breaking) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

const pageSize = 4096

// pages makes content of which each page says which version it is of and where.
func pages(version uint64, size int) []byte {
	out := make([]byte, 0, size+pageSize)
	for i := 0; len(out) < size; i++ {
		page := bytes.Repeat(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, version), uint64(i)), pageSize/16)
		out = append(out, page...)
	}
	return out[:size]
}

// versionOf returns the one version of the bytes, which begin at off.
func versionOf(off int64, data []byte) (uint64, error) {
	var version uint64
	for i := (8 - off%8) % 8; i+8 <= int64(len(data)); i += 8 {
		at, word := off+i, binary.BigEndian.Uint64(data[i:])
		switch {
		case at/8%2 == 1 && word != uint64(at/pageSize):
			return 0, fmt.Errorf("the bytes at %d are those of page %d", at, word)
		case at/8%2 == 0 && version == 0:
			version = word
		case at/8%2 == 0 && version != word:
			return 0, fmt.Errorf("the bytes at %d are of version %d, those before of %d", at, word, version)
		}
	}
	return version, nil
}

func TestPagesTellVersions(t *testing.T) {
	t.Parallel()
	data := pages(7, 3*pageSize+100)
	for _, off := range []int64{0, 3, 8, 4096, 5001} {
		if v, err := versionOf(off, data[off:]); v != 7 || err != nil {
			t.Error(off, v, err)
		}
		if _, err := versionOf(off+8, data[off:]); err == nil {
			t.Error("bytes in the wrong place pass")
		}
	}
	copy(data[8192:], pages(8, 3*pageSize)[8192:])
	if _, err := versionOf(0, data); err == nil {
		t.Error("two versions pass")
	}
}

func unavailable() error {
	return freshet.Errorf(freshet.KindUnavailable, "read", "", "connection reset")
}
