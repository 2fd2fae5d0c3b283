package namespace

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
)

// maker makes values that have every length of encoding.
type maker struct{ *rand.Rand }

func (m maker) text() string {
	n := []int{0, 0, 1, 5, 31, 32, 255, 256, 70_000}[m.pick(9, 40)]
	return strings.Repeat(string(rune('a'+m.IntN(26))), n)
}

// pick returns a number below n; the greatest only once in rare.
func (m maker) pick(n, rare int) int {
	if m.IntN(rare) == 0 {
		return n - 1
	}
	return m.IntN(n - 1)
}

func (m maker) uint() uint64 {
	return []uint64{0, 1, 127, 128, 255, 256, 65535, 65536, math.MaxUint32, math.MaxUint32 + 1, math.MaxUint64, m.Uint64()}[m.IntN(12)]
}

func (m maker) int() int64 {
	return []int64{0, 1, -1, -32, -33, -128, -129, 127, 128, 32767, 32768, -32768, -32769, math.MaxInt32, math.MaxInt32 + 1, math.MinInt32, math.MinInt32 - 1, math.MaxInt64, math.MinInt64, m.Int64()}[m.IntN(20)]
}

func (m maker) length() *int64 {
	if m.IntN(2) == 0 {
		return nil
	}
	n := m.int()
	return &n
}

func (m maker) time() time.Time {
	switch m.IntN(6) {
	case 0:
		return time.Time{}
	case 1:
		return time.Unix(m.Int64N(1<<32), 0).UTC()
	case 2:
		return time.Unix(-m.Int64N(1<<33), m.Int64N(1e9)).UTC()
	case 3:
		return time.Unix(1<<34+m.Int64N(1<<33), m.Int64N(1e9)).UTC()
	}
	return time.Unix(m.Int64N(1<<34), m.Int64N(1e9)).In(time.FixedZone("", 3600))
}

func (m maker) id() (id freshet.OpID) {
	for i := range id {
		id[i] = byte(m.Uint32())
	}
	return id
}

func (m maker) fingerprint() fingerprint.Fingerprint {
	return fingerprint.Fingerprint{Content: m.text(), Change: m.text(), Meta: m.text()}
}

func (m maker) sealed() *fingerprint.Fingerprint {
	if m.IntN(2) == 0 {
		return nil
	}
	f := m.fingerprint()
	return &f
}

func (m maker) begin() *Begin {
	b := &Begin{
		Op: m.id(), Kind: OpKind(m.uint()), Path: freshet.Path(m.text()), Path2: freshet.Path(m.text()), Recursive: m.IntN(2) == 0, Node: freshet.NodeID(m.text()),
		Incarn: m.uint(), Write: freshet.WriteType(m.uint()), BlockSize: m.int(), At: m.time(), Length: m.length(),
		MoveEntries: m.int() * m.Int64N(2), MoveBytes: m.int() * m.Int64N(2),
	}
	if m.IntN(4) == 0 {
		b.Owner, b.Group = m.text(), m.text()
	}
	if m.IntN(4) == 0 {
		b.Persist = freshet.FileID(m.uint())
		b.Replicas = int(m.int())
	}
	return b
}

func (m maker) command() Command {
	switch m.pick(4, 30) {
	case 0:
		return Command{Begin: m.begin()}
	case 1:
		return Command{Permit: &Permit{Op: m.id(), Node: freshet.NodeID(m.text()), Incarn: m.uint(), Length: m.length(), Sealed: m.sealed()}}
	case 2:
		c := &Complete{Op: m.id(), Uncertain: m.IntN(2) == 0, At: m.time()}
		if m.IntN(4) > 0 {
			c.Entry = &Entry{
				Name: m.text(), Type: freshet.FileType(m.uint()), Length: m.int(), ModTime: m.time(), Owner: m.text(), Group: m.text(),
				Mode: uint32(m.uint()), Fingerprint: m.fingerprint(),
			}
		}
		return Command{Complete: c}
	}
	op := m.id()
	return Command{Once: &op, Begin: m.begin()}
}

