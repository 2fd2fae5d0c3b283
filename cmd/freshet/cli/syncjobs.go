package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

const (
	// syncPoll is how often a sync is asked how far it is.
	syncPoll = 250 * time.Millisecond
	// syncPatience is how long nobody may answer that question: an election takes
	// a few seconds, and the sync goes on after it.
	syncPatience = 30 * time.Second
	// syncFarewell bounds how long the end of a command waits for the end of its sync.
	syncFarewell = 5 * time.Second
)

// syncJob starts a sync that goes on without its caller and, unless it is not to
// be waited for, shows it until its end. Who interrupts the command ends the sync.
func (a *app) syncJob(ctx context.Context, s *session, req *freshetv1.StartSyncRequest, async bool) error {
	req.OpId = freshet.OpID(uuid.New()).String()
	r, err := s.syncs.StartSync(ctx, req)
	if err != nil {
		return err
	}
	j := r.GetSync()
	if async {
		return a.printSyncs(r, j)
	}
	if j, err = a.followJob(ctx, s, j); err != nil {
		if ctx.Err() != nil {
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), syncFarewell)
			defer cancel()
			if c, cerr := s.syncs.CancelSync(last, &freshetv1.CancelSyncRequest{Id: r.GetSync().GetId()}); cerr == nil {
				return a.cutShort(ctx, c.GetSync())
			}
		}
		return err
	}
	if j.GetState() != string(freshet.SyncFailed) || j.GetFailed() > 0 {
		if err := a.printSyncs(j, j); err != nil {
			return err
		}
	}
	return syncOutcome(j)
}

// cutShort tells of a sync that ended with its command.
func (a *app) cutShort(ctx context.Context, j *freshetv1.SyncJob) error {
	code := freshet.KindDeadline.Info().Exit
	return &exitError{code: code, err: fmt.Errorf("sync %s: %s: cancelled sync %d after %s in %s; what it found stays found", safe(j.GetPath()), a.whyCutShort(ctx), j.GetId(),
		countText(j.GetEntries(), "entry", "entries"), countText(j.GetDirectories(), "directory", "directories"))}
}

// syncOutcome is the error of a sync that did not end well.
func syncOutcome(j *freshetv1.SyncJob) error {
	switch {
	case j.GetState() == string(freshet.SyncCancelled):
		return &freshet.Error{Op: "sync", Path: freshet.Path(j.GetPath()), Kind: freshet.KindDeadline, Err: errors.New("was cancelled")}
	case j.GetFailed() > 0:
		return &exitError{code: freshet.ExitPartly, err: fmt.Errorf("%s could not be checked and stay as before: %s", countText(j.GetFailed(), "directory", "directories"), j.GetError())}
	case j.GetState() == string(freshet.SyncFailed):
		kind := freshet.KindInternal
		for _, k := range freshet.Kinds() {
			if k.Name == j.GetKind() {
				kind = k.Kind
			}
		}
		return &freshet.Error{Kind: kind, Err: errors.New(j.GetError())}
	}
	return nil
}

// followJob draws the progress of a sync until it has ended.
func (a *app) followJob(ctx context.Context, s *session, j *freshetv1.SyncJob) (*freshetv1.SyncJob, error) {
	defer a.endProgress()
	tick := time.NewTicker(syncPoll)
	defer tick.Stop()
	heard := time.Now()
	for !freshet.SyncState(j.GetState()).Ended() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, &freshet.Error{Op: "sync", Path: freshet.Path(j.GetPath()), Kind: freshet.KindDeadline, Err: context.Cause(ctx)}
		}
		r, err := s.syncs.ListSyncs(ctx, &freshetv1.ListSyncsRequest{Id: j.GetId()})
		switch {
		case err == nil && len(r.GetSyncs()) == 1:
			j, heard = r.GetSyncs()[0], time.Now()
			a.progress("sync %d %s: %d directories, %d entries, %d changed, %.0f/s  %s", j.GetId(), j.GetState(), j.GetDirectories(), j.GetEntries(), j.GetChanged(), jobRate(j), safe(j.GetCurrent()))
		case err != nil && (!freshet.IsKind(rpc.ErrorOf(err), freshet.KindUnavailable, freshet.KindNotLeader) || time.Since(heard) > syncPatience):
			return nil, err
		}
	}
	return j, nil
}

