package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/load"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// Bounds of measurements.
const (
	maxBenchThreads = 1024
	maxBenchFiles   = 100_000
	benchCleanup    = 2 * time.Minute
	benchRemovals   = 20 // of what was still written, benchSettle apart
	benchSettle     = 250 * time.Millisecond
)

func (a *app) benchCommand() *cobra.Command {
	return group("bench", "Measure reads and writes of a running cluster, or replay a recorded trace",
		"  freshet bench read /sales --threads 16 --duration 30s\n"+
			"  freshet bench write /scratch --files 100 --size 64MiB\n"+
			"  freshet bench trace day.trace --root /sales",
		a.benchRead(), a.benchWrite(), a.benchTrace())
}

// benchFlags are those of all measurements.
type benchFlags struct {
	threads  int
	dryRun   bool
	noLeases bool // of those that read
}

func (f *benchFlags) registerReads(c *cobra.Command) {
	f.register(c)
	c.Flags().BoolVar(&f.noLeases, "no-leases", false, "ask the coordinator each time, as one does who reads a file once")
}

func (f *benchFlags) register(c *cobra.Command) {
	c.Flags().IntVar(&f.threads, "threads", 8, "operations at a time")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "check everything, say what would be done, and do nothing")
}

func (f *benchFlags) check() error {
	if f.threads < 1 || f.threads > maxBenchThreads {
		return freshet.Errorf(freshet.KindInvalid, "bench", "", "--threads %d: use 1 to %d", f.threads, maxBenchThreads)
	}
	return nil
}

// makeFlags are those of files that a measurement makes.
type makeFlags struct {
	files int
	size  string
	keep  bool
	write string

	bytes int64
}

func (f *makeFlags) register(c *cobra.Command, files int) {
	c.Flags().IntVar(&f.files, "files", files, "how many files")
	c.Flags().StringVar(&f.size, "size", "16MiB", "of each file")
	c.Flags().BoolVar(&f.keep, "keep", false, "leave the files that were made")
	c.Flags().StringVar(&f.write, "write-type", "", "of the files that are made, such as through; by default that of the path's policy")
}

func (f *makeFlags) check() (freshet.WriteType, error) {
	var err error
	if f.bytes, err = freshet.ParseSize(f.size); err != nil {
		return 0, err
	}
	if f.files < 1 || f.files > maxBenchFiles {
		return 0, freshet.Errorf(freshet.KindInvalid, "bench", "", "--files %d: use 1 to %d", f.files, maxBenchFiles)
	}
	return freshet.ParseWriteType(f.write)
}

// benchReport is what a measurement found.
type benchReport struct {
	Kind    string `json:"kind"`
	Path    string `json:"path"`
	Threads int    `json:"threads"`
	Files   int    `json:"files"`
	load.Result
}

func (a *app) benchPrint(r benchReport) error {
	if err := a.printValue(r, func(t *table) {
		t.row("OPERATIONS", "PER SECOND", "BYTES", "PER SECOND", "P50", "P90", "P99", "MAX", "ERRORS")
		l := r.Latency
		t.row(r.Ops, fmt.Sprintf("%.1f", r.OpsPerSecond), bytesText(r.Bytes), bytesText(int64(r.BytesPerSecond)), secondsText(l.P50), secondsText(l.P90), secondsText(l.P99), secondsText(l.Max), r.Errors)
		if len(r.Origins) == 0 {
			return
		}
		t.line("")
		t.row("FROM", "OPERATIONS", "SHARE", "BYTES", "SHARE")
		for _, name := range slices.Sorted(maps.Keys(r.Origins)) {
			o := r.Origins[name]
			t.row(name, o.Ops, percent(ratio(o.Ops, r.originOps())), bytesText(o.Bytes), percent(ratio(o.Bytes, r.originBytes())))
		}
	}); err != nil {
		return err
	}
	for _, f := range r.Failures {
		a.note("failed: %s", safe(f))
	}
	if r.Errors > 0 {
		return &exitError{code: freshet.ExitPartly, err: fmt.Errorf("%s failed", countText(r.Errors, "operation", "operations"))}
	}
	return nil
}

func (r *benchReport) originOps() (n int64) {
	for _, o := range r.Origins {
		n += o.Ops
	}
	return n
}

