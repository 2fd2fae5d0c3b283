package ops_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
)

// TestWhatNoNodeCanPersistHoldsUpNoOtherFile, however many older files that is: their node
// is lost, does not have their bytes any more, or does nothing but wait for its storage.
func TestWhatNoNodeCanPersistHoldsUpNoOtherFile(t *testing.T) {
	const older = 1200 // more than are looked at in one pass
	for name, stuck := range map[string]func(n *node){
		"lost":    func(n *node) { n.to = nil },
		"emptied": func(n *node) { clear(n.blocks); n.told = false },
		"waiting": func(*node) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, mem.Local, time.Minute)
				l := w.lead(ops.Options{})
				a, b := w.keeper("n1", l), w.keeper("n2", l)
				seconds := func(n int) {
					t.Helper()
					for range n {
						<-time.After(time.Second)
						for _, n := range []*node{a, b} {
							if n.to != nil {
								n.beat()
							}
						}
					}
				}
				length := int64(3)
				var oldest []freshet.FileID
				keep := func(i int, n *node) {
					t.Helper()
					q := freshet.BeginWriteQuery{Op: freshet.OpID{1, byte(i >> 8), byte(i)}, Path: freshet.Path(fmt.Sprintf("/m/f%d", i)), Node: n.id, Write: freshet.MustCache, Length: &length}
					at := keepFile(t, l, q, map[freshet.NodeID]*node{n.id: n})
					if at.Node.ID != n.id {
						t.Fatalf("kept by %s", at.Node.ID)
					}
					oldest = append(oldest, at.File)
				}
				for i := range older {
					keep(i, a)
				}
				stuck(a)
				seconds(10)
				keep(older, b)
				all, err := l.Kept()
				if err != nil || len(all) != older+1 {
					t.Fatalf("%d files, %v", len(all), err)
				}
				queue := &namespace.QueuePersist{At: time.Now()}
				for i := range all {
					queue.Files = append(queue.Files, all[i].File)
				}
				w.apply(namespace.Command{QueuePersist: queue})
				seconds(5)
				if len(b.reply.Persist) != 1 || b.reply.Persist[0].Path != freshet.Path(fmt.Sprintf("/m/f%d", older)) {
					t.Errorf("the other node is ordered %+v", b.reply.Persist)
				}
				var got, want []freshet.FileID // of the oldest, as many as one node may have
				for _, o := range a.reply.Persist {
					got = append(got, o.File)
				}
				if name == "waiting" {
					want = oldest[:32]
				}
				if slices.Sort(got); !slices.Equal(got, want) {
					t.Errorf("the node of the older files is ordered %v, want %v", got, want)
				}
			})
		})
	}
}

// order waits until the node is ordered to persist the file, and sends its bytes.
func order(t *testing.T, n *node, file freshet.FileID, data string) *upload {
	t.Helper()
	for range 10 {
		<-time.After(time.Second)
		n.beat()
		for _, o := range n.reply.Persist {
			if o.File != file {
				continue
			}
			u := &upload{n: n, ticket: freshet.Ticket{Op: o.Op, Target: o.Target}}
			n.active[o.Op] = true
			opts := ufs.CreateOptions{Op: o.Op, Size: int64(len(data)), IfMatch: o.Beneath, IfAbsent: !o.Beneath.Known()}
			var err error
			if u.writer, err = n.fs.Create(t.Context(), o.Target.Key, opts); err == nil {
				_, err = u.writer.Write([]byte(data))
			}
			if err != nil {
				t.Fatal(err)
			}
			return u
		}
	}
	t.Fatalf("the node is not ordered to persist version %d", file)
	return nil
}

