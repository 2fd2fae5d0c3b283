package cli

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// attributes changes something of entries: of the paths that are named, and of all
// below them if it is recursive.
type attributes struct {
	*app

	recursive, dryRun bool
	parallel          int
	// what it does, as in "would have WHAT /a".
	what string
	// look says that do needs to know the entry, not only its path.
	look bool
	// skip, if not nil, leaves an entry below a path alone.
	skip func(e *freshetv1.Entry) bool
	// do changes one entry.
	do func(ctx context.Context, s *session, e *freshetv1.Entry) (freshet.Completed, error)
}

func (c *attributes) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVarP(&c.recursive, "recursive", "R", false, "everything below the paths too; what fails is counted and the rest is done")
	f.IntVar(&c.parallel, "parallel", 8, "with --recursive: entries at a time")
	f.BoolVar(&c.dryRun, "dry-run", false, "check, change nothing")
}

func (c *attributes) run(cmd *cobra.Command, paths []string) error {
	if c.parallel < 1 || c.parallel > 256 {
		return freshet.Errorf(freshet.KindInvalid, "read flags", "", "--parallel %d is not between 1 and 256", c.parallel)
	}
	if c.recursive {
		return c.withUnbounded(cmd, func(ctx context.Context, s *session) error { return c.trees(ctx, s, paths) })
	}
	return c.eachPath(cmd, paths, func(ctx context.Context, s *session, p freshet.Path) error {
		e := &freshetv1.Entry{Path: string(p)}
		if c.look || c.dryRun {
			r, err := s.ns.Stat(ctx, &freshetv1.StatRequest{Path: string(p)})
			if err != nil {
				return err
			}
			e = r.GetEntry()
		}
		if c.dryRun {
			return c.wouldChange(p, "%s %s", c.what, p)
		}
		done, err := c.do(ctx, s, e)
		return c.done(p, done, err)
	})
}

// outcome is what a recursive change did.
type outcome struct {
	Changed int64 `json:"changed,string"`
	Failed  int64 `json:"failed,string"`
	DryRun  bool  `json:"dryRun"`
}

// treeTally counts what many do at a time.
type treeTally struct {
	*attributes

	mu    sync.Mutex
	out   outcome
	first error
}

// maxFailures is how many failures are told of one by one.
const maxFailures = 20

func (t *treeTally) add(path string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.out.Changed++
		return
	}
	t.out.Failed++
	if t.first == nil {
		t.first = err // told at the end
		return
	}
	if t.out.Failed <= maxFailures {
		t.note("%s: %v", safe(path), err)
	} else if t.out.Failed == maxFailures+1 {
		t.note("… further failures are only counted")
	}
}

// trees changes whole trees, page by page. A path that can't be changed keeps
// nothing else from being changed; the end of the context ends it between two
// entries.
func (c *attributes) trees(ctx context.Context, s *session, paths []string) error {
	t := &treeTally{attributes: c, out: outcome{DryRun: c.dryRun}}
	var stopped error
	for _, p := range paths {
		if stopped = t.tree(ctx, s, p); stopped != nil {
			break
		}
	}
	if err := t.report(); err != nil {
		return err
	}
	if stopped != nil && t.first != nil {
		t.note("%v", t.first)
	}
	switch {
	case t.out.Changed == 0 && stopped != nil:
		return stopped
	case stopped != nil: // some of it is done: who reads the exit code must know
		return &exitError{code: freshet.ExitPartly, err: fmt.Errorf("stopped after %d entries: %w", t.out.Changed+t.out.Failed, asError(stopped))}
	case t.out.Failed > 0 && t.out.Changed == 0:
		return t.first
	case t.out.Failed > 0:
		return errPartly(int(t.out.Failed), int(t.out.Changed+t.out.Failed), t.first)
	}
	return nil
}

func (t *treeTally) report() error {
	if t.output != "table" {
		return t.printValue(t.out, nil)
	}
	if t.out.Changed > 0 || t.out.Failed == 0 {
		t.changed(t.dryRun, "%s %s", t.what, countText(t.out.Changed, "entry", "entries"))
	}
	return nil
}

