package cachenode_test

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
)

func keptTicket(b *bed, file freshet.FileID) freshet.Ticket {
	t := b.ticket(file)
	t.Write = freshet.MustCache
	return t
}

// TestWhatIsKeptIsNotLostToAnotherCluster, which knows nothing of it.
func TestWhatIsKeptIsNotLostToAnotherCluster(t *testing.T) {
	t.Parallel()
	bubble(t, settings{dir: t.TempDir()}, func(t *testing.T, b *bed) {
		data := random(2*blockSize, 3)
		ticket := keptTicket(b, 2)
		_, err := b.node.Write(t.Context(), ticket, bytes.NewReader(data), int64(len(data)))
		check(t, err)
		b.nextBeat()
		var own uuid.UUID
		b.leader.set(func() {
			own = b.leader.reply.Cluster
			b.leader.reply.Cluster, b.leader.reply.Released = uuid.UUID{8}, []freshet.FileID{ticket.File}
			if first := b.leader.beats[0]; first.Cluster != (freshet.ClusterID{}) {
				t.Errorf("a node of no cluster says that it is of %s", first.Cluster)
			}
		})
		if hb := b.nextBeat(); hb.Cluster != own || !slices.Equal(hb.Kept, []freshet.FileID{ticket.File}) {
			t.Errorf("it says that it keeps %v of cluster %s", hb.Kept, hb.Cluster)
		}
		b.nextBeat()
		b.nextBeat()
		if kept, have := b.blocks.Kept(), len(b.blocks.List()); len(kept) != 1 || have != 2 {
			t.Errorf("%v are kept, and %d blocks are there", kept, have)
		}
		b.leader.set(func() { b.leader.reply.Cluster, b.leader.reply.Released = own, nil })
		b.nextBeat()
		b.nextBeat()
		if err := b.node.Ready(); err != nil || len(b.blocks.List()) != 2 {
			t.Errorf("back in its cluster: %v, %d blocks", err, len(b.blocks.List()))
		}
		// Without anything that only it has, it goes along.
		b.leader.set(func() { b.leader.reply.Released = []freshet.FileID{ticket.File} })
		b.nextBeat()
		b.leader.set(func() { b.leader.reply.Cluster = uuid.UUID{8} })
		b.nextBeat()
		b.nextBeat()
		if n := len(b.blocks.List()); n != 0 {
			t.Errorf("%d blocks of another cluster stay", n)
		}
	})
}

// TestKeptUploads: what stays on the node is there when it is acknowledged, touches no
// storage, and needs no permit.
func TestKeptUploads(t *testing.T) {
	t.Parallel()
	for _, dir := range []bool{false, true} {
		s := settings{}
		if dir {
			s.dir = t.TempDir()
		}
		bubble(t, s, func(t *testing.T, b *bed) {
			data := random(2*blockSize+1000, 3)
			for _, declared := range []int64{int64(len(data)), -1} {
				ticket := keptTicket(b, freshet.FileID(2+declared&1))
				done, err := b.node.Write(t.Context(), ticket, bytes.NewReader(data), declared)
				check(t, err)
				if want := fingerprint.Unpersisted(uint64(ticket.File)); done.Info.Length != int64(len(data)) || done.Info.Fingerprint != want {
					t.Errorf("completed: %+v", done.Info)
				}
				for i := range uint32(3) {
					if _, ok := b.blocks.Stat(freshet.BlockID{File: ticket.File, Index: i}); !ok {
						t.Errorf("block %d is not there", i)
					}
				}
				b.blocks.Remove(freshet.BlockID{File: ticket.File})
				if _, ok := b.blocks.Stat(freshet.BlockID{File: ticket.File}); !ok {
					t.Error("a block was removed")
				}
			}
			if got := b.leader.called(); slices.Contains(got, "permit") {
				t.Errorf("calls: %v", got)
			}
			if st, err := b.fs.Stat(t.Context(), "f"); !freshet.IsKind(err, freshet.KindNotExist) {
				t.Errorf("in the storage: %+v, %v", st, err)
			}
			// A client that leaves takes its blocks along.
			ticket := keptTicket(b, 9)
			_, err := b.node.Write(t.Context(), ticket, &endless{left: 2 * blockSize, err: io.ErrUnexpectedEOF}, -1)
			wantKind(t, err, freshet.KindInvalid)
			if _, ok := b.blocks.Stat(freshet.BlockID{File: 9}); ok || slices.Contains(b.blocks.Kept(), 9) {
				t.Errorf("left: %v", b.blocks.Kept())
			}
		})
	}
}

