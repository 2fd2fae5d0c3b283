package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const blockSize = 1000

// world is a coordinator and its nodes: one file whose every byte tells its
// version and its place.
type world struct {
	rpc.Namespace

	length  int64
	version int
	// known is the version that the coordinator believes in, until it is told
	// that the storage refused it.
	known   int
	strict  bool // as a real coordinator, it refuses to locate what is behind the end
	locates []freshet.LocateQuery
	reads   []string
	// read, if set, answers instead of a node that is all right.
	read func(n freshet.Node, q freshet.BlockRead, good io.Reader) (io.Reader, error)
	file string // if set, bodies are this local file
	// writes
	begin  func(call int) (freshet.BeginWriteAnswer, error)
	begins []freshet.BeginWriteQuery
	abort  error
	aborts int
	write  func(body io.Reader) (freshet.Completed, error)
}

func version(v int) fingerprint.Fingerprint {
	return fingerprint.Fingerprint{Content: fmt.Sprintf("v%d", v), Change: "x", Meta: "m"}
}

func byteAt(v int, off int64) byte { return byte(int64(v)*31 + off + off/251) }

func bytesOf(v int, off, n int64) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byteAt(v, off+int64(i))
	}
	return b
}

func (w *world) Locate(_ context.Context, q freshet.LocateQuery) (freshet.Location, error) {
	w.locates = append(w.locates, q)
	if q.StaleFingerprint == version(w.known).String() {
		w.known = w.version
	}
	if w.strict && q.Offset > w.length {
		return freshet.Location{}, freshet.Errorf(freshet.KindInvalid, "locate", q.Path, "offset %d is out of range", q.Offset)
	}
	end := w.length
	if q.Length >= 0 {
		end = min(end, q.Offset+q.Length)
	}
	loc := freshet.Location{
		Info:   freshet.Info{Path: q.Path, Length: w.length, Fingerprint: version(w.known), FileID: freshet.FileID(w.known)},
		Source: freshet.Source{Fingerprint: version(w.known)},
	}
	for i := q.Offset / blockSize; i*blockSize < end && len(loc.Blocks) < 100; i++ {
		loc.Blocks = append(loc.Blocks, freshet.Block{
			ID: freshet.BlockID{File: freshet.FileID(w.known), Index: uint32(i)}, Offset: i * blockSize, Length: min(blockSize, w.length-i*blockSize),
			Nodes: []freshet.Node{{ID: "a"}, {ID: "b"}}, Fetch: freshet.Node{ID: "c"},
		})
	}
	return loc, nil
}

func (w *world) ReadBlock(_ context.Context, n freshet.Node, q freshet.BlockRead) (freshet.BlockStream, error) {
	w.reads = append(w.reads, fmt.Sprintf("%s:%d+%d", n.ID, q.Block.Offset+q.Offset, q.Length))
	if int(q.Block.ID.File) != w.version {
		return nil, freshet.Errorf(freshet.KindStale, "read block", "", "the storage holds another version")
	}
	var src io.Reader = bytes.NewReader(bytesOf(w.version, q.Block.Offset+q.Offset, q.Length))
	if w.read != nil {
		var err error
		if src, err = w.read(n, q, src); err != nil {
			return nil, err
		}
	}
	b := &body{Reader: src, length: q.Length}
	if w.file != "" {
		f, err := os.Open(w.file)
		return &fileBody{body: b, f: f, off: q.Block.Offset + q.Offset}, err
	}
	return b, nil
}

type body struct {
	io.Reader

	length int64
}

func (b *body) Close() error                       { return nil }
func (b *body) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{b.Reader}) }
func (b *body) Length() int64                      { return b.length }
func (b *body) Origin() freshet.Origin             { return freshet.OriginRemote }

type fileBody struct {
	*body

	f   *os.File
	off int64
}

func (b *fileBody) File() (*os.File, int64, bool) { return b.f, b.off, true }
func (b *fileBody) Skip(n int64)                  { b.off += n }
func (b *fileBody) Close() error                  { return b.f.Close() }

func open(t *testing.T, w *world, opts client.ReadOptions) *client.Reader {
	t.Helper()
	r, err := client.New(w, w, client.Options{Host: "h"}).Open(t.Context(), "/f", opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// drain reads r by Read and by WriteTo in turn.
func drain(r *client.Reader, how string) ([]byte, error) {
	var out bytes.Buffer
	var err error
	if how == "Read" {
		_, err = io.CopyBuffer(struct{ io.Writer }{&out}, struct{ io.Reader }{r}, make([]byte, 333))
	} else {
		_, err = r.WriteTo(struct{ io.Writer }{&out})
	}
	return out.Bytes(), err
}

func both(t *testing.T, f func(t *testing.T, how string)) {
	t.Helper()
	for _, how := range []string{"Read", "WriteTo"} {
		t.Run(how, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { f(t, how) }) })
	}
}

