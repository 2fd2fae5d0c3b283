package crosscluster

import (
	"context"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
	busv1 "github.com/freshet-io/freshet/proto/freshet/bus/v1"
)

// Hello answers another cluster's introduction with ours, or refuses it.
func (b *Bus) Hello(ctx context.Context, req *busv1.HelloRequest) (*busv1.HelloResponse, error) {
	if _, err := b.introduced(ctx, req.GetCluster()); err != nil {
		return nil, err
	}
	return &busv1.HelloResponse{Cluster: infoToWire(b.info())}, nil
}

// introduced takes in an introduction, unless whoever sent it has given it up: it
// may have said goodbye since.
func (b *Bus) introduced(ctx context.Context, m *busv1.ClusterInfo) (clusterInfo, error) {
	if err := ctx.Err(); err != nil {
		return clusterInfo{}, freshet.Wrap("hello", "", err)
	}
	b.mu.Lock()
	left := b.left
	b.mu.Unlock()
	if left {
		return clusterInfo{}, freshet.Errorf(freshet.KindUnavailable, "hello", "", "this cluster has left the bus")
	}
	info, err := infoFromWire(m)
	if err != nil {
		return info, err
	}
	if err := b.dir.greet(info, b.clock.Now()); err != nil {
		b.metrics.refused.Inc()
		b.log.Warn("another cluster was refused", "cluster", info.Name, "cluster_id", info.Cluster.String(), "error", err)
		return info, err
	}
	if info.Epoch > uint64(b.clock.Now().Add(24*time.Hour).Unix()) {
		b.log.Warn("a cluster's epoch lies in the future: is its clock right?", "cluster", info.Name, "epoch", info.Epoch)
	}
	return info, nil
}

// Poll answers with our log heads, verified after the call began. Leader.
func (b *Bus) Poll(ctx context.Context, req *busv1.PollRequest) (*busv1.PollResponse, error) {
	want := map[freshet.DomainID]bool{}
	for _, raw := range req.GetDomains() {
		domain, err := domainOf(raw)
		if err != nil {
			return nil, err
		}
		want[domain] = true
	}
	verified, err := b.verifier.after(ctx)
	if err != nil {
		return nil, freshet.Wrap("poll", "", err)
	}
	self := b.region.Identity()
	out := &busv1.PollResponse{ClusterId: self.Cluster[:], Epoch: verified.epoch}
	for _, h := range verified.heads {
		if len(want) == 0 || want[h.Domain] {
			out.Heads = append(out.Heads, headToWire(h))
		}
	}
	return out, nil
}

