package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet/cmd/freshet/cli"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/config"
)

// build makes the binary.
func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "freshet")
	c := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "github.com/freshet-io/freshet/cmd/freshet")
	c.Env = append(c.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// operator runs the command line against a cluster.
func operator(ctx context.Context, addrs []string, args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = cli.Run(ctx, append(args, "--addr", strings.Join(addrs, ",")), cli.Streams{In: strings.NewReader(""), Out: &o, Err: &e}, nil)
	return code, o.String(), e.String()
}

func clusters(t *testing.T, specs ...fleet.ClusterSpec) *fleet.Fleet {
	t.Helper()
	f, err := fleet.Build(t.Context(), fleet.Spec{Binary: build(t), Dir: t.TempDir(), Clusters: specs, LogLevel: "warn"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

func await(t *testing.T, what string, f func(ctx context.Context) error) {
	t.Helper()
	if err := fleet.Poll(t.Context(), 40*time.Second, what, f); err != nil {
		t.Fatal(err)
	}
}

// members returns the members that a cluster shows, and its leader.
func members(ctx context.Context, addrs []string) (ids []string, leader string, err error) {
	code, out, errOut := operator(ctx, addrs, "cluster", "raft", "list-peers", "-o", "json", "--timeout", "20s")
	var r struct {
		Leader  string
		Members []struct {
			ID, Raft, Grpc string
			Voter          bool
		}
	}
	if code != 0 {
		return nil, "", fmt.Errorf("exit %d: %s", code, errOut)
	}
	err = json.Unmarshal([]byte(out), &r)
	for _, m := range r.Members {
		if m.Voter {
			ids = append(ids, m.ID)
		}
	}
	slices.Sort(ids)
	return ids, r.Leader, err
}

func status(ctx context.Context, url string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func TestOperatorsChangeTheMembersOfACluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	storage := t.TempDir()
	c := clusters(t, fleet.ClusterSpec{
		Name: "eu", Coordinators: 3, Nodes: 1, Alone: true,
		Mounts: []config.Mount{{Path: "/", UFS: "file://" + storage}},
	}).Clusters[0]
	ctx := t.Context()

	_, old, err := members(ctx, c.Clients)
	if err != nil {
		t.Fatal(err)
	}
	next := "c1"
	if old == "c1" {
		next = "c2"
	}
	if code, _, text := operator(ctx, c.Clients, "cluster", "raft", "transfer-leader", next); code != 0 {
		t.Fatalf("transfer: exit %d, %s", code, text)
	}
	await(t, next+" to lead", func(ctx context.Context) error {
		_, leader, err := members(ctx, c.Clients)
		if err == nil && leader != next {
			err = fmt.Errorf("%s leads", leader)
		}
		return err
	})

	if code, _, text := operator(ctx, c.Clients, "cluster", "raft", "remove", "c9"); code != 3 {
		t.Errorf("removing a stranger: exit %d, %s", code, text)
	}
	if code, _, text := operator(ctx, c.Clients, "cluster", "raft", "remove", old, "--dry-run"); code != 0 {
		t.Errorf("dry run: exit %d, %s", code, text)
	}
	if ids, _, err := members(ctx, c.Clients); err != nil || len(ids) != 3 {
		t.Fatalf("after the dry run: %v, %v", ids, err)
	}
	// A member that runs is taken in again by itself: stop it first, as one does.
	i := slices.Index([]string{"c1", "c2", "c3"}, old)
	if err := c.Coordinators[i].Stop(15 * time.Second); err != nil {
		t.Logf("stop %s: %v", old, err)
	}
	if code, _, text := operator(ctx, c.Clients, "cluster", "raft", "remove", old); code != 0 {
		t.Fatalf("remove: exit %d, %s", code, text)
	}
	if ids, _, err := members(ctx, c.Clients); err != nil || len(ids) != 2 || slices.Contains(ids, old) {
		t.Errorf("after the removal: %v, %v", ids, err)
	}
	raft := "127.0.0.1:1"
	if code, _, text := operator(ctx, c.Clients, "cluster", "raft", "add", old, "--raft", raft, "--cluster", "mars"); code != 4 {
		t.Errorf("adding to another cluster: exit %d, %s", code, text)
	}

	// Two members are left; without one of them nothing is ready.
	for j, p := range c.Coordinators {
		if j != i && fmt.Sprintf("c%d", j+1) != next {
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	leader := c.HTTP[slices.Index([]string{"c1", "c2", "c3"}, next)]
	await(t, "the rest to see that it has no majority", func(ctx context.Context) error {
		if got := status(ctx, "http://"+leader+"/readyz"); got != http.StatusServiceUnavailable {
			return fmt.Errorf("readyz answers %d", got)
		}
		return nil
	})
	if got := status(ctx, "http://"+leader+"/healthz"); got != http.StatusOK {
		t.Errorf("healthz answers %d: a supervisor would kill it", got)
	}
}

func TestAMemberThatWaitsForTheOthersIsAliveButNotReady(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	f, err := fleet.Build(t.Context(), fleet.Spec{Binary: build(t), Dir: t.TempDir(), LogLevel: "warn", Clusters: []fleet.ClusterSpec{{Name: "eu", Coordinators: 3, Alone: true}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	c := f.Clusters[0]
	if err := c.Coordinators[0].Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "the first member to answer", func(ctx context.Context) error {
		if got := status(ctx, "http://"+c.HTTP[0]+"/healthz"); got != http.StatusOK {
			return fmt.Errorf("healthz answers %d", got)
		}
		return nil
	})
	for path, want := range map[string]int{"/readyz": 503, "/v1/status?path=/": 503} {
		if got := status(t.Context(), "http://"+c.HTTP[0]+path); got != want {
			t.Errorf("%s answers %d, want %d", path, got, want)
		}
	}
	if code, _, text := operator(t.Context(), c.Clients[:1], "fs", "ls", "/", "--timeout", "2s"); code == 0 {
		t.Errorf("ls worked: %s", text)
	}
	for _, p := range c.Coordinators[1:] {
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "all to be ready, followers too", func(ctx context.Context) error {
		for _, addr := range c.HTTP {
			if got := status(ctx, "http://"+addr+"/readyz"); got != http.StatusOK {
				return fmt.Errorf("%s answers %d", addr, got)
			}
		}
		return nil
	})
}

func TestPeersComeAndGo(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	mounts := []config.Mount{{Path: "/", UFS: "file://" + t.TempDir()}}
	f := clusters(t,
		fleet.ClusterSpec{Name: "eu", Coordinators: 1, Mounts: mounts}, fleet.ClusterSpec{Name: "us", Coordinators: 1, Mounts: mounts},
		fleet.ClusterSpec{Name: "hermit", Coordinators: 1, Mounts: mounts, Alone: true})
	eu, us, hermit := f.Clusters[0], f.Clusters[1], f.Clusters[2]
	connected := func(ctx context.Context) error {
		code, out, text := operator(ctx, eu.Clients, "peers", "ls", "--timeout", "3s")
		if code != 0 || !strings.Contains(out, "us") || !strings.Contains(out, "connected") {
			return fmt.Errorf("exit %d: %s%s", code, out, text)
		}
		return nil
	}
	await(t, "us to be connected", connected)
	if code, out, text := operator(t.Context(), eu.Clients, "peers", "status", "us", "-o", "json"); code != 0 || !json.Valid([]byte(out)) {
		t.Errorf("status: exit %d, %s%s", code, out, text)
	}
	if code, _, text := operator(t.Context(), hermit.Clients, "peers", "ls"); code != 1 || !strings.Contains(text, "cross_cluster") {
		t.Errorf("without a bus: exit %d, %s", code, text)
	}
	if code, _, text := operator(t.Context(), eu.Clients, "peers", "leave", "mars"); code != 3 {
		t.Errorf("forgetting a stranger: exit %d, %s", code, text)
	}
	if err := us.Coordinators[0].Stop(15 * time.Second); err != nil {
		t.Logf("stop us: %v", err)
	}
	await(t, "us to be forgotten", func(ctx context.Context) error {
		if code, _, text := operator(ctx, eu.Clients, "peers", "leave", "us", "--timeout", "5s"); code != 0 && code != 3 {
			return fmt.Errorf("exit %d: %s", code, text)
		}
		return nil
	})
}
