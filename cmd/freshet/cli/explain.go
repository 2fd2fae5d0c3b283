package cli

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
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
			"rule decides about the next check, which policies and quotas apply, and how far other clusters'\n" +
			"changes are known here.\n" +
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

// explainTable writes an explanation for people: what the verdict is and why, the
// two versions side by side, the rule, and what the verdict rests on.
func explainTable(t *table, x *freshetv1.ExplainResponse) {
	t.line(safe(x.GetPath()) + "   " + strings.ToUpper(x.GetVerdict()))
	t.row("  why", x.GetReason())
	f := x.GetFreshness()
	t.row("  last check", dash(x.GetLastValidation()))
	t.row("  rule", ruleText(x))
	t.row("  next check", dash(x.GetNextCheck()))
	if f.GetDegraded() {
		t.row("  degraded", brief(f.GetDegradedReason()))
	}
	if m := x.GetMount(); m != nil {
		t.row("  mount", fmt.Sprintf("%s -> %s", m.GetPath(), m.GetUfs()))
	}
	if s := x.GetActiveSync(); s != nil {
		t.row("  active sync", explainActive(x))
	}
	if r := x.GetReplication(); r != nil {
		t.row("  copies", copiesText(r))
	}
	if x.GetRemedy() != "" {
		t.row("  remedy", x.GetRemedy())
	}
	sidesTable(t, x)
	settingRows(t, x)
	stampsTable(t, x)
	if len(x.GetPublishers()) > 0 {
		t.line("")
		t.row("  PUBLISHER", "STATE", "APPLIED", "HEAD", "LAG", "LAST CONTACT")
		for _, p := range x.GetPublishers() {
			t.row("  "+p.GetCluster(), p.GetState(), p.GetApplied(), p.GetHead(), max(p.GetHead(), p.GetApplied())-p.GetApplied(), agoText(p.GetSinceContact()))
		}
	}
	if len(x.GetOperations()) > 0 {
		t.line("")
		operationsTable(t, x.GetOperations())
	}
	if len(x.GetBlocks()) > 0 {
		t.line("")
		blocksTable(t, x.GetBlocks())
		if n := x.GetMoreBlocks(); n > 0 {
			t.line(fmt.Sprintf("  and %d more blocks, which are not counted here", n))
		}
	}
}

// copiesText says how many copies of the cached blocks are wanted, and why there are
// not as many.
func copiesText(r *freshetv1.ExplainReplication) string {
	text := fmt.Sprintf("at least %d", r.GetMin())
	if r.GetMax() > 0 {
		text += fmt.Sprintf(", at most %d", r.GetMax())
	}
	if r.GetShortBlocks() > 0 {
		text += fmt.Sprintf("; %d blocks have fewer", r.GetShortBlocks())
	}
	if r.GetReason() != "" {
		text += ": " + r.GetReason()
	}
	return text
}

func ruleText(x *freshetv1.ExplainResponse) string {
	f := x.GetFreshness()
	if f.GetLevel() == "" && x.GetMount() == nil {
		return "-"
	}
	text := fmt.Sprintf("%s, set for %s", f.GetInterval(), dash(f.GetRule()))
	if x.GetRuleOrigin() != "" {
		text += fmt.Sprintf(" (%s)", x.GetRuleOrigin())
	}
	return text + ", level " + dash(f.GetLevel())
}

// settingRows show what applies to the path and where it is set, and the quotas that
// count it.
func settingRows(t *table, x *freshetv1.ExplainResponse) {
	if len(x.GetEffective()) > 0 {
		t.line("")
		t.row("  PROPERTY", "VALUE", "SET FOR", "BY")
		for _, s := range x.GetEffective() {
			t.row("  "+s.GetProperty(), s.GetValue(), dash(s.GetPath()), s.GetOrigin())
		}
	}
	if len(x.GetQuotas()) == 0 {
		return
	}
	t.line("")
	t.row("  QUOTA OF", "ENTRIES", "OF", "BYTES", "OF", "USED", "STATE", "SET BY")
	for _, w := range x.GetQuotas() {
		t.row(quotaCells("  "+w.GetPath(), w)...)
	}
}

// explainActive is activeSyncText, without what the line on the degradation says.
func explainActive(x *freshetv1.ExplainResponse) string {
	s := x.GetActiveSync()
	switch {
	case s.GetConnecting() && !s.GetHeard():
		return s.GetSource() + ", connecting"
	case !s.GetHeard() && x.GetFreshness().GetDegraded():
		return s.GetSource() + ", not heard"
	}
	return brief(activeSyncText(&freshetv1.Mount{ActiveSync: s}))
}

