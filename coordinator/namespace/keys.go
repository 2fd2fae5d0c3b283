package namespace

import (
	"encoding/binary"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
)

// Every key but one starts with the generation of the data, so that a restore
// writes a complete second generation and then switches to it in one batch.
// The key of the switch itself is the byte 0.
const keySwitch = 0x00

// The tables, by the byte that follows the generation.
const (
	tableMeta    = 'A' // counters, identity, applied index
	tableAttr    = 'a' // interned owner, group, mode and metadata fingerprint
	tableMember  = 'c'
	tableDir     = 'd' // directory's inode ID -> its parent and name
	tableFile    = 'f' // file ID -> its parent and name
	tableMissing = 'g' // recent marks of paths that are not held
	tableHead    = 'h'
	tableInode   = 'i' // parent's inode ID, name -> entry
	tableNode    = 'k' // roles of cache nodes, by ID
	tableJob     = 'j' // syncs that go on without their callers
	tableWarm    = 'l' // warms that go on without their callers
	tableMount   = 'm'
	tableIntent  = 'n'
	tableOutcome = 'o' // by operation
	tablePolicy  = 'p'
	tableEnded   = 'q' // outcomes by the index at which they were made
	tableRecord  = 'r'
	tableSub     = 's'
	tableTrash   = 't' // detached directories
	tableQuota   = 'u' // by ID
	tableTag     = 'v' // directory's inode ID -> quotas that count its entries
	tableCursor  = 'w' // of watches of storages' own notices, by source

	tableUnpersisted = 'x' // file ID -> what is known of it beside its entry

	tableUncounted = 'y' // directories whose tags are to be looked at
)

type keys struct{ gen byte }

func (k keys) table(t byte) []byte { return append(make([]byte, 0, 40), k.gen, t) }

// bounds returns the range of a whole table.
func (k keys) bounds(t byte) (start, end []byte) {
	return k.table(t), []byte{k.gen, t + 1}
}

func (k keys) u64(t byte, v uint64) []byte { return binary.BigEndian.AppendUint64(k.table(t), v) }

func (k keys) inode(parent uint64, name string) []byte {
	b := make([]byte, 0, 10+len(name))
	b = append(b, k.gen, tableInode)
	b = binary.BigEndian.AppendUint64(b, parent)
	return append(b, name...)
}

func (k keys) children(parent uint64) (start, end []byte) {
	return k.inode(parent, ""), k.inode(parent+1, "")
}

func (k keys) op(t byte, op freshet.OpID) []byte { return append(k.table(t), op[:]...) }

func (k keys) text(t byte, s string) []byte { return append(k.table(t), s...) }

func (k keys) head(d freshet.DomainID) []byte { return append(k.table(tableHead), d[:]...) }

func (k keys) record(d freshet.DomainID, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(k.table(tableRecord), d[:]...), seq)
}

func (k keys) sub(s subKey) []byte {
	return append(append(k.table(tableSub), s.cluster[:]...), s.domain[:]...)
}

// subKey names a subscription.
type subKey struct {
	cluster freshet.ClusterID
	domain  freshet.DomainID
}

func keyOf(s invalidation.Subscription) subKey { return subKey{s.Publisher.Cluster, s.Domain} }
