package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
)

func (a *app) fsMkdir() *cobra.Command {
	var parents, dryRun bool
	c := &cobra.Command{
		Use: "mkdir PATH…", Short: "Make directories", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachPath(cmd, args, func(ctx context.Context, s *session, p freshet.Path) error {
				if dryRun {
					return a.wouldCreate(ctx, s, p, parents, "make the directory")
				}
				done, err := s.coord.Mkdir(ctx, freshet.MkdirQuery{Path: p, Parents: parents})
				a.token(done, err)
				return err
			})
		},
	}
	c.Flags().BoolVarP(&parents, "parents", "p", false, "make missing parents, accept an existing directory")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check, change nothing")
	return c
}

// eachPath is each for arguments that are paths of the namespace.
func (a *app) eachPath(cmd *cobra.Command, args []string, f func(ctx context.Context, s *session, p freshet.Path) error) error {
	return a.each(cmd, args, func(ctx context.Context, s *session, arg string) error {
		p, err := freshet.ParsePath(arg)
		if err != nil {
			return err
		}
		return f(ctx, s, p)
	})
}

// wouldCreate is the dry run of what needs an absent path.
func (a *app) wouldCreate(ctx context.Context, s *session, p freshet.Path, existing bool, what string) error {
	_, err := s.coord.Stat(ctx, p, freshet.ReadOptions{})
	switch {
	case freshet.IsKind(err, freshet.KindNotExist):
		if err := p.CheckWritable(); err != nil {
			return err
		}
		a.changed(true, "%s %s", what, p)
		return nil
	case err != nil:
		return err
	case existing:
		a.note("dry run: %s exists; nothing to do", p)
		return nil
	}
	return freshet.Errorf(freshet.KindExist, what, p, "exists already")
}

func (a *app) fsTouch() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "touch PATH…", Short: "Make empty files; what exists stays as it is", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachPath(cmd, args, func(ctx context.Context, s *session, p freshet.Path) error {
				if dryRun {
					return a.wouldCreate(ctx, s, p, true, "make the empty file")
				}
				_, err := s.coord.Stat(ctx, p, freshet.ReadOptions{})
				if !freshet.IsKind(err, freshet.KindNotExist) {
					return err
				}
				done, err := s.files.Write(ctx, p, strings.NewReader(""), client.WriteOptions{Write: freshet.ByPolicy})
				a.token(done, err)
				return err
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check, change nothing")
	return c
}

func (a *app) fsMv() *cobra.Command {
	var overwrite, dryRun bool
	c := &cobra.Command{
		Use: "mv FROM TO", Short: "Move a file or directory within its mount; into TO if that is a directory", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := freshet.ParsePath(args[0])
			if err != nil {
				return err
			}
			to, err := freshet.ParsePath(args[1])
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				if st, err := s.coord.Stat(ctx, to, freshet.ReadOptions{}); err == nil && st.Info.Type == freshet.TypeDirectory {
					to = to.Join(from.Base())
				}
				if dryRun {
					if _, err := s.coord.Stat(ctx, from, freshet.ReadOptions{}); err != nil {
						return err
					}
					return a.wouldCreate(ctx, s, to, overwrite, "move "+string(from)+" to")
				}
				done, err := s.coord.Rename(ctx, freshet.RenameQuery{Path: from, Target: to, Overwrite: overwrite})
				a.token(done, err)
				return err
			})
		},
	}
	c.Flags().BoolVar(&overwrite, "overwrite", false, "replace an existing file")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check, change nothing")
	return c
}

func (a *app) fsRm() *cobra.Command {
	var recursive, force, dryRun bool
	c := &cobra.Command{
		Use: "rm PATH…", Short: "Remove files, empty directories or trees, here and in the storage", Args: cobra.MinimumNArgs(1),
		Example: "  freshet fs rm /sales/old.csv\n  freshet fs rm -r /sales/2019 --dry-run",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachPath(cmd, args, func(ctx context.Context, s *session, p freshet.Path) error {
				var err error
				if dryRun {
					err = a.wouldRemove(ctx, s, p, recursive)
				} else {
					var done freshet.Completed
					done, err = s.coord.Remove(ctx, freshet.RemoveQuery{Path: p, Recursive: recursive})
					a.token(done, err)
				}
				if force && freshet.IsKind(asError(err), freshet.KindNotExist) {
					return nil
				}
				return err
			})
		},
	}
	c.Flags().BoolVarP(&recursive, "recursive", "r", false, "everything below the path too")
	c.Flags().BoolVarP(&force, "force", "f", false, "a path that does not exist is no error")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "count what would be removed, change nothing")
	return c
}

func (a *app) wouldRemove(ctx context.Context, s *session, p freshet.Path, recursive bool) error {
	sum, err := s.sumUp(ctx, string(p), readFlags{})
	if err != nil {
		return err
	}
	if !recursive && sum.Directories+sum.Files > 1 {
		return freshet.Errorf(freshet.KindConflict, "remove", p, "is not empty; use --recursive")
	}
	a.changed(true, "removed %s: %d files and %d directories, %s", p, sum.Files, sum.Directories, bytesText(sum.Bytes))
	return nil
}
