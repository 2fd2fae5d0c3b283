package coordinator

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/internal/run"
)

// leadership is whether this member leads and has done what a new leader does
// before it answers.
type leadership struct {
	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // it is the leadership: it ends with it
	over    context.Context //nolint:containedctx // one that has ended, for those who ask while nobody leads
	changed signal
	begin   context.CancelCauseFunc // ends what the leader does, for it to begin anew
	// recovered: what an unclean end may have lost was made good. Only the leader's own
	// goroutine looks at it.
	recovered bool
}

func (l *leadership) init() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l.over, l.ctx = ctx, ctx
}

func (l *leadership) set(ctx context.Context) {
	l.mu.Lock()
	l.ctx = ctx
	l.mu.Unlock()
	l.changed.raise()
}

// began says how to make the leader begin its part anew; anew does so.
func (l *leadership) began(begin context.CancelCauseFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin = begin
}

func (l *leadership) anew(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.begin != nil {
		l.begin(why)
	}
}

// Leading returns a context that lives as long as this member leads and may
// answer, and whether it does now.
func (c *Coordinator) Leading() (context.Context, bool) {
	c.lead.mu.Lock()
	defer c.lead.mu.Unlock()
	if _, leads := c.journal.Leading(); !leads || c.lead.ctx.Err() != nil {
		return c.lead.over, false
	}
	return c.lead.ctx, true
}

// Leadership returns a channel that is closed at the next change of what Leading
// returns.
func (c *Coordinator) Leadership() <-chan struct{} { return c.lead.changed.wait() }