// tree changes one tree. An error ends the whole: a listing that broke off, or a
// storage that can't do it at all.
func (t *treeTally) tree(ctx context.Context, s *session, root string) error {
	st, err := s.ns.Stat(ctx, &freshetv1.StatRequest{Path: root})
	if err != nil {
		t.add(root, asError(err))
		return ctx.Err()
	}
	if err := t.one(ctx, s, st.GetEntry()); freshet.IsKind(err, freshet.KindUnsupported) || !isDirectory(st.GetEntry()) {
		return ctx.Err()
	}
	var group errgroup.Group
	group.SetLimit(t.parallel)
	err = s.eachPage(ctx, &freshetv1.ListRequest{Path: root, Recursive: true}, func(entries []*freshetv1.Entry) (bool, error) {
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return false, err
			}
			group.Go(func() error { _ = t.one(ctx, s, e); return nil }) // counted
		}
		return true, nil
	})
	_ = group.Wait() // none of them fails
	return err
}

func (t *treeTally) one(ctx context.Context, s *session, e *freshetv1.Entry) error {
	if t.skip != nil && t.skip(e) {
		return nil
	}
	var err error
	if !t.dryRun {
		_, err = t.do(ctx, s, e)
		err = asError(err)
	}
	t.add(e.GetPath(), err)
	return err
}

// setAttr returns what changes one entry by a query.
func setAttr(query func(e *freshetv1.Entry) freshet.SetAttrQuery) func(context.Context, *session, *freshetv1.Entry) (freshet.Completed, error) {
	return func(ctx context.Context, s *session, e *freshetv1.Entry) (freshet.Completed, error) {
		q := query(e)
		q.Path = freshet.Path(e.GetPath())
		return s.coord.SetAttr(ctx, q)
	}
}

func (a *app) fsChmod() *cobra.Command {
	c := &attributes{app: a}
	cmd := &cobra.Command{
		Use: "chmod MODE PATH…", Short: "Change permission bits, octal or as in u=rwX,go-w, where the storage has them", Args: cobra.MinimumNArgs(2),
		Example: "  freshet fs chmod 640 /nfs/report.csv\n  freshet fs chmod -R u=rwX,go=rX /nfs/2026",
		RunE: func(cmd *cobra.Command, args []string) error {
			mode, err := parseModeChange(args[0])
			if err != nil {
				return err
			}
			c.what, c.look = "set the mode "+mode.text+" of", !mode.fixed
			c.do = setAttr(func(e *freshetv1.Entry) freshet.SetAttrQuery {
				bits := mode.apply(e.GetMode()&0o7777, isDirectory(e))
				return freshet.SetAttrQuery{Mode: &bits}
			})
			return c.run(cmd, args[1:])
		},
	}
	c.register(cmd)
	return cmd
}

func (a *app) fsChown() *cobra.Command {
	c := &attributes{app: a}
	cmd := &cobra.Command{
		Use: "chown OWNER[:GROUP]|:GROUP PATH…", Short: "Change owner and group where the storage has them", Args: cobra.MinimumNArgs(2),
		Example: "  freshet fs chown alice /nfs/report.csv\n  freshet fs chown -R etl:analysts /wh/2026\n  freshet fs chown :analysts /wh/2026",
		RunE: func(cmd *cobra.Command, args []string) error {
			owner, group, given := strings.Cut(args[0], ":")
			var q freshet.SetAttrQuery
			if owner != "" {
				q.Owner = &owner
			}
			if group != "" {
				q.Group = &group
			}
			if given == (group == "") || (owner == "" && group == "") {
				return freshet.Errorf(freshet.KindInvalid, "chown", "", "%q is not of the form OWNER, OWNER:GROUP or :GROUP", args[0])
			}
			c.what = "set the owner " + args[0] + " of"
			c.do = setAttr(func(*freshetv1.Entry) freshet.SetAttrQuery { return q })
			return c.run(cmd, args[1:])
		},
	}
	c.register(cmd)
	return cmd
}

func (a *app) fsChgrp() *cobra.Command {
	c := &attributes{app: a}
	cmd := &cobra.Command{
		Use: "chgrp GROUP PATH…", Short: "Change the group where the storage has one", Args: cobra.MinimumNArgs(2),
		Example: "  freshet fs chgrp -R analysts /wh/2026",
		RunE: func(cmd *cobra.Command, args []string) error {
			group := args[0]
			if group == "" {
				return freshet.Errorf(freshet.KindInvalid, "chgrp", "", "the group is empty")
			}
			c.what = "set the group " + group + " of"
			c.do = setAttr(func(*freshetv1.Entry) freshet.SetAttrQuery { return freshet.SetAttrQuery{Group: &group} })
			return c.run(cmd, args[1:])
		},
	}
	c.register(cmd)
	return cmd
}
