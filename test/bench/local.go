package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/rpc/local"
)

// Sizes of local reads, in bytes.
const (
	localFile   = 256 << 20
	localBuffer = 512 << 10
	smallRead   = 4 << 10
)

// locals measures reads over the Unix socket against bare reads of the same bytes.
func (b *bench) locals(ctx context.Context) error {
	for _, tier := range []string{"disk", "memory"} {
		if err := b.local(ctx, tier); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) local(ctx context.Context, tier string) error {
	f, storage, err := b.cluster(ctx, clusterOptions{name: "local-" + tier, clusters: 1, coordinators: 1, tier: tier, sockets: true})
	if err != nil {
		return err
	}
	defer f.Close()
	name := filepath.Join(storage, "big")
	if err := writeRandom(name, localFile); err != nil {
		return err
	}
	s, err := f.Clusters[0].Connect()
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // nothing to be done about it
	if err := readWhole(ctx, s, "/big", localFile); err != nil {
		return err
	}
	if err := s.AwaitCached(ctx, "/big", localFile, time.Minute); err != nil {
		return err
	}
	plain, err := plainFile(name, tier)
	if err != nil {
		return err
	}
	defer func() { _ = plain.Close() }() // read only
	return errors.Join(b.localSequential(ctx, f, s, plain, tier), b.localRandom(ctx, f, s, plain, tier))
}

// plainFile opens the file, or a copy of it in memory: what the tier is made of.
func plainFile(name, tier string) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil || tier != "memory" {
		return f, err
	}
	defer func() { _ = f.Close() }() // read only
	fd, err := unix.MemfdCreate("plain", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	m := os.NewFile(uintptr(fd), "plain")
	if _, err := io.Copy(m, f); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func writeRandom(name string, n int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.Reader, n)
	return errors.Join(err, f.Close())
}

// localSequential reads the file from end to end in turns with a bare pread of plain,
// and with a client that has read nothing before.
func (b *bench) localSequential(ctx context.Context, f *fleet.Fleet, s *fleet.Session, plain *os.File, tier string) error {
	buf := make([]byte, localBuffer)
	bare := func(context.Context) error {
		for off := int64(0); off < localFile; off += localBuffer {
			if _, err := unix.Pread(int(plain.Fd()), buf, off); err != nil {
				return err
			}
		}
		return nil
	}
	hot := func(ctx context.Context) error { return readWhole(ctx, s, "/big", localFile) }
	first := func(ctx context.Context) error {
		fresh, err := f.Clusters[0].Connect()
		if err != nil {
			return err
		}
		err = readWhole(ctx, fresh, "/big", localFile)
		if err == nil && fresh.Local.Stats().Local == 0 {
			err = errors.New("nothing was read by a descriptor")
		}
		return errors.Join(err, fresh.Close())
	}
	for _, m := range []struct {
		name, note string
		do         func(context.Context) error
	}{{"hot", "", hot}, {"first", " (each chunk is verified, and the client connects)", first}} {
		ours, theirs, err := b.duel(ctx, m.name+"-local-"+tier, b.turnLength(), m.do, bare)
		if err != nil {
			return err
		}
		b.addDuel(fmt.Sprintf("%s sequential local read of 256 MiB, %s tier%s", m.name, tier, m.note), ours, theirs, func(d time.Duration) string {
			return fmt.Sprintf("%.2f GB/s", localFile/d.Seconds()/1e9)
		})
	}
	return nil
}

// localRandom reads 4 KiB at any place of an open file.
func (b *bench) localRandom(ctx context.Context, f *fleet.Fleet, s *fleet.Session, plain *os.File, tier string) error {
	file, err := s.Files.OpenFile(ctx, "/big", client.ReadOptions{})
	if err != nil {
		return err
	}
	f.Clusters[0].Local = local.Options{Off: true}
	far, err := f.Clusters[0].Connect()
	f.Clusters[0].Local = local.Options{}
	if err != nil {
		return err
	}
	defer func() { _ = far.Close() }() // nothing to be done about it
	slow, err := far.Files.OpenFile(ctx, "/big", client.ReadOptions{})
	if err != nil {
		return err
	}
	for _, m := range []struct {
		what    string
		file    *client.File
		callers int
	}{{"local read", file, 1}, {"local read", file, 4}, {"read over gRPC", slow, 4}} {
		bufs := make([][smallRead]byte, m.callers)
		_, bare, err := b.measure(ctx, nil, m.callers, func(_ context.Context, caller int, _ int64) error {
			_, err := unix.Pread(int(plain.Fd()), bufs[caller][:], mrand.Int64N(localFile/smallRead)*smallRead) //nolint:gosec // any place will do
			return err
		})
		if err != nil {
			return err
		}
		wall, cpu, err := b.measure(ctx, servers(f), m.callers, func(_ context.Context, caller int, _ int64) error {
			_, err := m.file.ReadAt(bufs[caller][:], mrand.Int64N(localFile/smallRead)*smallRead) //nolint:gosec // any place will do
			return err
		})
		if err != nil {
			return err
		}
		b.add(fmt.Sprintf("4 KiB random %s, %s tier, %d caller(s)", m.what, tier, m.callers), rate(wall), rate(cpu), fmt.Sprintf("bare pread %s per CPU-second: %.2f of it", rate(bare), cpu/bare))
	}
	return nil
}
