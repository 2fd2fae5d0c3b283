package journal

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/freshet-io/freshet"
)

// Server is a member of the cluster as Raft knows it.
type Server struct {
	ID   string // Raft server ID
	Addr string // Raft address
}

// Peer is a member with its role.
type Peer struct {
	Server
	Voter  bool
	Leader bool
	// LastContact is how long ago the leader sent the call that the member answered
	// last. It is known to the leader, and of the leader to its followers.
	LastContact      time.Duration
	LastContactKnown bool
}

// Bootstrapper decides who founds a cluster of expect members from those that are
// known: the one with the lowest server ID, and only when all are known, so that
// members who know the same never found two clusters. The servers to pass to
// Bootstrap are returned in the order of their IDs; ok is false as long as members
// are missing. More members than expected are KindInvalid.
func Bootstrapper(expect int, known []Server) (servers []Server, founder string, ok bool, err error) {
	const op = "bootstrap"
	if expect != 1 && expect != 3 && expect != 5 {
		return nil, "", false, freshet.Errorf(freshet.KindInvalid, op, "", "bootstrap_expect is %d; it must be 1, 3 or 5", expect)
	}
	servers = slices.Clone(known)
	slices.SortFunc(servers, func(a, b Server) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Addr, b.Addr)) })
	servers = slices.Compact(servers)
	for i := 1; i < len(servers); i++ {
		if servers[i].ID == servers[i-1].ID {
			return nil, "", false, freshet.Errorf(freshet.KindInvalid, op, "",
				"%s and %s have the same server ID %q", servers[i-1].Addr, servers[i].Addr, servers[i].ID)
		}
	}
	if len(servers) > expect {
		return nil, "", false, freshet.Errorf(freshet.KindInvalid, op, "",
			"bootstrap_expect is %d, but %d members are known", expect, len(servers))
	}
	if len(servers) < expect {
		return nil, "", false, nil
	}
	return servers, servers[0].ID, true, nil
}

// HasState reports whether this member has ever taken part in a cluster. One that
// has must not be bootstrapped, and needs nobody to let it join.
func (j *Journal) HasState() (bool, error) { return j.store.hasState(j.snaps) }

// Bootstrap founds the cluster with these voters, this member among them. It is
// called on one member, once, before Run; the others only run and wait. KindExist
// if this member has taken part in a cluster before. If the state is not empty,
// because a backup was restored into it, the log begins behind what the state has
// applied.
func (j *Journal) Bootstrap(servers []Server) error {
	const op = "bootstrap"
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ran {
		return freshet.Errorf(freshet.KindConflict, op, "", "the journal runs already; bootstrap before Run")
	}
	var config raft.Configuration
	var self bool
	for _, s := range servers {
		self = self || s.ID == j.opts.ID
		config.Servers = append(config.Servers, raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Addr)})
	}
	if !self {
		return freshet.Errorf(freshet.KindInvalid, op, "", "this member, %q, is not among those that found the cluster", j.opts.ID)
	}
	has, err := j.HasState()
	if err != nil {
		return freshet.Wrap(op, "", err)
	}
	if has {
		return freshet.Errorf(freshet.KindExist, op, "", "this member has taken part in a cluster before")
	}
	cfg := j.opts.raftConfig()
	stable := j.store.stable.StableStore // its errors come back to us, not to a goroutine of Raft
	if applied := j.state.Applied(); applied > 0 {
		m := &marker{Index: applied, Term: 1, Config: config, ConfigIndex: applied, Applied: applied}
		if err := j.snaps.found(m); err != nil {
			return freshet.Wrap(op, "", err)
		}
		if err := stable.SetUint64([]byte("CurrentTerm"), 1); err != nil { // Raft's own key
			return freshet.Wrap(op, "", err)
		}
		return nil
	}
	if err := raft.BootstrapCluster(cfg, j.store.cached, stable, j.snaps, nil, config); err != nil {
		return freshet.Errorf(freshet.KindInvalid, op, "", "%w", err)
	}
	return nil
}

// Peers returns the members in the order of their IDs.
func (j *Journal) Peers() ([]Peer, error) {
	const op = "list peers"
	s := j.session.Load()
	if s == nil {
		return nil, unavailable(op, errStopped)
	}
	_, leader := s.raft.LeaderWithID()
	leads := s.raft.State() == raft.Leader
	var peers []Peer
	for _, server := range s.raft.GetConfiguration().Configuration().Servers {
		p := Peer{
			Server: Server{ID: string(server.ID), Addr: string(server.Address)},
			Voter:  server.Suffrage == raft.Voter,
			Leader: server.ID == leader,
		}
		switch last := s.raft.LastContact(); {
		case p.ID == j.opts.ID:
			p.LastContactKnown = true
		case leads:
			p.LastContact, p.LastContactKnown = j.contacts.last(server.ID)
		case p.Leader && !last.IsZero():
			p.LastContact, p.LastContactKnown = time.Since(last), true
		}
		if !p.LastContactKnown {
			p.LastContact = 0
		}
		peers = append(peers, p)
	}
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(a.ID, b.ID) })
	return peers, nil
}

