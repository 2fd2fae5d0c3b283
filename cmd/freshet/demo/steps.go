package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/ufs"
)

func (t *tour) readCrossRegion(ctx context.Context) error {
	const content = "hello from eu-west\n"
	begun := time.Now()
	if err := write(ctx, t.sa, mountA.Join("hello.txt"), content); err != nil {
		return err
	}
	t.point("written through %s as %s, acknowledged after %s", nameA, mountA.Join("hello.txt"), ms(time.Since(begun)))
	for _, want := range []struct{ name, from string }{{"cold", "ufs"}, {"hot", "hit"}} {
		begun = time.Now()
		got, from, err := read(ctx, t.sb, mountB.Join("hello.txt"))
		switch {
		case err != nil:
			return err
		case got != content:
			return fmt.Errorf("%s read %q", nameB, got)
		case from != want.from:
			return fmt.Errorf("the %s read came from %q instead of %q", want.name, from, want.from)
		}
		t.point("%s read in %s as %s: %s, bytes from %s", want.name, nameB, mountB.Join("hello.txt"), ms(time.Since(begun)), source(from))
		if err := t.sb.AwaitCached(ctx, mountB.Join("hello.txt"), int64(len(content)), settle); err != nil {
			return err
		}
	}
	return nil
}

func source(from string) string {
	return map[string]string{"ufs": "the storage", "hit": "the cache node's own tier", "remote": "another cache node"}[from]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// overwrites measures from the acknowledgement in A to the first read in B that
// gives the new bytes. B polls as fast as it can.
func (t *tour) overwrites(ctx context.Context) error {
	pa, pb := mountA.Join("counter.txt"), mountB.Join("counter.txt")
	if err := write(ctx, t.sa, pa, "round 0\n"); err != nil {
		return err
	}
	if _, err := t.awaitContent(ctx, t.sb, pb, "round 0\n"); err != nil {
		return err
	}
	before, err := t.applied(ctx)
	if err != nil {
		return err
	}
	delays := make([]time.Duration, 0, t.Rounds)
	for i := 1; i <= t.Rounds; i++ {
		want := "round " + strconv.Itoa(i) + "\n"
		if err := write(ctx, t.sa, pa, want); err != nil {
			return err
		}
		acked := time.Now()
		seen, err := t.awaitContent(ctx, t.sb, pb, want)
		if err != nil {
			return err
		}
		delays = append(delays, seen.Sub(acked))
	}
	// The last bytes may have been seen because of a gossiped notice: the record of
	// the change, which is what is counted, comes beside it.
	var after uint64
	if err := fleet.Poll(ctx, settle, nameB+" to have applied all changes", func(ctx context.Context) error {
		var err error
		after, err = t.applied(ctx)
		if err == nil && after < before+uint64(t.Rounds) {
			err = fmt.Errorf("%s applied %d changes of %s in %d rounds: the new bytes were not seen because of invalidations", nameB, after-before, nameA, t.Rounds)
		}
		return err
	}); err != nil {
		return err
	}
	slices.Sort(delays)
	t.point("%d rounds, no sync interval and no poll of the storage: from the acknowledgement in %s to a fresh read in %s", t.Rounds, nameA, nameB)
	t.point("%s applied %d changes that %s published meanwhile", nameB, after-before, nameA)
	t.point("p50 %s, p99 %s, max %s", ms(delays[len(delays)/2]), ms(delays[len(delays)*99/100]), ms(delays[len(delays)-1]))
	return nil
}

// applied returns how many changes of A are known in B.
func (t *tour) applied(ctx context.Context) (uint64, error) {
	all, err := t.sb.Peers(ctx)
	if err != nil {
		return 0, err
	}
	var n uint64
	for _, p := range all {
		for _, d := range p.Domains {
			n += d.Applied
		}
	}
	return n, nil
}

// awaitContent reads until the content is want and returns when that was. Older
// content is fine until then; anything that was never written is not.
func (t *tour) awaitContent(ctx context.Context, s *fleet.Session, p freshet.Path, want string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for {
		got, _, err := read(ctx, s, p)
		if err == nil && got == want {
			return time.Now(), nil
		}
		if ctx.Err() != nil {
			return time.Time{}, fmt.Errorf("%s still gives %q instead of %q after %s (%w)", p, got, want, settle, errors.Join(err, ctx.Err()))
		}
		if err == nil && !strings.HasPrefix(got, strings.SplitN(want, " ", 2)[0]) {
			return time.Time{}, fmt.Errorf("%s gives %q, which nobody wrote", p, got)
		}
	}
}

func (t *tour) eviction(ctx context.Context) error {
	const size = 8 << 20
	pa, pb := mountA.Join("big.bin"), mountB.Join("big.bin")
	if err := write(ctx, t.sa, pa, strings.Repeat("1", size)); err != nil {
		return err
	}
	if _, _, err := read(ctx, t.sb, pb); err != nil {
		return err
	}
	held := func(ctx context.Context) (int64, error) {
		nodes, err := t.sb.Nodes(ctx)
		if err != nil {
			return 0, err
		}
		var used int64
		for _, n := range nodes {
			used += n.Used
		}
		return used, nil
	}
	if err := fleet.Poll(ctx, settle, "the block to be cached", func(ctx context.Context) error {
		used, err := held(ctx)
		if err == nil && used < size {
			err = fmt.Errorf("%d bytes cached", used)
		}
		return err
	}); err != nil {
		return err
	}
	before, err := held(ctx)
	if err != nil {
		return err
	}
	t.point("%s read %s and holds %.1f MiB of blocks", nameB, pb, float64(before)/(1<<20))
	if err := write(ctx, t.sa, pa, "2"); err != nil {
		return err
	}
	begun := time.Now()
	if err := fleet.Poll(ctx, settle, "the old blocks to be evicted", func(ctx context.Context) error {
		used, err := held(ctx)
		if err == nil && used > before-size {
			err = fmt.Errorf("%d bytes cached", used)
		}
		return err
	}); err != nil {
		return err
	}
	after, err := held(ctx)
	if err != nil {
		return err
	}
	t.point("after the overwrite in %s, before anyone in %s read it again: %.1f MiB, %s later (nodes report each second)",
		nameA, nameB, float64(after)/(1<<20), ms(time.Since(begun)))
	return nil
}

// interval is the sync interval of the step below, patience how much later a busy
// machine may find the change.
const interval, patience = 2 * time.Second, 10 * time.Second

func (t *tour) timeBased(ctx context.Context) error {
	key, pb := "direct/report.csv", mountB.Join("direct").Join("report.csv")
	if err := t.direct(ctx, key, "direct 1\n"); err != nil {
		return err
	}
	i := freshet.Interval(interval)
	if _, err := t.sb.SetPolicy(ctx, freshet.SyncPolicy{Path: mountB.Join("direct"), Interval: i, Origin: "operator"}, false); err != nil {
		return err
	}
	t.point("sync interval of %s in %s set to %s", mountB.Join("direct"), nameB, interval)
	// The interval counts from the start of the look, which lies between the two.
	begun := time.Now()
	if got, _, err := read(ctx, t.sb, pb); err != nil || got != "direct 1\n" {
		return fmt.Errorf("first read: %q, %w", got, err)
	}
	looked := time.Now()
	if err := t.direct(ctx, key, "direct 2\n"); err != nil {
		return err
	}
	got, _, err := read(ctx, t.sb, pb)
	switch {
	case err != nil:
		return err
	case got == "direct 1\n":
		t.point("changed in the storage behind Freshet's back; a read %s after the last check gives the cached version, as asked for", ms(time.Since(begun)))
	case time.Since(begun) < interval:
		return fmt.Errorf("the change was seen %s after the last check, before the interval was over", time.Since(begun))
	default:
		t.point("changed in the storage behind Freshet's back; that took so long that the interval was over")
	}
	seen, err := t.awaitContent(ctx, t.sb, pb, "direct 2\n")
	if err != nil {
		return err
	}
	age := seen.Sub(begun)
	if age < interval || seen.Sub(looked) > interval+patience {
		return fmt.Errorf("the change was found %s after the last check, with an interval of %s", age, interval)
	}
	t.point("found %s after the last check: the interval of %s, and one look at the storage", ms(age), interval)
	return nil
}

// direct writes to the storage without any cluster knowing.
func (t *tour) direct(ctx context.Context, key, content string) error {
	w, err := t.storage.Create(ctx, key, ufs.CreateOptions{Size: int64(len(content))})
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(content)); err != nil {
		return errors.Join(err, w.Abort(ctx))
	}
	_, err = w.Commit(ctx)
	return err
}

