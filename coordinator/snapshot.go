package coordinator

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

var errRestored = errors.New("the state was restored")

// hashWithin is how long a hash waits for its index.
const hashWithin = time.Second

// StateHash returns the hash of this member's own state as of index, or of what is
// applied if that is more, or if index is not reached within a second.
func (c *Coordinator) StateHash(ctx context.Context, index uint64) (freshet.StateHash, error) {
	type answer struct {
		frozen *namespace.Frozen
		err    error
	}
	frozen := make(chan answer, 1)
	take := func(f *namespace.Frozen, err error) { frozen <- answer{f, err} }
	withdraw := c.state.At(index, take)
	var a answer
	select {
	case a = <-frozen:
	case <-c.clock.After(hashWithin):
		if withdraw() {
			c.state.At(0, take)
		}
		a = <-frozen
	case <-ctx.Done():
		if withdraw() {
			return freshet.StateHash{}, &freshet.Error{Op: "hash state", Kind: freshet.KindDeadline, Err: context.Cause(ctx)}
		}
		a = <-frozen
	}
	if a.err != nil {
		return freshet.StateHash{}, a.err
	}
	hash, err := a.frozen.Hash()
	if err = errors.Join(err, a.frozen.Close()); err != nil {
		return freshet.StateHash{}, freshet.Wrap("hash state", "", err)
	}
	m := c.opts.Member
	return freshet.StateHash{Member: nameOr(m.Name, m.ID), Applied: a.frozen.Applied, Hash: hash, Format: namespace.Format}, nil
}

// SaveSnapshot writes a consistent copy of the state while everything goes on. It
// has everything that was acknowledged before the call, unless stale says that this
// member's own state, whatever it lacks, will do.
func (c *Coordinator) SaveSnapshot(ctx context.Context, stale bool, w io.Writer) error {
	const op = "save snapshot"
	if !stale {
		if err := c.barrier(ctx); err != nil {
			return err
		}
	}
	id := c.state.Identity().Cluster
	if id == (freshet.ClusterID{}) {
		return freshet.Errorf(freshet.KindUnavailable, op, "", "this member has no state yet; try again")
	}
	start := c.clock.Elapsed()
	info, err := journal.WriteDump(untilDone{ctx, w}, id, c.state.Dump)
	if err != nil {
		return freshet.Wrap(op, "", err)
	}
	c.log.Info("a snapshot was saved", "index", info.Applied, "bytes", info.Bytes, "took", c.clock.Elapsed()-start)
	return nil
}

// untilDone ends a copy when nobody waits for it any more.
type untilDone struct {
	ctx context.Context //nolint:containedctx // it is the copy's
	w   io.Writer
}

// Write implements io.Writer.
func (u untilDone) Write(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.w.Write(p)
}

const opRestore = "restore snapshot"

// RestoreSnapshot replaces the state of all members by a snapshot, in a new epoch
// (C16): every path needs a look at its storage before it is served, the other
// clusters are told that anything may have changed, at once and once more when no
// effect from before can land, and cache nodes drop the sessions of the old epoch.
// Only the leader can do it. A snapshot of another cluster is refused unless Force
// is set; the cluster keeps its own identity and members then too.
func (c *Coordinator) RestoreSnapshot(ctx context.Context, from io.Reader, opts freshet.RestoreOptions) (freshet.Restored, error) {
	if err := c.barrier(ctx); err != nil {
		return freshet.Restored{}, err
	}
	if !c.restoring.TryLock() {
		return freshet.Restored{}, freshet.Errorf(freshet.KindConflict, opRestore, "", "another restore is running")
	}
	defer c.restoring.Unlock()
	received, err := c.spool(func(w io.Writer) error {
		_, err := io.Copy(untilDone{ctx, w}, from)
		return err
	})
	if err != nil {
		return freshet.Restored{}, freshet.Errorf(freshet.KindUnavailable, opRestore, "", "the snapshot was not received: %w", err)
	}
	defer received.remove()
	r, err := c.inspect(received, opts.Force)
	if err != nil {
		return freshet.Restored{}, err
	}
	index, err := c.journal.RestoreIndex()
	if err != nil {
		return freshet.Restored{}, err
	}
	prepared, epoch, err := c.refounded(received, index)
	if err != nil {
		return freshet.Restored{}, err
	}
	if opts.DryRun {
		prepared.remove()
		return r, nil
	}
	c.log.Warn("the state is replaced by a snapshot", "snapshot_index", r.Index, "snapshot_entries", r.Entries, "entries", r.ReplacedEntries, "epoch", epoch)
	term, _ := c.enterLeases()
	release, err := c.leases.Guard(ctx, term, func() []freshet.Path { return []freshet.Path{freshet.Root} })
	if err != nil {
		prepared.remove()
		return freshet.Restored{}, c.leaderHint(err)
	}
	defer release()
	if err := c.journal.Restore(ctx, index, prepared.size, prepared); err != nil {
		return freshet.Restored{}, c.leaderHint(err)
	}
	r.Epoch = epoch
	return r, nil
}

