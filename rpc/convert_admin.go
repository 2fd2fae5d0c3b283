package rpc

import (
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

func publisherToWire(p freshet.PublisherStatus) *freshetv1.PublisherStatus {
	return &freshetv1.PublisherStatus{
		Cluster: p.Cluster, ClusterId: p.ID.String(), Epoch: p.Epoch, Applied: p.Applied, Head: p.Head,
		State: p.State, SinceContact: ageToWire(p.SinceContact),
	}
}

func publisherOfWire(p *freshetv1.PublisherStatus) freshet.PublisherStatus {
	id, _ := uuid.Parse(p.GetClusterId()) // for display; a malformed one shows as zero
	return freshet.PublisherStatus{
		Cluster: p.GetCluster(), ID: id, Epoch: p.GetEpoch(), Applied: p.GetApplied(), Head: p.GetHead(),
		State: p.GetState(), SinceContact: ageOfWire(p.GetSinceContact()),
	}
}

func peerToWire(p freshet.Peer) *freshetv1.Peer {
	out := &freshetv1.Peer{
		Name: p.Name, Id: p.ID.String(), Epoch: p.Epoch, Addresses: p.Addresses, State: p.State, Reason: p.Reason,
		SinceContact: ageToWire(p.SinceContact), GossipMembers: int32(p.GossipMembers),
	}
	for _, d := range p.Domains {
		out.Domains = append(out.Domains, &freshetv1.PeerDomain{
			Domain: d.Authority, Position: publisherToWire(d), LastReset: timeToWire(d.LastReset), LastResetReason: d.ResetReason,
		})
	}
	return out
}

func peerOfWire(p *freshetv1.Peer) freshet.Peer {
	id, _ := uuid.Parse(p.GetId()) // for display, as above
	out := freshet.Peer{
		Name: p.GetName(), ID: id, Epoch: p.GetEpoch(), Addresses: p.GetAddresses(), State: p.GetState(), Reason: p.GetReason(),
		SinceContact: ageOfWire(p.GetSinceContact()), GossipMembers: int(p.GetGossipMembers()),
	}
	for _, d := range p.GetDomains() {
		s := publisherOfWire(d.GetPosition())
		s.Authority, s.LastReset, s.ResetReason = d.GetDomain(), timeOfWire(d.GetLastReset()), d.GetLastResetReason()
		out.Domains = append(out.Domains, s)
	}
	return out
}

func explanationToWire(x freshet.Explanation) *freshetv1.ExplainResponse {
	out := &freshetv1.ExplainResponse{
		Path: string(x.Path), Verdict: x.Verdict, Reason: x.Reason, Freshness: freshnessToWire(x.Freshness),
		LastValidation: x.LastValidation, ValidatedAt: timeToWire(x.ValidatedAt), ValidFrom: x.ValidFrom, Need: x.Need,
		NextCheck: x.NextCheck, Intents: x.Intents, Remedy: x.Remedy,
		ActiveSync: activeSyncToWire(x.ActiveSync),
		Stamps:     stampsToWire(x.Stamps), Operations: operationsToWire(x.Operations), RuleOrigin: x.RuleOrigin,
		Effective: settingsToWire(x.Effective), Quotas: quotasToWire(x.Quotas), MoreBlocks: int64(x.MoreBlocks),
	}
	if r := x.Replication; r != nil {
		out.Replication = &freshetv1.ExplainReplication{Min: int32(r.Min), Max: int32(r.Max), ShortBlocks: int64(r.Short), Reason: r.Reason}
	}
	if x.Info != nil {
		out.Entry = EntryToWire(*x.Info)
	}
	if x.Mount != nil {
		out.Mount = mountToWire(freshet.MountAnswer{Mount: *x.Mount})
	}
	for _, p := range x.Publishers {
		out.Publishers = append(out.Publishers, publisherToWire(p))
	}
	for _, b := range x.Blocks {
		out.Blocks = append(out.Blocks, &freshetv1.ExplainBlock{Index: b.Index, Length: b.Length, Nodes: b.Nodes})
	}
	if v := x.Storage; v != nil {
		out.Storage = &freshetv1.StorageView{
			Exists: v.Exists, Fingerprint: v.Info.Fingerprint.String(), Length: v.Info.Length, Mtime: timeToWire(v.Info.ModTime),
			SameContent: v.SameContent, SameMeta: v.SameMeta, Error: v.Error,
		}
		if v.Exists {
			out.Storage.Entry = EntryToWire(v.Info)
		}
	}
	return out
}

func explanationOfWire(r *freshetv1.ExplainResponse) (freshet.Explanation, error) {
	f, err := freshnessOfWire(r.GetFreshness())
	if err != nil {
		return freshet.Explanation{}, err
	}
	out := freshet.Explanation{
		Path: freshet.Path(r.GetPath()), Verdict: r.GetVerdict(), Reason: r.GetReason(), Freshness: f,
		LastValidation: r.GetLastValidation(), ValidatedAt: timeOfWire(r.GetValidatedAt()), ValidFrom: r.GetValidFrom(), Need: r.GetNeed(),
		NextCheck: r.GetNextCheck(), Intents: r.GetIntents(), Remedy: r.GetRemedy(),
		ActiveSync: activeSyncOfWire(r.GetActiveSync()),
		Stamps:     stampsOfWire(r.GetStamps()), Operations: operationsOfWire(r.GetOperations()), RuleOrigin: r.GetRuleOrigin(),
		Effective: settingsOfWire(r.GetEffective()), MoreBlocks: int(r.GetMoreBlocks()),
	}
	if out.Quotas, err = quotasOfWire(r.GetQuotas()); err != nil {
		return out, err
	}
	if w := r.GetReplication(); w != nil {
		out.Replication = &freshet.ReplicationStatus{
			Replication: freshet.Replication{Min: int(w.GetMin()), Max: int(w.GetMax())}, Short: int(w.GetShortBlocks()), Reason: w.GetReason(),
		}
	}
	if r.GetEntry() != nil {
		info, err := EntryOfWire(r.GetEntry())
		if err != nil {
			return out, err
		}
		out.Info = &info
	}
	if r.GetMount() != nil {
		m, err := mountOfWire(r.GetMount())
		if err != nil {
			return out, err
		}
		out.Mount = &m.Mount
	}
	for _, p := range r.GetPublishers() {
		out.Publishers = append(out.Publishers, publisherOfWire(p))
	}
	for _, b := range r.GetBlocks() {
		out.Blocks = append(out.Blocks, freshet.ExplainedBlock{Index: b.GetIndex(), Length: b.GetLength(), Nodes: b.GetNodes()})
	}
	if v := r.GetStorage(); v != nil {
		fp, err := fingerprintOfWire(v.GetFingerprint())
		if err != nil {
			return out, err
		}
		out.Storage = &freshet.StorageView{
			Exists: v.GetExists(), SameContent: v.GetSameContent(), SameMeta: v.GetSameMeta(), Error: v.GetError(),
			Info: freshet.Info{Path: out.Path, Length: v.GetLength(), ModTime: timeOfWire(v.GetMtime()), Fingerprint: fp},
		}
	}
	return out, nil
}

func memberToWire(m freshet.Member) *freshetv1.Member {
	return &freshetv1.Member{Id: m.ID, Name: m.Name, Grpc: m.GRPC, Http: m.HTTP, Raft: m.Raft, Bus: m.Bus, Leader: m.Leader, Voter: m.Voter, StateVersion: int32(m.StateVersion)}
}

func memberOfWire(m *freshetv1.Member) freshet.Member {
	return freshet.Member{
		ID: m.GetId(), Name: m.GetName(), GRPC: m.GetGrpc(), HTTP: m.GetHttp(), Raft: m.GetRaft(), Bus: m.GetBus(),
		Leader: m.GetLeader(), Voter: m.GetVoter(), StateVersion: int(m.GetStateVersion()),
	}
}

func clusterToWire(c freshet.ClusterStatus) *freshetv1.GetClusterResponse {
	out := &freshetv1.GetClusterResponse{
		Name: c.Name, Id: c.ID.String(), Epoch: c.Epoch, Leader: c.Leader, Term: c.Term, AppliedIndex: c.AppliedIndex,
		Entries: c.Entries, Mounts: c.Mounts, LiveNodes: c.LiveNodes, DeadNodes: c.DeadNodes,
		Intents: c.Intents, Quarantined: c.Quarantined, Healthy: c.Healthy, Problems: c.Problems, Version: c.Version, StateVersion: int32(c.StateVersion), Raft: c.Raft,
		QuarantinedOperations: operationsToWire(c.QuarantinedOps),
	}
	for _, m := range c.Members {
		out.Members = append(out.Members, memberToWire(m))
	}
	return out
}

func clusterOfWire(r *freshetv1.GetClusterResponse) freshet.ClusterStatus {
	id, _ := uuid.Parse(r.GetId()) // for display, as above
	out := freshet.ClusterStatus{
		Name: r.GetName(), ID: id, Epoch: r.GetEpoch(), Leader: r.GetLeader(), Term: r.GetTerm(), AppliedIndex: r.GetAppliedIndex(),
		Entries: r.GetEntries(), Mounts: r.GetMounts(), LiveNodes: r.GetLiveNodes(), DeadNodes: r.GetDeadNodes(),
		Intents: r.GetIntents(), Quarantined: r.GetQuarantined(), Healthy: r.GetHealthy(), Problems: r.GetProblems(),
		Version: r.GetVersion(), StateVersion: int(r.GetStateVersion()), Raft: r.GetRaft(), QuarantinedOps: operationsOfWire(r.GetQuarantinedOperations()),
	}
	for _, m := range r.GetMembers() {
		out.Members = append(out.Members, memberOfWire(m))
	}
	return out
}

func blockReportsToWire(in []freshet.BlockReport) []*freshetv1.BlockReport {
	out := make([]*freshetv1.BlockReport, len(in))
	for i, b := range in {
		out[i] = &freshetv1.BlockReport{FileId: uint64(b.ID.File), Index: b.ID.Index, Length: b.Length}
	}
	return out
}

func blockReportsOfWire(in []*freshetv1.BlockReport) []freshet.BlockReport {
	out := make([]freshet.BlockReport, len(in))
	for i, b := range in {
		out[i] = freshet.BlockReport{ID: blockIDOfWire(b), Length: b.GetLength()}
	}
	return out
}

func blockIDOfWire(b *freshetv1.BlockReport) freshet.BlockID {
	return freshet.BlockID{File: freshet.FileID(b.GetFileId()), Index: b.GetIndex()}
}

func blockIDsToWire(in []freshet.BlockID) []*freshetv1.BlockReport {
	out := make([]*freshetv1.BlockReport, len(in))
	for i, id := range in {
		out[i] = &freshetv1.BlockReport{FileId: uint64(id.File), Index: id.Index}
	}
	return out
}

func blockIDsOfWire(in []*freshetv1.BlockReport) []freshet.BlockID {
	out := make([]freshet.BlockID, len(in))
	for i, b := range in {
		out[i] = blockIDOfWire(b)
	}
	return out
}

func heartbeatToWire(h freshet.Heartbeat) *freshetv1.HeartbeatRequest {
	node := nodeToWire(h.Node)
	node.Rack, node.Zone, node.UsedBytes, node.CapacityBytes, node.Tier = h.Rack, h.Zone, h.Used, h.Capacity, h.Tier
	node.Directories = directoriesToWire(h.Directories)
	out := &freshetv1.HeartbeatRequest{
		Node: node, Incarnation: h.Incarnation, Term: h.Term, Full: h.Full, Added: blockReportsToWire(h.Added),
		Removed: blockIDsToWire(h.Removed), Active: opsToWire(h.Active), MountRevision: h.MountRevision,
		PinRevision: h.PinRevision, Damaged: blockIDsToWire(h.Damaged), TakesCopies: h.TakesCopies,
		TakesWarms: h.TakesWarms, Warmed: warmedToWire(h.Warmed),
		Hot: heatToWire(h.Hot), More: h.More, Continued: h.Continued,
		Keeps: h.Keeps, Durable: h.Durable, Kept: fileIDsToWire(h.Kept), Took: fileIDsToWire(h.Took),
	}
	if h.Cluster != (freshet.ClusterID{}) {
		out.ClusterId = h.Cluster[:]
	}
	for _, f := range h.Finished {
		w := &freshetv1.FinishedOp{Op: opToWire(f.Op), Uncertain: f.Uncertain, Failure: f.Failure, Conflict: f.Conflict}
		if f.Written != nil {
			w.Written = writtenToWire(*f.Written)
		}
		out.Finished = append(out.Finished, w)
	}
	return out
}

func heartbeatOfWire(r *freshetv1.HeartbeatRequest) (freshet.Heartbeat, error) {
	active, err := opsOfWire(r.GetActive())
	n := r.GetNode()
	out := freshet.Heartbeat{
		Node: nodeOfWire(n), Rack: n.GetRack(), Zone: n.GetZone(), Used: n.GetUsedBytes(), Capacity: n.GetCapacityBytes(), Tier: n.GetTier(),
		Incarnation: r.GetIncarnation(), Term: r.GetTerm(), Full: r.GetFull(), Added: blockReportsOfWire(r.GetAdded()),
		Removed: blockIDsOfWire(r.GetRemoved()), Active: active, MountRevision: r.GetMountRevision(),
		PinRevision: r.GetPinRevision(), Damaged: blockIDsOfWire(r.GetDamaged()), TakesCopies: r.GetTakesCopies(),
		TakesWarms: r.GetTakesWarms(), Warmed: warmedOfWire(r.GetWarmed()),
		Directories: directoriesOfWire(n.GetDirectories()), Hot: heatOfWire(r.GetHot()), More: r.GetMore(), Continued: r.GetContinued(),
		Keeps: r.GetKeeps(), Durable: r.GetDurable(), Kept: fileIDsOfWire(r.GetKept()), Took: fileIDsOfWire(r.GetTook()),
	}
	if id := r.GetClusterId(); err == nil && len(id) > 0 {
		if out.Cluster, err = uuid.FromBytes(id); err != nil {
			return out, freshet.Errorf(freshet.KindInvalid, "read heartbeat", "", "the ID of the cluster: %w", err)
		}
	}
	for _, f := range r.GetFinished() {
		op, ferr := opOfWire(f.GetOp())
		if ferr != nil {
			return out, ferr
		}
		fin := freshet.FinishedOp{Op: op, Uncertain: f.GetUncertain(), Failure: f.GetFailure(), Conflict: f.GetConflict()}
		if f.GetWritten() != nil {
			w, werr := writtenOfWire(f.GetWritten())
			if werr != nil {
				return out, werr
			}
			fin.Written = &w
		}
		out.Finished = append(out.Finished, fin)
	}
	return out, err
}

func heartbeatReplyToWire(r freshet.HeartbeatReply) *freshetv1.HeartbeatResponse {
	out := &freshetv1.HeartbeatResponse{
		ClusterId: r.Cluster[:], Epoch: r.Epoch, Term: r.Term, Lease: durationpb.New(r.Lease), NeedFull: r.NeedFull,
		MountRevision: r.MountRevision, Free: blockIDsToWire(r.Free), Settled: opsToWire(r.Settled), Abort: opsToWire(r.Abort),
		PinRevision: r.PinRevision, Draining: r.Draining,
	}
	for _, id := range r.Pinned {
		out.Pinned = append(out.Pinned, uint64(id))
	}
	out.Released = fileIDsToWire(r.Released)
	for i := range r.Keep {
		out.Keep = append(out.Keep, keepOrderToWire(&r.Keep[i]))
	}
	for i := range r.Persist {
		out.Persist = append(out.Persist, persistOrderToWire(&r.Persist[i]))
	}
	for _, q := range r.Copy {
		out.Copy = append(out.Copy, &freshetv1.CopyOrder{Block: blockToWire(q.Block), Source: sourceToWire(q.Source)})
	}
	for _, q := range r.Warm {
		out.Warm = append(out.Warm, &freshetv1.CopyOrder{Block: blockToWire(q.Block), Source: sourceToWire(q.Source)})
	}
	for _, m := range r.Mounts {
		out.Mounts = append(out.Mounts, &freshetv1.MountSpec{
			Mount: mountToWire(freshet.MountAnswer{Mount: m}), DomainId: m.Domain[:], MaxOpLifetime: durationpb.New(m.MaxOpLifetime),
		})
	}
	return out
}

func heartbeatReplyOfWire(r *freshetv1.HeartbeatResponse) (freshet.HeartbeatReply, error) {
	out := freshet.HeartbeatReply{
		Epoch: r.GetEpoch(), Term: r.GetTerm(), Lease: r.GetLease().AsDuration(), NeedFull: r.GetNeedFull(),
		MountRevision: r.GetMountRevision(), Free: blockIDsOfWire(r.GetFree()), PinRevision: r.GetPinRevision(),
		Draining: r.GetDraining(),
	}
	for _, id := range r.GetPinned() {
		out.Pinned = append(out.Pinned, freshet.FileID(id))
	}
	out.Released = fileIDsOfWire(r.GetReleased())
	for _, w := range r.GetKeep() {
		o, err := keepOrderOfWire(w)
		if err != nil {
			return out, err
		}
		out.Keep = append(out.Keep, o)
	}
	for _, w := range r.GetPersist() {
		o, err := persistOrderOfWire(w)
		if err != nil {
			return out, err
		}
		out.Persist = append(out.Persist, o)
	}
	for _, o := range r.GetCopy() {
		src, err := sourceOfWire(o.GetSource())
		if err != nil {
			return out, err
		}
		out.Copy = append(out.Copy, freshet.BlockCopy{Block: blockOfWire(o.GetBlock()), Source: src})
	}
	for _, o := range r.GetWarm() {
		src, err := sourceOfWire(o.GetSource())
		if err != nil {
			return out, err
		}
		out.Warm = append(out.Warm, freshet.BlockCopy{Block: blockOfWire(o.GetBlock()), Source: src})
	}
	var err error
	if out.Cluster, err = uuid.FromBytes(r.GetClusterId()); err != nil {
		return out, freshet.Errorf(freshet.KindInternal, "heartbeat", "", "cluster ID in the answer: %w", err)
	}
	if out.Settled, err = opsOfWire(r.GetSettled()); err != nil {
		return out, err
	}
	if out.Abort, err = opsOfWire(r.GetAbort()); err != nil {
		return out, err
	}
	for _, spec := range r.GetMounts() {
		m, err := mountOfWire(spec.GetMount())
		if err != nil {
			return out, err
		}
		copy(m.Mount.Domain[:], spec.GetDomainId())
		m.Mount.MaxOpLifetime = spec.GetMaxOpLifetime().AsDuration()
		out.Mounts = append(out.Mounts, m.Mount)
	}
	return out, nil
}
