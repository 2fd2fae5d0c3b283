package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/ufs/all"
)

func (a *app) configCommand() *cobra.Command {
	var insecure bool
	validate := &cobra.Command{
		Use: "validate FILE…", Short: "Check configuration files; exits with 2 and the place of every mistake", Args: cobra.MinimumNArgs(1),
		Example: "  freshet config validate /etc/freshet/*.yaml",
		RunE: func(_ *cobra.Command, args []string) error {
			var bad []string
			for _, name := range args {
				if err := validateFile(name, insecure); err != nil {
					bad = append(bad, err.Error())
					continue
				}
				a.note("%s: ok", name)
			}
			if len(bad) > 0 {
				return &exitError{code: freshet.ExitUsage, err: fmt.Errorf("%s", strings.Join(bad, "\n"))}
			}
			return nil
		},
	}
	validate.Flags().BoolVar(&insecure, "insecure", false, "accept plain text on addresses that others can reach")
	return group("config", "Check configuration files", "  freshet config validate coordinator.yaml", validate)
}

func validateFile(name string, insecure bool) error {
	f, err := config.Read(name)
	if err != nil {
		return err
	}
	return f.Validate(config.ValidateOptions{Name: name, Role: f.GuessRole(), Insecure: insecure, UFS: all.Openers(nil, nil)})
}

// step is one change of a plan.
type step struct {
	Action string `json:"action"` // "add", "update", "remove"
	What   string `json:"what"`   // "mount", "sync"
	Path   string `json:"path"`
	Detail string `json:"detail"`

	do func(ctx context.Context, s *session) error
}

func (a *app) planCommand() *cobra.Command {
	var file string
	var prune bool
	c := &cobra.Command{
		Use: "plan -f FILE", Short: "Show what apply would change", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.apply(cmd, file, prune, true) },
	}
	c.Flags().StringVarP(&file, "file", "f", "", "YAML file with mounts and sync")
	c.Flags().BoolVar(&prune, "prune", false, "also remove what apply made before and the file no longer has")
	_ = c.MarkFlagRequired("file") // fails only for a flag that is not there
	return c
}

func (a *app) applyCommand() *cobra.Command {
	var file string
	var prune, dryRun bool
	c := &cobra.Command{
		Use: "apply -f FILE", Short: "Make the mounts and sync intervals of a running cluster those of a file", Args: cobra.NoArgs,
		Long: "apply adds and updates the mounts and sync intervals that the file names. What the file does not\n" +
			"name stays, unless --prune is given: then what an earlier apply made and the file no longer has is removed.",
		Example: "  freshet apply -f lake.yaml --dry-run\n  freshet apply -f lake.yaml",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.apply(cmd, file, prune, dryRun) },
	}
	c.Flags().StringVarP(&file, "file", "f", "", "YAML file with mounts and sync")
	c.Flags().BoolVar(&prune, "prune", false, "also remove what apply made before and the file no longer has")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "show the changes, change nothing")
	_ = c.MarkFlagRequired("file") // fails only for a flag that is not there
	return c
}

func (a *app) apply(cmd *cobra.Command, name string, prune, dryRun bool) error {
	f, err := config.Read(name)
	if err != nil {
		return err
	}
	if err := f.Validate(config.ValidateOptions{Name: name, Role: config.RoleApply, UFS: all.Openers(nil, nil)}); err != nil {
		return err
	}
	return a.with(cmd, func(ctx context.Context, s *session) error {
		steps, err := plan(ctx, s, f, prune)
		if err != nil {
			return err
		}
		if err := a.printValue(steps, func(t *table) { planTable(t, steps) }); err != nil {
			return err
		}
		if dryRun || len(steps) == 0 {
			a.note("%d changes; nothing changed", len(steps))
			return nil
		}
		for i, st := range steps {
			if err := st.do(ctx, s); err != nil {
				if i == 0 {
					return err
				}
				return &exitError{code: freshet.ExitPartly, err: fmt.Errorf("%d of %d changes made, then: %w", i, len(steps), err)}
			}
		}
		a.note("%d changes made", len(steps))
		return nil
	})
}

func planTable(t *table, steps []step) {
	signs := map[string]string{"add": "+", "update": "~", "remove": "-"}
	for _, st := range steps {
		t.row(signs[st.Action], st.What, st.Path, st.Detail)
	}
}

// plan compares the file with the cluster. Mounts come before intervals, outer
// mounts before those nested in them, removals last and from the inside out.
func plan(ctx context.Context, s *session, f *config.File, prune bool) ([]step, error) {
	have, _, err := s.coord.Mounts(ctx, "")
	if err != nil {
		return nil, err
	}
	mounts, removals, err := planMounts(f, have, prune)
	if err != nil {
		return nil, err
	}
	rules, err := s.coord.Policies(ctx, "")
	if err != nil {
		return nil, err
	}
	policies, err := planPolicies(f, rules, prune)
	if err != nil {
		return nil, err
	}
	return slices.Concat(mounts, policies, removals), nil
}

