package main

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
)

// keptSize is the length of the files of mustCache, and keptRounds how many each side
// writes, in turn.
const (
	keptSize   = 256 << 20
	keptRounds = 5
)

// mustCache measures sequential writes that stay on a cache node against what is the
// least that they need: a file on the same disk, synced, and a checksum of it.
func (b *bench) mustCache(ctx context.Context) error {
	f, _, err := b.cluster(ctx, clusterOptions{name: "must-cache", clusters: 1, coordinators: 1, tier: "disk"})
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := f.Clusters[0].Connect()
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // nothing to be done about it
	piece := make([]byte, 1<<20)
	for i := range piece {
		piece[i] = byte(crc32.ChecksumIEEE([]byte{byte(i), byte(i >> 8), byte(i >> 16)}))
	}
	var our, their side
	for i := range keptRounds {
		p := freshet.Path(fmt.Sprintf("/kept-%d", i))
		cpu, begun := cpuTime(servers(f)), time.Now()
		if _, err := s.Files.Write(ctx, p, &repeated{piece: piece, left: keptSize}, client.WriteOptions{Length: keptSize, Write: freshet.MustCache}); err != nil {
			return err
		}
		our.wall, our.cpu = append(our.wall, time.Since(begun)), append(our.cpu, cpuTime(servers(f))-cpu)
		if _, err := s.Remove(ctx, freshet.RemoveQuery{Path: p}); err != nil {
			return err
		}
		cpu, begun = cpuTime(nil), time.Now()
		name := filepath.Join(b.dir, fmt.Sprintf("plain-%d", i))
		if err := plainWrite(name, &repeated{piece: piece, left: keptSize}); err != nil {
			return err
		}
		their.wall, their.cpu = append(their.wall, time.Since(begun)), append(their.cpu, cpuTime(nil)-cpu)
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	b.addDuel(fmt.Sprintf("must_cache write of %s, sequential, against file write, checksum and sync", freshet.FormatSize(keptSize)), &our, &their,
		func(d time.Duration) string { return fmt.Sprintf("%.0f MiB/s", perSecond(keptSize>>20, d)) })
	return nil
}

// plainWrite writes a file with the checksums of its pieces and syncs it.
func plainWrite(name string, body io.Reader) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	sum := uint64(0)
	for {
		n, rerr := io.ReadFull(body, buf)
		sum ^= xxh3.Hash(buf[:n])
		if _, err := f.Write(buf[:n]); err != nil {
			_ = f.Close() // the first error counts
			return err
		}
		if rerr != nil {
			break
		}
	}
	if sum == 1 { // so that it is made
		return io.ErrUnexpectedEOF
	}
	if err := f.Sync(); err != nil {
		_ = f.Close() // as above
		return err
	}
	return f.Close()
}

// repeated is a body of one piece again and again.
type repeated struct {
	piece []byte
	left  int
	at    int
}

// Read implements io.Reader.
func (r *repeated) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.left)], r.piece[r.at:])
	r.at, r.left = (r.at+n)%len(r.piece), r.left-n
	return n, nil
}
