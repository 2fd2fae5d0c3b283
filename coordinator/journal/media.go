package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hashicorp/raft"
)

// media is where the small files and the dumps of a member lie.
type media interface {
	// save replaces a small file by data, durably and in one step.
	save(name string, data []byte) error
	// load returns fs.ErrNotExist if there is no such file.
	load(name string) ([]byte, error)
	// remove of a file that does not exist is no error.
	remove(name string) error
	// temp makes a file that has no name yet.
	temp() (tempFile, error)
	// open opens a file that was kept.
	open(name string) (io.ReadCloser, error)
	// sweep removes what an ended process left without a name.
	sweep() error
}

// tempFile is written once and then kept, or read back and forgotten.
type tempFile interface {
	io.Writer
	// keep makes the file durable under a name and closes it.
	keep(name string) error
	// reread returns the bytes from the start; closing the reader forgets the file.
	reread() (io.ReadCloser, int64, error)
	// discard closes and forgets the file. It does nothing after keep.
	discard()
}

// Memory is a member's log and markers in memory. It outlives the Journal that
// uses it, as a disk would, so that a simulation can restart a member.
type Memory struct {
	logs  *raft.InmemStore
	mu    sync.Mutex
	files map[string][]byte
}

// NewMemory returns an empty one.
func NewMemory() *Memory {
	return &Memory{logs: raft.NewInmemStore(), files: map[string][]byte{}}
}

func (m *Memory) save(name string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[name] = bytes.Clone(data)
	return nil
}

func (m *Memory) load(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.files[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return data, nil
}

func (m *Memory) remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.files, name)
	return nil
}

func (m *Memory) open(name string) (io.ReadCloser, error) {
	data, err := m.load(name)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (m *Memory) temp() (tempFile, error) { return &memTemp{in: m}, nil }
func (m *Memory) sweep() error            { return nil }

type memTemp struct {
	bytes.Buffer
	in *Memory
}

func (t *memTemp) keep(name string) error { return t.in.save(name, t.Bytes()) }
func (t *memTemp) discard()               {}
func (t *memTemp) reread() (io.ReadCloser, int64, error) {
	return io.NopCloser(bytes.NewReader(t.Bytes())), int64(t.Len()), nil
}

// folder keeps the files in a directory.
type folder string

const tempPrefix = "tmp-"

func (d folder) path(name string) string { return filepath.Join(string(d), name) }

func (d folder) save(name string, data []byte) error {
	t, err := d.temp()
	if err != nil {
		return err
	}
	defer t.discard()
	if _, err := t.Write(data); err != nil {
		return err
	}
	return t.keep(name)
}

func (d folder) load(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }

func (d folder) remove(name string) error {
	if err := os.Remove(d.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.sync()
}

func (d folder) open(name string) (io.ReadCloser, error) { return os.Open(d.path(name)) }

func (d folder) temp() (tempFile, error) {
	f, err := os.CreateTemp(string(d), tempPrefix+"*")
	if err != nil {
		return nil, err
	}
	return &diskTemp{File: f, in: d}, nil
}

func (d folder) sweep() error {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if err := os.Remove(d.path(e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// sync makes names that were added or removed durable.
func (d folder) sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

type diskTemp struct {
	*os.File
	in   folder
	done bool
}

func (t *diskTemp) keep(name string) error {
	if err := t.Sync(); err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	if err := os.Rename(t.Name(), t.in.path(name)); err != nil {
		return err
	}
	t.done = true
	return t.in.sync()
}

func (t *diskTemp) reread() (io.ReadCloser, int64, error) {
	size, err := t.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, 0, err
	}
	if _, err := t.Seek(0, io.SeekStart); err != nil {
		return nil, 0, err
	}
	return &forgetOnClose{t}, size, nil
}

func (t *diskTemp) discard() {
	if t.done {
		return
	}
	t.done = true
	_ = t.File.Close()
	_ = os.Remove(t.Name()) // sweep removes it at the next start if this fails
}

type forgetOnClose struct{ *diskTemp }

func (f *forgetOnClose) Close() error { f.discard(); return nil }