// Pull sends records of our log after a position. Every member answers. KindStale
// if the position is not in the log, or is another log's.
func (b *Bus) Pull(ctx context.Context, req *busv1.PullRequest, send func(*busv1.PullResponse) error) error {
	const op = "pull"
	self := b.region.Identity()
	id, err := clusterIDOf(req.GetClusterId())
	if err != nil {
		return err
	}
	domain, err := domainOf(req.GetDomain())
	if err != nil {
		return err
	}
	if id != self.Cluster || req.GetEpoch() != self.Epoch {
		return freshet.Errorf(freshet.KindStale, op, "", "asked cluster %s epoch %d, this is %s epoch %d", id, req.GetEpoch(), self.Cluster, self.Epoch)
	}
	after, left := req.GetAfter(), int(min(uint32(maxPull), max(1, req.GetLimit())))
	for {
		batch, err := b.records(domain, after, min(left, maxBatch))
		if err != nil {
			return freshet.Wrap(op, "", err)
		}
		batch = cut(batch, maxBatch, maxMessage)
		if err := send(&busv1.PullResponse{Batch: batchToWire(batch), Head: headToWire(b.head(domain))}); err != nil {
			return err
		}
		after, left = after+uint64(len(batch.Records)), left-len(batch.Records)
		if len(batch.Records) == 0 || left <= 0 || ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// records reads our log of the domain. A log that was never begun is empty.
func (b *Bus) records(domain freshet.DomainID, after uint64, limit int) (invalidation.Batch, error) {
	batch, err := b.region.Records(domain, after, limit)
	switch {
	case !freshet.IsKind(err, freshet.KindNotExist):
		return batch, err
	case after > 0:
		return batch, freshet.Errorf(freshet.KindStale, "records", "", "no log of the domain is kept, let alone position %d", after)
	}
	self := b.region.Identity()
	return invalidation.Batch{Publisher: self.Cluster, Epoch: self.Epoch, Domain: domain}, nil
}

func (b *Bus) head(domain freshet.DomainID) invalidation.Head {
	all, _ := b.region.Heads()
	for _, h := range all {
		if h.Domain == domain {
			return h
		}
	}
	return invalidation.Head{Domain: domain, Low: 1}
}

// Goodbye takes note that a cluster left in order: what it published is pulled if
// it can be had, then nobody waits for it any more. Leader.
func (b *Bus) Goodbye(ctx context.Context, req *busv1.GoodbyeRequest) (*busv1.GoodbyeResponse, error) {
	id, err := clusterIDOf(req.GetClusterId())
	if err != nil {
		return nil, err
	}
	k, ok := b.dir.byID(id)
	if !ok {
		return nil, freshet.Errorf(freshet.KindNotExist, "goodbye", "", "cluster %s never introduced itself", id)
	}
	if req.GetEpoch() < k.epoch {
		return nil, freshet.Errorf(freshet.KindConflict, "goodbye", "", "epoch %d < known %d", req.GetEpoch(), k.epoch)
	}
	// To forget marks everything that it might have changed, whether or not its
	// last records were applied, so nothing has to be waited for.
	if err := b.Forget(ctx, k.name); err != nil {
		return nil, err
	}
	b.log.Info("a cluster left", "cluster", k.name)
	return &busv1.GoodbyeResponse{}, nil
}

// Subscribe pushes our records to another cluster as they commit, and proofs of
// our leadership, until the stream or the leadership ends. recv and send are the
// two directions of the stream; a slow send slows nothing but this stream.
func (b *Bus) Subscribe(ctx context.Context, recv func() (*busv1.SubscribeRequest, error), send func(*busv1.SubscribeResponse) error) error {
	leads, leading := b.region.Leading()
	if !leading {
		return freshet.Errorf(freshet.KindNotLeader, "subscribe", "", "only the leader serves the stream")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(leads, cancel)()
	opening, err := recv()
	if err != nil {
		return err
	}
	info, err := b.introduced(ctx, opening.GetCluster())
	if err != nil {
		return err
	}
	s := &feed{bus: b, peer: info.Name, send: send, at: map[freshet.DomainID]uint64{}}
	if err := s.take(opening); err != nil {
		return err
	}
	requests, broken := make(chan *busv1.SubscribeRequest), make(chan error, 1)
	// It ends when the stream does, which is right after this method returns.
	go func() {
		for {
			req, err := recv()
			if err != nil {
				broken <- err
				return
			}
			select {
			case requests <- req:
			case <-ctx.Done():
				return
			}
		}
	}()
	err = s.run(ctx, requests, broken)
	if leads.Err() != nil {
		return freshet.Errorf(freshet.KindNotLeader, "subscribe", "", "the leadership has passed to another member")
	}
	return err
}

// feed is the publisher's side of one stream.
type feed struct {
	bus      *Bus
	peer     string
	send     func(*busv1.SubscribeResponse) error
	at       map[freshet.DomainID]uint64 // what was sent, by log
	number   uint64                      // of the last heartbeat
	asked    uint64                      // last solicit number that arrived
	answered uint64                      // last solicit number that was answered
}

func (s *feed) run(ctx context.Context, requests <-chan *busv1.SubscribeRequest, broken <-chan error) error {
	c := s.bus.clock
	var last time.Time
	timer := c.NewTimer(0)
	defer timer.Stop()
	for {
		_, grown := s.bus.region.Heads()
		more, err := s.push()
		if err != nil {
			return err
		}
		if s.asked > s.answered || c.Since(last) >= heartbeatInterval {
			if err := s.beat(ctx); err != nil {
				return err
			}
			last = c.Now()
			timer.Reset(heartbeatInterval)
		}
		if more {
			// Only look at what arrived; there is more to send.
			select {
			case req := <-requests:
				err = s.take(req)
			case err = <-broken:
				return err
			case <-ctx.Done():
				return ctx.Err()
			default:
			}
		} else {
			select {
			case <-grown:
			case req := <-requests:
				err = s.take(req)
			case <-timer.C():
			case err = <-broken:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err != nil {
			return err
		}
	}
}

// take reads one message of the subscriber.
func (s *feed) take(req *busv1.SubscribeRequest) error {
	for _, p := range req.GetStart() {
		domain, err := domainOf(p.GetDomain())
		if err != nil {
			return err
		}
		if len(s.at) >= maxDomains {
			return bad("too many domains")
		}
		if err := s.start(domain, p); err != nil {
			return err
		}
	}
	for _, p := range req.GetPositions() {
		domain, err := domainOf(p.GetDomain())
		if err != nil {
			return err
		}
		s.bus.dir.acknowledged(s.peer, domain, p.GetApplied(), s.bus.clock.Now())
	}
	s.asked = max(s.asked, req.GetSolicit())
	return nil
}

// start pushes a log from a position on, if the position is one of it.
func (s *feed) start(domain freshet.DomainID, p *busv1.Position) error {
	hash, err := hashOf(p.GetHash())
	if err != nil {
		return err
	}
	batch, err := s.bus.records(domain, p.GetApplied(), 1)
	switch {
	case freshet.IsKind(err, freshet.KindStale):
		return s.reset(domain, "the log does not hold the records after this position")
	case err != nil:
		return freshet.Wrap("subscribe", "", err)
	case batch.AfterHash != hash:
		return s.reset(domain, "the position is of another log: records were lost here or there")
	}
	s.at[domain] = p.GetApplied()
	return nil
}

func (s *feed) reset(domain freshet.DomainID, reason string) error {
	delete(s.at, domain)
	return s.send(&busv1.SubscribeResponse{Body: &busv1.SubscribeResponse_Reset_{Reset_: &busv1.ResetRequired{Domain: domain[:], Reason: reason}}})
}

// push sends one message for each log that has grown, and reports whether there
// may be more.
func (s *feed) push() (more bool, err error) {
	all, _ := s.bus.region.Heads()
	for _, head := range all {
		after, wanted := s.at[head.Domain]
		if !wanted || head.High <= after {
			continue
		}
		batch, err := s.bus.region.Records(head.Domain, after, maxBatch)
		if freshet.IsKind(err, freshet.KindStale) {
			if err := s.reset(head.Domain, "the log was compacted beyond this position"); err != nil {
				return false, err
			}
			continue
		}
		if err != nil {
			return false, freshet.Wrap("subscribe", "", err)
		}
		batch = cut(batch, maxBatch, maxMessage)
		if len(batch.Records) == 0 {
			continue
		}
		if err := s.send(&busv1.SubscribeResponse{Body: &busv1.SubscribeResponse_Batch{Batch: batchToWire(batch)}}); err != nil {
			return false, err
		}
		s.at[head.Domain] = after + uint64(len(batch.Records))
		more = more || s.at[head.Domain] < head.High
	}
	return more, nil
}

// beat proves that we lead. What was asked before is answered by a proof that
// began after; without a question one of the last half second does, so that all
// streams share it.
func (s *feed) beat(ctx context.Context) error {
	asked := s.asked
	var verified *round
	var err error
	if asked > s.answered {
		verified, err = s.bus.verifier.after(ctx)
	} else {
		verified, err = s.bus.verifier.recent(ctx, heartbeatInterval/2)
	}
	if err != nil {
		return freshet.Wrap("subscribe", "", err)
	}
	s.number++
	s.answered = asked
	self := s.bus.region.Identity()
	return s.send(&busv1.SubscribeResponse{Body: &busv1.SubscribeResponse_Heartbeat{Heartbeat: &busv1.Heartbeat{
		Number: s.number, ClusterId: self.Cluster[:], Epoch: verified.epoch, Heads: headsToWire(verified.heads), Answers: asked,
	}}})
}
