package cachenode_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode"
	"github.com/freshet-io/freshet/ufs"
)

func TestWriteReachesStorageAndCache(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, blockSize - 1, blockSize, blockSize + 1, 15*blockSize + 7} {
		for _, declared := range []bool{true, false} {
			for _, typ := range []freshet.WriteType{freshet.CacheThrough, freshet.Through} {
				bubble(t, settings{}, func(t *testing.T, b *bed) {
					data := random(size, 2)
					ticket := b.ticket(5)
					ticket.Write = typ
					length := int64(-1)
					if declared {
						length = int64(size)
					}
					done, err := b.node.Write(t.Context(), ticket, bytes.NewReader(data), length)
					check(t, err)
					if !bytes.Equal(b.visible(), data) || done.Info.Length != int64(size) {
						t.Errorf("%d of %d bytes are visible; %+v", len(b.visible()), size, done)
					}
					want := []string{"before-begin", "after-create", "before-permit", "after-permit", "after-commit", "after-complete"}
					if !slices.Equal(b.points, want) || !slices.Equal(b.leader.called(), []string{"permit", "complete"}) {
						t.Errorf("%v; calls %v", b.points, b.leader.called())
					}
					got, origins := b.read(5, done)
					if !bytes.Equal(got, data) {
						t.Error("other bytes are read")
					}
					cached := typ == freshet.CacheThrough && size > 0
					if cached && (len(origins) != 1 || origins[0] != freshet.OriginHit) || !cached && slices.Contains(origins, freshet.OriginHit) {
						t.Errorf("size %d, %v: read from %v", size, typ, origins)
					}
				})
			}
		}
	}
}

func TestReadsAreCounted(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		ticket := b.ticket(1)
		ticket.Write = freshet.Through
		done, err := b.write(ticket, random(blockSize, 1))
		check(t, err)
		for range 3 {
			b.read(1, done)
			synctest.Wait()
		}
		reads, bytes := b.metric("freshet_reads_total"), b.metric("freshet_read_bytes_total")
		if reads["ufs"] != 1 || reads["hit"] != 2 || bytes["ufs"] != blockSize || bytes["hit"] != 2*blockSize {
			t.Errorf("%v %v", reads, bytes)
		}
		if used := b.metric("freshet_cache_bytes")["memory"]; used != float64(b.blocks.Used()) || used == 0 {
			t.Errorf("cache bytes: %v", used)
		}
	})
}

func TestTicketsThatAreRefused(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change   func(*freshet.Ticket)
		declared int64
		kind     freshet.Kind
	}{
		"async_through":     {func(t *freshet.Ticket) { t.Write = freshet.AsyncThrough }, 3, freshet.KindUnsupported},
		"unknown type":      {func(t *freshet.Ticket) { t.Write = 77 }, 3, freshet.KindInvalid},
		"no operation":      {func(t *freshet.Ticket) { t.Op = freshet.OpID{} }, 3, freshet.KindInvalid},
		"another node's":    {func(t *freshet.Ticket) { t.Node.ID = "x" }, 3, freshet.KindInvalid},
		"no block size":     {func(t *freshet.Ticket) { t.BlockSize = 0 }, 3, freshet.KindInvalid},
		"huge block size":   {func(t *freshet.Ticket) { t.BlockSize = 1 << 40 }, 3, freshet.KindInvalid},
		"too many blocks":   {func(t *freshet.Ticket) { t.BlockSize = 1 << 10 }, 1<<42 + 1, freshet.KindInvalid},
		"1 EiB":             {func(*freshet.Ticket) {}, 1 << 60, freshet.KindInvalid},
		"more than it says": {func(*freshet.Ticket) {}, 2, freshet.KindInvalid},
		"less than it says": {func(*freshet.Ticket) {}, 4, freshet.KindInvalid},
		"unknown mount":     {func(t *freshet.Ticket) { t.Target.Mount = 2 }, 3, freshet.KindUnavailable},
	}
	for name, test := range tests {
		bubble(t, settings{}, func(t *testing.T, b *bed) {
			ticket := b.ticket(1)
			test.change(&ticket)
			_, err := b.node.Write(t.Context(), ticket, strings.NewReader("abc"), test.declared)
			if !freshet.IsKind(err, test.kind) {
				t.Errorf("%s: %v", name, err)
			}
			b.wantNothing()
			if slices.Contains(b.leader.called(), "permit") {
				t.Errorf("%s: a permit was asked for", name)
			}
		})
	}
}