// runLeader does the leader's part in each term in which this member leads.
func (c *Coordinator) runLeader(ctx context.Context) error {
	for ctx.Err() == nil { // it may lead for a while yet
		view, changed := c.journal.Leadership()
		if term, ok := c.journal.Leading(); ok && view.Leading {
			if err := c.leadTerm(ctx, term, view.Term); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// leadTerm works until the term or ctx ends.
func (c *Coordinator) leadTerm(ctx, term context.Context, number uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(term, func() { cancel(context.Cause(term)) })()
	c.lead.began(cancel)
	c.enterTerm(number)
	c.leases.Enter(number, c.allowedLeases())
	defer c.leases.Leave()
	c.versions.begin(number)
	if !c.retry(ctx, "take over", func() error { return c.takeOver(ctx) }) {
		return nil
	}
	c.remind()
	c.log.Info("this member leads the cluster", "term", number, "cluster", c.state.Identity().Name, "epoch", c.state.Identity().Epoch)
	g := run.NewGroup(ctx)
	g.Go("operations", func(ctx context.Context) error { return c.ops.Run(ctx, number) })
	// It begins by forgetting which nodes an earlier term heard: the other duties must not
	// take that for what this one knows, and who is told that this member leads may ask for
	// operations at once.
	if c.ops.Begun(g.Context()) == nil {
		c.duties(g, number)
		c.lead.set(g.Context())
	}
	err := g.Wait()
	c.lead.set(c.lead.over)
	if term.Err() == nil && err != nil {
		return err
	}
	return nil
}

// duties starts what the leader does unasked until its term ends.
func (c *Coordinator) duties(g *run.Group, term uint64) {
	g.Go("tidy up", c.tidy)
	g.Go("prefetch", c.sync.Prefetch)
	g.Go("active sync", func(ctx context.Context) error { return c.active.Run(ctx, term) })
	g.Go("clean storages", c.cleanStorages)
	if c.opts.Audit.PerSecond > 0 {
		g.Go("audit storages", c.auditStorages)
	}
	g.Go("sync jobs", c.runSyncJobs)
	g.Go("warms", c.runWarms)
	g.Go("copy blocks", c.boundCopies)
}

// retry repeats fn until it succeeds; false if ctx ended first.
func (c *Coordinator) retry(ctx context.Context, what string, fn func() error) bool {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := fn()
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		c.log.Warn("the leader could not do its first duties; it tries again", "duty", what, "error", err)
		select {
		case <-c.clock.After(wait):
		case <-ctx.Done():
			return false
		}
	}
}

// takeOver does what must be true before the first answer of a term: the cluster
// is founded and ours, this member's addresses are known, and what an unclean
// end may have lost is made good.
func (c *Coordinator) takeOver(ctx context.Context) error {
	id := c.state.Identity()
	if id.Cluster == (freshet.ClusterID{}) {
		if err := c.found(ctx); err != nil {
			return err
		}
		id = c.state.Identity()
	}
	if id.Name != c.opts.Cluster {
		return freshet.Errorf(freshet.KindConflict, "lead", "", "the data directory belongs to cluster %q, the configuration says %q", id.Name, c.opts.Cluster)
	}
	if err := c.setMember(ctx, c.opts.Member); err != nil {
		return err
	}
	c.membership.Lock()
	err := c.raiseVersion(ctx)
	c.membership.Unlock()
	if err != nil {
		return err
	}
	if c.lead.recovered || c.journal.CleanShutdown() {
		return nil
	}
	err = c.afterCrash(ctx)
	c.lead.recovered = err == nil
	return err
}

// found founds the cluster with what the configuration says.
func (c *Coordinator) found(ctx context.Context) error {
	boot := namespace.Bootstrap{
		Cluster: uuid.New(), Name: c.opts.Cluster, Epoch: uint64(max(c.clock.Now().Unix(), 1)), At: c.clock.Now().UTC(),
	}
	for _, seed := range c.opts.Mounts {
		m, _, err := c.planMount(seed)
		if err != nil {
			return freshet.Wrap("found cluster", seed.Path, err)
		}
		setDefault(&m.Origin, "config")
		boot.Mounts = append(boot.Mounts, m)
	}
	for _, p := range c.opts.Policies {
		seed, err := c.seedPolicy(p)
		if err != nil {
			return freshet.Wrap("found cluster", p.Path, err)
		}
		boot.Policies = append(boot.Policies, seed)
	}
	for _, q := range c.opts.Quotas {
		seed, err := c.seedQuota(q)
		if err != nil {
			return freshet.Wrap("found cluster", q.Path, err)
		}
		boot.Quotas = append(boot.Quotas, seed)
	}
	_, err := c.propose(ctx, namespace.Command{Bootstrap: &boot})
	if freshet.IsKind(err, freshet.KindExist) {
		return nil
	}
	if err == nil {
		c.log.Info("cluster founded", "cluster", boot.Name, "cluster_id", boot.Cluster.String(), "epoch", boot.Epoch, "mounts", len(boot.Mounts))
	}
	return err
}

// afterCrash makes good what a member that ended uncleanly may have lost: a single
// one, or one that does not sync its log, starts a new epoch, so that receivers
// start over (C22), and says that anything may have changed (C16).
func (c *Coordinator) afterCrash(ctx context.Context) error {
	peers, err := c.journal.Peers()
	if err != nil {
		return err
	}
	if len(peers) > 1 && !c.opts.Journal.NoSync {
		return nil
	}
	_, err = c.bumpEpoch(ctx, uint64(max(c.clock.Now().Unix(), 1)))
	return err
}

// setMember records a member's addresses if they are news.
func (c *Coordinator) setMember(ctx context.Context, m namespace.Member) error {
	if slices.Contains(c.state.Members(), m) {
		return nil
	}
	_, err := c.propose(ctx, namespace.Command{SetMember: &m})
	return err
}

// propose replicates commands and returns their results, or the first refusal.
func (c *Coordinator) propose(ctx context.Context, cmds ...namespace.Command) ([]namespace.Result, error) {
	if op := freshet.OpOf(ctx); !op.IsZero() && len(cmds) == 1 {
		cmds[0].Once = &op
	}
	results, err := c.commit(ctx, cmds...)
	if err != nil {
		return nil, c.leaderHint(err)
	}
	for i := range results {
		if results[i].Err != nil {
			return results, results[i].Err
		}
	}
	return results, nil
}

// enterTerm empties the memory that only holds for one term. It is called by the
// first read of a term or by the leader's loop, whichever comes first.
func (c *Coordinator) enterTerm(term uint64) {
	if c.term.Load() == term {
		return
	}
	c.contacts.mu.Lock()
	defer c.contacts.mu.Unlock()
	if c.term.Load() == term {
		return
	}
	c.sync.Forget()
	c.uses.begin(c.clock.Elapsed())
	c.contacts.forget()
	c.term.Store(term)
}

// takeOverWithin bounds how long a read waits for a new leader's first duties.
const takeOverWithin = 5 * time.Second

// awaitTakeOver waits until a member that was just elected has made good what an
// unclean end may have lost: before that it must not answer.
func (c *Coordinator) awaitTakeOver(ctx context.Context) error {
	var late <-chan time.Time
	for {
		changed := c.Leadership()
		if _, leads := c.Leading(); leads {
			return nil
		}
		if _, leads := c.journal.Leading(); !leads {
			return c.leaderHint(freshet.Errorf(freshet.KindNotLeader, "read", "", "this member does not lead the cluster any more"))
		}
		if late == nil {
			late = c.clock.After(takeOverWithin)
		}
		select {
		case <-changed:
		case <-late:
			return freshet.Errorf(freshet.KindUnavailable, "read", "", "this member was just elected and is taking over; try again")
		case <-ctx.Done():
			return &freshet.Error{Op: "read", Kind: freshet.KindDeadline, Err: context.Cause(ctx)}
		}
	}
}

// barrier returns when a read of the state is linearizable, and knows that this
// member leads the term whose memory is used.
func (c *Coordinator) barrier(ctx context.Context) error {
	if _, err := c.journal.ReadBarrier(ctx); err != nil {
		return c.leaderHint(err)
	}
	if err := c.awaitTakeOver(ctx); err != nil {
		return err
	}
	c.enterTerm(c.journal.Term())
	founded, err := c.state.Founded()
	if err == nil && !founded {
		return freshet.Errorf(freshet.KindUnavailable, "read", "", "the cluster is being founded; try again")
	}
	return err
}

// LeaderAddress returns the address of the leader for clients, "" if it is not
// known.
func (c *Coordinator) LeaderAddress() string {
	id, _ := c.journal.Leader()
	for _, m := range c.state.Members() {
		if m.ID == id {
			return m.GRPC
		}
	}
	return ""
}

// Ready says why this member can't serve calls, nil if it can: it leads, or knows
// whom to forward to.
func (c *Coordinator) Ready() error {
	if _, leads := c.Leading(); leads {
		return nil
	}
	id, _ := c.journal.Leader()
	switch {
	case c.state.Err() != nil:
		return c.state.Err()
	case id == "":
		return freshet.Errorf(freshet.KindUnavailable, "serve", "", "the cluster has no leader, or this member can't reach it")
	case id == c.opts.Member.ID:
		return freshet.Errorf(freshet.KindUnavailable, "serve", "", "this member was just elected and is taking over")
	case c.LeaderAddress() == "":
		return freshet.Errorf(freshet.KindUnavailable, "serve", "", "the address of the leader %s is not known yet", id)
	}
	return nil
}

// notLeaderError adds the leader's client address, for those who forward.
type notLeaderError struct {
	error
	addr string
}

// LeaderAddress returns the leader's address for clients.
func (e *notLeaderError) LeaderAddress() string { return e.addr }

// Unwrap returns the cause.
func (e *notLeaderError) Unwrap() error { return e.error }

func (c *Coordinator) leaderHint(err error) error {
	if !freshet.IsKind(err, freshet.KindNotLeader) {
		return err
	}
	return &freshet.Error{Kind: freshet.KindNotLeader, Err: &notLeaderError{error: err, addr: c.LeaderAddress()}}
}

// runAnnounce tells the leader this member's addresses while it does not know
// them, for a follower can't write them into the state itself, and each leader once
// which version of the state this member applies.
func (c *Coordinator) runAnnounce(ctx context.Context) error {
	for {
		members := c.watch.members.wait()
		_, leadership := c.journal.Leadership()
		pause := c.announce(ctx)
		var again <-chan time.Time
		if pause > 0 {
			again = c.clock.After(pause)
		}
		select {
		case <-members:
		case <-leadership:
		case <-again:
		case <-ctx.Done():
			return nil
		}
	}
}

// announce tries once and returns after how long to try again, 0 if there is
// nothing to do.
func (c *Coordinator) announce(ctx context.Context) time.Duration {
	hook := c.hooks.Load().Announce
	view, _ := c.journal.Leadership()
	if hook == nil || view.Leading || view.ID == c.opts.Member.ID {
		return 0
	}
	if slices.Contains(c.state.Members(), c.opts.Member) && c.versions.toldIn(view.Term) {
		return 0
	}
	addr := c.LeaderAddress()
	if addr == "" {
		return time.Second
	}
	self := memberOf(c.opts.Member, journal.Peer{Voter: true})
	self.StateVersion = c.opts.Applies
	if err := hook(ctx, addr, self); err == nil {
		c.versions.tell(view.Term)
	} else if ctx.Err() == nil {
		c.log.Warn("the leader could not be told this member's addresses and version", "leader", addr, "error", err)
	}
	return time.Second
}

func memberOf(m namespace.Member, p journal.Peer) freshet.Member {
	return freshet.Member{ID: m.ID, Name: m.Name, GRPC: m.GRPC, HTTP: m.HTTP, Raft: m.Raft, Bus: m.Bus, Leader: p.Leader, Voter: p.Voter}
}
