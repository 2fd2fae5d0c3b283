package local_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/rpc/local"
	"github.com/freshet-io/freshet/test/e2e"
)

// bed is a region of one node with a socket, over a directory.
type bed struct {
	*e2e.Region

	world   *e2e.World
	storage string
	node    string // directory
}

func newBed(t *testing.T, tier string) *bed {
	t.Helper()
	if !local.Supported {
		t.Skip("this system has no local writes")
	}
	b := &bed{}
	b.world = e2e.NewDirWorld(t, e2e.Options{Coordinators: 1, Nodes: 1, Lone: true, Sockets: true, Tier: tier, Mount: func(_ string, m *config.Mount) {
		b.storage = m.UFS[len("file://"):]
	}})
	b.Region = b.world.A
	b.node = filepath.Dir(filepath.Dir(b.Sockets[0]))
	return b
}

// taken returns how many files the node has taken over its socket, by what came of it.
func (b *bed) taken(t *testing.T, result string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+b.NodeHTTP[0]+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^freshet_local_writes_total\{result="` + result + `"\} (\d+)$`).FindSubmatch(page)
	if m == nil {
		t.Fatal("the node does not count what it takes")
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func filesIn(dir string) ([]string, error) {
	var all []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it has just gone
		}
		if err == nil && !d.IsDir() {
			all = append(all, p)
		}
		return err
	})
	return all, err
}

// nothingLeft is nil when no draft, no hold, no block and no file in the storage is.
func (b *bed) nothingLeft(context.Context) error {
	for _, dir := range []string{filepath.Join(b.node, "blocks", "tmp"), filepath.Join(b.node, "blocks", "held"), filepath.Join(b.node, "blocks", "blocks"), b.storage} {
		if left, err := filesIn(dir); err != nil || len(left) > 0 {
			return fmt.Errorf("left: %v, %w", left, err)
		}
	}
	return nil
}

// absent is nil if the namespace has no such file.
func (b *bed) absent(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := b.S.Files.Stat(ctx, b.At(name), freshet.ReadOptions{})
		if freshet.IsKind(err, freshet.KindNotExist) {
			return nil
		}
		return fmt.Errorf("%s is there, or cannot be asked for: %w", name, err)
	}
}

func (b *bed) write(ctx context.Context, name string, body io.Reader, length int64, w freshet.WriteType) error {
	_, err := b.S.Files.Write(ctx, b.At(name), body, client.WriteOptions{Length: length, Write: w})
	return err
}

var (
	keptTypes = []freshet.WriteType{freshet.MustCache, freshet.AsyncThrough}
	allTypes  = append([]freshet.WriteType{freshet.CacheThrough, freshet.Through}, keptTypes...)
)

func TestEveryTypeOfWriteGoesOverTheSocket(t *testing.T) {
	for _, tier := range []string{"disk", "memory"} {
		t.Run(tier, func(t *testing.T) {
			b := newBed(t, tier)
			b.CLI(t, "policy", "set", string(b.Root), "--block-size", "1MiB").Want(t, 0)
			n := 0
			for _, w := range allTypes {
				if w == freshet.AsyncThrough && tier == "memory" {
					continue // needs a disk
				}
				for _, declared := range []bool{true, false} {
					n++
					name := fmt.Sprintf("%s-%v", w, declared)
					data := e2e.Content(name, 1, 5<<20+17)
					length := int64(len(data))
					if !declared {
						length = -1
					}
					if err := b.write(t.Context(), name, bytes.NewReader(data), length, w); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					e2e.Seen(t, name+" is read", e2e.Shows(b.Region, name, data))
					if got := b.taken(t, "written"); got != n {
						t.Fatalf("%s: %d files were taken, not %d", name, got, n)
					}
				}
			}
			if got := b.S.Local.Stats().Writes; got != int64(n) {
				t.Errorf("the client counts %d", got)
			}
			file := filepath.Join(t.TempDir(), "f")
			data := e2e.Content("cli", 1, 3<<20)
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
			b.CLI(t, "fs", "cp", "file:"+file, string(b.At("cli"))).Want(t, 0)
			b.CLI(t, "--socket-dir", "none", "fs", "cp", "file:"+file, string(b.At("far"))).Want(t, 0)
			if got := b.taken(t, "written"); got != n+1 {
				t.Errorf("of two files of the command line %d went over the socket", got-n)
			}
			for _, name := range []string{"cli", "far"} {
				e2e.Seen(t, name+" is read", e2e.Shows(b.Region, name, data))
			}
			b.CLI(t, "persist", "--recursive", "--wait", string(b.Root)).Want(t, 0)
			for _, w := range allTypes[:3] {
				name := fmt.Sprintf("%s-%v", w, true)
				got, err := os.ReadFile(filepath.Join(b.storage, name))
				if err != nil || !bytes.Equal(got, e2e.Content(name, 1, 5<<20+17)) {
					t.Errorf("the storage has %d bytes of %s, %v", len(got), name, err)
				}
			}
		})
	}
}

// halfWay is a body that says when it was read so far, and gives no more until it is
// told to end.
type halfWay struct {
	data []byte
	half func()
	end  chan struct{}
	once sync.Once
}

func (h *halfWay) Read(p []byte) (int, error) {
	if len(h.data) == 0 {
		h.once.Do(h.half)
		<-h.end
		return 0, io.EOF
	}
	n := copy(p, h.data)
	h.data = h.data[n:]
	return n, nil
}

// TestAWriterIsKilled in the middle: a program that is sent half a file.
func TestAWriterIsKilled(t *testing.T) {
	b := newBed(t, "disk")
	for _, w := range allTypes {
		t.Run(w.String(), func(t *testing.T) {
			failed := b.taken(t, "failed")
			ctx, cancel := context.WithTimeout(t.Context(), e2e.Patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, e2e.Binary(), "--addr", b.Clients[0], "fs", "cp", "--write-type", w.String(), "-", string(b.At("half")))
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := in.Write(random(6<<20, 3)); err != nil { // more than what is shared
				t.Error(err)
			}
			if w != freshet.Through {
				e2e.Seen(t, "a draft is there", func(context.Context) error {
					if left, err := filesIn(filepath.Join(b.node, "blocks", "tmp")); err != nil || len(left) == 0 {
						return fmt.Errorf("%v, %w", left, err)
					}
					return nil
				})
			}
			if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // killed
			_ = in.Close() // as above
			e2e.Seen(t, "nothing is left", b.nothingLeft)
			e2e.Seen(t, "no file is there", b.absent("half"))
			e2e.Seen(t, "it went over the socket", func(context.Context) error {
				if got := b.taken(t, "failed"); got != failed+1 {
					return fmt.Errorf("%d writes over the socket failed", got-failed)
				}
				return nil
			})
		})
	}
}

// TestTheNodeIsKilledInTheMiddleOfAWrite: the client is told, and nothing is there
// until it writes again.
func TestTheNodeIsKilledInTheMiddleOfAWrite(t *testing.T) {
	for _, w := range allTypes {
		t.Run(w.String(), func(t *testing.T) {
			b := newBed(t, "disk")
			half, end := make(chan struct{}), make(chan struct{})
			ended := make(chan error, 1)
			body := &halfWay{data: random(6<<20, 4), half: func() { close(half) }, end: end}
			go func() { ended <- b.write(context.Background(), "f", body, 12<<20, w) }()
			<-half
			if b.S.Local.Stats().Writes != 1 {
				t.Fatal("it does not go over the socket")
			}
			if err := b.Nodes[0].Kill(); err != nil {
				t.Fatal(err)
			}
			close(end)
			if err := <-ended; !freshet.IsKind(err, freshet.KindUnavailable, freshet.KindDeadline) {
				t.Errorf("the client was told %v", err)
			}
			e2e.Seen(t, "no file is there", b.absent("f"))
			if err := b.Nodes[0].Start(); err != nil {
				t.Fatal(err)
			}
			e2e.Seen(t, "nothing is left", b.nothingLeft)
			data := e2e.Content("f", 2, 3<<20)
			e2e.Seen(t, "it can be written again", func(ctx context.Context) error {
				return b.write(ctx, "f", bytes.NewReader(data), int64(len(data)), w)
			})
			e2e.Seen(t, "it is read", e2e.Shows(b.Region, "f", data))
		})
	}
}

// TestWritersWithoutPermissionStream, to the same effect.
func TestWritersWithoutPermissionStream(t *testing.T) {
	asRoot(t)
	b := newBed(t, "disk")
	if err := os.Chmod(b.Sockets[0], 0); err != nil { // to root it is no obstacle
		t.Fatal(err)
	}
	for d := filepath.Dir(b.Sockets[0]); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil { //nolint:gosec // for all
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(e2e.Binary())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(b.node)
	data := random(2<<20, 5)
	for name, content := range map[string][]byte{"freshet": program, "data": data} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o755); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	other(t, b.world, filepath.Join(dir, "freshet"), nobody, "fs", "cp", "file:"+filepath.Join(dir, "data"), string(b.At("f")))
	e2e.Seen(t, "it is read", e2e.Shows(b.Region, "f", data))
	if n := b.taken(t, "written") + b.taken(t, "failed") + b.taken(t, "refused"); n != 0 {
		t.Errorf("%d came over the socket", n)
	}
}
