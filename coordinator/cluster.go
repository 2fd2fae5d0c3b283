package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/ops"
)

// maxQuarantined is how many operations in quarantine are listed.
const maxQuarantined = 100

// Cluster describes the cluster and what is wrong with it.
func (c *Coordinator) Cluster(ctx context.Context) (freshet.ClusterStatus, error) {
	if err := c.barrier(ctx); err != nil {
		return freshet.ClusterStatus{}, err
	}
	id := c.state.Identity()
	view, _ := c.journal.Leadership()
	mounts, _ := c.state.Mounts()
	totals := c.nodes.Totals(c.clock.Elapsed())
	s := freshet.ClusterStatus{
		Name: id.Name, ID: id.Cluster, Epoch: id.Epoch, Leader: view.ID, Term: view.Term, AppliedIndex: c.state.Applied(),
		Entries: int64(c.state.Stats().Entries), Mounts: int64(len(mounts)), LiveNodes: totals.Live, DeadNodes: totals.Dead,
		Version: c.opts.Version, Raft: map[string]string{"term": strconv.FormatUint(view.Term, 10), "leader": view.ID},
	}
	for _, in := range c.state.Intents() {
		s.Intents++
		if in.State == namespace.IntentQuarantine {
			s.Quarantined++
		}
	}
	s.QuarantinedOps = c.ops.Operations(maxQuarantined, ops.Quarantined)
	peers, err := c.journal.Peers()
	if err != nil {
		return s, err
	}
	s.Members, s.StateVersion = c.members(peers), c.state.Version()
	s.Problems = c.problems(&s, peers, mounts)
	s.Healthy = len(s.Problems) == 0
	return s, nil
}

// members joins what Raft and the state know of the members.
func (c *Coordinator) members(peers []journal.Peer) []freshet.Member {
	known := map[string]namespace.Member{}
	for _, m := range c.state.Members() {
		known[m.ID] = m
	}
	out := make([]freshet.Member, 0, len(peers))
	for _, p := range peers {
		m, ok := known[p.ID]
		if !ok {
			m = namespace.Member{ID: p.ID, Raft: p.Addr}
		}
		one := memberOf(m, p)
		if one.StateVersion = c.versions.get(p.ID); p.ID == c.opts.Member.ID {
			one.StateVersion = c.opts.Applies
		}
		out = append(out, one)
	}
	return out
}

func (c *Coordinator) problems(s *freshet.ClusterStatus, peers []journal.Peer, mounts []freshet.Mount) []string {
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	silent := 0
	for _, p := range peers {
		if limit := 3 * cmp.Or(c.opts.Journal.Heartbeat, time.Second); p.Voter && p.ID != c.opts.Member.ID && (!p.LastContactKnown || p.LastContact > limit) {
			silent++
			say("member %s (%s) does not answer", p.ID, p.Addr)
		}
	}
	if voters := len(peers); voters > 1 && silent > 0 && voters-silent <= voters/2+1 {
		say("one more silent member stops the cluster: %d of %d answer", voters-silent, voters)
	}
	all = append(all, c.outdated(s.Members)...)
	if s.LiveNodes == 0 {
		say("no cache node is live: data can't be read or written")
	}
	if s.DeadNodes > 0 {
		say("cache nodes do not answer: %s", c.silentNodes())
	}
	for _, m := range mounts {
		if why := c.unopened(m.ID); why != "" {
			say("mount %s can't be read or written: %s", m.Path, why)
			continue
		}
		if why := c.missing(&m); why != "" {
			every := m.Interval
			if c.levelOf(&m) == freshet.LevelInvalidate {
				every = shorter(every, m.DegradedInterval)
			}
			say("mount %s is degraded, entries are checked every %s: %s", m.Path, every, why)
		}
	}
	if s.Quarantined > 0 {
		say("%d operations have an unknown outcome; their paths are not cached until nothing of them can land", s.Quarantined)
	}
	all = append(all, c.keptProblems()...)
	slices.Sort(all)
	return all
}

func (c *Coordinator) degradedMounts() int {
	n := 0
	mounts, _ := c.state.Mounts()
	for _, m := range mounts {
		if c.unopened(m.ID) != "" || c.missing(&m) != "" {
			n++
		}
	}
	return n
}

// Nodes returns the cache nodes as the leader sees them.
func (c *Coordinator) Nodes(ctx context.Context) ([]freshet.NodeStatus, error) {
	if err := c.barrier(ctx); err != nil {
		return nil, err
	}
	return c.nodes.List(c.clock.Elapsed()), nil
}

