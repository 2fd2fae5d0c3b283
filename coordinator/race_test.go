package coordinator_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
)

// peer is another cluster that publishes to the domain of the tests' storage.
type peer struct {
	w   *world
	m   *member
	pub invalidation.Publisher
	dom freshet.DomainID
	seq uint64
	sum invalidation.Hash
}

func newPeer(w *world, m *member) *peer {
	w.Helper()
	p := &peer{w: w, m: m, pub: invalidation.Publisher{Cluster: uuid.MustParse("11111111-1111-4111-8111-111111111111"), Name: "us-east", Epoch: 14}}
	canonical, err := w.openers.Parse(ufs.Spec{URI: "mem://lake"})
	if err != nil {
		w.Fatal(err)
	}
	p.dom = canonical.Domain()
	if _, err := m.Begin(w.Context(), p.pub, p.dom); err != nil {
		w.Fatal(err)
	}
	m.Confirm(p.pub, p.dom, time.Now())
	return p
}

// publish has the members' leader apply a record.
func (p *peer) publish(kind invalidation.Kind, key string) {
	p.w.Helper()
	r := invalidation.Record{Seq: p.seq + 1, Kind: kind, Key: key, PublishedAt: time.Unix(1, 0).UTC()}
	b := invalidation.Batch{Publisher: p.pub.Cluster, Epoch: p.pub.Epoch, Domain: p.dom, After: p.seq, AfterHash: p.sum, Records: []invalidation.Record{r}}
	verdict, sub, err := p.m.Apply(p.w.Context(), b)
	if err != nil || verdict != invalidation.VerdictApply {
		p.w.Fatalf("apply %s %s: %v, %v", kind, key, verdict, err)
	}
	p.seq, p.sum = sub.Applied, sub.Hash
}

func TestC4ALoadThatBeganBeforeAnInvalidationNeverInstalls(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		p := newPeer(w, m)
		// The storage answers the first look with the old version, late.
		reached, resume := make(chan struct{}), make(chan struct{})
		fs := w.fault()
		fs.afterStat(func() {
			close(reached)
			<-resume
		})
		type answer struct {
			st  freshet.Status
			err error
		}
		got := make(chan answer, 1)
		go func() {
			st, err := m.Stat(w.Context(), "/data/f", freshet.ReadOptions{})
			got <- answer{st, err}
		}()
		<-reached
		w.store.Put("f", []byte("three"))
		p.publish(invalidation.KindContent, "/f")
		close(resume)
		a := <-got
		if a.err != nil || a.st.Info.Length != 5 {
			w.Errorf("the reader got %+v, %v", a.st.Info, a.err)
		}
		if st := w.stat(m, "/data/f"); st.Info.Length != 5 {
			w.Errorf("the old version was installed: %+v", st.Info)
		}
	})
}

func TestC3AListingInFlightInstallsNoChildThatWasMarkedMeanwhile(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		for i := range 15 { // two pages
			w.store.Put("d/f"+string(rune('a'+i)), []byte("one"))
		}
		m := w.leader()
		p := newPeer(w, m)
		pages, reached, resume := 0, make(chan struct{}), make(chan struct{})
		w.onStep(func(step, _ string) error {
			if step == "list" {
				if pages++; pages == 2 {
					close(reached)
					<-resume
				}
			}
			return nil
		})
		done := make(chan []string, 1)
		go func() {
			page, err := m.List(w.Context(), freshet.ListQuery{Path: "/data/d"})
			if err != nil {
				w.Error(err)
			}
			done <- pathsOf(page)
		}()
		<-reached // the first page was read: fa is in it
		w.store.Put("d/fa", []byte("three"))
		p.publish(invalidation.KindContent, "/d/fa")
		close(resume)
		<-done
		if st := w.stat(m, "/data/d/fa"); st.Info.Length != 5 {
			w.Errorf("the listing installed what was marked: %+v", st.Info)
		}
		if st := w.stat(m, "/data/d/fb"); st.Info.Length != 3 {
			w.Errorf("the others: %+v", st.Info)
		}
	})
}

func TestAReaderJoinsNoLookThatBeganBeforeAMark(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		p := newPeer(w, m)
		reached, resume := make(chan struct{}), make(chan struct{})
		w.fault().afterStat(func() {
			close(reached)
			<-resume
		})
		go func() { _, _ = m.Stat(w.Context(), "/data/f", freshet.ReadOptions{}) }() //nolint:errcheck // another test looks at it
		<-reached
		w.store.Put("f", []byte("three"))
		p.publish(invalidation.KindContent, "/f")
		second := make(chan int64, 1)
		go func() {
			st, err := m.Stat(w.Context(), "/data/f", freshet.ReadOptions{})
			if err != nil {
				w.Error(err)
			}
			second <- st.Info.Length
		}()
		synctest.Wait()
		select {
		case n := <-second:
			w.Errorf("the second reader was answered by the first one's look: %d bytes", n)
		default:
		}
		close(resume)
		if n := <-second; n != 5 {
			w.Errorf("the second reader got the version of %d bytes", n)
		}
		synctest.Wait()
	})
}

