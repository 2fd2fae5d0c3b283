// Package model_test holds a cluster of coordinators' states, replicated through the
// journal, to a simple model: after any history of commands, with leaders that are
// killed, isolated and replaced, logs that are truncated and members that are
// brought up by a copy in between, the leader shows exactly what was acknowledged
// and all members have the same state. Time is that of a synctest bubble.
package model_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/fingerprint"
)

// The seeds of make test; more by the variable that make chaos sets.
const (
	seedsEnv = "FRESHET_SIM_SEEDS"
	seeds    = 8
	steps    = 300
)

// TestStateEqualsModelThroughFailovers runs one history per seed.
func TestStateEqualsModelThroughFailovers(t *testing.T) {
	t.Parallel()
	n := seeds
	if text := os.Getenv(seedsEnv); text != "" {
		v, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("%s: %v", seedsEnv, err)
		}
		n = v
	}
	for seed := range uint64(n) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := &history{t: t, rand: rand.New(rand.NewPCG(seed, 7)), want: newModel()}
				h.cluster = newCluster(t)
				h.found()
				for range steps / 2 {
					h.step()
				}
				h.lag()
				for range steps / 2 {
					h.step()
				}
				h.settle()
				h.compare()
				t.Logf("%v, %d copies", h.did, h.dumps())
				if h.did["write"] == 0 || h.dumps() == 0 {
					t.Error("the history was too quiet")
				}
			})
		})
	}
}

// model is the whole of what the state should show.
type model struct {
	tree     map[string]int // length of a file, dir for a directory
	policies map[freshet.Path]freshet.Interval
	mounts   map[freshet.Path]bool
	records  uint64 // in the own log of the domain of /m
	epoch    uint64
}

const dir = -1

func newModel() *model {
	return &model{tree: map[string]int{}, policies: map[freshet.Path]freshet.Interval{}, mounts: map[freshet.Path]bool{"/m": true}, epoch: 1}
}

func keys() []string {
	return []string{"d", "e", "x", "ü y", "d/e", "d/x", "d/y", "e/x", "d/e/x", "d/e/ ~"}
}

func parents(key string) []string {
	var all []string
	for i, r := range key {
		if r == '/' {
			all = append(all, key[:i])
		}
	}
	return all
}

func below(key, dir string) bool { return strings.HasPrefix(key, dir+"/") }

// free reports whether key can be made.
func (m *model) free(key string) bool {
	if _, held := m.tree[key]; held {
		return false
	}
	for _, p := range parents(key) {
		if n, held := m.tree[p]; held && n != dir {
			return false
		}
	}
	return true
}

func (m *model) put(key string, n int) {
	for _, p := range parents(key) {
		m.tree[p] = dir
	}
	m.tree[key] = n
}

func (m *model) remove(key string) {
	maps.DeleteFunc(m.tree, func(k string, _ int) bool { return k == key || below(k, key) })
}

// history draws commands and keeps the model beside the cluster.
type history struct {
	*cluster
	t    *testing.T
	rand *rand.Rand
	want *model
	ops  uint64
	did  map[string]int
}

var (
	domain = freshet.DomainID{7}
	at     = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
)

func mount(p freshet.Path, d freshet.DomainID) freshet.Mount {
	return freshet.Mount{Path: p, URI: "s3://b", Domain: d, DomainKey: "/", Interval: freshet.Never, CreatedAt: at, Origin: "config"}
}

func (h *history) found() {
	h.did = map[string]int{}
	h.commit(namespace.Command{Bootstrap: &namespace.Bootstrap{
		Cluster: freshet.ClusterID{1}, Name: "eu", Epoch: 1, Mounts: []freshet.Mount{mount("/m", domain)}, At: at,
	}}, freshet.KindExist)
}

func (h *history) step() {
	key := keys()[h.rand.IntN(len(keys()))]
	held, there := h.want.tree[key]
	what := ""
	switch h.rand.IntN(20) {
	case 0, 1, 2, 3, 4, 5:
		if n := 1 + h.rand.IntN(100); h.want.free(key) || (there && held != dir) {
			what = "write"
			h.operate(namespace.OpWrite, key, "", file(n))
			h.want.put(key, n)
		}
	case 6, 7:
		if h.want.free(key) {
			what = "mkdir"
			h.operate(namespace.OpMkdir, key, "", &namespace.Entry{Type: freshet.TypeDirectory, ModTime: at})
			h.want.put(key, dir)
		}
	case 8, 9:
		if there {
			what = "remove"
			h.operate(namespace.OpRemove, key, "", nil)
			h.want.remove(key)
		}
	case 10, 11:
		to := keys()[h.rand.IntN(len(keys()))]
		if there && held != dir && h.want.free(to) && !below(to, key) {
			what = "rename"
			h.operate(namespace.OpRename, key, to, file(held))
			h.want.remove(key)
			h.want.put(to, held)
		}
	case 12:
		what = h.policy(path(key))
	case 13:
		what = h.mounting(freshet.Path([]string{"/n", "/o"}[h.rand.IntN(2)]))
	case 14:
		what = "mark"
		h.commit(namespace.Command{Mark: &namespace.Mark{Path: path(key), Recursive: h.rand.IntN(2) == 0}})
	case 15:
		what = "purge"
		h.commit(namespace.Command{Purge: &namespace.Purge{Limit: 1 + h.rand.IntN(3)}})
	case 16:
		what = h.fault()
	case 17:
		what = "compare"
		h.compare()
	default:
		what = "wait" // time for snapshots, and for members that lag
		time.Sleep(time.Duration(h.rand.IntN(3000)) * time.Millisecond)
	}
	h.did[what]++
}

