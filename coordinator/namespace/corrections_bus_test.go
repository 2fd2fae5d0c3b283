package namespace_test

import (
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/invalidation"
)

func TestC12UncertainAttemptIsPublishedTwice(t *testing.T) {
	c := newCluster(t)
	c.begin(1, namespace.OpWrite, "/m/f")
	r := c.must(namespace.Command{Complete: &namespace.Complete{Op: opID(1), Entry: fileEntry("f", 1), Uncertain: true, At: epochTime}})
	if r.Installed || r.Completed.Token.Seq != 1 {
		t.Fatalf("%+v", r)
	}
	c.load("/m/f", fileEntry("f", 1))
	if l := c.look("/m/f"); !l.Uncachable {
		t.Fatalf("the path may be cached although an attempt may still land: %+v", l)
	}
	if l := c.look("/m"); !l.Listing.Uncachable || l.Uncachable {
		t.Fatalf("the listing may be cached: %+v", l)
	}
	start := c.i
	c.must(namespace.Command{EndQuarantine: &namespace.EndQuarantine{Op: opID(1), At: epochTime}})
	if h := c.s.Heads(); h[0].High != 2 {
		t.Fatalf("head is %d, want a second record", h[0].High)
	}
	if c.loadAt("/m/f", start, fileEntry("f", 1)) {
		t.Fatal("a load from before the end of the quarantine was installed")
	}
	if l := c.look("/m/f"); l.Uncachable {
		t.Fatal("the path is uncachable after the quarantine")
	}
}

func TestC12NoAbortWithoutARecordOnceAnEffectWasAttempted(t *testing.T) {
	c := newCluster(t)
	c.must(namespace.Command{Begin: &namespace.Begin{Op: opID(1), Kind: namespace.OpWrite, Path: "/m/f", Node: "n", Incarn: 1}})
	c.must(namespace.Command{Permit: &namespace.Permit{Op: opID(1), Node: "n", Incarn: 1}})
	c.kind(namespace.Command{Abort: &namespace.Abort{Op: opID(1)}}, freshet.KindConflict)
	c.must(namespace.Command{Abort: &namespace.Abort{Op: opID(1), Definite: true}})
	c.must(namespace.Command{Begin: &namespace.Begin{Op: opID(2), Kind: namespace.OpWrite, Path: "/m/f", Node: "n", Incarn: 1}})
	c.must(namespace.Command{Abort: &namespace.Abort{Op: opID(2)}}) // nothing was attempted
	if h := c.s.Heads(); h[0].High != 0 {
		t.Fatalf("an abort appended a record: %+v", h)
	}
}

func TestC14ResolutionBindsOnlyWhatIsProvenOurs(t *testing.T) {
	for _, ours := range []bool{true, false} {
		c := newCluster(t)
		in := c.begin(1, namespace.OpWrite, "/m/f")
		r := c.must(namespace.Command{Resolve: &namespace.Resolve{Op: opID(1), Known: true, Observed: fileEntry("f", 3), Ours: ours, Ended: true, At: epochTime}})
		l := c.want("/m/f", false)
		bound := l.Found && l.Info.FileID == in.File
		if bound != ours || r.Done != ours || c.s.FileLive([]freshet.FileID{in.File})[0] != ours {
			t.Fatalf("ours %t: bound %t, done %t", ours, bound, r.Done)
		}
		if h := c.s.Heads(); h[0].High != 1 {
			t.Fatalf("head is %d", h[0].High)
		}
		if len(c.s.Intents()) != 0 {
			t.Fatal("the intent is still there")
		}
	}
}