func TestAHotPathThatIsAlwaysInvalidatedIsPassedThroughUncached(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		p := newPeer(w, m)
		w.node(m, "n1")
		w.onStep(func(step, _ string) error {
			if step == "stat" {
				p.publish(invalidation.KindContent, "/f")
			}
			return nil
		})
		var loc freshet.Location
		n := w.asked(func() {
			var err error
			if loc, err = m.Locate(w.Context(), freshet.LocateQuery{Path: "/data/f", Length: -1}); err != nil {
				w.Error(err)
			}
		})
		if n != 3 || loc.Cacheable || loc.Info.FileID != 0 || loc.Source.Fingerprint.IsZero() || len(loc.Blocks) != 1 || loc.Blocks[0].Fetch.ID == "" {
			w.Errorf("after %d looks: %+v", n, loc)
		}
		w.onStep(nil)
	})
}

func TestAnEventWithTheVersionThatIsHeldCostsNoLook(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("f", []byte("one"))
		w.store.Put("g", []byte("one"))
		m := w.leader()
		p := newPeer(w, m)
		st := w.stat(m, "/data/f")
		w.stat(m, "/data/g")
		r := invalidation.Record{Seq: 1, Kind: invalidation.KindContent, Key: "/f", Fingerprint: st.Info.Fingerprint, PublishedAt: time.Unix(1, 0).UTC()}
		b := invalidation.Batch{Publisher: p.pub.Cluster, Epoch: p.pub.Epoch, Domain: p.dom, Records: []invalidation.Record{r}}
		if _, _, err := m.Apply(w.Context(), b); err != nil {
			w.Fatal(err)
		}
		if n := w.asked(func() { w.stat(m, "/data/f"); w.stat(m, "/data/g") }); n != 0 {
			w.Errorf("%d looks", n)
		}
	})
}

func TestALeaderChangeLooksAgainUnderADurationAndNotUnderNever(t *testing.T) {
	t.Parallel()
	seeds := []freshet.MountChange{mount("/never", "mem://lake/n", freshet.Never), mount("/hour", "mem://lake/h", freshet.Interval(time.Hour))}
	inBubble(t, settings{members: 3, seeds: seeds}, func(w *world) {
		w.store.Put("n/f", []byte("one"))
		w.store.Put("h/f", []byte("one"))
		m := w.leader()
		w.stat(m, "/never/f")
		w.stat(m, "/hour/f")
		if n := w.asked(func() { w.stat(m, "/never/f"); w.stat(m, "/hour/f") }); n != 0 {
			w.Errorf("hot: %d looks", n)
		}
		if _, err := m.TransferLeadership(w.Context(), ""); err != nil {
			w.Fatal(err)
		}
		next := w.leader()
		if next == m {
			w.Fatal("the same member leads")
		}
		if n := w.asked(func() { w.stat(next, "/never/f") }); n != 0 {
			w.Errorf("never: %d looks", n)
		}
		if n := w.asked(func() { w.stat(next, "/hour/f") }); n != 1 {
			w.Errorf("an hour: %d looks", n)
		}
		if n := w.asked(func() { w.stat(next, "/hour/f") }); n != 0 {
			w.Errorf("an hour, hot: %d looks", n)
		}
		time.Sleep(5 * time.Second) // the followers have heard of it
		_, err := m.Stat(w.Context(), "/never/f", freshet.ReadOptions{})
		w.wantKind(err, freshet.KindNotLeader)
		if addr := m.LeaderAddress(); addr != next.id+":7400" {
			w.Errorf("the old leader knows the new one as %q", addr)
		}
	})
}

func TestAValidationOfAnOldTermDoesNotCount(t *testing.T) { // the same member leads again
	t.Parallel()
	inBubble(t, settings{members: 3, seeds: []freshet.MountChange{mount("/d", "mem://lake", freshet.Interval(time.Hour))}}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		w.stat(m, "/d/f")
		if _, err := m.TransferLeadership(w.Context(), ""); err != nil {
			w.Fatal(err)
		}
		next := w.leader()
		if _, err := next.TransferLeadership(w.Context(), m.id); err != nil {
			w.Fatal(err)
		}
		if again := w.leader(); again != m {
			w.Fatal("another member leads")
		}
		if n := w.asked(func() { w.stat(m, "/d/f") }); n != 1 {
			w.Errorf("%d looks", n)
		}
	})
}