// TestAChangeWaitsForAReplacedVersion that is on its way to the storage when its file is
// renamed or removed, be it that the storage has it already or that it comes later: it is not
// there again afterwards, and lies beneath the version that replaced it.
func TestAChangeWaitsForAReplacedVersion(t *testing.T) {
	change := map[string]func(*straggler) error{
		"rename": func(s *straggler) error {
			_, err := s.l.Rename(context.Background(), freshet.RenameQuery{Path: "/m/f", Target: "/m/g"})
			return err
		},
		"remove": func(s *straggler) error {
			_, err := s.l.Remove(context.Background(), freshet.RemoveQuery{Path: "/m/f"})
			return err
		},
	}
	for name, do := range change {
		for _, older := range []bool{false, true} {
			for _, landed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, the storage has an older one %t, has it already %t", name, older, landed), func(t *testing.T) {
					each(t, func(t *testing.T, mode mem.Mode) {
						w := newWorld(t, mode, time.Minute)
						s := &straggler{w: w, l: w.lead(ops.Options{})}
						s.n = w.keeper("n1", s.l)
						if older {
							s.n.write("/m/f", "older")
						}
						u := order(t, s.n, s.async(), "old")
						if err := u.permit(); err != nil {
							t.Fatal(err)
						}
						second := s.keep(t, "f")
						end := func(wr freshet.Written, err error) {
							t.Helper()
							if err == nil {
								_, err = s.l.Complete(t.Context(), u.ticket.Op, wr)
							}
							if err != nil {
								t.Fatal(err)
							}
						}
						var wr freshet.Written
						var err error
						if landed {
							wr, err = u.commit()
						}
						done := make(chan error, 1)
						go func() { done <- do(s) }()
						<-time.After(2 * time.Second)
						select {
						case err := <-done:
							t.Errorf("it did not wait: %v", err)
							done <- err
						default:
						}
						if !landed {
							wr, err = u.commit()
						}
						end(wr, err)
						if err := <-done; err != nil {
							t.Fatal(err)
						}
						if st, err := w.fs().Stat(t.Context(), "f"); !freshet.IsKind(err, freshet.KindNotExist) {
							t.Errorf("the old name is there again: %+v, %v", st, err)
						}
						if at := s.at(second); at != map[string]string{"rename": "g"}[name] {
							t.Errorf("the newer version is at %q", at)
						}
						if name == "rename" {
							s.checkBeneath(t, second)
						}
					})
				})
			}
		}
	}
}

// TestWhatADeadNodeWroteIsKnown: the storage has the file, and nobody heard of it before the
// node died. Whether it marks what is ours or not, what was written is not taken for
// somebody else's, which nothing that is not in the storage yet could replace.
func TestWhatADeadNodeWroteIsKnown(t *testing.T) {
	for name, test := range map[string]func(s *straggler){
		"of a write over a file that is not in the storage": func(s *straggler) {
			s.n.write("/m/f", "older")
			kept := s.keep(s.w.t, "f")
			s.died(s.n.begin(freshet.BeginWriteQuery{Path: "/m/f", Node: "n1"}))
			if at := s.at(kept); at != "" {
				s.w.t.Errorf("the older version is still at %q", at)
			}
		},
		"of a write that another one, not in the storage, has replaced": func(s *straggler) {
			u := s.n.begin(freshet.BeginWriteQuery{Path: "/m/f", Node: "n1"})
			u.send("new")
			if err := u.permit(); err != nil {
				s.w.t.Fatal(err)
			}
			kept := s.keep(s.w.t, "f")
			s.died(u)
			s.checkBeneath(s.w.t, kept)
		},
		"of a file that was persisted": func(s *straggler) {
			s.n.write("/m/f", "older")
			first := s.async()
			s.died(order(s.w.t, s.n, first, "old"))
			if !s.w.fs().Features().OperationMark { // that it has its name is not that it is durable
				for tries := 1; tries < 4; tries++ {
					st, err := s.w.fs().Stat(s.w.t.Context(), "f")
					f, ok := s.w.state.UnpersistedOf(first)
					if err != nil || !ok || f.Beneath != st.Fingerprint || f.Attempts != tries || f.Conflict || time.Until(f.Next) < time.Second<<tries/4 {
						s.w.t.Errorf("after %d: %+v, and the storage has %v", tries, f, st.Fingerprint)
					}
					s.died(order(s.w.t, s.n, first, "old"))
				}
			} else if at := s.at(first); at != "" {
				s.w.t.Errorf("it is not in the storage, at %q", at)
			}
		},
		"of a version that was persisted, and replaced meanwhile": func(s *straggler) {
			u := order(s.w.t, s.n, s.async(), "old")
			if err := u.permit(); err != nil {
				s.w.t.Fatal(err)
			}
			kept := s.keep(s.w.t, "f")
			s.died(u)
			s.checkBeneath(s.w.t, kept)
		},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, mode mem.Mode) {
				w := newWorld(t, mode, 0)
				s := &straggler{w: w, l: w.lead(ops.Options{})}
				s.n = w.keeper("n1", s.l)
				test(s)
				w.checkPublished()
			})
		})
	}
}

