package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

func (a *app) syncCommand() *cobra.Command {
	return group("sync", "Set how often paths are checked with the storage, or check now",
		"  freshet sync set /hot --interval 10s\n"+
			"  freshet sync get /hot/a.csv        # which rule applies\n"+
			"  freshet sync now /hot --recursive\n"+
			"  freshet sync status",
		a.syncSet(), a.syncUnset(), a.syncGet(), a.syncList(), a.syncNow(), a.syncStatus(), a.syncCancel())
}

func (a *app) printPolicy(p *freshetv1.SyncPolicy) error {
	return a.print(p, func(t *table) { policyTable(t, p) })
}

func policyTable(t *table, rules ...*freshetv1.SyncPolicy) {
	t.row("PATH", "INTERVAL", "ORIGIN", "SET")
	for _, p := range rules {
		t.row(p.GetPath(), p.GetInterval(), p.GetOrigin(), timeText(p.GetSetAt()))
	}
}

func (a *app) syncSet() *cobra.Command {
	var interval string
	var dryRun bool
	c := &cobra.Command{
		Use: "set PATH --interval D", Short: "Set the sync interval of a path and what lies below it; takes effect at once", Args: cobra.ExactArgs(1),
		Example: "  freshet sync set /hot --interval always\n  freshet sync set /archive --interval never",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.policies.SetSyncPolicy(ctx, &freshetv1.SetSyncPolicyRequest{Path: args[0], Interval: interval, DryRun: dryRun, Origin: "operator", OpId: rpc.NewOpID()})
				if err != nil {
					return err
				}
				a.changed(dryRun, "set the sync interval of %s to %s", r.GetPolicy().GetPath(), r.GetPolicy().GetInterval())
				return a.printPolicy(r.GetPolicy())
			})
		},
	}
	c.Flags().StringVar(&interval, "interval", "", "always (or 0), never (or -1) or a duration such as 30s")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, change nothing")
	_ = c.MarkFlagRequired("interval") // fails only for a flag that is not there
	return c
}

func (a *app) syncUnset() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "unset PATH", Short: "Remove the sync interval of exactly that path", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.policies.RemoveSyncPolicy(ctx, &freshetv1.RemoveSyncPolicyRequest{Path: args[0], DryRun: dryRun, OpId: rpc.NewOpID()})
				if err != nil {
					return err
				}
				a.changed(dryRun, "removed the sync interval of %s; this one applies now:", args[0])
				return a.printPolicy(r.GetPolicy())
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, change nothing")
	return c
}

func (a *app) syncGet() *cobra.Command {
	return &cobra.Command{
		Use: "get PATH", Short: "Show the sync interval that applies to a path", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.policies.ListSyncPolicies(ctx, &freshetv1.ListSyncPoliciesRequest{Path: args[0]})
				if err != nil {
					return err
				}
				if len(r.GetPolicies()) == 0 {
					return freshet.Errorf(freshet.KindNotExist, "sync get", freshet.Path(args[0]), "no storage is mounted there")
				}
				return a.printPolicy(r.GetPolicies()[0])
			})
		},
	}
}

func (a *app) syncList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List all sync intervals, those of mounts too", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.policies.ListSyncPolicies(ctx, &freshetv1.ListSyncPoliciesRequest{})
				if err != nil {
					return err
				}
				return a.print(r, func(t *table) { policyTable(t, r.GetPolicies()...) })
			})
		},
	}
}

func (a *app) syncNow() *cobra.Command {
	var recursive, async bool
	var maxAge string
	c := &cobra.Command{
		Use: "now PATH", Short: "Check a path, or everything below it, with the storage now", Args: cobra.ExactArgs(1),
		Long: "now looks at a path in its storage: the entry and, of a directory, its listing. With --recursive it looks at\n" +
			"everything below it. That has a number, goes on when another coordinator comes to lead (from the start), and\n" +
			"ends when this command is interrupted; with --async the command ends at once and the sync goes on.",
		Example: "  freshet sync now /sales/2026\n" +
			"  freshet sync now /sales --recursive\n" +
			"  freshet sync now /sales --recursive --max-age 10m   # spare directories that were listed since\n" +
			"  freshet sync now / --recursive --async",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !recursive && (async || maxAge != "") {
				return freshet.Errorf(freshet.KindInvalid, "sync now", "", "--async and --max-age are for a sync of everything below a path: add --recursive")
			}
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error {
				if recursive {
					return a.syncJob(ctx, s, &freshetv1.StartSyncRequest{Path: args[0], Recursive: true, MaxAge: maxAge}, async)
				}
				stream, err := s.ns.Sync(ctx, &freshetv1.SyncRequest{Path: args[0], Recursive: recursive})
				if err != nil {
					return err
				}
				last, err := a.followSync(stream)
				if err != nil {
					return err
				}
				if err := a.print(last, func(t *table) { syncTable(t, last) }); err != nil {
					return err
				}
				if n := last.GetFailed(); n > 0 {
					return &exitError{code: freshet.ExitPartly, err: fmt.Errorf("%d entries could not be checked; they stay as they were", n)}
				}
				return nil
			})
		},
	}
	c.Flags().BoolVar(&recursive, "recursive", false, "everything below the path too")
	c.Flags().BoolVar(&async, "async", false, "with --recursive: print the number of the sync and do not wait for its end")
	c.Flags().StringVar(&maxAge, "max-age", "", "with --recursive: spare directories that were listed that recently and not marked since")
	return c
}

type syncStream interface {
	Recv() (*freshetv1.SyncResponse, error)
}

// followSync draws the progress and returns the last report.
func (a *app) followSync(stream syncStream) (*freshetv1.SyncResponse, error) {
	last := &freshetv1.SyncResponse{}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			a.endProgress()
			return last, nil
		}
		if err != nil {
			a.endProgress()
			return nil, err
		}
		last = m
		if !m.GetDone() {
			a.progress("%d entries, %d changed, %.0f/s  %s", m.GetEntries(), m.GetChanged(), syncRate(m), safe(m.GetCurrent()))
		}
	}
}

func syncRate(m *freshetv1.SyncResponse) float64 {
	if s := m.GetElapsed().AsDuration().Seconds(); s > 0 {
		return float64(m.GetEntries()) / s
	}
	return 0
}

func syncTable(t *table, m *freshetv1.SyncResponse) {
	t.row("DIRECTORIES", "ENTRIES", "CHANGED", "FAILED", "ELAPSED", "PER SECOND")
	t.row(m.GetDirectories(), m.GetEntries(), m.GetChanged(), m.GetFailed(), ageText(m.GetElapsed()), fmt.Sprintf("%.0f", syncRate(m)))
}

// progressEvery is the time between two plain lines of progress: the logs of jobs
// are read afterwards, and by people.
const progressEvery = 5 * time.Second

// progress overwrites one line on a terminal and writes a plain line now and then
// elsewhere.
func (a *app) progress(format string, args ...any) {
	line := strings.TrimRight(fmt.Sprintf(format, args...), " ")
	if a.Terminal {
		fmt.Fprint(a.Err, "\r\x1b[K"+line)
		return
	}
	if now := time.Now(); now.Sub(a.lastProgress) >= progressEvery {
		a.lastProgress = now
		a.note("%s", line)
	}
}

func (a *app) endProgress() {
	if a.Terminal {
		fmt.Fprint(a.Err, "\r\x1b[K")
	}
}
