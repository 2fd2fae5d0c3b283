package crosscluster

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
)

// known is what is known of one other cluster. The name is the key: it stands in
// certificates and configurations, and outlives a rebuilt cluster's ID.
type known struct {
	name        string
	id          freshet.ClusterID // nil UUID until learnt
	epoch       uint64
	configured  bool     // by the operator
	static      []string // addresses from the configuration
	told        []string // addresses from its Hello
	gossiped    []string // addresses from the gossip pool
	roots       []Root
	greeted     bool // it introduced itself, or is a durable subscription
	introduced  bool // it introduced itself to this process: roots is what it mounts
	dismissed   bool // forgotten: nobody waits for it until it introduces itself again
	acked       map[freshet.DomainID]uint64
	acknowledge time.Time
	// live is until when a stream from it proves that it is where told says.
	live time.Time
}

// addresses returns where to find a member, without repeats.
func (k *known) addresses() []string {
	var out []string
	for _, a := range slices.Concat(k.told, k.gossiped, k.static) {
		if a != "" && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// publisher returns k as a source of records. A cluster that was never heard of
// gets an ID that is only its own, made of its name.
func (k *known) publisher() invalidation.Publisher {
	id := k.id
	if id == uuid.Nil {
		id = uuid.NewSHA1(uuid.Nil, []byte("freshet cluster "+k.name))
	}
	return invalidation.Publisher{Cluster: id, Name: k.name, Epoch: k.epoch}
}

// directory knows the other clusters. It is safe for concurrent use.
type directory struct {
	// self is called without the lock: the directory never waits for a Region.
	self func() invalidation.Publisher

	mu       sync.Mutex
	clusters map[string]*known
	changed  chan struct{}
	forgets  uint64 // how often a cluster was forgotten
}

func newDirectory(self func() invalidation.Publisher, peers []PeerConfig) *directory {
	d := &directory{self: self, clusters: map[string]*known{}, changed: make(chan struct{})}
	for _, p := range peers {
		k := d.get(p.Cluster)
		k.configured = true
		k.static = append(k.static, p.Addresses...)
	}
	return d
}

func (d *directory) get(name string) *known {
	k, ok := d.clusters[name]
	if !ok {
		k = &known{name: name, acked: map[freshet.DomainID]uint64{}}
		d.clusters[name] = k
	}
	return k
}

// touch tells those who wait that something changed. The lock is held.
func (d *directory) touch() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// list returns copies of all, by name, and a channel that is closed at the next
// change.
func (d *directory) list() ([]known, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]known, 0, len(d.clusters))
	for _, name := range slices.Sorted(maps.Keys(d.clusters)) {
		out = append(out, d.clusters[name].clone())
	}
	return out, d.changed
}

func (k *known) clone() known {
	c := *k
	c.acked = maps.Clone(k.acked)
	return c
}

func (d *directory) lookup(name string) (known, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, ok := d.clusters[name]
	if !ok {
		return known{}, false
	}
	return k.clone(), true
}

func (d *directory) byID(id freshet.ClusterID) (known, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range d.clusters {
		if k.id == id && id != uuid.Nil {
			return k.clone(), true
		}
	}
	return known{}, false
}

// restore learns from durable subscriptions.
func (d *directory) restore(subs []invalidation.Subscription) {
	self := d.self()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range subs {
		if s.Publisher.Name == "" || s.Publisher.Cluster == self.Cluster {
			continue
		}
		k := d.get(s.Publisher.Name)
		if k.id == uuid.Nil {
			k.id = s.Publisher.Cluster
		}
		if k.id == s.Publisher.Cluster {
			k.epoch = max(k.epoch, s.Publisher.Epoch)
			k.greeted = true
		}
	}
	d.touch()
}

// greet takes in what a cluster says of itself, or refuses it.
func (d *directory) greet(i clusterInfo, now time.Time) error {
	self := d.self()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.welcome(self, i, now)
}

// forgotten returns how often a cluster was forgotten.
func (d *directory) forgotten() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.forgets
}

// greetAnswer is greet with the answer to what was asked when forgotten returned
// before. errResync if a cluster was forgotten since: it may have said goodbye
// after it had answered.
func (d *directory) greetAnswer(before uint64, i clusterInfo, now time.Time) error {
	self := d.self()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.forgets != before {
		return errResync
	}
	return d.welcome(self, i, now)
}

