package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// states is a member whose state is a run of bytes.
type states struct {
	data    []byte // what it is
	lost    error  // after half of it
	follows error
	got     []byte
	opts    freshet.RestoreOptions
}

func (s *states) StateHash(_ context.Context, index uint64) (freshet.StateHash, error) {
	return freshet.StateHash{Member: "c1", Applied: index + 1, Hash: [32]byte{1, 2}, Format: 7}, nil
}

func (s *states) SaveSnapshot(_ context.Context, stale bool, w io.Writer) error {
	if s.follows != nil && !stale {
		return s.follows
	}
	if s.lost != nil {
		_, err := w.Write(s.data[:len(s.data)/2])
		return errors.Join(err, s.lost)
	}
	_, err := w.Write(s.data)
	return err
}

func (s *states) RestoreSnapshot(_ context.Context, r io.Reader, opts freshet.RestoreOptions) (freshet.Restored, error) {
	if s.follows != nil {
		return freshet.Restored{}, s.follows
	}
	if s.lost != nil {
		return freshet.Restored{}, s.lost
	}
	var err error
	s.got, err = io.ReadAll(r)
	s.opts = opts
	return freshet.Restored{ClusterName: "eu", Index: 3, OldEpoch: 4, Entries: 5, Mounts: 6, ReplacedIndex: 7, ReplacedEntries: 8, Epoch: 9}, err
}

// serveStates serves s on a port of its own.
func serveStates(t *testing.T, s rpc.States, leader rpc.LeaderFinder, opts rpc.ServerOptions, between rpc.DialOptions) string {
	t.Helper()
	conns := rpc.NewConns(between)
	srv := rpc.NewServer(opts)
	freshetv1.RegisterStateServiceServer(srv.Registrar(), rpc.NewStateServer(s, rpc.NewForwarder(leader, conns)))
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, conns.Close()); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func dialStates(t *testing.T, addr string, opts rpc.DialOptions) freshetv1.StateServiceClient {
	t.Helper()
	conn, err := rpc.Dial([]string{addr}, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return freshetv1.NewStateServiceClient(conn)
}

func saved(t *testing.T, c freshetv1.StateServiceClient, stale bool) ([]byte, error) {
	t.Helper()
	stream, err := c.SaveSnapshot(t.Context(), &freshetv1.SaveSnapshotRequest{Stale: stale})
	if err != nil {
		return nil, rpc.ErrorOf(err)
	}
	var b []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return b, rpc.ErrorOf(err)
		}
		b = append(b, m.GetData()...)
	}
}

func restored(t *testing.T, c freshetv1.StateServiceClient, data []byte) (*freshetv1.RestoreSnapshotResponse, error) {
	t.Helper()
	stream, err := c.RestoreSnapshot(t.Context())
	if err != nil {
		return nil, rpc.ErrorOf(err)
	}
	for part := range bytes.SplitSeq(data, []byte{0}) {
		if stream.Send(&freshetv1.RestoreSnapshotRequest{Data: part, Force: true}) != nil {
			break
		}
	}
	r, err := stream.CloseAndRecv()
	return r, rpc.ErrorOf(err)
}

func TestSnapshotsTravelThroughAnyMember(t *testing.T) {
	t.Parallel()
	notMe := freshet.Errorf(freshet.KindNotLeader, "test", "", "not me")
	leader, follower := &states{data: bytes.Repeat([]byte("leader"), 200_000)}, &states{data: []byte("older"), follows: notMe}
	l := serveStates(t, leader, leaderAt(""), rpc.ServerOptions{}, rpc.DialOptions{})
	f := serveStates(t, follower, leaderAt(l), rpc.ServerOptions{}, rpc.DialOptions{})
	for _, addr := range []string{l, f} {
		c := dialStates(t, addr, rpc.DialOptions{})
		if b, err := saved(t, c, false); err != nil || !bytes.Equal(b, leader.data) {
			t.Errorf("%d of %d bytes, %v", len(b), len(leader.data), err)
		}
		leader.got = nil
		r, err := restored(t, c, []byte("one\x00two\x00\x00three"))
		if err != nil || string(leader.got) != "onetwothree" || !leader.opts.Force || leader.opts.DryRun {
			t.Errorf("%q with %+v, %v", leader.got, leader.opts, err)
		}
		if r.GetCluster() != "eu" || r.GetSnapshotIndex() != 3 || r.GetSnapshotEpoch() != 4 || r.GetEntries() != 5 || r.GetMounts() != 6 ||
			r.GetReplacedIndex() != 7 || r.GetReplacedEntries() != 8 || r.GetEpoch() != 9 {
			t.Errorf("%v", r)
		}
		h, err := c.GetStateHash(t.Context(), &freshetv1.GetStateHashRequest{Index: 41})
		if err != nil || h.GetMember() != "c1" || h.GetAppliedIndex() != 42 || h.GetHash()[:6] != "010200" || h.GetFormat() != 7 {
			t.Errorf("%v, %v", h, err)
		}
	}
	if b, err := saved(t, dialStates(t, f, rpc.DialOptions{}), true); err != nil || string(b) != "older" {
		t.Errorf("%q, %v", b, err)
	}
	// What breaks in the middle must not pass for the end.
	leader.lost = freshet.Errorf(freshet.KindCorrupt, "test", "", "the disk is gone")
	for _, addr := range []string{l, f} {
		c := dialStates(t, addr, rpc.DialOptions{})
		if _, err := saved(t, c, false); !freshet.IsKind(err, freshet.KindCorrupt) {
			t.Errorf("half a snapshot: %v", err)
		}
		if _, err := restored(t, c, bytes.Repeat([]byte("x\x00"), 1000)); !freshet.IsKind(err, freshet.KindCorrupt) {
			t.Errorf("a refused snapshot: %v", err)
		}
	}
}

func TestSnapshotsNeedACertificate(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	id := load(t, a.files(t, "server", "127.0.0.1"))
	caOnly, err := rpc.ClientTLS(filepath.Join(a.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	s := &states{data: []byte("secret")}
	addr := serveStates(t, s, leaderAt(""), rpc.ServerOptions{TLS: id.Server()}, rpc.DialOptions{TLS: id.Client()})
	if b, err := saved(t, dialStates(t, addr, rpc.DialOptions{TLS: id.Client()}), false); err != nil || string(b) != "secret" {
		t.Errorf("with one: %q, %v", b, err)
	}
	c := dialStates(t, addr, rpc.DialOptions{TLS: caOnly, NoRetry: true})
	if b, err := saved(t, c, false); !freshet.IsKind(err, freshet.KindPermission) || len(b) != 0 {
		t.Errorf("save: %q, %v", b, err)
	}
	if _, err := restored(t, c, []byte("x")); !freshet.IsKind(err, freshet.KindPermission) || s.got != nil {
		t.Errorf("restore: %v", err)
	}
	if _, err := c.GetStateHash(t.Context(), &freshetv1.GetStateHashRequest{}); !freshet.IsKind(rpc.ErrorOf(err), freshet.KindPermission) {
		t.Errorf("hash: %v", err)
	}
}
