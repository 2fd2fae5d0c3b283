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

// warmFlags are those of `freshet cache warm`.
type warmFlags struct {
	filterFlags

	replicas               int32
	check, evict, location bool
	async, dryRun          bool
}

func (a *app) cacheWarm() *cobra.Command {
	var f warmFlags
	c := &cobra.Command{
		Use: "warm PATH…", Short: "Bring files into the cache before anybody reads them", Args: cobra.RangeArgs(1, freshet.MaxWarmPaths),
		Long: "warm has the cache nodes fetch the blocks of files, and of all files below directories, that are not cached, at\n" +
			"the versions that readers get. The leader walks and the nodes fetch, many at a time; reads go first.\n" +
			"It has a number, goes on when another coordinator comes to lead (that one begins anew, and skips what is\n" +
			"cached), and ends when this command is interrupted; with --async the command ends at once and the warm goes on.\n" +
			"Other blocks are evicted for it as they are for reads, but it never brings more than the nodes hold.\n" +
			"--check only says how much is cached; --evict drops it instead, as `freshet cache free` does.",
		Example: "  freshet cache warm /sales/2026 --include '*.parquet'\n" +
			"  freshet cache warm /models --replicas 3\n" +
			"  freshet cache warm /sales --newer-than 24h --zone eu-west-1a --async\n" +
			"  freshet cache warm /video --first-bytes 1MiB      # the headers\n" +
			"  freshet cache warm /sales --check --location -o json | jq .cachedRatio",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.validate(); err != nil {
				return err
			}
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error { return a.warm(ctx, s, args, &f) })
		},
	}
	f.register(c, true, true)
	fl := c.Flags()
	fl.Int32Var(&f.replicas, "replicas", 1, "copies of each block, on different nodes")
	fl.BoolVar(&f.check, "check", false, "only say how much is cached; changes nothing")
	fl.BoolVar(&f.location, "location", false, "with --check: and on which nodes")
	fl.BoolVar(&f.evict, "evict", false, "drop what is cached of the paths instead")
	fl.BoolVar(&f.async, "async", false, "print the number of the warm and do not wait for its end")
	fl.BoolVar(&f.dryRun, "dry-run", false, "say what would be brought or dropped, change nothing")
	return c
}

func (f *warmFlags) validate() error {
	refuse := func(text string) error { return freshet.Errorf(freshet.KindInvalid, "cache warm", "", "%s", text) }
	switch {
	case f.replicas == 0: // which stands for the default on the wire
		return refuse("--replicas 0: use 1 to 64; to drop what is cached, use --evict")
	case f.check && (f.evict || f.async || f.dryRun):
		return refuse("--check changes nothing: it goes with no other of --evict, --async and --dry-run")
	case f.location && !f.check:
		return refuse("--location says where blocks are: give it with --check; to choose where they go, use --node, --host, --rack or --zone")
	case f.evict && (f.async || f.firstBytes != "" || f.replicas != 1 || f.place().String() != (&freshetv1.CachePlace{}).String()):
		return refuse("--evict drops whole files from all nodes: it goes with no other of --async, --first-bytes, --replicas, --node, --host, --rack and --zone")
	}
	return nil
}

func (a *app) warm(ctx context.Context, s *session, paths []string, f *warmFlags) error {
	filter, err := f.filter()
	if err != nil {
		return err
	}
	switch {
	case f.evict:
		for _, p := range paths {
			if err := a.free(ctx, s, &freshetv1.FreeCacheRequest{Path: p, Recursive: true, Filter: filter, DryRun: f.dryRun}); err != nil {
				return err
			}
		}
		return nil
	case f.check || f.dryRun:
		sum, err := a.sum(ctx, s, paths, &f.filterFlags)
		if err != nil {
			return err
		}
		if f.dryRun {
			a.changed(true, "brought up to %s of %s", bytesText(sum.Bytes*int64(f.replicas)-sum.CachedBytes), countText(sum.Files, "file", "files"))
		}
		return a.printSum(sum, f.location)
	}
	return a.warmJob(ctx, s, &freshetv1.StartWarmRequest{
		Paths: paths, Filter: filter, Place: f.place(), Replicas: f.replicas, OpId: freshet.OpID(uuid.New()).String(),
	}, f.async)
}