// files are the files that the steps below write, so many of each.
const files = 20

func part(dir string, i int) string { return fmt.Sprintf("%s-%02d.txt", dir, i) }

func (t *tour) partition(ctx context.Context) error {
	for i := range files {
		if err := write(ctx, t.sa, mountA.Join(part("part", i)), "part before\n"); err != nil {
			return err
		}
	}
	for i := range files {
		if _, err := t.awaitContent(ctx, t.sb, mountB.Join(part("part", i)), "part before\n"); err != nil {
			return err
		}
	}
	t.a.Cut()
	t.b.Cut()
	cut := time.Now()
	for i := range files {
		if err := write(ctx, t.sa, mountA.Join(part("part", i)), "part after\n"); err != nil {
			return err
		}
	}
	stale := 0
	for i := range files {
		got, _, err := read(ctx, t.sb, mountB.Join(part("part", i)))
		if err != nil {
			return err
		}
		if got == "part before\n" {
			stale++
		}
	}
	t.point("streams and gossip between the clusters cut; %d files overwritten in %s; %s still gives the old version of %d, for nobody can tell it", files, nameA, nameB, stale)
	if err := t.awaitDegraded(ctx, cut); err != nil {
		return err
	}
	t.a.Heal()
	t.b.Heal()
	healed := time.Now()
	for i := range files {
		if _, err := t.awaitContent(ctx, t.sb, mountB.Join(part("part", i)), "part after\n"); err != nil {
			return err
		}
	}
	if err := t.awaitPeers(ctx, t.sb); err != nil {
		return err
	}
	t.point("healed: all %d files are fresh in %s, and it follows %s again, after %s", files, nameB, nameA, ms(time.Since(healed)))
	return nil
}

