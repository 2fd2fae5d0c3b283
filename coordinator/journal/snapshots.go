package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/freshet-io/freshet"
)

// Names of files in the data directory.
const (
	markerFile   = "snapshot.json" // the last snapshot: see marker
	receivedFile = "received.json" // a dump was received and is not restored yet
	receivedDump = "received.dump" // the dump
	runningFile  = "running"       // exists while a process uses the directory
	logFile      = "raft.db"
)

// marker says that the state, durable by itself, has applied everything up to
// Index, so that the log up to there is not needed to restart.
type marker struct {
	Version     int                `json:"version"`
	Index       uint64             `json:"index"`
	Term        uint64             `json:"term"`
	ConfigIndex uint64             `json:"config_index"`
	Config      raft.Configuration `json:"config"`
	// Applied is the least index that the state must have applied: below Index
	// when the last entries up to it were not commands.
	Applied uint64 `json:"applied"`
}

const markerVersion = 1

func (m *marker) id() string { return fmt.Sprintf("%d-%d", m.Term, m.Index) }

func (m *marker) meta() *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version: raft.SnapshotVersionMax, ID: m.id(), Index: m.Index, Term: m.Term,
		Configuration: m.Config, ConfigurationIndex: m.ConfigIndex,
	}
}

// snapshots implements raft.SnapshotStore on a state that is durable by itself.
type snapshots struct {
	disk     media
	state    State
	identity func() freshet.ClusterID
	events   snapshotEvents

	mu       sync.Mutex
	current  *marker // nil before the first
	received *marker // checked and on disk, not yet restored
}

// snapshotEvents are counted by the metrics.
type snapshotEvents struct{ taken, sent, received func() }

// openSnapshots reads what is on disk and finishes what a crash interrupted.
func openSnapshots(disk media, state State, identity func() freshet.ClusterID, events snapshotEvents) (*snapshots, error) {
	s := &snapshots{disk: disk, state: state, identity: identity, events: events}
	if err := disk.sweep(); err != nil {
		return nil, err
	}
	var err error
	if s.current, err = loadMarker(disk, markerFile); err != nil {
		return nil, err
	}
	if s.received, err = loadMarker(disk, receivedFile); err != nil {
		return nil, err
	}
	switch {
	case s.received == nil:
		return s, disk.remove(receivedDump) // it was never announced
	case s.received.Applied < state.Applied():
		return s, s.forgetReceived() // it was taken over, and the state has gone on
	default:
		return s, s.restoreReceived()
	}
}

// loadMarker returns nil if there is none.
func loadMarker(disk media, name string) (*marker, error) {
	data, err := disk.load(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no marker is not an error
	}
	if err != nil {
		return nil, err
	}
	var m marker
	var sum uint32
	n := len(data) - 9 // the line with the checksum
	if n < 0 {
		return nil, corruptMarker(name, errors.New("it is cut off"))
	}
	if _, err := fmt.Sscanf(string(data[n:]), "%08x\n", &sum); err != nil || sum != checksum(data[:n]) {
		return nil, corruptMarker(name, errors.New("checksum mismatch"))
	}
	if err := json.Unmarshal(data[:n], &m); err != nil {
		return nil, corruptMarker(name, err)
	}
	if m.Version != markerVersion {
		return nil, freshet.Errorf(freshet.KindUnsupported, "open journal", "",
			"%s has format %d, this version reads %d", name, m.Version, markerVersion)
	}
	return &m, nil
}

func corruptMarker(name string, err error) error {
	return freshet.Errorf(freshet.KindCorrupt, "open journal", "",
		"%s is damaged: %w; wipe this member's data directory and let it join again", name, err)
}

