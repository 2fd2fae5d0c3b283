package namespace

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/invalidation"
)

// resolve ends an operation whose writer can't say how it ended. The entry is
// never servable afterwards; its content is ours only if the storage proves it.
func (t *txn) resolveIntent(c *Resolve) Result {
	in := t.intents[c.Op]
	switch {
	case in == nil:
		if o, ok := t.outcome(c.Op); ok {
			return Result{Done: true, Completed: o.Completed}
		}
		return Result{Err: unknownOp("resolve", c.Op)}
	case in.State == IntentQuarantine && c.Late:
		return t.resolveLate(in, c)
	case in.State == IntentQuarantine && c.Ended:
		return t.endQuarantine(&EndQuarantine{Op: c.Op, At: c.At})
	case in.State == IntentQuarantine:
		return Result{Intent: in.Intent}
	}
	seen := c.Observed
	if !c.Known {
		seen = nil
	}
	m := t.mountByID(in.Mount)
	if m != nil && c.Known && c.Start != 0 && t.keeps(in, m) && !t.unchanged(in, m, c.Start) {
		return Result{Err: lookAgain(in)}
	}
	bound := false
	if m != nil {
		bound = c.Ours && seen != nil && in.Kind == OpWrite && in.Persist == 0 && !t.laterLoad(in, m) && t.adopt(in, m, seen)
		if c.Known {
			t.followKept(in, m, c)
		}
		t.markIntent(in, m)
	}
	token := t.publish(in, in.recordKind(), seen, c.At.UTC())
	res := Result{Intent: in.Intent}
	if c.Ours {
		res.Done = true
		res.Completed = freshet.Completed{Info: t.completedInfo(in, m, seen, false), Token: token}
		t.saveOutcome(in.Op, res.Completed)
	}
	if c.Ended {
		t.endIntent(in, bound)
		return res
	}
	t.quarantine(in, bound)
	res.Intent = in.Intent
	return res
}

// resolveLate has unpersisted files follow an operation in quarantine that has landed by now.
func (t *txn) resolveLate(in *intent, c *Resolve) Result {
	if m := t.mountByID(in.Mount); m != nil && c.Known {
		if !t.calm(in, m, c.Start) {
			return Result{Err: lookAgain(in)}
		}
		t.followKept(in, m, c)
		t.markIntent(in, m)
	}
	if c.Ended {
		return t.endQuarantine(&EndQuarantine{Op: c.Op, At: c.At})
	}
	t.publish(in, in.recordKind(), c.Observed, c.At.UTC())
	return Result{Intent: in.Intent}
}

// ErrChanged is in the error of a resolution that came too late.
var ErrChanged = errors.New("it changed while the storage was looked at: look again")

func lookAgain(in *intent) error {
	return freshet.Errorf(freshet.KindConflict, "resolve", in.Path, "%w", ErrChanged)
}

// keeps reports whether there are unpersisted files at or below the operation's keys.
func (t *txn) keeps(in *intent, m *mount) bool {
	return slices.ContainsFunc(in.keys(), func(key string) bool {
		c := t.walk(m, key)
		return t.holds(c.entry())
	})
}

// unchanged reports whether nothing of this cluster changed what is at the operation's keys
// since start.
func (t *txn) unchanged(in *intent, m *mount, start uint64) bool {
	for _, key := range in.keys() {
		c := t.walk(m, key)
		if t.need(m, key, &c) > start || c.entry() != nil && c.last().validFrom > start {
			return false
		}
	}
	return true
}

// calm reports whether nothing of this cluster changed what is at the operation's keys since
// start, or may be changing it in the storage.
func (t *txn) calm(in *intent, m *mount, start uint64) bool {
	if !t.unchanged(in, m, start) {
		return false
	}
	for _, o := range t.intents {
		if o != in && o.State == IntentMayPublish && in.overlaps(o) {
			return false
		}
	}
	return true
}