func newWorld(length int64) *world { return &world{length: length, version: 1, known: 1} }

func TestRangesCostOnlyTheBytesTheyAskFor(t *testing.T) {
	both(t, func(t *testing.T, how string) {
		const size = 3*blockSize + 77
		for _, tc := range []struct {
			off, n int64
			reads  string
		}{
			{0, -1, "a:0+1000 a:1000+1000 a:2000+1000 a:3000+77"},
			{0, 1, "a:0+1"},
			{999, 2, "a:999+1 a:1000+1"},
			{1000, 1000, "a:1000+1000"},
			{2500, 5000, "a:2500+500 a:3000+77"},
			{size, -1, ""},
			{size + 5, 10, ""},
			{3, 0, ""},
			{1, 1<<63 - 1, "a:1+999 a:1000+1000 a:2000+1000 a:3000+77"},
		} {
			w := newWorld(size)
			got, err := drain(open(t, w, client.ReadOptions{Offset: tc.off, Length: tc.n}), how)
			end := int64(size)
			if tc.n >= 0 && tc.n < size-tc.off {
				end = tc.off + tc.n
			}
			if err != nil || !bytes.Equal(got, bytesOf(1, tc.off, max(end-tc.off, 0))) {
				t.Errorf("%+v: %d bytes, %v", tc, len(got), err)
			}
			if reads := strings.Join(w.reads, " "); reads != tc.reads {
				t.Errorf("%+v: read %s", tc, reads)
			}
		}
	})
	if _, err := client.New(newWorld(1), nil, client.Options{}).Open(t.Context(), "/f", client.ReadOptions{Offset: -1}); !freshet.IsKind(err, freshet.KindInvalid) {
		t.Errorf("negative offset: %v", err)
	}
}

