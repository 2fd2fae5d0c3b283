package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

func (a *app) explainCommand() *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use: "explain PATH", Short: "Say why an entry is, or is not, fresh", Args: cobra.ExactArgs(1),
		Long: "explain says what is cached of a path, when and why it was last checked with the storage, which\n" +
			"rule decides about the next check, and how far other clusters' changes are known here.\n" +
			"With --check it also asks the storage, changes nothing, and exits with 7 if the cached version is another.",
		Example: "  freshet explain /sales/part-7.parquet --check",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				x, err := s.ns.Explain(ctx, &freshetv1.ExplainRequest{Path: args[0], Check: check})
				if err != nil {
					return err
				}
				if err := a.print(x, func(t *table) { explainTable(t, x) }); err != nil {
					return err
				}
				if differs(x) {
					return &exitError{code: freshet.ExitUnhealthy}
				}
				return nil
			})
		},
	}
	c.Flags().BoolVar(&check, "check", false, "ask the storage too")
	return c
}

// differs reports whether the storage was asked and holds another version than
// the one that would be served.
func differs(x *freshetv1.ExplainResponse) bool {
	v := x.GetStorage()
	if v == nil || v.GetError() != "" || x.GetVerdict() != "fresh" && x.GetVerdict() != "absent" {
		return false
	}
	if x.GetVerdict() == "absent" {
		return v.GetExists()
	}
	return !v.GetExists() || (x.GetEntry().GetKind() == freshet.TypeFile.String() && !v.GetSameContent())
}

func explainTable(t *table, x *freshetv1.ExplainResponse) {
	t.line(safe(x.GetPath()) + "   " + strings.ToUpper(x.GetVerdict()))
	t.row("  why", x.GetReason())
	if e := x.GetEntry(); e != nil {
		t.row("  cached", fmt.Sprintf("%s, %s, version %s", e.GetKind(), bytesText(e.GetLength()), e.GetFingerprint()))
	}
	if v := x.GetStorage(); v != nil {
		t.row("  storage", storageText(v))
	}
	f := x.GetFreshness()
	t.row("  last check", dash(x.GetLastValidation()))
	t.row("  rule", fmt.Sprintf("%s of %s (level %s)", f.GetInterval(), dash(f.GetRule()), f.GetLevel()))
	if f.GetDegraded() {
		t.row("  degraded", f.GetDegradedReason())
	}
	t.row("  next check", dash(x.GetNextCheck()))
	t.row("  marks", fmt.Sprintf("valid from log index %d, last invalidated at %d", x.GetValidFrom(), x.GetNeed()))
	if m := x.GetMount(); m != nil {
		t.row("  mount", fmt.Sprintf("%s -> %s", m.GetPath(), m.GetUfs()))
	}
	if s := x.GetActiveSync(); s != nil {
		t.row("  active sync", activeSyncText(&freshetv1.Mount{ActiveSync: s}))
	}
	for _, p := range x.GetPublishers() {
		t.row("  publisher", publisherText(p))
	}
	for _, i := range x.GetIntents() {
		t.row("  operation", i)
	}
	for _, b := range x.GetBlocks() {
		t.row("  block", fmt.Sprintf("%d, %s, on %s", b.GetIndex(), bytesText(b.GetLength()), dash(strings.Join(b.GetNodes(), ", "))))
	}
	if x.GetRemedy() != "" {
		t.row("  remedy", x.GetRemedy())
	}
}

func storageText(v *freshetv1.StorageView) string {
	switch {
	case v.GetError() != "":
		return "could not be asked: " + v.GetError()
	case !v.GetExists():
		return "does not have it"
	}
	same := "another version"
	if v.GetSameContent() {
		same = "the same content"
		if !v.GetSameMeta() {
			same += ", other owner or mode"
		}
	}
	return fmt.Sprintf("%s, %s, version %s", same, bytesText(v.GetLength()), v.GetFingerprint())
}

func publisherText(p *freshetv1.PublisherStatus) string {
	return fmt.Sprintf("%s %s: %d of %d changes known here, last contact %s ago",
		p.GetCluster(), p.GetState(), p.GetApplied(), p.GetHead(), ageText(p.GetSinceContact()))
}