func TestC15EffectNeedsAPermitOfThisIncarnation(t *testing.T) {
	c := newCluster(t)
	r := c.must(namespace.Command{Begin: &namespace.Begin{Op: opID(1), Kind: namespace.OpWrite, Path: "/m/f", Node: "n", Incarn: 4}})
	if r.Intent.State != namespace.IntentUploading {
		t.Fatalf("state %s", r.Intent.State)
	}
	c.kind(namespace.Command{Permit: &namespace.Permit{Op: opID(1), Node: "n", Incarn: 5}}, freshet.KindConflict)
	c.kind(namespace.Command{Permit: &namespace.Permit{Op: opID(1), Node: "o", Incarn: 4}}, freshet.KindConflict)
	r = c.must(namespace.Command{Permit: &namespace.Permit{Op: opID(1), Node: "n", Incarn: 4}})
	if r.Intent.State != namespace.IntentMayPublish {
		t.Fatalf("%+v", r.Intent)
	}
	c.must(namespace.Command{Resolve: &namespace.Resolve{Op: opID(1)}})
	c.kind(namespace.Command{Permit: &namespace.Permit{Op: opID(1), Node: "n", Incarn: 4}}, freshet.KindConflict)
	c.kind(namespace.Command{Permit: &namespace.Permit{Op: opID(9), Node: "n", Incarn: 4}}, freshet.KindNotExist)
}

func TestC16RestoreIsPublishedToWholeDomains(t *testing.T) {
	c := newCluster(t)
	other := mountOf("/o", "/")
	other.Domain = freshet.DomainID{1}
	c.must(namespace.Command{AddMount: &namespace.AddMount{Mount: other}})
	c.load("/o/f", fileEntry("f", 1))
	before := c.s.Identity().Epoch
	if r := c.must(namespace.Command{BumpEpoch: &namespace.BumpEpoch{Floor: 100}}); r.Epoch != 100 || before != 1 {
		t.Fatalf("epoch %d", r.Epoch)
	}
	c.must(namespace.Command{PublishAll: &namespace.PublishAll{At: epochTime}})
	for _, h := range c.s.Heads() {
		b, err := c.s.Records(h.Domain, 0, 0)
		if err != nil || len(b.Records) != 1 || b.Records[0].Kind != invalidation.KindAll || b.Epoch != 100 {
			t.Fatalf("%+v, %v", b, err)
		}
	}
	c.want("/o/f", false)
	if r := c.must(namespace.Command{BumpEpoch: &namespace.BumpEpoch{Floor: 5}}); r.Epoch != 101 {
		t.Fatalf("epoch went to %d", r.Epoch)
	}
}

func TestC17FileIDsDifferBetweenEpochs(t *testing.T) {
	c := newCluster(t)
	a := c.begin(1, namespace.OpWrite, "/m/a").File
	c.must(namespace.Command{BumpEpoch: &namespace.BumpEpoch{}})
	b := c.begin(2, namespace.OpWrite, "/m/b").File
	if a>>40 != 1 || b>>40 != 2 {
		t.Fatalf("file IDs %x and %x do not carry their epochs", a, b)
	}
}

func TestC20SubscriptionStartsAtZeroOrByReset(t *testing.T) {
	c, log := subscribed(t)
	c.kind(namespace.Command{BeginSub: &namespace.BeginSub{Publisher: peer, Domain: domain}}, freshet.KindExist)
	c.load("/m/f", fileEntry("f", 1))
	log.add(content("/f", 2))
	stranger := &peerLog{who: invalidation.Publisher{Cluster: uuid.UUID{9}, Name: "stranger", Epoch: 1}, records: log.records, hashes: log.hashes}
	r := c.must(namespace.Command{Invalidate: &namespace.Invalidate{Batch: stranger.batch(0, 1)}})
	if r.Verdict != invalidation.VerdictReset {
		t.Fatalf("verdict %d for a log without a subscription", r.Verdict)
	}
	c.want("/m/f", false) // it marks all the same
}