func (r *benchReport) originBytes() (n int64) {
	for _, o := range r.Origins {
		n += o.Bytes
	}
	return n
}

func secondsText(s float64) string { return shortDuration(time.Duration(s * float64(time.Second))) }

func (a *app) benchProgress(what string) func(load.Result) {
	return func(r load.Result) {
		a.progress("%s: %d operations, %s, %s/s, %.1f op/s, p99 %s, %d errors", what, r.Ops, bytesText(r.Bytes), bytesText(int64(r.BytesPerSecond)), r.OpsPerSecond, secondsText(r.Latency.P99), r.Errors)
	}
}

// ground is the directory of a measurement's own files.
type ground struct {
	path freshet.Path
	a    *app
	s    *session
}

// newGround makes a directory of its own below the path.
func (a *app) newGround(ctx context.Context, s *session, below freshet.Path) (*ground, error) {
	g := &ground{path: below.Join("freshet-bench-" + uuid.NewString()[:8]), a: a, s: s}
	_, err := s.coord.Mkdir(ctx, freshet.MkdirQuery{Path: g.path})
	return g, err
}

// remove removes it with all that is in it, also if the command was interrupted. A write
// that was on its way then may still end, so that the directory isn't empty any more: it is
// removed again.
func (g *ground) remove(ctx context.Context, keep bool) error {
	if keep {
		g.a.note("kept %s", g.path)
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), benchCleanup)
	defer cancel()
	err := g.removeOnce(ctx)
	for range benchRemovals {
		if freshet.KindOf(err) != freshet.KindConflict {
			break
		}
		select {
		case <-time.After(benchSettle):
		case <-ctx.Done():
		}
		err = g.removeOnce(ctx)
	}
	if err != nil {
		return fmt.Errorf("the files of the measurement could not be removed: remove %s by `freshet fs rm -r`: %w", g.path, err)
	}
	return nil
}

func (g *ground) removeOnce(ctx context.Context) error {
	return g.s.coord.RemoveTree(ctx, freshet.RemoveQuery{Path: g.path, Recursive: true}, func(freshet.RemoveProgress) error { return nil })
}

func benchFile(dir freshet.Path, n int64) freshet.Path { return dir.Join(fmt.Sprintf("f%06d", n)) }

// fill writes files into the directory.
func (g *ground) fill(ctx context.Context, f *makeFlags, w freshet.WriteType, opts load.Options) load.Result {
	defer g.a.endProgress()
	return load.Run(ctx, opts, func(ctx context.Context, n int64) (load.Op, error) {
		p := benchFile(g.path, n)
		_, err := g.s.files.Write(ctx, p, load.Content(uint64(n), f.bytes), client.WriteOptions{Length: f.bytes, Write: w}) //nolint:gosec // a number of files
		return load.Op{Bytes: f.bytes}, err
	})
}

func (a *app) benchWrite() *cobra.Command {
	var f benchFlags
	var m makeFlags
	var duration time.Duration
	c := &cobra.Command{
		Use: "write PATH", Short: "Measure writes of files below a path", Args: cobra.ExactArgs(1),
		Long: "write makes files in a directory of its own below PATH, which is made for it and removed at the end, also of an\n" +
			"interrupted command. An operation is one file, acknowledged.",
		Example: "  freshet bench write /scratch --files 100 --size 64MiB --threads 4\n  freshet bench write /scratch --size 4KiB --files 100000 --duration 30s -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := m.check()
			p, perr := freshet.ParsePath(args[0])
			if err := errors.Join(f.check(), err, perr); err != nil {
				return err
			}
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) (err error) {
				if _, err := s.coord.Stat(ctx, p, freshet.ReadOptions{}); err != nil {
					return err
				}
				if f.dryRun {
					a.changed(true, "written up to %s of %s below %s, and removed them", countText(m.files, "file", "files"), m.size, p)
					return nil
				}
				g, err := a.newGround(ctx, s, p)
				if err != nil {
					return err
				}
				r := g.fill(ctx, &m, w, load.Options{Threads: f.threads, Ops: int64(m.files), Duration: duration, Report: a.benchProgress("write")})
				cleanup := g.remove(ctx, m.keep)
				return errors.Join(a.benchPrint(benchReport{Kind: "write", Path: string(p), Threads: f.threads, Files: int(r.Ops), Result: r}), cleanup)
			})
		},
	}
	f.register(c)
	m.register(c, 100)
	c.Flags().DurationVar(&duration, "duration", 0, "begin no file after this time; 0: only --files counts")
	return c
}