// TestAFullNodeMakesWritersWait: until files are persisted, and not for ever; nothing is
// dropped for it.
func TestAFullNodeMakesWritersWait(t *testing.T) {
	t.Parallel()
	bubble(t, settings{capacity: 3*blockSize + blockSize/2}, func(t *testing.T, b *bed) {
		_, err := b.node.Write(t.Context(), keptTicket(b, 1), bytes.NewReader(random(3*blockSize, 1)), 3*blockSize)
		check(t, err)
		begun := time.Now()
		_, err = b.node.Write(t.Context(), keptTicket(b, 2), bytes.NewReader(random(blockSize, 1)), blockSize)
		wantKind(t, err, freshet.KindExhausted)
		if waited := time.Since(begun); waited < 29*time.Second || waited > 35*time.Second || !strings.Contains(err.Error(), "not in the storage yet") {
			t.Errorf("after %s: %v", waited, err)
		}
		ended := make(chan error)
		go func() {
			_, err := b.node.Write(t.Context(), keptTicket(b, 3), bytes.NewReader(random(blockSize, 1)), blockSize)
			ended <- err
		}()
		time.Sleep(5 * time.Second)
		if asked := b.leader.last().Kept; !slices.Contains(asked, 1) {
			t.Errorf("the heartbeat asks for %v", asked)
		}
		b.leader.set(func() { b.leader.reply.Released = []freshet.FileID{1} })
		check(t, <-ended)
	})
}

func order(b *bed, file freshet.FileID, length int) freshet.PersistOrder {
	t := b.ticket(file)
	return freshet.PersistOrder{Op: freshet.OpID{byte(file), 2}, File: file, Path: t.Path, Target: t.Target, Length: int64(length), BlockSize: t.BlockSize}
}

func contentOf(t *testing.T, fs ufs.FS, key string) []byte {
	t.Helper()
	rc, _, err := fs.Open(t.Context(), key, ufs.OpenOptions{Length: -1})
	if err != nil {
		return nil
	}
	defer rc.Close()
	got, err := io.ReadAll(rc)
	check(t, err)
	return got
}

// TestAWriteThatTheClusterGaveUp is refused so that the caller may write again: it is the
// operation that does not exist, not the file.
func TestAWriteThatTheClusterGaveUp(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		b.leader.set(func() {
			b.leader.complete = func(freshet.OpID, freshet.Written) error {
				return freshet.Errorf(freshet.KindNotExist, "write", "", "operation is not known")
			}
		})
		_, err := b.node.Write(t.Context(), keptTicket(b, 1), bytes.NewReader(random(500, 5)), 500)
		if !freshet.IsKind(err, freshet.KindUnavailable) || !strings.Contains(err.Error(), "nothing was written") {
			t.Errorf("got %v", err)
		}
	})
}

// TestAWriteThatBeganBeforeTheNode is refused for the moment: what its ticket names is
// an earlier run of the node.
func TestAWriteThatBeganBeforeTheNode(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		b.leader.set(func() {
			b.leader.permit = func(freshet.OpID) error {
				return freshet.Errorf(freshet.KindConflict, "permit", "", "the operation belongs to another run of a node")
			}
		})
		_, err := b.node.Write(t.Context(), b.ticket(1), bytes.NewReader(random(500, 5)), 500)
		if !freshet.IsKind(err, freshet.KindUnavailable) {
			t.Errorf("got %v", err)
		}
		if st, err := b.fs.Stat(t.Context(), "f"); !freshet.IsKind(err, freshet.KindNotExist) {
			t.Errorf("in the storage: %+v, %v", st, err)
		}
	})
}