// endless gives bytes until it fails; it blocks for ever after that if err is nil.
type endless struct {
	ctx  context.Context
	left int
	err  error
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left <= 0 {
		if e.err != nil {
			return 0, e.err
		}
		<-e.ctx.Done()
		return 0, e.ctx.Err()
	}
	e.left -= len(p)
	return len(p), nil
}

func TestUploadThatDoesNotEndLeavesNothing(t *testing.T) {
	t.Parallel()
	const some = 3 << 20
	tests := map[string]func(t *testing.T, b *bed) error{
		"the connection breaks": func(t *testing.T, b *bed) error {
			_, err := b.node.Write(t.Context(), b.ticket(1), &endless{left: some, err: io.ErrUnexpectedEOF}, -1)
			wantKind(t, err, freshet.KindInvalid)
			return err
		},
		"the client goes away": func(t *testing.T, b *bed) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := b.node.Write(ctx, b.ticket(1), &endless{ctx: ctx, left: some}, -1)
			wantKind(t, err, freshet.KindUnavailable)
			return err
		},
		"the client falls silent": func(t *testing.T, b *bed) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			start := time.Now()
			_, err := b.node.Write(ctx, b.ticket(1), &endless{ctx: ctx, left: some}, -1)
			if d := time.Since(start); d < 10*time.Minute || d > 11*time.Minute {
				t.Errorf("dropped after %v", d)
			}
			wantKind(t, err, freshet.KindUnavailable)
			return err
		},
		"C16 the cluster was restored meanwhile": func(t *testing.T, b *bed) error {
			b.on("after-create", func() { b.leader.set(func() { b.leader.reply.Epoch = 5 }) })
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := b.node.Write(ctx, b.ticket(1), &endless{ctx: ctx, left: some}, -1)
			wantKind(t, err, freshet.KindConflict)
			return err
		},
		"the cluster has given it up": func(t *testing.T, b *bed) error {
			b.on("after-create", func() { b.leader.set(func() { b.leader.reply.Abort = []freshet.OpID{b.ticket(1).Op} }) })
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := b.node.Write(ctx, b.ticket(1), &endless{ctx: ctx, left: some}, -1)
			wantKind(t, err, freshet.KindUnavailable)
			return err
		},
		"the permit is refused": func(t *testing.T, b *bed) error {
			b.leader.permit = func(freshet.OpID) error { return freshet.Errorf(freshet.KindNotExist, "permit", "", "unknown") }
			_, err := b.write(b.ticket(1), random(some, 1))
			wantKind(t, err, freshet.KindUnavailable)
			return err
		},
		"no leader permits": func(t *testing.T, b *bed) error {
			b.on("before-permit", func() { b.leader.set(func() { b.leader.down = true }) })
			_, err := b.write(b.ticket(1), random(some, 1))
			wantKind(t, err, freshet.KindUnavailable)
			b.leader.set(func() { b.leader.down = false })
			return err
		},
		"the storage refuses the commit": func(t *testing.T, b *bed) error {
			b.failAt("commit", freshet.KindPermission)
			_, err := b.write(b.ticket(1), random(some, 1))
			wantKind(t, err, freshet.KindPermission)
			return err
		},
		"the storage is not reached for the commit": func(t *testing.T, b *bed) error {
			b.setHook(func(step string) error {
				if step == "commit" {
					return &freshet.Error{Op: step, Kind: freshet.KindUnavailable, Err: fmt.Errorf("connection refused: %w", ufs.ErrNotSent)}
				}
				return nil
			})
			_, err := b.write(b.ticket(1), random(some, 1))
			wantKind(t, err, freshet.KindUnavailable)
			return err
		},
		"the storage does not complete it": func(t *testing.T, b *bed) error {
			b.failAt("seal", freshet.KindDeadline) // of what is still hidden: nothing is unknown
			_, err := b.write(b.ticket(1), random(some, 1))
			wantKind(t, err, freshet.KindUnavailable)
			if slices.Contains(b.leader.called(), "permit") {
				t.Error("a permit was asked for")
			}
			return err
		},
		"the storage fails a write": func(t *testing.T, b *bed) error {
			b.failAt("write", freshet.KindExhausted)
			_, err := b.write(b.ticket(1), random(some, 1))
			wantKind(t, err, freshet.KindExhausted)
			return err
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, settings{}, func(t *testing.T, b *bed) {
				err := test(t, b)
				b.nextBeat()
				b.wantNothing()
				calls, hb := b.leader.called(), b.nextBeat()
				aborted := slices.Contains(calls, "abort") || len(hb.Finished) == 1 && !hb.Finished[0].Uncertain && hb.Finished[0].Written == nil
				if !aborted || slices.Contains(calls, "complete") || len(hb.Active) != 0 {
					t.Errorf("the leader was told %v, %+v (%v)", calls, hb, err)
				}
			})
		})
	}
}

