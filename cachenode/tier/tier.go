// Package tier owns the cached blocks in memory or in one directory of a disk: the
// space they take, which of them go first, their checksums, and what is left of
// them after a restart.
//
// Blocks are immutable and named by the version of their file, so a tier can be
// incomplete but never stale. It never fetches a block, never decides which file
// is valid, and promises durability only of the versions that it was told to hold:
// all else that is lost here is read again from the storage. That is why nothing
// else is synced to the disk. A block that a crash
// tore is recognised by its size, its header and its checksums when it is opened,
// and dropped. The files of the last few damaged blocks are set aside, in the
// directory "quarantine", for whoever wants to know what damaged them; they give way
// as soon as their space is needed.
package tier

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/internal/clock"
)

// ChunkSize is the number of bytes that one checksum covers.
const ChunkSize = 256 << 10

// readsApart is how far apart two reads of a block are at least to count as two.
const readsApart = time.Second

// Kind says where a tier keeps its bytes.
type Kind string

// The kinds of tier.
const (
	Memory Kind = "memory"
	Disk   Kind = "disk"
)

// Reason says why a block left the tier.
type Reason string

// The reasons.
const (
	ReasonCapacity Reason = "capacity" // another block needed the space
	ReasonFreed    Reason = "freed"    // its file version is no longer wanted
	ReasonCorrupt  Reason = "corrupt"  // its bytes, header or file are not what was written
	ReasonForeign  Reason = "foreign"  // it belongs to another cluster, epoch or file version
	ReasonMoved    Reason = "moved"    // another tier of the node has it
	ReasonFailed   Reason = "failed"   // its directory is out of service
)

// Meta is what a block's header binds its bytes to.
type Meta struct {
	Cluster     freshet.ClusterID
	Epoch       uint64
	Fingerprint fingerprint.Fingerprint
}

// Want is what a reader expects of a block. A block that differs is dropped and
// is not there.
type Want struct {
	Cluster freshet.ClusterID
	// Epoch is the newest epoch of the cluster that is known: a block of a newer
	// one is not of this cluster's history. Blocks of older epochs are fine, for
	// their file IDs are never handed out again.
	Epoch       uint64
	Fingerprint fingerprint.Fingerprint
	Length      int64 // bytes
}

// Change tells an observer that a block came or went.
type Change struct {
	Block  freshet.BlockReport
	Added  bool
	Reason Reason // of a block that went
}

// Options are the settings of a tier.
type Options struct {
	// Capacity is the number of bytes that blocks may take with their headers
	// and checksums, blocks in the making included. 0 is DefaultCapacity.
	Capacity int64
	// Policy is the eviction policy, one of Policies. "" is the first of them.
	Policy string
	// Clock, if not nil, lets the tier count how often a block is read.
	Clock clock.Clock
	// Failed, if not nil, is told of each failure of the directory that is not the
	// process's own want of files or memory. It may be called with the tier locked:
	// it must be quick and must not call the tier.
	Failed func(error)
	// Patience is how long an access to the directory may take before it is given up
	// and has failed. 0 is 15 seconds.
	Patience time.Duration
	// Fault, if not nil, is asked before each access to the directory, and what it
	// returns is what the access fails with; it may also take its time. For fault
	// injection.
	Fault func(op string) error
}

// DefaultCapacity is the capacity of a tier that was given none: 1 GiB.
const DefaultCapacity = 1 << 30

// Tier is a set of blocks. It is safe for concurrent use.
type Tier struct {
	kind     Kind
	capacity int64
	medium   medium
	buffers  sync.Pool     // of *[ChunkSize]byte
	holding  chan struct{} // has room for the one who makes a version held; taken before mu

	mu      sync.Mutex
	held    map[freshet.FileID]struct{} // versions whose blocks stay, see Hold
	policy  policy
	clock   clock.Clock
	blocks  map[freshet.BlockID]*entry
	used    int64 // blocks, reservations, removed blocks that are still open, and files set aside
	lent    int64 // bytes of blocks that other processes have open, removed ones included
	aside   []asideFile
	observe func(Change)
	swept   int
	closed  bool
}