// followKept does for unpersisted files what an operation without an answer is seen to have
// done to the storage. One that is newer than the operation stays, over what that left.
func (t *txn) followKept(in *intent, m *mount, c *Resolve) {
	seen := c.Observed
	switch {
	case in.Kind == OpRemove && seen == nil:
		t.discardRemoved(m, in)
		for _, u := range t.unpersistedUnder(m, in.Key) {
			t.lay(u, fingerprint.Fingerprint{})
		}
	case seen == nil:
	case in.Kind == OpSetAttr:
		t.layChanged(in, m, seen)
	case in.Kind == OpRename && c.Moved:
		t.followRename(in, m, seen, c.Copied)
	case in.Kind == OpWrite && c.Ours && in.Persist != 0 && in.Sealed == nil:
		t.completePersist(in, m, seen, false)
	case in.Kind == OpWrite && c.Ours && in.Persist != 0:
		// It has its name, which the storage may lose yet: who keeps the bytes persists them again.
		t.layUnder(m, in.Key, seen.Fingerprint)
		t.putOff(in.Persist, c.At)
	case in.Kind == OpWrite && c.Ours:
		t.replaceKept(m, in, in.Key)
		t.layUnder(m, in.Key, seen.Fingerprint)
	}
}

// followRename does for what is not in the storage what a rename without an answer did,
// if it is seen to have moved what is: nothing is at its source, and at its target is what
// the storage had of the file, or a copy, or a directory.
func (t *txn) followRename(in *intent, m *mount, seen *Entry, copied bool) {
	if in.Recursive != (seen.Type == freshet.TypeDirectory) {
		return
	}
	if !in.Recursive {
		had := t.sourceOf(in, m)
		if !had.Known() || !copied && !seen.Fingerprint.Moved(had) {
			return
		}
		t.replaceKept(m, in, in.Key2)
	}
	t.carry(m, in, seen)
}

// sourceOf returns what the storage had of the file that a rename moves.
func (t *txn) sourceOf(in *intent, m *mount) fingerprint.Fingerprint {
	if in.Source != nil {
		return *in.Source
	}
	c := t.walk(m, in.Key)
	n := c.entry()
	if u := t.unpersistedAt(n); u != nil {
		return u.Beneath
	}
	if n == nil || n.dir {
		return fingerprint.Fingerprint{}
	}
	return n.fingerprint()
}

// laterLoad reports whether a load installed the intent's entry since it began.
func (t *txn) laterLoad(in *intent, m *mount) bool {
	c := t.walk(m, in.Key)
	return c.entry() != nil && c.last().validFrom > in.Started
}

func (t *txn) markIntent(in *intent, m *mount) {
	for _, key := range in.keys() {
		t.mark(m, key, in.spansBelow())
	}
}

func (t *txn) endQuarantine(c *EndQuarantine) Result {
	in := t.intents[c.Op]
	switch {
	case in == nil:
		return Result{Err: unknownOp("end quarantine", c.Op)}
	case in.State != IntentQuarantine:
		return Result{Err: freshet.Errorf(freshet.KindConflict, "end quarantine", in.Path, "operation %s is not in quarantine but %s: resolve it first", c.Op, in.State)}
	}
	if m := t.mountByID(in.Mount); m != nil {
		t.markIntent(in, m)
	}
	if !in.Done { // else its effect was published when it was acknowledged
		t.publish(in, in.recordKind(), nil, c.At.UTC())
	}
	t.endIntent(in, false)
	return Result{}
}

func readOutcome(r kv.Reader, key []byte) (o outcome, ok bool, err error) {
	b, ok, err := r.Get(key)
	if err == nil && ok {
		err = decode(b, &o)
	}
	return o, ok, err
}

func (t *txn) outcome(op freshet.OpID) (outcome, bool) {
	var from kv.Reader = t.store
	if t.outcomes { // this log entry has changed some: to look there too is dearer
		from = t.b
	}
	o, ok, err := readOutcome(from, t.opKey(tableOutcome, op))
	t.fail(err)
	return o, ok
}

