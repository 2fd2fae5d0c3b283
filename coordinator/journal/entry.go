package journal

import (
	"encoding/binary"

	"github.com/hashicorp/raft"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// entryVersion is the first byte of a log entry. It is followed by the proposals
// in it, each with its length as a varint in front: they were encoded by their
// callers, side by side, and are only joined here.
const entryVersion = 1

// maxCommands bounds what a damaged entry can make a reader allocate.
const maxCommands = 1 << 20

func encodeEntry(batch []*proposal) []byte {
	size := 1
	for _, p := range batch {
		size += binary.MaxVarintLen32 + len(p.data)
	}
	b := append(make([]byte, 0, size), entryVersion)
	for _, p := range batch {
		b = binary.AppendUvarint(b, uint64(len(p.data)))
		b = append(b, p.data...)
	}
	return b
}

// termMark says to checkTerm in which term an entry may enter the log. It is not part of
// what is stored or sent.
func termMark(term uint64) []byte {
	if term == 0 {
		return nil
	}
	return binary.BigEndian.AppendUint64(nil, term)
}

// checkTerm empties an entry that Raft takes in another term than the one for which it was
// proposed: between a proposal and this moment a leader can be deposed and elected again.
// It is called before anybody else can have seen the entry.
func checkTerm(l *raft.Log) {
	if l.Type == raft.LogCommand && len(l.Extensions) > 0 && string(l.Extensions) != string(termMark(l.Term)) {
		l.Data = []byte{entryVersion}
	}
	l.Extensions = nil
}

// decodeEntry returns the commands of an entry in their order.
func decodeEntry(b []byte) ([]namespace.Command, error) {
	const op = "read log entry"
	if len(b) == 0 || b[0] != entryVersion {
		return nil, freshet.Errorf(freshet.KindCorrupt, op, "", "unknown version of a log entry: was it written by a newer release?")
	}
	var cmds []namespace.Command
	for rest := b[1:]; len(rest) > 0; {
		length, n := binary.Uvarint(rest)
		if n <= 0 || length > uint64(len(rest)-n) {
			return nil, freshet.Errorf(freshet.KindCorrupt, op, "", "a proposal in it is cut off")
		}
		part, err := namespace.DecodeBatch(rest[n : n+int(length)])
		if err != nil {
			return nil, freshet.Wrap(op, "", err)
		}
		if len(cmds)+len(part) > maxCommands {
			return nil, freshet.Errorf(freshet.KindCorrupt, op, "", "it has more than %d commands", maxCommands)
		}
		if cmds == nil {
			cmds = part
		} else {
			cmds = append(cmds, part...)
		}
		rest = rest[n+int(length):]
	}
	return cmds, nil
}