func jobRate(j *freshetv1.SyncJob) float64 {
	if s := j.GetElapsed().AsDuration().Seconds(); s > 0 {
		return float64(j.GetEntries()) / s
	}
	return 0
}

func (a *app) printSyncs(out proto.Message, syncs ...*freshetv1.SyncJob) error {
	return a.print(out, func(t *table) {
		head := []any{"ID", "STATE", "PATH", "DIRECTORIES", "SPARED", "ENTRIES", "CHANGED", "FAILED", "ELAPSED", "PER SECOND", "STARTED"}
		why := slices.ContainsFunc(syncs, func(j *freshetv1.SyncJob) bool { return j.GetError() != "" })
		if why {
			head = append(head, "ERROR")
		}
		t.row(head...)
		for _, j := range syncs {
			row := []any{
				j.GetId(), j.GetState(), j.GetPath(), j.GetDirectories(), j.GetFresh(), j.GetEntries(), j.GetChanged(), j.GetFailed(),
				ageText(j.GetElapsed()), fmt.Sprintf("%.0f", jobRate(j)), timeText(j.GetStartedAt()),
			}
			if why {
				row = append(row, dash(j.GetError()))
			}
			t.row(row...)
		}
	})
}

func (a *app) syncStatus() *cobra.Command {
	return &cobra.Command{
		Use: "status [ID|PATH]", Short: "Show the syncs that run and the last ones that ended", Args: cobra.MaximumNArgs(1),
		Example: "  freshet sync status\n  freshet sync status /sales          # those that concern the path\n  freshet sync status 4711 -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &freshetv1.ListSyncsRequest{}
			if len(args) == 1 {
				var err error
				if req.Path = args[0]; !strings.HasPrefix(args[0], "/") {
					if req.Id, err = syncID(args[0]); err != nil {
						return err
					}
					req.Path = ""
				}
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.syncs.ListSyncs(ctx, req)
				if err != nil {
					return err
				}
				return a.printSyncs(r, r.GetSyncs()...)
			})
		},
	}
}

func (a *app) syncCancel() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "cancel ID", Short: "End a sync; what it found until then stays found", Args: cobra.ExactArgs(1),
		Example: "  freshet sync cancel 4711",
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.HasPrefix(args[0], "/") {
				return freshet.Errorf(freshet.KindInvalid, "sync cancel", "", "%q is a path: name the sync by its number, as `freshet sync status %s` shows it", args[0], args[0])
			}
			id, err := syncID(args[0])
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				j, err := a.cancelSync(ctx, s, id, dryRun)
				if err != nil {
					return err
				}
				a.changed(dryRun, "cancelled sync %d of %s", j.GetId(), safe(j.GetPath()))
				return a.printSyncs(j, j)
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, change nothing")
	return c
}

func (a *app) cancelSync(ctx context.Context, s *session, id uint64, dryRun bool) (*freshetv1.SyncJob, error) {
	if !dryRun {
		r, err := s.syncs.CancelSync(ctx, &freshetv1.CancelSyncRequest{Id: id})
		return r.GetSync(), err
	}
	r, err := s.syncs.ListSyncs(ctx, &freshetv1.ListSyncsRequest{Id: id})
	if err != nil {
		return nil, err
	}
	j := r.GetSyncs()[0]
	if s := freshet.SyncState(j.GetState()); s.Ended() && s != freshet.SyncCancelled {
		return nil, freshet.Errorf(freshet.KindConflict, "sync cancel", freshet.Path(j.GetPath()), "the sync %d has ended before: %s", id, j.GetState())
	}
	return j, nil
}

// syncID reads the number of a sync.
func syncID(arg string) (uint64, error) {
	id, err := strconv.ParseUint(arg, 10, 64)
	if err != nil || id == 0 {
		return 0, freshet.Errorf(freshet.KindInvalid, "read arguments", "", "%q is neither the number of a sync, as `freshet sync status` shows it, nor a path", arg)
	}
	return id, nil
}
