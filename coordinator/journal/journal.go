package journal

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/run"
)

// Journal is one member's part of the replicated log. Its methods are safe for
// concurrent use.
type Journal struct {
	opts     Options
	state    State
	store    *store
	snaps    *snapshots
	machine  *machine
	contacts *contacts
	metrics  *metrics
	clean    bool

	session  atomic.Pointer[session] // nil before and after Run; another one if Raft had to begin again
	started  chan struct{}           // closed when session is first set
	stopping chan struct{}           // closed when Run begins to end
	stopped  chan struct{}           // closed when Run has ended

	mu      sync.Mutex
	ran     bool
	closed  bool
	failErr error
	failed  chan struct{} // closed with failErr
}

// session is what exists while Run works.
type session struct {
	raft       *raft.Raft
	batcher    *batcher
	leadership *leadership
	verifier   *verifier
	changing   chan struct{} // of length 1: one change of the members at a time
	calls      sync.WaitGroup
	gone       chan struct{} // closed when another session is to follow
}

// Open opens the member's log and makes it fit the state: what a crash interrupted
// is finished, and a log that is damaged or does not belong to the state is
// refused (KindCorrupt). It starts nothing. Call Run, or Close.
func Open(opts Options, state State) (*Journal, error) {
	const op = "open journal"
	if err := opts.check(); err != nil {
		return nil, err
	}
	j := &Journal{
		opts: opts, state: state,
		started: make(chan struct{}), stopping: make(chan struct{}), stopped: make(chan struct{}),
		failed: make(chan struct{}),
	}
	j.metrics = newMetrics(j)
	j.contacts = newContacts(raft.ServerID(opts.ID), opts.Clock)
	var err error
	if j.store, err = openStore(&j.opts, j.fail); err != nil {
		return nil, freshet.Wrap(op, "", err)
	}
	j.store.logs.holds.clock = j.opts.Clock
	if err := j.openState(); err != nil {
		return nil, freshet.Wrap(op, "", errors.Join(err, j.store.close()))
	}
	return j, nil
}

// openState makes log, snapshot and state fit.
func (j *Journal) openState() error {
	_, err := j.store.disk.load(runningFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	j.clean = err != nil
	j.snaps, err = openSnapshots(j.store.disk, j.state, j.opts.Identity, j.metrics.snapshotEvents())
	if err != nil {
		return err
	}
	m := j.snaps.latest()
	if err := j.store.trim(m); err != nil {
		return err
	}
	last, err := j.store.logs.LastIndex()
	if err != nil {
		return err
	}
	var needed uint64
	if m != nil { // a received dump may be ahead of the log that follows it
		last, needed = max(last, m.Index, m.Applied), m.Applied
	}
	applied := j.state.Applied()
	switch {
	case applied < needed:
		return freshet.Errorf(freshet.KindCorrupt, "open journal", "",
			"the state has applied %d, but the log begins after %d: data of different times are mixed; "+
				"wipe this member's data directory and let it join again", applied, needed)
	case applied > last && last > 0:
		return freshet.Errorf(freshet.KindCorrupt, "open journal", "",
			"the state has applied %d, but the log ends at %d: data of different times are mixed; "+
				"wipe this member's data directory and let it join again", applied, last)
	}
	j.machine = &machine{state: j.state, snaps: j.snaps, logs: j.store.logs, opts: &j.opts, metrics: j.metrics, fail: j.fail}
	j.machine.init()
	return nil
}

// CleanShutdown reports whether the process that last ran on the data directory
// ended in order, true if there was none. After an unclean end a single member, or
// one with NoSync, may have lost what others saw and must bump its epoch (C22).
func (j *Journal) CleanShutdown() bool { return j.clean }

// fail stops the member: Run ends with the first such error.
func (j *Journal) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failErr == nil {
		j.failErr = err
		close(j.failed)
	}
}

// await waits for Raft's answer, or for the end of a member that can't go on:
// Raft leaves calls unanswered when its main goroutine is gone.
func (j *Journal) await(f raft.Future) error { return j.awaitAnswer(f.Error) }

func (j *Journal) awaitAnswer(ask func() error) error {
	answer := make(chan error, 1)
	go func() { answer <- ask() }()
	var gone chan struct{}
	if s := j.session.Load(); s != nil {
		gone = s.gone
	}
	select {
	case err := <-answer:
		return err
	case <-gone:
		return raft.ErrRaftShutdown
	case <-j.failed:
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.failErr
	}
}

// Run takes part in the cluster until ctx ends, and then leaves in order: no new
// proposals, answers to those on their way, leadership to another member if there
// is one, end of Raft, flush of the state. It returns an error if this member
// can't go on, for example because its disk fails; the process should then end.
// Everything is closed when it returns. It is called once.
func (j *Journal) Run(ctx context.Context) error {
	const op = "run journal"
	j.mu.Lock()
	if j.ran || j.closed {
		j.mu.Unlock()
		return freshet.Errorf(freshet.KindConflict, op, "", "the journal ran already or was closed")
	}
	j.ran = true
	j.mu.Unlock()
	defer close(j.stopped)
	err := j.serve(ctx)
	j.mu.Lock()
	if j.failErr != nil {
		err = j.failErr
	}
	j.mu.Unlock()
	if err == nil {
		err = j.state.Flush()
	}
	if closeErr := j.store.close(); err == nil {
		err = closeErr
	}
	if err == nil { // the very last: all before it is on disk
		err = j.store.disk.remove(runningFile)
	}
	return freshet.Wrap(op, "", err)
}

