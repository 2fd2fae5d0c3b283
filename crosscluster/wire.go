package crosscluster

import (
	"fmt"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
	busv1 "github.com/freshet-io/freshet/proto/freshet/bus/v1"
)

// Bounds of what another cluster may tell about itself.
const (
	maxName      = 63
	maxClusters  = 256
	maxAddresses = 64
	maxRoots     = 4096
	maxDomains   = 4096
	maxPull      = 4096      // records in one pull
	maxBatch     = 256       // records in one command
	maxBatchSize = 64 << 10  // encoded bytes in one command, if it has more than one record
	maxMessage   = 512 << 10 // encoded bytes in one message, likewise
)

// clusterInfo is a cluster as it introduces itself.
type clusterInfo struct {
	invalidation.Publisher
	protocolMin, protocolMax uint32
	addresses                []string
	roots                    []Root
}

// heads are the log heads of a cluster, verified by its leader.
type heads struct {
	cluster freshet.ClusterID
	epoch   uint64
	of      map[freshet.DomainID]invalidation.Head
}

func bad(what string) error {
	return freshet.Errorf(freshet.KindInvalid, "read bus message", "", "%s", what)
}

func clusterIDOf(b []byte) (freshet.ClusterID, error) {
	id, err := uuid.FromBytes(b)
	if err != nil || id == uuid.Nil {
		return id, bad("cluster ID is not 16 bytes, or all zero")
	}
	return id, nil
}

func domainOf(b []byte) (d freshet.DomainID, err error) {
	if len(b) != len(d) {
		return d, bad("domain ID is not 16 bytes")
	}
	return freshet.DomainID(b), nil
}

func hashOf(b []byte) (h invalidation.Hash, err error) {
	if len(b) != len(h) {
		return h, bad("chain hash is not 16 bytes")
	}
	return invalidation.Hash(b), nil
}

func infoToWire(i clusterInfo) *busv1.ClusterInfo {
	out := &busv1.ClusterInfo{
		ClusterId: i.Cluster[:], Name: i.Name, Epoch: i.Epoch,
		ProtocolMin: i.protocolMin, ProtocolMax: i.protocolMax, Addresses: i.addresses,
	}
	for _, r := range i.roots {
		out.Roots = append(out.Roots, &busv1.Root{
			Domain: r.Domain[:], Key: r.Key, ReadOnly: r.ReadOnly, Level: r.Level.String(), Authority: r.Authority,
		})
	}
	return out
}

func infoFromWire(m *busv1.ClusterInfo) (clusterInfo, error) {
	var i clusterInfo
	var err error
	if i.Cluster, err = clusterIDOf(m.GetClusterId()); err != nil {
		return i, err
	}
	i.Name, i.Epoch = m.GetName(), m.GetEpoch()
	i.protocolMin, i.protocolMax = m.GetProtocolMin(), m.GetProtocolMax()
	i.addresses = m.GetAddresses()
	switch {
	case !validName(i.Name):
		return i, bad("cluster name is empty, too long, or holds other characters than letters, digits, '-', '_' and '.'")
	case len(i.addresses) > maxAddresses:
		return i, bad("too many addresses")
	case len(m.GetRoots()) > maxRoots:
		return i, bad("too many mounts")
	}
	for _, r := range m.GetRoots() {
		domain, err := domainOf(r.GetDomain())
		if err != nil {
			return i, err
		}
		level, err := freshet.ParseLevel(r.GetLevel())
		if err != nil {
			level = freshet.LevelInvalidate // of a newer version
		}
		i.roots = append(i.roots, Root{
			Domain: domain, Key: r.GetKey(), ReadOnly: r.GetReadOnly(), Level: level, Authority: r.GetAuthority(),
		})
	}
	return i, nil
}

