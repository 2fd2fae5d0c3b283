package namespace

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
)

// A dump is a line with its format and frames: length, CRC-32C, payload. The payload of
// a frame is a run of rows, key and value with their lengths, in key order
// without the generation. The last frame has length 0 and carries the number of
// rows and the SHA-256 of all rows.
const (
	frameTarget = 256 << 10
	maxFrame    = 64 << 20
)

var errDump = errors.New("malformed dump of the state")

// rowHash is the hash over rows that Hash returns and a dump ends with.
type rowHash struct {
	h    hash.Hash
	rows uint64
}

func newRowHash() rowHash { return rowHash{h: sha256.New()} }

func (r *rowHash) add(b []byte) { r.h.Write(b); r.rows++ }

func appendRow(b, key, value []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = append(b, key...)
	b = binary.AppendUvarint(b, uint64(len(value)))
	return append(b, value...)
}

// view returns the state as it is now, for reading without holding up Apply.
func (s *State) view() (kv.View, keys, uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.failed != nil {
		return nil, keys{}, 0, s.failed
	}
	v, err := s.store.View()
	return v, s.keys, s.meta.Applied, err
}

// rows calls fn with each row of the generation, the key without it.
func rows(r kv.Reader, k keys, fn func(key, value []byte) bool) error {
	return r.Scan([]byte{k.gen}, []byte{k.gen + 1}, func(key, value []byte) bool { return fn(key[1:], value) })
}

// Hash returns a hash of the whole state. Members that applied the same entries
// have the same. It reads everything.
func (s *State) Hash() ([32]byte, error) {
	v, k, _, err := s.view()
	if err != nil {
		return [32]byte{}, freshet.Wrap("hash state", "", err)
	}
	defer v.Close()
	h, err := hashRows(v, k)
	return h, freshet.Wrap("hash state", "", err)
}

// Dump writes the whole state, as of the index it returns, without holding up
// Apply.
func (s *State) Dump(w io.Writer) (applied uint64, err error) {
	v, k, applied, err := s.view()
	if err != nil {
		return 0, freshet.Wrap("dump state", "", err)
	}
	defer v.Close()
	if err := dump(w, v, k, s.formats.current); err != nil {
		return 0, freshet.Errorf(freshet.KindUnavailable, "dump state", "", "%w", err)
	}
	return applied, nil
}

