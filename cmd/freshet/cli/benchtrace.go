package cli

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/load"
)

// traceFlags are those of `freshet bench trace`.
type traceFlags struct {
	benchFlags

	root       string
	make, keep bool
	speed      float64
}

func (a *app) benchTrace() *cobra.Command {
	var f traceFlags
	c := &cobra.Command{
		Use: "trace FILE", Short: "Replay a recorded trace of reads, writes, stats and listings", Args: cobra.ExactArgs(1),
		Long: "trace replays a file of records, one in each line; - is stdin:\n\n" +
			"  TIME OP PATH [OFFSET LENGTH]\n\n" +
			"TIME is in seconds since the beginning, OP read, write, stat or list, PATH below --root, in double quotes if it has\n" +
			"spaces. LENGTH -1 is to the end. Lines that begin with # are skipped. Writes go to a directory of its own below\n" +
			"--root, which is removed at the end, and later reads of these paths too, and of directories that are only there. With\n" +
			"--make the files that are read, and the directories that are listed, are made there first, as long as the trace needs\n" +
			"them, so that a trace of another system can be replayed.\n" +
			"Records begin as they are recorded, --speed times as fast, or as fast as --threads allow; what is about a path that the\n" +
			"trace writes waits for the write before it. Reads and stats keep answers under leases, as gateways do, where the\n" +
			"cluster grants them; --no-leases has each of them ask.",
		Example: "  freshet bench trace day.trace --root /sales --speed 10\n" +
			"  freshet bench trace day.trace --root /scratch --make --speed 0 -o json | jq .hitRatio",
		RunE: func(cmd *cobra.Command, args []string) error {
			root, err := freshet.ParsePath(f.root)
			if err := errors.Join(err, f.check()); err != nil {
				return err
			}
			if !(f.speed >= 0 && f.speed <= 1e6) {
				return freshet.Errorf(freshet.KindInvalid, "bench trace", "", "--speed %v: use 0, for as fast as possible, to 1000000", f.speed)
			}
			records, err := a.readTrace(args[0])
			if err != nil {
				return err
			}
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error { return a.replay(ctx, s, root, records, &f) })
		},
	}
	f.registerReads(c)
	c.Flags().StringVar(&f.root, "root", "/", "the path that the paths of the trace lie below")
	c.Flags().BoolVar(&f.make, "make", false, "make the files that are read, in a directory that is removed at the end")
	c.Flags().BoolVar(&f.keep, "keep", false, "leave the files that were made")
	c.Flags().Float64Var(&f.speed, "speed", 1, "how many times as fast as recorded; 0: as fast as possible")
	return c
}

// readTrace reads a trace from a file or stdin.
func (a *app) readTrace(name string) ([]load.Record, error) {
	in := a.In
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, freshet.Errorf(freshet.KindInvalid, "read trace", "", "%w", err)
		}
		defer func() { _ = file.Close() }() // only read from
		in = file
	}
	all, err := load.ParseTrace(in)
	if err != nil {
		return nil, freshet.Errorf(freshet.KindInvalid, "read trace", "", "%s: %w", name, err)
	}
	return all, nil
}

// replayed is a record with the path in the cluster.
type replayed struct {
	load.Record
	path  freshet.Path
	after chan struct{} // of the write that this must come after, nil if there is none
	done  chan struct{} // of a write: closed at its end
}

func (a *app) replay(ctx context.Context, s *session, root freshet.Path, records []load.Record, f *traceFlags) (err error) {
	writes := slices.ContainsFunc(records, func(r load.Record) bool { return r.Kind == load.Write })
	own := root
	if writes || f.make {
		if _, err := s.coord.Stat(ctx, root, freshet.ReadOptions{}); err != nil {
			return err
		}
	}
	if (writes || f.make) && !f.dryRun {
		g, err := a.newGround(ctx, s, root)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, g.remove(ctx, f.keep)) }()
		own = g.path
	}
	missing := func(p freshet.Path) (bool, error) {
		_, err := s.coord.Stat(ctx, p, freshet.ReadOptions{})
		if freshet.KindOf(err) == freshet.KindNotExist {
			return true, nil
		}
		return false, err
	}
	all, err := placeRecords(records, root, own, f.make, missing)
	if err != nil {
		return err
	}
	sizes := load.Sizes(records)
	if f.dryRun {
		a.changed(true, "replayed %s over %s below %s", countText(len(all), "record", "records"), shortDuration(records[len(records)-1].At), root)
		return nil
	}
	dirs := map[freshet.Path]bool{own: true}
	if err := makeDirs(ctx, s, all, f.make, dirs); err != nil {
		return err
	}
	if f.make {
		if err := a.makeTraced(ctx, s, own, sizes, dirs, f.threads); err != nil {
			return err
		}
	}
	stop := func() {}
	if !f.noLeases {
		stop = s.keep(ctx)
	}
	began := time.Now()
	r := load.Run(ctx, load.Options{Threads: f.threads, Ops: int64(len(all)), Report: a.benchProgress("trace")}, func(ctx context.Context, n int64) (load.Op, error) {
		asked := time.Now()
		if err := awaitTurn(ctx, began, &all[n], f.speed); err != nil {
			return load.Op{}, err
		}
		if all[n].done != nil {
			defer close(all[n].done)
		}
		idle := time.Since(asked)
		op, err := replayOne(ctx, s, &all[n], n)
		op.Idle = idle
		return op, err
	})
	stop()
	a.endProgress()
	return a.benchPrint(benchReport{Kind: "trace", Path: string(root), Threads: f.threads, Files: len(sizes), Result: r})
}