func (t *txn) saveOutcome(op freshet.OpID, c freshet.Completed) {
	t.pack = packOutcome(t.pack[:0], &outcome{Index: t.i, Completed: c})
	t.set(t.opKey(tableOutcome, op), t.pack)
	t.key = append(binary.BigEndian.AppendUint64(append(t.key[:0], t.keys.gen, tableEnded), t.i), op[:]...)
	t.set(t.key, nil)
	t.outcomes = true
}

func (t *txn) forgetOps(c *ForgetOps) Result {
	start, _ := t.keys.bounds(tableEnded)
	end := t.keys.u64(tableEnded, c.Index+1)
	var ops []freshet.OpID
	t.fail(t.b.Scan(start, end, func(key, _ []byte) bool {
		ops = append(ops, freshet.OpID(key[len(key)-16:]))
		return true
	}))
	for _, op := range ops {
		t.del(t.keys.op(tableOutcome, op))
	}
	t.fail(t.b.DeleteRange(start, end))
	t.outcomes = true
	return Result{}
}

// head is the head of an own log, with what its readers need once records below
// Low are dropped.
type head struct {
	invalidation.Head
	LowHash invalidation.Hash // of the chain before Low
}

// headOf returns the log of a domain, made if needed.
func (t *txn) headOf(d freshet.DomainID) *head {
	h := t.heads[d]
	if h == nil {
		h = &head{Head: invalidation.Head{Domain: d, Low: 1}}
		t.heads[d] = h
		t.grown[d] = true
		t.changes.Heads = true
	}
	return h
}

// appendRecord gives r the next sequence number of the domain's log and appends
// it, with the chain's value after it.
func (t *txn) appendRecord(d freshet.DomainID, r invalidation.Record) freshet.Token {
	h := t.headOf(d)
	h.High++
	r.Seq = h.High
	h.Hash, t.pack = h.Hash.AppendNext(t.pack[:0], r)
	t.key = binary.BigEndian.AppendUint64(append(append(t.key[:0], t.keys.gen, tableRecord), d[:]...), r.Seq)
	t.set(t.key, t.pack)
	t.grown[d] = true
	t.changes.Heads = true
	return freshet.Token{Cluster: t.meta.Cluster, Epoch: t.meta.Epoch, Domain: d, Seq: r.Seq}
}

func (t *txn) publishAll(c *PublishAll) Result {
	for _, h := range t.sortedHeads() {
		t.appendRecord(h, invalidation.Record{Kind: invalidation.KindAll, Key: "/", Recursive: true, PublishedAt: c.At.UTC()})
		t.markDomain(h, "/", true, 0)
	}
	return Result{}
}

func (t *txn) compact(c *Compact) Result {
	h := t.heads[c.Domain]
	if h == nil {
		return Result{Err: freshet.Errorf(freshet.KindNotExist, "compact", "", "no log of that domain is kept")}
	}
	low := min(c.Low, h.High+1)
	if low <= h.Low {
		return Result{}
	}
	b, ok, err := t.b.Get(t.keys.record(c.Domain, low-1))
	t.fail(err)
	if !ok || len(b) < len(h.LowHash) {
		return Result{Err: freshet.Errorf(freshet.KindCorrupt, "compact", "", "record %d of the log is missing", low-1)}
	}
	copy(h.LowHash[:], b)
	t.fail(t.b.DeleteRange(t.keys.record(c.Domain, h.Low), t.keys.record(c.Domain, low)))
	h.Low = low
	t.grown[c.Domain] = true
	t.changes.Heads = true
	return Result{}
}

// sameVersion reports whether the entry is the very version that a record names.
func sameVersion(n *inode, fp fingerprint.Fingerprint) bool {
	return fp.Equal(n.fingerprint())
}