// TestWritesThatEndAfterANewerVersion was acknowledged, in another order than the storage had
// them: that is over what the storage has, and neither is lost to the storage nor to it.
func TestWritesThatEndAfterANewerVersion(t *testing.T) {
	for i, order := range [][]int{{0, 1}, {1, 0}, {0, 1}, {1, 0}} {
		moved := i > 1
		t.Run(fmt.Sprint(order, " and it is renamed ", moved), func(t *testing.T) {
			each(t, func(t *testing.T, mode mem.Mode) {
				w := newWorld(t, mode, 20*time.Second)
				s := &straggler{w: w, l: w.lead(ops.Options{})}
				s.n = w.keeper("n1", s.l)
				var writes [2]*upload
				for i := range writes {
					writes[i] = s.n.begin(freshet.BeginWriteQuery{Path: "/m/f", Node: "n1"})
					writes[i].send(fmt.Sprint("write ", i))
					if err := writes[i].permit(); err != nil {
						t.Fatal(err)
					}
				}
				kept := s.keep(t, "f")
				var wrote [2]freshet.Written
				for i, u := range writes {
					var err error
					if wrote[i], err = u.commit(); err != nil {
						t.Fatal(err)
					}
				}
				for _, i := range order {
					if _, err := s.l.Complete(t.Context(), writes[i].ticket.Op, wrote[i]); err != nil {
						t.Fatal(err)
					}
					delete(s.n.active, writes[i].ticket.Op)
					again, err := s.l.BeginWrite(t.Context(), freshet.BeginWriteQuery{Op: writes[i].ticket.Op, Path: "/m/f", Node: "n1"})
					if err != nil || !again.Done {
						t.Errorf("asked again, the write is %+v, %v", again, err)
					}
				}
				if moved {
					if _, err := s.l.Rename(t.Context(), freshet.RenameQuery{Path: "/m/f", Target: "/m/g"}); err != nil {
						t.Fatal(err)
					}
					if _, err := w.fs().Stat(t.Context(), "f"); !freshet.IsKind(err, freshet.KindNotExist) {
						t.Errorf("it left something behind: %v", err)
					}
				}
				w.until(5*time.Second, "nothing is under way", func() bool { s.n.beat(); return len(w.state.Intents()) == 0 })
				s.checkBeneath(t, kept)
			})
		})
	}
}

// TestALateWordOfAWriteThatIsGone says nothing of what lies beneath what was written since.
func TestALateWordOfAWriteThatIsGone(t *testing.T) {
	for name, replace := range map[string]func(*straggler) error{
		"replaced": func(s *straggler) error { s.n.write("/m/f", "second"); return nil },
		"removed": func(s *straggler) error {
			_, err := s.l.Remove(context.Background(), freshet.RemoveQuery{Path: "/m/f"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, mode mem.Mode) {
				w := newWorld(t, mode, 20*time.Second)
				s := &straggler{w: w, l: w.lead(ops.Options{})}
				s.n = w.keeper("n1", s.l)
				first := s.n.begin(freshet.BeginWriteQuery{Path: "/m/f", Node: "n1"})
				first.send("first")
				if err := first.permit(); err != nil {
					t.Fatal(err)
				}
				wrote, err := first.commit()
				if err == nil {
					err = replace(s)
				}
				if err != nil {
					t.Fatal(err)
				}
				kept := s.keep(t, "f")
				if _, err := s.l.Complete(t.Context(), first.ticket.Op, wrote); err != nil {
					t.Fatal(err)
				}
				delete(s.n.active, first.ticket.Op)
				w.until(5*time.Second, "nothing is under way", func() bool { s.n.beat(); return len(w.state.Intents()) == 0 })
				s.checkBeneath(t, kept)
			})
		})
	}
}

