package freshet

import "io"

// BlockRead asks a cache node for bytes of one block.
type BlockRead struct {
	Block  Block // with the nodes that hold it
	Source Source
	Offset int64 // in the block, bytes
	Length int64 // bytes; < 0: to the end of the block
	Type   ReadType
	// Cached asks only for what the node holds itself; KindNotExist otherwise.
	// It is how one node reads from another.
	Cached bool
}

// Origin says where the bytes of a read came from.
type Origin uint8

// The origins.
const (
	OriginHit    Origin = iota // the node's own cache
	OriginRemote               // the cache of another node
	OriginUFS                  // the storage
)

// String returns "hit", "remote" or "ufs".
func (o Origin) String() string { return wordOf([]string{"hit", "remote", "ufs"}, o) }

// BlockStream is the answer to a BlockRead: exactly the bytes asked for, then
// io.EOF, or an error; never bytes of two versions. It must be closed, and used
// by one goroutine at a time.
type BlockStream interface {
	io.ReadCloser
	io.WriterTo
	// Length returns how many bytes the whole stream has.
	Length() int64
	// Origin says where the bytes come from, as far as is known now.
	Origin() Origin
}