// benchReadFlags are those of `freshet bench read`.
type benchReadFlags struct {
	benchFlags
	makeFlags

	make, random, noCache bool
	hot, cold             bool
	ops                   int64
	readSize              string
	duration              time.Duration
	piece                 int64
}

func (f *benchReadFlags) validate() error {
	refuse := func(text string) error { return freshet.Errorf(freshet.KindInvalid, "bench read", "", "%s", text) }
	switch {
	case f.hot && f.cold:
		return refuse("--hot and --cold exclude each other")
	case f.random && f.readSize == "":
		return refuse("--random needs the size of a read: --read-size 4KiB, say")
	case f.ops < 0 || f.duration < 0 || (f.ops == 0 && f.duration == 0):
		return refuse("it must have an end: give --duration or --ops")
	}
	if f.readSize == "" {
		return nil
	}
	n, err := freshet.ParseSize(f.readSize)
	if err == nil && n == 0 {
		err = refuse("--read-size 0 reads nothing")
	}
	f.piece = n
	return err
}

func (a *app) benchRead() *cobra.Command {
	var f benchReadFlags
	c := &cobra.Command{
		Use: "read PATH", Short: "Measure reads of the files at or below a path", Args: cobra.ExactArgs(1),
		Long: "read reads the files that are at or below PATH, up to --files of them, or, with --make, files that it makes in a\n" +
			"directory of its own below PATH and removes at the end. An operation is a whole file, or --read-size bytes at a\n" +
			"place that follows the last one of the file or, with --random, at any. --cold frees the files before, --hot\n" +
			"warms them. FROM says what served an operation: the node that was asked (hit), another one (remote) or the\n" +
			"storage (ufs); of several blocks, the first. Answers of the coordinator are kept under leases, as gateways do,\n" +
			"where the cluster grants them; --no-leases has each operation ask.",
		Example: "  freshet bench read /sales --threads 16 --duration 30s\n" +
			"  freshet bench read /sales --random --read-size 4KiB --hot\n" +
			"  freshet bench read /scratch --make --files 20 --size 256MiB --cold --ops 20 -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := f.makeFlags.check()
			p, perr := freshet.ParsePath(args[0])
			if err := errors.Join(f.benchFlags.check(), err, perr, f.validate()); err != nil {
				return err
			}
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error { return a.measureReads(ctx, s, p, &f, w) })
		},
	}
	f.benchFlags.registerReads(c)
	f.makeFlags.register(c, 1000)
	fl := c.Flags()
	fl.BoolVar(&f.make, "make", false, "make files of --size first")
	fl.BoolVar(&f.random, "random", false, "read at random places")
	fl.BoolVar(&f.noCache, "no-cache", false, "leave nothing in the cache")
	fl.BoolVar(&f.hot, "hot", false, "warm the files first")
	fl.BoolVar(&f.cold, "cold", false, "free the files first")
	fl.StringVar(&f.readSize, "read-size", "", "bytes of an operation, such as 4KiB; whole files if it is not given")
	fl.DurationVar(&f.duration, "duration", 10*time.Second, "begin no operation after this time; 0: only --ops counts")
	fl.Int64Var(&f.ops, "ops", 0, "end after so many operations; 0: only --duration counts")
	return c
}

func (a *app) measureReads(ctx context.Context, s *session, p freshet.Path, f *benchReadFlags, w freshet.WriteType) (err error) {
	below := p
	if f.make && !f.dryRun {
		g, err := a.newGround(ctx, s, p)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, g.remove(ctx, f.keep)) }()
		if r := g.fill(ctx, &f.makeFlags, w, load.Options{Threads: f.threads, Ops: int64(f.files), Report: a.benchProgress("make")}); r.Errors > 0 {
			return freshet.Errorf(freshet.KindUnavailable, "bench read", p, "%d of %d files could not be made: %s", r.Errors, f.files, r.Failures[0])
		}
		below = g.path
	}
	files, err := benchFiles(ctx, s, below, f)
	if err != nil {
		return err
	}
	if f.dryRun {
		a.changed(true, "read %s at or below %s", countText(len(files), "file", "files"), p)
		return nil
	}
	if err := a.prepareReads(ctx, s, below, f); err != nil {
		return err
	}
	r := a.readFiles(ctx, s, files, f)
	return a.benchPrint(benchReport{Kind: "read", Path: string(p), Threads: f.threads, Files: len(files), Result: r})
}

