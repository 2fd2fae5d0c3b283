package sim_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
)

// quiet waits until the faults are over for the clusters too: everybody has a
// leader, no operation is unresolved, no mount degraded, and every position is the
// head of its log (S3).
func (w *world) quiet() bool {
	w.t.Helper()
	w.bucket.late.Wait()
	for _, s := range w.sites {
		for _, h := range s.heads() {
			w.note("%s: its log holds %d to %d", s.name, h.Low, h.High)
		}
	}
	return w.until(3*time.Minute, "quiet", func() string {
		for _, s := range w.sites {
			if why := s.unsettled(); why != "" {
				return s.name + ": " + why
			}
		}
		for _, a := range w.sites {
			for _, b := range w.sites {
				if why := behind(a, b); a != b && why != "" {
					return why
				}
			}
		}
		return ""
	})
}

func (s *site) heads() []invalidation.Head {
	if m := s.leader(); m != nil {
		if c := m.running(); c != nil {
			heads, _ := c.Heads()
			return heads
		}
	}
	return nil
}

func (s *site) unsettled() string {
	if i := slices.IndexFunc(s.nodes, func(n *node) bool { return !n.up() }); i >= 0 {
		return s.nodes[i].name + " is away"
	}
	m := s.leader()
	if m == nil {
		return "no leader"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c := m.running()
	if c == nil {
		return "no leader"
	}
	st, err := c.Cluster(ctx)
	switch {
	case err != nil:
		return err.Error()
	case st.Intents > 0:
		return fmt.Sprintf("%d operations are not resolved, %d of them in quarantine", st.Intents, st.Quarantined)
	case int(st.LiveNodes) != len(s.nodes):
		return fmt.Sprintf("%d of %d cache nodes live", st.LiveNodes, len(s.nodes))
	}
	mounts, _, err := c.Mounts(ctx, "")
	if err != nil {
		return err.Error()
	}
	for _, m := range mounts {
		if m.Degraded {
			return "degraded: " + m.DegradedReason
		}
	}
	return ""
}

// behind says why a receiver is not level with a publisher.
func behind(r, p *site) string {
	rl, pl := r.leader(), p.leader()
	if rl == nil || pl == nil {
		return "no leader"
	}
	rc, pc := rl.running(), pl.running()
	if rc == nil || pc == nil {
		return "no leader"
	}
	heads, _ := pc.Heads()
	subs, err := rc.Subscriptions()
	if err != nil {
		return err.Error()
	}
	self := pc.Publisher()
	for _, h := range heads {
		i := slices.IndexFunc(subs, func(s invalidation.Subscription) bool {
			return s.Domain == h.Domain && s.Publisher.Cluster == self.Cluster
		})
		switch {
		case i < 0:
			return fmt.Sprintf("%s has no position in the log of %s", r.name, p.name)
		case subs[i].Applied != h.High || subs[i].Hash != h.Hash || subs[i].State != invalidation.StateSynced || subs[i].Publisher.Epoch != self.Epoch:
			return fmt.Sprintf("S3: %s is at %d (%s, epoch %d) in the log of %s, the head is %d (epoch %d)",
				r.name, subs[i].Applied, subs[i].State, subs[i].Publisher.Epoch, p.name, h.High, self.Epoch)
		}
	}
	for _, sub := range subs {
		if sub.Publisher.Name == p.name && sub.Publisher.Cluster != self.Cluster {
			return fmt.Sprintf("C24: %s still has a position in the log of a former %s", r.name, p.name)
		}
	}
	return ""
}

// converged compares every cluster with the storage, without a forced look.
func (w *world) converged() {
	truth := w.bucket.store.FS("")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for _, s := range w.sites {
		files := client.New(router{s}, nodesOf{s}, client.Options{})
		w.sameListing(ctx, s, files, truth)
		keys := slices.Clone(fileKeys)
		for _, key := range w.bucket.keys("/") {
			if !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
		for _, key := range keys {
			if covers(s.prefix, key) {
				w.sameFile(ctx, s, files, truth, key)
			}
		}
	}
	for key := range w.bucket.store.Snapshot() {
		if strings.Contains(key, ufs.TempPrefix) {
			w.violation("/"+key, "%s is left behind", key)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); w.bucket.store.Uploads() != 0 && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond) // what was aborted is cleared in the background
	}
	if n := w.bucket.store.Uploads(); n != 0 {
		for u, by := range w.bucket.open {
			// A leader that did not know whether it gave the upload up may be followed by one
			// that finds nothing to give up.
			if !w.bucket.orphan(u) && !w.story.leftUnsure(u.op.String()) {
				w.violation(u.key, "upload %s of %s by %s is left behind", u.op, u.key, by)
			}
		}
		w.note("%d uploads are left behind", n)
	}
}

func (w *world) sameFile(ctx context.Context, s *site, files *client.Client, truth ufs.FS, key string) {
	p := s.pathOf(key)
	want, terr := truth.Stat(ctx, key[1:])
	st, err := files.Stat(ctx, p, freshet.ReadOptions{})
	switch {
	case freshet.IsKind(terr, freshet.KindNotExist) && freshet.IsKind(err, freshet.KindNotExist):
		return
	case terr != nil || err != nil:
		w.violation(key, "S1: %s in %s: %v; in the storage: %v", key, s.name, err, terr)
		return
	case st.Info.Type != want.Type || st.Info.Length != want.Length || st.Info.Fingerprint.String() != want.Fingerprint.String():
		w.violation(key, "S1: %s in %s: %+v; in the storage: %+v", key, s.name, st.Info, want)
	}
	if want.IsDir() {
		return
	}
	data := w.bucket.store.Snapshot()[key[1:]]
	r, err := files.Open(ctx, p, client.Whole())
	if err != nil {
		w.violation(key, "read of %s in %s: %v", key, s.name, err)
		return
	}
	got, err := io.ReadAll(r)
	_ = r.Close() // read only
	if err != nil || string(got) != string(data) {
		w.violation(key, "S1: read of %s in %s: version %d (%v); in the storage: %d", key, s.name, versionOf(got), err, versionOf(data))
	}
	var again freshet.Status
	for range 3 { // what may be marked once more meanwhile: late effects are
		if again, err = files.Stat(ctx, p, freshet.ReadOptions{}); err == nil && again.Info.FromCache {
			return
		}
	}
	x, xerr := files.Explain(ctx, p, true)
	w.violation(key, "L4: %s in %s is looked at again and again though nothing changes: %+v, %v; %+v, %v", key, s.name, again.Info, err, x, xerr)
}

func (w *world) sameListing(ctx context.Context, s *site, files *client.Client, truth ufs.FS) {
	got, err := listAll(ctx, files, freshet.ListQuery{Path: s.path, Recursive: true})
	if err != nil {
		w.violation("", "list of %s: %v", s.name, err)
		return
	}
	for st, err := range truth.List(ctx, strings.Trim(s.prefix, "/"), ufs.ListOptions{Recursive: true}) {
		if freshet.IsKind(err, freshet.KindNotExist) {
			break
		}
		if err != nil {
			w.t.Fatal(err)
		}
		p := s.pathOf("/" + st.Key)
		e, ok := got[p]
		if !ok || e.Type != st.Type || e.Length != st.Length {
			w.violation("/"+st.Key, "S1: list of %s: %s is listed: %t, as %+v; in the storage: %+v", s.name, p, ok, e, st)
		}
		delete(got, p)
	}
	for p := range got {
		w.violation(s.key(p), "S1: list of %s has %s, which the storage has not", s.name, p)
	}
}

// explained finds changes of the storage that nobody asked for, and those of
// operations that were refused.
func (w *world) explained() {
	w.hist.mu.Lock()
	defer w.hist.mu.Unlock()
	w.bucket.mu.Lock()
	defer w.bucket.mu.Unlock()
	writes := map[int]*attempt{}
	for _, a := range w.hist.attempts {
		if a.version > 0 {
			writes[a.version] = a
		}
	}
	for key, spells := range w.bucket.past {
		for _, sp := range spells {
			// What takes several steps may be refused half-way: only a write is all or nothing.
			if a := writes[sp.version]; a != nil && a.denied() {
				w.violation(key, "%s was told that nothing was written of version %d of %s, which %s holds from %.3fs on",
					a.site.name, a.version, a.key, key, sp.at.Sub(w.start).Seconds())
			}
			if a := writes[sp.version]; a != nil && a.kept() && (a.denied() || w.hist.mayLand(a, key, sp.at)) {
				continue
			}
			if !slices.ContainsFunc(w.hist.attempts, func(a *attempt) bool {
				return a.covers(key) && !a.began.After(sp.at) && (!a.denied() || a.version == 0) &&
					(a.version == 0 || a.version == sp.version) && (a.outcome != acked || !a.ended.Before(sp.at))
			}) {
				w.violation(key, "nobody asked for version %d at %s at %.3fs", sp.version, key, sp.at.Sub(w.start).Seconds())
			}
		}
	}
}

// collect reads what the sites have published since the last time.
func (s *site) collect() {
	for _, m := range s.members {
		c := m.running()
		if c == nil {
			continue
		}
		id := c.Publisher().Cluster
		l := s.logs[id]
		if l == nil {
			l = &siteLog{}
			s.logs[id] = l
		}
		for {
			b, err := c.Records(s.domain, l.high, 500)
			if err != nil || len(b.Records) == 0 {
				break
			}
			for _, r := range b.Records {
				l.high = r.Seq
				l.records = append(l.records, logged{
					key: r.Key, key2: r.Key2, wide: r.Recursive || r.Kind == invalidation.KindSubtree || r.Kind == invalidation.KindDelete || r.Kind == invalidation.KindRename,
					all: r.Kind == invalidation.KindAll, op: r.Op, at: r.PublishedAt, what: r.Kind.String(),
				})
			}
		}
	}
}

// published compares the effects with the logs: after each effect there is a record
// of it (S2), and there is none for which nobody asked (S9).
func (w *world) published(faults bool) {
	first := map[int]time.Time{}
	for _, spells := range w.bucket.past {
		for _, sp := range spells {
			if at, ok := first[sp.version]; !ok || sp.at.Before(at) {
				first[sp.version] = sp.at
			}
		}
	}
	for key, spells := range w.bucket.past {
		held := map[int]bool{}
		for _, sp := range spells {
			var by *site // of a version that appears, for the first time, where it was written
			for _, a := range w.hist.attempts {
				if sp.version > 0 && !held[sp.version] && a.version == sp.version && (!a.kept() && a.key == key || a.kept() && sp.at.Equal(first[sp.version])) {
					by = a.site
				}
			}
			held[sp.version] = true
			if !w.recorded(by, key, sp.at) {
				w.violation(key, "S2: no record follows version %d at %s at %.3fs (of one site: %t)", sp.version, key, sp.at.Sub(w.start).Seconds(), by != nil)
			}
		}
	}
	for _, s := range w.sites {
		asked, records, done := map[freshet.OpID]*attempt{}, map[freshet.OpID]int{}, 0
		for _, a := range w.hist.attempts {
			if a.site == s {
				asked[a.op] = a
				if a.outcome == acked {
					done++
				}
			}
		}
		total := 0
		for _, l := range s.logs {
			for _, r := range l.records {
				if r.all {
					continue
				}
				total++
				records[r.op]++
				a, late := asked[r.op], false
				for _, x := range asked { // a late effect is published under an operation of its own
					late = late || (a == nil && faults && x.version > 0 && x.key == r.key)
				}
				if x := w.shipped(s, r.op); x != nil && x.key == r.key || a == nil && r.what == invalidation.KindMkdir.String() && w.prepared(s, r.key) {
					continue // it was persisted, or its directory was made
				}
				if !late && (a == nil || !a.covers(r.key)) {
					w.violation(r.key, "S9: %s published a %s of %s, for which none of its clients asked", s.name, r.what, r.key)
				}
			}
		}
		for op, a := range asked {
			n := records[op]
			most, least := 2, 0
			switch {
			case !faults:
				most = 1
			case w.story.givenUp(op.String()) || w.story.leftUnsure(op.String()):
				// When it was given up; by its writer, whose word came after that and must be
				// followed by a record, for the effect may have come between; and when nothing
				// can land any more (C12).
				most = 3
			}
			most += w.story.landings(op.String())                              // each leader says so once
			if a.outcome == acked && a.what != "mkdir" && s.rebuilt.IsZero() { // a directory may be there already
				least = 1
			}
			switch {
			case a.kept(): // what is not in the storage concerns nobody else
				least, most = 0, 0
			case a.what == "rename" && w.hist.mayMoveKept(a): // of such a file
				least = 0
			}
			if n < least || n > most {
				w.violation(a.key, "S9: %s published %d records of one %s of %s: operation %s %s", s.name, n, a.what, a.key, op, s.recordsOf(w, op))
			}
		}
		w.note("%s: %d changes done, %d records", s.name, done, total)
	}
}

// recordsOf says when an operation was published.
func (s *site) recordsOf(w *world, op freshet.OpID) string {
	var all []string
	for _, l := range s.logs {
		for _, r := range l.records {
			if r.op == op {
				all = append(all, fmt.Sprintf("as %s at %.3fs", r.what, r.at.Sub(w.start).Seconds()))
			}
		}
	}
	return strings.Join(all, ", ")
}

func (w *world) recorded(by *site, key string, at time.Time) bool {
	for _, s := range w.sites {
		if by != nil && s != by {
			continue
		}
		if !s.rebuilt.IsZero() && !s.rebuilt.Before(at) {
			return true // whoever had a position in its log started over
		}
		for _, l := range s.logs {
			for _, r := range l.records {
				if !r.at.Before(at.Truncate(time.Millisecond)) && r.covers(key) { // as exact as records are
					return true
				}
			}
		}
	}
	return false
}

// agree compares the states of the members, after they were stopped.
func (w *world) agree() {
	for _, s := range w.sites {
		hashes := map[uint64][32]byte{}
		for _, m := range s.members {
			st, err := namespace.Open(m.kv, namespace.Options{})
			if err != nil {
				w.violation("", "state of %s: %v", m.raft, err)
				continue
			}
			hash, err := st.Hash()
			if err != nil {
				w.violation("", "state of %s: %v", m.raft, err)
				continue
			}
			if other, ok := hashes[st.Applied()]; ok && other != hash {
				w.violation("", "members of %s have different states at index %d", s.name, st.Applied())
			}
			hashes[st.Applied()] = hash
		}
		w.note("%s: states at %d different indexes", s.name, len(hashes))
	}
}
