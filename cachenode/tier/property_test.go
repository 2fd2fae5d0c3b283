package tier_test

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
)

// TestCapacityIsNeverExceeded does random things and looks after each of them
// whether the tier, and its directory, are within the capacity, and whether
// whatever is read is right.
func TestCapacityIsNeverExceeded(t *testing.T) {
	t.Parallel()
	for _, kind := range []tier.Kind{tier.Memory, tier.Disk} {
		for _, policy := range tier.Policies() {
			t.Run(string(kind)+" "+policy, func(t *testing.T) {
				t.Parallel()
				rapid.Check(t, func(rt *rapid.T) { testCapacity(t, rt, kind, policy) })
			})
		}
	}
}

type machine struct {
	tr      *tier.Tier
	writers map[freshet.BlockID]*tier.Writer
	readers map[*tier.Reader]freshet.BlockID
	steps   int
}

func testCapacity(t *testing.T, rt *rapid.T, kind tier.Kind, policy string) {
	t.Helper()
	const capacity = 300_000
	dir := t.TempDir()
	opts := tier.Options{Capacity: capacity, Policy: policy}
	tr, err := tier.NewMemory(opts)
	if kind == tier.Disk {
		tr, err = tier.OpenDisk(dir, opts)
	}
	check(t, err)
	m := &machine{
		tr:      tr,
		writers: map[freshet.BlockID]*tier.Writer{}, readers: map[*tier.Reader]freshet.BlockID{},
	}
	rt.Repeat(map[string]func(*rapid.T){
		"write":  m.write,
		"begin":  m.begin,
		"end":    m.end,
		"open":   m.open,
		"read":   m.read,
		"remove": func(rt *rapid.T) { m.tr.Remove(drawID(rt)) },
		"": func(rt *rapid.T) {
			if used := tr.Used(); used < 0 || used > capacity {
				rt.Fatalf("%d bytes of %d are taken", used, capacity)
			}
			m.steps++
			if kind == tier.Disk && len(m.readers) == 0 && m.steps%16 == 0 { // a walk costs more than all the rest
				if used := diskUsage(t, dir); used > tr.Used() {
					rt.Fatalf("%d bytes on the disk, %d accounted", used, tr.Used())
				}
			}
		},
	})
	for id := range m.writers {
		m.writers[id].Close()
	}
	for r := range m.readers {
		_ = r.Close()
	}
	tr.Clear()
	if tr.Used() != 0 {
		rt.Fatalf("%d bytes leaked", tr.Used())
	}
	check(t, tr.Close())
}

func drawID(rt *rapid.T) freshet.BlockID { return block(rapid.IntRange(1, 12).Draw(rt, "file"), 0) }

// lengthOf is the same for all writers of a block, as it is in a cluster.
func (m *machine) lengthOf(id freshet.BlockID) int { return int(id.File) * 9001 }

func (m *machine) write(rt *rapid.T) {
	id := drawID(rt)
	err := tryPut(m.tr, id, m.lengthOf(id))
	if err != nil && !freshet.IsKind(err, freshet.KindExist, freshet.KindExhausted) {
		rt.Fatal(err)
	}
}

func (m *machine) begin(rt *rapid.T) {
	id := drawID(rt)
	if m.writers[id] != nil {
		return
	}
	if w, err := m.tr.Create(id, -1); err == nil {
		m.writers[id] = w
		_, _ = w.Write(content(id, m.lengthOf(id))[:rapid.IntRange(0, m.lengthOf(id)).Draw(rt, "n")])
	}
}

func (m *machine) end(rt *rapid.T) {
	id := drawID(rt)
	w := m.writers[id]
	if w == nil {
		return
	}
	if rapid.Bool().Draw(rt, "commit") {
		if _, err := w.Write(content(id, m.lengthOf(id))[w.Written():]); err == nil {
			if err := w.Commit(meta(1)); err != nil && !freshet.IsKind(err, freshet.KindExist) {
				rt.Fatal(err)
			}
		}
	}
	w.Close()
	delete(m.writers, id)
}

func (m *machine) open(rt *rapid.T) {
	id := drawID(rt)
	r, err := m.tr.Open(id, want(1, m.lengthOf(id)))
	if err == nil {
		m.readers[r] = id
	} else if !freshet.IsKind(err, freshet.KindNotExist) {
		rt.Fatal(err)
	}
}

func (m *machine) read(rt *rapid.T) {
	for r, id := range m.readers {
		var b bytes.Buffer
		if _, err := r.CopyTo(&b, 0, r.Length()); err != nil || !bytes.Equal(b.Bytes(), content(id, m.lengthOf(id))) {
			rt.Fatalf("block %v: %v", id, err)
		}
		_ = r.Close()
		delete(m.readers, r)
		return
	}
}
