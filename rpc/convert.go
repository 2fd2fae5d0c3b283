package rpc

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

func timeToWire(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(wireTime(t))
}

// wireTime returns the nearest time that has a form on the wire.
func wireTime(t time.Time) time.Time {
	// A storage may report any time; one outside the years 1 to 9999 has no form
	// in JSON and would make a whole listing unreadable.
	switch year := t.UTC().Year(); {
	case year < 1:
		t = time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC) // not the zero time, which is "unknown"
	case year > 9999:
		t = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	}
	return t
}

func timeOfWire(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// ageToWire leaves a negative age, which means "never", unset.
func ageToWire(d time.Duration) *durationpb.Duration {
	if d < 0 {
		return nil
	}
	return durationpb.New(d)
}

func ageOfWire(d *durationpb.Duration) time.Duration {
	if d == nil {
		return -1
	}
	return d.AsDuration()
}

func fingerprintOfWire(s string) (fingerprint.Fingerprint, error) {
	if s == "" {
		return fingerprint.Fingerprint{}, nil
	}
	f, err := fingerprint.ParseText(s)
	if err != nil {
		return f, freshet.Errorf(freshet.KindInvalid, "read message", "", "fingerprint %q: %w", s, err)
	}
	return f, nil
}

func opOfWire(b []byte) (freshet.OpID, error) {
	var op freshet.OpID
	if len(b) == 0 {
		return op, nil
	}
	if len(b) != len(op) {
		return op, freshet.Errorf(freshet.KindInvalid, "read message", "", "operation ID of %d bytes instead of %d", len(b), len(op))
	}
	copy(op[:], b)
	return op, nil
}

func opToWire(op freshet.OpID) []byte {
	if op.IsZero() {
		return nil
	}
	return op[:]
}

func opsToWire(ops []freshet.OpID) [][]byte {
	out := make([][]byte, len(ops))
	for i := range ops {
		out[i] = ops[i][:]
	}
	return out
}

func opsOfWire(in [][]byte) ([]freshet.OpID, error) {
	out := make([]freshet.OpID, 0, len(in))
	for _, b := range in {
		op, err := opOfWire(b)
		if err != nil {
			return nil, err
		}
		out = append(out, op)
	}
	return out, nil
}

// EntryToWire translates an entry.
func EntryToWire(in freshet.Info) *freshetv1.Entry {
	out := &freshetv1.Entry{}
	entryToWire(&in, out)
	out.Mtime = timeToWire(in.ModTime)
	return out
}

// entryToWire sets all but the time.
func entryToWire(in *freshet.Info, out *freshetv1.Entry) {
	out.Path, out.Kind, out.Length = string(in.Path), in.Type.String(), in.Length
	out.Owner, out.Group, out.Mode = in.Owner, in.Group, in.Mode
	out.Fingerprint, out.Etag = in.Fingerprint.String(), in.Fingerprint.ETag()
	out.FileId, out.BlockSize, out.MountId = uint64(in.FileID), in.BlockSize, uint64(in.Mount)
	out.MountPoint, out.FromCache = in.MountPoint, in.FromCache
}

// slab is how many entries are allocated together: few enough for the allocator's
// small sizes, which cost less than large ones.
const slab = 50

// entriesToWire is EntryToWire for a page, with few allocations besides the texts.
func entriesToWire(in []freshet.Info) []*freshetv1.Entry {
	out := make([]*freshetv1.Entry, len(in))
	for from := 0; from < len(in); from += slab {
		to := min(from+slab, len(in))
		slabToWire(in[from:to], out[from:to])
	}
	return out
}

func slabToWire(in []freshet.Info, out []*freshetv1.Entry) {
	entries, times := make([]freshetv1.Entry, len(in)), make([]timestamppb.Timestamp, len(in))
	for i := range in {
		out[i] = &entries[i]
		entryToWire(&in[i], out[i])
		if t := in[i].ModTime; !t.IsZero() {
			t = wireTime(t)
			times[i].Seconds, times[i].Nanos = t.Unix(), int32(t.Nanosecond())
			out[i].Mtime = &times[i]
		}
	}
}

func pageToWire(p freshet.ListPage) *freshetv1.ListResponse {
	return &freshetv1.ListResponse{NextPageToken: p.NextPageToken, Entries: entriesToWire(p.Entries)}
}

func typeOfWire[T string | []byte](kind T) (freshet.FileType, error) {
	switch string(kind) {
	case "", freshet.TypeFile.String():
		return freshet.TypeFile, nil
	case freshet.TypeDirectory.String():
		return freshet.TypeDirectory, nil
	}
	return 0, freshet.Errorf(freshet.KindInvalid, "read message", "", "unknown kind of entry %q", kind)
}

// EntryOfWire is the inverse of EntryToWire.
func EntryOfWire(e *freshetv1.Entry) (freshet.Info, error) {
	fp, err := fingerprintOfWire(e.GetFingerprint())
	if err != nil {
		return freshet.Info{}, err
	}
	typ, err := typeOfWire(e.GetKind())
	if err != nil {
		return freshet.Info{}, err
	}
	return freshet.Info{
		Path: freshet.Path(e.GetPath()), Type: typ, Length: e.GetLength(), ModTime: timeOfWire(e.GetMtime()),
		Owner: e.GetOwner(), Group: e.GetGroup(), Mode: e.GetMode(), Fingerprint: fp,
		FileID: freshet.FileID(e.GetFileId()), BlockSize: e.GetBlockSize(), Mount: freshet.MountID(e.GetMountId()),
		MountPoint: e.GetMountPoint(), FromCache: e.GetFromCache(),
	}, nil
}

func freshnessToWire(f freshet.Freshness) *freshetv1.Freshness {
	return &freshetv1.Freshness{
		Fresh: f.Fresh, Level: f.Level.String(), Interval: f.Interval.String(), Rule: string(f.Rule),
		Age: ageToWire(f.Age), Degraded: f.Degraded, DegradedReason: f.DegradedReason,
	}
}

func freshnessOfWire(f *freshetv1.Freshness) (freshet.Freshness, error) {
	out := freshet.Freshness{
		Fresh: f.GetFresh(), Rule: freshet.Path(f.GetRule()), Age: ageOfWire(f.GetAge()),
		Degraded: f.GetDegraded(), DegradedReason: f.GetDegradedReason(),
	}
	var err error
	if out.Level, err = freshet.ParseLevel(f.GetLevel()); err != nil {
		return out, err
	}
	if f.GetInterval() != "" {
		out.Interval, err = freshet.ParseInterval(f.GetInterval())
	}
	return out, err
}

func statusToWire(s freshet.Status) *freshetv1.Entry {
	e := EntryToWire(s.Info)
	e.CachedBytes, e.Freshness = s.CachedBytes, freshnessToWire(s.Freshness)
	return e
}

func readOptionsOfWire(interval, after string) (freshet.ReadOptions, error) {
	var opts freshet.ReadOptions
	if interval != "" {
		v, err := freshet.ParseInterval(interval)
		if err != nil {
			return opts, err
		}
		opts.SyncInterval = &v
	}
	var err error
	opts.After, err = freshet.ParseToken(after)
	return opts, err
}

func readOptionsToWire(o freshet.ReadOptions) (interval, after string) {
	if o.SyncInterval != nil {
		interval = o.SyncInterval.String()
	}
	return interval, o.After.String()
}

func mountToWire(a freshet.MountAnswer) *freshetv1.Mount {
	m := a.Mount
	return &freshetv1.Mount{
		Path: string(m.Path), Ufs: m.URI, Options: m.Options, ReadOnly: m.ReadOnly, Id: uint64(m.ID), Generation: m.Generation,
		Consistency: &freshetv1.Consistency{
			Level: m.Level.String(), Interval: m.Interval.String(), DegradedInterval: m.DegradedInterval.String(),
			ActiveSync: &m.ActiveSync,
		},
		Origin: m.Origin, CreatedAt: timeToWire(m.CreatedAt), Domain: a.Authority, DomainKey: m.DomainKey,
		Degraded: a.Degraded, DegradedReason: a.DegradedReason, ActiveSync: activeSyncToWire(a.ActiveSync),
	}
}

func activeSyncToWire(s *freshet.ActiveSyncStatus) *freshetv1.ActiveSync {
	if s == nil {
		return nil
	}
	return &freshetv1.ActiveSync{
		Source: s.Source, Complete: s.Complete, Heard: s.Heard, Reason: s.Reason, HeardSince: timeToWire(s.HeardSince),
		SinceNotice: ageToWire(s.SinceNotice), Lag: ageToWire(s.Lag), LastError: s.LastError, Connecting: s.Connecting,
	}
}

func activeSyncOfWire(s *freshetv1.ActiveSync) *freshet.ActiveSyncStatus {
	if s == nil {
		return nil
	}
	return &freshet.ActiveSyncStatus{
		Source: s.GetSource(), Complete: s.GetComplete(), Heard: s.GetHeard(), Reason: s.GetReason(), HeardSince: timeOfWire(s.GetHeardSince()),
		SinceNotice: ageOfWire(s.GetSinceNotice()), Lag: ageOfWire(s.GetLag()), LastError: s.GetLastError(), Connecting: s.GetConnecting(),
	}
}

func mountOfWire(m *freshetv1.Mount) (freshet.MountAnswer, error) {
	out := freshet.MountAnswer{
		Mount: freshet.Mount{
			ID: freshet.MountID(m.GetId()), Path: freshet.Path(m.GetPath()), URI: m.GetUfs(), Options: m.GetOptions(),
			ReadOnly: m.GetReadOnly(), Generation: m.GetGeneration(), DomainKey: m.GetDomainKey(),
			CreatedAt: timeOfWire(m.GetCreatedAt()), Origin: m.GetOrigin(),
		},
		Authority: m.GetDomain(), Degraded: m.GetDegraded(), DegradedReason: m.GetDegradedReason(),
		ActiveSync: activeSyncOfWire(m.GetActiveSync()),
	}
	c := m.GetConsistency()
	out.Mount.ActiveSync = c.GetActiveSync()
	var err error
	if out.Mount.Level, err = freshet.ParseLevel(c.GetLevel()); err != nil {
		return out, err
	}
	for _, f := range []struct {
		text string
		to   *freshet.Interval
	}{{c.GetInterval(), &out.Mount.Interval}, {c.GetDegradedInterval(), &out.Mount.DegradedInterval}} {
		if f.text == "" {
			continue
		}
		if *f.to, err = freshet.ParseInterval(f.text); err != nil {
			return out, err
		}
	}
	return out, nil
}

func changeConsistencyOfWire(c *freshetv1.Consistency, to *freshet.MountChange) error {
	if c.GetLevel() != "" {
		l, err := freshet.ParseLevel(c.GetLevel())
		if err != nil {
			return err
		}
		to.Level = &l
	}
	if c != nil {
		to.ActiveSync = c.ActiveSync
	}
	for _, f := range []struct {
		text string
		to   **freshet.Interval
	}{{c.GetInterval(), &to.Interval}, {c.GetDegradedInterval(), &to.DegradedInterval}} {
		if f.text == "" {
			continue
		}
		v, err := freshet.ParseInterval(f.text)
		if err != nil {
			return err
		}
		*f.to = &v
	}
	return nil
}

func changeConsistencyToWire(c freshet.MountChange) *freshetv1.Consistency {
	out := &freshetv1.Consistency{ActiveSync: c.ActiveSync}
	if c.Level != nil {
		out.Level = c.Level.String()
	}
	if c.Interval != nil {
		out.Interval = c.Interval.String()
	}
	if c.DegradedInterval != nil {
		out.DegradedInterval = c.DegradedInterval.String()
	}
	return out
}

func policyToWire(p freshet.SyncPolicy) *freshetv1.SyncPolicy {
	return &freshetv1.SyncPolicy{Path: string(p.Path), Interval: p.Interval.String(), Origin: p.Origin, SetAt: timeToWire(p.SetAt)}
}

func policyOfWire(p *freshetv1.SyncPolicy) (freshet.SyncPolicy, error) {
	i, err := freshet.ParseInterval(p.GetInterval())
	return freshet.SyncPolicy{Path: freshet.Path(p.GetPath()), Interval: i, Origin: p.GetOrigin(), SetAt: timeOfWire(p.GetSetAt())}, err
}

func nodeToWire(n freshet.Node) *freshetv1.Node {
	return &freshetv1.Node{Id: string(n.ID), Name: n.Name, Grpc: n.GRPC, Http: n.HTTP, Socket: n.Socket, Host: n.Host, Incarnation: n.Incarnation}
}

func nodeOfWire(n *freshetv1.Node) freshet.Node {
	return freshet.Node{
		ID: freshet.NodeID(n.GetId()), Name: n.GetName(), GRPC: n.GetGrpc(), HTTP: n.GetHttp(), Socket: n.GetSocket(), Host: n.GetHost(),
		Incarnation: n.GetIncarnation(),
	}
}

func nodeStatusToWire(s freshet.NodeStatus) *freshetv1.Node {
	n := nodeToWire(s.Node)
	n.Rack, n.Zone, n.State = s.Rack, s.Zone, "dead"
	if s.Live {
		n.State = "live"
	}
	if s.Role == freshet.RoleDecommissioned {
		n.State = string(s.Role)
	}
	n.UsedBytes, n.CapacityBytes, n.Blocks, n.Tier = s.Used, s.Capacity, s.Blocks, s.Tier
	n.Role, n.Directories = string(s.Role), directoriesToWire(s.Directories)
	n.SinceHeartbeat = ageToWire(s.SinceHeartbeat)
	return n
}

func nodeStatusOfWire(n *freshetv1.Node) freshet.NodeStatus {
	return freshet.NodeStatus{
		Node: nodeOfWire(n), Rack: n.GetRack(), Zone: n.GetZone(), Live: n.GetState() == "live",
		Used: n.GetUsedBytes(), Capacity: n.GetCapacityBytes(), Blocks: n.GetBlocks(), Tier: n.GetTier(),
		SinceHeartbeat: ageOfWire(n.GetSinceHeartbeat()),
		Role:           freshet.NodeRole(n.GetRole()), Directories: directoriesOfWire(n.GetDirectories()),
	}
}

func sourceToWire(s freshet.Source) *freshetv1.Source {
	return &freshetv1.Source{MountId: uint64(s.Mount), Key: s.Key, Fingerprint: s.Fingerprint.String()}
}

func sourceOfWire(s *freshetv1.Source) (freshet.Source, error) {
	fp, err := fingerprintOfWire(s.GetFingerprint())
	return freshet.Source{Mount: freshet.MountID(s.GetMountId()), Key: s.GetKey(), Fingerprint: fp}, err
}

func blockToWire(b freshet.Block) *freshetv1.Block {
	out := &freshetv1.Block{FileId: uint64(b.ID.File), Index: b.ID.Index, Offset: b.Offset, Length: b.Length}
	for _, n := range b.Nodes {
		out.Nodes = append(out.Nodes, nodeToWire(n))
	}
	if b.Fetch.ID != "" {
		out.Fetch = nodeToWire(b.Fetch)
	}
	if b.Via.ID != "" {
		out.Via = nodeToWire(b.Via)
	}
	out.Full = b.Full
	return out
}

func blockOfWire(b *freshetv1.Block) freshet.Block {
	out := freshet.Block{
		ID:     freshet.BlockID{File: freshet.FileID(b.GetFileId()), Index: b.GetIndex()},
		Offset: b.GetOffset(), Length: b.GetLength(), Fetch: nodeOfWire(b.GetFetch()),
		Via: nodeOfWire(b.GetVia()), Full: b.GetFull(),
	}
	for _, n := range b.GetNodes() {
		out.Nodes = append(out.Nodes, nodeOfWire(n))
	}
	return out
}

func locationToWire(l freshet.Location) *freshetv1.LocateResponse {
	out := &freshetv1.LocateResponse{Entry: EntryToWire(l.Info), Source: sourceToWire(l.Source), Cacheable: l.Cacheable, LeaseNs: leaseTimeToWire(l.Lease)}
	for _, b := range l.Blocks {
		out.Blocks = append(out.Blocks, blockToWire(b))
	}
	return out
}

func locationOfWire(r *freshetv1.LocateResponse) (freshet.Location, error) {
	info, err := EntryOfWire(r.GetEntry())
	if err != nil {
		return freshet.Location{}, err
	}
	src, err := sourceOfWire(r.GetSource())
	out := freshet.Location{Info: info, Source: src, Cacheable: r.GetCacheable(), Lease: leaseTimeOfWire(r.GetLeaseNs())}
	for _, b := range r.GetBlocks() {
		out.Blocks = append(out.Blocks, blockOfWire(b))
	}
	return out, err
}

func ticketToWire(t freshet.Ticket) *freshetv1.Ticket {
	return &freshetv1.Ticket{
		Op: opToWire(t.Op), FileId: uint64(t.File), Path: string(t.Path), Node: nodeToWire(t.Node),
		WriteType: t.Write.String(), Target: sourceToWire(t.Target), BlockSize: t.BlockSize,
		Owner: t.Owner, Group: t.Group, DurableReplicas: int32(t.DurableReplicas), Keepers: nodesToWire(t.Keepers), //nolint:gosec // 8 at most
	}
}

func ticketOfWire(t *freshetv1.Ticket) (freshet.Ticket, error) {
	op, err := opOfWire(t.GetOp())
	if err != nil {
		return freshet.Ticket{}, err
	}
	w, err := freshet.ParseWriteType(t.GetWriteType())
	if err != nil {
		return freshet.Ticket{}, err
	}
	target, err := sourceOfWire(t.GetTarget())
	return freshet.Ticket{
		Op: op, File: freshet.FileID(t.GetFileId()), Path: freshet.Path(t.GetPath()), Node: nodeOfWire(t.GetNode()),
		Write: w, Target: target, BlockSize: t.GetBlockSize(), Owner: t.GetOwner(), Group: t.GetGroup(),
		DurableReplicas: int(t.GetDurableReplicas()), Keepers: nodesOfWire(t.GetKeepers()),
	}, err
}

func writtenToWire(w freshet.Written) *freshetv1.Written {
	return &freshetv1.Written{
		Length: w.Length, Mtime: timeToWire(w.ModTime), Fingerprint: w.Fingerprint.String(),
		Owner: w.Owner, Group: w.Group, Mode: w.Mode, Nodes: nodeIDsToWire(w.Nodes),
	}
}

func writtenOfWire(w *freshetv1.Written) (freshet.Written, error) {
	fp, err := fingerprintOfWire(w.GetFingerprint())
	return freshet.Written{
		Length: w.GetLength(), ModTime: timeOfWire(w.GetMtime()), Fingerprint: fp,
		Owner: w.GetOwner(), Group: w.GetGroup(), Mode: w.GetMode(), Nodes: nodeIDsOfWire(w.GetNodes()),
	}, err
}

func completedOfWire(e *freshetv1.Entry, token string) (freshet.Completed, error) {
	out := freshet.Completed{}
	var err error
	if e != nil {
		if out.Info, err = EntryOfWire(e); err != nil {
			return out, err
		}
	}
	out.Token, err = freshet.ParseToken(token)
	return out, err
}