func TestC22AnotherChainMeansReset(t *testing.T) {
	c, log := subscribed(t)
	c.publish(log, content("/f", 1))
	forged := &peerLog{who: peer}
	forged.add(content("/g", 1))
	forged.add(content("/f", 2))
	c.load("/m/f", fileEntry("f", 1))
	r := c.must(namespace.Command{Invalidate: &namespace.Invalidate{Batch: forged.batch(1, 2)}})
	if r.Verdict != invalidation.VerdictReset || r.Position.State != invalidation.StateReset || r.Position.Applied != 1 {
		t.Fatalf("%+v", r)
	}
	c.want("/m/f", false)
	c.must(namespace.Command{ResetSub: &namespace.ResetSub{Publisher: peer, Head: forged.head()}})
	if s := c.s.Subscriptions(); s[0].Applied != 2 || s[0].State != invalidation.StateSynced {
		t.Fatalf("%+v", s)
	}
}

func TestC24SameNameWithNewIDSupersedes(t *testing.T) {
	c, log := subscribed(t)
	c.publish(log, content("/f", 1))
	c.load("/m/f", fileEntry("f", 1))
	again := invalidation.Publisher{Cluster: uuid.UUID{3}, Name: peer.Name, Epoch: 1}
	c.must(namespace.Command{ResetSub: &namespace.ResetSub{Publisher: again, Head: invalidation.Head{Domain: domain, Low: 1}}})
	subs := c.s.Subscriptions()
	if len(subs) != 1 || subs[0].Publisher.Cluster != again.Cluster {
		t.Fatalf("%+v", subs)
	}
	c.want("/m/f", false)
	c.must(namespace.Command{ForgetSub: &namespace.ForgetSub{Cluster: again.Cluster}})
	c.kind(namespace.Command{ForgetSub: &namespace.ForgetSub{Cluster: again.Cluster}}, freshet.KindNotExist)
	if len(c.s.Subscriptions()) != 0 {
		t.Fatal("a forgotten peer is still there")
	}
}

func TestC26ResetOfAnOlderEpochIsIgnored(t *testing.T) {
	c, log := subscribed(t)
	newer := peer
	newer.Epoch = 5
	c.must(namespace.Command{ResetSub: &namespace.ResetSub{Publisher: newer, Head: invalidation.Head{Domain: domain, Low: 1}}})
	c.load("/m/f", fileEntry("f", 1))
	r := c.must(namespace.Command{ResetSub: &namespace.ResetSub{Publisher: peer, Head: log.head()}})
	if r.Verdict != invalidation.VerdictIgnore || r.Position.Publisher.Epoch != 5 {
		t.Fatalf("%+v", r)
	}
	c.want("/m/f", true)
}

func TestC26RecursiveRecordAboveAMountRootMarksTheMount(t *testing.T) {
	c := &cluster{t: t, s: open(t, newMemory())}
	c.found(mountOf("/m", "/a/b"))
	c.must(namespace.Command{BeginSub: &namespace.BeginSub{Publisher: peer, Domain: domain}})
	log := &peerLog{who: peer}
	c.load("/m/f", fileEntry("f", 1))
	c.publish(log, content("/a/bc", 1)) // not under the root, by whole segments
	c.want("/m/f", true)
	c.publish(log, invalidation.Record{Kind: invalidation.KindDelete, Key: "/a", Recursive: true})
	c.want("/m/f", false)
}

