package coordinator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// A file that is visible before it is in the storage is refused until every member
// knows what that is.
func TestWritesThatStayOnNodesWaitForAllMembers(t *testing.T) {
	t.Parallel()
	var w *world
	older := namespace.VersionUnpersisted - 1
	inBubble(t, mixed(&w, &older), func(w *world) {
		time.Sleep(10 * time.Second) // fake time: all have announced themselves
		l, _ := w.inForce(older)
		if l.id == "c3" {
			if _, err := l.TransferLeadership(w.Context(), "c1"); err != nil {
				w.Fatal(err)
			}
			time.Sleep(10 * time.Second) // fake time
			l, _ = w.inForce(older)
		}
		for _, write := range []freshet.WriteType{freshet.MustCache, freshet.AsyncThrough} {
			_, err := l.BeginWrite(w.Context(), freshet.BeginWriteQuery{Path: "/data/f", Write: write})
			w.wantKind(err, freshet.KindUnsupported)
			if err != nil && !strings.Contains(err.Error(), "upgrade c3") {
				w.Errorf("the error does not say what to do: %v", err)
			}
		}
		_, err := l.ChangePolicy(w.Context(), policy("/data", "write_type", "must_cache"))
		w.wantKind(err, freshet.KindUnsupported)
	})
}

// TestWhatWasInMemoryAloneIsGone: nobody is told to bring back a node that came back
// without the bytes.
func TestWhatWasInMemoryAloneIsGone(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		l := w.leader()
		n := freshet.Node{ID: "n1", Name: "edge", GRPC: "edge:7410", HTTP: "edge:7411", Host: "edge"}
		h := freshet.Heartbeat{Node: n, Keeps: true}
		w.keptBy(l, "/data/f", freshet.MustCache, &h)
		says := func(what string) {
			w.Helper()
			_, err := l.Locate(w.Context(), freshet.LocateQuery{Path: "/data/f", Length: 3})
			w.wantKind(err, freshet.KindUnavailable)
			if err == nil || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), "bring back") {
				w.Errorf("got %v, want %q", err, what)
			}
			e, err := l.Explain(w.Context(), "/data/f", false)
			if err != nil || !strings.Contains(e.Remedy, "fs rm /data/f") || strings.Contains(e.Remedy, "bring back") {
				w.Errorf("explained: %q, %v", e.Remedy, err)
			}
		}
		time.Sleep(10 * time.Second)   // fake time: the node is silent
		h.Node.ID, h.Full = "n0", true // somebody lives
		h.Node.Name, h.Node.GRPC = "other", "other:7410"
		w.beat(l, h)
		says("in the memory of edge alone; unless it still runs")
		h.Node = n
		h.Node.ID = "n2"
		w.beat(l, h)
		says("in the memory of edge alone and are gone")
	})
}

// keptFile is a file that only one node has, a disk of it, and that node.
type keptFile struct {
	w      *world
	m      *member
	file   freshet.FileID
	beats  freshet.Heartbeat
	orders []freshet.PersistOrder // of the last answer
}

// keep has a node write a file that stays there.
func (w *world) keep(m *member, p freshet.Path, write freshet.WriteType) *keptFile {
	w.Helper()
	k := &keptFile{w: w, m: m, beats: freshet.Heartbeat{Node: freshet.Node{ID: "n1", Name: "edge", GRPC: "edge:7410", HTTP: "edge:7411", Host: "edge"}}}
	block := w.keptByDisks(m, p, write, &k.beats)
	k.file, k.beats.Full, k.beats.Added = block.ID.File, true, []freshet.BlockReport{block}
	return k
}

// beat reports what has ended, and all that the node holds.
func (k *keptFile) beat(ended ...freshet.FinishedOp) {
	k.w.Helper()
	k.beats.Finished = ended
	r := k.w.beat(k.m, k.beats)
	k.beats.Term, k.orders = r.Term, r.Persist
	for _, f := range ended {
		if !slices.Contains(r.Settled, f.Op) {
			k.w.Errorf("%+v was not settled", f)
		}
	}
}

// order lets time pass until the node is ordered to persist the file, and looks closely
// from soon on.
func (k *keptFile) order(soon time.Duration) freshet.PersistOrder {
	k.w.Helper()
	for from := time.Now(); len(k.orders) == 0; k.beat() {
		waited := time.Since(from)
		if waited > 10*time.Minute {
			k.w.Fatal("the file is not ordered to be persisted")
		}
		pause := 50 * time.Millisecond
		if waited+time.Second < soon {
			pause = time.Second
		}
		time.Sleep(pause) // fake time
	}
	if o := k.orders[0]; len(k.orders) != 1 || o.File != k.file || o.Length != 3 {
		k.w.Fatalf("the orders are %+v", k.orders)
	}
	return k.orders[0]
}

