package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
)

// place is one end of a copy.
type place struct {
	std   bool         // stdin or stdout
	local string       // a path of this machine, "" if it is in the namespace
	path  freshet.Path // in the namespace
}

func (p place) String() string {
	switch {
	case p.std:
		return "-"
	case p.local != "":
		return p.local
	}
	return string(p.path)
}

// parsePlace tells the ends of a copy apart: "-" is stdin or stdout, what starts
// with "/" is in the namespace, "file:PATH" and relative paths are on this
// machine.
func parsePlace(s string) (place, error) {
	switch {
	case s == "-":
		return place{std: true}, nil
	case strings.HasPrefix(s, "file:"):
		name := strings.TrimPrefix(strings.TrimPrefix(s, "file:"), "//")
		if name == "" {
			return place{}, freshet.Errorf(freshet.KindInvalid, "cp", "", "%q names no file", s)
		}
		return place{local: name}, nil
	case strings.HasPrefix(s, "/"):
		p, err := freshet.ParsePath(s)
		return place{path: p}, err
	case s == "":
		return place{}, freshet.Errorf(freshet.KindInvalid, "cp", "", "a path is empty")
	}
	return place{local: s}, nil
}

// durableFlag is the flag for the number of nodes that keep a file.
const durableFlag = "durable-replicas"

// copier is one run of cp.
type copier struct {
	a        *app
	s        *session
	open     client.ReadOptions
	write    freshet.WriteType
	replicas int // 0: by policy
	dryRun   bool
	parallel int
	toStdout bool // which is then the file's

	bar    *progressbar.ProgressBar
	bytes  atomic.Int64
	files  atomic.Int64
	failed atomic.Int64
	mu     sync.Mutex
	first  error
	last   freshet.Completed // of a write
}

func (a *app) fsCp() *cobra.Command {
	var f transferFlags
	var recursive, dryRun bool
	var parallel, replicas int
	var writeType string
	c := &cobra.Command{
		Use: "cp FROM… TO", Short: "Copy files in, out and within", Args: cobra.MinimumNArgs(2),
		Long: "Paths that start with \"/\" are in the namespace. Files of this machine are written as relative\n" +
			"paths (./a, b.csv) or as file:/abs/path; \"-\" is stdin or stdout.",
		Example: "  freshet fs cp ./part-0.parquet /sales/\n" +
			"  freshet fs cp -r file:/data/2026 /sales/2026 --parallel 8\n" +
			"  freshet fs cp /sales/part-0.parquet -\n" +
			"  freshet fs cp /sales/a.csv /archive/a.csv",
		RunE: func(cmd *cobra.Command, args []string) error {
			opts, err := f.open()
			if err != nil {
				return err
			}
			w, err := freshet.ParseWriteType(writeType)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed(durableFlag) {
				if _, err := freshet.ParseDurableReplicas(strconv.Itoa(replicas)); err != nil {
					return err
				}
			}
			if err := freshet.CheckDurableReplicas(replicas, w); err != nil {
				return err
			}
			if parallel < 1 || parallel > 256 {
				return freshet.Errorf(freshet.KindInvalid, "read flags", "", "--parallel %d is not between 1 and 256", parallel)
			}
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error {
				c := &copier{a: a, s: s, open: opts, write: w, replicas: replicas, dryRun: dryRun, parallel: parallel}
				return c.run(ctx, args, recursive)
			})
		},
	}
	f.register(c)
	fl := c.Flags()
	fl.BoolVarP(&recursive, "recursive", "r", false, "copy directories with all below them")
	fl.BoolVar(&dryRun, "dry-run", false, "show what would be copied, change nothing")
	fl.IntVar(&parallel, "parallel", 4, "files at a time")
	fl.StringVar(&writeType, "write-type", "", "cache_through, through, async_through or must_cache; by default what the policy of the path says, else cache_through")
	fl.IntVar(&replicas, durableFlag, 0, "of must_cache and async_through: cache nodes on whose disks the file is when it is acknowledged, 1 to 8; by default what the policy of the path says, else 1")
	return c
}

// job is one file to copy.
type job struct {
	from, to place
	size     int64 // negative if unknown
}

