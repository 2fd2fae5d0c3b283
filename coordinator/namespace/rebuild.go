package namespace

import (
	"errors"
	"fmt"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/invalidation"
)

var errTable = errors.New("malformed row")

func newIndex() index {
	return index{
		trie:     &trieNode{children: map[string]*trieNode{}},
		policies: map[freshet.Path]Policy{},
		intents:  map[freshet.OpID]*intent{},
		writers:  map[mountKey][]*intent{},
		uploads:  map[freshet.FileID]freshet.OpID{},
		zombies:  map[freshet.OpID]*intent{},
		heads:    map[freshet.DomainID]*head{},
		subs:     map[subKey]*invalidation.Subscription{},
		cursors:  map[string]WatchCursor{},
		jobs:     map[uint64]SyncJob{},
		warms:    map[uint64]WarmJob{},
		members:  map[string]Member{},
		nodes:    map[freshet.NodeID]NodeRole{},
		attrIDs:  map[attr]uint32{},
		missing:  missingRing{byKey: map[mountKey]missed{}, first: 1},
		quotas:   newQuotas(),
		files:    newUnpersistedFiles(),
	}
}

// readIndex reads the small tables.
func readIndex(r kv.Reader, k keys) (index, error) {
	x := newIndex()
	b, ok, err := r.Get(k.table(tableMeta))
	if err != nil || !ok {
		return x, err
	}
	if err := decode(b, &x.meta); err != nil {
		return x, fmt.Errorf("%w: meta: %w", errTable, err)
	}
	if err := x.meta.check(); err != nil {
		return x, err
	}
	tables := []struct {
		table byte
		read  func(key, value []byte) error
	}{
		{tableMount, x.readMount},
		{tablePolicy, x.readPolicy},
		{tableQuota, x.readQuota}, // before the intents, which reserve of them
		{tableIntent, x.readIntent},
		{tableHead, x.readHead},
		{tableSub, x.readSub},
		{tableCursor, x.readCursor},
		{tableJob, x.readJob},
		{tableWarm, x.readWarm},
		{tableMember, x.readMember},
		{tableNode, x.readNodeRole},
		{tableAttr, x.readAttr},
		{tableMissing, x.readMissing},
		{tableTrash, x.readTrash},
		{tableUnpersisted, x.readUnpersisted},
	}
	for _, tab := range tables {
		start, end := k.bounds(tab.table)
		var failed error
		err := r.Scan(start, end, func(key, value []byte) bool {
			failed = tab.read(key[len(start):], value)
			return failed == nil
		})
		if err = errors.Join(err, failed); err != nil {
			return x, fmt.Errorf("table %q: %w", tab.table, err)
		}
	}
	return x, x.placeUnpersisted(r, k)
}

func (x *index) readMount(_, value []byte) error {
	m := &mount{}
	if err := decode(value, &m.Mount); err != nil {
		return err
	}
	if p, err := freshet.ParsePath(string(m.Path)); err != nil || p != m.Path {
		return errTable
	}
	m.root = rootPlace(m.ID)
	x.insertMount(m)
	return nil
}

func (x *index) readPolicy(_, value []byte) error {
	var p Policy
	if err := decode(value, &p); err != nil {
		return err
	}
	if checkPolicy("read policy", &p) != nil {
		return errTable
	}
	x.insertPolicy(p)
	return nil
}

func (x *index) readIntent(_, value []byte) error {
	in := &intent{}
	if err := decode(value, in); err != nil {
		return err
	}
	x.insertIntent(in)
	return nil
}

func (x *index) readHead(_, value []byte) error {
	h := &head{}
	if err := decode(value, h); err != nil {
		return err
	}
	x.heads[h.Domain] = h
	return nil
}

func (x *index) readSub(_, value []byte) error {
	s := &invalidation.Subscription{}
	if err := decode(value, s); err != nil {
		return err
	}
	x.subs[keyOf(*s)] = s
	return nil
}

func (x *index) readMember(_, value []byte) error {
	var m Member
	if err := decode(value, &m); err != nil {
		return err
	}
	x.members[m.ID] = m
	return nil
}

func (x *index) readAttr(key, value []byte) error {
	d := reader{rest: value}
	a := d.attr(true, nil)
	x.attrs = append(x.attrs, a)
	x.attrIDs[a] = uint32(len(x.attrs))
	if d.bad || len(d.rest) != 0 || len(key) != 8 || u64Of(key) != uint64(len(x.attrs)) {
		return errTable
	}
	return nil
}

func (x *index) readMissing(key, value []byte) error {
	k, m, ok := decodeMissed(value)
	if !ok || len(key) != 8 {
		return errTable
	}
	m.seq = u64Of(key)
	if len(x.missing.order) == 0 {
		x.missing.first = m.seq
	}
	if m.seq != x.missing.first+uint64(len(x.missing.order)) {
		return errTable
	}
	x.missing.order = append(x.missing.order, k)
	x.missing.byKey[k] = m
	return nil
}

func (x *index) readTrash(key, _ []byte) error {
	if len(key) != 8 {
		return errTable
	}
	x.trash++
	return nil
}
