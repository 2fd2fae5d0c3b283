package namespace_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/invalidation"
)

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

// cluster drives one state as a log would: every command is encoded, decoded
// and applied at the next index.
type cluster struct {
	t    tester
	s    *namespace.State
	twin *namespace.State // a second member, fed the same log; may be nil
	i    uint64
	last namespace.Changes
}

var (
	epochTime = time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC)
	domain    = freshet.DomainID{7}
	selfID    = uuid.UUID{1}
	peer      = invalidation.Publisher{Cluster: uuid.UUID{2}, Name: "peer", Epoch: 1}
)

func mountOf(path freshet.Path, key string) freshet.Mount {
	return freshet.Mount{
		Path: path, URI: "s3://b" + key, Domain: domain, DomainKey: key, Interval: freshet.Never,
		CreatedAt: epochTime, Origin: "config", Options: map[string]string{"region": "x", "endpoint": "y"},
	}
}

// newCluster returns a founded cluster with the storage mounted at /m.
func newCluster(t tester) *cluster {
	t.Helper()
	c := &cluster{t: t, s: open(t, kv.NewMemory())}
	c.found(mountOf("/m", "/"))
	return c
}

func open(t tester, store kv.Store) *namespace.State {
	t.Helper()
	s, err := namespace.Open(store, namespace.Options{CacheBytes: 64 << 10})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return s
}

func (c *cluster) found(mounts ...freshet.Mount) {
	c.t.Helper()
	c.must(namespace.Command{Bootstrap: &namespace.Bootstrap{Cluster: selfID, Name: "self", Epoch: 1, Mounts: mounts, At: epochTime}})
}

// batch applies commands as one log entry.
func (c *cluster) batch(cmds ...namespace.Command) []namespace.Result {
	c.t.Helper()
	b, err := namespace.EncodeBatch(cmds)
	if err != nil {
		c.t.Fatalf("encode: %v", err)
	}
	c.i++
	if c.twin != nil {
		again, err := namespace.DecodeBatch(b)
		if err != nil {
			c.t.Fatalf("decode: %v", err)
		}
		c.twin.Apply(c.i, again)
	}
	decoded, err := namespace.DecodeBatch(b)
	if err != nil {
		c.t.Fatalf("decode: %v", err)
	}
	lines, before := c.s.Lines(decoded), c.served()
	results, changes := c.s.Apply(c.i, decoded)
	if err := c.s.Err(); err != nil {
		c.t.Fatalf("apply: %v", err)
	}
	c.last = changes
	c.wantLines(lines, before)
	return results
}

func (c *cluster) do(cmd namespace.Command) namespace.Result {
	c.t.Helper()
	return c.batch(cmd)[0]
}

func (c *cluster) must(cmd namespace.Command) namespace.Result {
	c.t.Helper()
	r := c.do(cmd)
	if r.Err != nil {
		c.t.Fatalf("command failed: %v", r.Err)
	}
	return r
}

func (c *cluster) kind(cmd namespace.Command, want freshet.Kind) {
	c.t.Helper()
	if r := c.do(cmd); !freshet.IsKind(r.Err, want) {
		c.t.Fatalf("error %v, want kind %s", r.Err, want)
	}
}

func (c *cluster) look(p freshet.Path) namespace.Lookup {
	c.t.Helper()
	l, err := c.s.Lookup(p)
	if err != nil {
		c.t.Fatalf("lookup %s: %v", p, err)
	}
	return l
}

// servable reports whether p can be served without asking the storage.
func (c *cluster) servable(p freshet.Path) bool {
	l := c.look(p)
	return l.Found && l.Servable(0) && !l.Uncachable
}

func (c *cluster) want(p freshet.Path, servable bool) namespace.Lookup {
	c.t.Helper()
	l := c.look(p)
	if got := l.Found && l.Servable(0) && !l.Uncachable; got != servable {
		c.t.Fatalf("%s: servable is %t, want %t: %+v", p, got, servable, l)
	}
	return l
}

func (c *cluster) wantListing(p freshet.Path, servable bool) {
	c.t.Helper()
	l := c.look(p)
	if got := l.Listing.Complete && l.Listing.Servable(0) && !l.Listing.Uncachable; got != servable {
		c.t.Fatalf("listing of %s: servable is %t, want %t: %+v", p, got, servable, l.Listing)
	}
}

