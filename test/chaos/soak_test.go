package chaos_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

// soakEnv says for how long TestSoak works; soakShort is its length without.
const (
	soakEnv   = "FRESHET_SOAK"
	soakShort = 20 * time.Second
)

// TestSoak lets two regions work for a long time while their coordinators are killed,
// stopped, restarted and made to hand over. All along, also in the middle of writes
// and of the return of a member, the states of a region's members are compared at
// one index of the log; and at the end nothing that was acknowledged is lost.
func TestSoak(t *testing.T) {
	length := soakShort
	if text := os.Getenv(soakEnv); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("%s: %v", soakEnv, err)
		}
		length = d
	}
	seed := number(t, seedEnv, 1)
	w := e2e.NewS3World(t, e2e.Options{})
	tr := &trial{t: t, w: w, rand: rand.New(rand.NewPCG(seed, 3)), begun: time.Now()} //nolint:gosec // repeatable on purpose
	t.Cleanup(tr.print)
	writers := tr.writers(seed)
	ended, stop := tr.work(writers)
	compared := tr.compareAlways()
	tr.load(20)
	rounds := 0
	for end := time.Now().Add(length); time.Now().Before(end) && !t.Failed(); rounds++ {
		f := soakFaults()[tr.rand.IntN(len(soakFaults()))]
		tr.say("%s", f.name)
		heal := f.begin(tr)
		tr.load(15)
		if heal != nil {
			heal()
		}
		tr.load(5)
		for _, r := range []*e2e.Region{w.A, w.B} {
			tr.must(r.AwaitReady(t.Context()))
			tr.must(tr.equalStates(r))
		}
	}
	busy, err := compared()
	tr.must(err)
	tr.finish(writers, ended, stop)
	t.Logf("%d faults; the states were compared %d times while there were writes", rounds, busy)
	if busy == 0 {
		t.Error("the states were never compared while there were writes")
	}
}

// soakFaults are those of coordinators; the others are those of TestNothingIsLost.
func soakFaults() []fault {
	return []fault{
		killLeader(0), killLeader(1), killFollower(0), killFollower(1), transfer(0), transfer(1), restartFollower(0), restartFollower(1),
		{"both leaders killed", killBoth},
		{"everything restarted", restartAll},
	}
}

// follower returns a running coordinator that does not lead, nil if there is none.
func (tr *trial) follower(cluster int) *fleet.Process {
	c := tr.w.Fleet.Clusters[cluster]
	leader, err := c.Leader(tr.t.Context())
	tr.must(err)
	for _, p := range c.Coordinators {
		if p != leader && p.Running() {
			return p
		}
	}
	return nil
}

func killFollower(cluster int) fault {
	return fault{fmt.Sprintf("follower of cluster %d killed", cluster), func(tr *trial) func() {
		p := tr.follower(cluster)
		if p == nil {
			return nil
		}
		tr.must(p.Kill())
		return func() { tr.must(p.Start()) }
	}}
}

func restartFollower(cluster int) fault {
	return fault{fmt.Sprintf("follower of cluster %d restarted in order", cluster), func(tr *trial) func() {
		p := tr.follower(cluster)
		if p == nil {
			return nil
		}
		tr.must(p.Stop(30 * time.Second))
		tr.must(p.Start())
		return nil
	}}
}

func transfer(cluster int) fault {
	return fault{fmt.Sprintf("leadership of cluster %d transferred", cluster), func(tr *trial) func() {
		r := []*e2e.Region{tr.w.A, tr.w.B}[cluster]
		ctx, cancel := context.WithTimeout(tr.t.Context(), 30*time.Second)
		defer cancel()
		if _, _, err := command(ctx, r, "cluster", "raft", "transfer-leader"); err != nil {
			tr.say("the transfer did not begin: %v", err) // there may be no leader at the moment
		}
		return nil
	}}
}

// command runs the command line for goroutines that may not end the test.
func command(ctx context.Context, r *e2e.Region, args ...string) (out string, code int, err error) {
	cmd := exec.CommandContext(ctx, e2e.Binary(), append([]string{"--addr", strings.Join(r.Clients, ",")}, args...)...) //nolint:gosec // the program under test
	cmd.WaitDelay = time.Second
	b, err := cmd.Output()
	return string(b), cmd.ProcessState.ExitCode(), err
}

// compare compares the states of a region's members once. It returns an error that
// wraps errDiffer if they differ, and another if they could not be compared.
func compare(ctx context.Context, r *e2e.Region) (index uint64, err error) {
	out, code, err := command(ctx, r, "cluster", "state-hash", "-o", "json", "--timeout", "20s")
	if code == freshet.ExitUnhealthy {
		return 0, fmt.Errorf("%w: %s: %s", errDiffer, r.Name, out)
	}
	if err != nil {
		return 0, err
	}
	var h struct {
		Equal   bool
		Members []struct {
			Index uint64 `json:"index,string"`
		}
	}
	if err := json.Unmarshal([]byte(out), &h); err != nil || !h.Equal || len(h.Members) != 3 {
		return 0, fmt.Errorf("%w: %s: %s", errDiffer, r.Name, out)
	}
	return h.Members[0].Index, nil
}

var errDiffer = errors.New("the members have different states")

// equalStates waits until the members of a region could be compared.
func (tr *trial) equalStates(r *e2e.Region) error {
	var differ error
	err := fleet.Poll(tr.t.Context(), e2e.Patience, "equal states in "+r.Name, func(ctx context.Context) error {
		_, err := compare(ctx, r)
		if errors.Is(err, errDiffer) {
			differ = err
			return nil
		}
		return err
	})
	if differ != nil {
		return differ
	}
	return err
}

// compareAlways compares the states again and again until its result is called, which
// returns how often that succeeded.
func (tr *trial) compareAlways() (result func() (int, error)) {
	ctx, cancel := context.WithCancel(tr.t.Context())
	type outcome struct {
		times int
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		pause := time.NewTicker(500 * time.Millisecond)
		defer pause.Stop()
		for ctx.Err() == nil && o.err == nil {
			for _, r := range []*e2e.Region{tr.w.A, tr.w.B} {
				switch _, err := compare(ctx, r); {
				case errors.Is(err, errDiffer):
					o.err = err
				case err == nil:
					o.times++
				}
			}
			select {
			case <-pause.C:
			case <-ctx.Done():
			}
		}
		done <- o
	}()
	return func() (int, error) {
		cancel()
		o := <-done
		return o.times, o.err
	}
}
