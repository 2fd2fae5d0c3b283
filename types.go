// Package freshet is the vocabulary of the system: paths, versions of files,
// blocks, sources, tickets, tokens, levels and kinds of error. Every other
// package speaks it; it imports nothing of theirs but the fingerprint, and has
// no clock, goroutine, socket or log.
package freshet

import (
	"encoding/hex"
	"time"

	"github.com/freshet-io/freshet/fingerprint"
)

// FileID names one version of one file's content for ever: a new content gets a
// new FileID. The upper bits hold the low bits of the cluster's epoch, so that
// a restore from a backup can't hand out an ID twice.
type FileID uint64

// BlockID names one block. Blocks never change.
type BlockID struct {
	File  FileID
	Index uint32
}

// MountID names a mount within a cluster; never reused.
type MountID uint64

// NodeID is the persistent identity of a cache node, a UUID in text form.
type NodeID string

// OpID identifies one operation of a client across retries: 16 bytes, a UUIDv7.
type OpID [16]byte

// String returns the ID in hexadecimal.
func (id OpID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether no ID was given.
func (id OpID) IsZero() bool { return id == OpID{} }

// ParseOpID reads what String returns.
func ParseOpID(text string) (OpID, error) {
	var id OpID
	if len(text) != hex.EncodedLen(len(id)) {
		return OpID{}, Errorf(KindInvalid, "parse operation ID", "", "%d characters, not %d hexadecimal digits", len(text), hex.EncodedLen(len(id)))
	}
	if _, err := hex.Decode(id[:], []byte(text)); err != nil {
		return OpID{}, Errorf(KindInvalid, "parse operation ID", "", "%w", err)
	}
	return id, nil
}

// FileType tells files from directories.
type FileType uint8

// The types of entries.
const (
	TypeFile FileType = iota
	TypeDirectory
)

// String returns "file" or "directory".
func (t FileType) String() string {
	if t == TypeDirectory {
		return "directory"
	}
	return "file"
}

// Info is what is known of one entry of the namespace.
type Info struct {
	Path        Path
	Type        FileType
	Length      int64 // bytes; 0 for a directory
	ModTime     time.Time
	Owner       string // "" where the storage has none
	Group       string
	Mode        uint32 // permission bits; 0 where the storage has none
	Fingerprint fingerprint.Fingerprint
	FileID      FileID // 0 for a directory and for an answer that is not cached
	BlockSize   int64  // bytes
	Mount       MountID
	MountPoint  bool
	// FromCache is false if this very call asked the storage.
	FromCache bool
}

// Source says where bytes are in under-storage and which version they are of.
type Source struct {
	Mount       MountID
	Key         string // relative to the mount's UFS root, without a leading slash
	Fingerprint fingerprint.Fingerprint
}

// Node is a cache node as a client needs to know it.
type Node struct {
	ID     NodeID
	Name   string
	GRPC   string // host:port
	HTTP   string // host:port
	Socket string // Unix socket on the node's host, "" if none
	Host   string // locality
	// Incarnation grows at each start of the node; 0 if it is not known.
	Incarnation uint64
}

// Block is one block of a file, with everything needed to read it: the nodes
// that hold it, best first; if none does, Fetch is the node that should fetch.
type Block struct {
	ID     BlockID
	Offset int64 // in the file, bytes
	Length int64
	Nodes  []Node
	Fetch  Node
	// Via, if set, is the node next to the reader, which does not hold the block but
	// takes it from one that does, and keeps a copy.
	Via Node
	// Full says that there are as many copies as the policy of the path allows: who
	// reads it from another node keeps none.
	Full bool
}

// Location is the answer to "where are these bytes": it needs no second
// question. Cacheable is false for an answer that must not leave blocks behind
// (a load that lost a race with an invalidation); then no FileID is given.
type Location struct {
	Info      Info
	Source    Source
	Blocks    []Block
	Cacheable bool
	// Lease is for how long the answer may be kept unless it is called back; see
	// KeepFor. 0: not at all.
	Lease time.Duration
}

// Ticket is the permission to write one file: who writes, as which version and
// to where.
type Ticket struct {
	Op        OpID
	File      FileID
	Path      Path
	Node      Node
	Write     WriteType
	Target    Source // Fingerprint is empty
	BlockSize int64
	// Owner and Group of a file that is new, and of the directories made for it, ""
	// for those of Freshet's own user.
	Owner, Group string
	// DurableReplicas is on how many nodes the file has to be durable before it becomes
	// visible; 0 is 1. Keepers are nodes for the copies besides that of Node, the best
	// first; they may be more than are needed.
	DurableReplicas int
	Keepers         []Node
}

// Written is what a finished upload reports: the fingerprint is the one that the
// storage returned to the write itself.
type Written struct {
	Length      int64
	ModTime     time.Time
	Fingerprint fingerprint.Fingerprint
	Owner       string
	Group       string
	Mode        uint32
	// Nodes keep the blocks of a file that is not in the storage; none: that which
	// reports it.
	Nodes []NodeID
}