func dump(w io.Writer, r kv.Reader, k keys, format byte) error {
	if _, err := io.WriteString(w, dumpHead(format)); err != nil {
		return err
	}
	sum := newRowHash()
	var frame []byte
	var failed error
	err := rows(r, k, func(key, value []byte) bool {
		from := len(frame)
		frame = appendRow(frame, key, value)
		sum.add(frame[from:])
		if len(frame) >= frameTarget {
			failed = writeFrame(w, uint32(len(frame)), frame)
			frame = frame[:0]
		}
		return failed == nil
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	if len(frame) > 0 {
		if err := writeFrame(w, uint32(len(frame)), frame); err != nil {
			return err
		}
	}
	end := binary.BigEndian.AppendUint64(nil, sum.rows)
	return writeFrame(w, 0, sum.h.Sum(end))
}

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func writeFrame(w io.Writer, length uint32, payload []byte) error {
	head := binary.BigEndian.AppendUint32(nil, length)
	head = binary.BigEndian.AppendUint32(head, castagnoli(payload))
	if _, err := w.Write(head); err != nil {
		return err
	}
	_, err := w.Write(payload)
	return err
}

// readDump calls begin with the format and fn with each row; when it returns nil
// the dump was whole.
func readDump(r io.Reader, begin func(format int) error, fn func(key, value []byte) error) error {
	br := bufio.NewReaderSize(r, 1<<16)
	line, err := br.ReadSlice('\n')
	format, ok := parseDumpHead(line)
	if err != nil || !ok {
		return fmt.Errorf("%w: it does not begin as one", errDump)
	}
	if err := begin(format); err != nil {
		return err
	}
	sum := newRowHash()
	for {
		payload, last, err := readFrame(br)
		if err != nil {
			return err
		}
		if last {
			want := sum.h.Sum(binary.BigEndian.AppendUint64(nil, sum.rows))
			if !bytes.Equal(payload, want) {
				return fmt.Errorf("%w: its sum does not fit", errDump)
			}
			if _, err := br.ReadByte(); !errors.Is(err, io.EOF) {
				return fmt.Errorf("%w: something follows its end", errDump)
			}
			return nil
		}
		if err := readRows(payload, &sum, fn); err != nil {
			return err
		}
	}
}

func readFrame(r io.Reader) (payload []byte, last bool, err error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, false, fmt.Errorf("%w: truncated", errDump)
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if last = n == 0; last {
		n = 8 + sha256.Size
	}
	if n > maxFrame {
		return nil, false, fmt.Errorf("%w: a frame of %d bytes", errDump, n)
	}
	var buf bytes.Buffer // grows with what is there, whatever the length says
	if m, err := io.CopyN(&buf, r, n); err != nil || m != n {
		return nil, false, fmt.Errorf("%w: truncated", errDump)
	}
	if castagnoli(buf.Bytes()) != binary.BigEndian.Uint32(head[4:]) {
		return nil, false, fmt.Errorf("%w: a checksum does not fit", errDump)
	}
	return buf.Bytes(), last, nil
}

func readRows(payload []byte, sum *rowHash, fn func(key, value []byte) error) error {
	d := reader{rest: payload}
	for len(d.rest) > 0 {
		from := d.rest
		key := d.bytes(d.uvarint())
		value := d.bytes(d.uvarint())
		if d.bad || len(key) == 0 {
			return fmt.Errorf("%w: a row", errDump)
		}
		sum.add(from[:len(from)-len(d.rest)])
		if err := fn(key, value); err != nil {
			return err
		}
	}
	return nil
}

// restoreBatch is how many bytes of rows go into one batch of a restore.
const restoreBatch = 4 << 20

// Restore replaces the state by a dump. The dump is read, checked and written
// beside the current state, which is replaced in one batch at the end: what is
// malformed is KindCorrupt, what a newer release wrote is KindUnsupported, and
// neither changes anything. A dump of an older format is brought up to this one. The new state is durable when
// Restore returns.
func (s *State) Restore(r io.Reader) error {
	next := keys{gen: s.keys.gen%250 + 1}
	if err := s.stage(r, next); err != nil {
		kind := freshet.KindUnavailable
		if errors.Is(err, errDump) {
			kind = freshet.KindCorrupt
		}
		err = errors.Join(err, s.clean(next))
		return freshet.Errorf(formatKind(err, kind), "restore state", "", "%w", err)
	}
	x, err := readIndex(s.store, next)
	if err != nil {
		err = errors.Join(err, s.clean(next))
		return freshet.Errorf(formatKind(err, freshet.KindCorrupt), "restore state", "", "%w", err)
	}
	if err := s.adoptGeneration(next, x); err != nil {
		return freshet.Errorf(freshet.KindUnavailable, "restore state", "", "%w", err)
	}
	return nil
}

func (s *State) adoptGeneration(next keys, x index) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.store.NewBatch()
	defer b.Close()
	if err := errors.Join(b.Set([]byte{keySwitch}, layout{next.gen, s.formats.current}.row()), b.DeleteRange([]byte{s.keys.gen}, []byte{s.keys.gen + 1})); err != nil {
		return err
	}
	if err := b.Commit(); err != nil {
		return err
	}
	s.keys, s.index, s.failed = next, x, nil
	s.cache.clear()
	s.freezeBelow(s.meta.Applied + 1)
	return s.store.Flush()
}

func (s *State) clean(k keys) error {
	b := s.store.NewBatch()
	defer b.Close()
	if err := b.DeleteRange([]byte{k.gen}, []byte{k.gen + 1}); err != nil {
		return err
	}
	return b.Commit()
}

// cleanOthers removes what a restore that did not end has left.
func (s *State) cleanOthers() error {
	others := map[byte]bool{}
	for from := byte(1); ; {
		found := byte(0)
		err := s.store.Scan([]byte{from}, nil, func(key, _ []byte) bool {
			found = key[0]
			return false
		})
		if err != nil {
			return err
		}
		if found == 0 || found == 255 {
			break
		}
		if found != s.keys.gen {
			others[found] = true
		}
		from = found + 1
	}
	for gen := range others {
		if err := s.clean(keys{gen: gen}); err != nil {
			return err
		}
	}
	return nil
}

func (s *State) stage(r io.Reader, k keys) error {
	if err := s.clean(k); err != nil {
		return err
	}
	b := s.store.NewBatch()
	defer func() { b.Close() }()
	size := 0
	var full []byte
	format := 0
	begin := func(f int) error {
		format = f
		return s.formats.check(f)
	}
	err := readDump(r, begin, func(key, value []byte) error {
		full = append(append(full[:0], k.gen), key...)
		if size += len(full) + len(value); size > restoreBatch {
			size = 0
			if err := b.Commit(); err != nil {
				return err
			}
			b = s.store.NewBatch()
		}
		return b.Set(full, value)
	})
	if err != nil {
		return err
	}
	if err := b.Commit(); err != nil {
		return err
	}
	return s.upgradeStaged(k, byte(format))
}

// Stats are figures of the state, for its operator.
type Stats struct {
	Entries      uint64 // files and directories held, those in the trash included
	Trash        int    // detached directories that wait for Purge
	Intents      int
	Quarantine   int // intents whose effect may still land
	CacheEntries int64
	CacheBytes   int64 // that the cache takes
	CacheHits    int64 // names that were known without asking the store
	CacheMisses  int64
	Store        kv.Metrics
}

// Stats returns figures of the state.
func (s *State) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := Stats{
		Entries: s.meta.Entries, Trash: s.trash, Intents: len(s.intents), Quarantine: len(s.zombies),
		Store: s.store.Metrics(),
	}
	c := s.cache.stats()
	st.CacheEntries, st.CacheBytes, st.CacheHits, st.CacheMisses = c.entries, c.bytes, c.hits, c.misses
	return st
}