// TestPackedIsEncoded holds what is written without reflection to the bytes that the
// encoder of everything else makes of it, and what is read of them to its decoder.
func TestPackedIsEncoded(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(1, 2))}
	var enc rowEncoder
	for range 4000 {
		cmds := make([]Command, m.pick(19, 10))
		for i := range cmds {
			cmds[i] = m.command()
		}
		want, err := enc.encode(cmds)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := appendBatch(nil, cmds); ok && !bytes.Equal(got, want) {
			t.Fatalf("commands %+v\nare packed as %q\nnot as         %q", cmds, got, want)
		}
		checkUnpacked(t, want)

		in := &intent{
			Intent: Intent{Begin: *m.begin(), Started: m.uint(), State: IntentState(m.uint()), File: freshet.FileID(m.uint()), Mount: freshet.MountID(m.uint()), Generation: m.uint(), Key: m.text(), Key2: m.text(), Resolved: m.uint(), Sealed: m.sealed(), Done: m.IntN(2) == 0},
			Domain: freshet.DomainID(m.id()), Root: m.text(), Shared: m.IntN(2) == 0, NeedEntries: m.int() * m.Int64N(2), NeedBytes: m.int() * m.Int64N(2),
		}
		if want, err = enc.encode(in); err != nil {
			t.Fatal(err)
		}
		if got := packIntent(nil, in); !bytes.Equal(got, want) {
			t.Fatalf("intent %+v\nis packed as %q\nnot as       %q", in, got, want)
		}
		o := &outcome{Index: m.uint(), Completed: freshet.Completed{
			Info: freshet.Info{
				Path: freshet.Path(m.text()), Type: freshet.FileType(m.uint()), Length: m.int(), ModTime: m.time(), Owner: m.text(), Group: m.text(), Mode: uint32(m.uint()),
				Fingerprint: m.fingerprint(), FileID: freshet.FileID(m.uint()), BlockSize: m.int(), Mount: freshet.MountID(m.uint()), MountPoint: m.IntN(2) == 0, FromCache: m.IntN(2) == 0,
			},
			Token: freshet.Token{Cluster: freshet.ClusterID(m.id()), Epoch: m.uint(), Domain: freshet.DomainID(m.id()), Seq: m.uint()},
		}}
		if want, err = enc.encode(o); err != nil {
			t.Fatal(err)
		}
		if got := packOutcome(nil, o); !bytes.Equal(got, want) {
			t.Fatalf("outcome %+v\nis packed as %q\nnot as       %q", o, got, want)
		}
	}
}

// TestPackedFieldsAreAll fails when a field is added that packing does not know.
func TestPackedFieldsAreAll(t *testing.T) {
	for _, c := range []struct {
		of   any
		want int
	}{
		{Begin{}, 18},
		{Permit{}, 5},
		{Complete{}, 7}, // with Nodes, Memory or Beneath, as few have, handle writes it
		{Entry{}, 8},
		{Intent{}, 11},
		{intent{}, 6},
		{outcome{}, 2},
		{freshet.Completed{}, 2},
		{freshet.Info{}, 13},
		{freshet.Token{}, 4},
		{fingerprint.Fingerprint{}, 3},
	} {
		if typ := reflect.TypeOf(c.of); typ.NumField() != c.want {
			t.Errorf("%s has %d fields, pack.go writes %d", typ, typ.NumField(), c.want)
		}
	}
}

// checkUnpacked compares what is read without reflection, if it can be, with what is
// read by it.
func checkUnpacked(t *testing.T, b []byte) {
	t.Helper()
	got, ok := unpackBatch(b)
	if !ok {
		return
	}
	var want []Command
	if err := decode(b, &want); err != nil {
		t.Fatalf("%q is unpacked as %+v\nbut refused by the decoder: %v", b, got, err)
	}
	if len(got) != len(want) || (len(got) > 0 && !reflect.DeepEqual(got, want)) {
		t.Fatalf("%q is unpacked as\n%+v\nand decoded as\n%+v", b, got, want)
	}
}

// TestUnpackReadsWhatIsPacked fails if the quick way were never taken.
func TestUnpackReadsWhatIsPacked(t *testing.T) {
	n := int64(7)
	cmds := make([]Command, 0, 60)
	for range 20 {
		cmds = append(cmds, Command{Begin: &Begin{Path: "/a", Node: "n", BlockSize: 1 << 20, Length: &n, At: time.Unix(1, 2)}},
			Command{Permit: &Permit{Node: "n", Length: &n}}, Command{Complete: &Complete{Entry: &Entry{Name: "a", Length: 1 << 40}}})
	}
	b, ok := appendBatch(nil, cmds)
	if got, read := unpackBatch(b); !ok || !read || len(got) != len(cmds) {
		t.Errorf("packed %t, unpacked %t, %d commands", ok, read, len(got))
	}
	checkUnpacked(t, b)
}

func FuzzUnpackBatch(f *testing.F) {
	m := maker{rand.New(rand.NewPCG(3, 4))}
	for range 20 {
		if b, ok := appendBatch(nil, []Command{m.command(), m.command()}); ok && len(b) < 2000 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkUnpacked(t, b) })
}
