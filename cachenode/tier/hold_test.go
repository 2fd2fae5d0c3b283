package tier_test

import (
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/fingerprint"
)

func heldMeta(file freshet.FileID) tier.Meta {
	return tier.Meta{Cluster: freshet.ClusterID{1}, Epoch: 1, Fingerprint: fingerprint.Unpersisted(uint64(file))}
}

func writeHeld(t *testing.T, ti *tier.Tier, file freshet.FileID, data []byte) error {
	t.Helper()
	w, err := ti.Create(freshet.BlockID{File: file}, int64(len(data)))
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	return w.Commit(heldMeta(file))
}

// TestHeldBlocksStay: nothing but their release lets the blocks of a version go, over
// restarts too, even if the tier has become too small for them.
func TestHeldBlocksStay(t *testing.T) {
	t.Parallel()
	dir, data := t.TempDir(), make([]byte, 100_000)
	ti, err := tier.OpenDisk(dir, tier.Options{Capacity: 400_000})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []freshet.FileID{1, 2} {
		if err := ti.Hold(file); err != nil {
			t.Fatal(err)
		}
		if err := writeHeld(t, ti, file, data); err != nil {
			t.Fatal(err)
		}
	}
	stay := func() {
		t.Helper()
		ti.Remove(freshet.BlockID{File: 1}, freshet.BlockID{File: 2})
		ti.Clear()
		for ti.Evict() {
		}
		if n := len(ti.List()); n != 2 {
			t.Fatalf("%d blocks are left of 2", n)
		}
		want := tier.Want{Cluster: freshet.ClusterID{2}, Epoch: 1, Fingerprint: fingerprint.Fingerprint{Content: "other"}, Length: 1}
		if _, err := ti.Open(freshet.BlockID{File: 1}, want); !freshet.IsKind(err, freshet.KindNotExist) {
			t.Fatalf("opened for somebody else: %v", err)
		}
	}
	stay()
	for file := freshet.FileID(3); ; file++ { // what is not held makes room, and no more
		if err := writeHeld(t, ti, file, data); err != nil {
			t.Fatal(err)
		}
		if file == 9 {
			break
		}
	}
	if err := ti.Close(); err != nil {
		t.Fatal(err)
	}
	if ti, err = tier.OpenDisk(dir, tier.Options{Capacity: 250_000}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ti.Close() }()
	stay()
	if got := ti.HeldBytes(); got < 200_000 || len(ti.Held()) != 2 {
		t.Fatalf("%d bytes of %v are held", got, ti.Held())
	}
	if err := writeHeld(t, ti, 20, data); !freshet.IsKind(err, freshet.KindExhausted) {
		t.Fatalf("a block was written into no room: %v", err)
	}
	// The storage calls the version something else by now: it is the same.
	want := tier.Want{Cluster: freshet.ClusterID{1}, Epoch: 2, Fingerprint: fingerprint.S3("e", 100_000), Length: 100_000}
	r, err := ti.Open(freshet.BlockID{File: 1}, want)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	ti.Release(1, 2, 77)
	ti.Remove(freshet.BlockID{File: 1})
	if err := writeHeld(t, ti, 20, data); err != nil {
		t.Fatal(err)
	}
	if err := writeHeld(t, ti, 21, data); err != nil || len(ti.Held()) != 0 {
		t.Fatalf("after the release: %v, %v", err, ti.Held())
	}
}
