// Package writers_test kills the processes that carry out a change at the moment
// in which the storage has, or has not yet, done its part. What the storage holds
// in the end must be known in both regions within seconds, and nothing be left
// behind.
package writers_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/test/e2e"
	"github.com/freshet-io/freshet/test/s3test"
)

func TestMain(m *testing.M) { e2e.Main(m) }

func TestWritersThatDie(t *testing.T) {
	w := e2e.NewS3World(t, e2e.Options{Mount: func(_ string, m *config.Mount) {
		m.Options["max_op_lifetime"], m.Options["request_timeout"] = "3s", "2s"
	}})
	for _, c := range []killed{
		{name: "small file, the effect lands after the death", op: "PutObject", size: 2000, lands: true},
		{name: "small file, the effect never lands", op: "PutObject", size: 2000},
		{name: "large file, killed in the middle of the upload", op: "UploadPart", after: 2, size: 20 << 20},
		{name: "large file, between the storage's commit and Complete", op: "CompleteMultipartUpload", size: 300_000, lands: true},
		{name: "large file, the commit never arrives", op: "CompleteMultipartUpload", size: 300_000},
		{name: "overwrite, between the storage's commit and Complete", op: "CompleteMultipartUpload", size: 300_000, old: true, lands: true},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, w) })
	}
	t.Run("a PUT that lands after a later one succeeded is published", func(t *testing.T) { zombie(t, w) })
	for _, c := range []operation{
		{name: "mkdir", op: "PutObject", run: mkdir, lands: []bool{true}},
		{name: "remove", op: "DeleteObject", run: remove, lands: []bool{true}},
		{name: "rename", op: "CopyObject", run: rename, lands: []bool{false}},
		{name: "rename of a directory", op: "CopyObject", after: 2, run: renameTree, lands: []bool{true, false}},
		{name: "recursive remove", op: "DeleteObjects", run: removeTree, lands: []bool{false}},
	} {
		for _, lands := range c.lands {
			t.Run(fmt.Sprintf("leader killed during %s, its request lands %v", c.name, lands), func(t *testing.T) { c.kill(t, w, lands) })
		}
	}
}

// killed is one death of the cache nodes during a write.
type killed struct {
	name  string
	op    string // of the storage, held when the nodes die
	after int    // of so many that are let through
	size  int
	old   bool // the file exists before
	lands bool // the held request takes effect after the death
}

