// Package bus_test cuts the ways between two regions one by one and looks at what
// the regions show and say.
package bus_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }

func TestTheWaysBetweenRegions(t *testing.T) {
	w := e2e.NewDirWorld(t, e2e.Options{Nodes: 1})
	for _, c := range []struct {
		name string
		test func(t *testing.T, w *e2e.World)
	}{
		{"chmod evicts nothing", chmod},
		{"the stream carries alone", streamAlone},
		{"frames mark while streams are cut", framesMark},
		{"a partition is said and healed", partition},
		{"an epoch that was bumped", bumped},
		{"everything restarted", restarted},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, w) })
		if t.Failed() {
			return // what follows would only repeat it
		}
	}
	w.Converged(t)
}

func put(t *testing.T, r *e2e.Region, name string, data []byte) freshet.Completed {
	t.Helper()
	done, err := r.Write(t.Context(), name, data)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// seen waits until the region shows the bytes and returns how long that took.
func seen(t *testing.T, r *e2e.Region, name string, data []byte, limit time.Duration) time.Duration {
	t.Helper()
	begun := time.Now()
	err := fleet.Poll(t.Context(), limit, name+" in "+r.Name, func(ctx context.Context) error {
		got, _, err := r.Read(ctx, name, client.Whole())
		if err == nil && !bytes.Equal(got, data) {
			err = fmt.Errorf("%d other bytes", len(got))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return time.Since(begun)
}

// source reads a file and returns where its first block came from.
func source(t *testing.T, r *e2e.Region, name string) string {
	t.Helper()
	f, err := r.S.Files.Open(t.Context(), r.At(name), client.Whole())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(io.Discard, f); err != nil {
		t.Fatal(err)
	}
	return f.From()
}

func chmod(t *testing.T, w *e2e.World) {
	data := e2e.Content("mode", 1, 100_000)
	put(t, w.A, "mode", data)
	seen(t, w.B, "mode", data, e2e.Patience)
	e2e.AwaitCached(t, w.B, "mode", int64(len(data)))
	if from := source(t, w.B, "mode"); from != "hit" {
		t.Fatalf("warm read came from %q", from)
	}
	for _, mode := range []uint32{0o640, 0o600} {
		if _, err := w.A.S.SetAttr(t.Context(), freshet.SetAttrQuery{Path: w.A.At("mode"), Mode: &mode}); err != nil {
			t.Fatal(err)
		}
		err := fleet.Poll(t.Context(), e2e.Patience, "the mode in B", func(ctx context.Context) error {
			st, err := w.B.S.Stat(ctx, w.B.At("mode"), freshet.ReadOptions{})
			if err == nil && st.Info.Mode&0o777 != mode {
				err = fmt.Errorf("mode %o, want %o", st.Info.Mode, mode)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if from := source(t, w.B, "mode"); from != "hit" {
			t.Errorf("after chmod %o the bytes came from %q: blocks were evicted", mode, from)
		}
	}
}

func gossip(w *e2e.World, f func(*fleet.Relay)) {
	for _, c := range w.Fleet.Clusters {
		for _, r := range c.Gossip {
			f(r)
		}
	}
}

func streams(w *e2e.World, f func(*fleet.Relay)) {
	for _, c := range w.Fleet.Clusters {
		for _, r := range c.Streams {
			f(r)
		}
	}
}

// streamAlone loses a third, then all of the datagrams, then all gossip.
func streamAlone(t *testing.T, w *e2e.World) {
	put(t, w.A, "alone", e2e.Content("alone", 0, 5000))
	seen(t, w.B, "alone", e2e.Content("alone", 0, 5000), e2e.Patience)
	version := uint64(0)
	for _, c := range []struct {
		name      string
		begin     func(r *fleet.Relay)
		overwrite int
	}{
		{"30% of datagrams lost", func(r *fleet.Relay) { r.Disturb(fleet.Datagrams{Drop: 0.3}, 1) }, 10},
		{"all datagrams lost", func(r *fleet.Relay) { r.Disturb(fleet.Datagrams{Drop: 1}, 1) }, 10},
		{"no gossip at all", func(r *fleet.Relay) { r.Cut() }, 10},
	} {
		gossip(w, c.begin)
		var worst time.Duration
		for range c.overwrite {
			version++
			data := e2e.Content("alone", version, 5000)
			put(t, w.A, "alone", data)
			worst = max(worst, seen(t, w.B, "alone", data, 20*time.Second))
		}
		t.Logf("%s: %d overwrites, each seen within %s", c.name, c.overwrite, worst.Round(time.Millisecond))
	}
	gossip(w, func(r *fleet.Relay) { r.Heal(); r.Disturb(fleet.Datagrams{}, 0) })
}

// degraded waits until the region's mount and explain say whether changes of the
// other region may be missing.
func degraded(t *testing.T, r *e2e.Region, name string, want bool) (took time.Duration, reason string) {
	t.Helper()
	begun := time.Now()
	err := fleet.Poll(t.Context(), e2e.Patience, fmt.Sprintf("degraded %v in %s", want, r.Name), func(ctx context.Context) error {
		all, _, err := r.S.Mounts(ctx, "")
		if err != nil {
			return err
		}
		x, err := r.S.Explain(ctx, r.At(name), false)
		if err != nil {
			return err
		}
		if len(all) != 1 || all[0].Degraded != want || x.Freshness.Degraded != want {
			return fmt.Errorf("mount ls says %v (%s), explain says %v", all[0].Degraded, all[0].DegradedReason, x.Freshness.Degraded)
		}
		reason = all[0].DegradedReason
		if want && (reason == "" || x.Freshness.DegradedReason == "") {
			return fmt.Errorf("no reason: %q, %q", reason, x.Freshness.DegradedReason)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return time.Since(begun), reason
}

// framesMark cuts the streams: frames alone make B look at the storage, and B
// says that it can't know all.
func framesMark(t *testing.T, w *e2e.World) {
	old, data := e2e.Content("frames", 1, 5000), e2e.Content("frames", 2, 5000)
	put(t, w.A, "frames", old)
	seen(t, w.B, "frames", old, e2e.Patience)
	streams(w, (*fleet.Relay).Cut)
	put(t, w.A, "frames", data)
	// Without a frame B would serve the old bytes for a minute at least, its
	// degraded interval.
	t.Logf("seen by frames after %s", seen(t, w.B, "frames", data, 30*time.Second).Round(time.Millisecond))
	took, reason := degraded(t, w.B, "frames", true)
	t.Logf("said to be degraded after another %s: %s", took.Round(time.Millisecond), reason)
	w.B.CLI(t, "mount", "ls").Want(t, 0, "DEGRADED")
	w.B.CLI(t, "explain", string(w.B.At("frames"))).Want(t, 0, "degraded", reason)
	w.B.CLI(t, "peers", "status").Want(t, freshet.ExitUnhealthy, "degraded")
	streams(w, (*fleet.Relay).Heal)
	took, _ = degraded(t, w.B, "frames", false)
	t.Logf("in order again %s after the repair", took.Round(time.Millisecond))
	w.AwaitBus(t)
	w.B.CLI(t, "peers", "status").Want(t, 0, "synced")
}

// partition cuts everything while A changes everything.
func partition(t *testing.T, w *e2e.World) {
	for i := range 6 {
		put(t, w.A, fmt.Sprintf("part/f%d", i), e2e.Content("part", uint64(i), 3000))
	}
	put(t, w.A, "hot", []byte("before"))
	seen(t, w.B, "hot", []byte("before"), e2e.Patience)
	for i := range 6 {
		seen(t, w.B, fmt.Sprintf("part/f%d", i), e2e.Content("part", uint64(i), 3000), e2e.Patience)
	}
	w.A.Cut()
	w.B.Cut()
	took, reason := degraded(t, w.B, "hot", true)
	t.Logf("degraded %s after the cut: %s", took.Round(time.Millisecond), reason)
	done := put(t, w.A, "hot", []byte("during"))
	put(t, w.A, "part/f0", e2e.Content("part", 100, 3000))
	if _, err := w.A.S.Remove(t.Context(), freshet.RemoveQuery{Path: w.A.At("part/f1")}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.A.S.Rename(t.Context(), freshet.RenameQuery{Path: w.A.At("part/f2"), Target: w.A.At("part/g2")}); err != nil {
		t.Fatal(err)
	}
	put(t, w.B, "part/f3", []byte("B writes too"))
	// A token can't be honoured now, and is not ignored.
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if got, _, err := w.B.Read(ctx, "hot", e2e.After(done.Token)); !freshet.IsKind(err, freshet.KindUnavailable, freshet.KindDeadline) {
		t.Errorf("a read after a token that can't be known: %q, %v", got, err)
	}
	// While it is degraded, its own interval finds changes.
	one := freshet.Interval(time.Second)
	if _, err := w.B.S.UpdateMount(t.Context(), freshet.MountChange{Path: w.B.Root, DegradedInterval: &one}); err != nil {
		t.Fatal(err)
	}
	t.Logf("found by the degraded interval of 1s after %s", seen(t, w.B, "hot", []byte("during"), 30*time.Second).Round(time.Millisecond))
	w.A.Heal()
	w.B.Heal()
	degraded(t, w.B, "hot", false)
	got, _, err := w.B.Read(t.Context(), "hot", e2e.After(done.Token))
	if err != nil || string(got) != "during" {
		t.Errorf("after the repair: %q, %v", got, err)
	}
	w.Converged(t)
}

// bumped gives A a new epoch, as after a restore, while nobody hears of it: B must
// begin anew with it, and keeps the bytes that have not changed.
func bumped(t *testing.T, w *e2e.World) {
	same := e2e.Content("same", 1, 300_000)
	put(t, w.A, "same", same)
	put(t, w.A, "changes", []byte("old"))
	seen(t, w.B, "same", same, e2e.Patience)
	e2e.AwaitCached(t, w.B, "same", int64(len(same)))
	seen(t, w.B, "changes", []byte("old"), e2e.Patience)
	w.A.Cut()
	w.B.Cut()
	w.A.CLI(t, "cluster", "bump-epoch").Want(t, 0)
	put(t, w.A, "changes", []byte("new"))
	w.A.Heal()
	w.B.Heal()
	w.AwaitBus(t)
	seen(t, w.B, "changes", []byte("new"), 10*time.Second)
	if from := source(t, w.B, "same"); from != "hit" {
		t.Errorf("after a reset the bytes of an unchanged file came from %q", from)
	}
	peers, err := w.B.S.Peers(t.Context())
	if err != nil || len(peers) != 1 || len(peers[0].Domains) != 1 {
		t.Fatalf("%+v, %v", peers, err)
	}
	if d := peers[0].Domains[0]; d.LastReset.IsZero() || d.ResetReason == "" {
		t.Errorf("the reset is not told: %+v", d)
	}
}

// restarted kills all processes; what was cached on disk is there again.
func restarted(t *testing.T, w *e2e.World) {
	data := e2e.Content("kept", 1, 200_000)
	put(t, w.A, "kept", data)
	seen(t, w.B, "kept", data, e2e.Patience)
	e2e.AwaitCached(t, w.B, "kept", int64(len(data)))
	for _, c := range w.Fleet.Clusters {
		for _, p := range c.Processes() {
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range w.Fleet.Clusters {
		for _, p := range c.Processes() {
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range w.Fleet.Clusters {
		if err := c.AwaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.AwaitBus(t)
	if from := source(t, w.B, "kept"); from != "hit" {
		t.Errorf("after the restart the bytes came from %q, not from the node's disk", from)
	}
	put(t, w.A, "kept", e2e.Content("kept", 2, 200_000))
	seen(t, w.B, "kept", e2e.Content("kept", 2, 200_000), e2e.Patience)
}
