package ops_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs/fault"
	"github.com/freshet-io/freshet/ufs/mem"
)

// straggler is an operation whose effect lands when the storage has been looked at already,
// as that of a leader may that lost its place and lives on.
type straggler struct {
	w    *world
	l    *leader
	n    *node
	late chan struct{}
	ops  byte
}

func newStraggler(t *testing.T, mode mem.Mode, op fault.Op, late bool) *straggler {
	s := &straggler{w: newWorld(t, mode, 20*time.Second), late: make(chan struct{}), ops: 100}
	s.l = s.w.lead(ops.Options{ObserveWithin: time.Second})
	s.n = s.w.keeper("n1", s.l)
	s.n.write("/m/f", "older")
	rule := fault.Rule{Op: op, Times: 1, Uncertain: !late, Err: freshet.Errorf(freshet.KindDeadline, string(op), "", "no answer")}
	if late {
		rule.Late = s.late
	}
	s.l.fs.Add(rule)
	s.n.fs.Add(rule)
	return s
}

// keep writes a file that is not in the storage yet.
func (s *straggler) keep(t *testing.T, key string) freshet.FileID {
	t.Helper()
	length := int64(3)
	s.ops++
	q := freshet.BeginWriteQuery{Op: freshet.OpID{s.ops}, Path: freshet.Path("/m/" + key), Node: "n1", Write: freshet.MustCache, Length: &length}
	return keepFile(t, s.l, q, map[freshet.NodeID]*node{"n1": s.n}).File
}

// unknown wants err to say that the outcome is not known, and waits until it was looked at.
func (s *straggler) unknown(t *testing.T, err error) {
	t.Helper()
	kind(t, err, freshet.KindDeadline, "")
	s.w.until(5*time.Second, "it is in quarantine", func() bool {
		s.n.beat()
		in := s.w.state.Intents()
		return len(in) == 1 && in[0].State == namespace.IntentQuarantine
	})
}

func (s *straggler) land() {
	close(s.late)
	s.l.fs.Wait()
	s.n.fs.Wait()
}

// at returns the key at which the file is, "" if it is nowhere.
func (s *straggler) at(id freshet.FileID) string {
	f, ok := s.w.state.UnpersistedOf(id)
	if !ok {
		return ""
	}
	return f.Key
}

// checkBeneath wants the file to lie over what the storage holds at its key.
func (s *straggler) checkBeneath(t *testing.T, id freshet.FileID) {
	t.Helper()
	f, ok := s.w.state.UnpersistedOf(id)
	var want fingerprint.Fingerprint
	if st, err := s.w.fs().Stat(t.Context(), f.Key); err == nil {
		want = st.Fingerprint
	}
	if !ok || f.Beneath != want || f.Conflict || !f.Next.IsZero() {
		t.Errorf("%+v, and the storage has %v", f, want)
	}
}

// TestWhatIsUnpersistedFollowsARename without an answer: one that landed before anybody
// looked, and within seconds one that landed later. It lies over what the rename moved, be
// that the file itself, with another change time, or a copy.
func TestWhatIsUnpersistedFollowsARename(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint("late ", late), func(t *testing.T) {
			each(t, func(t *testing.T, mode mem.Mode) {
				s := newStraggler(t, mode, fault.OpRename, late)
				id := s.keep(t, "f")
				_, err := s.l.Rename(t.Context(), freshet.RenameQuery{Path: "/m/f", Target: "/m/g"})
				s.unknown(t, err)
				if late {
					<-time.After(3 * time.Second)
					if at := s.at(id); at != "f" {
						t.Fatalf("before it landed: %q", at)
					}
					records := s.w.recordsOf("g")
					s.land()
					s.w.until(3*time.Second, "it follows", func() bool { return s.at(id) == "g" })
					if s.w.recordsOf("g") == records {
						t.Error("it was not published")
					}
				}
				if at := s.at(id); at != "g" {
					t.Fatalf("after it landed: %q", at)
				}
				s.checkBeneath(t, id)
				s.w.quiet(61 * time.Second)
				s.checkBeneath(t, id)
				s.w.checkPublished()
			})
		})
	}
}

// TestARenameMovesWhatSomebodyElseWrote beneath an unpersisted file, and its answer is lost:
// the file does not take that for its own.
func TestARenameMovesWhatSomebodyElseWrote(t *testing.T) {
	each(t, func(t *testing.T, mode mem.Mode) {
		s := newStraggler(t, mode, fault.OpRename, false)
		id := s.keep(t, "f")
		had, _ := s.w.state.UnpersistedOf(id)
		s.w.put("f", "by somebody else")
		_, err := s.l.Rename(t.Context(), freshet.RenameQuery{Path: "/m/f", Target: "/m/g"})
		s.unknown(t, err)
		if f, _ := s.w.state.UnpersistedOf(id); f.Key != "g" || f.Beneath != had.Beneath {
			t.Errorf("it may replace %v: %+v", f.Beneath, f)
		}
	})
}