func (c killed) run(t *testing.T, w *e2e.World) {
	name := fmt.Sprintf("killed-%s-%v-%v", c.op, c.old, c.lands)
	if c.old {
		if _, err := w.A.Write(t.Context(), name, e2e.Content(name, 1, c.size)); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []*e2e.Region{w.A, w.B} { // known, absent or at its old version
		_, _ = r.S.Stat(t.Context(), r.At(in(r, name)), freshet.ReadOptions{}) // either way
	}
	w.S3.AddFault(s3test.Rule{Op: c.op, KeyPrefix: "x/" + name, Action: s3test.ActionHold, Times: 1, After: c.after})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	held(t, w, ended, func() { go func() { _, err := w.A.Write(ctx, name, e2e.Content(name, 2, c.size)); ended <- err }() })
	for _, p := range w.A.Nodes {
		must(t, p.Kill())
	}
	w.S3.ClearFaults()
	if c.lands {
		w.S3.Release(s3test.AllHeld)
	} else {
		w.S3.Discard(s3test.AllHeld)
	}
	begun := time.Now()
	for _, p := range w.A.Nodes {
		must(t, p.Start())
	}
	werr := <-ended
	if werr == nil && !c.lands {
		t.Error("the write was acknowledged, but never reached the storage")
	}
	must(t, w.A.AwaitReady(t.Context()))
	converged(t, w, begun)
	want := uint64(2)
	switch {
	case !c.lands && c.old:
		want = 1
	case !c.lands:
		want = 0
	}
	if freshet.IsKind(werr, freshet.KindUnavailable) && c.lands && !c.old {
		want = 0 // it was said that nothing was written
	}
	holds(t, w, name, want, c.size)
}

// held waits until the storage holds a request of what start starts, which tells
// ended its end. What was just killed and started again may refuse it at first.
func held(t *testing.T, w *e2e.World, ended chan error, start func()) {
	t.Helper()
	start()
	must(t, fleet.Poll(t.Context(), e2e.Patience, "a held request", func(context.Context) error {
		_, err := w.S3.Server.WaitHeld(1, 0)
		if err == nil {
			return nil
		}
		select {
		case err := <-ended:
			if !freshet.IsKind(err, freshet.KindUnavailable) {
				t.Fatalf("it ended before the storage was asked: %v", err)
			}
			t.Logf("it is done again: %v", err)
			start()
		default:
		}
		return err
	}))
}

func in(r *e2e.Region, name string) string { return ("x/" + name)[len(r.Prefix):] }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// converged waits until both regions are what the storage is, which must take
// seconds, not an operator.
func converged(t *testing.T, w *e2e.World, begun time.Time) {
	t.Helper()
	w.Converged(t)
	t.Logf("resolved and published everywhere after %s", time.Since(begun).Round(time.Millisecond))
}

// holds checks both regions for the version of a file, 0 for none.
func holds(t *testing.T, w *e2e.World, name string, version uint64, size int) {
	t.Helper()
	for _, r := range []*e2e.Region{w.A, w.B} {
		data, _, err := r.Read(t.Context(), in(r, name), e2e.After(freshet.Token{}))
		if version == 0 {
			if !freshet.IsKind(err, freshet.KindNotExist) {
				t.Errorf("%s in %s: %d bytes, %v; it should not exist", name, r.Name, len(data), err)
			}
			continue
		}
		if err != nil || len(data) != size {
			t.Errorf("%s in %s: %d bytes, %v", name, r.Name, len(data), err)
			continue
		}
		if v, err := e2e.VersionOf(name, 0, data); err != nil || v != version {
			t.Errorf("%s in %s: version %d, want %d: %v", name, r.Name, v, version, err)
		}
	}
}

// zombie holds a PUT until a later one has succeeded.
func zombie(t *testing.T, w *e2e.World) {
	const name, size = "zombie", 2000
	w.S3.AddFault(s3test.Rule{Op: "PutObject", KeyPrefix: "x/" + name, Action: s3test.ActionHold, Times: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	held(t, w, ended, func() { go func() { _, err := w.A.Write(ctx, name, e2e.Content(name, 1, size)); ended <- err }() })
	err := <-ended
	t.Logf("the write whose PUT hangs: %v", err)
	if _, err := w.A.Write(t.Context(), name, e2e.Content(name, 2, size)); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*e2e.Region{w.A, w.B} {
		err := fleet.Poll(t.Context(), e2e.Patience, "version 2", func(ctx context.Context) error {
			data, _, err := r.Read(ctx, in(r, name), e2e.After(freshet.Token{}))
			if err != nil {
				return err
			}
			if v, err := e2e.VersionOf(name, 0, data); err != nil || v != 2 {
				return fmt.Errorf("version %d: %w", v, err)
			}
			return nil
		})
		must(t, err)
	}
	w.S3.ClearFaults()
	done := w.S3.Release(s3test.AllHeld)
	if len(done) != 1 || done[0].Status != 200 {
		t.Fatalf("the late PUT: %+v", done)
	}
	begun := time.Now()
	converged(t, w, begun)
	holds(t, w, name, 1, size) // the storage's last word, seen everywhere
}

// operation is one that a coordinator carries out.
type operation struct {
	name  string
	op    string
	after int
	lands []bool // its held request does, after the leader was killed
	run   func(ctx context.Context, r *e2e.Region, dir string) error
}

func mkdir(ctx context.Context, r *e2e.Region, dir string) error {
	_, err := r.S.Mkdir(ctx, freshet.MkdirQuery{Path: r.At(dir + "/made")})
	return err
}

func remove(ctx context.Context, r *e2e.Region, dir string) error {
	_, err := r.S.Remove(ctx, freshet.RemoveQuery{Path: r.At(dir + "/d/f0")})
	return err
}

func rename(ctx context.Context, r *e2e.Region, dir string) error {
	_, err := r.S.Rename(ctx, freshet.RenameQuery{Path: r.At(dir + "/d/f0"), Target: r.At(dir + "/renamed")})
	return err
}

func renameTree(ctx context.Context, r *e2e.Region, dir string) error {
	_, err := r.S.Rename(ctx, freshet.RenameQuery{Path: r.At(dir + "/d"), Target: r.At(dir + "/moved")})
	return err
}

func removeTree(ctx context.Context, r *e2e.Region, dir string) error {
	_, err := r.S.Remove(ctx, freshet.RemoveQuery{Path: r.At(dir + "/d"), Recursive: true})
	return err
}

// kill kills A's leader while the operation's request is held.
func (o operation) kill(t *testing.T, w *e2e.World, lands bool) {
	dir := fmt.Sprintf("op-%.12s-%d-%v", o.name, o.after, lands)
	const files = 5
	for i := range files {
		if _, err := w.A.Write(t.Context(), fmt.Sprintf("%s/d/f%d", dir, i), e2e.Content(dir, uint64(i), 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.B.S.List(t.Context(), freshet.ListQuery{Path: w.B.At("x/" + dir), Recursive: true}); err != nil {
		t.Fatal(err)
	}
	rule := s3test.Rule{Op: o.op, Action: s3test.ActionHold, Times: 1, After: o.after}
	if o.op != "DeleteObjects" {
		rule.KeyPrefix = "x/" + dir
	}
	w.S3.AddFault(rule)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	held(t, w, ended, func() { go func() { ended <- o.run(ctx, w.A, dir) }() })
	leader, err := w.A.Leader(t.Context())
	must(t, err)
	must(t, leader.Kill())
	w.S3.ClearFaults()
	if lands {
		w.S3.Release(s3test.AllHeld)
	} else {
		w.S3.Discard(s3test.AllHeld)
	}
	begun := time.Now()
	must(t, leader.Start())
	oerr := <-ended
	t.Logf("the client was told: %v", oerr)
	must(t, w.A.AwaitReady(t.Context()))
	converged(t, w, begun)
	tree, err := w.Storage.Tree(t.Context(), "x/"+dir+"/")
	must(t, err)
	before, after := 0, 0
	for i := range files {
		if _, ok := tree[fmt.Sprintf("d/f%d", i)]; ok {
			before++
		}
		if _, ok := tree[fmt.Sprintf("moved/f%d", i)]; ok {
			after++
		}
	}
	switch o.name {
	case "rename of a directory":
		if before+after != files || before*after != 0 {
			t.Errorf("%d files at the old place and %d at the new one", before, after)
		}
		if oerr == nil && after != files {
			t.Errorf("it was acknowledged, and %d of %d files have moved", after, files)
		}
	case "rename":
		if _, ok := tree["renamed"]; ok == (before == files) || oerr == nil && !ok {
			t.Errorf("it is at the new place: %v; %d files at the old one; acknowledged: %v", ok, before, oerr == nil)
		}
	case "recursive remove":
		if oerr == nil && before != 0 {
			t.Errorf("it was acknowledged, and %d files are left", before)
		}
	case "remove":
		if oerr == nil && before != files-1 {
			t.Errorf("it was acknowledged, and %d files are left", before)
		}
	case "mkdir":
		if _, ok := tree["made"]; oerr == nil && !ok {
			t.Error("it was acknowledged and is not there")
		}
	}
}

// However long a storage may take effects of the dead, what it holds by the time
// that the death is noticed is published at once.
func TestWhatTheStorageHoldsIsPublishedWithinSeconds(t *testing.T) {
	w := e2e.NewS3World(t, e2e.Options{Coordinators: 1, Nodes: 1, Mount: func(_ string, m *config.Mount) { m.Options["max_op_lifetime"] = "10m" }})
	for _, c := range []struct {
		op      string
		size    int
		restart bool // of the node, before its death is noticed
	}{{"PutObject", 2000, true}, {"CompleteMultipartUpload", 300_000, false}} {
		t.Run(c.op, func(t *testing.T) {
			name := "at-once-" + c.op
			if _, err := w.A.Write(t.Context(), name, e2e.Content(name, 1, c.size)); err != nil {
				t.Fatal(err)
			}
			must(t, shows(t.Context(), w.B, name, 1))
			w.S3.AddFault(s3test.Rule{Op: c.op, KeyPrefix: "x/" + name, Action: s3test.ActionHold, Times: 1})
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			ended := make(chan error, 1)
			held(t, w, ended, func() { go func() { _, err := w.A.Write(ctx, name, e2e.Content(name, 2, c.size)); ended <- err }() })
			node := w.A.Nodes[0]
			must(t, node.Kill())
			w.S3.ClearFaults()
			w.S3.Release(s3test.AllHeld)
			begun := time.Now()
			if c.restart {
				must(t, node.Start())
			}
			err := fleet.Poll(t.Context(), 30*time.Second, "the new version in B", func(ctx context.Context) error { return shows(ctx, w.B, name, 2) })
			must(t, err)
			t.Logf("published %s after the death; the writer was told: %v", time.Since(begun).Round(time.Millisecond), <-ended)
			if !c.restart {
				must(t, node.Start())
			}
			must(t, w.A.AwaitReady(t.Context()))
		})
	}
}

// shows returns nil if the region serves that version of a file.
func shows(ctx context.Context, r *e2e.Region, name string, want uint64) error {
	data, _, err := r.Read(ctx, in(r, name), e2e.After(freshet.Token{}))
	if err != nil {
		return err
	}
	if v, err := e2e.VersionOf(name, 0, data); err != nil || v != want {
		return fmt.Errorf("version %d, want %d: %w", v, want, err)
	}
	return nil
}
