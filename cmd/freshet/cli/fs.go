package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

func (a *app) fsCommand() *cobra.Command {
	return group("fs", "Work with the files of the namespace",
		"  freshet fs ls /sales\n"+
			"  freshet fs cp ./report.csv /sales/report.csv     # in\n"+
			"  freshet fs cp -r /sales file:/tmp/sales          # out\n"+
			"  freshet fs cat /sales/report.csv | wc -l",
		a.fsLs(), a.fsStat(), a.fsCat(), a.fsHead(), a.fsTail(), a.fsCp(), a.fsMv(), a.fsRm(), a.fsMkdir(),
		a.fsDu(), a.fsCount(), a.fsTest(), a.fsTouch(), a.fsChmod(), a.fsChown(), a.fsChgrp(), a.fsGetfacl(), a.fsSetfacl(), a.fsXattr())
}

// readFlags are shared by commands that read.
type readFlags struct{ interval, after string }

func (f *readFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.interval, "sync-interval", "", "override for this call how old a check may be: always, never or a duration")
	c.Flags().StringVar(&f.after, "after", "", "session token: see at least the write that it proves")
}

func (f *readFlags) options() (freshet.ReadOptions, error) {
	var o freshet.ReadOptions
	if f.interval != "" {
		i, err := freshet.ParseInterval(f.interval)
		if err != nil {
			return o, err
		}
		o.SyncInterval = &i
	}
	var err error
	o.After, err = freshet.ParseToken(f.after)
	return o, err
}

func entriesTable(t *table, entries []*freshetv1.Entry, header bool) {
	if header {
		t.row("MODE", "OWNER", "GROUP", "SIZE", "MODIFIED", "PATH")
	}
	for _, e := range entries {
		t.row(modeText(e), dash(e.GetOwner()), dash(e.GetGroup()), e.GetLength(), timeText(e.GetMtime()), e.GetPath())
	}
}

func modeText(e *freshetv1.Entry) string {
	kind := "-"
	switch {
	case e.GetMountPoint():
		kind = "m"
	case e.GetKind() == freshet.TypeDirectory.String():
		kind = "d"
	}
	if e.GetMode() == 0 {
		return kind + "---------"
	}
	const bits = "rwxrwxrwx"
	out := []byte(kind + bits)
	for i := range bits {
		if e.GetMode()&(1<<(8-i)) == 0 {
			out[i+1] = '-'
		}
	}
	return string(out)
}

func (a *app) fsStat() *cobra.Command {
	var f readFlags
	c := &cobra.Command{
		Use: "stat PATH", Short: "Show one entry", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.ns.Stat(ctx, &freshetv1.StatRequest{Path: args[0], SyncInterval: f.interval, After: f.after})
				if err != nil {
					return err
				}
				e := r.GetEntry()
				return a.print(e, func(t *table) {
					t.row("path", e.GetPath())
					t.row("kind", e.GetKind())
					t.row("length", fmt.Sprintf("%d (%s)", e.GetLength(), bytesText(e.GetLength())))
					t.row("modified", timeText(e.GetMtime()))
					t.row("owner, group, mode", fmt.Sprintf("%s %s %s", dash(e.GetOwner()), dash(e.GetGroup()), modeText(e)))
					t.row("fingerprint", e.GetFingerprint())
					t.row("file id", e.GetFileId())
					if !isDirectory(e) {
						t.row("block size", freshet.FormatSize(e.GetBlockSize()))
					}
					t.row("cached", bytesText(e.GetCachedBytes()))
					fr := e.GetFreshness()
					t.row("freshness", fmt.Sprintf("interval %s of %s, last check %s ago", fr.GetInterval(), dash(fr.GetRule()), ageText(fr.GetAge())))
				})
			})
		},
	}
	f.register(c)
	return c
}

// transferFlags are shared by commands that read bytes.
type transferFlags struct {
	readFlags

	noCache bool
}

func (f *transferFlags) register(c *cobra.Command) {
	f.readFlags.register(c)
	c.Flags().BoolVar(&f.noCache, "no-cache", false, "leave nothing in the cache")
}

