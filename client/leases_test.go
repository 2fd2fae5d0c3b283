package client_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/rpc"
)

const granted = 2 * time.Second

type bubbleClock struct {
	clock.Real
	start time.Time
}

func (c bubbleClock) Elapsed() time.Duration { return time.Hour + time.Since(c.start) }

// leader answers, grants, and calls back.
type leader struct {
	rpc.Namespace

	mu      sync.Mutex
	version int
	asked   []freshet.LocateQuery
	stats   int
	takes   time.Duration // to answer
	opens   []freshet.LeaseOpening
	now     *heldSession
	refuse  error
}

type heldSession struct {
	id     freshet.LeaseID
	breaks chan freshet.LeaseBreak
	acked  chan uint64
	over   chan struct{}
	end    sync.Once
	ended  atomic.Bool // it was said that nothing is kept
}

func (s *heldSession) ID() freshet.LeaseID { return s.id }
func (s *heldSession) Close()              {}
func (s *heldSession) End()                { s.ended.Store(true); s.end.Do(func() { close(s.over) }) }
func (s *heldSession) Ack(n uint64) error  { s.acked <- n; return nil }
func (s *heldSession) Next(ctx context.Context) (freshet.LeaseBreak, error) {
	select {
	case b := <-s.breaks:
		return b, nil
	case <-s.over:
		return freshet.LeaseBreak{}, errors.New("the stream broke")
	case <-ctx.Done():
		return freshet.LeaseBreak{}, ctx.Err()
	}
}

func (l *leader) OpenLeases(_ context.Context, o freshet.LeaseOpening) (rpc.LeaseSession, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opens = append(l.opens, o)
	if l.refuse != nil {
		return nil, l.refuse
	}
	l.now = &heldSession{id: o.ID, breaks: make(chan freshet.LeaseBreak), acked: make(chan uint64), over: make(chan struct{})}
	return l.now, nil
}

// fileBlocks is how many blocks of blockSize the file has, each answer names up to 256.
const fileBlocks = 600

func (l *leader) Locate(_ context.Context, q freshet.LocateQuery) (freshet.Location, error) {
	l.mu.Lock()
	l.asked = append(l.asked, q)
	loc := freshet.Location{Info: freshet.Info{Path: q.Path, Length: fileBlocks * blockSize, BlockSize: blockSize, FileID: freshet.FileID(l.version)}}
	end := min(loc.Info.Length, q.Offset+q.Length)
	if q.Length < 0 {
		end = loc.Info.Length
	}
	for i := q.Offset / blockSize; i*blockSize < end && len(loc.Blocks) < 256; i++ {
		loc.Blocks = append(loc.Blocks, freshet.Block{Offset: i * blockSize, Length: blockSize})
	}
	if !q.Options.Lease.IsZero() {
		loc.Lease = granted
	}
	takes := l.takes
	l.mu.Unlock()
	time.Sleep(takes) // fake time
	return loc, nil
}

func (l *leader) Stat(_ context.Context, p freshet.Path, opts freshet.ReadOptions) (freshet.Status, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats++
	st := freshet.Status{Info: freshet.Info{Path: p, FileID: freshet.FileID(l.version)}, Freshness: freshet.Freshness{Age: time.Second}}
	if !opts.Lease.IsZero() {
		st.Lease = granted
	}
	return st, nil
}

// change is what the leader does: it calls back, waits, and changes.
func (l *leader) change(p ...freshet.Path) {
	l.now.breaks <- freshet.LeaseBreak{Number: 1, Paths: p}
	<-l.now.acked
	l.mu.Lock()
	l.version++
	l.mu.Unlock()
}

func (l *leader) questions() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.asked)
}

func (l *leader) lastOpened() freshet.LeaseOpening {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.opens[len(l.opens)-1]
}

type keeper struct {
	*testing.T
	l     *leader
	kept  *client.Leases
	files *client.Client
}