func (c *copier) run(ctx context.Context, args []string, recursive bool) error {
	to, err := parsePlace(args[len(args)-1])
	if err != nil {
		return err
	}
	c.toStdout = to.std
	intoDir := len(args) > 2 || strings.HasSuffix(args[len(args)-1], "/") || c.isDirectory(ctx, to)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.parallel)
	c.startProgress()
	walkErr := c.walkAll(ctx, args[:len(args)-1], to, walkOptions{recursive: recursive, intoDir: intoDir}, func(j job) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		group.Go(func() error { c.one(ctx, j); return nil })
		return nil
	})
	_ = group.Wait() // jobs report by c.fail
	c.stopProgress()
	if walkErr != nil {
		return walkErr
	}
	return c.result()
}

func (c *copier) result() error {
	n, failed := c.files.Load(), c.failed.Load()
	switch {
	case failed > 0 && n == 0:
		return c.first
	case failed > 0:
		return errPartly(int(failed), int(n+failed), c.first)
	case c.dryRun:
		c.a.note("dry run, nothing changed; would have copied %s", countText(n, "file", "files"))
	default:
		c.a.note("copied %s, %s", countText(n, "file", "files"), bytesText(c.bytes.Load()))
		if n == 1 {
			c.a.token(c.last)
		}
	}
	if c.a.output == "table" || c.toStdout {
		return nil
	}
	sum := copySum{Files: n, Bytes: c.bytes.Load(), DryRun: c.dryRun}
	if n == 1 {
		sum.Token = tokenText(c.last)
	}
	return c.a.printValue(sum, nil)
}

// copySum is what was copied, as JSON and YAML.
type copySum struct {
	Files  int64 `json:"files,string"`
	Bytes  int64 `json:"bytes,string"`
	DryRun bool  `json:"dryRun"`
	// Token is that of the write, if it was one.
	Token string `json:"token,omitempty"`
}

type walkOptions struct{ recursive, intoDir bool }

func (c *copier) walkAll(ctx context.Context, sources []string, to place, o walkOptions, emit func(job) error) error {
	for _, arg := range sources {
		from, err := parsePlace(arg)
		if err != nil {
			return err
		}
		target := to
		if o.intoDir && !to.std {
			if from.std {
				return freshet.Errorf(freshet.KindInvalid, "cp", "", "stdin has no name: give the name of the file to write")
			}
			target = child(to, from.base())
		}
		if err := c.walk(ctx, from, target, o, emit); err != nil {
			return err
		}
	}
	return nil
}

func (p place) base() string {
	if p.local != "" {
		return filepath.Base(filepath.Clean(p.local))
	}
	return p.path.Base()
}

func child(p place, name string) place {
	if p.local != "" {
		return place{local: filepath.Join(p.local, name)}
	}
	return place{path: p.path.Join(name)}
}

// walk emits the files of one source.
func (c *copier) walk(ctx context.Context, from, to place, o walkOptions, emit func(job) error) error {
	switch {
	case from.std:
		return emit(job{from: from, to: to, size: -1})
	case from.local != "":
		return c.walkLocal(from, to, o, emit)
	}
	st, err := c.s.coord.Stat(ctx, from.path, c.open.ReadOptions)
	if freshet.IsKind(err, freshet.KindNotExist) {
		if _, lerr := os.Lstat(string(from.path)); lerr == nil {
			return fmt.Errorf("%w\nThere is a local file of that name: write file:%s to copy it", err, from.path)
		}
	}
	if err != nil {
		return err
	}
	if st.Info.Type == freshet.TypeFile {
		return emit(job{from: from, to: to, size: st.Info.Length})
	}
	if !o.recursive {
		return freshet.Errorf(freshet.KindConflict, "cp", from.path, "is a directory; use --recursive")
	}
	q := freshet.ListQuery{Path: from.path, Recursive: true, Options: c.open.ReadOptions}
	for {
		page, err := c.s.coord.List(ctx, q)
		if err != nil {
			return err
		}
		for _, e := range page.Entries {
			if e.Type != freshet.TypeFile {
				continue
			}
			if err := emit(job{from: place{path: e.Path}, to: below(to, from.path.Rel(e.Path)), size: e.Length}); err != nil {
				return err
			}
		}
		if q.PageToken = page.NextPageToken; q.PageToken == "" {
			return nil
		}
	}
}

func below(p place, rel string) place {
	for name := range strings.SplitSeq(rel, "/") {
		p = child(p, name)
	}
	return p
}

