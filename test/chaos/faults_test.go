package chaos_test

import (
	"fmt"
	"time"

	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

// fault begins something bad and returns what ends it, nil if nothing must.
type fault struct {
	name  string
	begin func(tr *trial) (heal func())
}

// plan picks the faults of a trial: consecutive trials go through all kinds, in an
// order and with places that the seed decides.
func (tr *trial) plan(seed uint64, n int) []fault {
	all := kinds()
	out := make([]fault, 0, n)
	for i := range n {
		out = append(out, all[(int(seed)*n+i)%len(all)])
	}
	tr.rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func kinds() []fault {
	return []fault{
		killLeader(0), datagrams("30% of datagrams lost", fleet.Datagrams{Drop: 0.3}), cut("streams cut", streams),
		{"everything restarted", restartAll},
		killNode(0), cut("partition", everything),
		killLeader(1), datagrams("all datagrams lost", fleet.Datagrams{Drop: 1}), cut("gossip cut", gossip),
		datagrams("datagrams duplicated, reordered and corrupted", fleet.Datagrams{Duplicate: 0.3, Reorder: 0.3, Corrupt: 0.1}),
		{"one way cut", oneWay},
		killNode(1),
		{"lines dead", pauseAll},
		{"both leaders killed", killBoth},
		{"storage down", storageDown},
		{"leader of a stopped for a while", stopLeader},
		killLeader(0), killLeader(1),
	}
}

func killLeader(cluster int) fault {
	return fault{fmt.Sprintf("leader of cluster %d killed", cluster), func(tr *trial) func() {
		c := tr.w.Fleet.Clusters[cluster]
		p, err := c.Leader(tr.t.Context())
		if err != nil {
			tr.t.Error(err)
			return nil
		}
		tr.must(p.Kill())
		return func() { tr.must(p.Start()) }
	}}
}

func killBoth(tr *trial) func() {
	a, b := killLeader(0).begin(tr), killLeader(1).begin(tr)
	return func() {
		for _, heal := range []func(){a, b} {
			if heal != nil {
				heal()
			}
		}
	}
}

func killNode(cluster int) fault {
	return fault{fmt.Sprintf("cache node of cluster %d killed", cluster), func(tr *trial) func() {
		nodes := tr.w.Fleet.Clusters[cluster].Nodes
		p := nodes[tr.rand.IntN(len(nodes))]
		tr.must(p.Kill())
		tr.killed()
		return func() { tr.must(p.Start()) }
	}}
}

// killed notes that nodes or the storage have just been killed.
func (tr *trial) killed() {
	b := tr.w.Storage.(*e2e.Bucket)
	b.Killed = append(b.Killed, time.Now())
}

func restartAll(tr *trial) func() {
	for _, c := range tr.w.Fleet.Clusters {
		for _, p := range c.Processes() {
			tr.must(p.Kill())
		}
	}
	tr.killed()
	for _, c := range tr.w.Fleet.Clusters {
		for _, p := range c.Processes() {
			tr.must(p.Start())
		}
	}
	return nil
}

func stopLeader(tr *trial) func() {
	p, err := tr.w.Fleet.Clusters[0].Leader(tr.t.Context())
	if err != nil {
		tr.t.Error(err)
		return nil
	}
	tr.must(p.Signal(sigStop))
	return func() { tr.must(p.Signal(sigCont)) }
}

func streams(c *fleet.Cluster) []*fleet.Relay    { return c.Streams }
func gossip(c *fleet.Cluster) []*fleet.Relay     { return c.Gossip }
func everything(c *fleet.Cluster) []*fleet.Relay { return c.Bus }

func (tr *trial) each(of func(*fleet.Cluster) []*fleet.Relay, do func(*fleet.Relay)) {
	for _, c := range tr.w.Fleet.Clusters {
		for _, r := range of(c) {
			do(r)
		}
	}
}

func cut(name string, of func(*fleet.Cluster) []*fleet.Relay) fault {
	return fault{name, func(tr *trial) func() {
		tr.each(of, (*fleet.Relay).Cut)
		return func() { tr.each(of, (*fleet.Relay).Heal) }
	}}
}

func oneWay(tr *trial) func() {
	c := tr.w.Fleet.Clusters[tr.rand.IntN(2)]
	c.Cut()
	return c.Heal
}

func pauseAll(tr *trial) func() {
	tr.each(everything, (*fleet.Relay).Pause)
	return func() { tr.each(everything, (*fleet.Relay).Resume) }
}

func datagrams(name string, d fleet.Datagrams) fault {
	return fault{name, func(tr *trial) func() {
		seed := tr.rand.Uint64()
		tr.each(gossip, func(r *fleet.Relay) { r.Disturb(d, seed) })
		return func() { tr.each(gossip, func(r *fleet.Relay) { r.Disturb(fleet.Datagrams{}, 0) }) }
	}}
}

func storageDown(tr *trial) func() {
	tr.must(tr.w.S3.Server.Down())
	tr.killed()
	return func() { tr.must(tr.w.S3.Server.Up()) }
}