// TestAnUploadOfUnknownOutcomeLandsBeforeARename: the version was replaced by one over
// nothing. It goes along, and is not there again under the old name.
func TestAnUploadOfUnknownOutcomeLandsBeforeARename(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint("its node says so late ", late), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, mem.Object, time.Minute)
				s := &straggler{w: w, l: w.lead(ops.Options{})}
				s.n = w.keeper("n1", s.l)
				u := order(t, s.n, s.async(), "old")
				if err := u.permit(); err != nil {
					t.Fatal(err)
				}
				kept := s.keep(t, "f")
				if err := u.writer.Abort(t.Context()); err != nil { // so that nobody finds it
					t.Fatal(err)
				}
				delete(s.n.active, u.ticket.Op) // the node has lost it
				w.until(10*time.Second, "it is in quarantine", func() bool {
					s.n.beat()
					in, _ := w.state.Intent(u.ticket.Op)
					return in.State == namespace.IntentQuarantine
				})
				u.send("old")
				wr, err := u.commit()
				if err == nil && late {
					_, err = s.l.Complete(t.Context(), u.ticket.Op, wr)
				}
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.l.Rename(t.Context(), freshet.RenameQuery{Path: "/m/f", Target: "/m/g"}); err != nil {
					t.Fatal(err)
				}
				if st, err := w.fs().Stat(t.Context(), "f"); !freshet.IsKind(err, freshet.KindNotExist) {
					t.Errorf("the old name is there again: %+v, %v", st, err)
				}
				if at := s.at(kept); at != "g" {
					t.Errorf("the newer version is at %q", at)
				}
				s.checkBeneath(t, kept)
			})
		})
	}
}