func TestNothingIsPublishedWithoutALease(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		b.on("before-permit", func() {
			b.leader.set(func() { b.leader.down = true })
			time.Sleep(10 * time.Second) // the lease runs out
			go func() {
				time.Sleep(5 * time.Second)
				if b.visible() != nil {
					t.Error("published without a lease")
				}
				b.leader.set(func() { b.leader.down = false })
			}()
		})
		start := time.Now()
		_, err := b.write(b.ticket(1), random(1000, 1))
		check(t, err)
		if d := time.Since(start); d < 15*time.Second || b.visible() == nil {
			t.Errorf("published after %v", d)
		}
	})
}

// TestC15PermitOfADeposedLeaderIsNotUsed: the leader changes between the permit
// and the effect; the upload asks the new one before it goes on.
func TestC15PermitOfADeposedLeaderIsNotUsed(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		b.on("after-permit", func() {
			b.leader.set(func() { b.leader.reply.Term = 3 })
			b.nextBeat()
		})
		_, err := b.write(b.ticket(1), random(1000, 1))
		check(t, err)
		if calls := b.leader.called(); !slices.Equal(calls, []string{"permit", "permit", "complete"}) {
			t.Errorf("%v", calls)
		}
	})
}

// TestC15LeaseThatEndsAfterThePermitStopsThePublication: the process is paused
// between permit and effect for longer than its lease.
func TestC15LeaseThatEndsAfterThePermitStopsThePublication(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		b.on("after-permit", func() {
			b.leader.set(func() { b.leader.down = true })
			time.Sleep(10 * time.Second)
		})
		_, err := b.write(b.ticket(1), random(1000, 1))
		wantKind(t, err, freshet.KindUnavailable)
		b.leader.set(func() { b.leader.down = false })
		b.nextBeat()
		b.wantNothing()
	})
}

