package namespace_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/invalidation"
)

// golden returns all that others can see of a state as text: what a golden file
// holds. It names each field that it shows, so that a field that a later version
// adds changes no text of a state that was written before.
func golden(t tester, s *namespace.State, domains []freshet.DomainID, ops int) string {
	t.Helper()
	d := &description{t: t, s: s}
	id := s.Identity()
	d.line("applied %d", s.Applied())
	d.line("cluster %s %s epoch %d", id.Name, id.Cluster, id.Epoch)
	for _, m := range s.Members() {
		d.line("member %s name %s raft %s grpc %s http %s bus %s", m.ID, m.Name, m.Raft, m.GRPC, m.HTTP, m.Bus)
	}
	d.mounts()
	for _, p := range s.Policies() {
		d.line("policy %s %s origin %s at %s", p.Path, p.Interval, p.Origin, p.SetAt.UTC())
	}
	for _, in := range s.Intents() {
		d.line("intent %x kind %d %q %q recursive %t node %q/%d started %d %s file %d mount %d/%d keys %q %q resolved %d at %s", in.Op, in.Kind,
			in.Path, in.Path2, in.Recursive, in.Node, in.Incarn, in.Started, in.State, in.File, in.Mount, in.Generation, in.Key, in.Key2, in.Resolved, in.At.UTC())
	}
	for _, h := range s.Heads() {
		d.line("head %x low %d high %d hash %x", h.Domain, h.Low, h.High, h.Hash)
	}
	for _, sub := range s.Subscriptions() {
		d.line("subscription %s %s epoch %d domain %x applied %d hash %x", sub.Publisher.Name, sub.Publisher.Cluster, sub.Publisher.Epoch, sub.Domain, sub.Applied, sub.Hash)
	}
	for _, w := range s.WatchCursors() {
		d.line("cursor %s domain %x at %q covers %v", w.Source, w.Domain, w.Cursor, w.Covers)
	}
	d.records(domains)
	d.outcomes(ops)
	st := s.Stats()
	d.line("entries %d trash %d intents %d quarantine %d", st.Entries, st.Trash, st.Intents, st.Quarantine)
	d.tree("/")
	return d.out.String()
}

type description struct {
	t   tester
	s   *namespace.State
	out strings.Builder
}

func (d *description) line(format string, args ...any) { fmt.Fprintf(&d.out, format+"\n", args...) }

func (d *description) mounts() {
	mounts, revision := d.s.Mounts()
	d.line("mounts at revision %d", revision)
	for _, m := range mounts {
		var options []string
		for _, k := range slices.Sorted(maps.Keys(m.Options)) {
			options = append(options, k+"="+m.Options[k])
		}
		d.line("mount %s id %d generation %d uri %s domain %x key %s options %s read-only %t active %t interval %s origin %s at %s",
			m.Path, m.ID, m.Generation, m.URI, m.Domain, m.DomainKey, strings.Join(options, ","), m.ReadOnly, m.ActiveSync, m.Interval, m.Origin, m.CreatedAt.UTC())
	}
}

func (d *description) records(domains []freshet.DomainID) {
	for _, domain := range domains {
		b, err := d.s.Records(domain, 0, 0)
		if err != nil {
			d.line("records of %x: %v", domain, err)
			continue
		}
		for _, r := range b.Records {
			d.line("record %x/%d %s %s %s recursive %t %s", domain, r.Seq, r.Kind, r.Key, r.Key2, r.Recursive, r.Fingerprint.Content)
		}
	}
}

func (d *description) outcomes(ops int) {
	for i := range ops {
		done, ok, err := d.s.OpResult(opID(i))
		if err != nil {
			d.t.Fatalf("outcome %d: %v", i, err)
		}
		if ok {
			d.line("outcome %d file %d token %s", i, done.Info.FileID, done.Token)
		}
	}
}

func (d *description) tree(p freshet.Path) {
	l, err := d.s.Lookup(p)
	if err != nil {
		d.t.Fatalf("lookup %s: %v", p, err)
	}
	i := l.Info
	d.line("%s found %t %s length %d mtime %s owner %s:%s mode %o file %d content %q change %q meta %q", p, l.Found, i.Type, i.Length,
		i.ModTime.UTC(), i.Owner, i.Group, i.Mode, i.FileID, i.Fingerprint.Content, i.Fingerprint.Change, i.Fingerprint.Meta)
	d.line("  valid %d need %d listing %t %d %d special %t placeholder %t uncachable %t writers %d interval %s of %q", l.ValidFrom, l.Need, l.Listing.Complete,
		l.Listing.ValidFrom, l.Listing.Need, l.Listing.Special, l.Placeholder, l.Uncachable, l.PendingWriters, l.Interval, l.Rule.Path)
	children, err := d.s.List(p, "", 0)
	if err != nil {
		d.t.Fatalf("list %s: %v", p, err)
	}
	for _, c := range children {
		d.tree(p.Join(c.Name))
	}
}

// written is a state with something in every table, as golden files have it.
func written(c *cluster) {
	log := &peerLog{who: peer}
	c.must(namespace.Command{BeginSub: &namespace.BeginSub{Publisher: peer, Domain: domain}})
	c.must(namespace.Command{SetMember: &namespace.Member{ID: "1", Name: "a", Raft: "127.0.0.1:1", GRPC: "127.0.0.1:2", HTTP: "127.0.0.1:3", Bus: "127.0.0.1:4"}})
	c.must(namespace.Command{SetPolicy: &namespace.Policy{Path: "/m/d", Interval: freshet.Always, Origin: "operator", SetAt: epochTime}})
	owned := fileEntry("owned", 5)
	owned.Owner, owned.Group, owned.Mode, owned.Fingerprint.Meta = "ada", "staff", 0o640, "meta-1"
	c.listAt("/m/d", c.i, nil, fileEntry("f", 1), fileEntry("g", 2), owned, dirEntry("e"))
	c.load("/m/d/e/x", fileEntry("x", 3))
	c.begin(1, namespace.OpWrite, "/m/d/f")
	c.complete(1, fileEntry("f", 4))
	c.begin(2, namespace.OpWrite, "/m/new")
	c.begin(3, namespace.OpRemove, "/m/d/e")
	c.complete(3, nil)
	c.must(namespace.Command{Mark: &namespace.Mark{Path: "/m/unknown/path", Recursive: true}})
	c.begin(4, namespace.OpWrite, "/m/zombie")
	c.must(namespace.Command{Resolve: &namespace.Resolve{Op: opID(4), At: epochTime}})
	log.add(invalidation.Record{Kind: invalidation.KindContent, Key: "/d/g", Fingerprint: fileEntry("", 9).Fingerprint})
	c.must(namespace.Command{Invalidate: &namespace.Invalidate{Batch: log.batch(0, 1)}})
	c.listAt("/m/kept", c.i, nil, fileEntry("a", 6), fileEntry("b", 7), dirEntry("empty"))
	c.listen("/live", 17)
	c.must(namespace.Command{Hint: &namespace.Hint{Domain: freshet.DomainID{17}, Source: "feed://live", Cursor: []byte("at 5"), Covers: []uint64{2}}})
}

var (
	writtenDomains = []freshet.DomainID{domain, {17}}
	writtenOps     = 6
)