func validName(s string) bool {
	for _, c := range s {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

func headToWire(h invalidation.Head) *busv1.Head {
	return &busv1.Head{Domain: h.Domain[:], Low: h.Low, High: h.High, Hash: h.Hash[:]}
}

func headFromWire(m *busv1.Head) (h invalidation.Head, err error) {
	if h.Domain, err = domainOf(m.GetDomain()); err != nil {
		return h, err
	}
	if h.Hash, err = hashOf(m.GetHash()); err != nil {
		return h, err
	}
	h.Low, h.High = m.GetLow(), m.GetHigh()
	if h.Low == 0 || h.Low-1 > h.High {
		return h, bad(fmt.Sprintf("log head of %d..%d", h.Low, h.High))
	}
	return h, nil
}

func headsToWire(hs []invalidation.Head) []*busv1.Head {
	out := make([]*busv1.Head, 0, len(hs))
	for _, h := range hs {
		out = append(out, headToWire(h))
	}
	return out
}

func headsFromWire(cluster []byte, epoch uint64, ms []*busv1.Head) (heads, error) {
	id, err := clusterIDOf(cluster)
	if err != nil {
		return heads{}, err
	}
	if len(ms) > maxDomains {
		return heads{}, bad("too many domains")
	}
	out := heads{cluster: id, epoch: epoch, of: make(map[freshet.DomainID]invalidation.Head, len(ms))}
	for _, m := range ms {
		h, err := headFromWire(m)
		if err != nil {
			return heads{}, err
		}
		out.of[h.Domain] = h
	}
	return out, nil
}

// head returns the head of a domain's log; a log that does not exist is empty.
func (h heads) head(d freshet.DomainID) invalidation.Head {
	if head, ok := h.of[d]; ok {
		return head
	}
	return invalidation.Head{Domain: d, Low: 1}
}

func batchToWire(b invalidation.Batch) *busv1.Batch {
	out := &busv1.Batch{
		ClusterId: b.Publisher[:], Epoch: b.Epoch, Domain: b.Domain[:], After: b.After, AfterHash: b.AfterHash[:],
		Records: make([][]byte, len(b.Records)),
	}
	for i := range b.Records {
		out.Records[i] = invalidation.AppendRecord(nil, b.Records[i])
	}
	return out
}

func batchFromWire(m *busv1.Batch) (b invalidation.Batch, err error) {
	if b.Publisher, err = clusterIDOf(m.GetClusterId()); err != nil {
		return b, err
	}
	if b.Domain, err = domainOf(m.GetDomain()); err != nil {
		return b, err
	}
	if b.AfterHash, err = hashOf(m.GetAfterHash()); err != nil {
		return b, err
	}
	if len(m.GetRecords()) > maxPull {
		return b, bad("too many records")
	}
	b.Epoch, b.After = m.GetEpoch(), m.GetAfter()
	b.Records = make([]invalidation.Record, len(m.GetRecords()))
	for i, raw := range m.GetRecords() {
		if b.Records[i], err = invalidation.DecodeRecord(raw); err != nil {
			return b, &freshet.Error{Op: "read change record", Kind: freshet.KindCorrupt, Err: err}
		}
	}
	return b, nil
}

// cut shortens b to at most limit records of at most size bytes in sum; one
// record always stays.
func cut(b invalidation.Batch, limit, size int) invalidation.Batch {
	sum := 0
	for i := range b.Records {
		sum += sizeOf(b.Records[i])
		if i == limit || (i > 0 && sum > size) {
			b.Records = b.Records[:i]
			break
		}
	}
	return b
}

// sizeOf estimates the encoded size of r from above.
func sizeOf(r invalidation.Record) int {
	f := r.Fingerprint
	return 48 + len(r.Key) + len(r.Key2) + len(f.Content) + len(f.Change) + len(f.Meta)
}

func positionToWire(d freshet.DomainID, s invalidation.Subscription) *busv1.Position {
	return &busv1.Position{Domain: d[:], Applied: s.Applied, Hash: s.Hash[:]}
}