// entry is one committed block.
type entry struct {
	id     freshet.BlockID
	length int64
	size   int64 // what it takes of the capacity

	// Guarded by the tier's mu.
	readers int
	removed bool
	aside   bool // its space counts as that of a file that was set aside
	pinned  bool
	loans   int           // to other processes
	reads   int           // counted ones
	readAt  time.Duration // the last counted one

	checkMu sync.Mutex
	check   *check // nil until the header was verified in this process
}

// NewMemory returns an empty tier in memory.
func NewMemory(opts Options) (*Tier, error) {
	return newTier(Memory, newMemory(), opts)
}

// OpenDisk returns the tier in dir, which is made if it does not exist, with the
// blocks that an earlier process left there. It takes a lock on dir:
// KindConflict if another process holds it. Only names and sizes are looked at
// here; a header is verified when its block is first opened.
func OpenDisk(dir string, opts Options) (*Tier, error) {
	d, err := openDisk(dir, opts)
	if err != nil {
		return nil, err
	}
	t, err := newTier(Disk, d, opts)
	if err == nil {
		err = t.load(d)
	}
	if err != nil {
		return nil, errorsJoin(err, d.close())
	}
	return t, nil
}

func newTier(kind Kind, m medium, opts Options) (*Tier, error) {
	const op = "open cache tier"
	switch {
	case opts.Capacity == 0:
		opts.Capacity = DefaultCapacity
	case opts.Capacity < 0:
		return nil, freshet.Errorf(freshet.KindInvalid, op, "", "the capacity is %d bytes; it must be positive", opts.Capacity)
	}
	p, err := newPolicy(opts.Policy, opts.Capacity)
	if err != nil {
		return nil, err
	}
	return &Tier{
		kind: kind, capacity: opts.Capacity, medium: m, policy: p, clock: opts.Clock,
		blocks: make(map[freshet.BlockID]*entry), held: make(map[freshet.FileID]struct{}), observe: func(Change) {},
		holding: make(chan struct{}, 1),
	}, nil
}

// load takes up the blocks that were found on the disk, the oldest first, and
// makes room if the capacity is smaller than it was.
func (t *Tier) load(d *disk) error {
	found, swept, err := d.scan()
	if err != nil {
		return err
	}
	aside, err := d.scanAside()
	if err != nil {
		return err
	}
	held, err := d.scanHeld()
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.swept, t.held = swept, held
	for _, f := range aside {
		t.keepAside(f)
		t.used += f.size
	}
	for _, f := range found {
		e := &entry{id: f.id, length: f.length, size: d.footprint(f.length)}
		t.blocks[e.id] = e
		t.used += e.size
		t.policy.add(e.id, e.size)
	}
	return t.makeRoom(0)
}

// Observe sets the function that is told of every block that comes or goes from
// now on, in order. It is called with the tier locked: it must be quick and must
// not call the tier.
func (t *Tier) Observe(fn func(Change)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.observe = fn
}

// Kind says where the tier keeps its bytes.
func (t *Tier) Kind() Kind { return t.kind }

// Capacity returns the capacity in bytes.
func (t *Tier) Capacity() int64 { return t.capacity }

// Used returns the bytes that are taken, reservations included. It never
// exceeds the capacity.
func (t *Tier) Used() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.used
}

// Swept returns how many files were removed at the start because they can't be
// blocks of this tier.
func (t *Tier) Swept() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.swept
}

// Probe finds out whether the medium can be written and read.
func (t *Tier) Probe() error { return t.medium.probe() }

// Stat returns the length of a block and whether the tier holds it.
func (t *Tier) Stat(id freshet.BlockID) (length int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.blocks[id]; e != nil {
		return e.length, true
	}
	return 0, false
}

// List returns all blocks in no particular order.
func (t *Tier) List() []freshet.BlockReport {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]freshet.BlockReport, 0, len(t.blocks))
	for id, e := range t.blocks {
		list = append(list, freshet.BlockReport{ID: id, Length: e.length})
	}
	return list
}

