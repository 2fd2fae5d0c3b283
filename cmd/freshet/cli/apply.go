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
			var all []fileVerdict
			for _, name := range args {
				err := validateFile(name, insecure)
				all = append(all, fileVerdict{File: name, OK: err == nil})
				if err != nil {
					bad = append(bad, err.Error())
					all[len(all)-1].Error = err.Error()
					continue
				}
				a.note("%s: ok", name)
			}
			if a.output != "table" {
				if err := a.printValue(all, nil); err != nil {
					return err
				}
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

// fileVerdict is what a check of a configuration file found.
type fileVerdict struct {
	File  string `json:"file"`
	OK    bool   `json:"ok"`
	Error string `json:"error"`
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
	What   string `json:"what"`   // "mount", "policy", "quota", "sync": a policy of the sync interval alone
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
	c.Flags().StringVarP(&file, "file", "f", "", "YAML file with mounts, sync, policies and quotas")
	c.Flags().BoolVar(&prune, "prune", false, "also remove what apply made before and the file no longer has")
	_ = c.MarkFlagRequired("file") // fails only for a flag that is not there
	return c
}

func (a *app) applyCommand() *cobra.Command {
	var file string
	var prune, dryRun bool
	c := &cobra.Command{
		Use: "apply -f FILE", Short: "Make the mounts, sync intervals, policies and quotas of a running cluster those of a file", Args: cobra.NoArgs,
		Long: "apply adds and updates the mounts, sync intervals, policies and quotas that the file names. What the file does\n" +
			"not name stays, unless --prune is given: then what an earlier apply made and the file no longer has is removed.",
		Example: "  freshet apply -f lake.yaml --dry-run\n  freshet apply -f lake.yaml",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.apply(cmd, file, prune, dryRun) },
	}
	c.Flags().StringVarP(&file, "file", "f", "", "YAML file with mounts, sync, policies and quotas")
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
			a.note("%s; nothing changed", countText(len(steps), "change", "changes"))
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
		a.note("%s made", countText(len(steps), "change", "changes"))
		return nil
	})
}

func planTable(t *table, steps []step) {
	signs := map[string]string{"add": "+", "update": "~", "remove": "-"}
	for _, st := range steps {
		t.row(signs[st.Action], st.What, st.Path, st.Detail)
	}
}

// plan compares the file with the cluster. Mounts come before policies and these
// before quotas, outer mounts before those nested in them; mounts are removed last
// and from the inside out.
func plan(ctx context.Context, s *session, f *config.File, prune bool) ([]step, error) {
	have, _, err := s.coord.Mounts(ctx, "")
	if err != nil {
		return nil, err
	}
	mounts, removals, err := planMounts(f, have, prune)
	if err != nil {
		return nil, err
	}
	held, err := s.coord.PathPolicies(ctx, "")
	if err != nil {
		return nil, err
	}
	policies, err := planPolicies(f, held.Policies, prune)
	if err != nil {
		return nil, err
	}
	limited, err := s.coord.Quotas(ctx, "")
	if err != nil {
		return nil, err
	}
	quotas, err := planQuotas(f, limited, prune)
	if err != nil {
		return nil, err
	}
	return slices.Concat(mounts, policies, quotas, removals), nil
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

// whatOf names a change: "sync" if it is of the sync interval alone.
func whatOf(c *freshet.PolicyChange) string {
	if len(c.Set)+len(c.Unset) > 0 && !slices.ContainsFunc(c.Set, func(s freshet.Setting) bool { return s.Property != freshet.PropertySyncInterval }) &&
		!slices.ContainsFunc(c.Unset, func(p freshet.Property) bool { return p != freshet.PropertySyncInterval }) {
		return "sync"
	}
	return "policy"
}

// planPolicies compares what the file sets with what is set at its paths, property
// by property; with prune, what an earlier apply set and the file does not name is
// unset.
func planPolicies(f *config.File, have []freshet.Policy, prune bool) ([]step, error) {
	held := map[freshet.Path][]freshet.Setting{}
	for _, p := range have {
		held[p.Path] = append(held[p.Path], slices.DeleteFunc(slices.Clone(p.Settings), func(s freshet.Setting) bool { return s.Origin == freshet.OriginMount })...)
	}
	wanted, err := f.PolicyChanges(freshet.OriginApply)
	if err != nil {
		return nil, err
	}
	var steps []step
	for _, c := range wanted {
		if st, ok := policyStep(c, held[c.Path], prune); ok {
			steps = append(steps, st)
		}
		delete(held, c.Path)
	}
	for p, settings := range held {
		if st, ok := policyStep(freshet.PolicyChange{Path: p, Origin: freshet.OriginApply}, settings, prune); ok {
			steps = append(steps, st)
		}
	}
	slices.SortStableFunc(steps, func(x, y step) int { return strings.Compare(x.Path, y.Path) })
	return steps, nil
}

// policyStep makes the step that makes what is held at a path what c wants, false
// if it is that already.
func policyStep(c freshet.PolicyChange, held []freshet.Setting, prune bool) (step, bool) {
	old := map[freshet.Property]freshet.Setting{}
	for _, s := range held {
		old[s.Property] = s
	}
	var detail []string
	action := "add"
	wanted := map[freshet.Property]bool{}
	set := []freshet.Setting{}
	for _, s := range c.Set {
		wanted[s.Property] = true
		was, exists := old[s.Property]
		switch {
		case exists && was.Value == s.Value:
			continue
		case exists:
			action = "update"
			detail = append(detail, fmt.Sprintf("%s: %s -> %s", s.Property, was.Value, s.Value))
		default:
			detail = append(detail, fmt.Sprintf("%s: %s", s.Property, s.Value))
		}
		set = append(set, s)
	}
	for _, s := range held {
		if prune && !wanted[s.Property] && s.Origin == freshet.OriginApply {
			c.Unset = append(c.Unset, s.Property)
			detail = append(detail, fmt.Sprintf("%s: %s -> inherited", s.Property, s.Value))
		}
	}
	c.Set = set
	switch {
	case len(c.Set) == 0 && len(c.Unset) == 0:
		return step{}, false
	case len(c.Set) == 0:
		action = "remove"
	case len(c.Unset) > 0:
		action = "update"
	}
	return step{
		Action: action, What: whatOf(&c), Path: string(c.Path), Detail: strings.Join(detail, ", "),
		do: func(ctx context.Context, s *session) error { _, err := s.coord.ChangePolicy(ctx, c); return err },
	}, true
}