// benchFiles lists what is to be read.
func benchFiles(ctx context.Context, s *session, p freshet.Path, f *benchReadFlags) ([]freshet.Info, error) {
	st, err := s.coord.Stat(ctx, p, freshet.ReadOptions{})
	if err != nil {
		return nil, err
	}
	var files []freshet.Info
	if st.Info.Type == freshet.TypeFile {
		files = append(files, st.Info)
	}
	for q := (freshet.ListQuery{Path: p, Recursive: true}); st.Info.Type == freshet.TypeDirectory && len(files) < f.files; {
		page, err := s.coord.List(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, e := range page.Entries {
			if e.Type == freshet.TypeFile && e.Length > 0 && len(files) < f.files {
				files = append(files, e)
			}
		}
		if q.PageToken = page.NextPageToken; q.PageToken == "" {
			break
		}
	}
	if len(files) == 0 && !(f.make && f.dryRun) {
		return nil, freshet.Errorf(freshet.KindNotExist, "bench read", p, "there is no file to read that is not empty; --make makes some")
	}
	return files, nil
}

// prepareReads makes the files hot or cold.
func (a *app) prepareReads(ctx context.Context, s *session, p freshet.Path, f *benchReadFlags) error {
	switch {
	case f.cold:
		r, err := s.cache.FreeCache(ctx, &freshetv1.FreeCacheRequest{Path: string(p), Recursive: true})
		if err == nil && r.GetRefused()+r.GetPending() > 0 {
			err = freshet.Errorf(freshet.KindConflict, "bench read", p, "the files can't be made cold: %d are pinned, and %d blocks were not dropped in time", r.GetRefused(), r.GetPending())
		}
		return err
	case f.hot:
		r, err := s.cache.StartWarm(ctx, &freshetv1.StartWarmRequest{Paths: []string{string(p)}, OpId: freshet.OpID(uuid.New()).String()})
		if err != nil {
			return err
		}
		j, err := a.followWarm(ctx, s, r.GetWarm())
		if err != nil {
			return err
		}
		return warmOutcome(j)
	}
	return nil
}

func (a *app) readFiles(ctx context.Context, s *session, files []freshet.Info, f *benchReadFlags) load.Result {
	defer a.endProgress()
	kind := freshet.ReadCache
	if f.noCache {
		kind = freshet.ReadNoCache
	}
	if !f.noLeases {
		defer s.keep(ctx)()
	}
	return load.Run(ctx, load.Options{Threads: f.threads, Ops: f.ops, Duration: f.duration, Report: a.benchProgress("read")}, func(ctx context.Context, n int64) (load.Op, error) {
		file, off, length := f.place(files, n)
		return readOnce(ctx, s, file.Path, client.ReadOptions{Offset: off, Length: length, Read: kind})
	})
}

// place returns what the n-th operation reads.
func (f *benchReadFlags) place(files []freshet.Info, n int64) (file *freshet.Info, off, length int64) {
	count := int64(len(files))
	switch {
	case f.piece == 0:
		return &files[n%count], 0, -1
	case f.random:
		file = &files[rand.Int64N(count)] //nolint:gosec // a load, no secret
		pieces := (file.Length + f.piece - 1) / f.piece
		return file, rand.Int64N(pieces) * f.piece, f.piece //nolint:gosec // as above
	}
	file = &files[n%count]
	pieces := (file.Length + f.piece - 1) / f.piece
	return file, n / count % pieces * f.piece, f.piece
}

// readOnce reads a range, and says where its first bytes came from.
func readOnce(ctx context.Context, s *session, p freshet.Path, opts client.ReadOptions) (load.Op, error) {
	r, err := s.files.Open(ctx, p, opts)
	if err != nil {
		return load.Op{}, err
	}
	n, err := io.Copy(discard{}, r)
	return load.Op{Bytes: n, Origin: r.From()}, errors.Join(err, r.Close())
}

// discard takes bytes and nothing else: io.Discard reads into buffers of 8 KiB.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