// AddVoter adds a member, or changes its address. The member must be running. Only
// the leader can do it. The change was made durably if the error is nil.
func (j *Journal) AddVoter(ctx context.Context, s Server) error {
	return j.reconfigure(ctx, "add member", func(r *raft.Raft) raft.Future {
		return r.AddVoter(raft.ServerID(s.ID), raft.ServerAddress(s.Addr), 0, 0)
	})
}

// AddNonvoter adds a member that gets the log and has no vote, for example until
// it has caught up.
func (j *Journal) AddNonvoter(ctx context.Context, s Server) error {
	return j.reconfigure(ctx, "add member", func(r *raft.Raft) raft.Future {
		return r.AddNonvoter(raft.ServerID(s.ID), raft.ServerAddress(s.Addr), 0, 0)
	})
}

// Remove removes a member; KindNotExist if there is none of that ID. A leader that
// removes itself steps down. The last voter can't be removed (KindConflict).
func (j *Journal) Remove(ctx context.Context, id string) error {
	const op = "remove member"
	peers, err := j.Peers()
	if err != nil {
		return freshet.Wrap(op, "", err)
	}
	at := slices.IndexFunc(peers, func(p Peer) bool { return p.ID == id })
	if at < 0 {
		return freshet.Errorf(freshet.KindNotExist, op, "", "no member has the ID %q", id)
	}
	voters := 0
	for _, p := range peers {
		if p.Voter {
			voters++
		}
	}
	if peers[at].Voter && voters == 1 {
		return freshet.Errorf(freshet.KindConflict, op, "", "%q is the last voter of the cluster", id)
	}
	return j.reconfigure(ctx, op, func(r *raft.Raft) raft.Future {
		return r.RemoveServer(raft.ServerID(id), 0, 0)
	})
}

// reconfigure makes one change of the members at a time: the quorum that a lease
// rests on must be computed anew before the next change begins.
func (j *Journal) reconfigure(ctx context.Context, op string, change func(*raft.Raft) raft.Future) error {
	s := j.session.Load()
	if s == nil {
		return unavailable(op, errStopped)
	}
	if s.raft.State() != raft.Leader {
		return j.notLeader(op)
	}
	select {
	case s.changing <- struct{}{}:
	case <-ctx.Done():
		return ended(op, ctx)
	case <-j.stopping:
		return unavailable(op, errStopped)
	}
	done := make(chan error, 1)
	s.calls.Go(func() { // goes on if ctx ends: the next change must wait for it
		defer func() { <-s.changing }()
		err := j.await(change(s.raft))
		j.contacts.recompute(s.raft.CurrentTerm())
		done <- err
	})
	select {
	case err := <-done:
		return j.changed(op, err)
	case <-ctx.Done():
		return unknown(op, context.Cause(ctx))
	}
}

func (j *Journal) changed(op string, err error) error {
	if err == nil {
		return nil
	}
	if refused := j.refused(op, err); refused != nil {
		return refused
	}
	return unknown(op, err)
}

// Snapshot takes a local snapshot now: the state is flushed and the log truncated
// up to its trailing part. Raft does it by itself when the log has grown.
func (j *Journal) Snapshot(ctx context.Context) error {
	const op = "take snapshot"
	s := j.session.Load()
	if s == nil {
		return unavailable(op, errStopped)
	}
	done := make(chan error, 1)
	s.calls.Go(func() { done <- j.await(s.raft.Snapshot()) })
	select {
	case err := <-done:
		if err == nil || errors.Is(err, raft.ErrNothingNewToSnapshot) {
			return nil
		}
		return freshet.Errorf(freshet.KindUnavailable, op, "", "%w", err)
	case <-ctx.Done():
		return ended(op, ctx)
	}
}

// TransferLeadership makes another voter the leader, the most up to date one if id
// is empty. It returns nil when this member leads no more.
func (j *Journal) TransferLeadership(ctx context.Context, id string) error {
	const op = "transfer leadership"
	s := j.session.Load()
	if s == nil {
		return unavailable(op, errStopped)
	}
	if s.raft.State() != raft.Leader {
		return j.notLeader(op)
	}
	peers, err := j.Peers()
	if err != nil {
		return freshet.Wrap(op, "", err)
	}
	var target *Peer
	others := 0
	for i, p := range peers {
		if p.Voter && p.ID != j.opts.ID {
			others++
			if p.ID == id {
				target = &peers[i]
			}
		}
	}
	switch {
	case id == j.opts.ID:
		return nil
	case id != "" && target == nil:
		return freshet.Errorf(freshet.KindNotExist, op, "", "no other voter has the ID %q", id)
	case others == 0:
		return freshet.Errorf(freshet.KindConflict, op, "", "there is no other voter")
	}
	done := make(chan error, 1)
	s.calls.Go(func() {
		if target == nil {
			done <- j.await(s.raft.LeadershipTransfer())
			return
		}
		done <- j.await(s.raft.LeadershipTransferToServer(raft.ServerID(target.ID), raft.ServerAddress(target.Addr)))
	})
	select {
	case err := <-done:
		switch {
		case err == nil, errors.Is(err, raft.ErrLeadershipLost):
			return nil
		case errors.Is(err, raft.ErrNotLeader):
			return j.notLeader(op)
		}
		return freshet.Errorf(freshet.KindUnavailable, op, "", "%w", err)
	case <-ctx.Done():
		return ended(op, ctx)
	}
}