// fileEntry is a file whose content is named by a small number.
func fileEntry(name string, content int) *namespace.Entry {
	return &namespace.Entry{
		Name: name, Length: int64(content), ModTime: epochTime.Add(time.Duration(content)),
		Fingerprint: fingerprint.S3(fmt.Sprintf("%032x", content), int64(content)),
	}
}

func dirEntry(name string) *namespace.Entry {
	return &namespace.Entry{Name: name, Type: freshet.TypeDirectory, ModTime: epochTime}
}

// loadAt commits the answer of a stat that began at start.
func (c *cluster) loadAt(p freshet.Path, start uint64, e *namespace.Entry) bool {
	c.t.Helper()
	m, ok := c.s.MountAt(p)
	if !ok {
		c.t.Fatalf("no mount at %s", p)
	}
	return c.must(namespace.Command{LoadEntry: &namespace.LoadEntry{Mount: m.ID, Generation: m.Generation, Path: p, Start: start, Entry: e}}).Installed
}

func (c *cluster) load(p freshet.Path, e *namespace.Entry) bool {
	c.t.Helper()
	return c.loadAt(p, c.s.Applied(), e)
}

// listAt commits a whole listing that began at start.
func (c *cluster) listAt(p freshet.Path, start uint64, removes []string, entries ...*namespace.Entry) namespace.Result {
	c.t.Helper()
	m, ok := c.s.MountAt(p)
	if !ok {
		c.t.Fatalf("no mount at %s", p)
	}
	cmd := &namespace.LoadListing{Mount: m.ID, Generation: m.Generation, Dir: p, Start: start, ListStart: start, Complete: true, Removes: removes}
	for _, e := range entries {
		cmd.Upserts = append(cmd.Upserts, *e)
	}
	return c.must(namespace.Command{LoadListing: cmd})
}

func opID(n int) freshet.OpID { return freshet.OpID{0: 0xAA, 14: byte(n >> 8), 15: byte(n)} }

func (c *cluster) begin(op int, kind namespace.OpKind, p freshet.Path) namespace.Intent {
	c.t.Helper()
	return c.must(namespace.Command{Begin: &namespace.Begin{Op: opID(op), Kind: kind, Path: p, At: epochTime}}).Intent
}

func (c *cluster) complete(op int, e *namespace.Entry) namespace.Result {
	c.t.Helper()
	return c.must(namespace.Command{Complete: &namespace.Complete{Op: opID(op), Entry: e, At: epochTime}})
}

// peerLog is the log of another cluster.
type peerLog struct {
	who     invalidation.Publisher
	records []invalidation.Record
	hashes  []invalidation.Hash // after each
}

func (l *peerLog) add(r invalidation.Record) {
	r.Seq = uint64(len(l.records)) + 1
	r.PublishedAt = epochTime
	l.hashes = append(l.hashes, l.hash(len(l.records)).Next(r))
	l.records = append(l.records, r)
}

func (l *peerLog) hash(after int) invalidation.Hash {
	if after == 0 {
		return invalidation.Hash{}
	}
	return l.hashes[after-1]
}

func (l *peerLog) batch(after, end int) invalidation.Batch {
	return invalidation.Batch{
		Publisher: l.who.Cluster, Epoch: l.who.Epoch, Domain: domain,
		After: uint64(after), AfterHash: l.hash(after), Records: l.records[after:end],
	}
}

func (l *peerLog) head() invalidation.Head {
	return invalidation.Head{Domain: domain, Low: 1, High: uint64(len(l.records)), Hash: l.hash(len(l.records))}
}

// subscribed returns a cluster with a subscription to a peer's empty log.
func subscribed(t *testing.T) (*cluster, *peerLog) {
	t.Helper()
	c := newCluster(t)
	c.must(namespace.Command{BeginSub: &namespace.BeginSub{Publisher: peer, Domain: domain}})
	return c, &peerLog{who: peer}
}

// publish appends a record to the peer's log and delivers it.
func (c *cluster) publish(l *peerLog, r invalidation.Record) namespace.Result {
	c.t.Helper()
	l.add(r)
	n := len(l.records)
	res := c.must(namespace.Command{Invalidate: &namespace.Invalidate{Batch: l.batch(n-1, n)}})
	if res.Verdict != invalidation.VerdictApply {
		c.t.Fatalf("verdict %d for record %d", res.Verdict, n)
	}
	return res
}

func newMemory() kv.Store { return kv.NewMemory() }