func path(key string) freshet.Path { return freshet.Path("/m/" + key) }

func file(n int) *namespace.Entry {
	return &namespace.Entry{Length: int64(n), ModTime: at, Fingerprint: fingerprint.S3(fmt.Sprintf("%032x", n), int64(n))}
}

// operate is one operation whose effect the storage acknowledged.
func (h *history) operate(kind namespace.OpKind, key, to string, after *namespace.Entry) {
	h.t.Helper()
	h.ops++
	op := freshet.OpID{0: 1, 14: byte(h.ops >> 8), 15: byte(h.ops)}
	b := &namespace.Begin{Op: op, Kind: kind, Path: path(key), Recursive: kind == namespace.OpRemove, At: at}
	if to != "" {
		b.Path2 = path(to)
	}
	h.commit(namespace.Command{Begin: b})
	h.commit(namespace.Command{Complete: &namespace.Complete{Op: op, Entry: after, At: at}})
	h.want.records++
}

func (h *history) policy(p freshet.Path) string {
	if _, ok := h.want.policies[p]; ok {
		h.commit(namespace.Command{RemovePolicy: &namespace.RemovePolicy{Path: p}}, freshet.KindNotExist)
		delete(h.want.policies, p)
		return "remove policy"
	}
	every := freshet.Interval(h.rand.IntN(60)+1) * freshet.Interval(time.Second)
	h.commit(namespace.Command{SetPolicy: &namespace.Policy{Path: p, Interval: every, Origin: "operator", SetAt: at}})
	h.want.policies[p] = every
	return "set policy"
}

func (h *history) mounting(p freshet.Path) string {
	if h.want.mounts[p] {
		h.commit(namespace.Command{RemoveMount: &namespace.RemoveMount{Path: p}}, freshet.KindNotExist)
		delete(h.want.mounts, p)
		return "unmount"
	}
	h.commit(namespace.Command{AddMount: &namespace.AddMount{Mount: mount(p, freshet.DomainID{p[1]})}}, freshet.KindExist)
	h.want.mounts[p] = true
	return "mount"
}

// fault disturbs the cluster.
func (h *history) fault() string {
	m := h.members[h.rand.IntN(len(h.members))]
	switch h.rand.IntN(5) {
	case 0:
		h.kill(h.leader())
		return "kill"
	case 1:
		h.kill(m)
		return "kill"
	case 2:
		h.net.Isolate(m.id)
		time.Sleep(time.Duration(h.rand.IntN(5000)) * time.Millisecond)
		h.net.HealAll()
		return "isolate"
	case 3:
		if err := h.leader().j.TransferLeadership(h.t.Context(), ""); err != nil {
			h.t.Logf("transfer: %v", err)
		}
		return "transfer"
	default:
		if err := m.j.Snapshot(h.t.Context()); err != nil {
			h.t.Logf("snapshot: %v", err)
		}
		return "snapshot"
	}
}

// lag kills a follower and lets the others forget the part of the log that it lacks.
func (h *history) lag() {
	h.t.Helper()
	l := h.leader()
	var late *member
	for _, m := range h.members {
		if m != l {
			late = m
		}
	}
	h.die(late)
	for i := range 30 {
		h.operate(namespace.OpWrite, "late", "", file(i+1))
		h.want.put("late", i+1)
	}
	for _, m := range h.members {
		if m == late {
			continue
		}
		if err := m.j.Snapshot(h.t.Context()); err != nil {
			h.t.Errorf("snapshot of %s: %v", m.id, err)
		}
	}
	h.revive(late)
	h.settle()
}

// compare holds the leader's state to the model.
func (h *history) compare() {
	h.t.Helper()
	s := h.read()
	for _, key := range keys() {
		l, err := s.Lookup(path(key))
		if err != nil {
			h.t.Fatal(err)
		}
		n, there := h.want.tree[key]
		switch {
		case l.Found != there:
			h.t.Fatalf("%q: found is %t, want %t", key, l.Found, there)
		case there && (l.Info.Type == freshet.TypeDirectory) != (n == dir), there && n != dir && l.Info.Length != int64(n):
			h.t.Fatalf("%q is %s of %d, want %d", key, l.Info.Type, l.Info.Length, n)
		}
		h.compareNames(s, key)
	}
	got := map[freshet.Path]freshet.Interval{}
	for _, p := range s.Policies() {
		got[p.Path] = p.Interval
	}
	if !maps.Equal(got, h.want.policies) {
		h.t.Fatalf("policies %v, want %v", got, h.want.policies)
	}
	mounts, _ := s.Mounts()
	paths := map[freshet.Path]bool{}
	for _, m := range mounts {
		paths[m.Path] = true
	}
	if !maps.Equal(paths, h.want.mounts) {
		h.t.Fatalf("mounts %v, want %v", paths, h.want.mounts)
	}
	if head := s.Heads()[0]; head.Domain != domain || head.High != h.want.records {
		h.t.Fatalf("the log ends at %d, %d operations ended", head.High, h.want.records)
	}
	if id := s.Identity(); id.Epoch != h.want.epoch || id.Name != "eu" {
		h.t.Fatalf("%+v", id)
	}
}

func (h *history) compareNames(s *namespace.State, key string) {
	h.t.Helper()
	children, err := s.List(path(key), "", 0)
	if err != nil {
		h.t.Fatal(err)
	}
	var got, want []string
	for _, c := range children {
		got = append(got, c.Name)
	}
	for k := range h.want.tree {
		if rest, ok := strings.CutPrefix(k, key+"/"); ok && !strings.Contains(rest, "/") {
			want = append(want, rest)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		h.t.Fatalf("below %q are %q, want %q", key, got, want)
	}
}
