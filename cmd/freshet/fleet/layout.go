package fleet

import (
	"context"
	"path/filepath"

	"github.com/freshet-io/freshet/config"
)

// layout is where the servers of one cluster listen.
type layout struct {
	spec  *ClusterSpec
	coord []memberLayout
	node  []nodeLayout
}

type memberLayout struct {
	client, http, raft string
	// Others reach the bus and the gossip through relays.
	gossip, gossipRelay, bus, busRelay string
}

type nodeLayout struct{ data, http string }

func newLayout(spec *ClusterSpec, p *ports) *layout {
	l := &layout{spec: spec}
	for range spec.Coordinators {
		l.coord = append(l.coord, memberLayout{
			client: p.addr(), http: p.addr(), raft: p.addr(),
			gossip: p.addr(), gossipRelay: p.addr(), bus: p.addr(), busRelay: p.addr(),
		})
	}
	for range spec.Nodes {
		l.node = append(l.node, nodeLayout{data: p.addr(), http: p.addr()})
	}
	return l
}

func (l *layout) build(ctx context.Context, spec *Spec, all []*layout, self int) (*Cluster, error) {
	c := &Cluster{Name: l.spec.Name, tls: spec.TLS}
	for _, m := range l.coord {
		c.Clients, c.HTTP = append(c.Clients, m.client), append(c.HTTP, m.http)
	}
	for i := range l.coord {
		name := memberName(i)
		p, err := newProcess(spec, memberDir(spec, c.Name, name), c.Name+"-"+name, "coordinator", l.coordinatorFile(spec, all, self, i))
		if err != nil {
			return nil, err
		}
		c.Coordinators = append(c.Coordinators, p)
		if l.spec.Alone {
			continue
		}
		if err := l.relays(ctx, spec, c, i); err != nil {
			return c, err
		}
	}
	for i := range l.node {
		name := nodeName(i)
		p, err := newProcess(spec, memberDir(spec, c.Name, name), c.Name+"-"+name, "cachenode", l.nodeFile(spec, c, i))
		if err != nil {
			return nil, err
		}
		c.Nodes = append(c.Nodes, p)
		c.NodeHTTP = append(c.NodeHTTP, l.node[i].http)
		if l.spec.Sockets {
			c.Sockets = append(c.Sockets, socketOf(spec, c.Name, name))
		}
	}
	return c, nil
}

func (l *layout) relays(ctx context.Context, spec *Spec, c *Cluster, i int) error {
	m := l.coord[i]
	r, err := NewRelay(ctx, m.busRelay, m.bus, false)
	if err != nil {
		return err
	}
	c.Bus, c.Streams = append(c.Bus, r), append(c.Streams, r)
	if !spec.Gossip {
		return nil
	}
	if r, err = NewRelay(ctx, m.gossipRelay, m.gossip, true); err != nil {
		return err
	}
	c.Bus, c.Gossip = append(c.Bus, r), append(c.Gossip, r)
	return nil
}

// loopback lets servers mount storages of this machine.
var loopback = []string{"127.0.0.0/8", "::1/128"}

func (l *layout) coordinatorFile(spec *Spec, all []*layout, self, i int) *config.File {
	m, name := l.coord[i], memberName(i)
	f := &config.File{
		Cluster: l.spec.Name,
		Node:    config.Node{Name: name, DataDir: filepath.Join(memberDir(spec, l.spec.Name, name), "data")},
		Listen:  config.Listen{Client: m.client, HTTP: m.http, Raft: m.raft},
		Raft:    config.Raft{BootstrapExpect: l.spec.Coordinators},
		Mounts:  l.spec.Mounts, Sync: l.spec.Sync, Metadata: l.spec.Metadata,
		UFS: config.UFS{AllowedEndpoints: loopback},
		Log: config.Log{Level: spec.LogLevel}, Auth: l.spec.Auth,
	}
	if spec.TLS != nil {
		f.TLS = spec.TLS(l.spec.Name, "coordinator", name)
	}
	if l.spec.Heartbeat > 0 {
		f.Raft.Heartbeat = config.Duration(l.spec.Heartbeat.String())
	}
	for j, other := range l.coord {
		if j != i {
			f.Raft.Join = append(f.Raft.Join, other.client)
		}
	}
	if !l.spec.Alone {
		f.Listen.Bus, f.Listen.Gossip = m.bus, m.gossip
		f.Advertise.Bus = m.busRelay
		f.CrossCluster = &config.CrossCluster{GossipKey: spec.GossipKey}
		l.joinBus(f, spec, all, self, i)
	}
	return f
}

func (l *layout) joinBus(f *config.File, spec *Spec, all []*layout, self, i int) {
	if spec.Gossip {
		f.Advertise.Gossip = l.coord[i].gossipRelay
	}
	for k, other := range all {
		for j, m := range other.coord {
			switch {
			case k == self && j == i, other.spec.Alone:
			case spec.Gossip:
				f.CrossCluster.Join = append(f.CrossCluster.Join, m.gossipRelay)
			case k != self:
				f.CrossCluster.Peers = append(f.CrossCluster.Peers, config.Peer{Cluster: other.spec.Name, Bus: m.busRelay})
			}
		}
	}
}

// socketOf has a directory of its own, so that it can be all that others see.
func socketOf(spec *Spec, cluster, node string) string {
	return filepath.Join(memberDir(spec, cluster, node), "run", "node.sock")
}

func (l *layout) nodeFile(spec *Spec, c *Cluster, i int) *config.File {
	n, name := l.node[i], nodeName(i)
	dir := memberDir(spec, l.spec.Name, name)
	tier := config.Tier{Kind: "disk", Path: filepath.Join(dir, "blocks"), Size: "1GiB"}
	if l.spec.Tier == "memory" {
		tier = config.Tier{Kind: "memory", Size: "256MiB"}
	}
	if l.spec.TierSize != "" {
		tier.Size = config.Size(l.spec.TierSize)
	}
	tiers := []config.Tier{tier}
	if l.spec.Tiers != nil {
		tiers = l.spec.Tiers(i)
	}
	f := &config.File{
		Cluster: l.spec.Name, Node: config.Node{Name: name, DataDir: filepath.Join(dir, "data")},
		Listen: config.Listen{Data: n.data, HTTP: n.http}, Coordinators: c.Clients,
		Cache:    config.Cache{Tiers: tiers, Uploads: config.Uploads{Memory: config.Size(l.spec.UploadMemory)}},
		Locality: config.Locality{Host: name},
		UFS:      config.UFS{AllowedEndpoints: loopback},
		Log:      config.Log{Level: spec.LogLevel},
	}
	if l.spec.Sockets {
		f.Listen.Socket, f.Listen.SocketMode = socketOf(spec, l.spec.Name, name), "0600"
	}
	if spec.TLS != nil {
		f.TLS = spec.TLS(l.spec.Name, "cachenode", name)
	}
	return f
}
