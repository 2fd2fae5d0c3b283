package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
	"github.com/freshet-io/freshet/ufs"
)

func group(use, short, example string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Example: example,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(subs...)
	return c
}

func (a *app) mountCommand() *cobra.Command {
	return group("mount", "Attach storages to paths while the cluster serves",
		"  freshet mount add /sales s3://acme-sales --option region=eu-west-1 --option credentials=env\n"+
			"  freshet mount ls\n"+
			"  freshet mount update /sales --read-only\n"+
			"  freshet mount rm /sales",
		a.mountAdd(), a.mountList(), a.mountShow(), a.mountUpdate(), a.mountRemove())
}

// mountFlags are shared by add and update.
type mountFlags struct {
	options          []string
	readOnly         bool
	level            string
	interval         string
	degradedInterval string
	activeSync       bool
	dryRun           bool
}

func (f *mountFlags) register(c *cobra.Command) {
	fl := c.Flags()
	fl.StringArrayVar(&f.options, "option", nil, "option of the storage, key=value; repeatable; secrets as references only (env:NAME, file:/path, iam)")
	fl.BoolVar(&f.readOnly, "read-only", false, "refuse changes below the mount")
	fl.StringVar(&f.level, "consistency", "", "consistency level: invalidate (default) or interval")
	fl.StringVar(&f.interval, "sync-interval", "", "always, never or a duration; required under --consistency interval")
	fl.StringVar(&f.degradedInterval, "degraded-interval", "", "sync interval while another cluster is out of contact (default 1m)")
	fl.BoolVar(&f.activeSync, "active-sync", false, "listen to the storage's own notices of changes; while one that tells of every change is heard, the sync interval is suspended")
	fl.BoolVar(&f.dryRun, "dry-run", false, "check everything, change nothing")
}

func (f *mountFlags) parseOptions() (map[string]string, error) {
	out := map[string]string{}
	for _, o := range f.options {
		k, v, ok := strings.Cut(o, "=")
		if !ok || k == "" {
			return nil, freshet.Errorf(freshet.KindInvalid, "read flags", "", "--option %q is not key=value", o)
		}
		out[k] = v
	}
	return out, nil
}

func (f *mountFlags) consistency(c *cobra.Command) *freshetv1.Consistency {
	out := &freshetv1.Consistency{Level: f.level, Interval: f.interval, DegradedInterval: f.degradedInterval}
	if c.Flags().Changed("active-sync") {
		out.ActiveSync = &f.activeSync
	}
	return out
}

func (a *app) mountAdd() *cobra.Command {
	var f mountFlags
	c := &cobra.Command{
		Use: "add PATH URI", Short: "Attach a storage to a path", Args: cobra.ExactArgs(2),
		Example: "  freshet mount add / file:///srv/lake\n" +
			"  freshet mount add /logs s3://logs/raw --option endpoint=http://minio.internal:9000 --read-only\n" +
			"  freshet mount add /nfs file:///mnt/nfs --consistency interval --sync-interval 30s",
		RunE: func(cmd *cobra.Command, args []string) error {
			options, err := f.parseOptions()
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.mounts.AddMount(ctx, &freshetv1.AddMountRequest{
					Path: args[0], Ufs: args[1], Options: options, ReadOnly: f.readOnly, Consistency: f.consistency(cmd),
					DryRun: f.dryRun, Origin: "operator", OpId: rpc.NewOpID(),
				})
				if err != nil {
					return err
				}
				a.changed(f.dryRun, "mounted %s at %s", r.GetMount().GetUfs(), r.GetMount().GetPath())
				return a.printMount(r.GetMount(), r.GetNotes())
			})
		},
	}
	f.register(c)
	return c
}

// changed says what was done, or would be.
func (a *app) changed(dryRun bool, format string, args ...any) {
	if dryRun {
		format = "dry run, nothing changed; would have " + format
	}
	a.note(format, args...)
}

func (a *app) printMount(mount *freshetv1.Mount, notes []string) error {
	for _, n := range notes {
		a.note("note: %s", n)
	}
	return a.print(mount, func(t *table) { mountDetail(t, mount) })
}

func mountDetail(t *table, m *freshetv1.Mount) {
	t.row("path", m.GetPath())
	t.row("storage", m.GetUfs())
	t.row("options", optionsText(m.GetOptions()))
	t.row("read only", yesNo(m.GetReadOnly()))
	c := m.GetConsistency()
	t.row("consistency", c.GetLevel())
	t.row("sync interval", c.GetInterval())
	t.row("degraded interval", c.GetDegradedInterval())
	t.row("domain", m.GetDomain()+" "+m.GetDomainKey())
	t.row("active sync", activeSyncText(m))
	t.row("state", mountState(m))
	t.row("id, generation", m.GetId(), m.GetGeneration())
	t.row("origin", m.GetOrigin())
	t.row("created", timeText(m.GetCreatedAt()))
}

func optionsText(o map[string]string) string {
	parts := make([]string, 0, len(o))
	for k, v := range o {
		parts = append(parts, k+"="+v)
	}
	slices.Sort(parts)
	return dash(strings.Join(parts, ","))
}

// cachingText shows what the mount says of what cache nodes keep.
func cachingText(o map[string]string) string {
	own := map[string]string{}
	for _, k := range []string{ufs.OptionPartialCaching, ufs.OptionPassiveCaching} {
		if v, ok := o[k]; ok {
			own[k] = v
		}
	}
	return optionsText(own)
}

