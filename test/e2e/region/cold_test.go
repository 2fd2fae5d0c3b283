package region_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
	"github.com/freshet-io/freshet/test/s3test"
)

// TestColdReads reads what is in no cache, in all ways, and counts what the storage is
// asked for.
func TestColdReads(t *testing.T) {
	w := e2e.NewS3World(t, e2e.Options{Lone: true, Coordinators: 1})
	for _, c := range []struct {
		name string
		test func(t *testing.T, w *e2e.World)
	}{
		{"a hundred readers are one request", hundredReaders},
		{"footers and column chunks", columnarReads},
		{"a request that breaks off", brokenRequests},
		{"no_cache", noCacheReads},
		{"a node next to the reader takes a copy", passiveCopies},
		{"mounts say what is kept", mountsKeep},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, w) })
	}
}

// put writes a file past Freshet.
func put(t *testing.T, w *e2e.World, name string, size int) []byte {
	t.Helper()
	data := e2e.Content(name, 1, size)
	if err := w.Storage.Put(t.Context(), w.A.Prefix+name, data); err != nil {
		t.Fatal(err)
	}
	return data
}

// gets returns how many objects were read since the counts were reset, and how many
// bytes of them.
func gets(w *e2e.World) (n, size int64) {
	c := w.S3.Counts()
	return int64(c.ByOp["GetObject"]), int64(c.BytesOut["GetObject"])
}

func hundredReaders(t *testing.T, w *e2e.World) {
	for name, size := range map[string]int{"crowd/whole": 6 << 20, "crowd/mixed": 1 << 20} {
		data := put(t, w, name, size)
		if _, err := w.A.S.Stat(t.Context(), w.A.At(name), freshet.ReadOptions{}); err != nil {
			t.Fatal(err)
		}
		w.S3.ResetCounts()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				opts := client.Whole()
				if strings.HasSuffix(name, "mixed") {
					opts.Offset, opts.Length = int64(i)*10_000, int64(1+i*500)
				}
				got, _, err := w.A.Read(context.Background(), name, opts)
				want := data[opts.Offset:]
				if opts.Length >= 0 {
					want = want[:min(opts.Length, int64(len(want)))]
				}
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s, reader %d: %d of %d bytes, %v", name, i, len(got), len(want), err)
				}
			})
		}
		wg.Wait()
		if n, out := gets(w); n != 1 || out != int64(size) {
			t.Errorf("%s: %d requests of %d bytes", name, n, out)
		}
	}
}

// columnarReads reads a Parquet-like file as engines do: last bytes, footer, chunks.
func columnarReads(t *testing.T, w *e2e.World) {
	const size = 40 << 20
	data := put(t, w, "columns", size)
	w.S3.ResetCounts()
	reads := []struct{ off, n int64 }{{size - 8, 8}, {size - 64<<10, 64 << 10}, {3 << 20, 700_000}, {17 << 20, 2 << 20}, {30<<20 + 5, 900_001}}
	var asked int64
	all := func() {
		for _, r := range reads {
			got, _, err := w.A.Read(t.Context(), "columns", client.ReadOptions{Offset: r.off, Length: r.n})
			if err != nil || !bytes.Equal(got, data[r.off:r.off+r.n]) {
				t.Fatalf("%d bytes at %d, %v", len(got), r.off, err)
			}
			asked += r.n
		}
	}
	all()
	e2e.AwaitCached(t, w.A, "columns", size)
	n, out := gets(w)
	if n > int64(len(reads))+5 || out > size+asked {
		t.Errorf("%d requests of %d bytes for %d of %d", n, out, asked, size)
	}
	t.Logf("%d ranges of %d bytes cost %d requests of %d bytes", len(reads), asked, n, out)
	free(t, w, "the same ranges again", all)
}

func brokenRequests(t *testing.T, w *e2e.World) {
	data := put(t, w, "broken", 20<<20)
	w.S3.AddFault(s3test.Rule{Op: "GetObject", KeyPrefix: w.A.Prefix + "broken", Action: s3test.ActionShortBody, Times: 3})
	defer w.S3.ClearFaults()
	read(t, w.A, "broken", data)
	e2e.AwaitCached(t, w.A, "broken", int64(len(data)))
	free(t, w, "what was cached in spite of it", func() { read(t, w.A, "broken", data) })
}

func noCacheReads(t *testing.T, w *e2e.World) {
	data := put(t, w, "plain", 3<<20)
	path, url := string(w.A.At("plain")), "http://"+w.A.NodeHTTP[0]+"/v1/data"+string(w.A.At("plain"))+"?read_type=no_cache"
	for range 2 {
		if out := w.A.CLI(t, "fs", "cat", "--no-cache", path).Want(t, 0); out.Out != string(data) {
			t.Errorf("cat: %d bytes", len(out.Out))
		}
		if a := e2e.HTTP(t, "GET", url, "").Want(t, 200); a.Body != string(data) || a.Header.Get("X-Freshet-Source") != "ufs" {
			t.Errorf("GET: %d bytes from %s", len(a.Body), a.Header.Get("X-Freshet-Source"))
		}
		if a := e2e.HTTP(t, "GET", url, "", "Range", "bytes=1000000-1000009").Want(t, 206); a.Body != string(data[1000000:1000010]) {
			t.Errorf("GET of a range: %q", a.Body)
		}
		got, _, err := w.A.Read(t.Context(), "plain", client.ReadOptions{Length: -1, Read: freshet.ReadNoCache})
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("gRPC: %d bytes, %v", len(got), err)
		}
	}
	x, err := w.A.S.Explain(t.Context(), w.A.At("plain"), false)
	if err != nil || len(x.Blocks) != 0 {
		t.Errorf("blocks %v, %v", x.Blocks, err)
	}
	read(t, w.A, "plain", data)
	e2e.AwaitCached(t, w.A, "plain", int64(len(data)))
	free(t, w, "no_cache reads of what is cached", func() {
		w.A.CLI(t, "fs", "cat", "--no-cache", path).Want(t, 0)
		e2e.HTTP(t, "GET", url, "").Want(t, 200)
	})
}