// welcome is greet. The lock is held.
func (d *directory) welcome(self invalidation.Publisher, i clusterInfo, now time.Time) error {
	if err := d.admit(self, i, now); err != nil {
		return err
	}
	k := d.get(i.Name)
	if k.id != i.Cluster {
		k.acked = map[freshet.DomainID]uint64{}
	}
	same := k.id == i.Cluster && k.epoch == i.Epoch && slices.Equal(k.told, i.addresses) && slices.Equal(k.roots, i.roots) && k.introduced
	k.id, k.epoch, k.told, k.roots, k.greeted = i.Cluster, i.Epoch, i.addresses, i.roots, true
	k.introduced, k.dismissed = true, false
	if !same {
		d.touch()
	}
	return nil
}

// admit decides whether to believe what a cluster says of itself. The lock is held.
func (d *directory) admit(self invalidation.Publisher, i clusterInfo, now time.Time) error {
	const op = "hello"
	refuse := func(format string, args ...any) error {
		return freshet.Errorf(freshet.KindConflict, op, "", format, args...)
	}
	switch {
	case i.protocolMin > ProtocolMax || i.protocolMax < ProtocolMin:
		return freshet.Errorf(freshet.KindUnsupported, op, "", "cluster %s speaks bus protocol %d to %d, we speak %d to %d: upgrade the older one",
			i.Name, i.protocolMin, i.protocolMax, ProtocolMin, ProtocolMax)
	case i.Cluster == self.Cluster:
		return refuse("cluster %s has our own cluster ID %s: it was copied from us, or an address points back to us", i.Name, i.Cluster)
	case i.Name == self.Name:
		return refuse("another cluster, %s, is named %s like us: names must differ", i.Cluster, i.Name)
	}
	for _, k := range d.clusters {
		if k.id == i.Cluster && k.name != i.Name {
			return refuse("cluster ID %s belongs to %s already, now %s claims it: a copy of a cluster needs an ID of its own", i.Cluster, k.name, i.Name)
		}
	}
	k, ok := d.clusters[i.Name]
	if !ok && len(d.clusters) >= maxClusters {
		return freshet.Errorf(freshet.KindExhausted, op, "", "%d clusters are known already: forget those that are gone", maxClusters)
	}
	if !ok || k.id != i.Cluster {
		return nil
	}
	if i.Epoch < k.epoch {
		return refuse("epoch %d < known %d: restored without bump? run freshet cluster bump-epoch", i.Epoch, k.epoch)
	}
	if now.Before(k.live) && len(k.told) > 0 && len(i.addresses) > 0 && disjoint(k.told, i.addresses) {
		return refuse("cluster ID %s of %s is in use at %v, now it is also said to be at %v: a copy of a cluster needs an ID of its own",
			i.Cluster, i.Name, k.told, i.addresses)
	}
	return nil
}

func disjoint(a, b []string) bool {
	for _, s := range a {
		if slices.Contains(b, s) {
			return false
		}
	}
	return true
}

// heard notes that a stream proved the cluster to be where it says.
func (d *directory) heard(name string, until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k, ok := d.clusters[name]; ok {
		k.live = until
	}
}

// acknowledged notes up to where a subscriber applied our log.
func (d *directory) acknowledged(name string, domain freshet.DomainID, applied uint64, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k, ok := d.clusters[name]; ok {
		k.acked[domain] = applied
		k.acknowledge = now
	}
}

// pool takes in who is alive in the gossip pool.
func (d *directory) pool(members []Member) {
	self := d.self()
	found := map[string][]string{}
	for _, m := range members {
		if m.Cluster != self.Name && m.ID != self.Cluster && validName(m.Cluster) && m.Bus != "" {
			found[m.Cluster] = append(found[m.Cluster], m.Bus)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := false
	for name := range found {
		slices.Sort(found[name])
		d.get(name)
	}
	for name, k := range d.clusters {
		if !slices.Equal(k.gossiped, found[name]) {
			k.gossiped, changed = found[name], true
		}
		if len(k.gossiped) == 0 && !k.configured && !k.greeted {
			delete(d.clusters, name) // it went before it ever spoke to us
		}
	}
	if changed {
		d.touch()
	}
}

// forget drops what was learnt of a cluster. What the operator configured and
// whoever is in the gossip pool stays, but nobody waits for it.
func (d *directory) forget(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, ok := d.clusters[name]
	if !ok {
		return
	}
	delete(d.clusters, name)
	d.forgets++
	if k.configured || len(k.gossiped) > 0 {
		fresh := d.get(name)
		fresh.configured, fresh.static, fresh.gossiped, fresh.dismissed = k.configured, k.static, k.gossiped, true
	}
	d.touch()
}