// warmJob starts a warm and, unless it is not to be waited for, shows it until its end.
// Who interrupts the command ends the warm.
func (a *app) warmJob(ctx context.Context, s *session, req *freshetv1.StartWarmRequest, async bool) error {
	r, err := s.cache.StartWarm(ctx, req)
	if err != nil {
		return err
	}
	j := r.GetWarm()
	if async {
		return a.printWarms(r, j)
	}
	if j, err = a.followWarm(ctx, s, j); err != nil {
		if ctx.Err() != nil {
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), syncFarewell)
			defer cancel()
			if c, cerr := s.cache.CancelWarm(last, &freshetv1.CancelWarmRequest{Id: r.GetWarm().GetId()}); cerr == nil {
				return a.warmCutShort(ctx, c.GetWarm())
			}
		}
		return err
	}
	if err := a.printWarms(j, j); err != nil {
		return err
	}
	for _, f := range j.GetFailures() {
		a.note("%s: %s", safe(f.GetPath()), f.GetError())
	}
	return warmOutcome(j)
}

// warmCutShort tells of a warm that ended with its command.
func (a *app) warmCutShort(ctx context.Context, j *freshetv1.WarmJob) error {
	return &exitError{code: freshet.KindDeadline.Info().Exit, err: fmt.Errorf("cache warm: %s: cancelled warm %d after %s in %s; what it brought stays",
		a.whyCutShort(ctx), j.GetId(), bytesText(j.GetWarmedBytes()), countText(j.GetFiles(), "file", "files"))}
}

// warmOutcome is the error of a warm that did not end well.
func warmOutcome(j *freshetv1.WarmJob) error {
	switch {
	case j.GetState() == string(freshet.SyncCancelled):
		return &freshet.Error{Op: "cache warm", Kind: freshet.KindDeadline, Err: errors.New("was cancelled")}
	case j.GetError() != "":
		return &freshet.Error{Kind: kindNamed(j.GetKind()), Err: errors.New(j.GetError())}
	case j.GetFailed() > 0:
		return &exitError{code: freshet.ExitPartly, err: fmt.Errorf("%s not cached as asked", countText(j.GetFailed(), "file is", "files are"))}
	}
	return nil
}

// kindNamed returns the kind of a name, internal if there is none.
func kindNamed(name string) freshet.Kind {
	for _, k := range freshet.Kinds() {
		if k.Name == name {
			return k.Kind
		}
	}
	return freshet.KindInternal
}

// followWarm draws the progress of a warm until it has ended.
func (a *app) followWarm(ctx context.Context, s *session, j *freshetv1.WarmJob) (*freshetv1.WarmJob, error) {
	defer a.endProgress()
	tick := time.NewTicker(syncPoll)
	defer tick.Stop()
	heard := time.Now()
	for !freshet.SyncState(j.GetState()).Ended() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, &freshet.Error{Op: "cache warm", Kind: freshet.KindDeadline, Err: context.Cause(ctx)}
		}
		r, err := s.cache.ListWarms(ctx, &freshetv1.ListWarmsRequest{Id: j.GetId()})
		switch {
		case err == nil && len(r.GetWarms()) == 1:
			j, heard = r.GetWarms()[0], time.Now()
			a.progress("%s", warmLine(j))
		case err != nil && (!freshet.IsKind(rpc.ErrorOf(err), freshet.KindUnavailable, freshet.KindNotLeader) || time.Since(heard) > syncPatience):
			return nil, err
		}
	}
	return j, nil
}

// warmLine is the progress of a warm in a line.
func warmLine(j *freshetv1.WarmJob) string {
	done := j.GetCachedBytes() + j.GetWarmedBytes()
	if !j.GetCounted() {
		return fmt.Sprintf("warm %d %s: %d files, %s warmed, %s cached before, %s/s  %s", j.GetId(), j.GetState(), j.GetFiles(),
			bytesText(j.GetWarmedBytes()), bytesText(j.GetCachedBytes()), bytesText(int64(warmRate(j))), safe(j.GetCurrent()))
	}
	share := ratio(done, j.GetTotalBytes())
	const width = 20
	full := min(int(share*width), width)
	line := fmt.Sprintf("warm %d %s: %3.0f%% [%s%s] %s/%s  %s/s", j.GetId(), j.GetState(), 100*min(share, 1), strings.Repeat("=", full), strings.Repeat(" ", width-full),
		bytesText(done), bytesText(j.GetTotalBytes()), bytesText(int64(warmRate(j))))
	if eta, ok := warmETA(j); ok {
		line += "  eta " + shortDuration(eta.Round(time.Second))
	}
	if j.GetFailed() > 0 {
		line += fmt.Sprintf("  %d failed", j.GetFailed())
	}
	return line
}