func (s *snapshots) saveMarker(name string, m *marker) error {
	m.Version = markerVersion
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	data = append(data, '\n')
	return s.disk.save(name, fmt.Appendf(data, "%08x\n", checksum(data)))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// restoreReceived hands the received dump to the state and then makes it the
// current snapshot.
func (s *snapshots) restoreReceived() error {
	if err := s.readReceived(s.identity(), s.state.Restore); err != nil {
		return err
	}
	return s.adoptReceived()
}

// readReceived checks the whole dump before restore sees a byte of it.
func (s *snapshots) readReceived(want freshet.ClusterID, restore func(io.Reader) error) error {
	for _, read := range []func(io.Reader) (DumpInfo, error){
		func(r io.Reader) (DumpInfo, error) { return CheckDump(r, want) },
		func(r io.Reader) (DumpInfo, error) { return ReadDump(r, want, restore) },
	} {
		f, err := s.disk.open(receivedDump)
		if err != nil {
			return err
		}
		_, err = read(f)
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// adoptReceived makes the restored dump the current snapshot: from now on the
// state itself is the copy.
func (s *snapshots) adoptReceived() error {
	if err := s.state.Flush(); err != nil {
		return err
	}
	s.mu.Lock()
	m := s.received
	s.mu.Unlock()
	if err := s.saveMarker(markerFile, m); err != nil {
		return err
	}
	s.mu.Lock()
	s.current = m
	s.mu.Unlock()
	return s.forgetReceived()
}

func (s *snapshots) forgetReceived() error {
	if err := s.disk.remove(receivedFile); err != nil {
		return err
	}
	s.mu.Lock()
	s.received = nil
	s.mu.Unlock()
	return s.disk.remove(receivedDump)
}

// latest returns the newest snapshot, nil if there is none.
func (s *snapshots) latest() *marker {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.received != nil {
		return s.received
	}
	return s.current
}

// found records a snapshot without a log: how a restored backup begins.
func (s *snapshots) found(m *marker) error {
	if err := s.state.Flush(); err != nil {
		return err
	}
	if err := s.saveMarker(markerFile, m); err != nil {
		return err
	}
	s.mu.Lock()
	s.current = m
	s.mu.Unlock()
	return nil
}

// List implements raft.SnapshotStore.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	if m := s.latest(); m != nil {
		return []*raft.SnapshotMeta{m.meta()}, nil
	}
	return nil, nil
}

// Open implements raft.SnapshotStore: the received dump that is about to be
// restored, or else what becomes a dump of the live state for a lagging member.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	received, current := s.received, s.current
	s.mu.Unlock()
	switch {
	case received != nil && received.id() == id:
		f, err := s.disk.open(receivedDump)
		return received.meta(), f, err
	case received == nil && current != nil && current.id() == id:
		return current.meta(), &liveDump{from: s, m: current}, nil
	}
	return nil, nil, fmt.Errorf("snapshot %s does not exist any more", id)
}

// liveDump stands for a dump of the live state that is made when it is certain
// that somebody takes it: Raft opens the snapshot also for a member that has been
// dead for days, again and again.
type liveDump struct {
	from *snapshots
	m    *marker
}

// Read implements io.Reader; timed.InstallSnapshot calls make instead.
func (d *liveDump) Read([]byte) (int, error) { return 0, errors.New("the dump was not made") }

// Close implements io.Closer.
func (d *liveDump) Close() error { return nil }

// make writes the live state into a file of known length. It may be newer than the
// marker, never older: the state has applied at least what that says.
func (d *liveDump) make() (io.ReadCloser, int64, error) {
	f, err := d.from.disk.temp()
	if err != nil {
		return nil, 0, err
	}
	info, err := WriteDump(f, d.from.identity(), d.from.state.Dump)
	if err == nil && info.Applied < d.m.Applied {
		err = fmt.Errorf("the state has applied %d, its snapshot says %d", info.Applied, d.m.Applied)
	}
	if err != nil {
		f.discard()
		return nil, 0, err
	}
	r, size, err := f.reread()
	if err != nil {
		f.discard()
		return nil, 0, err
	}
	d.from.events.sent()
	return r, size, nil
}

// Create implements raft.SnapshotStore.
func (s *snapshots) Create(_ raft.SnapshotVersion, index, term uint64, config raft.Configuration,
	configIndex uint64, _ raft.Transport,
) (raft.SnapshotSink, error) {
	return &sink{store: s, m: &marker{Index: index, Term: term, Config: config.Clone(), ConfigIndex: configIndex}}, nil
}

// sink takes either a local snapshot, which has no bytes (see machine.Persist),
// or a dump that another member sends.
type sink struct {
	store *snapshots
	m     *marker
	local bool
	file  tempFile
}

// ID implements raft.SnapshotSink.
func (k *sink) ID() string { return k.m.id() }

// Write implements io.Writer.
func (k *sink) Write(p []byte) (int, error) {
	if k.file == nil {
		f, err := k.store.disk.temp()
		if err != nil {
			return 0, err
		}
		k.file = f
	}
	return k.file.Write(p)
}

// Cancel implements raft.SnapshotSink.
func (k *sink) Cancel() error {
	if k.file != nil {
		k.file.discard()
	}
	return nil
}

// Close makes the snapshot the latest. Of a received dump nothing is kept unless
// it is whole and of this cluster.
func (k *sink) Close() error {
	s := k.store
	if k.local {
		if err := s.saveMarker(markerFile, k.m); err != nil {
			return err
		}
		s.mu.Lock()
		s.current = k.m
		s.mu.Unlock()
		s.events.taken()
		return nil
	}
	if k.file == nil {
		return errors.New("the snapshot is empty")
	}
	defer k.file.discard()
	if err := k.file.keep(receivedDump); err != nil {
		return err
	}
	f, err := s.disk.open(receivedDump)
	if err != nil {
		return err
	}
	info, err := CheckDump(f, s.identity())
	_ = f.Close()
	if err == nil && info.Applied < s.state.Applied() {
		err = fmt.Errorf("it has applied %d, this member %d", info.Applied, s.state.Applied())
	}
	if err != nil {
		return errors.Join(err, s.disk.remove(receivedDump))
	}
	k.m.Applied = info.Applied
	if err := s.saveMarker(receivedFile, k.m); err != nil {
		return err
	}
	s.mu.Lock()
	s.received = k.m
	s.mu.Unlock()
	s.events.received()
	return nil
}