// told is what is said of the file, and the problems of the cluster.
func (k *keptFile) told() (u freshet.Unpersisted, problems string) {
	k.w.Helper()
	u, err := k.m.Unpersisted(k.w.Context(), freshet.UnpersistedQuery{Path: "/"})
	if err != nil {
		k.w.Fatal(err)
	}
	s, err := k.m.Cluster(k.w.Context())
	if err != nil {
		k.w.Fatal(err)
	}
	return u, strings.Join(s.Problems, "\n")
}

// TestPersistingIsTriedAgainAfterLongerPauses, as the node that was ordered to do it
// reports its failures; a conflict, which nobody but the user ends, only now and then.
func TestPersistingIsTriedAgainAfterLongerPauses(t *testing.T) {
	t.Parallel()
	const most = 5 * time.Minute
	type attempt struct {
		conflict bool
		pause    time.Duration
	}
	var failing []attempt
	for i := range 42 { // a pause that is doubled without end is negative by then
		failing = append(failing, attempt{pause: min(time.Second<<min(i, 20), most)})
	}
	for _, c := range []struct {
		name     string
		attempts []attempt
	}{
		{"failures", failing},
		{"a conflict", []attempt{{true, most}, {true, most}}},
		{"a conflict between failures", []attempt{{false, time.Second}, {true, most}, {false, 4 * time.Second}, {true, most}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, settings{}, func(w *world) {
				k := w.keep(w.leader(), "/data/f", freshet.AsyncThrough)
				o := k.order(0)
				for i, a := range c.attempts {
					failure := freshet.FinishedOp{Op: o.Op, Failure: "the storage refuses it", Conflict: a.conflict}
					at := time.Now()
					k.beat(failure)
					u, problems := k.told()
					state, conflicts := freshet.UnpersistedFailed, int64(0)
					if a.conflict {
						state, conflicts = freshet.UnpersistedConflict, 1
					}
					if f := u.Files[0]; f.State != state || f.Attempts != i+1 || f.Error != failure.Failure || u.Conflicts != conflicts || u.Failed != 1-conflicts {
						w.Errorf("after %d failures: %+v", i+1, u)
					}
					if strings.Contains(problems, "the storage holds other versions, 1 of them") != a.conflict {
						w.Errorf("after %d failures the problems are %q", i+1, problems)
					}
					if o = k.order(a.pause); time.Since(at) < a.pause || time.Since(at) > a.pause+time.Second {
						w.Errorf("after %d failures it was ordered again after %v, want %v", i+1, time.Since(at), a.pause)
					}
				}
			})
		})
	}
}

// TestAConflictWithAnotherWriteOfThisClusterIsNone: what the node came upon in the storage
// may be of that write, which has not ended, and replaces the file if it does.
func TestAConflictWithAnotherWriteOfThisClusterIsNone(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		m := w.leader()
		k := w.keep(m, "/data/f", freshet.AsyncThrough)
		o := k.order(0)
		a, err := m.BeginWrite(w.Context(), freshet.BeginWriteQuery{Path: "/data/f", Write: freshet.CacheThrough})
		if err != nil {
			w.Fatal(err)
		}
		k.beats.Active = []freshet.OpID{a.Ticket.Op}
		if err := m.Permit(w.Context(), freshet.PermitQuery{Op: a.Ticket.Op, Node: "n1", Incarnation: 1, Length: 3}); err != nil {
			w.Fatal(err)
		}
		at := time.Now()
		k.beat(freshet.FinishedOp{Op: o.Op, Failure: "the storage holds another version", Conflict: true})
		if u, problems := k.told(); u.Conflicts != 0 || u.Failed != 1 || strings.Contains(problems, "other versions") {
			w.Errorf("told: %+v, %q", u, problems)
		}
		if k.order(time.Second); time.Since(at) < time.Second || time.Since(at) > 2*time.Second {
			w.Errorf("it was ordered again after %v", time.Since(at))
		}
	})
}

