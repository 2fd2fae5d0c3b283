package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
)

func (a *app) fsMv() *cobra.Command {
	var overwrite, dryRun bool
	c := &cobra.Command{
		Use: "mv FROM TO", Short: "Move a file or directory within its mount; into TO if that is a directory", Args: cobra.ExactArgs(2),
		Long: "mv moves a file or directory within its mount; into TO if that is a directory. Readers of the namespace see all of\n" +
			"it move at once. Local storage, NFS and HDFS move it in one step; object stores copy and delete every object:\n" +
			"--dry-run says how many objects and bytes.",
		Example: "  freshet fs mv /sales/tmp/part-7 /sales/2026/part-7\n  freshet fs mv /sales/2025 /sales/archive --dry-run",
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := freshet.ParsePath(args[0])
			if err != nil {
				return err
			}
			to, err := freshet.ParsePath(args[1])
			if err != nil {
				return err
			}
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error {
				if st, err := s.coord.Stat(ctx, to, freshet.ReadOptions{}); err == nil && st.Info.Type == freshet.TypeDirectory {
					to = to.Join(from.Base())
				}
				return a.move(ctx, s, freshet.RenameQuery{Path: from, Target: to, Overwrite: overwrite}, dryRun)
			})
		},
	}
	c.Flags().BoolVar(&overwrite, "overwrite", false, "replace an existing file")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check, say what it costs, change nothing")
	return c
}

// renamePlan is the answer of a dry run.
type renamePlan struct {
	From    freshet.Path `json:"from"`
	To      freshet.Path `json:"to"`
	Atomic  bool         `json:"atomic"`
	Objects int64        `json:"objects,string"`
	Bytes   int64        `json:"bytes,string"`
	// Replaces says that an existing file would be replaced.
	Replaces bool `json:"replaces"`
}

func (a *app) move(ctx context.Context, s *session, q freshet.RenameQuery, dryRun bool) error {
	if !dryRun {
		done, err := s.coord.Rename(ctx, q)
		return a.done(q.Target, done, err)
	}
	p, err := s.coord.PlanRename(ctx, q)
	if err != nil {
		return err
	}
	replaced := ""
	if p.Replaces {
		replaced = ", which exists and would be replaced"
	}
	a.changed(true, "moved %s to %s%s", q.Path, q.Target, replaced)
	out := renamePlan{From: q.Path, To: q.Target, Atomic: p.Atomic, Objects: p.Objects, Bytes: p.Bytes, Replaces: p.Replaces}
	return a.printValue(out, func(t *table) {
		cost := "one step"
		if !p.Atomic {
			cost = "every object is copied and deleted"
		}
		t.row("STORAGE", "OBJECTS", "BYTES")
		t.row(cost, p.Objects, bytesText(p.Bytes))
	})
}

func (a *app) fsRm() *cobra.Command {
	var recursive, force, dryRun bool
	c := &cobra.Command{
		Use: "rm PATH…", Short: "Remove files, empty directories or trees, here and in the storage", Args: cobra.MinimumNArgs(1),
		Long: "rm removes files, empty directories and, with --recursive, trees. A tree goes page by page, with progress; interrupted,\n" +
			"the removal stops at the next page: what was removed is gone, the rest is there, and the same command goes on.",
		Example: "  freshet fs rm /sales/old.csv\n  freshet fs rm -r /sales/2019 --dry-run",
		RunE: func(cmd *cobra.Command, args []string) error {
			run := connect(a.with)
			if recursive {
				run = a.withUnbounded
			}
			return a.eachWithin(run, cmd, args, onPath(func(ctx context.Context, s *session, p freshet.Path) error {
				err := a.remove(ctx, s, p, recursive, dryRun)
				if force && freshet.IsKind(asError(err), freshet.KindNotExist) {
					return nil
				}
				return err
			}))
		},
	}
	c.Flags().BoolVarP(&recursive, "recursive", "r", false, "everything below the path too")
	c.Flags().BoolVarP(&force, "force", "f", false, "a path that does not exist is no error")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "count what would be removed, change nothing")
	return c
}

func (a *app) remove(ctx context.Context, s *session, p freshet.Path, recursive, dryRun bool) error {
	switch {
	case dryRun:
		return a.wouldRemove(ctx, s, p, recursive)
	case !recursive:
		done, err := s.coord.Remove(ctx, freshet.RemoveQuery{Path: p})
		return a.done(p, done, err)
	}
	last, gone := time.Time{}, int64(0)
	err := s.coord.RemoveTree(ctx, freshet.RemoveQuery{Path: p, Recursive: true}, func(pr freshet.RemoveProgress) error {
		gone = pr.Entries
		switch now := time.Now(); {
		case pr.Done:
			a.note("removed %s: %s", p, countText(pr.Entries, "entry", "entries"))
			return a.done(p, freshet.Completed{Token: pr.Token}, nil)
		case now.Sub(last) >= time.Second:
			last = now
			a.note("removing %s: %d entries so far", p, pr.Entries)
		}
		return nil
	})
	if err == nil || ctx.Err() == nil {
		return err
	}
	code := freshet.KindDeadline.Info().Exit
	if gone > 0 {
		code = freshet.ExitPartly
	}
	return &exitError{code: code, err: fmt.Errorf("remove %s: stopped after %s or a page more: what was removed is gone, the rest is there, and the same command goes on",
		p, countText(gone, "entry", "entries"))}
}

func (a *app) wouldRemove(ctx context.Context, s *session, p freshet.Path, recursive bool) error {
	sum, err := s.sumUp(ctx, string(p), readFlags{})
	if err != nil {
		return err
	}
	if !recursive && sum.Directories+sum.Files > 1 {
		return freshet.Errorf(freshet.KindConflict, "remove", p, "is not empty; use --recursive")
	}
	return a.wouldChange(p, "removed %s: %s and %s, %s", p, countText(sum.Files, "file", "files"),
		countText(sum.Directories, "directory", "directories"), bytesText(sum.Bytes))
}
