package namespace

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
)

// Format is the version of what this release stores: the rows of the state, dumps,
// and the entries of the log. Older formats are read, and a store of an older one
// is brought up to it by Open; a newer one is refused, for what an older release
// does not know it would drop silently.
//
//	1  no version in the store
//	2  the version beside the generation; fields that a release does not know are refused
const Format = 2

// formats is what a state knows of the formats. It is a value so that tests can
// have a history of their own.
type formats struct {
	current byte
	steps   []migration
}

// migration turns rows of the format before to into rows of to.
type migration struct {
	to byte
	// step changes some rows in b, beginning at key from, nil for the first, and
	// returns where to go on, nil at the end. What it does to one row must not
	// depend on rows that an earlier step has changed, other than through b, and
	// it must bound what it does: each step is one batch, and a process that ends
	// between two goes on with the second.
	step func(b kv.Batch, k keys, from []byte) (next []byte, err error)
}

func ownFormats() formats {
	return formats{current: Format, steps: []migration{
		// Rows of format 1 are rows of format 2.
		{to: 2, step: func(kv.Batch, keys, []byte) ([]byte, error) { return nil, nil }},
	}}
}

// layout is the row of the switch: which generation of the data counts, and its
// format. Format 1 has the generation alone, which makes a release that knows no
// formats refuse the newer ones.
type layout struct{ gen, format byte }

func (l layout) row() []byte { return []byte{l.gen, l.format} }

// keyProgress holds how far a migration has come: the format that it leads to and
// the key at which its next step begins.
var keyProgress = []byte{keySwitch, 'm'}

// readLayout returns format 0 for a store without a state.
func readLayout(r kv.Reader) (layout, error) {
	b, ok, err := r.Get([]byte{keySwitch})
	switch {
	case err != nil:
		return layout{}, err
	case !ok:
		_, founded, err := r.Get(keys{gen: 1}.table(tableMeta))
		if err != nil || !founded {
			return layout{gen: 1}, err
		}
		return layout{gen: 1, format: 1}, nil
	case len(b) == 1 && b[0] != keySwitch:
		return layout{gen: b[0], format: 1}, nil
	case len(b) == 2 && b[0] != keySwitch && b[1] > 1:
		return layout{gen: b[0], format: b[1]}, nil
	}
	return layout{}, fmt.Errorf("%w: generation", errTable)
}

// errNewer is of what a newer release has written.
var errNewer = errors.New("written by a newer version of Freshet")

func (f formats) check(format int) error {
	if format > int(f.current) {
		return fmt.Errorf("%w: it has format %d, this version reads formats 1 to %d; run the version that wrote it, or a later one", errNewer, format, f.current)
	}
	return nil
}

// upgrade brings the store to the current format in place. A process that ends in
// the middle goes on at the next start: each step is one batch with the place of
// the next.
func (s *State) upgrade(l layout) error {
	if l.format == 0 {
		return s.commit(func(b kv.Batch) error { return b.Set([]byte{keySwitch}, layout{l.gen, s.formats.current}.row()) })
	}
	k := keys{gen: l.gen}
	for _, m := range s.formats.steps {
		if m.to <= l.format {
			continue
		}
		from, err := s.progress(m.to)
		if err != nil {
			return err
		}
		for more := true; more; {
			err := s.commit(func(b kv.Batch) error {
				next, err := m.step(b, k, from)
				if from, more = next, next != nil; err != nil {
					return err
				}
				if more {
					return b.Set(keyProgress, append([]byte{m.to}, next...))
				}
				return errors.Join(b.Delete(keyProgress), b.Set([]byte{keySwitch}, layout{l.gen, m.to}.row()))
			})
			if err != nil {
				return fmt.Errorf("upgrading to format %d: %w", m.to, err)
			}
		}
		if err := s.store.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// progress returns where the migration to a format goes on, nil at its beginning.
func (s *State) progress(to byte) ([]byte, error) {
	b, ok, err := s.store.Get(keyProgress)
	if err != nil || !ok || len(b) == 0 || b[0] != to {
		return nil, err
	}
	return b[1:], nil
}

// upgradeStaged brings rows that a restore has staged to the current format. They
// count for nothing yet: a process that ends in the middle begins again.
func (s *State) upgradeStaged(k keys, format byte) error {
	for _, m := range s.formats.steps {
		if m.to <= format {
			continue
		}
		var from []byte
		for more := true; more; {
			err := s.commit(func(b kv.Batch) (err error) {
				from, err = m.step(b, k, from)
				more = from != nil
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// commit makes one batch of what change does.
func (s *State) commit(change func(b kv.Batch) error) error {
	b := s.store.NewBatch()
	defer b.Close()
	if err := change(b); err != nil {
		return err
	}
	return b.Commit()
}

// A dump begins with a line that says its format.
const (
	dumpMagic    = "freshet-state-"
	maxDumpMagic = len(dumpMagic) + 4
)

func dumpHead(format byte) string { return dumpMagic + strconv.Itoa(int(format)) + "\n" }

// parseDumpHead reads the line, the end of line included.
func parseDumpHead(line []byte) (format int, ok bool) {
	number, ok := bytes.CutPrefix(line, []byte(dumpMagic))
	if !ok || len(line) > maxDumpMagic || len(number) < 2 || number[len(number)-1] != '\n' || number[0] == '0' {
		return 0, false
	}
	format, err := strconv.Atoi(string(number[:len(number)-1]))
	return format, err == nil && format > 0
}

// formatKind is the kind of an error of data that can't be used.
func formatKind(err error, other freshet.Kind) freshet.Kind {
	if errors.Is(err, errNewer) {
		return freshet.KindUnsupported
	}
	return other
}