func (f *transferFlags) open() (client.ReadOptions, error) {
	o, err := f.options()
	out := client.ReadOptions{ReadOptions: o, Length: -1}
	if f.noCache {
		out.Read = freshet.ReadNoCache
	}
	return out, err
}

func (a *app) fsCat() *cobra.Command {
	var f transferFlags
	c := &cobra.Command{
		Use: "cat PATH…", Short: "Write files to stdout", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error {
				for _, arg := range args {
					opts, err := f.open()
					if err == nil {
						err = a.copyOut(ctx, s, arg, opts)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	f.register(c)
	return c
}

func (a *app) copyOut(ctx context.Context, s *session, arg string, opts client.ReadOptions) error {
	p, err := freshet.ParsePath(arg)
	if err != nil {
		return err
	}
	r, err := s.files.Open(ctx, p, opts)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // read only
	_, err = r.WriteTo(a.Out)
	return err
}

func (a *app) fsHead() *cobra.Command { return a.endOf("head", "first", headLines, 0) }
func (a *app) fsTail() *cobra.Command { return a.endOf("tail", "last", tailLines, 1) }

// endOf makes head and tail; a range read costs only the blocks it touches.
func (a *app) endOf(name, which string, lines func(w io.Writer, r *client.Reader, n int) error, fromEnd int64) *cobra.Command {
	var f transferFlags
	var bytes int64
	var count int
	c := &cobra.Command{
		Use: name + " PATH", Short: "Write the " + which + " lines or bytes of a file to stdout", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if bytes < -1 || count < 0 {
				return freshet.Errorf(freshet.KindInvalid, "read flags", "", "--bytes and --lines can't be negative")
			}
			p, err := freshet.ParsePath(args[0])
			if err != nil {
				return err
			}
			opts, err := f.open()
			if err != nil {
				return err
			}
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error {
				r, err := s.files.Open(ctx, p, opts)
				if err != nil {
					return err
				}
				defer func() { _ = r.Close() }() // read only
				if bytes < 0 {
					return lines(a.Out, r, count)
				}
				n := min(bytes, r.Info().Length)
				r.Narrow(fromEnd*(r.Info().Length-n), n)
				_, err = r.WriteTo(a.Out)
				return err
			})
		},
	}
	f.register(c)
	c.Flags().Int64VarP(&bytes, "bytes", "c", -1, "this many bytes instead of lines")
	c.Flags().IntVarP(&count, "lines", "n", 10, "this many lines")
	return c
}

func (a *app) fsDu() *cobra.Command {
	return a.tally("du PATH", "Sum up the bytes of files at and below a path", func(t *table, p string, sum tally) {
		t.row("BYTES", "SIZE", "PATH")
		t.row(sum.Bytes, bytesText(sum.Bytes), p)
	})
}

func (a *app) fsCount() *cobra.Command {
	return a.tally("count PATH", "Count directories, files and bytes at and below a path", func(t *table, p string, sum tally) {
		t.row("DIRECTORIES", "FILES", "BYTES", "PATH")
		t.row(sum.Directories, sum.Files, sum.Bytes, p)
	})
}

// tally is what du and count find.
type tally struct {
	Path        string `json:"path"`
	Directories int64  `json:"directories,string"`
	Files       int64  `json:"files,string"`
	Bytes       int64  `json:"bytes,string"`
}

func (s *tally) add(e *freshetv1.Entry) {
	if e.GetKind() == freshet.TypeDirectory.String() {
		s.Directories++
		return
	}
	s.Files++
	s.Bytes += e.GetLength()
}

func (a *app) tally(use, short string, draw func(t *table, p string, sum tally)) *cobra.Command {
	var f readFlags
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error {
				sum, err := s.sumUp(ctx, args[0], f)
				if err != nil {
					return err
				}
				return a.printValue(sum, func(t *table) { draw(t, args[0], sum) })
			})
		},
	}
	f.register(c)
	return c
}