// awaitDegraded waits until B says that it can't know of A's changes.
func (t *tour) awaitDegraded(ctx context.Context, cut time.Time) error {
	reason := ""
	err := fleet.Poll(ctx, settle, "the mount to be degraded", func(ctx context.Context) error {
		mounts, _, err := t.sb.Mounts(ctx, mountB)
		if err != nil {
			return err
		}
		if len(mounts) != 1 || !mounts[0].Degraded {
			return errors.New("it is not degraded")
		}
		reason = mounts[0].DegradedReason
		return nil
	})
	if err != nil {
		return err
	}
	t.point("%s says so after %s: mount DEGRADED (%s); its reads check with the storage every 5 s meanwhile", nameB, ms(time.Since(cut)), reason)
	return nil
}

func (t *tour) killLeaders(ctx context.Context) error {
	for _, c := range []*fleet.Cluster{t.a, t.b} {
		if err := t.killLeader(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// killLeader kills the leader of c with kill -9 while files are written through
// A, and checks that each acknowledged one reaches B.
func (t *tour) killLeader(ctx context.Context, c *fleet.Cluster) error {
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	prefix := "kill-" + c.Name
	var wg sync.WaitGroup
	var writeErr error
	half := make(chan struct{})
	wg.Go(func() {
		for i := range files {
			if i == files/2 {
				close(half)
			}
			if err := t.writeThroughFailover(ctx, mountA.Join(part(prefix, i)), prefix+" "+strconv.Itoa(i)+"\n"); err != nil {
				writeErr = err
				return
			}
		}
	})
	select {
	case <-half:
	case <-ctx.Done():
	}
	killed := time.Now()
	if err := leader.Kill(); err != nil {
		return err
	}
	if err := c.AwaitLeader(ctx, leader); err != nil {
		return err
	}
	took := time.Since(killed)
	wg.Wait()
	if writeErr != nil {
		return writeErr
	}
	for i := range files {
		if _, err := t.awaitContent(ctx, t.sb, mountB.Join(part(prefix, i)), prefix+" "+strconv.Itoa(i)+"\n"); err != nil {
			return err
		}
	}
	t.point("%s: leader %s killed (kill -9) amid %d writes; a new one answered %s later; every acknowledged write is in %s", c.Name, leader.Name, files, ms(took), nameB)
	return leader.Start()
}

// writeThroughFailover repeats a write that was not acknowledged, as a job would.
func (t *tour) writeThroughFailover(ctx context.Context, p freshet.Path, content string) error {
	return fleet.Poll(ctx, settle, "a write to be acknowledged", func(ctx context.Context) error {
		return write(ctx, t.sa, p, content)
	})
}