// warmRate is how many bytes the nodes fetched in a second.
func warmRate(j *freshetv1.WarmJob) float64 {
	if s := j.GetElapsed().AsDuration().Seconds(); s > 0 {
		return float64(j.GetWarmedBytes()) / s
	}
	return 0
}

// warmETA is how long the rest takes at the rate so far; false if nothing can be said.
func warmETA(j *freshetv1.WarmJob) (time.Duration, bool) {
	left := j.GetTotalBytes() - j.GetCachedBytes() - j.GetWarmedBytes()
	rate := warmRate(j)
	if !j.GetCounted() || left <= 0 || rate < 1 {
		return 0, false
	}
	seconds := float64(left) / rate
	if seconds > 1e7 {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

func (a *app) printWarms(out proto.Message, warms ...*freshetv1.WarmJob) error {
	return a.print(out, func(t *table) {
		head := []any{"ID", "STATE", "PATHS", "FILES", "WARMED", "CACHED BEFORE", "OF", "FAILED", "ELAPSED", "PER SECOND", "STARTED"}
		why := slices.ContainsFunc(warms, func(j *freshetv1.WarmJob) bool { return j.GetError() != "" })
		if why {
			head = append(head, "ERROR")
		}
		t.row(head...)
		for _, j := range warms {
			total := "-"
			if j.GetCounted() {
				total = bytesText(j.GetTotalBytes())
			}
			row := []any{
				j.GetId(), j.GetState(), pathsText(j.GetPaths()), j.GetFiles(), bytesText(j.GetWarmedBytes()), bytesText(j.GetCachedBytes()), total, j.GetFailed(),
				ageText(j.GetElapsed()), bytesText(int64(warmRate(j))), timeText(j.GetStartedAt()),
			}
			if why {
				row = append(row, dash(j.GetError()))
			}
			t.row(row...)
		}
	})
}

func pathsText(paths []string) string {
	const shown = 3
	if len(paths) > shown {
		return strings.Join(paths[:shown], ", ") + fmt.Sprintf(" and %d more", len(paths)-shown)
	}
	return strings.Join(paths, ", ")
}

func (a *app) cacheStatus() *cobra.Command {
	return &cobra.Command{
		Use: "status [ID]", Short: "Show the warms that run and the last ones that ended", Args: cobra.MaximumNArgs(1),
		Example: "  freshet cache status\n  freshet cache status 4711 -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &freshetv1.ListWarmsRequest{}
			if len(args) == 1 {
				var err error
				if req.Id, err = warmID(args[0]); err != nil {
					return err
				}
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.cache.ListWarms(ctx, req)
				if err != nil {
					return err
				}
				return a.printWarms(r, r.GetWarms()...)
			})
		},
	}
}

func (a *app) cacheCancel() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "cancel ID", Short: "End a warm; what it brought stays", Args: cobra.ExactArgs(1),
		Example: "  freshet cache cancel 4711",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := warmID(args[0])
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				j, err := cancelWarm(ctx, s, id, dryRun)
				if err != nil {
					return err
				}
				a.changed(dryRun, "cancelled warm %d of %s", j.GetId(), safe(pathsText(j.GetPaths())))
				return a.printWarms(j, j)
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, change nothing")
	return c
}

func cancelWarm(ctx context.Context, s *session, id uint64, dryRun bool) (*freshetv1.WarmJob, error) {
	if !dryRun {
		r, err := s.cache.CancelWarm(ctx, &freshetv1.CancelWarmRequest{Id: id})
		return r.GetWarm(), err
	}
	r, err := s.cache.ListWarms(ctx, &freshetv1.ListWarmsRequest{Id: id})
	if err != nil {
		return nil, err
	}
	j := r.GetWarms()[0]
	if s := freshet.SyncState(j.GetState()); s.Ended() && s != freshet.SyncCancelled {
		return nil, freshet.Errorf(freshet.KindConflict, "cache cancel", "", "the warm %d has ended before: %s", id, j.GetState())
	}
	return j, nil
}

// warmID reads the number of a warm.
func warmID(arg string) (uint64, error) {
	id, err := strconv.ParseUint(arg, 10, 64)
	if err != nil || id == 0 {
		return 0, freshet.Errorf(freshet.KindInvalid, "read arguments", "", "%q is not the number of a warm, as `freshet cache status` shows it", arg)
	}
	return id, nil
}
