package cachenode

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
)

const identityFile = "node.json"

// Identity is who a node is: an ID that it keeps for ever, a number that grows
// at each of its starts, and the cluster that its blocks belong to. It is safe
// for concurrent use.
type Identity struct {
	dir  string // "" if it is not kept
	lock *tier.DirLock

	mu    sync.Mutex
	state identityState
}

type identityState struct {
	Node        freshet.NodeID    `json:"node"`
	Incarnation uint64            `json:"incarnation"`
	Cluster     freshet.ClusterID `json:"cluster"`
}

// OpenIdentity returns the identity that is kept in dir, or a new one, with its
// incarnation counted up. It takes a lock on dir: KindConflict if another process
// holds it, KindCorrupt if the file can't be read.
func OpenIdentity(dir string) (*Identity, error) {
	lock, err := tier.LockDir(dir)
	if err != nil {
		return nil, err
	}
	id := &Identity{dir: dir, lock: lock}
	err = id.read()
	if err == nil {
		id.state.Incarnation++
		err = id.write()
	}
	if err != nil {
		_ = lock.Close() //nolint:errcheck // the error that counts is the first
		return nil, err
	}
	return id, nil
}

// NewIdentity returns an identity that is kept nowhere, for a node whose tier is
// in memory: after a restart it is a new node.
func NewIdentity() *Identity {
	return &Identity{state: identityState{Node: freshet.NodeID(uuid.NewString()), Incarnation: 1}}
}

// Node returns the ID of the node.
func (id *Identity) Node() freshet.NodeID { return id.get().Node }

// Incarnation returns the number of this start.
func (id *Identity) Incarnation() uint64 { return id.get().Incarnation }

// Cluster returns the cluster that the node last belonged to; zero if none.
func (id *Identity) Cluster() freshet.ClusterID { return id.get().Cluster }

func (id *Identity) get() identityState {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.state
}

// SetCluster keeps the cluster.
func (id *Identity) SetCluster(c freshet.ClusterID) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.state.Cluster = c
	return id.write()
}

// Close gives up the lock.
func (id *Identity) Close() error {
	if id.lock == nil {
		return nil
	}
	return id.lock.Close()
}

func (id *Identity) read() error {
	path := filepath.Join(id.dir, identityFile)
	b, err := os.ReadFile(path) //nolint:gosec // the operator's own directory
	if errors.Is(err, fs.ErrNotExist) {
		id.state = identityState{Node: freshet.NodeID(uuid.NewString())}
		return nil
	}
	if err != nil {
		return identityError(err)
	}
	if err := json.Unmarshal(b, &id.state); err != nil || uuid.Validate(string(id.state.Node)) != nil {
		return freshet.Errorf(freshet.KindCorrupt, "open node identity", "",
			"%s is not a node's identity: remove it to start as a new node; cached blocks are kept", path)
	}
	return nil
}

// write replaces the file at once and durably: an incarnation must never be
// used twice.
func (id *Identity) write() error {
	if id.dir == "" {
		return nil
	}
	b, err := json.Marshal(id.state)
	if err != nil {
		return identityError(err)
	}
	temp := filepath.Join(id.dir, identityFile+".new")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // the operator's own directory
	if err != nil {
		return identityError(err)
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temp, filepath.Join(id.dir, identityFile))
	}
	if err == nil {
		err = syncDir(id.dir)
	}
	return identityError(err)
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the operator's own directory
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func identityError(err error) error {
	if err == nil {
		return nil
	}
	return &freshet.Error{Op: "open node identity", Kind: freshet.KindUnavailable, Err: err}
}
