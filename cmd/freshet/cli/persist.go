package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

func (a *app) persistCommand() *cobra.Command {
	var recursive, wait, overwrite, dryRun bool
	cmd := &cobra.Command{
		Use: "persist PATH", Short: "Write files to the storage that are on cache nodes alone", Args: cobra.ExactArgs(1),
		Long: "Write files to the storage that were written with must_cache, and those of async_through that failed, now.\n\n" +
			"The files are queued and the command returns; with --wait it shows the progress and ends when they are in the storage,\n" +
			"with an error if one can't be written. What is in the storage already is left alone.",
		Example: "  freshet persist --wait /results/run-7.parquet\n" +
			"  freshet persist --recursive /results\n" +
			"  freshet persist --recursive --dry-run /results      # how much would it be?\n" +
			"  freshet persist --overwrite --wait /results/a       # somebody else wrote it in the storage meanwhile",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error {
				r, err := s.persist.Persist(ctx, &freshetv1.PersistRequest{Path: args[0], Recursive: recursive, Overwrite: overwrite, DryRun: dryRun})
				if err != nil {
					return err
				}
				if wait && !dryRun {
					left, err := a.followPersist(ctx, s, args[0])
					if err != nil {
						return err
					}
					return a.persistOutcome(r, left)
				}
				return a.print(r, func(t *table) {
					what := "queued"
					if dryRun {
						what = "would be queued"
					}
					t.line(fmt.Sprintf("%s of %s %s", bytesText(r.GetBytes()), countText(r.GetCount(), "file", "files"), what))
				})
			})
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&recursive, "recursive", "r", false, "all files below a directory")
	f.BoolVar(&wait, "wait", false, "end when the files are in the storage, or can't be written")
	f.BoolVar(&overwrite, "overwrite", false, "replace what the storage holds at the path of a single file, whatever that is")
	f.BoolVar(&dryRun, "dry-run", false, "say how much it would be, and change nothing")
	cmd.MarkFlagsMutuallyExclusive("recursive", "overwrite")
	cmd.AddCommand(a.persistStatus())
	return cmd
}

// persistOutcome tells of a persist that was waited for.
func (a *app) persistOutcome(r *freshetv1.PersistResponse, left *freshetv1.ListUnpersistedResponse) error {
	stuck := left.GetFailed() + left.GetConflicts() + left.GetLost()
	if stuck == 0 {
		return a.print(r, func(t *table) {
			t.line(fmt.Sprintf("%s of %s are in the storage", bytesText(r.GetBytes()), countText(r.GetCount(), "file", "files")))
		})
	}
	if err := a.printUnpersisted(left); err != nil {
		return err
	}
	return &exitError{code: freshet.ExitPartly, err: fmt.Errorf("%s could not be written to the storage", countText(stuck, "file", "files"))}
}

// persistTries is after how many failed attempts a file is not waited for any more.
const persistTries = 3

// stuckFiles returns how many files no further attempt is worth waiting for.
func stuckFiles(r *freshetv1.ListUnpersistedResponse) int64 {
	n := r.GetConflicts() + r.GetLost()
	for _, f := range r.GetFiles() {
		if f.GetState() == freshet.UnpersistedFailed && f.GetAttempts() >= persistTries {
			n++
		}
	}
	return n
}

const persistGoesOn = "what is queued is written all the same, see `freshet persist status`"

// followPersist draws the progress until nothing moves any more: all files are in
// the storage, or what is left has failed.
func (a *app) followPersist(ctx context.Context, s *session, path string) (*freshetv1.ListUnpersistedResponse, error) {
	defer a.endProgress()
	tick := time.NewTicker(syncPoll)
	defer tick.Stop()
	heard := time.Now()
	for {
		r, err := s.persist.ListUnpersisted(ctx, &freshetv1.ListUnpersistedRequest{Path: path})
		switch {
		case ctx.Err() != nil:
			return nil, a.stoppedWaiting(ctx, "persist", persistGoesOn)
		case err == nil:
			heard = time.Now()
			if r.GetQueued() <= stuckFiles(r) {
				return r, nil
			}
			a.progress("%s of %s are not in the storage yet, %d are being written", bytesText(r.GetBytes()), countText(r.GetCount(), "file", "files"), r.GetPersisting())
		case !freshet.IsKind(rpc.ErrorOf(err), freshet.KindUnavailable, freshet.KindNotLeader) || time.Since(heard) > syncPatience:
			return nil, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, a.stoppedWaiting(ctx, "persist", persistGoesOn)
		}
	}
}

func (a *app) persistStatus() *cobra.Command {
	var limit int32
	cmd := &cobra.Command{
		Use: "status [PATH]", Short: "Show which files are not in the storage", Args: cobra.MaximumNArgs(1),
		Example: "  freshet persist status\n  freshet persist status /results --limit 1000\n  freshet persist status -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &freshetv1.ListUnpersistedRequest{Limit: limit}
			if len(args) == 1 {
				req.Path = args[0]
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.persist.ListUnpersisted(ctx, req)
				if err != nil {
					return err
				}
				return a.printUnpersisted(r)
			})
		},
	}
	cmd.Flags().Int32Var(&limit, "limit", 0, "how many files are named: 0 is 100, negative none")
	return cmd
}

func (a *app) printUnpersisted(r *freshetv1.ListUnpersistedResponse) error {
	return a.print(r, func(t *table) {
		t.line(fmt.Sprintf("%s of %s not in the storage: %d queued, %d being written, %d failed, %d conflicts, %d lost", bytesText(r.GetBytes()),
			countText(r.GetCount(), "file", "files"), r.GetQueued(), r.GetPersisting(), r.GetFailed(), r.GetConflicts(), r.GetLost()))
		if n := r.GetShort(); n > 0 {
			t.line(fmt.Sprintf("%s on fewer live nodes than was promised", countText(n, "file is", "files are")))
		}
		if len(r.GetFiles()) == 0 {
			return
		}
		t.row("PATH", "SIZE", "STATE", "SINCE", "COPIES", "NODES", "ATTEMPTS", "ERROR")
		for _, f := range r.GetFiles() {
			copies := fmt.Sprintf("%d/%d", f.GetLiveReplicas(), max(f.GetDurableReplicas(), 1))
			t.row(f.GetPath(), bytesText(f.GetLength()), f.GetState(), timeText(f.GetSince()), copies, dash(strings.Join(f.GetNodes(), ",")), f.GetAttempts(), dash(f.GetError()))
		}
	})
}
