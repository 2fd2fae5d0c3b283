package inotify

import (
	"fmt"

	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
)

// maxRecords bounds the records of a notice.
const maxRecords = 1000

// place is what makes records the same mark.
type place struct {
	kind      invalidation.Kind // 0 for those of one entry, whatever happened to it
	key, key2 string
	recursive bool
}

// builder puts records into notices of bounded size, each once per notice.
type builder struct {
	out  []ufs.Notice
	now  ufs.Notice
	seen map[place]int
}

// notices returns what to tell of e, the answer to the question for all after
// pos, and the position after it. A position only counts a transaction in
// whose records were all told.
func notices(pos position, e edits) ([]ufs.Notice, position) {
	b := builder{seen: map[place]int{}}
	if e.first != pos.txid+1 {
		b.now.Gap = fmt.Sprintf("the NameNode has no edits from transaction %d on any more, its first is %d; it should keep more of them (dfs.namenode.num.extra.edits.retained)", pos.txid+1, e.first)
	}
	for _, batch := range e.batches {
		if batch.unread != "" {
			b.now.Gap = batch.unread
		}
		for i := range batch.records {
			if len(b.now.Changes) == maxRecords {
				b.flush(pos)
			}
			b.add(batch.records[i])
		}
		pos.txid, pos.witness, pos.digest = batch.txid, batch.txid, batch.digest
		if len(b.now.Changes) == maxRecords {
			b.flush(pos)
		}
	}
	pos.txid = e.last
	if len(b.now.Changes) > 0 || b.now.Gap != "" {
		b.flush(pos)
	}
	return b.out, pos
}

func (b *builder) flush(pos position) {
	b.now.Cursor = pos.cursor()
	b.out = append(b.out, b.now)
	b.now = ufs.Notice{}
	clear(b.seen)
}

// add appends r unless the notice marks the same already: a new file is a
// creation and a change, mostly in one answer.
func (b *builder) add(r invalidation.Record) {
	p := place{kind: r.Kind, key: r.Key, key2: r.Key2, recursive: r.Recursive}
	if weight(r.Kind) > 0 && !r.Recursive {
		p.kind = 0
	}
	if i, ok := b.seen[p]; ok {
		if weight(r.Kind) > weight(b.now.Changes[i].Kind) {
			b.now.Changes[i].Kind = r.Kind
		}
		return
	}
	b.seen[p] = len(b.now.Changes)
	b.now.Changes = append(b.now.Changes, r)
}

// weight orders the kinds that concern one entry only; 0 for all others.
func weight(k invalidation.Kind) int {
	switch k {
	case invalidation.KindMeta:
		return 1
	case invalidation.KindContent:
		return 2
	case invalidation.KindCreate, invalidation.KindMkdir:
		return 3
	default:
		return 0
	}
}
