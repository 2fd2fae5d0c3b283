package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/rpc/local"
)

// keptSize is the length of the files of mustCache, in bytes.
const keptSize = 256 << 20

// mustCache measures sequential writes that stay on a cache node against what is the
// least that they need: a file on the same disk, synced, and a checksum of it.
func (b *bench) mustCache(ctx context.Context) error {
	f, _, err := b.cluster(ctx, clusterOptions{name: "must-cache", clusters: 1, coordinators: 1, tier: "disk", sockets: true})
	if err != nil {
		return err
	}
	defer f.Close()
	piece := make([]byte, 1<<20)
	for i := range piece {
		piece[i] = byte(crc32.ChecksumIEEE([]byte{byte(i), byte(i >> 8), byte(i >> 16)}))
	}
	for _, by := range routes() {
		if err := b.mustCacheBy(ctx, f, by, piece); err != nil {
			return fmt.Errorf("%s: %w", by.name, err)
		}
	}
	return nil
}

// route is how bytes get to a node on the same host.
type route struct {
	name string
	opts local.Options
}

func routes() []route {
	return []route{{name: "gRPC", opts: local.Options{Off: true}}, {name: "the Unix socket"}}
}

// connect makes a session that goes this way.
func (w route) connect(f *fleet.Fleet) (*fleet.Session, error) {
	f.Clusters[0].Local = w.opts
	return f.Clusters[0].Connect()
}

// check fails if writes went another way.
func (w route) check(s *fleet.Session) error {
	if n := s.Local.Stats().Writes; (n == 0) != w.opts.Off {
		return fmt.Errorf("%d writes went over the Unix socket", n)
	}
	return nil
}

func (b *bench) mustCacheBy(ctx context.Context, f *fleet.Fleet, by route, piece []byte) error {
	s, err := by.connect(f)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // nothing to be done about it
	last, name := freshet.Path(""), filepath.Join(b.dir, "plain")
	n := 0
	our := &side{others: servers(f), at: f.Clusters[0].NodeHTTP[0], do: func(ctx context.Context) error {
		if last != "" { // else the tier is full of what is in no storage
			if _, err := s.Remove(ctx, freshet.RemoveQuery{Path: last}); err != nil {
				return err
			}
		}
		n++
		last = freshet.Path(fmt.Sprintf("/kept-%s-%d", by.name[:1], n))
		_, err := s.Files.Write(ctx, last, &repeated{piece: piece, left: keptSize}, client.WriteOptions{Length: keptSize, Write: freshet.MustCache})
		return err
	}}
	their := &side{do: func(context.Context) error {
		return errors.Join(plainWrite(name, &repeated{piece: piece, left: keptSize}), os.Remove(name))
	}}
	if err := b.contest(ctx, "must_cache-"+by.name[:1], once, our, their); err != nil {
		return err
	}
	b.addDuel(fmt.Sprintf("must_cache write of %s over %s, against file write, checksum and sync", freshet.FormatSize(keptSize), by.name), our, their,
		func(d time.Duration) string { return fmt.Sprintf("%.0f MiB/s", perSecond(keptSize>>20, d)) })
	return by.check(s)
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