// sumUp counts what is at and below a path.
func (s *session) sumUp(ctx context.Context, p string, f readFlags) (tally, error) {
	sum := tally{Path: p}
	st, err := s.ns.Stat(ctx, &freshetv1.StatRequest{Path: p, SyncInterval: f.interval, After: f.after})
	if err != nil {
		return sum, err
	}
	sum.add(st.GetEntry())
	if !isDirectory(st.GetEntry()) {
		return sum, nil
	}
	req := &freshetv1.ListRequest{Path: p, Recursive: true, SyncInterval: f.interval, After: f.after}
	err = s.eachPage(ctx, req, func(entries []*freshetv1.Entry) (bool, error) {
		for _, e := range entries {
			sum.add(e)
		}
		return true, nil
	})
	return sum, err
}

func isDirectory(e *freshetv1.Entry) bool { return e.GetKind() == freshet.TypeDirectory.String() }

func (a *app) fsTest() *cobra.Command {
	var f readFlags
	var dir, file, empty bool
	c := &cobra.Command{
		Use: "test PATH", Short: "Exit with 0 if the path exists (and is what the flags say), 3 if not, 1 if it is something else", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.ns.Stat(ctx, &freshetv1.StatRequest{Path: args[0], SyncInterval: f.interval, After: f.after})
				if freshet.IsKind(asError(err), freshet.KindNotExist) {
					return &exitError{code: freshet.ExitNotFound}
				}
				if err != nil {
					return err
				}
				e := r.GetEntry()
				if (dir && !isDirectory(e)) || (file && isDirectory(e)) || (empty && e.GetLength() > 0) {
					return &exitError{code: freshet.ExitError}
				}
				return nil
			})
		},
	}
	f.register(c)
	c.Flags().BoolVarP(&dir, "directory", "d", false, "it is a directory")
	c.Flags().BoolVarP(&file, "file", "f", false, "it is a file")
	c.Flags().BoolVarP(&empty, "empty", "z", false, "it has no bytes")
	c.Flags().BoolP("exists", "e", true, "it exists (always tested)")
	return c
}

// connect is with or withUnbounded.
type connect func(cmd *cobra.Command, f func(ctx context.Context, s *session) error) error

// eachWithin runs f for every argument; the first error ends it if it was the only
// argument, else failures are counted.
func (a *app) eachWithin(run connect, cmd *cobra.Command, args []string, f func(ctx context.Context, s *session, arg string) error) error {
	return run(cmd, func(ctx context.Context, s *session) error {
		var first error
		failed := 0
		for _, arg := range args {
			if err := asError(f(ctx, s, arg)); err != nil {
				if len(args) == 1 {
					return err
				}
				failed++
				if first == nil {
					first = err
				}
				a.note("%s: %v", safe(arg), err)
			}
		}
		switch {
		case failed == 0:
			return nil
		case failed == len(args):
			return first
		}
		return errPartly(failed, len(args), first)
	})
}

// pathChange is what was done to a path, or would be, as JSON and YAML.
type pathChange struct {
	Path   freshet.Path `json:"path"`
	DryRun bool         `json:"dryRun"`
	// Token is that of the change, for reads in other regions.
	Token string `json:"token,omitempty"`
}

// done tells of a change of p that has ended: its session token, for reads in other
// regions.
func (a *app) done(p freshet.Path, done freshet.Completed, err error) error {
	if err != nil {
		return err
	}
	a.token(done)
	if a.output == "table" {
		return nil
	}
	return a.printValue(pathChange{Path: p, Token: tokenText(done)}, nil)
}

// wouldChange tells what a dry run would have done to p.
func (a *app) wouldChange(p freshet.Path, format string, args ...any) error {
	a.changed(true, format, args...)
	if a.output == "table" {
		return nil
	}
	return a.printValue(pathChange{Path: p, DryRun: true}, nil)
}

func (a *app) token(done freshet.Completed) {
	if text := tokenText(done); text != "" && a.output == "table" {
		a.note("token: %s", text)
	}
}

func tokenText(done freshet.Completed) string {
	if done.Token.IsZero() {
		return ""
	}
	return done.Token.String()
}