func mountState(m *freshetv1.Mount) string {
	if m.GetDegraded() && m.GetActiveSync().GetConnecting() {
		return "connecting: the storage's notices are not heard yet, until then entries are checked by time"
	}
	if m.GetDegraded() {
		return "DEGRADED: " + m.GetDegradedReason()
	}
	return "ok"
}

// stateWord is mountState for a column.
func stateWord(m *freshetv1.Mount) string {
	state, _, _ := strings.Cut(mountState(m), ":")
	return state
}

// activeSyncText says whether the storage's own notices are heard.
func activeSyncText(m *freshetv1.Mount) string {
	s := m.GetActiveSync()
	switch {
	case s == nil:
		return yesNo(m.GetConsistency().GetActiveSync())
	case !s.GetHeard() && s.GetConnecting():
		return s.GetSource() + ", connecting"
	case !s.GetHeard():
		return fmt.Sprintf("%s, %s", s.GetSource(), s.GetReason())
	}
	text := fmt.Sprintf("%s, heard since %s", s.GetSource(), timeText(s.GetHeardSince()))
	if s.GetSinceNotice() != nil {
		text += fmt.Sprintf(", last word %s ago", ageText(s.GetSinceNotice()))
	}
	if !s.GetComplete() {
		text += ", may miss changes: the sync interval applies too"
	}
	return text
}

// activeWord is activeSyncText for a column.
func activeWord(m *freshetv1.Mount) string {
	switch {
	case !m.GetConsistency().GetActiveSync():
		return "-"
	case m.GetActiveSync().GetHeard():
		return "heard"
	case m.GetActiveSync().GetConnecting():
		return "connecting"
	}
	return "silent"
}

func (a *app) mountList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the mounts", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.mounts.ListMounts(ctx, &freshetv1.ListMountsRequest{})
				if err != nil {
					return err
				}
				return a.print(r, func(t *table) {
					t.row("PATH", "STORAGE", "ACCESS", "CONSISTENCY", "INTERVAL", "ACTIVE", "CACHING", "STATE", "ORIGIN")
					for _, m := range r.GetMounts() {
						access := "rw"
						if m.GetReadOnly() {
							access = "ro"
						}
						t.row(m.GetPath(), m.GetUfs(), access, m.GetConsistency().GetLevel(), m.GetConsistency().GetInterval(), activeWord(m), cachingText(m.GetOptions()), stateWord(m), m.GetOrigin())
					}
				})
			})
		},
	}
}

func (a *app) mountShow() *cobra.Command {
	return &cobra.Command{
		Use: "show PATH", Short: "Show one mount", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.mounts.ListMounts(ctx, &freshetv1.ListMountsRequest{Path: args[0]})
				if err != nil {
					return err
				}
				if len(r.GetMounts()) == 0 {
					return freshet.Errorf(freshet.KindNotExist, "mount show", freshet.Path(args[0]), "is not a mount point; see 'freshet mount ls'")
				}
				return a.print(r.GetMounts()[0], func(t *table) { mountDetail(t, r.GetMounts()[0]) })
			})
		},
	}
}

func (a *app) mountUpdate() *cobra.Command {
	var f mountFlags
	var uri string
	c := &cobra.Command{
		Use: "update PATH", Short: "Change settings of a mount; what is not given stays", Args: cobra.ExactArgs(1),
		Example: "  freshet mount update /sales --sync-interval 5m\n" +
			"  freshet mount update /sales --read-only=false\n" +
			"  freshet mount update /sales --option region=eu-west-3 --option endpoint=   # an empty value removes one",
		RunE: func(cmd *cobra.Command, args []string) error {
			options, err := f.parseOptions()
			if err != nil {
				return err
			}
			req := &freshetv1.UpdateMountRequest{
				Path: args[0], Options: options, Consistency: f.consistency(cmd), DryRun: f.dryRun, Origin: "operator",
			}
			if cmd.Flags().Changed("read-only") {
				req.ReadOnly = &f.readOnly
			}
			if cmd.Flags().Changed("ufs") {
				req.Ufs = &uri
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				req.OpId = rpc.NewOpID()
				r, err := s.mounts.UpdateMount(ctx, req)
				if err != nil {
					return err
				}
				a.changed(f.dryRun, "updated %s", r.GetMount().GetPath())
				return a.printMount(r.GetMount(), r.GetNotes())
			})
		},
	}
	f.register(c)
	c.Flags().StringVar(&uri, "ufs", "", "another URI of the storage; everything cached below the mount is checked again")
	return c
}

func (a *app) mountRemove() *cobra.Command {
	var dryRun, force bool
	c := &cobra.Command{
		Use: "rm PATH", Aliases: []string{"remove"}, Short: "Detach a storage; nothing in the storage is touched", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.mounts.RemoveMount(ctx, &freshetv1.RemoveMountRequest{Path: args[0], DryRun: dryRun, Force: force, OpId: rpc.NewOpID()})
				if err != nil {
					return err
				}
				a.changed(dryRun, "detached %s from %s", r.GetMount().GetUfs(), r.GetMount().GetPath())
				return a.printMount(r.GetMount(), nil)
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, change nothing")
	c.Flags().BoolVar(&force, "force", false, "also with unfinished operations below the mount")
	return c
}