func TestUnknownOutcomeIsReportedUntilSettled(t *testing.T) {
	t.Parallel()
	for _, kind := range []freshet.Kind{freshet.KindDeadline, freshet.KindUnavailable, freshet.KindInternal, freshet.KindNotExist} {
		bubble(t, settings{}, func(t *testing.T, b *bed) {
			b.failAt("commit", kind)
			_, err := b.write(b.ticket(1), random(1000, 1))
			wantKind(t, err, freshet.KindDeadline)
			for range 3 {
				if hb := b.nextBeat(); len(hb.Finished) != 1 || !hb.Finished[0].Uncertain || hb.Finished[0].Written != nil || len(hb.Active) != 0 {
					t.Fatalf("%+v", hb)
				}
			}
			_, err = b.write(b.ticket(1), random(1000, 1)) // the client tries again
			wantKind(t, err, freshet.KindDeadline)
			if calls := b.leader.called(); slices.Contains(calls, "complete") || slices.Contains(calls, "abort") {
				t.Errorf("the leader was told %v", calls)
			}
			if len(b.blocks.List()) != 0 || b.blocks.Used() != 0 {
				t.Error("blocks of an unknown outcome are kept")
			}
			b.leader.set(func() { b.leader.reply.Settled = []freshet.OpID{b.ticket(1).Op} })
			b.nextBeat()
			if hb := b.nextBeat(); len(hb.Finished) != 0 {
				t.Errorf("%+v", hb)
			}
		})
	}
}

func TestFileThatNoLeaderConfirmsIsReportedByHeartbeat(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		b.on("after-commit", func() { b.leader.set(func() { b.leader.down = true }) })
		data := random(1000, 1)
		_, err := b.write(b.ticket(1), data)
		wantKind(t, err, freshet.KindDeadline)
		b.leader.set(func() { b.leader.down = false })
		hb := b.nextBeat()
		if len(hb.Finished) != 1 || hb.Finished[0].Written == nil || hb.Finished[0].Written.Length != 1000 || !hb.Finished[0].Written.Fingerprint.Known() {
			t.Fatalf("%+v", hb)
		}
		before := b.store.Calls()["commit"]
		done, err := b.write(b.ticket(1), data) // the client tries again: no second effect
		check(t, err)
		if b.store.Calls()["commit"] != before || done.Info.Length != 1000 {
			t.Errorf("a second effect, or %+v", done)
		}
		if hb := b.nextBeat(); len(hb.Finished) != 0 {
			t.Errorf("%+v", hb)
		}
	})
}

// A client that repeats a write just when the write ends gets its outcome, and the storage
// is not written again.
func TestAWriteThatEndsWhileItIsRepeatedIsNotBegunAgain(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		data := random(1000, 1)
		b.on("before-begin", func() {
			b.on("before-begin", func() {})
			b.leader.set(func() {
				b.leader.complete = func(freshet.OpID, freshet.Written) error {
					return freshet.Errorf(freshet.KindUnavailable, "complete", "", "no leader")
				}
			})
			_, err := b.write(b.ticket(1), data)
			wantKind(t, err, freshet.KindDeadline)
			b.leader.set(func() { b.leader.complete = nil })
		})
		done, err := b.write(b.ticket(1), data)
		if err != nil || done.Info.Length != 1000 {
			t.Errorf("the repeated write: %+v, %v", done, err)
		}
		if calls := b.leader.called(); slices.Contains(calls, "abort") || b.store.Calls()["commit"] != 1 {
			t.Errorf("calls: %q, %d commits", calls, b.store.Calls()["commit"])
		}
	})
}

func TestWriterIsReportedActiveAndOnlyOnce(t *testing.T) {
	t.Parallel()
	bubble(t, settings{opts: cachenode.Options{MaxUploads: 1}}, func(t *testing.T, b *bed) {
		r, w := io.Pipe()
		result := make(chan error)
		go func() {
			_, err := b.node.Write(t.Context(), b.ticket(1), r, -1)
			result <- err
		}()
		if hb := b.nextBeat(); !slices.Equal(hb.Active, []freshet.OpID{b.ticket(1).Op}) {
			t.Errorf("%+v", hb)
		}
		_, err := b.write(b.ticket(1), nil)
		wantKind(t, err, freshet.KindConflict)
		_, err = b.write(b.ticket(2), nil)
		wantKind(t, err, freshet.KindExhausted)
		_, _ = w.Write([]byte("abc"))
		check(t, w.Close())
		check(t, <-result)
		if string(b.visible()) != "abc" {
			t.Errorf("%q", b.visible())
		}
	})
}