// get reads by the HTTP port of a node.
func get(t *testing.T, r *e2e.Region, node int, name string) (body, source string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.NodeHTTP[node]+"/v1/data"+string(r.At(name)), nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Body.Close() }()
	b, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", name, a.Status, err)
	}
	return string(b), a.Header.Get("X-Freshet-Source")
}

// holders waits until so many nodes hold the block of a file.
func holders(t *testing.T, r *e2e.Region, name string, n int) {
	t.Helper()
	if err := fleet.Poll(t.Context(), e2e.Patience, fmt.Sprintf("%d copies of %s", n, name), func(ctx context.Context) error {
		x, err := r.S.Explain(ctx, r.At(name), false)
		if err == nil && (len(x.Blocks) != 1 || len(x.Blocks[0].Nodes) != n) {
			err = fmt.Errorf("blocks %+v", x.Blocks)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func passiveCopies(t *testing.T, w *e2e.World) {
	w.A.CLI(t, "policy", "set", string(w.A.At("passive/one")), "--replication-max", "1").Want(t, 0)
	for _, name := range []string{"passive/any", "passive/one"} {
		data := string(put(t, w, name, 2<<20))
		if got, _ := get(t, w.A, 0, name); got != data {
			t.Fatalf("%d bytes", len(got))
		}
		holders(t, w.A, name, 1)
		free(t, w, "reads through both nodes", func() {
			for _, node := range rand.Perm(len(w.A.NodeHTTP)) {
				if got, from := get(t, w.A, node, name); got != data || from == "ufs" {
					t.Errorf("%s through node %d: %d bytes from %s", name, node, len(got), from)
				}
			}
			if name == "passive/one" {
				return
			}
			holders(t, w.A, name, 2)
			for node := range w.A.NodeHTTP {
				if got, from := get(t, w.A, node, name); got != data || from != "hit" {
					t.Errorf("%s through node %d: %d bytes from %s", name, node, len(got), from)
				}
			}
		})
	}
	holders(t, w.A, "passive/one", 1)
}

// mountsKeep mounts a prefix of which only what is read as a whole is kept, by the node
// that fetches it.
func mountsKeep(t *testing.T, w *e2e.World) {
	const root = "/still"
	add := []string{
		"mount", "add", root, "s3://lake/still", "--option", "endpoint=" + w.S3.Endpoint, "--option", "region=us-east-1",
		"--option", "passive_caching=false", "--option",
	}
	w.A.CLI(t, append(add, "partial_caching=maybe")...).Want(t, 2, "partial_caching", "true or false")
	w.A.CLI(t, append(add, "partial_caching=false")...).Want(t, 0)
	w.A.CLI(t, "mount", "ls").Want(t, 0, "CACHING", "partial_caching=false")
	e2e.HTTP(t, "GET", "http://"+w.A.HTTP[0]+"/v1/mounts", "").Want(t, 200, `"partial_caching":"false"`)
	still := *w.A
	still.Root = root
	data := e2e.Content("kept", 1, 3<<20)
	if err := w.Storage.Put(t.Context(), "still/kept", data); err != nil {
		t.Fatal(err)
	}
	w.S3.ResetCounts()
	for range 3 {
		got, _, err := still.Read(t.Context(), "kept", client.ReadOptions{Offset: 1 << 20, Length: 1000})
		if err != nil || !bytes.Equal(got, data[1<<20:1<<20+1000]) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	if n, out := gets(w); n != 3 || out != 3000 {
		t.Errorf("three ranges cost %d requests of %d bytes", n, out)
	}
	read(t, &still, "kept", data)
	e2e.AwaitCached(t, &still, "kept", int64(len(data)))
	free(t, w, "reads through both nodes", func() {
		for node := range w.A.NodeHTTP {
			if got, from := get(t, &still, node, "kept"); got != string(data) || from == "ufs" {
				t.Errorf("through node %d: %d bytes from %s", node, len(got), from)
			}
		}
	})
	holders(t, &still, "kept", 1)
	w.A.CLI(t, "mount", "update", root, "--option", "partial_caching=2").Want(t, 2, "true or false")
	w.A.CLI(t, "mount", "update", root, "--option", "partial_caching=", "--option", "passive_caching=true").Want(t, 0)
	w.A.CLI(t, "mount", "show", root).Want(t, 0, "passive_caching=true")
}