func planMounts(f *config.File, have []freshet.MountAnswer, prune bool) (changes, removals []step, err error) {
	byPath := map[freshet.Path]freshet.Mount{}
	for _, m := range have {
		byPath[m.Mount.Path] = m.Mount
	}
	wanted := map[freshet.Path]bool{}
	for _, m := range f.Mounts {
		c, err := m.Change("apply")
		if err != nil {
			return nil, nil, err
		}
		wanted[c.Path] = true
		old, exists := byPath[c.Path]
		if !exists {
			changes = append(changes, step{
				Action: "add", What: "mount", Path: string(c.Path), Detail: m.UFS,
				do: func(ctx context.Context, s *session) error { _, err := s.coord.AddMount(ctx, c); return err },
			})
			continue
		}
		if detail := mountDifference(old, &c); detail != "" {
			c.IfGeneration = old.Generation
			changes = append(changes, step{
				Action: "update", What: "mount", Path: string(c.Path), Detail: detail,
				do: func(ctx context.Context, s *session) error { _, err := s.coord.UpdateMount(ctx, c); return err },
			})
		}
	}
	slices.SortStableFunc(changes, func(x, y step) int { return strings.Compare(x.Path, y.Path) })
	for _, m := range have {
		if p := m.Mount.Path; prune && !wanted[p] && m.Mount.Origin == "apply" {
			removals = append(removals, step{
				Action: "remove", What: "mount", Path: string(p), Detail: m.Mount.URI,
				do: func(ctx context.Context, s *session) error {
					_, err := s.coord.RemoveMount(ctx, p, freshet.RemoveMountOptions{})
					return err
				},
			})
		}
	}
	slices.SortStableFunc(removals, func(x, y step) int { return strings.Compare(y.Path, x.Path) })
	return changes, removals, nil
}

// mountDifference says in words what c changes of old, and completes c so that
// options which the file no longer has are removed.
func mountDifference(old freshet.Mount, c *freshet.MountChange) string {
	var parts []string
	note := func(what string, from, to any) {
		if from != to {
			parts = append(parts, fmt.Sprintf("%s: %v -> %v", what, from, to))
		}
	}
	note("ufs", old.URI, *c.URI)
	note("read_only", old.ReadOnly, *c.ReadOnly)
	note("level", old.Level, *c.Level)
	note("active_sync", old.ActiveSync, *c.ActiveSync)
	if c.Interval != nil {
		note("interval", old.Interval, *c.Interval)
	}
	if c.DegradedInterval != nil {
		note("degraded_interval", old.DegradedInterval, *c.DegradedInterval)
	}
	if c.Options == nil {
		c.Options = map[string]string{}
	}
	if !maps.Equal(old.Options, c.Options) {
		parts = append(parts, fmt.Sprintf("options: %s -> %s", optionsText(old.Options), optionsText(c.Options)))
		for k := range old.Options {
			if _, keep := c.Options[k]; !keep {
				c.Options[k] = ""
			}
		}
	}
	return strings.Join(parts, ", ")
}

func planPolicies(f *config.File, have []freshet.SyncPolicy, prune bool) ([]step, error) {
	byPath := map[freshet.Path]freshet.SyncPolicy{}
	for _, rule := range have {
		if rule.Origin != "mount" {
			byPath[rule.Path] = rule
		}
	}
	wanted := map[freshet.Path]bool{}
	var steps []step
	for _, r := range f.Sync {
		rule, err := r.Policy("apply")
		if err != nil {
			return nil, err
		}
		wanted[rule.Path] = true
		old, exists := byPath[rule.Path]
		if exists && old.Interval == rule.Interval {
			continue
		}
		st := step{
			Action: "add", What: "sync", Path: string(rule.Path), Detail: rule.Interval.String(),
			do: func(ctx context.Context, s *session) error { _, err := s.coord.SetPolicy(ctx, rule, false); return err },
		}
		if exists {
			st.Action, st.Detail = "update", fmt.Sprintf("interval: %v -> %v", old.Interval, rule.Interval)
		}
		steps = append(steps, st)
	}
	for p, rule := range byPath {
		if prune && !wanted[p] && rule.Origin == "apply" {
			steps = append(steps, step{
				Action: "remove", What: "sync", Path: string(p), Detail: rule.Interval.String(),
				do: func(ctx context.Context, s *session) error { _, err := s.coord.RemovePolicy(ctx, p, false); return err },
			})
		}
	}
	slices.SortStableFunc(steps, func(x, y step) int { return strings.Compare(x.Path, y.Path) })
	return steps, nil
}