// TestAResolutionLooksAgain if the path changed while it looked: a newer write has landed over
// the one that it saw, and lies beneath a version that is newer still.
func TestAResolutionLooksAgain(t *testing.T) {
	each(t, func(t *testing.T, mode mem.Mode) {
		w := newWorld(t, mode, 0)
		s := &straggler{w: w}
		var kept freshet.FileID
		var first freshet.OpID
		var second *upload
		looked := 0
		var mu sync.Mutex // held by whom the node n1 belongs to
		s.l = w.lead(ops.Options{Hook: func(p string, op freshet.OpID) {
			if p != ops.PointResolve || op != first {
				return
			}
			if looked++; looked > 1 {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			wr, err := second.commit()
			if err == nil {
				_, err = s.l.Complete(context.Background(), second.ticket.Op, wr)
			}
			if err != nil {
				t.Error(err)
			}
			kept = s.keep(t, "f")
		}})
		s.n = w.keeper("n1", s.l)
		other := w.node("n2", s.l)
		begin := func(n *node, data string) *upload {
			u := n.begin(freshet.BeginWriteQuery{Path: "/m/f", Node: n.id})
			u.send(data)
			if err := u.permit(); err != nil {
				t.Fatal(err)
			}
			return u
		}
		u := begin(other, "first")
		second, first = begin(s.n, "second"), u.ticket.Op
		if _, err := u.commit(); err != nil {
			t.Fatal(err)
		}
		other.restart()
		w.until(5*time.Second, "it is resolved", func() bool {
			other.beat()
			mu.Lock()
			defer mu.Unlock()
			s.n.beat()
			return len(w.state.Intents()) == 0
		})
		if looked != 2 {
			t.Errorf("the storage was looked at %d times", looked)
		}
		s.checkBeneath(t, kept)
	})
}

// TestWhatSomebodyElseWroteIsNotOurs: a node died with a permit before it published, and
// another program wrote the same bytes.
func TestWhatSomebodyElseWroteIsNotOurs(t *testing.T) {
	each(t, func(t *testing.T, mode mem.Mode) {
		w := newWorld(t, mode, 0)
		s := &straggler{w: w, l: w.lead(ops.Options{})}
		s.n = w.keeper("n1", s.l)
		s.n.write("/m/f", "older")
		kept := s.keep(t, "f")
		u := s.n.begin(freshet.BeginWriteQuery{Path: "/m/f", Node: "n1"})
		u.send("new")
		if err := u.permit(); err != nil {
			t.Fatal(err)
		}
		before, _ := w.state.UnpersistedOf(kept)
		w.put("f", "new")
		s.restarted()
		if f, ok := w.state.UnpersistedOf(kept); !ok || f.Beneath != before.Beneath {
			t.Errorf("%+v, before %+v", f, before)
		}
		if done, ok, err := w.state.OpResult(u.ticket.Op); ok || err != nil {
			t.Errorf("the write is said to be done: %+v, %v", done, err)
		}
	})
}

// async writes the file f, to be persisted.
func (s *straggler) async() freshet.FileID {
	s.w.t.Helper()
	length := int64(3)
	q := freshet.BeginWriteQuery{Op: freshet.OpID{200}, Path: "/m/f", Node: "n1", Write: freshet.AsyncThrough, Length: &length}
	return keepFile(s.w.t, s.l, q, map[freshet.NodeID]*node{"n1": s.n}).File
}

// died has the node die as soon as the storage has what it uploads, and waits until the
// leader has found out.
func (s *straggler) died(u *upload) {
	s.w.t.Helper()
	if u.writer == nil {
		u.send("new")
	}
	if in, ok := s.w.state.Intent(u.ticket.Op); ok && in.State == namespace.IntentUploading {
		if err := u.permit(); err != nil {
			s.w.t.Fatal(err)
		}
	}
	if _, err := u.commit(); err != nil {
		s.w.t.Fatal(err)
	}
	s.restarted()
}

func (s *straggler) restarted() {
	s.w.t.Helper()
	s.n.restart()
	s.w.until(5*time.Second, "it is resolved", func() bool {
		s.n.beat()
		return len(s.w.state.Intents()) == 0
	})
}

// TestAChangeOfAttributesBeneathANewerVersion: it leaves the bytes as they were, with another
// change time, be it that it is answered or that its leader dies.
func TestAChangeOfAttributesBeneathANewerVersion(t *testing.T) {
	for _, dies := range []bool{false, true} {
		t.Run(fmt.Sprint("its leader dies ", dies), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, mem.Local, time.Second)
				s := &straggler{w: w}
				var kept freshet.FileID
				s.l = w.lead(ops.Options{Hook: func(p string, _ freshet.OpID) {
					in := w.state.Intents()
					changes := len(in) == 1 && in[0].Kind == namespace.OpSetAttr
					if changes && p == ops.PointEffect {
						kept = s.keep(t, "f")
					}
					if changes && p == ops.PointComplete && dies {
						s.l.die()
					}
				}})
				s.n = w.keeper("n1", s.l)
				s.n.write("/m/f", "older")
				bits := uint32(0o644)
				_, err := s.l.SetAttr(context.Background(), freshet.SetAttrQuery{Path: "/m/f", Mode: &bits})
				if (err != nil) != dies {
					t.Fatal(err)
				}
				if dies {
					s.l = w.lead(ops.Options{})
				}
				w.until(5*time.Second, "it has ended", func() bool { return len(w.state.Intents()) == 0 })
				s.checkBeneath(t, kept)
			})
		})
	}
}
