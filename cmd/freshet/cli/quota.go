package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

func (a *app) quotaCommand() *cobra.Command {
	return group("quota", "Limit how much the namespace may hold below a path",
		"  freshet quota set /scratch --bytes 2TiB --entries 1000000\n"+
			"  freshet quota ls\n"+
			"  freshet quota show /scratch/job-7        # all that count an entry there",
		a.quotaSet(), a.quotaUnset(), a.quotaShow(), a.quotaList())
}

func (a *app) quotaSet() *cobra.Command {
	var entries int64
	var size, origin string
	var dryRun bool
	c := &cobra.Command{
		Use: "set PATH", Short: "Set the quota of what lies below a path; replaces the one that is set", Args: cobra.ExactArgs(1),
		Example: "  freshet quota set /scratch --bytes 2TiB\n  freshet quota set /home/ann --entries 100000 --bytes 50GiB --dry-run",
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := freshet.ParsePath(args[0])
			if err != nil {
				return err
			}
			bytes, err := freshet.ParseSize(size)
			if err != nil {
				return freshet.Errorf(freshet.KindInvalid, "read flags", "", "--bytes: %w", err)
			}
			if entries < 0 || (entries == 0 && bytes == 0) {
				return freshet.Errorf(freshet.KindInvalid, "read flags", "", "give --entries, --bytes or both, more than 0; \"freshet quota unset\" removes a quota")
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				q, err := s.coord.SetQuota(ctx, freshet.QuotaChange{Path: p, MaxEntries: entries, MaxBytes: bytes, Origin: origin, DryRun: dryRun})
				if err != nil {
					return err
				}
				a.changed(dryRun, "set the quota of %s", q.Path)
				return a.printQuotas(q)
			})
		},
	}
	c.Flags().Int64Var(&entries, "entries", 0, "most files and directories below the path; 0 is no limit")
	c.Flags().StringVar(&size, "bytes", "0", "most bytes of files below the path, such as 500GiB; 0 is no limit")
	c.Flags().StringVar(&origin, "origin", "", "who sets it, such as terraform; operator by default")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, change nothing")
	return c
}

func (a *app) quotaUnset() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "unset PATH", Short: "Remove the quota of exactly that path", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := freshet.ParsePath(args[0])
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				q, err := s.coord.RemoveQuota(ctx, freshet.QuotaRemoval{Path: p, DryRun: dryRun})
				if err != nil {
					return err
				}
				a.changed(dryRun, "removed the quota of %s; this was it:", q.Path)
				return a.printQuotas(q)
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, change nothing")
	return c
}

func (a *app) quotaShow() *cobra.Command {
	return &cobra.Command{
		Use: "show PATH", Short: "Show the quotas that count an entry at a path: that of the path and those above it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := freshet.ParsePath(args[0])
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				all, err := s.coord.Quotas(ctx, p)
				if err == nil && len(all) == 0 {
					err = freshet.Errorf(freshet.KindNotExist, "quota show", p, "no quota is set there or above")
				}
				if err != nil {
					return err
				}
				return a.printQuotas(all...)
			})
		},
	}
}

func (a *app) quotaList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List all quotas with what is used of them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				all, err := s.coord.Quotas(ctx, "")
				if err != nil {
					return err
				}
				return a.printQuotas(all...)
			})
		},
	}
}

func (a *app) printQuotas(all ...freshet.Quota) error {
	out := &freshetv1.ListQuotasResponse{}
	for _, q := range all {
		out.Quotas = append(out.Quotas, rpc.QuotaToWire(q))
	}
	return a.print(out, func(t *table) {
		t.row("PATH", "ENTRIES", "OF", "BYTES", "OF", "USED", "STATE", "ORIGIN")
		for _, w := range out.GetQuotas() {
			t.row(quotaCells(w.GetPath(), w)...)
		}
	})
}

// quotaCells are the cells of a quota's row.
func quotaCells(name string, q *freshetv1.Quota) []any {
	return []any{
		name, q.GetUsedEntries() + q.GetReservedEntries(), limitText(q.GetMaxEntries(), false),
		bytesText(q.GetUsedBytes() + q.GetReservedBytes()), limitText(q.GetMaxBytes(), true), shareText(q), quotaState(q), dash(q.GetOrigin()),
	}
}

func limitText(n int64, bytes bool) string {
	switch {
	case n == 0:
		return "-"
	case bytes:
		return bytesText(n)
	}
	return fmt.Sprint(n)
}

// shareText is the larger of the two shares.
func shareText(q *freshetv1.Quota) string {
	share := 0.0
	if q.GetMaxEntries() > 0 {
		share = float64(q.GetUsedEntries()+q.GetReservedEntries()) / float64(q.GetMaxEntries())
	}
	if q.GetMaxBytes() > 0 {
		share = max(share, float64(q.GetUsedBytes()+q.GetReservedBytes())/float64(q.GetMaxBytes()))
	}
	return fmt.Sprintf("%.0f%%", 100*share)
}

func quotaState(q *freshetv1.Quota) string {
	switch {
	case q.GetCounting():
		return "counting"
	case (q.GetMaxEntries() > 0 && q.GetUsedEntries() > q.GetMaxEntries()) || (q.GetMaxBytes() > 0 && q.GetUsedBytes() > q.GetMaxBytes()):
		return "exceeded" // by what a sync found
	}
	return "ok"
}