// brief bounds texts that come from elsewhere; all of them is in -o json.
func brief(s string) string {
	const most = 160
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// sidesTable shows what is cached and, if it was asked, what the storage has.
func sidesTable(t *table, x *freshetv1.ExplainResponse) {
	e, v := x.GetEntry(), x.GetStorage()
	if e == nil && v == nil {
		return
	}
	t.line("")
	if v == nil {
		t.row("  ", "CACHED")
		for _, r := range entryRows(e) {
			t.row("  "+r[0], r[1])
		}
		return
	}
	t.row("  ", "CACHED", "STORAGE")
	cached, storage := entryRows(e), viewRows(v)
	for i := range cached {
		t.row("  "+cached[i][0], cached[i][1], storage[i])
	}
	t.row("  in all", "", storageText(v))
}

func entryRows(e *freshetv1.Entry) [][2]string {
	rows := [][2]string{{"kind", "-"}, {"size", "-"}, {"modified", "-"}, {"owner, mode", "-"}, {"version", "-"}, {"block size", "-"}}
	if e == nil {
		rows[0][1] = "nothing"
		return rows
	}
	rows[0][1], rows[2][1], rows[3][1] = e.GetKind(), timeText(e.GetMtime()), ownerText(e)
	if e.GetKind() == freshet.TypeFile.String() {
		rows[1][1], rows[4][1], rows[5][1] = bytesText(e.GetLength()), e.GetFingerprint(), freshet.FormatSize(e.GetBlockSize())
	}
	return rows
}

func viewRows(v *freshetv1.StorageView) []string {
	switch {
	case v.GetError() != "":
		return []string{"?", "?", "?", "?", "?", "-"}
	case !v.GetExists():
		return []string{"nothing", "-", "-", "-", "-", "-"}
	}
	kind, owner := "-", "-"
	if e := v.GetEntry(); e != nil {
		kind, owner = e.GetKind(), ownerText(e)
	}
	size, version := bytesText(v.GetLength()), v.GetFingerprint()
	if kind == freshet.TypeDirectory.String() {
		size, version = "-", "-"
	}
	return []string{kind, size, timeText(v.GetMtime()), owner, version, "-"}
}

func ownerText(e *freshetv1.Entry) string {
	if e.GetOwner() == "" && e.GetGroup() == "" && e.GetMode() == 0 {
		return "-"
	}
	if e.GetOwner() == "" && e.GetGroup() == "" { // the storage says who, once it has the file
		return fmt.Sprintf("- %04o", e.GetMode())
	}
	return fmt.Sprintf("%s:%s %04o", e.GetOwner(), e.GetGroup(), e.GetMode())
}

func stampsTable(t *table, x *freshetv1.ExplainResponse) {
	t.line("")
	if x.GetValidFrom() == math.MaxUint64 { // nothing that is said of the storage concerns it
		t.line(fmt.Sprintf("  not in the storage yet, last invalidated at log index %d", x.GetNeed()))
	} else {
		t.line(fmt.Sprintf("  held from log index %d on, last invalidated at %d", x.GetValidFrom(), x.GetNeed()))
	}
	if len(x.GetStamps()) == 0 {
		return
	}
	t.row("  STAMP", "SET AT", "LOG INDEX", "WHEN", "BECAUSE OF")
	for _, s := range x.GetStamps() {
		t.row("  "+s.GetKind(), s.GetPath(), s.GetIndex(), timeText(s.GetAt()), s.GetCause())
	}
}

// operationsTable lists unfinished operations, each with what to do about it.
func operationsTable(t *table, all []*freshetv1.Operation) {
	t.row("  OPERATION", "KIND", "STATE", "SINCE", "UNTIL", "PATH")
	for _, o := range all {
		path := o.GetPath()
		if o.GetTarget() != "" {
			path += " -> " + o.GetTarget()
		}
		if o.GetNode() != "" {
			path += "  (node " + o.GetNode() + ")"
		}
		t.row("  "+o.GetId(), o.GetKind(), o.GetState(), timeText(o.GetSince()), timeText(o.GetUntil()), path)
	}
	for i, o := range all {
		if i == 0 || o.GetRemedy() != all[i-1].GetRemedy() {
			t.line("  " + safe(o.GetRemedy()))
		}
	}
}

// blocksTable sums the blocks up by node: a file may have many thousands.
func blocksTable(t *table, blocks []*freshetv1.ExplainBlock) {
	type sum struct {
		blocks, bytes int64
		ranges        []string
		first, last   uint32
	}
	nodes := map[string]*sum{}
	closeRange := func(s *sum) {
		text := fmt.Sprint(s.first)
		if s.last > s.first {
			text = fmt.Sprintf("%d-%d", s.first, s.last)
		}
		s.ranges = append(s.ranges, text)
	}
	for _, b := range blocks {
		for _, name := range b.GetNodes() {
			s := nodes[name]
			switch {
			case s == nil:
				s = &sum{first: b.GetIndex()}
				nodes[name] = s
			case b.GetIndex() != s.last+1:
				closeRange(s)
				s.first = b.GetIndex()
			}
			s.last = b.GetIndex()
			s.blocks++
			s.bytes += b.GetLength()
		}
	}
	t.row("  NODE", "BLOCKS", "BYTES", "WHICH")
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		s := nodes[name]
		closeRange(s)
		which := strings.Join(s.ranges[:min(len(s.ranges), maxRanges)], ", ")
		if len(s.ranges) > maxRanges {
			which += ", …"
		}
		t.row("  "+name, s.blocks, bytesText(s.bytes), which)
	}
}

// maxRanges is how many ranges of blocks a line names.
const maxRanges = 8

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
	return same
}