func TestCacheNeverFailsAWrite(t *testing.T) {
	t.Parallel()
	// More than the cache holds: what is kept is right, the rest comes from the
	// storage.
	bubble(t, settings{capacity: 5 * blockSize}, func(t *testing.T, b *bed) {
		data := random(20*blockSize+5, 3)
		done, err := b.write(b.ticket(1), data)
		check(t, err)
		if n := len(b.blocks.List()); n < 1 || n > 3 {
			t.Errorf("%d blocks were kept", n)
		}
		got, _ := b.read(1, done)
		if !bytes.Equal(got, data) || !bytes.Equal(b.visible(), data) {
			t.Error("wrong bytes")
		}
	})
	bubble(t, settings{capacity: 100}, func(t *testing.T, b *bed) {
		data := random(3*blockSize, 3)
		_, err := b.node.Write(t.Context(), b.ticket(1), bytes.NewReader(data), -1)
		check(t, err)
		if !bytes.Equal(b.visible(), data) || b.blocks.Used() != 0 {
			t.Errorf("%d bytes taken", b.blocks.Used())
		}
	})
}

func TestStopLetsUploadsEndAndAbortsTheRest(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		r, w := io.Pipe()
		results := make(chan error, 2)
		go func() {
			_, err := b.node.Write(t.Context(), b.ticket(1), r, -1)
			results <- err
		}()
		body := &closable{Reader: new(bytes.Buffer), closed: make(chan struct{})}
		stuck := b.ticket(2)
		stuck.Target.Key = "stuck"
		stuckResult := make(chan error, 1)
		go func() {
			_, err := b.node.Write(t.Context(), stuck, body, -1)
			stuckResult <- err
		}()
		synctest.Wait()
		go b.stop()
		synctest.Wait()
		_, err := b.write(b.ticket(3), nil)
		wantKind(t, err, freshet.KindUnavailable)
		_, _ = w.Write([]byte("in time"))
		check(t, w.Close())
		check(t, <-results)
		start := time.Now()
		wantKind(t, <-stuckResult, freshet.KindUnavailable)
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("aborted after %v", d)
		}
		b.stop()
		if s := b.store.Snapshot(); string(s["f"]) != "in time" || s["stuck"] != nil || b.store.Uploads() != 0 {
			t.Errorf("%v, %d uploads are left", s, b.store.Uploads())
		}
		if hb := b.leader.last(); len(hb.Active) != 0 || len(hb.Finished) != 0 {
			t.Errorf("the last heartbeat: %+v", hb)
		}
	})
}

// closable is a body that gives nothing until it is closed.
type closable struct {
	io.Reader
	closed chan struct{}
}

func (c *closable) Read([]byte) (int, error) { <-c.closed; return 0, errors.New("closed") }
func (c *closable) Close() error             { close(c.closed); return nil }

// TestStopDoesNotWaitForACommitThatHangs: its outcome is left to the leader.
func TestStopDoesNotWaitForACommitThatHangs(t *testing.T) {
	t.Parallel()
	hang := func(fs ufs.FS) ufs.FS { return hangingCommits{fs} }
	bubble(t, settings{wrap: hang, opts: cachenode.Options{CommitTimeout: time.Hour}}, func(t *testing.T, b *bed) {
		result := make(chan error, 1)
		go func() {
			_, err := b.write(b.ticket(1), []byte("abc"))
			result <- err
		}()
		synctest.Wait()
		b.stop()
		wantKind(t, <-result, freshet.KindDeadline)
		if hb := b.leader.last(); len(hb.Finished) != 1 || !hb.Finished[0].Uncertain {
			t.Errorf("%+v", hb)
		}
	})
}