// inspect checks the whole snapshot and says what it would replace.
func (c *Coordinator) inspect(f *spooled, force bool) (freshet.Restored, error) {
	want := c.state.Identity().Cluster
	var state namespace.DumpInfo
	if err := f.rewind(); err != nil {
		return freshet.Restored{}, err
	}
	dump, err := journal.ReadDump(f, freshet.ClusterID{}, func(r io.Reader) (err error) {
		state, err = namespace.InspectDump(r)
		return err
	})
	if err != nil {
		return freshet.Restored{}, err
	}
	if dump.Cluster != state.Cluster || dump.Applied != state.Applied {
		return freshet.Restored{}, freshet.Errorf(freshet.KindCorrupt, opRestore, "", "the snapshot contradicts itself: it says %s at %d outside and %s at %d inside",
			dump.Cluster, dump.Applied, state.Cluster, state.Applied)
	}
	if state.Cluster != want && !force {
		return freshet.Restored{}, freshet.Errorf(freshet.KindConflict, opRestore, "",
			"the snapshot is of cluster %q (%s), this one is %q (%s); --force takes its mounts, policies and entries over all the same",
			state.Name, state.Cluster, c.state.Identity().Name, want)
	}
	if inForce := c.state.Version(); state.Version > inForce {
		return freshet.Restored{}, freshet.Errorf(freshet.KindUnsupported, opRestore, "",
			"the snapshot is of version %d of the state, and version %d is in force; upgrade all members first", state.Version, inForce)
	}
	return freshet.Restored{
		Cluster: state.Cluster, ClusterName: state.Name, Index: state.Applied, OldEpoch: state.Epoch,
		Entries: state.Rows("entries"), Mounts: int(state.Rows("mounts")),
		ReplacedIndex: c.state.Applied(), ReplacedEntries: c.state.Stats().Entries,
	}, nil
}

// refounded makes of a snapshot the dump of the state that the cluster goes on with.
func (c *Coordinator) refounded(f *spooled, index uint64) (out *spooled, epoch uint64, err error) {
	store, remove, err := c.newScratch()
	if err != nil {
		return nil, 0, freshet.Errorf(freshet.KindUnavailable, opRestore, "", "no place to restore into: %w", err)
	}
	defer func() { err = errors.Join(err, remove()) }()
	state, err := namespace.Open(store, namespace.Options{CacheBytes: 1 << 20})
	if err == nil {
		err = f.rewind()
	}
	if err == nil {
		_, err = journal.ReadDump(f, freshet.ClusterID{}, state.Restore)
	}
	if err != nil {
		return nil, 0, freshet.Wrap(opRestore, "", err)
	}
	now := c.clock.Now()
	if err := state.Refound(c.state.Refounding(index, uint64(max(now.Unix(), 1)), now.UTC())); err != nil {
		return nil, 0, err
	}
	out, err = c.spool(func(w io.Writer) error {
		_, err := journal.WriteDump(w, c.state.Identity().Cluster, state.Dump)
		return err
	})
	if err == nil {
		err = out.rewind()
	}
	if err != nil {
		return nil, 0, freshet.Errorf(freshet.KindUnavailable, opRestore, "", "%w", err)
	}
	return out, state.Identity().Epoch, nil
}

func (c *Coordinator) newScratch() (kv.Store, func() error, error) {
	if c.scratch != nil {
		return c.scratch()
	}
	m := kv.NewMemory()
	return m, m.Close, nil
}

// spooled is a temporary file.
type spooled struct {
	*os.File
	size int64
}

// spool writes a temporary file beside the log, whose next start removes it after a
// crash.
func (c *Coordinator) spool(write func(io.Writer) error) (*spooled, error) {
	f, err := os.CreateTemp(c.opts.Journal.Dir, "tmp-restore-*")
	if err != nil {
		return nil, err
	}
	s := &spooled{File: f}
	b := bufio.NewWriterSize(f, 256<<10)
	if err = write(b); err == nil {
		err = b.Flush()
	}
	if err == nil {
		s.size, err = f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

func (s *spooled) rewind() error {
	_, err := s.Seek(0, io.SeekStart)
	return err
}

// Close removes the file too.
func (s *spooled) Close() error { return errors.Join(s.File.Close(), os.Remove(s.Name())) }

func (s *spooled) remove() { _ = s.Close() } // what stays behind is a temporary file