func keeping(t *testing.T, maxKept int, f func(k *keeper)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &leader{version: 1}
		kept := client.NewLeases(l, client.LeaseOptions{Max: maxKept, Clock: bubbleClock{start: time.Now()}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- kept.Run(ctx) }()
		k := &keeper{t, l, kept, client.New(l, nil, client.Options{Leases: kept})}
		k.begin()
		f(k)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// begin asks something, so that there is a session.
func (k *keeper) begin() {
	k.Helper()
	synctest.Wait()
	if k.kept.Holds() || len(k.l.opens) > 0 {
		k.Error("there is a session that nobody wanted")
	}
	k.want("no session yet", freshet.LocateQuery{Path: "/first"}, 1, 1)
	synctest.Wait()
	if !k.kept.Holds() {
		k.Error("there is no session")
	}
	k.l.mu.Lock()
	defer k.l.mu.Unlock()
	k.l.asked = nil
}

// locate returns the version of a file, and how many questions it took.
func (k *keeper) locate(q freshet.LocateQuery) (version, questions int) {
	k.Helper()
	before := k.l.questions()
	if q.Path == "" {
		q.Path = "/d/f"
	}
	if q.Length == 0 {
		q.Length = -1
	}
	loc, err := k.files.Locate(k.Context(), q)
	if err != nil {
		k.Fatal(err)
	}
	if len(loc.Blocks) == 0 || loc.Blocks[0].Offset > q.Offset || loc.Blocks[0].Offset+blockSize <= q.Offset {
		k.Errorf("the answer to %+v does not begin with its block: %d blocks", q, len(loc.Blocks))
	}
	return int(loc.Info.FileID), k.l.questions() - before
}

func (k *keeper) want(what string, q freshet.LocateQuery, version, questions int) {
	k.Helper()
	if v, n := k.locate(q); v != version || n != questions {
		k.Errorf("%s: version %d by %d questions, want %d by %d", what, v, n, version, questions)
	}
}

func TestAKeptAnswerIsGivenUntilItEnds(t *testing.T) {
	keeping(t, 0, func(k *keeper) {
		var q freshet.LocateQuery
		k.want("first", q, 1, 1)
		k.want("kept", q, 1, 0)
		time.Sleep(freshet.KeepFor(granted) - 1) // fake time
		k.want("just before the end", q, 1, 0)
		time.Sleep(time.Nanosecond) // fake time
		k.want("at the end", q, 1, 1)
		k.l.takes = granted // the answer comes when it has run out
		time.Sleep(granted) // fake time
		k.want("slow", q, 1, 1)
		k.l.takes = 0
		k.want("of a slow answer nothing is kept", q, 1, 1)
	})
}

func TestABreakDropsWhatIsOnItsLine(t *testing.T) {
	for path, hit := range map[freshet.Path]bool{"/d/f": true, "/d": true, "/": true, "/d/f/x": true, "/d/g": false, "/e": false} {
		keeping(t, 0, func(k *keeper) {
			k.want("first", freshet.LocateQuery{}, 1, 1)
			k.l.change("/other", path)
			if hit {
				k.want(string(path), freshet.LocateQuery{}, 2, 1)
			} else {
				k.want(string(path), freshet.LocateQuery{}, 1, 0)
			}
		})
	}
}

// An answer that is on its way when it is called back is given to who asked, and to
// nobody who came after.
func TestABreakVoidsWhatIsOnItsWay(t *testing.T) {
	keeping(t, 0, func(k *keeper) {
		k.l.takes = 50 * time.Millisecond
		var asked sync.WaitGroup
		version := func(what string, want int) {
			if v, _ := k.locate(freshet.LocateQuery{}); v != want {
				k.Errorf("%s: version %d, want %d", what, v, want)
			}
		}
		asked.Go(func() { version("asked before", 1) })
		synctest.Wait()
		k.l.change("/d")
		asked.Go(func() { version("joined after", 2) })
		asked.Wait()
		if n := k.l.questions(); n != 2 {
			k.Errorf("%d questions", n)
		}
		k.want("the second was kept", freshet.LocateQuery{}, 2, 0)
	})
}

func TestManyWhoAskAtOnceAskOnce(t *testing.T) {
	keeping(t, 0, func(k *keeper) {
		k.l.takes = 50 * time.Millisecond
		var asked sync.WaitGroup
		for range 20 {
			asked.Go(func() { k.locate(freshet.LocateQuery{}) })
		}
		asked.Wait()
		if n := k.l.questions(); n != 1 {
			k.Errorf("%d questions", n)
		}
		ctx, cancel := context.WithTimeout(k.Context(), time.Millisecond)
		defer cancel()
		asked.Go(func() { k.locate(freshet.LocateQuery{Path: "/g"}) })
		synctest.Wait()
		if _, err := k.files.Locate(ctx, freshet.LocateQuery{Path: "/g", Length: -1}); !freshet.IsKind(err, freshet.KindDeadline) {
			k.Errorf("who has no time waits for another: %v", err)
		}
		asked.Wait()
	})
}

// What asks for more than a lease says asks the leader.
func TestWhatIsKeptIsNotGivenToEveryQuestion(t *testing.T) {
	always := freshet.Always
	keeping(t, 0, func(k *keeper) {
		k.want("first", freshet.LocateQuery{}, 1, 1)
		for what, q := range map[string]freshet.LocateQuery{
			"interval": {Options: freshet.ReadOptions{SyncInterval: &always}},
			"token":    {Options: freshet.ReadOptions{After: freshet.Token{Seq: 1}}},
		} {
			k.want(what, q, 1, 1)
		}
		k.want("still kept", freshet.LocateQuery{}, 1, 0)
		k.want("refused version", freshet.LocateQuery{StaleFingerprint: "v"}, 1, 1)
		k.want("dropped by it", freshet.LocateQuery{}, 1, 1)
		k.want("outdated location", freshet.LocateQuery{Again: true}, 1, 1)
		k.want("dropped by it", freshet.LocateQuery{}, 1, 1)
		ctx, err := rpc.WithUsers(k.Context(), "alice")
		if err != nil {
			k.Fatal(err)
		}
		before := k.l.questions()
		for range 2 {
			if _, err := k.files.Locate(ctx, freshet.LocateQuery{Path: "/d/f", Length: -1}); err != nil {
				k.Fatal(err)
			}
		}
		if n := k.l.questions() - before; n != 1 {
			k.Errorf("another user asked %d times", n)
		}
	})
}

// Who reads parts is told of one part first, then of what is around.
func TestPartsOfAFile(t *testing.T) {
	keeping(t, 0, func(k *keeper) {
		part := func(block int64) freshet.LocateQuery {
			return freshet.LocateQuery{Offset: block*blockSize + 3, Length: 10}
		}
		k.want("first part", part(5), 1, 1)
		if q := k.l.asked[0]; q.Length != 10 {
			k.Errorf("asked for %d bytes", q.Length)
		}
		k.want("the same block", part(5), 1, 0)
		k.want("another part", part(7), 1, 1)
		for _, block := range []int64{0, 5, 100, 255} {
			k.want(fmt.Sprint("block ", block), part(block), 1, 0)
		}
		k.want("beyond one answer", part(300), 1, 1)
		k.want("near it", part(511), 1, 0)
		loc, err := k.files.Locate(k.Context(), freshet.LocateQuery{Path: "/d/f", Offset: 300 * blockSize, Length: 2 * blockSize})
		if err != nil || len(loc.Blocks) != 2 {
			k.Errorf("%d blocks of two: %v", len(loc.Blocks), err)
		}
	})
}

func TestStatIsKept(t *testing.T) {
	keeping(t, 0, func(k *keeper) {
		for i := range 3 {
			st, err := k.files.Stat(k.Context(), "/d/f", freshet.ReadOptions{})
			if want := time.Second + time.Duration(i)*100*time.Millisecond; err != nil || st.Freshness.Age != want || k.l.stats != 1 {
				k.Errorf("age %s, want %s, after %d questions: %v", st.Freshness.Age, want, k.l.stats, err)
			}
			time.Sleep(100 * time.Millisecond) // fake time
		}
		k.want("a location is another answer", freshet.LocateQuery{}, 1, 1)
		k.l.change("/d/f")
		if st, err := k.files.Stat(k.Context(), "/d/f", freshet.ReadOptions{}); err != nil || st.Info.FileID != 2 {
			k.Errorf("%+v, %v", st, err)
		}
	})
}

// Without a session nothing is kept, and the next one says which one it follows.
func TestALostSession(t *testing.T) {
	keeping(t, 0, func(k *keeper) {
		k.want("first", freshet.LocateQuery{}, 1, 1)
		k.l.mu.Lock()
		k.l.refuse = freshet.Errorf(freshet.KindUnavailable, "test", "", "no leader")
		now := k.l.now
		first, over := now.id, func() { now.end.Do(func() { close(now.over) }) }
		k.l.mu.Unlock()
		over()
		synctest.Wait()
		for range 3 {
			k.want("no session", freshet.LocateQuery{}, 1, 1)
			time.Sleep(2 * time.Second) // fake time
		}
		if k.kept.Holds() || k.kept.Len() != 0 {
			k.Error("there is a session")
		}
		k.l.mu.Lock()
		k.l.refuse = nil
		k.l.mu.Unlock()
		k.want("still none", freshet.LocateQuery{}, 1, 1)
		time.Sleep(10 * time.Second) // fake time
		synctest.Wait()
		if last := k.l.lastOpened(); !k.kept.Holds() || last.Previous != first {
			k.Errorf("the session follows %s, it was %s", last.Previous, first)
		}
		k.namedAll()
		k.want("a new session", freshet.LocateQuery{}, 1, 1)
		k.want("kept again", freshet.LocateQuery{}, 1, 0)
	})
}

// A session that nobody uses ends in order, and the next begins when it is wanted.
func TestASessionLastsWhileItIsWanted(t *testing.T) {
	keeping(t, 0, func(k *keeper) {
		for range 100 {
			k.locate(freshet.LocateQuery{})
			time.Sleep(time.Second) // fake time
			if !k.kept.Holds() || len(k.l.opens) != 1 {
				k.Fatalf("there is a session: %t, the one of number %d", k.kept.Holds(), len(k.l.opens))
			}
		}
		s := k.l.now
		if s.ended.Load() {
			k.Error("a session ends that is used")
		}
		time.Sleep(25 * time.Second) // fake time
		if k.kept.Holds() || k.kept.Len() != 0 || !s.ended.Load() || len(k.l.opens) != 1 {
			k.Errorf("nobody wants it, but there is a session: %t, its leader was told: %t, %d were opened", k.kept.Holds(), s.ended.Load(), len(k.l.opens))
		}
		k.want("no session", freshet.LocateQuery{}, 1, 1)
		synctest.Wait()
		k.want("a new session", freshet.LocateQuery{}, 1, 1)
		k.want("kept again", freshet.LocateQuery{}, 1, 0)
	})
}

// A session ends in order too when it is told to end, even if its leader is silent.
func TestASilentLeaderIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leader{version: 1}
		kept := client.NewLeases(deaf{l}, client.LeaseOptions{Clock: bubbleClock{start: time.Now()}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- kept.Run(ctx) }()
		if _, err := kept.Locate(ctx, l, freshet.LocateQuery{Path: "/f", Length: -1}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		if err := <-done; err != nil || kept.Holds() {
			t.Errorf("%v, it holds a session: %t", err, kept.Holds())
		}
	})
}

// deaf opens sessions that hear nothing of their end.
type deaf struct{ *leader }

func (d deaf) OpenLeases(ctx context.Context, o freshet.LeaseOpening) (rpc.LeaseSession, error) {
	s, err := d.leader.OpenLeases(ctx, o)
	return deafSession{s}, err
}

type deafSession struct{ rpc.LeaseSession }

func (deafSession) End() {}

func TestWhatWasNotUsedGoesFirst(t *testing.T) {
	keeping(t, 3, func(k *keeper) {
		for i := range 3 {
			k.want("first", freshet.LocateQuery{Path: freshet.Path(fmt.Sprint("/f", i))}, 1, 1)
		}
		k.want("used", freshet.LocateQuery{Path: "/f0"}, 1, 0)
		k.want("one more", freshet.LocateQuery{Path: "/f3"}, 1, 1)
		k.want("used last", freshet.LocateQuery{Path: "/f0"}, 1, 0)
		k.want("gone", freshet.LocateQuery{Path: "/f1"}, 1, 1)
		if n := k.kept.Len(); n != 3 {
			k.Errorf("%d are kept", n)
		}
	})
}
