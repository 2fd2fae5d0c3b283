package faults_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/test/e2e"
	"github.com/freshet-io/freshet/test/s3test"
)

// TestNodesAreKilledWhileFilesAreWritten kills cache nodes at any moment, one or all,
// while files are written in each way. What was acknowledged is where the write type
// says, what was refused is nowhere, and what has an unknown outcome is whole or not
// there at all.
func TestNodesAreKilledWhileFilesAreWritten(t *testing.T) {
	tiers := shortDir(t)
	n := 0
	l := newLake(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 2, Sockets: true, Tiers: func(int) []config.Tier {
		n++
		return []config.Tier{{Kind: "ssd", Path: fmt.Sprintf("%s/%d", tiers, n), Size: "128MiB"}}
	}})
	defer http.DefaultClient.CloseIdleConnections()
	for _, kind := range allTypes() {
		t.Run(kind.String(), func(t *testing.T) { l.killWriters(t, kind) })
	}
	l.settle(t)
	cleanTiers(t, tiers)
}

func (l *lake) killWriters(t *testing.T, kind freshet.WriteType) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	var acks atomic.Int64
	var writers []*writer
	for i, root := range append(roots, roots...) {
		w := newWriter(l, l.A, freshet.Path(fmt.Sprintf("%s/%s%d", root, kind, i)), uint64(i), &acks)
		w.types, w.http = []freshet.WriteType{kind}, i > 1
		writers = append(writers, w)
		group.Go(func() error { return w.run(ctx) })
	}
	worked := func(n int) {
		if err := l.work(ctx, &acks, int64(n)); err != nil {
			stop()
			t.Fatal(errors.Join(group.Wait(), err))
		}
	}
	luck := rand.New(rand.NewPCG(7, uint64(kind))) //nolint:gosec // repeatable on purpose
	for range 7 {
		worked(2 + luck.IntN(12))
		first := luck.IntN(2)
		must(t, l.kill(l.A.Nodes[first]))
		if luck.IntN(3) == 0 {
			must(t, l.kill(l.A.Nodes[1-first]))
			must(t, l.A.Nodes[1-first].Start())
		}
		must(t, l.A.Nodes[first].Start())
	}
	worked(8)
	stop()
	must(t, group.Wait())
	for _, w := range writers {
		t.Logf("%s: %s", w.dir, &w.tally)
	}
	must(t, l.A.AwaitReady(t.Context()))
	// Before anything is persisted on demand, and after.
	l.verdict(t, writers, false)
	if kind == freshet.MustCache {
		l.nothingStored(t, writers)
	}
	l.settle(t, writers...)
	l.verdict(t, writers, true)
}

// work waits until n more writes were acknowledged.
func (l *lake) work(ctx context.Context, acks *atomic.Int64, n int64) error {
	until := acks.Load() + n
	return fleet.Poll(ctx, e2e.Patience, "writes", func(context.Context) error {
		if now := acks.Load(); now < until {
			return fmt.Errorf("%d of %d", now, until)
		}
		return nil
	})
}

// nothingStored looks whether files that nobody had persisted are on nodes alone.
func (l *lake) nothingStored(t *testing.T, writers []*writer) {
	t.Helper()
	u, err := unpersisted(t.Context(), l.A)
	must(t, err)
	alone := 0
	for _, w := range writers {
		for _, f := range w.all {
			if _, exists, err := l.stored(t.Context(), f.path); err == nil && !exists && f.acked > 0 && !f.removed {
				alone++
			}
		}
	}
	if alone == 0 || u.Count == 0 {
		t.Errorf("%d files are not in the storage, and %d are said to be", alone, u.Count)
	}
	t.Logf("%d files were on nodes alone", alone)
}

// TestReadersOutliveTheirNodes: nodes are killed in turn while many readers are in the
// middle of a file that is in the storage. Each gets every byte, and no wrong one.
func TestReadersOutliveTheirNodes(t *testing.T) {
	l := newLake(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 2, Sockets: true, Tiers: disks(shortDir(t), "4MiB", "24MiB")})
	const size = 8 << 20
	var content []byte
	for _, root := range roots {
		content = e2e.Content("big", 1, size)
		_, err := l.A.Write(t.Context(), root[1:]+"/big", content)
		must(t, err)
	}
	group, ctx := errgroup.WithContext(t.Context())
	const readers, kills = 16, 6
	d := &slowly{size: size, halts: make([]chan struct{}, kills)}
	for i := range d.halts {
		d.halts[i] = make(chan struct{})
	}
	for i := range readers {
		files, opts := l.A.S.Files, client.Whole()
		if i%2 == 0 {
			files = l.remote[l.A].Files
		}
		if i%4 > 1 {
			opts.Read = freshet.ReadNoCache
		}
		p := freshet.Path(roots[i/8] + "/big")
		group.Go(func() error { return d.read(ctx, files, p, opts) })
	}
	for i := range kills {
		must(t, fleet.Poll(ctx, e2e.Patience, "all readers to come so far", func(context.Context) error {
			if n := d.halted.Load(); n < int64(readers*(i+1)) {
				return fmt.Errorf("%d halts", n)
			}
			return nil
		}))
		p := l.A.Nodes[i%2]
		if i%3 == 0 { // while they read on
			close(d.halts[i])
		}
		must(t, l.kill(p))
		if i%3 != 0 { // before
			close(d.halts[i])
		}
		must(t, p.Start())
		must(t, l.A.AwaitReady(ctx)) // one at least is there always
	}
	must(t, group.Wait())
}

// slowly is how files are read in the middle of which nodes die: readers halt on the
// way, before each death.
type slowly struct {
	size   int64
	halts  []chan struct{}
	halted atomic.Int64
}

