// Package local owns the Unix socket of a cache node, both ends of it: a client on
// the node's host asks for a block and gets the descriptor of the file that holds
// it. Reads then cost no message. What it writes it puts into memory that it shares
// with the node, which takes it from there: a client never has a descriptor by which
// it could change a block.
//
// No paths are exchanged, so the two need to share nothing but the socket. A client
// trusts a node whose ID and incarnation the coordinator named; every byte it
// verifies by the checksums that come with the descriptor. A block that the node does
// not hold is read while the node fetches it, each byte when the node has said that it
// is there; the node has just made the checksums of these. Where anything is
// missing (the socket, the right to use it, the block, the node itself) the bytes
// are streamed: this package never fails a read that a stream could answer. It never
// decides which version of a file is fresh.
package local

import (
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// version of the protocol.
const version = 1

// maxMessage bounds a datagram; the checksums of the largest block take 32 KiB.
const maxMessage = 128 << 10

// Network is that of the socket: datagrams that keep their borders and their order.
const Network = "unixpacket"

// layoutToWire describes a loan.
func layoutToWire(loan uint64, l freshet.BlockLayout) *freshetv1.LocalLoan {
	return &freshetv1.LocalLoan{
		Loan: loan, Offset: l.Offset, Length: l.Length, ChunkSize: l.ChunkSize, Sums: encodeWords(l.Sums), Verified: encodeWords(l.Verified),
		Sealed: l.Sealed, Inode: l.Stamp.Inode, Size: l.Stamp.Size, MtimeNs: l.Stamp.ModTime, CtimeNs: l.Stamp.ChangeTime,
	}
}

// maxChunk bounds what a client reads to verify a part of it.
const maxChunk = 16 << 20

// layoutOfWire accepts only what describes a block: what comes next is arithmetic
// without further questions.
func layoutOfWire(m *freshetv1.LocalLoan) (freshet.BlockLayout, error) {
	l := freshet.BlockLayout{
		Offset: m.GetOffset(), Length: m.GetLength(), ChunkSize: m.GetChunkSize(),
		Sums: decodeWords(m.GetSums()), Verified: decodeWords(m.GetVerified()), Sealed: m.GetSealed(),
		Stamp: freshet.FileStamp{Inode: m.GetInode(), Size: m.GetSize(), ModTime: m.GetMtimeNs(), ChangeTime: m.GetCtimeNs()},
	}
	if l.Offset < 0 || l.Length <= 0 || l.Length > freshet.MaxBlockSize || l.Offset > math.MaxInt64-l.Length || l.ChunkSize <= 0 || l.ChunkSize > maxChunk {
		return freshet.BlockLayout{}, freshet.Errorf(freshet.KindCorrupt, "read block", "", "the node describes an impossible block")
	}
	chunks := (l.Length + l.ChunkSize - 1) / l.ChunkSize
	if int64(len(m.GetSums())) != 8*chunks || int64(len(m.GetVerified())) != 8*((chunks+63)/64) {
		return freshet.BlockLayout{}, freshet.Errorf(freshet.KindCorrupt, "read block", "", "the node sent checksums of another block")
	}
	return l, nil
}

func encodeWords(words []uint64) []byte {
	b := make([]byte, 0, 8*len(words))
	for _, w := range words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

func decodeWords(b []byte) []uint64 {
	words := make([]uint64, len(b)/8)
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return words
}

// decodeRequest reads a datagram of a client.
func decodeRequest(b []byte) (*freshetv1.LocalRequest, error) {
	m := new(freshetv1.LocalRequest)
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, freshet.Errorf(freshet.KindInvalid, "read request", "", "%w", err)
	}
	if m.GetWhat() == nil {
		return nil, freshet.Errorf(freshet.KindInvalid, "read request", "", "the request asks for nothing that is known")
	}
	return m, nil
}

// answer is what a node said.
type answer struct {
	id      uint64
	welcome *freshetv1.LocalWelcome
	err     error    // a refusal
	recall  []uint64 // loans
	loan    uint64
	layout  freshet.BlockLayout
	isLoan  bool
	fd      int  // of a loan, a draft or a room, else -1
	isDraft bool // which is lent as loan, too
	from    string
	isHave  bool
	have    int64 // of a draft, or how far one has come

	room    *freshetv1.LocalRoom // with a descriptor
	taken   int                  // slots
	outcome *freshetv1.LocalOutcome
}

// lends reports whether the answer comes with a descriptor that has to be given back.
func (a *answer) lends() bool { return a.isLoan || a.isDraft }

func (a *answer) hasDescriptor() bool { return a.lends() || a.room != nil }

// decodeAnswer reads a datagram of a node, all but the descriptor.
func decodeAnswer(b []byte) (answer, error) {
	m := new(freshetv1.LocalAnswer)
	a := answer{fd: -1}
	if err := proto.Unmarshal(b, m); err != nil {
		return a, freshet.Errorf(freshet.KindCorrupt, "read answer", "", "%w", err)
	}
	a.id = m.GetId()
	switch w := m.GetWhat().(type) {
	case *freshetv1.LocalAnswer_Welcome:
		a.welcome = w.Welcome
	case *freshetv1.LocalAnswer_Refusal:
		kind, ok := freshet.ParseKind(w.Refusal.GetKind())
		if !ok {
			kind = freshet.KindInternal
		}
		a.err = freshet.Errorf(kind, "open local block", "", "the node says: %s", w.Refusal.GetMessage())
	case *freshetv1.LocalAnswer_Recall:
		a.recall = w.Recall.GetLoans()
	case *freshetv1.LocalAnswer_Loan:
		var err error
		if a.layout, err = layoutOfWire(w.Loan); err != nil {
			return a, err
		}
		a.loan, a.isLoan = w.Loan.GetLoan(), true
	case *freshetv1.LocalAnswer_Draft:
		return a, a.setDraft(w.Draft)
	case *freshetv1.LocalAnswer_Progress:
		a.have, a.isHave = w.Progress.GetHave(), true
	case *freshetv1.LocalAnswer_Room:
		if !roomIsSane(w.Room) {
			return a, freshet.Errorf(freshet.KindCorrupt, "write file", "", "the node describes impossible memory")
		}
		a.room = w.Room
	case *freshetv1.LocalAnswer_Taken:
		a.taken = int(w.Taken.GetSlots())
	case *freshetv1.LocalAnswer_Outcome:
		a.outcome = w.Outcome
	default:
		return a, freshet.Errorf(freshet.KindCorrupt, "read answer", "", "the answer says nothing that is known")
	}
	return a, nil
}
