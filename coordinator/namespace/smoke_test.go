package namespace_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/fingerprint"
)

func TestWriteThenList(t *testing.T) {
	s, err := namespace.Open(kv.NewMemory(), namespace.Options{})
	if err != nil {
		t.Fatal(err)
	}
	i := uint64(0)
	do := func(c namespace.Command) namespace.Result {
		t.Helper()
		b, err := namespace.EncodeBatch([]namespace.Command{c})
		if err != nil {
			t.Fatal(err)
		}
		cmds, err := namespace.DecodeBatch(b)
		if err != nil {
			t.Fatal(err)
		}
		i++
		res, _ := s.Apply(i, cmds)
		if res[0].Err != nil {
			t.Fatal(res[0].Err)
		}
		return res[0]
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	do(namespace.Command{Bootstrap: &namespace.Bootstrap{Cluster: uuid.UUID{1}, Name: "a", Epoch: 1, Mounts: []freshet.Mount{{Path: "/m", URI: "s3://b", Domain: freshet.DomainID{7}, DomainKey: "/", Interval: freshet.Never, CreatedAt: at, Options: map[string]string{"b": "1", "a": "2"}}}}})
	r := do(namespace.Command{LoadListing: &namespace.LoadListing{Mount: 1, Generation: 1, Dir: "/m", Start: i, ListStart: i, Complete: true, Upserts: []namespace.Entry{{Name: "x", Length: 3, ModTime: at, Fingerprint: fingerprint.S3("0123456789abcdef0123456789abcdef", 3)}}}})
	if !r.Installed {
		t.Fatalf("listing was not installed: %+v", r)
	}
	op := freshet.OpID{9}
	r = do(namespace.Command{Begin: &namespace.Begin{Op: op, Kind: namespace.OpWrite, Path: "/m/y"}})
	r = do(namespace.Command{Complete: &namespace.Complete{Op: op, Entry: &namespace.Entry{Name: "y", Length: 5, ModTime: at, Fingerprint: fingerprint.S3("1123456789abcdef0123456789abcdef", 5)}, At: at}})
	if !r.Installed || r.Completed.Token.Seq != 1 {
		t.Fatalf("%+v", r)
	}
	l, err := s.Lookup("/m")
	if err != nil || !l.Listing.Complete || !l.Listing.Servable(0) {
		t.Fatalf("%+v %v", l, err)
	}
	cs, err := s.List("/m", "", 0)
	if err != nil || len(cs) != 2 || cs[1].Name != "y" || !cs[1].Servable(0) || !cs[1].Info.ModTime.Equal(at) {
		t.Fatalf("%+v %v", cs, err)
	}
	info, src, ok, err := s.FileInfo(cs[1].Info.FileID)
	if err != nil || !ok || info.Path != "/m/y" || src.Key != "y" {
		t.Fatalf("%+v %+v %v %v", info, src, ok, err)
	}
	t.Logf("%+v", l)
}
