package leases_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/leases"
)

// holder is a client as it should be: it keeps answers by its own clock, and drops what it
// is told to, now or later or never.
type holder struct {
	s    *leases.Session // nil until it had one
	kept map[freshet.Path]answer
	deaf bool // takes nothing from its session
	next []freshet.LeaseBreak

	unanswered []freshet.LeaseID // sessions that it tried to have since
}

type answer struct {
	version int
	until   time.Time
}

// question is one that the leader has looked up and not answered yet.
type question struct {
	h       *holder
	s       *leases.Session // of then
	ask     *leases.Ask
	path    freshet.Path
	sent    time.Time
	version int
}

// TestNothingOlderIsKeptThanWasChanged: whatever clients do, once a change has been made
// nobody may take an answer from before it for fresh. Versions stand for the state. And
// once all clients have come to a new leader, no change waits for those of before.
func TestNothingOlderIsKeptThanWasChanged(t *testing.T) {
	t.Parallel()
	files := []freshet.Path{"/a/f", "/a/g", "/a/b/f", "/c"}
	lines := []freshet.Path{"/a/f", "/a/g", "/a/b/f", "/c", "/a", "/a/b", "/", "/a/f/x", "/d"}
	rapid.Check(t, func(rt *rapid.T) {
		var failure any // rapid wants to have it outside of the bubble
		defer func() {
			if failure != nil {
				panic(failure)
			}
		}()
		synctest.Test(t, func(t *testing.T) {
			defer func() { failure = recover() }()
			table := leases.New(leases.Options{Length: length, Max: 5, Clock: bubbleClock{start: time.Now()}})
			term, allowed := uint64(1), leases.Allowed{}
			table.Enter(term, allowed)
			allow := func(_ context.Context, a leases.Allowed) error { allowed = a; return nil }
			version := map[freshet.Path]int{}
			var holders []*holder
			var asked []question
			opened := 0
			ask := func(h *holder) {
				p := rapid.SampledFrom(files).Draw(rt, "file")
				asked = append(asked, question{h, h.s, table.Ask(h.s.ID(), p), p, time.Now(), version[p]})
			}
			// reply gives a client what was looked up when it asked.
			reply := func() {
				q := asked[0]
				asked = asked[1:]
				d := q.ask.Grant(time.Duration(rapid.IntRange(0, 3000).Draw(rt, "keep")) * time.Millisecond)
				if d > 0 && q.h.s == q.s {
					q.h.kept[q.path] = answer{q.version, q.sent.Add(freshet.KeepFor(d))}
				}
			}
			enter := func() {
				term++
				table.Enter(term, allowed)
			}
			// open has a client that keeps nothing have a session, unless the leader dies once
			// it is written down.
			open := func(h *holder, dies bool) {
				h.kept, h.next = map[freshet.Path]answer{}, nil
				opened++
				o := freshet.LeaseOpening{ID: freshet.LeaseID{0: byte(opened), 1: 1}, Unanswered: h.unanswered}
				if h.s != nil {
					o.Previous = h.s.ID()
				}
				table.Release(&o)
				s, err := table.Open(t.Context(), o.ID, func(ctx context.Context, a leases.Allowed) error {
					if dies {
						defer enter()
					}
					return allow(ctx, a)
				})
				switch {
				case err == nil:
					h.s, h.unanswered = s, nil
				case dies && freshet.IsKind(err, freshet.KindNotLeader):
					h.unanswered = append(h.unanswered, o.ID)
				default:
					rt.Fatal(err)
				}
			}
			dies := func() bool { return rapid.IntRange(0, 3).Draw(rt, "dies") == 0 }
			// take has a holder hear what there is without waiting.
			take := func(h *holder) {
				for h.s != nil && !h.deaf {
					ctx, cancel := context.WithCancel(t.Context())
					got := make(chan bool)
					go func() {
						b, err := h.s.Next(ctx)
						if err == nil {
							h.next = append(h.next, b)
						}
						got <- err == nil
					}()
					synctest.Wait()
					cancel()
					if !<-got {
						return
					}
				}
			}
			obey := func(h *holder) {
				for _, b := range h.next {
					for _, p := range b.Paths {
						for q := range h.kept {
							if p.Contains(q) || q.Contains(p) {
								delete(h.kept, q)
							}
						}
					}
					if err := h.s.Ack(b.Number); err != nil {
						rt.Fatal(err)
					}
				}
				h.next = nil
			}
			check := func() {
				for i, h := range holders {
					for p, a := range h.kept {
						if time.Now().Before(a.until) && a.version != version[p] {
							rt.Fatalf("client %d takes version %d of %s for fresh, it is %d", i, a.version, p, version[p])
						}
					}
				}
			}
			for range rapid.IntRange(5, 60).Draw(rt, "steps") {
				var h *holder
				if len(holders) > 0 {
					h = rapid.SampledFrom(holders).Draw(rt, "client")
				}
				switch what := rapid.SampledFrom([]string{"open", "ask", "ask", "ask", "ask for long", "ask for long", "answer", "answer", "change", "change", "given up", "hear", "sleep", "deaf", "again", "leader", "rest"}).Draw(rt, "what"); {
				case what == "open" && len(holders) < 4:
					h := &holder{}
					holders = append(holders, h)
					open(h, dies())
				case what == "ask" && h != nil && h.s != nil:
					p := rapid.SampledFrom(files).Draw(rt, "file")
					sent := time.Now()
					one := table.Ask(h.s.ID(), p)
					time.Sleep(time.Duration(rapid.IntRange(0, 30).Draw(rt, "look")) * time.Millisecond) // fake time
					v := version[p]
					if d := one.Grant(time.Duration(rapid.IntRange(0, 3000).Draw(rt, "keep")) * time.Millisecond); d > 0 {
						// A break may have come meanwhile: it would void what is on its way.
						h.kept[p] = answer{v, sent.Add(freshet.KeepFor(d))}
					}
				case what == "ask for long" && h != nil && h.s != nil:
					ask(h)
				case what == "answer" && len(asked) > 0:
					reply()
				case what == "change":
					p := rapid.SampledFrom(lines).Draw(rt, "line")
					done := make(chan func(), 1)
					go func() {
						release, err := table.Guard(t.Context(), term, func() []freshet.Path { return []freshet.Path{p} })
						if err != nil {
							rt.Error(err)
						}
						done <- release
					}()
					synctest.Wait()
					for _, h := range holders {
						take(h)
						if rapid.Bool().Draw(rt, "obeys") {
							obey(h)
						}
					}
					release := <-done
					if h != nil && h.s != nil && rapid.Bool().Draw(rt, "asks meanwhile") {
						ask(h)
					}
					for _, q := range files {
						if p.Contains(q) || q.Contains(p) {
							version[q]++
						}
					}
					check()
					release()
				case what == "given up": // a change that is not made after all
					p := rapid.SampledFrom(lines).Draw(rt, "line")
					ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
					if release, err := table.Guard(ctx, term, func() []freshet.Path { return []freshet.Path{p} }); err == nil {
						release()
					}
					cancel()
				case what == "hear" && h != nil:
					take(h)
					obey(h)
				case what == "sleep":
					time.Sleep(time.Duration(rapid.IntRange(0, 2500).Draw(rt, "sleep")) * time.Millisecond) // fake time
				case what == "deaf" && h != nil:
					h.deaf = !h.deaf
				case what == "again" && h != nil: // its stream broke
					if h.s != nil && rapid.Bool().Draw(rt, "ends in order") {
						h.kept = nil // first
						h.s.End()    // its leader may have died
					}
					open(h, dies())
				case what == "leader": // not all clients know of it yet
					if rapid.IntRange(0, 3).Draw(rt, "crowd") == 0 { // too many to be named
						allowed.Holders = nil
					}
					crowd := allowed.Length > 0 && len(allowed.Holders) == 0
					enter()
					all := true
					for _, h := range holders {
						h.next = nil
						if rapid.IntRange(0, 3).Draw(rt, "comes") > 0 {
							open(h, false)
						} else {
							all = false
						}
					}
					if !all || crowd {
						break
					}
					start := time.Now()
					release, err := table.Guard(t.Context(), term, func() []freshet.Path { return []freshet.Path{"/d"} })
					if took := time.Since(start); err != nil || took != 0 {
						rt.Fatalf("all clients came, and a change waits %s for nobody: %v", took, err)
					}
					release()
				case what == "rest":
					if err := table.Rest(t.Context(), allow); err != nil {
						rt.Fatal(err)
					}
				}
				check()
			}
			table.Leave()
		})
	})
}