func (c *copier) walkLocal(from, to place, o walkOptions, emit func(job) error) error {
	root := filepath.Clean(from.local)
	return filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return localError(err)
		case d.IsDir():
			if !o.recursive {
				return freshet.Errorf(freshet.KindConflict, "cp", "", "%s is a directory; use --recursive", name)
			}
			return nil
		}
		info, err := os.Stat(name)
		if err != nil {
			return localError(err)
		}
		if !info.Mode().IsRegular() && !info.Mode().IsDir() {
			c.a.note("skipped %s: not a regular file", safe(name))
			return nil
		}
		target := to
		if rel, err := filepath.Rel(root, name); err == nil && rel != "." {
			target = below(to, filepath.ToSlash(rel))
		}
		return emit(job{from: place{local: name}, to: target, size: info.Size()})
	})
}

func localError(err error) error {
	kind := freshet.KindInternal
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kind = freshet.KindNotExist
	case errors.Is(err, fs.ErrPermission):
		kind = freshet.KindPermission
	}
	return freshet.Errorf(kind, "cp", "", "local file: %w", err)
}

func (c *copier) isDirectory(ctx context.Context, p place) bool {
	switch {
	case p.std:
		return false
	case p.local != "":
		st, err := os.Stat(p.local)
		return err == nil && st.IsDir()
	}
	st, err := c.s.coord.Stat(ctx, p.path, freshet.ReadOptions{})
	return err == nil && st.Info.Type == freshet.TypeDirectory
}

func (c *copier) one(ctx context.Context, j job) {
	err := c.copy(ctx, j)
	if err == nil {
		c.files.Add(1)
		return
	}
	c.failed.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first == nil {
		c.first = asError(err) // told at the end
		return
	}
	c.a.note("%s: %v", safe(j.from.String()), err)
}

func (c *copier) copy(ctx context.Context, j job) error {
	if c.dryRun {
		c.a.note("would copy %s -> %s", safe(j.from.String()), safe(j.to.String()))
		return nil
	}
	in, size, err := c.openSource(ctx, j)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // read only
	body := &countingReader{r: in, c: c}
	if j.to.path != "" {
		done, err := c.s.files.Write(ctx, j.to.path, body, client.WriteOptions{Length: size, Write: c.write, DurableReplicas: c.replicas})
		c.mu.Lock()
		c.last = done
		c.mu.Unlock()
		return err
	}
	if j.to.std {
		_, err := io.Copy(c.a.Out, body)
		return err
	}
	return writeLocal(j.to.local, body)
}

func (c *copier) openSource(ctx context.Context, j job) (io.ReadCloser, int64, error) {
	switch {
	case j.from.std:
		return io.NopCloser(c.a.In), -1, nil
	case j.from.local != "":
		f, err := os.Open(j.from.local)
		if err != nil {
			return nil, 0, localError(err)
		}
		return f, j.size, nil
	}
	r, err := c.s.files.Open(ctx, j.from.path, c.open)
	if err != nil {
		return nil, 0, err
	}
	return r, r.Info().Length, nil
}

// writeLocal writes a file of this machine that appears only when it is whole.
func writeLocal(name string, body io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { //nolint:gosec // as cp and mkdir do; the umask decides
		return localError(err)
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".freshet-*")
	if err != nil {
		return localError(err)
	}
	_, err = io.Copy(f, body)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil && cerr != nil {
		err = localError(cerr)
	}
	if err == nil {
		if rerr := os.Rename(f.Name(), name); rerr != nil {
			err = localError(rerr)
		}
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error is the one to tell
	}
	return err
}

type countingReader struct {
	r io.Reader
	c *copier
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.c.bytes.Add(int64(n))
	if r.c.bar != nil {
		_ = r.c.bar.Add(n) // drawing may fail; copying goes on
	}
	return n, err
}

func (c *copier) startProgress() {
	if !c.a.Terminal || c.dryRun {
		return
	}
	c.bar = progressbar.NewOptions64(-1, progressbar.OptionSetWriter(c.a.Err), progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetDescription("copying"), progressbar.OptionClearOnFinish())
}

func (c *copier) stopProgress() {
	if c.bar != nil {
		_ = c.bar.Finish() // drawing only
	}
}