// TestALateRenameReplacesWhatIsUnpersisted at its target, within seconds: later its source may
// be there again, and nobody could tell that it landed.
func TestALateRenameReplacesWhatIsUnpersisted(t *testing.T) {
	each(t, func(t *testing.T, mode mem.Mode) {
		s := newStraggler(t, mode, fault.OpRename, true)
		id := s.keep(t, "g")
		_, err := s.l.Rename(t.Context(), freshet.RenameQuery{Path: "/m/f", Target: "/m/g", Overwrite: true})
		s.unknown(t, err)
		if at := s.at(id); at != "g" {
			t.Fatalf("before it landed: %q", at)
		}
		s.land()
		s.w.until(3*time.Second, "it is replaced", func() bool { return s.at(id) == "" })
	})
}

// TestWhatWasWrittenMeanwhileLiesOverALateEffect: it stays, and can be persisted.
func TestWhatWasWrittenMeanwhileLiesOverALateEffect(t *testing.T) {
	for name, of := range map[string]struct {
		op fault.Op
		at string // where it is written
		do func(*straggler) error
	}{
		"rename": {fault.OpRename, "g", func(s *straggler) error {
			_, err := s.l.Rename(context.Background(), freshet.RenameQuery{Path: "/m/f", Target: "/m/g"})
			return err
		}},
		"remove": {fault.OpRemove, "f", func(s *straggler) error {
			_, err := s.l.Remove(context.Background(), freshet.RemoveQuery{Path: "/m/f"})
			return err
		}},
		"write": {fault.OpCommit, "f", func(s *straggler) error {
			// A single PUT can't be called back.
			s.l.fs.Add(fault.Rule{Op: fault.OpAbortUp, Err: freshet.Errorf(freshet.KindNotExist, "abort upload", "", "no such upload")})
			u := s.n.begin(freshet.BeginWriteQuery{Path: "/m/f"})
			u.takeTo(diesAfterPermit, "through")
			_, err := u.commit()
			s.n.restart()
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStraggler(t, mem.Object, of.op, true)
				s.unknown(t, of.do(s))
				id := s.keep(t, of.at)
				s.land()
				s.w.apply(namespace.Command{QueuePersist: &namespace.QueuePersist{Files: []freshet.FileID{id}, At: time.Now()}})
				s.w.until(5*time.Second, "it is ordered", func() bool {
					s.n.beat()
					return len(s.n.reply.Persist) == 1
				})
				order := s.n.reply.Persist[0].Op
				s.n.finished[order] = freshet.FinishedOp{Op: order, Failure: "the storage holds another version", Conflict: true}
				s.n.beat()
				if f, ok := s.w.state.UnpersistedOf(id); !ok || f.Conflict || f.Attempts != 1 {
					t.Errorf("what may be of this cluster is a conflict: %+v", f)
				}
				s.w.quiet(25 * time.Second)
				if at := s.at(id); at != of.at {
					t.Fatalf("it is at %q", at)
				}
				s.checkBeneath(t, id)
				s.w.checkPublished()
			})
		})
	}
}

// TestAQuarantineEndsWithoutTheStorage that does not answer.
func TestAQuarantineEndsWithoutTheStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStraggler(t, mem.Object, fault.OpRename, true)
		id := s.keep(t, "f")
		_, err := s.l.Rename(t.Context(), freshet.RenameQuery{Path: "/m/f", Target: "/m/g"})
		s.unknown(t, err)
		s.l.fs.Add(fault.Rule{Err: freshet.Errorf(freshet.KindUnavailable, "call", "", "no route")})
		s.w.quiet(60 * time.Second)
		if at := s.at(id); at != "f" {
			t.Errorf("it is at %q", at)
		}
		s.land()
	})
}

// TestWhatIsUnpersistedFollowsItsDirectory over what the storage has there: the same file
// with the same fingerprint, or a copy with its own.
func TestWhatIsUnpersistedFollowsItsDirectory(t *testing.T) {
	each(t, func(t *testing.T, mode mem.Mode) {
		s := newStraggler(t, mode, fault.OpRename, true)
		s.n.write("/m/d/s/x", "older")
		s.n.write("/m/d/z", "older")
		over, alone, foreign := s.keep(t, "d/s/x"), s.keep(t, "d/y"), s.keep(t, "d/z")
		s.w.put("d/z", "somebody else's")
		_, err := s.l.Rename(t.Context(), freshet.RenameQuery{Path: "/m/d", Target: "/m/e"})
		s.unknown(t, err) // and rolled forward, or seen not to have happened
		s.land()
		s.w.quiet(61 * time.Second)
		s.checkBeneath(t, over)
		s.checkBeneath(t, alone)
		if at := s.at(over) + " " + s.at(alone); at != "e/s/x e/y" {
			t.Errorf("they are at %s", at)
		}
		if _, err := s.l.Rename(t.Context(), freshet.RenameQuery{Path: "/m/e", Target: "/m/d"}); err != nil {
			t.Fatal(err)
		}
		s.checkBeneath(t, over)
		s.checkBeneath(t, alone)
		f, _ := s.w.state.UnpersistedOf(foreign)
		if st, err := s.w.fs().Stat(t.Context(), f.Key); err != nil || f.Beneath.SameContent(st.Fingerprint) {
			t.Errorf("what somebody else wrote is to be replaced: %+v, %v", f, err)
		}
	})
}
