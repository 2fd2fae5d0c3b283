package cachenode_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode"
)

func TestRegistrationReportsAllAndLaterHeartbeatsChanges(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		if hb := b.leader.last(); !hb.Full || hb.Incarnation != 1 || hb.Capacity != 32<<20 || hb.Tier != "memory" || hb.Node.ID == "" {
			t.Errorf("registration: %+v", hb)
		}
		check(t, b.node.Ready())
		if _, err := b.write(b.ticket(1), random(150_000, 1)); err != nil {
			t.Fatal(err)
		}
		if hb := b.nextBeat(); hb.Full || len(hb.Added) != 2 || len(hb.Removed) != 0 || hb.Used == 0 || hb.Term != 2 {
			t.Errorf("after a write: %+v", hb)
		}
		if hb := b.nextBeat(); len(hb.Added) != 0 {
			t.Errorf("with nothing new: %+v", hb)
		}
		b.leader.set(func() { b.leader.reply.Free = []freshet.BlockID{{File: 1}} })
		b.nextBeat()
		if hb := b.nextBeat(); len(hb.Removed) != 1 || len(hb.Added) != 0 {
			t.Errorf("after a block was freed: %+v", hb)
		}
		b.leader.set(func() { b.leader.reply.NeedFull = true })
		b.nextBeat()
		if hb := b.leader.last(); !hb.Full || len(hb.Added) != 1 {
			t.Errorf("after a full report was asked for: %+v", hb)
		}
		for range 3 { // a leader that always asks does not get an endless stream of reports
			n := b.leader.count()
			b.leader.set(func() { b.leader.reply.NeedFull = true })
			b.nextBeat()
			if got := b.leader.count() - n; got > 2 {
				t.Errorf("%d heartbeats in a second", got)
			}
		}
		if got := b.metric("freshet_evictions_total"); got["freed"] != 1 {
			t.Errorf("evictions: %v", got)
		}
	})
}

func TestNewLeaderGetsAFullReportAtOnce(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		b.leader.set(func() { b.leader.reply.Term = 3 })
		if hb := b.nextBeat(); !hb.Full || hb.Term != 3 {
			t.Errorf("%+v", hb)
		}
		b.leader.set(func() { b.leader.reply.Term = 2 }) // a deposed one
		b.nextBeat()
		time.Sleep(3 * time.Second)
		wantKind(t, b.node.Ready(), freshet.KindUnavailable)
	})
}

// TestLeaseRunsFromTheSendingOfTheHeartbeat, not from its answer: the leader's
// clock started when the heartbeat arrived, at the earliest when it was sent.
func TestLeaseRunsFromTheSendingOfTheHeartbeat(t *testing.T) {
	t.Parallel()
	l := newLeader()
	l.slow = 2 * time.Second // of a lease of three
	bubble(t, settings{leader: l, opts: cachenode.Options{Heartbeat: time.Hour}}, func(t *testing.T, b *bed) {
		start := time.Now()
		wantKind(t, b.node.Ready(), freshet.KindUnavailable)
		time.Sleep(l.slow)
		synctest.Wait()
		check(t, b.node.Ready())
		time.Sleep(3*time.Second - time.Since(start))
		wantKind(t, b.node.Ready(), freshet.KindUnavailable)
	})
}

func TestChangesAreRepeatedUntilALeaderAnswers(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		_, err := b.write(b.ticket(1), random(150_000, 1))
		check(t, err)
		b.leader.set(func() { b.leader.down = true })
		for range 3 {
			if hb := b.nextBeat(); len(hb.Added) != 2 {
				t.Errorf("%+v", hb)
			}
		}
		wantKind(t, b.node.Ready(), freshet.KindUnavailable)
		b.blocks.Remove(freshet.BlockID{File: 1, Index: 1})
		b.leader.set(func() { b.leader.down = false })
		if hb := b.nextBeat(); len(hb.Added) != 1 || len(hb.Removed) != 1 {
			t.Errorf("%+v", hb)
		}
		check(t, b.node.Ready())
	})
}

func TestMountTableIsAppliedUntilItHolds(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		if b.mounts.applied() != 0 {
			t.Error("a table that has not changed was applied")
		}
		b.leader.set(func() {
			b.leader.reply.MountRevision, b.leader.reply.Mounts = 9, []freshet.Mount{{ID: 1}}
		})
		b.mounts.fail(freshet.Errorf(freshet.KindUnavailable, "open mount", "", "no credentials"))
		b.nextBeat()
		if hb := b.nextBeat(); hb.MountRevision != 0 || b.mounts.applied() < 2 {
			t.Errorf("a table that could not be applied counts as applied: %+v", hb)
		}
		b.mounts.fail(nil)
		b.nextBeat()
		n := b.mounts.applied()
		if hb := b.nextBeat(); hb.MountRevision != 9 || b.mounts.applied() != n {
			t.Errorf("%+v, applied %d times", hb, b.mounts.applied())
		}
	})
}