// Remove drops blocks that are no longer wanted, but none of a version that is held.
// Open readers go on reading.
func (t *Tier) Remove(ids ...freshet.BlockID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		if e := t.blocks[id]; e != nil {
			t.drop(e, ReasonFreed)
		}
	}
}

// Pin keeps the blocks of file versions that the tier holds from being evicted;
// they can still be removed. With only, the blocks of all other versions are
// pinned no more.
func (t *Tier) Pin(only bool, files ...freshet.FileID) {
	if !only && len(files) == 0 {
		return
	}
	wanted := make(map[freshet.FileID]struct{}, len(files))
	for _, id := range files {
		wanted[id] = struct{}{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, e := range t.blocks {
		if _, ok := wanted[id.File]; ok || only {
			e.pinned = ok
		}
	}
}

// Pinned returns the bytes that pinned blocks take.
func (t *Tier) Pinned() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var n int64
	for _, e := range t.blocks {
		if e.pinned {
			n += e.size
		}
	}
	return n
}

// Clear drops all blocks, because they belong to somebody else; those of versions
// that are held stay.
func (t *Tier) Clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.blocks {
		t.drop(e, ReasonForeign)
	}
	for t.dropAside() {
	}
}

// Evict drops the block that should go first and reports whether there was one
// that is neither in use, pinned nor held. Files that were set aside go before blocks.
func (t *Tier) Evict() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dropAside() || t.evict()
}

// evict drops a block. The caller holds mu.
func (t *Tier) evict() bool {
	id, ok := t.policy.victim(t.busy)
	if ok {
		t.drop(t.blocks[id], ReasonCapacity)
	}
	return ok
}

// busy reports whether a block may not be evicted. The caller holds mu.
func (t *Tier) busy(id freshet.BlockID) bool {
	e := t.blocks[id]
	return e.readers > 0 || e.pinned || t.holds(e)
}

// Close gives up the lock of a disk tier. Blocks stay on the disk. Readers and
// writers must be closed before it.
func (t *Tier) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	return t.medium.close()
}

// reserve takes n more bytes of the capacity and, if it may, evicts what has to go
// for them. KindExhausted: there is no room.
func (t *Tier) reserve(n int64, evict bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return freshet.Errorf(freshet.KindUnavailable, "write block", "", "the cache tier is closed")
	}
	for !evict && t.used+n > t.capacity && t.dropAside() {
	}
	if !evict && t.used+n > t.capacity {
		return freshet.Errorf(freshet.KindExhausted, "write block", "", "%d bytes do not fit beside the %d that are taken of %d", n, t.used, t.capacity)
	}
	if err := t.makeRoom(n); err != nil {
		return err
	}
	t.used += n
	return nil
}

func (t *Tier) release(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.used -= n
}

// makeRoom evicts until n more bytes fit. Blocks that are being read are not
// evicted: that would free no space. Pinned ones are not either. The caller holds
// mu.
func (t *Tier) makeRoom(n int64) error {
	if n > t.capacity {
		return freshet.Errorf(freshet.KindExhausted, "write block", "", "%d bytes do not fit into a cache of %d", n, t.capacity)
	}
	for t.used+n > t.capacity {
		if !t.dropAside() && !t.evict() {
			return freshet.Errorf(freshet.KindExhausted, "write block", "", "the cache is full of blocks that are in use, pinned or not in the storage yet: %d of %d bytes", t.used, t.capacity)
		}
	}
	return nil
}

// drop removes a block. The space of one that is being read stays taken until
// its last reader is closed. The caller holds mu.
func (t *Tier) drop(e *entry, why Reason) {
	if e.removed || why != ReasonCorrupt && t.holds(e) {
		return
	}
	e.removed = true
	delete(t.blocks, e.id)
	t.policy.remove(e.id)
	if e.aside = why == ReasonCorrupt && t.setAside(e); !e.aside {
		t.medium.remove(e.id)
		if e.readers == 0 {
			t.used -= e.size
		}
	}
	t.observe(Change{Block: freshet.BlockReport{ID: e.id, Length: e.length}, Reason: why})
}

