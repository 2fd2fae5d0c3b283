package namespace

import (
	"time"

	"github.com/freshet-io/freshet"
)

// Refounding is what a state that was read from a snapshot takes over of the cluster
// that it becomes the state of.
type Refounding struct {
	// Index is that of the log at which it begins to count: above all that the
	// cluster has applied.
	Index   uint64
	Cluster freshet.ClusterID
	Name    string
	Epoch   uint64 // the new one is at least this
	Members []Member
	// LastMount and LastGen have been given out: none of them is given out again.
	LastMount freshet.MountID
	LastGen   uint64
	At        time.Time
}

// Refounding returns what a restored state has to take over of this one. The epoch
// is above this one's and at least floor.
func (s *State) Refounding(index, floor uint64, at time.Time) Refounding {
	members := s.Members()
	s.mu.RLock()
	defer s.mu.RUnlock()
	return Refounding{
		Index: index, Cluster: s.meta.Cluster, Name: s.meta.Name, Epoch: max(floor, s.meta.Epoch+1), Members: members,
		LastMount: s.meta.LastMount, LastGen: s.meta.LastGen, At: at,
	}
}

// Refound makes a state that was read from a snapshot one that a running cluster can
// go on with: it takes over the cluster's identity and members, begins a new epoch,
// marks everything and says so in each own log (C16). It must not be used on a state
// that a log is applied to.
func (s *State) Refound(r Refounding) error {
	const op = "restore snapshot"
	switch {
	case s.failed != nil:
		return s.failed
	case s.meta.Cluster == (freshet.ClusterID{}):
		return freshet.Errorf(freshet.KindInvalid, op, "", "the snapshot is of a cluster that was not founded yet")
	case r.Index <= s.meta.Applied:
		return freshet.Errorf(freshet.KindInvalid, op, "", "the snapshot is of index %d, which is above %d", s.meta.Applied, r.Index)
	}
	t := newTxn(s, r.Index)
	defer t.readmit()
	t.exclusive()
	t.refound(&r)
	if err := t.commit(); err != nil {
		s.failed = freshet.Errorf(freshet.KindUnavailable, op, "", "%w", err)
	}
	return s.failed
}

func (t *txn) refound(r *Refounding) {
	foreign := t.meta.Cluster != r.Cluster
	t.meta.Cluster, t.meta.Name = r.Cluster, r.Name
	t.meta.LastMount, t.meta.LastGen = max(t.meta.LastMount, r.LastMount), max(t.meta.LastGen, r.LastGen)
	t.meta.Mounts = r.Index // who has another table asks for this one
	for _, m := range t.mounts {
		if foreign { // the same number was another storage here
			t.meta.LastGen++
			m.Generation = t.meta.LastGen
		}
		t.saveMount(m)
	}
	// The other cluster may have listened to this one.
	t.forgetSub(&ForgetSub{Cluster: r.Cluster})
	for id := range t.members {
		t.removeMember(&RemoveMember{ID: id})
	}
	for i := range r.Members {
		t.setMember(&r.Members[i])
	}
	t.bumpEpoch(&BumpEpoch{Floor: r.Epoch})
	t.publishAll(&PublishAll{At: r.At})
}