func TestRestartKeepsIdentityAndBlocks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, settings{dir: dir})
		data := random(250_000, 1)
		done, err := b.write(b.ticket(1), data)
		check(t, err)
		id, store := b.node.Node().ID, b.store
		b.stop()

		b = newBed(t, settings{dir: dir, store: store})
		if hb := b.leader.last(); hb.Incarnation != 2 || hb.Node.ID != id || !hb.Full || len(hb.Added) != 3 || len(hb.Active) != 0 {
			t.Errorf("registration after a restart: %+v", hb)
		}
		opens := store.Calls()["open"]
		got, origins := b.read(1, done)
		if string(got) != string(data) || len(origins) != 1 || origins[0] != freshet.OriginHit || store.Calls()["open"] != opens {
			t.Errorf("%d bytes from %v", len(got), origins)
		}
		b.stop()

		other := newLeader()
		other.reply.Cluster = uuid.UUID{8}
		b = newBed(t, settings{dir: dir, store: store, leader: other})
		if n := len(b.blocks.List()); n != 0 {
			t.Errorf("%d blocks of another cluster are kept", n)
		}
		if hb := b.nextBeat(); len(hb.Removed) != 3 {
			t.Errorf("%+v", hb)
		}
		b.stop()
	})
}

func TestIdentityFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := cachenode.OpenIdentity(dir)
	check(t, err)
	_, err = cachenode.OpenIdentity(dir)
	wantKind(t, err, freshet.KindConflict)
	check(t, first.SetCluster(uuid.UUID{3}))
	check(t, first.Close())
	second, err := cachenode.OpenIdentity(dir)
	check(t, err)
	if second.Node() != first.Node() || second.Incarnation() != 2 || second.Cluster() != (uuid.UUID{3}) {
		t.Errorf("%v %d %v", second.Node(), second.Incarnation(), second.Cluster())
	}
	check(t, second.Close())
	for _, bad := range []string{"", "{", `{"node":"x"}`} {
		check(t, os.WriteFile(dir+"/node.json", []byte(bad), 0o600))
		_, err = cachenode.OpenIdentity(dir)
		wantKind(t, err, freshet.KindCorrupt)
	}
}

func TestOnlyALeaderThatIsLostIsWarnedOf(t *testing.T) {
	t.Parallel()
	l := newLeader()
	l.down = true
	var out bytes.Buffer // read when the node is asleep
	log := slog.New(slog.NewTextHandler(&out, nil))
	bubble(t, settings{leader: l, log: log}, func(t *testing.T, b *bed) {
		said := func(level string, times int) {
			t.Helper()
			synctest.Wait()
			if n := strings.Count(out.String(), "level="+level+` msg="heartbeat failed`); n != times {
				t.Errorf("%d lines of level %s, want %d:\n%s", n, level, times, out.String())
			}
		}
		b.nextBeat()
		said("INFO", 1)
		said("WARN", 0)
		b.leader.set(func() { b.leader.down = false })
		b.nextBeat()
		b.leader.set(func() { b.leader.down = true })
		b.nextBeat()
		b.nextBeat()
		said("INFO", 1)
		said("WARN", 1)
	})
}

// TestADamagedBlockIsReported once, by the heartbeat that arrives; readers get the
// right bytes.
func TestADamagedBlockIsReported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bubble(t, settings{dir: dir}, func(t *testing.T, b *bed) {
		data := random(250_000, 1)
		done, err := b.write(b.ticket(1), data)
		check(t, err)
		b.nextBeat()
		check(t, filepath.WalkDir(filepath.Join(dir, "blocks"), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || filepath.Ext(path) == ".lock" {
				return err
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("not what was written"), 5000)
			return errors.Join(err, f.Close())
		}))
		b.leader.set(func() { b.leader.down = true })
		if got, _ := b.read(1, done); !bytes.Equal(got, data) {
			t.Fatal("wrong bytes were served")
		}
		b.nextBeat()
		b.leader.set(func() { b.leader.down = false })
		if hb := b.nextBeat(); len(hb.Damaged) != 3 || !slices.Contains(hb.Damaged, freshet.BlockID{File: 1, Index: 2}) {
			t.Errorf("damaged: %v", hb.Damaged)
		}
		if hb := b.nextBeat(); len(hb.Damaged) != 0 {
			t.Errorf("told again: %v", hb.Damaged)
		}
	})
}
