package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/rpc/local"
)

const (
	// bigSize is the length of a file that is read cold or written whole, in bytes.
	bigSize = 128 << 20
	// abreast is how many ranges the bare client asks for at a time.
	abreast = 8
	// linked is S3 behind a link of 250 MB/s; see linkSpeed.
	linked = "s3-link"
)

// bigStorages are those whose bytes are measured on their whole way.
func (b *bench) bigStorages(ctx context.Context, do func(context.Context, *place) error) error {
	for _, name := range []string{"local", "s3", linked} {
		p, err := b.start(ctx, name)
		if p == nil && err == nil {
			continue
		}
		if err == nil {
			err = errors.Join(do(ctx, p), p.stop())
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// mounted starts a region that has the storage mounted at /m. Its node has a
// socket, which the session uses if it may.
func (b *bench) mounted(ctx context.Context, name, tier string, p *place, socket bool) (*fleet.Fleet, *fleet.Session, error) {
	f, _, err := b.cluster(ctx, clusterOptions{name: name, clusters: 1, coordinators: 1, tier: tier, bare: true, env: p.env, sockets: true})
	if err != nil {
		return nil, nil, err
	}
	f.Clusters[0].Local = local.Options{Off: !socket}
	s, err := f.Clusters[0].Connect()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	change, err := p.mount(false).Change("api")
	if err == nil {
		_, err = s.AddMount(ctx, change)
	}
	if err != nil {
		f.Close()
		return nil, nil, errors.Join(err, s.Close())
	}
	return f, s, nil
}

// colds measures reads of what is not cached yet, which cache it.
func (b *bench) colds(ctx context.Context) error { return b.bigStorages(ctx, b.cold) }

func (b *bench) cold(ctx context.Context, p *place) error {
	const files = duels + 1
	content := make([]byte, bigSize)
	for i := range files {
		_, _ = rand.Read(content) // never fails
		if err := p.rival.upload(ctx, fmt.Sprintf("cold-%d", i), content); err != nil {
			return err
		}
	}
	content = nil //nolint:ineffassign,wastedassign // for the collector
	for _, tier := range []string{"disk", "memory"} {
		for _, way := range []string{"gRPC", "the socket"} {
			if err := b.coldOne(ctx, p, tier, way); err != nil {
				return fmt.Errorf("%s tier, %s: %w", tier, way, err)
			}
		}
	}
	return nil
}

// coldOne measures a client that reads in one of two ways.
func (b *bench) coldOne(ctx context.Context, p *place, tier, way string) error {
	local := way == "the socket"
	name := fmt.Sprintf("cold-%s-%s-%t", p.name, tier, local)
	f, s, err := b.mounted(ctx, name, tier, p, local)
	if err != nil {
		return err
	}
	defer f.Close()
	defer func() { _ = s.Close() }() // nothing to be done about it
	if err := s.Sync(ctx, "/m", true, func(freshet.SyncProgress) error { return nil }); err != nil {
		return err
	}
	var ours, theirs int
	our := &side{others: servers(f), at: f.Clusters[0].NodeHTTP[0], do: func(ctx context.Context) error {
		ours++
		return readWhole(ctx, s, path("/m/cold-%d", ours-1), bigSize)
	}}
	their := &side{do: func(ctx context.Context) error {
		theirs++
		if p.name == "local" {
			return copyFile(filepath.Join(b.dir, "copy"), filepath.Join(p.dir, fmt.Sprintf("cold-%d", theirs-1)))
		}
		return readRanges(ctx, p.rival, fmt.Sprintf("cold-%d", theirs-1))
	}}
	if err := b.contest(ctx, name, once, our, their); err != nil {
		return err
	}
	if n := s.Local.Stats().Drafts; local != (n > 0) {
		return fmt.Errorf("%d blocks were read while they were fetched", n)
	}
	bare := "the SDK's ranged GET, 8 MiB each, eight at a time"
	if p.name == "local" {
		bare = "a copy of the file"
	}
	b.addBig(fmt.Sprintf("%s: cold read of 128 MiB over %s, %s tier", p.name, way, tier), bare, our, their)
	return nil
}

// addBig adds the row of a contest over a big file.
func (b *bench) addBig(what, bare string, our, their *side) {
	b.under("by time, beside "+bare, "per CPU-second of client and servers, not of the storage's")
	wall, low, high := ratios(our.wall, their.wall)
	cpu, _, _ := ratios(our.cpu, their.cpu)
	show := func(d time.Duration) string { return fmt.Sprintf("%.2f GB/s", bigSize/1e9/d.Seconds()) }
	b.add(what, show(middle(our.wall)), fmt.Sprintf("%s, %.2f of the bare client's %s", show(middle(our.cpu)), cpu, show(middle(their.cpu))),
		fmt.Sprintf("%s: **%.2f** of it (%.2f–%.2f)", show(middle(their.wall)), wall, low, high))
}

// readWhole reads a file of so many bytes to its end.
func readWhole(ctx context.Context, s *fleet.Session, p freshet.Path, size int64) error {
	r, err := s.Files.Open(ctx, p, client.Whole())
	if err != nil {
		return err
	}
	n, err := r.WriteTo(io.Discard)
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes of %s", n, p)
	}
	return errors.Join(err, r.Close())
}

// readRanges reads a big file as a careful program does that has nothing but the
// storage's own client.
func readRanges(ctx context.Context, from rival, key string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(abreast)
	for off := int64(0); off < bigSize; off += rangeSize {
		group.Go(func() error { return from.readAt(ctx, key, off, make([]byte, rangeSize)) })
	}
	return group.Wait()
}

// copyFile copies by read and write, as a cache must that looks at the bytes.
func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // read only
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, 1<<20))
	return errors.Join(err, out.Close(), os.Remove(to))
}

// uploads measures writes that are cached and stored before they are acknowledged.
func (b *bench) uploads(ctx context.Context) error { return b.bigStorages(ctx, b.upload) }

func (b *bench) upload(ctx context.Context, p *place) error {
	content := make([]byte, bigSize)
	_, _ = rand.Read(content) // never fails
	f, s, err := b.mounted(ctx, "upload-"+p.name, "disk", p, false)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.Close(); err != nil { // it has mounted the storage
		return err
	}
	for _, by := range routes() {
		if err := b.uploadBy(ctx, p, f, by, content); err != nil {
			return fmt.Errorf("%s: %w", by.name, err)
		}
	}
	return nil
}

func (b *bench) uploadBy(ctx context.Context, p *place, f *fleet.Fleet, by route, content []byte) error {
	s, err := by.connect(f)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // nothing to be done about it
	our := &side{others: servers(f), at: f.Clusters[0].NodeHTTP[0], do: func(ctx context.Context) error {
		_, err := s.Files.Write(ctx, "/m/ours", bytes.NewReader(content), client.WriteOptions{Length: bigSize, Write: freshet.CacheThrough})
		return err
	}}
	their := &side{do: func(ctx context.Context) error { return p.rival.upload(ctx, "bare", content) }}
	if err := b.contest(ctx, "cache_through-"+p.name+"-"+by.name[:1], once, our, their); err != nil {
		return err
	}
	bare := "the SDK's multipart upload, 8 MiB each, four at a time"
	if p.name == "local" {
		bare = "a write of the file, synced and renamed"
	}
	b.addBig(p.name+": cache_through write of 128 MiB over "+by.name+", disk tier", bare, our, their)
	return by.check(s)
}