func TestC26CompactionCarriesItsMark(t *testing.T) {
	c := newCluster(t)
	for op := range 5 {
		c.begin(op+1, namespace.OpWrite, "/m/f")
		c.complete(op+1, fileEntry("f", op+1))
	}
	all, err := c.s.Records(domain, 0, 0)
	if err != nil || len(all.Records) != 5 {
		t.Fatalf("%+v, %v", all, err)
	}
	c.must(namespace.Command{Compact: &namespace.Compact{Domain: domain, Low: 4}})
	if h := c.s.Heads()[0]; h.Low != 4 || h.High != 5 {
		t.Fatalf("%+v", h)
	}
	if _, err := c.s.Records(domain, 2, 0); !freshet.IsKind(err, freshet.KindStale) {
		t.Fatalf("error %v", err)
	}
	if _, err := c.s.Records(domain, 6, 0); !freshet.IsKind(err, freshet.KindStale) {
		t.Fatalf("error %v", err)
	}
	b, err := c.s.Records(domain, 3, 1)
	if err != nil || len(b.Records) != 1 || b.Records[0].Seq != 4 {
		t.Fatalf("%+v, %v", b, err)
	}
	if want := all.AfterHash.Next(all.Records[0]).Next(all.Records[1]).Next(all.Records[2]); b.AfterHash != want {
		t.Fatal("the chain does not fit")
	}
	c.must(namespace.Command{Compact: &namespace.Compact{Domain: domain, Low: 99}})
	if h := c.s.Heads()[0]; h.Low != 6 || h.High != 5 {
		t.Fatalf("%+v", h)
	}
}

func TestC12LateCompletionStaysInQuarantine(t *testing.T) {
	c := newCluster(t)
	c.begin(1, namespace.OpWrite, "/m/f")
	c.must(namespace.Command{Resolve: &namespace.Resolve{Op: opID(1), At: epochTime}})
	if r := c.complete(1, fileEntry("f", 1)); r.Installed {
		t.Fatal("a late completion was installed")
	}
	if in, ok := c.s.Intent(opID(1)); !ok || in.State != namespace.IntentQuarantine {
		t.Fatalf("%+v, %t", in, ok)
	}
	c.must(namespace.Command{EndQuarantine: &namespace.EndQuarantine{Op: opID(1), At: epochTime}})
	if h := c.s.Heads()[0]; h.High != 3 {
		t.Fatalf("head is %d", h.High)
	}
}

// However an operation ends, it is published three times at most: when it was given up,
// by the word of its writer that came after, and when nothing of it can land any more.
// Without the first it is published twice at most.
func TestC12AnOperationHasThreeRecordsAtMost(t *testing.T) {
	op, e := opID(1), fileEntry("f", 1)
	steps := map[string]namespace.Command{
		"permit":     {Permit: &namespace.Permit{Op: op, Node: "n1", Incarn: 1}},
		"complete":   {Complete: &namespace.Complete{Op: op, Entry: e, At: epochTime}},
		"uncertain":  {Complete: &namespace.Complete{Op: op, Entry: e, Uncertain: true, At: epochTime}},
		"resolve":    {Resolve: &namespace.Resolve{Op: op, At: epochTime}},
		"ours":       {Resolve: &namespace.Resolve{Op: op, Known: true, Ours: true, Observed: e, At: epochTime}},
		"over":       {Resolve: &namespace.Resolve{Op: op, Known: true, Ended: true, At: epochTime}},
		"quarantine": {EndQuarantine: &namespace.EndQuarantine{Op: op, At: epochTime}},
		"abort":      {Abort: &namespace.Abort{Op: op}},
	}
	most := uint64(0)
	var try func(path []string)
	try = func(path []string) {
		c := newCluster(t)
		c.must(namespace.Command{Begin: &namespace.Begin{Op: op, Kind: namespace.OpWrite, Path: "/m/f", Node: "n1", Incarn: 1, At: epochTime}})
		for _, step := range path {
			c.do(steps[step])
		}
		c.do(steps["quarantine"])
		records := uint64(0)
		if h := c.s.Heads(); len(h) > 0 {
			records = h[0].High
		}
		most = max(most, records)
		if i := slices.Index(path, "resolve"); records > 3 || (records == 3 && (i < 0 || !slices.ContainsFunc(path[i:], func(s string) bool { return s == "complete" || s == "uncertain" }))) {
			t.Errorf("%d records of one operation: %q", records, path)
		}
		if len(path) < 4 {
			for step := range steps {
				try(append(slices.Clone(path), step))
			}
		}
	}
	try(nil)
	if most != 3 {
		t.Errorf("%d records at most: the way to three was not tried", most)
	}
}