type hangingCommits struct{ ufs.FS }

func (h hangingCommits) Create(ctx context.Context, key string, opts ufs.CreateOptions) (ufs.Writer, error) {
	w, err := h.FS.Create(ctx, key, opts)
	return hangingCommit{w}, err
}

type hangingCommit struct{ ufs.Writer }

func (h hangingCommit) Commit(ctx context.Context) (ufs.Status, error) {
	<-ctx.Done()
	return ufs.Status{}, ctx.Err()
}

// TestClientThatLeavesDuringTheCommitDoesNotStopIt: cancelling an effect that is
// on its way would only make its outcome unknown.
func TestClientThatLeavesDuringTheCommitDoesNotStopIt(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(b *bed, cancel func()){
		"client":  func(_ *bed, cancel func()) { cancel() },
		"cluster": func(b *bed, _ func()) { b.leader.set(func() { b.leader.reply.Abort = []freshet.OpID{b.ticket(1).Op} }) },
		"restore": func(b *bed, _ func()) { b.leader.set(func() { b.leader.reply.Epoch++ }) },
	} {
		slow := new(slowCommits)
		wrap := func(fs ufs.FS) ufs.FS { slow.FS = fs; return slow }
		bubble(t, settings{wrap: wrap}, func(t *testing.T, b *bed) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			slow.before = func() { leave(b, cancel); b.nextBeat() }
			_, err := b.node.Write(ctx, b.ticket(1), strings.NewReader("abc"), 3)
			if string(b.visible()) != "abc" {
				t.Fatalf("%s: %v", name, err)
			}
			hb := b.nextBeat()
			if !slices.Contains(b.leader.called(), "complete") && (len(hb.Finished) != 1 || hb.Finished[0].Written == nil) {
				t.Errorf("%s: the leader does not know: %v %+v", name, b.leader.called(), hb)
			}
		})
	}
}

// slowCommits is a storage whose commits take a while, and which an end of the
// upload's context breaks off.
type slowCommits struct {
	ufs.FS
	before func()
}

type slowCommit struct {
	ufs.Writer
	fs     *slowCommits
	upload context.Context
}

func (s *slowCommits) Create(ctx context.Context, key string, opts ufs.CreateOptions) (ufs.Writer, error) {
	w, err := s.FS.Create(ctx, key, opts)
	return &slowCommit{w, s, ctx}, err
}

func (s *slowCommit) Commit(ctx context.Context) (ufs.Status, error) {
	s.fs.before()
	if err := s.upload.Err(); err != nil {
		return ufs.Status{}, freshet.Errorf(freshet.KindUnavailable, "commit", "", "broken off: %w", err)
	}
	return s.Writer.Commit(ctx)
}

// A storage that is away when an upload ends is asked again until what it keeps of
// the upload is gone.
func TestUploadIsCleanedUpWhenTheStorageIsBack(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		var down atomic.Bool
		var tries atomic.Int64
		b.setHook(func(step string) error {
			if step == "abort" {
				tries.Add(1)
			}
			if down.Load() && (step == "abort" || step == "write") {
				return &freshet.Error{Op: step, Kind: freshet.KindUnavailable, Err: errors.New("connection refused")}
			}
			return nil
		})
		b.on("after-create", func() { down.Store(true) })
		_, err := b.write(b.ticket(1), random(3<<20, 1))
		wantKind(t, err, freshet.KindUnavailable)
		time.Sleep(time.Minute)
		if n := tries.Load(); n < 5 || n > 20 {
			t.Errorf("the storage that is away was asked %d times in a minute", n)
		}
		down.Store(false)
		time.Sleep(10 * time.Second)
		before := tries.Load()
		b.wantNothing()
		time.Sleep(time.Minute)
		if n := tries.Load(); n != before {
			t.Errorf("%d tries after the upload was cleaned up", n-before)
		}
	})
}