// pin makes a reader of the block known. reads is how often it was read if this is
// a read that counts, else 0. Reads one after the other count as one: whoever reads
// a block piece by piece reads it once.
func (t *Tier) pin(id freshet.BlockID) (e *entry, reads int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e = t.blocks[id]
	if e == nil || t.closed {
		return nil, 0
	}
	e.readers++
	t.policy.touch(id)
	if t.clock == nil {
		return e, 0
	}
	if now := t.clock.Elapsed(); e.reads == 0 || now-e.readAt >= readsApart {
		e.reads++
		e.readAt, reads = now, e.reads
	}
	return e, reads
}

func (t *Tier) unpin(e *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.readers--
	if e.readers == 0 && e.removed && !e.aside {
		t.used -= e.size
	}
}

// discard drops a block and reports whether it was still there.
func (t *Tier) discard(e *entry, why Reason) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := !e.removed
	t.drop(e, why)
	return was
}

// medium is what differs between memory and disk. Its methods are called with
// the tier locked, except create and open.
type medium interface {
	create() (draft, error)
	// open returns an open block; KindCorrupt if what is there can't be one.
	open(e *entry) (handle, error)
	remove(id freshet.BlockID)
	// setAside takes a damaged block, of at most size bytes, out of the way and
	// returns the name under which it is kept; false if nothing is worth keeping.
	setAside(id freshet.BlockID, size int64) (name string, ok bool)
	removeAside(name string)
	// hold makes it durable that a version is held; unhold ends that.
	hold(id freshet.FileID) error
	unhold(id freshet.FileID) error
	// sync makes the bytes of a published block durable.
	sync(id freshet.BlockID) error
	// settle makes the name of a published block durable.
	settle(id freshet.BlockID) error
	probe() error
	// stuck reports whether an access that was given up is not answered yet.
	stuck() bool
	// footprint is what a block of that length takes.
	footprint(length int64) int64
	close() error
}

// draft is a block in the making: bytes are appended by one goroutine, or put where
// they belong by several, and read by others, never before they were there.
type draft interface {
	append(p []byte) error
	// expect takes what a block of that length needs, and returns where in its file,
	// if it has one, the bytes will begin. chunk and fill come after it.
	expect(length int64) (base int64, err error)
	// chunk returns the memory of a chunk, of so many bytes in so many chunks, if
	// that is where fill wants its bytes. fill adds p, which follows what the chunk
	// at off has. Each chunk has one goroutine that does; nobody appends.
	chunk(i, size, of int64) []byte
	fill(p []byte, off int64) error
	// view is that of a handle.
	view(off, n int64) []byte
	readAt(p []byte, off int64) error
	// lend returns a file for another process, open for reading only, and where in it
	// the bytes are and will be of a block of that length.
	lend(length int64) (*os.File, int64, error)
	// prepare writes header and checksums; publish makes the block appear under
	// its name, with the tier locked.
	prepare(h header, table []uint64) error
	// sync makes what was prepared durable.
	sync() error
	publish(id freshet.BlockID) (stamp, error)
	// close frees the draft, and its bytes if it was not published.
	close()
}

// handle is an open block. It outlives the block's removal.
type handle interface {
	readAt(p []byte, off int64) error
	// view returns the bytes themselves if they are addressable, else nil.
	view(off, n int64) []byte
	// load reads and verifies header and checksums.
	load() (header, []uint64, error)
	// stamp changes whenever somebody else changes the bytes.
	stamp() (stamp, error)
	file() (f *os.File, dataOffset int64)
	// lend returns a file for another process, open for reading only, and where the
	// block begins in it. sealed says that nobody can change its bytes any more.
	// KindUnsupported: there can be none; KindExhausted: there can be none now.
	lend() (f *os.File, dataOffset int64, sealed bool, err error)
	close() error
}

func chunks(length int64) int64 { return (length + ChunkSize - 1) / ChunkSize }

func sortFound(found []foundBlock) {
	slices.SortFunc(found, func(a, b foundBlock) int { return a.modTime.Compare(b.modTime) })
}

func blockName(id freshet.BlockID) string {
	return fmt.Sprintf("%016x-%08x", uint64(id.File), id.Index)
}