func TestADegradedMountIsCheckedByTime(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		p := newPeer(w, m)
		w.stat(m, "/data/f")
		time.Sleep(2 * time.Minute)
		if n := w.asked(func() { w.stat(m, "/data/f") }); n != 0 {
			w.Errorf("in contact: %d looks", n)
		}
		m.Lost(p.pub, p.dom, true, "stream and gossip are silent")
		var st freshet.Status
		if n := w.asked(func() { st = w.stat(m, "/data/f") }); n != 1 || !st.Freshness.Degraded || st.Freshness.Interval != freshet.Interval(time.Minute) {
			w.Errorf("degraded: %d looks, %+v", n, st.Freshness)
		}
		if n := w.asked(func() { w.stat(m, "/data/f") }); n != 0 {
			w.Errorf("within the degraded interval: %d looks", n)
		}
		s, err := m.Cluster(w.Context())
		if err != nil || s.Healthy || len(s.Problems) == 0 {
			w.Errorf("the cluster says %+v, %v", s, err)
		}
		m.Lost(p.pub, p.dom, false, "")
		time.Sleep(2 * time.Minute)
		if n := w.asked(func() { st = w.stat(m, "/data/f") }); n != 0 || st.Freshness.Degraded {
			w.Errorf("after contact: %d looks, %+v", n, st.Freshness)
		}
	})
}

func TestANewLeaderIsDegradedUntilItHeardThePublishers(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{members: 3}, func(w *world) {
		m := w.leader()
		p := newPeer(w, m)
		degraded := func(m *member) bool {
			mounts, _, err := m.Mounts(w.Context(), "/data")
			if err != nil {
				w.Fatal(err)
			}
			return mounts[0].Degraded
		}
		if degraded(m) {
			w.Error("degraded while in contact")
		}
		if _, err := m.TransferLeadership(w.Context(), ""); err != nil {
			w.Fatal(err)
		}
		next := w.leader()
		if !degraded(next) {
			w.Error("the new leader trusts what it has not heard")
		}
		next.Confirm(p.pub, p.dom, time.Now())
		if degraded(next) {
			w.Error("degraded after contact")
		}
	})
}

func TestASpecialEntryIsHiddenAndNamed(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{options: nil, mode: mem.Local}, func(w *world) {
		w.store.Put("d/f", []byte("one"))
		w.store.Put("d/pipe", []byte("x"))
		m := w.leader()
		w.fault().special("d/pipe", "a fifo")
		if got := w.list(m, "/data/d"); len(got) != 1 {
			w.Errorf("listed %v", got)
		}
		always := freshet.Always
		_, err := m.Stat(w.Context(), "/data/d/pipe", freshet.ReadOptions{SyncInterval: &always})
		w.wantKind(err, freshet.KindConflict)
	})
}

// pausedStat begins a look whose answer of the storage is held back, and returns
// what lets it go on.
func (w *world) pausedStat(m *member, p freshet.Path, interval *freshet.Interval) (resume func()) {
	w.Helper()
	reached, release := make(chan struct{}), make(chan struct{})
	w.fault().afterStat(func() {
		close(reached)
		<-release
	})
	go func() {
		_, _ = m.Stat(w.Context(), p, freshet.ReadOptions{SyncInterval: interval}) //nolint:errcheck // the tests look at what it leaves
	}()
	<-reached
	return func() { close(release) }
}

func TestAnUnchangedLookThatBeganBeforeAMarkValidatesNothing(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		p := newPeer(w, m)
		w.stat(m, "/data/f")
		always := freshet.Always
		resume := w.pausedStat(m, "/data/f", &always) // it saw what is held
		w.store.Put("f", []byte("three"))
		p.publish(invalidation.KindContent, "/f")
		w.onStep(func(string, string) error { return errDown }) // no second look can mend it
		resume()
		synctest.Wait()
		w.statKind(m, "/data/f", freshet.KindUnavailable)
		w.onStep(nil)
		if st := w.stat(m, "/data/f"); st.Info.Length != 5 {
			w.Errorf("the old version is served: %+v", st.Info)
		}
	})
}

func TestC27NobodyJoinsALookThatFoundNothingBeforeTheFileCame(t *testing.T) {
	t.Parallel()
	for name, interval := range map[string]freshet.Interval{"marked": freshet.Never, "always": freshet.Always, "a second": freshet.Interval(time.Second)} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, settings{}, func(w *world) {
				m := w.leader()
				p := newPeer(w, m)
				resume := w.pausedStat(m, "/data/f", &interval)
				w.store.Put("f", []byte("one"))
				if interval < 0 {
					p.publish(invalidation.KindCreate, "/f")
				}
				time.Sleep(2 * time.Second)
				found := make(chan error, 1)
				go func() {
					_, err := m.Stat(w.Context(), "/data/f", freshet.ReadOptions{SyncInterval: &interval})
					found <- err
				}()
				synctest.Wait()
				resume()
				if err := <-found; err != nil {
					w.Errorf("the second reader was told: %v", err)
				}
				synctest.Wait()
			})
		})
	}
}