// read reads a file of one version by pieces.
func (d *slowly) read(ctx context.Context, files *client.Client, p freshet.Path, opts client.ReadOptions) error {
	f, err := files.Open(ctx, p, opts)
	if err != nil {
		return fmt.Errorf("open %s: %w", p, err)
	}
	defer func() { _ = f.Close() }() // read only
	buf := make([]byte, 16*e2e.PageSize)
	pieces := d.size / int64(len(buf))
	for i := range pieces {
		if k := i * int64(len(d.halts)+1) / pieces; k > 0 && i == (k*pieces+int64(len(d.halts)))/int64(len(d.halts)+1) {
			d.halted.Add(1)
			select {
			case <-d.halts[k-1]:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		off := i * int64(len(buf))
		if _, err := io.ReadFull(f, buf); err != nil {
			return fmt.Errorf("%s at %d, %s: %w", p, off, opts.Read, err)
		}
		if _, err := e2e.VersionOf("big", off, buf); err != nil {
			return err
		}
	}
	return nil
}

// TestTheNodeDiesWhileItPersists holds the request by which a node writes a file to the
// bucket and kills the node: before the storage has it, or between the storage's commit
// and the leader's word. Either way the file gets there once, and nothing else does.
func TestTheNodeDiesWhileItPersists(t *testing.T) {
	tiers := shortDir(t)
	l := newLake(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1, Tiers: disks(tiers, "8MiB", "64MiB")})
	l.bucket.Hourly = false // nothing is withdrawn here
	node := l.A.Nodes[0]
	for _, c := range []struct {
		name, op string
		size     int
		lands    bool
		replaces bool
	}{
		{"small, before its commit", "PutObject", 20_000, false, false},
		{"small, after its commit", "PutObject", 20_000, true, false},
		{"large, before its commit", "CompleteMultipartUpload", 9 << 20, false, false},
		{"large, after its commit", "CompleteMultipartUpload", 9 << 20, true, false},
		{"replacing, after its commit", "PutObject", 30_000, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := fmt.Sprintf("s3/%s-%v-%v", c.op, c.lands, c.replaces)
			if c.replaces {
				e2e.Put(t, l.A, name, e2e.Content(name, 1, 10_000))
			}
			want := e2e.Content(name, 2, c.size)
			l.S3.AddFault(s3test.Rule{Op: c.op, KeyPrefix: name[len("s3/"):], Action: s3test.ActionHold, Times: 1})
			write(t, l.A, name, want, freshet.AsyncThrough)
			must(t, fleet.Poll(t.Context(), e2e.Patience, "the storage to be asked", func(context.Context) error {
				_, err := l.S3.Server.WaitHeld(1, 0)
				return err
			}))
			must(t, l.kill(node))
			l.S3.ClearFaults()
			if c.lands {
				l.S3.Release(s3test.AllHeld)
			} else {
				l.S3.Discard(s3test.AllHeld)
			}
			must(t, node.Start())
			l.settle(t)
			got, exists, err := l.stored(t.Context(), freshet.Path("/"+name))
			if err != nil || !exists || string(got) != string(want) {
				t.Errorf("the bucket has %d bytes, %v", len(got), err)
			}
			e2e.Seen(t, "the file is read", e2e.Shows(l.A, name, want))
		})
	}
	cleanTiers(t, tiers)
}

// TestTheNodeDiesInTheMiddleOfAWrite: of a write that stays on the node half has
// arrived. Nothing of it is ever seen, and nothing of it stays.
func TestTheNodeDiesInTheMiddleOfAWrite(t *testing.T) {
	tiers := shortDir(t)
	l := newLake(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1, Tiers: disks(tiers, "8MiB", "64MiB")})
	old := e2e.Content("old", 1, 600_000)
	write(t, l.A, "dir/old", old, freshet.MustCache)
	for _, kind := range []freshet.WriteType{freshet.MustCache, freshet.AsyncThrough} {
		for _, name := range []string{"dir/new", "dir/old"} {
			ended := halfWritten(t, l, name, kind)
			must(t, l.kill(l.A.Nodes[0]))
			must(t, l.A.Nodes[0].Start())
			if err := ended(); err == nil {
				t.Error("half a file was acknowledged")
			}
			must(t, l.A.AwaitReady(t.Context()))
			if name == "dir/new" {
				must(t, e2e.Lacks(l.A, name)(t.Context()))
			}
		}
		e2e.Seen(t, "the old version is read", e2e.Shows(l.A, "dir/old", old))
	}
	l.settle(t)
	got, _, err := l.stored(t.Context(), "/dir/old")
	if err != nil || string(got) != string(old) {
		t.Errorf("the storage has %d bytes, %v", len(got), err)
	}
	cleanTiers(t, tiers)
}

// halfWritten returns when a node has begun to take a file of which half has been sent.
// ended ends the rest and returns what became of it.
func halfWritten(t *testing.T, l *lake, name string, kind freshet.WriteType) (ended func() error) {
	t.Helper()
	for {
		r, w := io.Pipe()
		half := make(chan struct{})
		go func() {
			if _, err := w.Write(e2e.Content(name, 9, 4<<20)); err == nil {
				close(half)
			}
		}()
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), e2e.Patience)
			defer cancel()
			_, err := l.A.S.Files.Write(ctx, l.A.At(name), r, client.WriteOptions{Length: 8 << 20, Write: kind})
			_ = r.CloseWithError(io.ErrClosedPipe) // never fails
			done <- err
		}()
		select {
		case <-half:
			return func() error {
				_ = w.CloseWithError(io.ErrUnexpectedEOF) // never fails
				return <-done
			}
		case err := <-done: // the node has just come back
			if !freshet.IsKind(err, freshet.KindUnavailable, freshet.KindDeadline) {
				t.Fatal(err)
			}
		}
	}
}