// serve takes part until ctx ends or this member can't go on.
func (j *Journal) serve(ctx context.Context) error {
	if err := j.store.disk.save(runningFile, nil); err != nil {
		return err
	}
	unregister, err := j.metrics.register(j.opts.Metrics)
	if err != nil {
		return err
	}
	defer unregister()
	for again := true; again; {
		if err := j.outwaitLeases(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		if again, err = j.takePart(ctx); err != nil {
			return err
		}
	}
	return nil
}

// takePart runs Raft and what stands on it. It returns whether Raft has to begin
// again with the log as it is now.
func (j *Journal) takePart(ctx context.Context) (again bool, err error) {
	s, end, err := j.start()
	if err != nil {
		return false, err
	}
	group := run.NewGroup(context.WithoutCancel(ctx))
	group.Go("leadership", s.leadership.run)
	group.Go("watch the leader", func(ctx context.Context) error { return j.watchLeader(ctx, s.raft) })
	group.Go("bound the log", func(ctx context.Context) error { return j.boundLog(ctx, s.raft) })
	working, stopWork := context.WithCancel(group.Context())
	defer stopWork()
	var workers sync.WaitGroup
	for range j.opts.InFlight {
		workers.Add(1)
		group.Go("propose", func(context.Context) error {
			defer workers.Done()
			return s.batcher.work(working)
		})
	}
	if before := j.session.Swap(s); before != nil {
		before.leadership.replaced()
	} else {
		close(j.started)
	}

	select {
	case <-ctx.Done():
	case <-j.failed:
	case <-group.Context().Done(): // a defect: a panic became its error
	case <-j.store.logs.emptied:
		again = true // the session stays until the next: its calls are told that it does not lead
	}
	if again {
		close(s.gone)
		err = end()
	} else {
		j.session.Store(nil)
		close(j.stopping)
	}
	stopWork()
	workers.Wait()
	close(s.batcher.over)
	s.verifier.close()
	j.handOver(s)
	s.calls.Wait()
	group.Stop()
	return again, errors.Join(err, group.Wait(), end())
}

// outwaitLeases keeps a member that restarts from voting as long as a leader may
// rely on an answer that it gave before.
func (j *Journal) outwaitLeases(ctx context.Context) error {
	has, err := j.HasState()
	if err != nil || !has {
		return err
	}
	config, err := j.lastConfiguration()
	if err != nil || len(config.Servers) <= 1 {
		return err
	}
	select {
	case <-time.After(j.opts.LeaderLease): // longer than LeaseFor: clocks differ
	case <-ctx.Done():
	}
	return nil
}

// lastConfiguration returns the members that the log and the snapshot name.
func (j *Journal) lastConfiguration() (raft.Configuration, error) {
	var config raft.Configuration
	first, err := j.store.logs.FirstIndex()
	if err != nil {
		return config, err
	}
	last, err := j.store.logs.LastIndex()
	if err != nil {
		return config, err
	}
	if m := j.snaps.latest(); m != nil {
		config, first = m.Config, max(first, m.Index+1)
	}
	for i := max(first, 1); i <= last; i++ {
		var entry raft.Log
		if err := j.store.logs.GetLog(i, &entry); err != nil {
			return config, err
		}
		if entry.Type == raft.LogConfiguration {
			config = raft.DecodeConfiguration(entry.Data)
		}
	}
	return config, nil
}

// start makes Raft, which starts it. The entries that it reads were checked by
// lastConfiguration; a panic of it would come from a disk that changed since.
func (j *Journal) start() (s *session, end func() error, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = freshet.Errorf(freshet.KindCorrupt, "start raft", "", "%v", v)
		}
	}()
	cfg := j.opts.raftConfig()
	network, err := newTransport(&j.opts, newRaftLog(j.opts.Log))
	if err != nil {
		return nil, nil, err
	}
	trans := &timed{transport: network, to: j.contacts, reachable: j.opts.Heartbeat, holds: &j.store.logs.holds}
	r, err := raft.NewRaft(cfg, j.machine, j.store.cached, j.store.stable, j.snaps, trans)
	if err != nil {
		return nil, nil, errors.Join(err, network.Close())
	}
	j.contacts.raft.Store(r)
	s = &session{raft: r, changing: make(chan struct{}, 1), gone: make(chan struct{})}
	s.batcher = newBatcher(j, r)
	s.leadership = newLeadership(j, r)
	s.verifier = &verifier{j: j, s: s}
	return s, func() error { return r.Shutdown().Error() }, nil // closes the transport too
}

// handOver gives the leadership to another member, so that nobody has to wait for
// an election.
func (j *Journal) handOver(s *session) {
	select {
	case <-j.failed:
		return // the others notice by themselves
	default:
	}
	if s.raft.State() != raft.Leader {
		return
	}
	for _, server := range s.raft.GetConfiguration().Configuration().Servers {
		if server.Suffrage == raft.Voter && string(server.ID) != j.opts.ID {
			if err := j.await(s.raft.LeadershipTransfer()); err != nil {
				j.opts.Log.Warn("the leadership was not handed over", "error", err)
			}
			return
		}
	}
}

// Close closes a journal that was not run. It does nothing after Run.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ran || j.closed {
		return nil
	}
	j.closed = true
	if j.opts.Listener != nil {
		_ = j.opts.Listener.Close() // nothing was sent on it
	}
	return freshet.Wrap("close journal", "", j.store.close())
}