// JoinRaft makes m a member and records its addresses; for one that is a member
// already it records the addresses alone. One that says it is a voter only wants
// its addresses known: if it has been removed meanwhile it is KindNotExist, or a
// member that does not know yet would undo its own removal. It returns the
// cluster's identity.
func (c *Coordinator) JoinRaft(ctx context.Context, m freshet.Member, cluster string) (freshet.ClusterID, uint64, error) {
	const op = "join"
	if err := c.barrier(ctx); err != nil {
		return freshet.ClusterID{}, 0, err
	}
	id := c.state.Identity()
	switch {
	case cluster != "" && cluster != id.Name:
		return freshet.ClusterID{}, 0, freshet.Errorf(freshet.KindConflict, op, "", "this is cluster %q, not %q", id.Name, cluster)
	case m.ID == "" || m.Raft == "":
		return freshet.ClusterID{}, 0, freshet.Errorf(freshet.KindInvalid, op, "", "a member needs an ID and the address that the others reach its log at")
	}
	c.membership.Lock()
	defer c.membership.Unlock()
	if err := c.checkVersion(&m); err != nil {
		return freshet.ClusterID{}, 0, err
	}
	peers, err := c.journal.Peers()
	if err != nil {
		return freshet.ClusterID{}, 0, err
	}
	at := slices.IndexFunc(peers, func(p journal.Peer) bool { return p.ID == m.ID })
	if at < 0 && m.Voter {
		return freshet.ClusterID{}, 0, freshet.Errorf(freshet.KindNotExist, op, "", "%q is not a member any more; add it again, or stop it", nameOr(m.Name, m.ID))
	}
	if at < 0 || peers[at].Addr != m.Raft || !peers[at].Voter {
		if err := c.journal.AddVoter(ctx, journal.Server{ID: m.ID, Addr: m.Raft}); err != nil {
			return freshet.ClusterID{}, 0, c.leaderHint(err)
		}
		c.log.Info("member joined", "member", m.ID, "raft", m.Raft)
	}
	c.versions.say(m.ID, m.StateVersion)
	err = c.setMember(ctx, namespace.Member{ID: m.ID, Name: m.Name, Raft: m.Raft, GRPC: m.GRPC, HTTP: m.HTTP, Bus: m.Bus})
	if err == nil {
		err = c.raiseVersion(ctx)
	}
	return id.Cluster, id.Epoch, err
}

// RemoveRaft removes a member, named by its ID or name.
func (c *Coordinator) RemoveRaft(ctx context.Context, member string, dryRun bool) error {
	const op = "remove member"
	if err := c.barrier(ctx); err != nil {
		return err
	}
	id, err := c.memberID(op, member)
	if err != nil || dryRun {
		return err
	}
	c.membership.Lock()
	defer c.membership.Unlock()
	// The row first: a leader that removes itself can't write afterwards.
	if _, err := c.propose(ctx, namespace.Command{RemoveMember: &namespace.RemoveMember{ID: id}}); err != nil && !freshet.IsKind(err, freshet.KindNotExist) {
		return err
	}
	if err := c.journal.Remove(ctx, id); err != nil || id == c.opts.Member.ID {
		return c.leaderHint(err)
	}
	return c.raiseVersion(ctx) // it may have been the oldest
}

// memberID finds a member by its ID or its name.
func (c *Coordinator) memberID(op, name string) (string, error) {
	peers, err := c.journal.Peers()
	if err != nil {
		return "", err
	}
	for _, m := range c.members(peers) {
		if m.ID == name || m.Name == name {
			return m.ID, nil
		}
	}
	return "", freshet.Errorf(freshet.KindNotExist, op, "", "no member has the ID or name %q", name)
}

// TransferLeadership makes another voter lead: the named one, or the most up to
// date one if the name is empty. It returns the name of the new leader, "" if it
// is not known yet.
func (c *Coordinator) TransferLeadership(ctx context.Context, member string) (string, error) {
	const op = "transfer leadership"
	if err := c.barrier(ctx); err != nil {
		return "", err
	}
	id := ""
	if member != "" {
		var err error
		if id, err = c.memberID(op, member); err != nil {
			return "", err
		}
	}
	if err := c.journal.TransferLeadership(ctx, id); err != nil {
		return "", c.leaderHint(err)
	}
	next, _ := c.journal.Leader()
	for _, m := range c.state.Members() {
		if m.ID == next {
			return nameOr(m.Name, m.ID), nil
		}
	}
	return next, nil
}

// BumpEpoch begins a new epoch, as is due after acknowledged log entries may have
// been lost, and says that anything may have changed. It returns the epoch.
func (c *Coordinator) BumpEpoch(ctx context.Context, dryRun bool) (uint64, error) {
	if err := c.barrier(ctx); err != nil {
		return 0, err
	}
	if done, err := c.repeated(ctx); done || err != nil {
		return c.state.Identity().Epoch, err
	}
	floor := uint64(max(c.clock.Now().Unix(), 1))
	if dryRun {
		return max(c.state.Identity().Epoch+1, floor), nil
	}
	return c.bumpEpoch(ctx, floor)
}

func (c *Coordinator) bumpEpoch(ctx context.Context, floor uint64) (uint64, error) {
	bump := namespace.Command{BumpEpoch: &namespace.BumpEpoch{Floor: floor}}
	if op := freshet.OpOf(ctx); !op.IsZero() {
		bump.Once = &op
	}
	results, err := c.propose(ctx, bump,
		namespace.Command{PublishAll: &namespace.PublishAll{At: c.clock.Now().UTC()}})
	if err != nil {
		return 0, err
	}
	c.again.due(c.clock.Elapsed() + c.longestOp())
	c.log.Warn("a new epoch was begun", "epoch", results[0].Epoch)
	return results[0].Epoch, nil
}
