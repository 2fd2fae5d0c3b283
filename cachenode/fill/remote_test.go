package fill_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/fill"
)

// peers is the other nodes' caches: each has bytes, all of them or only the
// first part before its connection breaks.
type peers struct {
	mu    sync.Mutex
	data  map[freshet.NodeID][]byte
	asked []freshet.NodeID
}

func (p *peers) ReadBlock(_ context.Context, node freshet.Node, req freshet.BlockRead) (freshet.BlockStream, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, node.ID)
	data, ok := p.data[node.ID]
	if !ok || !req.Cached {
		return nil, freshet.Errorf(freshet.KindNotExist, "read block", "", "not here")
	}
	if int64(len(data)) <= req.Offset {
		return remoteBody{Reader: broken{}}, nil
	}
	data = data[req.Offset:]
	if int64(len(data)) >= req.Length {
		return remoteBody{Reader: bytes.NewReader(data[:req.Length])}, nil
	}
	return remoteBody{Reader: io.MultiReader(bytes.NewReader(data), broken{})}, nil
}

// remoteBody is a stream of which only the bytes are used.
type remoteBody struct {
	freshet.BlockStream
	io.Reader
}

func (r remoteBody) Read(p []byte) (int, error) { return r.Reader.Read(p) }
func (remoteBody) Close() error                 { return nil }

type broken struct{}

func (broken) Read([]byte) (int, error) {
	return 0, freshet.Errorf(freshet.KindUnavailable, "read", "", "connection reset")
}

func nodes(ids ...freshet.NodeID) []freshet.Node {
	var list []freshet.Node
	for _, id := range ids {
		list = append(list, freshet.Node{ID: id})
	}
	return list
}

func TestOtherNodesComeBeforeTheStorage(t *testing.T) {
	t.Parallel()
	data := random(2<<20, 20)
	tests := map[string]struct {
		held   map[freshet.NodeID][]byte
		nodes  []freshet.Node
		origin freshet.Origin
		opens  int
	}{
		"one that holds it":         {map[freshet.NodeID][]byte{"n1": data}, nodes("n1"), freshet.OriginRemote, 0},
		"never itself":              {map[freshet.NodeID][]byte{self: data}, nodes(self), freshet.OriginUFS, 1},
		"the second":                {map[freshet.NodeID][]byte{"n2": data}, nodes("n1", "n2"), freshet.OriginRemote, 0},
		"two are enough":            {map[freshet.NodeID][]byte{"n3": data}, nodes("n1", "n2", "n3"), freshet.OriginUFS, 1},
		"one breaks, another helps": {map[freshet.NodeID][]byte{"n1": data[:1<<20], "n2": data}, nodes("n1", "n2"), freshet.OriginRemote, 0},
		"all break":                 {map[freshet.NodeID][]byte{"n1": data[:1<<20], "n2": data[:3]}, nodes("n1", "n2"), freshet.OriginUFS, 1},
		"none":                      {nil, nodes("n1"), freshet.OriginUFS, 1},
	}
	for name, test := range tests {
		for _, typ := range []freshet.ReadType{freshet.ReadCache, freshet.ReadNoCache} {
			t.Run(name+" "+typ.String(), func(t *testing.T) {
				t.Parallel()
				p := &peers{data: test.held}
				b := newBed(t, settings{remote: p})
				req := b.put("a", data, 1)
				req.Block.Nodes, req.Type = test.nodes, typ
				before, origin, opens := b.opens(), test.origin, test.opens
				if typ == freshet.ReadNoCache && len(test.held["n1"]) == 1<<20 {
					// A stream without a fetch behind it does not look for a third
					// source once it has handed out bytes: it takes the surest.
					origin, opens = freshet.OriginUFS, 1
				}
				b.want(req, data, origin)
				if got := b.opens() - before; got != opens {
					t.Errorf("%d calls to the storage, want %d", got, opens)
				}
				if typ == freshet.ReadCache {
					b.awaitCached(req.Block.ID)
					b.want(req, data, freshet.OriginHit)
				}
			})
		}
	}
}

func TestNodeThatIsAskedByAnotherOnlyLooksIntoItsCache(t *testing.T) {
	t.Parallel()
	p := &peers{data: map[freshet.NodeID][]byte{"n1": random(1000, 1)}}
	b := newBed(t, settings{remote: p})
	data := random(1000, 1)
	req := b.put("a", data, 1)
	req.Block.Nodes, req.Cached = nodes("n1"), true
	before := b.opens()
	if _, _, err := b.read(req); !freshet.IsKind(err, freshet.KindNotExist) {
		t.Errorf("%v", err)
	}
	if b.opens() != before || len(p.asked) != 0 {
		t.Errorf("asked the storage %d times and nodes %v", b.opens()-before, p.asked)
	}
	req.Cached = false
	b.want(req, data, freshet.OriginRemote)
	b.awaitCached(req.Block.ID)
	req.Cached = true
	b.want(req, data, freshet.OriginHit)
}

// TestDamageFoundInTheMiddleOfARead: a reader that is half through when it comes
// upon a damaged chunk gets the right bytes from elsewhere and never notices.
func TestDamageFoundInTheMiddleOfARead(t *testing.T) {
	t.Parallel()
	for _, byCopy := range []bool{false, true} {
		dir := t.TempDir()
		b := newBed(t, settings{dir: dir})
		data := random(2<<20, 21)
		req := b.put("a", data, 1)
		b.want(req, data, freshet.OriginUFS)
		b.awaitCached(req.Block.ID)
		files, err := filepath.Glob(filepath.Join(dir, "blocks/*/*"))
		check(t, err)
		if len(files) != 1 {
			t.Fatalf("%v", files)
		}
		f, err := os.OpenFile(files[0], os.O_RDWR, 0)
		check(t, err)
		_, err = f.WriteAt([]byte("damage"), 4096+1<<20+77)
		check(t, err)
		check(t, f.Close())

		s, err := b.filler.Read(t.Context(), req)
		check(t, err)
		if s.Origin() != freshet.OriginHit {
			t.Error("the block was not found")
		}
		var got bytes.Buffer
		if byCopy {
			_, err = s.WriteTo(&got)
		} else {
			_, err = io.Copy(struct{ io.Writer }{&got}, struct{ io.Reader }{s})
		}
		if err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("%d bytes, %v", got.Len(), err)
		}
		check(t, s.Close())
		b.awaitCached(req.Block.ID)
		b.want(req, data, freshet.OriginHit)
	}
}

func TestFileForSendfile(t *testing.T) {
	t.Parallel()
	b := newBed(t, settings{dir: t.TempDir()})
	data := random(1<<20, 22)
	req := b.put("a", data, 1)
	s, err := b.filler.Read(t.Context(), req)
	check(t, err)
	if _, _, ok := s.File(); ok {
		t.Error("a block in the making has a file")
	}
	check(t, s.Close())
	b.awaitCached(req.Block.ID)
	s, err = b.filler.Read(t.Context(), withRange(req, 300_000, 5000))
	check(t, err)
	f, off, ok := s.File()
	if !ok {
		t.Fatal("no file")
	}
	got := make([]byte, 5000)
	_, err = f.ReadAt(got, off)
	check(t, err)
	if !bytes.Equal(got, data[300_000:305_000]) {
		t.Error("wrong bytes")
	}
	check(t, s.Close())
	var _ fill.Remote = (*peers)(nil)
}