// placeRecords finds the paths in the cluster: what the trace writes lies in the
// directory of its own, with the directories above it that are not below the root, and
// all if the files are made. missing says whether nothing is at a path.
func placeRecords(records []load.Record, root, own freshet.Path, made bool, missing func(freshet.Path) (bool, error)) ([]replayed, error) {
	written := map[string]chan struct{}{} // by path: its last write
	above := map[freshet.Path]*bool{}     // directories of what was written: whether they are only there, once asked
	all := make([]replayed, len(records))
	for i, r := range records {
		rel, err := freshet.ParsePath("/" + strings.TrimLeft(r.Path, "/"))
		if err != nil {
			return nil, freshet.Errorf(freshet.KindInvalid, "read trace", "", "record %d: %w", i+1, err)
		}
		after, ours := written[string(rel)]
		all[i] = replayed{Record: r, path: root, after: after}
		if r.Kind == load.Write {
			ours, all[i].done = true, make(chan struct{})
			written[string(rel)] = all[i].done
			addAbove(above, rel)
		}
		if only, isAbove := above[rel]; isAbove && !made && !ours {
			if only == nil {
				gone, err := missing(root.Join(strings.TrimPrefix(string(rel), "/")))
				if err != nil {
					return nil, err
				}
				only = &gone
				above[rel] = only
			}
			ours = *only
		}
		if made || ours {
			all[i].path = own
		}
		if rel != freshet.Root {
			all[i].path = all[i].path.Join(strings.TrimPrefix(string(rel), "/"))
		}
	}
	return all, nil
}

// addAbove adds the directories above a path that is written, without the root.
func addAbove(above map[freshet.Path]*bool, p freshet.Path) {
	for d := p.Parent(); d != freshet.Root; d = d.Parent() {
		if _, ok := above[d]; ok {
			return
		}
		above[d] = nil
	}
}

// makeTraced makes the files that a trace reads.
func (a *app) makeTraced(ctx context.Context, s *session, own freshet.Path, sizes map[string]int64, dirs map[freshet.Path]bool, threads int) error {
	defer a.endProgress()
	if len(sizes) > maxBenchFiles {
		return freshet.Errorf(freshet.KindInvalid, "bench trace", "", "the trace reads %d files: --make makes up to %d", len(sizes), maxBenchFiles)
	}
	type file struct {
		path freshet.Path
		size int64
	}
	var files []file
	for name, size := range sizes {
		rel, err := freshet.ParsePath("/" + strings.TrimLeft(name, "/"))
		if err != nil || rel == freshet.Root {
			continue // a stat of the root
		}
		f := file{own.Join(strings.TrimPrefix(string(rel), "/")), size}
		files = append(files, f)
		if err := makeDir(ctx, s, f.path.Parent(), dirs); err != nil {
			return err
		}
	}
	if len(files) == 0 {
		return nil
	}
	r := load.Run(ctx, load.Options{Threads: threads, Ops: int64(len(files)), Report: a.benchProgress("make")}, func(ctx context.Context, n int64) (load.Op, error) {
		f := files[n]
		if dirs[f.path] {
			return load.Op{}, nil // a directory: the trace has a stat of it
		}
		_, err := s.files.Write(ctx, f.path, load.Content(uint64(n), f.size), client.WriteOptions{Length: f.size, Write: freshet.ByPolicy}) //nolint:gosec // a number of files
		return load.Op{Bytes: f.size}, err
	})
	if r.Errors > 0 {
		return freshet.Errorf(freshet.KindUnavailable, "bench trace", own, "%d of %d files could not be made: %s", r.Errors, len(files), r.Failures[0])
	}
	return ctx.Err()
}

// makeDirs makes the directories that a trace writes in, and, where its files are made,
// those that it lists.
func makeDirs(ctx context.Context, s *session, all []replayed, listed bool, made map[freshet.Path]bool) error {
	for i := range all {
		var err error
		switch {
		case all[i].Kind == load.Write:
			err = makeDir(ctx, s, all[i].path.Parent(), made)
		case all[i].Kind == load.List && listed:
			err = makeDir(ctx, s, all[i].path, made)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func makeDir(ctx context.Context, s *session, dir freshet.Path, made map[freshet.Path]bool) error {
	if made[dir] {
		return nil
	}
	for d := dir; !made[d] && d != freshet.Root; d = d.Parent() {
		made[d] = true
	}
	_, err := s.coord.Mkdir(ctx, freshet.MkdirQuery{Path: dir, Parents: true})
	return err
}

// awaitTurn waits until a record is due, and the write before it of what it is about has ended.
func awaitTurn(ctx context.Context, began time.Time, r *replayed, speed float64) error {
	if r.after != nil {
		select {
		case <-r.after:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if speed == 0 {
		return nil
	}
	left := time.Duration(float64(r.At)/speed) - time.Since(began)
	if left <= 0 {
		return nil
	}
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func replayOne(ctx context.Context, s *session, r *replayed, n int64) (load.Op, error) {
	switch r.Kind {
	case load.Read:
		return readOnce(ctx, s, r.path, client.ReadOptions{Offset: r.Offset, Length: r.Length})
	case load.Write:
		_, err := s.files.Write(ctx, r.path, load.Content(uint64(n), r.Length), client.WriteOptions{Length: r.Length, Write: freshet.ByPolicy}) //nolint:gosec // a number
		return load.Op{Bytes: r.Length}, err
	case load.Stat:
		_, err := s.files.Stat(ctx, r.path, freshet.ReadOptions{})
		return load.Op{}, err
	case load.List:
		_, err := s.coord.List(ctx, freshet.ListQuery{Path: r.path})
		return load.Op{}, err
	}
	return load.Op{}, freshet.Errorf(freshet.KindInternal, "bench trace", r.path, "unknown operation %q", string(r.Kind))
}
