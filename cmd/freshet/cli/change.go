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
					return a.wouldCreate(ctx, s, p, parents, "made the directory")
				}
				done, err := s.coord.Mkdir(ctx, freshet.MkdirQuery{Path: p, Parents: parents})
				return a.done(p, done, err)
			})
		},
	}
	c.Flags().BoolVarP(&parents, "parents", "p", false, "make missing parents, accept an existing directory")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check, change nothing")
	return c
}

// eachPath is each for arguments that are paths of the namespace.
func (a *app) eachPath(cmd *cobra.Command, args []string, f func(ctx context.Context, s *session, p freshet.Path) error) error {
	return a.eachWithin(a.with, cmd, args, onPath(f))
}

// onPath is f for an argument that is a path.
func onPath(f func(ctx context.Context, s *session, p freshet.Path) error) func(ctx context.Context, s *session, arg string) error {
	return func(ctx context.Context, s *session, arg string) error {
		p, err := freshet.ParsePath(arg)
		if err != nil {
			return err
		}
		return f(ctx, s, p)
	}
}

// wouldCreate is the dry run of what needs an absent path.
func (a *app) wouldCreate(ctx context.Context, s *session, p freshet.Path, existing bool, what string) error {
	_, err := s.coord.Stat(ctx, p, freshet.ReadOptions{})
	switch {
	case freshet.IsKind(err, freshet.KindNotExist):
		if err := p.CheckWritable(); err != nil {
			return err
		}
		return a.wouldChange(p, "%s %s", what, p)
	case err != nil:
		return err
	case existing:
		a.note("dry run: %s exists; nothing to do", p)
		if a.output == "table" {
			return nil
		}
		return a.printValue(pathChange{Path: p, DryRun: true}, nil)
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
					return a.wouldCreate(ctx, s, p, true, "made the empty file")
				}
				_, err := s.coord.Stat(ctx, p, freshet.ReadOptions{})
				if !freshet.IsKind(err, freshet.KindNotExist) {
					return a.done(p, freshet.Completed{}, err)
				}
				done, err := s.files.Write(ctx, p, strings.NewReader(""), client.WriteOptions{Write: freshet.ByPolicy})
				return a.done(p, done, err)
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check, change nothing")
	return c
}
