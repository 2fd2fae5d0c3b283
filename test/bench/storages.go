package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/ufs"
)

const (
	rangeSize = 8 << 20
	chunkSize = 1 << 20 // of one Write
)

// compare measures each storage's driver beside the bare client of that storage, and
// then what a region makes of it.
func (b *bench) compare(ctx context.Context) error {
	for _, name := range []string{"local", "s3", "hdfs", "azure", "gcs"} {
		if err := b.compareOne(ctx, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (b *bench) compareOne(ctx context.Context, name string) (err error) {
	p, err := b.start(ctx, name)
	if p == nil || err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := p.fill(ctx); err != nil {
		return err
	}
	if err := b.drivers(ctx, p); err != nil {
		return err
	}
	return b.regionSyncs(ctx, p)
}

// drivers measures listing, upload and ranged reads.
func (b *bench) drivers(ctx context.Context, p *place) (err error) {
	b.under("bare client", "per CPU-second of this process")
	fs, err := p.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fs.Close()) }()
	our, their, err := b.duel(ctx, "list-"+p.name, b.turnLength(), func(ctx context.Context) error { return wantCount(p.entries)(listOnce(ctx, fs)) },
		func(ctx context.Context) error { return wantCount(p.entries)(p.rival.list(ctx, listDir)) })
	if err != nil {
		return err
	}
	b.addDuel(fmt.Sprintf("%s: list a directory of %d, entries", p.name, p.entries), our, their, func(d time.Duration) string { return rate(perSecond(int64(p.entries), d)) })
	size, turn := 64<<20, b.turnLength()
	if p.scarce {
		size, turn = 32<<20, once
	}
	return b.transfers(ctx, p, fs, size, turn)
}

// transfers measures upload and ranged reads of a file.
func (b *bench) transfers(ctx context.Context, p *place, fs ufs.FS, size int, uploads time.Duration) error {
	data := make([]byte, size)
	_, _ = rand.Read(data) // never fails
	gigabytes := func(d time.Duration) string { return fmt.Sprintf("%.2f GB/s", perSecond(int64(size), d)/1e9) }
	var st ufs.Status
	our, their, err := b.duel(ctx, "upload-"+p.name, uploads, func(ctx context.Context) (err error) {
		st, err = uploadOnce(ctx, fs, data)
		return err
	}, func(ctx context.Context) error { return p.rival.upload(ctx, "bare", data) })
	if err != nil {
		return err
	}
	b.addDuel(fmt.Sprintf("%s: upload %d MiB in parts of 8 MiB", p.name, size>>20), our, their, gigabytes)

	buf := make([]byte, rangeSize)
	our, their, err = b.duel(ctx, "read-"+p.name, b.turnLength(), eachRange(size, func(ctx context.Context, off int64) error {
		r, _, err := fs.Open(ctx, "ours", ufs.OpenOptions{Want: st.Fingerprint, Offset: off, Length: rangeSize})
		if err != nil {
			return err
		}
		_, err = io.ReadFull(r, buf)
		return errors.Join(err, r.Close())
	}), eachRange(size, func(ctx context.Context, off int64) error { return p.rival.readAt(ctx, "bare", off, buf) }))
	if err != nil {
		return err
	}
	b.addDuel(fmt.Sprintf("%s: read %d MiB in ranges of 8 MiB", p.name, size>>20), our, their, gigabytes)
	return nil
}

func wantCount(want int) func(int, error) error {
	return func(got int, err error) error {
		if err == nil && got != want {
			err = fmt.Errorf("%d entries instead of %d", got, want)
		}
		return err
	}
}

func listOnce(ctx context.Context, fs ufs.FS) (n int, err error) {
	for _, err := range fs.List(ctx, listDir, ufs.ListOptions{}) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func uploadOnce(ctx context.Context, fs ufs.FS, data []byte) (ufs.Status, error) {
	w, err := fs.Create(ctx, "ours", ufs.CreateOptions{Size: int64(len(data)), Vouched: true})
	if err != nil {
		return ufs.Status{}, err
	}
	for off := 0; off < len(data); off += chunkSize {
		if _, err := w.Write(data[off:min(len(data), off+chunkSize)]); err != nil {
			return ufs.Status{}, errors.Join(err, w.Abort(context.WithoutCancel(ctx)))
		}
	}
	return w.Commit(ctx)
}

func eachRange(size int, read func(ctx context.Context, off int64) error) func(context.Context) error {
	return func(ctx context.Context) error {
		for off := int64(0); off < int64(size); off += rangeSize {
			if err := read(ctx, off); err != nil {
				return err
			}
		}
		return nil
	}
}

// region starts one region that has nothing mounted, of one coordinator and one node.
func (b *bench) region(ctx context.Context, name string, p *place) (*fleet.Fleet, *fleet.Session, error) {
	f, _, err := b.cluster(ctx, clusterOptions{name: name, clusters: 1, coordinators: 1, bare: true, env: p.env})
	if err != nil {
		return nil, nil, err
	}
	s, err := f.Clusters[0].Connect()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, s, nil
}

// syncTurns is how often a storage is mounted, synced cold and synced again.
const syncTurns = 3

// regionSyncs measures the sync of the listed directory by a region's coordinator.
func (b *bench) regionSyncs(ctx context.Context, p *place) error {
	f, s, err := b.region(ctx, "sync-"+p.name, p)
	if err != nil {
		return err
	}
	defer f.Close()
	defer func() { _ = s.Close() }() // nothing to be done about it
	change, err := p.mount(false).Change("api")
	if err != nil {
		return err
	}
	leader := pids{f.Clusters[0].Coordinators[0].PID()}
	syncs := []string{"cold", "unchanged"}
	var entries [2]int64
	var wall, cpu [2]time.Duration
	for range syncTurns {
		if _, err := s.AddMount(ctx, change); err != nil {
			return err
		}
		for i := range syncs {
			used, begun := preciseTime(leader), time.Now()
			var last freshet.SyncProgress
			if err := s.Sync(ctx, "/m/"+listDir, true, func(p freshet.SyncProgress) error { last = p; return nil }); err != nil {
				return err
			}
			wall[i] += time.Since(begun)
			cpu[i] += preciseTime(leader) - used
			entries[i] += last.Entries
			if last.Entries < int64(p.entries) || last.Failed > 0 {
				return fmt.Errorf("%s sync: %+v", syncs[i], last)
			}
		}
		if _, err := s.RemoveMount(ctx, "/m", freshet.RemoveMountOptions{}); err != nil {
			return err
		}
	}
	b.under("", "per CPU-second of the coordinator")
	for i, what := range syncs {
		b.add(fmt.Sprintf("%s: %s sync of %d files, entries", p.name, what, p.entries), rate(perSecond(entries[i], wall[i])), rate(perSecond(entries[i], cpu[i])), "")
	}
	return nil
}