func TestLongFilesAreLocatedInWindows(t *testing.T) {
	w := newWorld(5 << 30)
	r := open(t, w, client.Whole())
	if q := w.locates[0]; q.Length > 4<<30 || q.Host != "h" {
		t.Errorf("asked for %+v", q)
	}
	const off = 4<<30 + 123
	r.Narrow(off, 3*blockSize)
	got, err := drain(r, "Read")
	if err != nil || !bytes.Equal(got, bytesOf(1, off, 3*blockSize)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if last := w.locates[len(w.locates)-1]; last.Offset != off || last.Length != 3*blockSize {
		t.Errorf("asked for %+v", last)
	}
}

func TestAnotherNodeAnswersForOneThatDoesNot(t *testing.T) {
	both(t, func(t *testing.T, how string) {
		down := freshet.Errorf(freshet.KindUnavailable, "read block", "", "connection refused")
		for name, tc := range map[string]struct {
			read func(n freshet.Node, q freshet.BlockRead, good io.Reader) (io.Reader, error)
		}{
			"first is down": {func(n freshet.Node, _ freshet.BlockRead, good io.Reader) (io.Reader, error) {
				if n.ID == "a" {
					return nil, down
				}
				return good, nil
			}},
			"all holders are down": {func(n freshet.Node, _ freshet.BlockRead, good io.Reader) (io.Reader, error) {
				if n.ID != "c" {
					return nil, down
				}
				return good, nil
			}},
			"ends early": {func(_ freshet.Node, q freshet.BlockRead, good io.Reader) (io.Reader, error) {
				return io.LimitReader(good, max(1, q.Length/2)), nil
			}},
			"breaks in the middle": {func(_ freshet.Node, q freshet.BlockRead, good io.Reader) (io.Reader, error) {
				if q.Length < 300 {
					return good, nil
				}
				return io.MultiReader(io.LimitReader(good, 300), failing{down}), nil
			}},
		} {
			w := newWorld(2500)
			w.read = tc.read
			got, err := drain(open(t, w, client.Whole()), how)
			if err != nil || !bytes.Equal(got, bytesOf(1, 0, 2500)) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		}
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestAReadEndsWhenNobodyCanHelp(t *testing.T) {
	both(t, func(t *testing.T, how string) {
		for kind, maxReads := range map[freshet.Kind]int{
			freshet.KindUnavailable: 3 * 10, freshet.KindPermission: 3, freshet.KindInternal: 3,
		} {
			w := newWorld(2500)
			w.read = func(freshet.Node, freshet.BlockRead, io.Reader) (io.Reader, error) {
				return nil, freshet.Errorf(kind, "read block", "", "no")
			}
			if _, err := drain(open(t, w, client.Whole()), how); !freshet.IsKind(err, kind) {
				t.Errorf("%s: %v", kind, err)
			}
			if len(w.reads) > maxReads {
				t.Errorf("%s: %d reads", kind, len(w.reads))
			}
			// The same where streams open, but never give a byte.
			w.reads = nil
			w.read = func(freshet.Node, freshet.BlockRead, io.Reader) (io.Reader, error) {
				return failing{freshet.Errorf(kind, "read block", "", "no")}, nil
			}
			if _, err := drain(open(t, w, client.Whole()), how); !freshet.IsKind(err, kind) {
				t.Errorf("%s: %v", kind, err)
			}
			if len(w.reads) > 10 {
				t.Errorf("%s: %d streams", kind, len(w.reads))
			}
		}
	})
}

func TestVersionsAreNeverMixed(t *testing.T) {
	both(t, func(t *testing.T, how string) {
		w := newWorld(2500)
		w.read = func(_ freshet.Node, q freshet.BlockRead, good io.Reader) (io.Reader, error) {
			if q.Block.Offset == 0 {
				w.version = 2 // overwritten while the first block is read
			}
			return good, nil
		}
		got, err := drain(open(t, w, client.Whole()), how)
		if !freshet.IsKind(err, freshet.KindStale) || !bytes.Equal(got, bytesOf(1, 0, blockSize)) {
			t.Errorf("%d bytes and %v", len(got), err)
		}
	})
}

func TestAnOverwriteBeforeTheFirstByteIsFollowed(t *testing.T) {
	both(t, func(t *testing.T, how string) {
		w := newWorld(2500)
		w.version, w.length = 2, 1500 // the coordinator does not know yet
		got, err := drain(open(t, w, client.Whole()), how)
		if err != nil || !bytes.Equal(got, bytesOf(2, 0, 1500)) {
			t.Errorf("%d bytes and %v", len(got), err)
		}
		if w.locates[1].StaleFingerprint != version(1).String() {
			t.Errorf("the coordinator was not told: %+v", w.locates[1])
		}
	})
}

func TestAVersionThatTheCallerHasSeenIsKept(t *testing.T) {
	w := newWorld(2500)
	w.version = 2
	r := open(t, w, client.Whole())
	if r.Info().Length != 2500 {
		t.Fatal("wrong length")
	}
	if err := r.Prime(); !freshet.IsKind(err, freshet.KindStale) {
		t.Errorf("got %v", err)
	}
}

func TestAFileThatBecameShorterEndsTheRead(t *testing.T) {
	both(t, func(t *testing.T, how string) {
		w := newWorld(2500)
		r := open(t, w, client.ReadOptions{Offset: 2000, Length: -1})
		w.version, w.length = 2, 100
		got, err := drain(r, how)
		if err != nil || len(got) != 0 {
			t.Errorf("%d bytes and %v", len(got), err)
		}
	})
}

func TestAFileThatBecameShorterInTheMiddleIsStale(t *testing.T) {
	both(t, func(t *testing.T, how string) {
		w := newWorld(2500)
		w.strict = true
		w.read = func(freshet.Node, freshet.BlockRead, io.Reader) (io.Reader, error) {
			w.read, w.version, w.length = nil, 2, 100
			return bytes.NewReader(bytesOf(1, 0, blockSize)), nil
		}
		got, err := drain(open(t, w, client.Whole()), how)
		if !freshet.IsKind(err, freshet.KindStale) || !bytes.Equal(got, bytesOf(1, 0, blockSize)) {
			t.Errorf("%d bytes and %v", len(got), err)
		}
	})
}

func TestErrorsOfTheWriterAreItsOwn(t *testing.T) {
	for _, own := range []error{errors.New("disk full"), freshet.Errorf(freshet.KindUnavailable, "write", "", "later"), io.ErrShortWrite} {
		w := newWorld(2500)
		n, err := open(t, w, client.Whole()).WriteTo(writer{own})
		if !errors.Is(err, own) || n != 0 || len(w.reads) != 1 {
			t.Errorf("%v: got %d, %v after %d reads", own, n, err, len(w.reads))
		}
	}
}

type writer struct{ err error }

func (w writer) Write([]byte) (int, error) { return 0, w.err }

func TestBytesOfALocalFileGoPastThisProcess(t *testing.T) {
	const size = 200_000
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, bytesOf(1, 0, size), 0o600); err != nil {
		t.Fatal(err)
	}
	big := &bigBlocks{world: newWorld(size)}
	big.file = name
	r, err := client.New(big, big, client.Options{}).Open(t.Context(), "/f", client.ReadOptions{Offset: 5, Length: size - 10})
	if err != nil {
		t.Fatal(err)
	}
	to := &fromFile{}
	n, err := r.WriteTo(to)
	if err != nil || n != size-10 || !bytes.Equal(to.Bytes(), bytesOf(1, 5, size-10)) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if !to.direct {
		t.Error("the bytes were copied")
	}
}

// bigBlocks has files of one block.
type bigBlocks struct{ *world }

func (w *bigBlocks) Locate(_ context.Context, q freshet.LocateQuery) (freshet.Location, error) {
	return freshet.Location{
		Info: freshet.Info{Path: q.Path, Length: w.length}, Source: freshet.Source{Fingerprint: version(1)},
		Blocks: []freshet.Block{{ID: freshet.BlockID{File: 1}, Length: w.length, Fetch: freshet.Node{ID: "c"}}},
	}, nil
}

// fromFile notes whether it was given a file.
type fromFile struct {
	bytes.Buffer

	direct bool
}

func (w *fromFile) ReadFrom(r io.Reader) (int64, error) {
	l, ok := r.(*io.LimitedReader)
	if ok {
		_, ok = l.R.(*os.File)
	}
	w.direct = ok
	return w.Buffer.ReadFrom(r)
}

func (w *world) BeginWrite(_ context.Context, q freshet.BeginWriteQuery) (freshet.BeginWriteAnswer, error) {
	w.begins = append(w.begins, q)
	return w.begin(len(w.begins))
}

func (w *world) AbortWrite(context.Context, freshet.OpID) error {
	w.aborts++
	return w.abort
}

func (w *world) WriteFile(_ context.Context, _ freshet.Ticket, body io.Reader, _ int64) (freshet.Completed, error) {
	return w.write(body)
}

func TestWritesAndTheirOutcome(t *testing.T) {
	done := freshet.Completed{Info: freshet.Info{Path: "/f", Length: 5}, Token: freshet.Token{Seq: 3}}
	lost := freshet.Errorf(freshet.KindUnavailable, "write", "/f", "connection lost")
	for name, tc := range map[string]struct {
		node    error
		done    int // BeginWrite call from which on the outcome is known
		abort   error
		want    freshet.Kind
		calls   int
		aborted int
	}{
		"all goes well":                  {want: freshet.KindOK, calls: 1},
		"a repetition of a finished one": {done: 1, want: freshet.KindOK, calls: 1},
		"refused":                        {node: freshet.Errorf(freshet.KindExist, "write", "/f", "there"), want: freshet.KindExist, calls: 1},
		"a lost answer of a success":     {node: lost, done: 2, want: freshet.KindOK, calls: 2},
		"lost before anything happened":  {node: lost, want: freshet.KindUnavailable, calls: 2, aborted: 1},
		"nobody knows":                   {node: lost, abort: freshet.Errorf(freshet.KindConflict, "abort", "/f", "in doubt"), want: freshet.KindDeadline, calls: 2, aborted: 1},
		"the time was up":                {node: freshet.Errorf(freshet.KindDeadline, "write", "/f", "late"), want: freshet.KindUnavailable, calls: 2, aborted: 1},
	} {
		w := newWorld(0)
		w.abort = tc.abort
		w.begin = func(call int) (freshet.BeginWriteAnswer, error) {
			if tc.done > 0 && call >= tc.done {
				return freshet.BeginWriteAnswer{Done: true, Completed: done}, nil
			}
			return freshet.BeginWriteAnswer{}, nil
		}
		w.write = func(b io.Reader) (freshet.Completed, error) {
			if _, err := io.Copy(io.Discard, b); err != nil {
				return freshet.Completed{}, err
			}
			return done, tc.node
		}
		got, err := client.New(w, w, client.Options{}).Write(t.Context(), "/f", strings.NewReader("12345"), client.WriteOptions{Length: 5})
		if freshet.KindOf(err) != tc.want || (err == nil && got != done) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if len(w.begins) != tc.calls || w.aborts != tc.aborted {
			t.Errorf("%s: begun %d times, aborted %d times", name, len(w.begins), w.aborts)
		}
		for _, q := range w.begins {
			if q.Op.IsZero() || q.Op != w.begins[0].Op {
				t.Errorf("%s: operation %s, then %s", name, w.begins[0].Op, q.Op)
			}
		}
	}
}