// TestWhatWaitsForTheStorageTooLongIsTold by the metric and as a problem of the cluster,
// counted from when somebody wanted it in the storage.
func TestWhatWaitsForTheStorageTooLongIsTold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		write freshet.WriteType
		kept  time.Duration // before it was asked for
	}{
		{write: freshet.AsyncThrough},
		{write: freshet.MustCache, kept: 15 * time.Minute},
	} {
		t.Run(c.write.String(), func(t *testing.T) {
			t.Parallel()
			reg := prometheus.NewRegistry()
			inBubble(t, settings{metrics: reg}, func(w *world) {
				m := w.leader()
				k := w.keep(m, "/data/f", c.write)
				pass := func(d time.Duration) { // the storage takes nothing
					for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
						var ended []freshet.FinishedOp
						for _, o := range k.orders {
							ended = append(ended, freshet.FinishedOp{Op: o.Op, Failure: "the storage is away"})
						}
						k.beat(ended...)
					}
				}
				says := func(lag time.Duration, problem bool) {
					w.Helper()
					got := gauge(w, reg, "freshet_persist_lag_seconds")
					u, problems := k.told()
					if d := lag.Seconds() - got; d < 0 || d > 2 || (lag-u.Oldest).Abs() > 2*time.Second {
						w.Errorf("after %v the gauge is %v and the oldest waits for %v", lag, got, u.Oldest)
					}
					if strings.Contains(problems, "a file waits to be persisted since") != problem {
						w.Errorf("after %v the problems are %q", lag, problems)
					}
				}
				pass(c.kept)
				if c.write == freshet.MustCache {
					says(0, false)
					if _, err := m.Persist(w.Context(), freshet.PersistQuery{Path: "/data/f"}); err != nil {
						w.Fatal(err)
					}
				}
				from := time.Now()
				pass(9*time.Minute + 55*time.Second)
				says(time.Since(from), false)
				pass(10 * time.Second)
				says(time.Since(from), true)
				if n := gauge(w, reg, "freshet_persist_lag_seconds"); n < 600 {
					w.Errorf("the gauge is %v", n)
				}
				o := k.order(0)
				if err := m.Permit(w.Context(), freshet.PermitQuery{Op: o.Op, Node: "n1", Incarnation: 1, Length: 3}); err != nil {
					w.Fatal(err)
				}
				w.store.Put("f", []byte("abc"))
				st, err := w.store.FS("").Stat(w.Context(), "f")
				if err != nil {
					w.Fatal(err)
				}
				k.beat(freshet.FinishedOp{Op: o.Op, Written: &freshet.Written{Length: 3, ModTime: st.ModTime, Fingerprint: st.Fingerprint}})
				pass(2 * time.Second)
				says(0, false)
			})
		})
	}
}

// TestWhatAKeptFileIsWrittenOverIsLookedAt: two writes to the storage end in another order
// than they had there while a file that stays on its node is written.
func TestWhatAKeptFileIsWrittenOverIsLookedAt(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprint("the word that it is written is lost ", lost), func(t *testing.T) { testWrittenOver(t, lost) })
	}
}

func testWrittenOver(t *testing.T, lost bool) {
	inBubble(t, settings{}, func(w *world) {
		m := w.leader()
		k := w.keep(m, "/data/other", freshet.MustCache)
		begin := func(write freshet.WriteType) freshet.Ticket {
			a, err := m.BeginWrite(w.Context(), freshet.BeginWriteQuery{Path: "/data/f", Write: write, Node: "n1"})
			if err != nil {
				w.Fatal(err)
			}
			return a.Ticket
		}
		var through [2]freshet.OpID
		for i := range through {
			through[i] = begin(freshet.Through).Op
			k.beats.Active = append(k.beats.Active, through[i])
			if err := m.Permit(w.Context(), freshet.PermitQuery{Op: through[i], Node: "n1", Incarnation: 1, Length: 3}); err != nil {
				w.Fatal(err)
			}
		}
		kept := begin(freshet.AsyncThrough)
		var wrote [2]freshet.Written
		for i, data := range []string{"one", "two"} {
			w.store.Put("f", []byte(data))
			st, err := w.store.FS("").Stat(w.Context(), "f")
			if err != nil {
				w.Fatal(err)
			}
			wrote[i] = freshet.Written{Length: 3, ModTime: st.ModTime, Fingerprint: st.Fingerprint}
		}
		for _, i := range []int{1, 0} {
			if _, err := m.Complete(w.Context(), through[i], wrote[i]); err != nil {
				w.Fatal(err)
			}
		}
		done := freshet.Written{Length: 3, ModTime: time.Now()}
		k.file, k.beats.Active, k.beats.Full = kept.File, nil, true
		k.beats.Added = append(k.beats.Added, freshet.BlockReport{ID: freshet.BlockID{File: kept.File}, Length: 3})
		if lost {
			k.beats.Finished = []freshet.FinishedOp{{Op: kept.Op, Written: &done}}
			w.await("the write has ended", func() bool { return slices.Contains(w.beat(m, k.beats).Settled, kept.Op) })
		} else if _, err := m.Complete(w.Context(), kept.Op, done); err != nil {
			w.Fatal(err)
		}
		if o := k.order(0); o.File != kept.File || o.Beneath != wrote[1].Fingerprint {
			w.Errorf("the order is %+v, and the storage has %v", o, wrote[1].Fingerprint)
		}
	})
}