// TestOrdersToPersist: the file gets to the storage once, with a permit, and never over
// what somebody else has written, unless that is the same.
func TestOrdersToPersist(t *testing.T) {
	t.Parallel()
	data := random(blockSize+500, 5)
	put := func(t *testing.T, fs ufs.FS, data []byte) {
		w, err := fs.Create(t.Context(), "f", ufs.CreateOptions{Size: int64(len(data))})
		check(t, err)
		_, err = w.Write(data)
		check(t, err)
		_, err = w.Commit(context.WithoutCancel(t.Context()))
		check(t, err)
	}
	for name, c := range map[string]struct {
		before   []byte
		written  bool
		conflict bool
	}{
		"nothing is there":        {written: true},
		"other bytes are there":   {before: data[:100], conflict: true},
		"the very same are there": {before: data, written: true},
	} {
		bubble(t, settings{}, func(t *testing.T, b *bed) {
			_, err := b.node.Write(t.Context(), keptTicket(b, 1), bytes.NewReader(data), int64(len(data)))
			check(t, err)
			if c.before != nil {
				put(t, b.fs, c.before)
			}
			o := order(b, 1, len(data))
			var told []freshet.FinishedOp
			b.leader.set(func() {
				b.leader.reply.Persist = []freshet.PersistOrder{o}
				b.leader.calls = nil
				b.leader.complete = func(freshet.OpID, freshet.Written) error { // it is no order any more
					b.leader.set(func() { b.leader.reply.Persist = nil })
					return nil
				}
			})
			time.Sleep(3 * time.Second)
			synctest.Wait()
			told = b.leader.last().Finished
			completed := slices.Contains(b.leader.called(), "complete")
			if completed != c.written {
				t.Errorf("%s: calls %v", name, b.leader.called())
			}
			if c.conflict && (len(told) != 1 || !told[0].Conflict || told[0].Failure == "" || told[0].Written != nil) {
				t.Errorf("%s: told %+v", name, told)
			}
			want := data
			if c.conflict {
				want = c.before
			}
			if got := contentOf(t, b.fs, "f"); !bytes.Equal(got, want) {
				t.Errorf("%s: the storage holds %d bytes", name, len(got))
			}
			b.leader.set(func() { b.leader.reply.Persist = nil })
		})
	}
}

// TestAPermitTellsTheFileFromOthers, where the storage has no marks: should the node die
// then, the leader knows whether it published.
func TestAPermitTellsTheFileFromOthers(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(t *testing.T, b *bed){
		"a write": func(t *testing.T, b *bed) {
			_, err := b.write(b.ticket(1), random(100, 1))
			check(t, err)
		},
		"a file that is persisted": func(t *testing.T, b *bed) {
			_, err := b.write(keptTicket(b, 1), random(100, 1))
			check(t, err)
			b.leader.set(func() {
				b.leader.reply.Persist = []freshet.PersistOrder{order(b, 1, 100)}
				b.leader.complete = func(freshet.OpID, freshet.Written) error {
					b.leader.set(func() { b.leader.reply.Persist = nil })
					return nil
				}
			})
			time.Sleep(3 * time.Second)
			synctest.Wait()
		},
	} {
		bubble(t, settings{store: mem.New(mem.Options{Mode: mem.Local})}, func(t *testing.T, b *bed) {
			do(t, b)
			st, err := b.fs.Stat(t.Context(), "f")
			if err != nil || !st.Fingerprint.Moved(b.leader.sealed) {
				t.Errorf("%s: the storage has %v, told was %v; %v", name, st.Fingerprint, b.leader.sealed, err)
			}
		})
	}
}
