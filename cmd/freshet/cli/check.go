package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

func (a *app) checkCommand() *cobra.Command {
	var recursive, dryRun bool
	req := &freshetv1.CheckRequest{}
	c := &cobra.Command{
		Use: "check PATH", Short: "Compare what is cached with the storage, in both directions", Args: cobra.ExactArgs(1),
		Long: "check looks at everything that is cached at and below a path and asks the storage whether it is true.\n" +
			"A difference is SERVED if a read would be answered with what the cache has; if the next read looks at the\n" +
			"storage it is excused, and counted. What was never loaded is no difference. Exits with 7 if anything would\n" +
			"be served. With --repair the cache is made to agree, by a mark and a look; the storage is never changed.",
		Example: "  freshet check /sales                     # differences that a reader would see\n" +
			"  freshet check /sales --all               # those that the next read would find, too\n" +
			"  freshet check /sales/2026 --repair\n" +
			"  freshet check / -o json | jq -r 'select(.difference) | .difference.path'",
		RunE: func(cmd *cobra.Command, args []string) error {
			if dryRun && !req.GetRepair() {
				return freshet.Errorf(freshet.KindInvalid, "check", "", "--dry-run says what --repair would repair: give both, or none, for a check changes nothing")
			}
			req.Path, req.Shallow = args[0], !recursive
			if dryRun {
				req.Repair, req.All = false, true
			}
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error { return a.check(ctx, s, req, dryRun) })
		},
	}
	f := c.Flags()
	f.BoolVar(&recursive, "recursive", true, "everything below the path; =false: the path and its children")
	f.BoolVar(&req.Repair, "repair", false, "mark what differs and look at it, so that the cache agrees")
	f.BoolVar(&dryRun, "dry-run", false, "with --repair: say what would be repaired, change nothing")
	f.BoolVar(&req.All, "all", false, "also show differences that the next read would find")
	f.Int64Var(&req.Limit, "limit", 0, "end after so many reported differences; 0 is none")
	return c
}

type checkStream interface {
	Recv() (*freshetv1.CheckResponse, error)
}

func (a *app) check(ctx context.Context, s *session, req *freshetv1.CheckRequest, dryRun bool) error {
	stream, err := s.check.Check(ctx, req)
	if err != nil {
		return err
	}
	out := &checkOutput{app: a, dryRun: dryRun, repair: req.GetRepair()}
	last, ferr := out.follow(stream)
	if err := out.end(last); err != nil {
		return err
	}
	switch p := last.GetProgress(); {
	case out.open > 0:
		return &exitError{code: freshet.ExitUnhealthy, err: ferr}
	case ferr != nil && p.GetDone():
		return &exitError{code: freshet.ExitPartly, err: errors.Join(fmt.Errorf("%d entries or directories could not be compared", p.GetFailed()), ferr)}
	}
	return ferr
}

// checkOutput writes what a check tells, as it comes.
type checkOutput struct {
	*app

	dryRun, repair bool
	rows           int
	open           int64 // differences that a read is answered with after the check
}

// follow writes the differences and draws the progress; it returns the last report
// and the error that ended the stream.
func (o *checkOutput) follow(stream checkStream) (*freshetv1.CheckResponse, error) {
	last := &freshetv1.CheckResponse{}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			o.endProgress()
			return last, nil
		}
		if err != nil {
			o.endProgress()
			return last, asError(err)
		}
		last = m
		switch p := m.GetProgress(); {
		case m.GetDifference() != nil:
			if err := o.difference(m); err != nil {
				return last, err
			}
		case !p.GetDone():
			o.progress("%d entries, %d served, %d excused, %.0f/s  %s", p.GetEntries(), p.GetServed(), p.GetExcused(), checkRate(p), safe(p.GetCurrent()))
		}
	}
}

func checkRate(p *freshetv1.CheckProgress) float64 {
	if s := p.GetElapsed().AsDuration().Seconds(); s > 0 {
		return float64(p.GetEntries()) / s
	}
	return 0
}

// difference writes one difference: a block of lines for people, a line of JSON or a
// document of YAML for programs.
func (o *checkOutput) difference(m *freshetv1.CheckResponse) error {
	d := m.GetDifference()
	if d.GetServed() && !d.GetRepaired() {
		o.open++
	}
	if o.output != "table" {
		return o.machine(&freshetv1.CheckResponse{Difference: d})
	}
	if o.Terminal {
		o.endProgress()
	}
	o.rows++
	return o.draw(func(t *table) { differenceTable(t, d, o.dryRun) })
}

func differenceTable(t *table, d *freshetv1.Difference, dryRun bool) {
	word := "excused"
	switch {
	case d.GetRepaired():
		word = "repaired"
	case d.GetServed():
		word = "SERVED"
	}
	t.line(fmt.Sprintf("%-8s  %-12s  %s", word, d.GetClass(), safe(d.GetPath())))
	if d.GetCached() != nil || d.GetStorage() != nil {
		version := d.GetClass() == freshet.DifferenceContent
		t.row("    cached", sideText(d.GetCached(), d.GetStorage(), version))
		t.row("    storage", sideText(d.GetStorage(), d.GetCached(), version))
	}
	why := "    excused"
	if d.GetServed() {
		why = "    why"
	}
	t.row(why, d.GetReason())
	if d.GetRepairError() != "" {
		t.row("    not repaired", d.GetRepairError())
	}
	if dryRun {
		t.row("    would", "mark it and look at it")
	}
}

// sideText says what one side has: its version, and what of the metadata differs.
func sideText(e, other *freshetv1.Entry, version bool) string {
	if e == nil {
		return "nothing"
	}
	text := e.GetKind()
	if e.GetKind() == freshet.TypeFile.String() {
		text += fmt.Sprintf(", %s, %s", bytesText(e.GetLength()), timeText(e.GetMtime()))
	}
	if version {
		text += ", version " + e.GetFingerprint()
	}
	if other != nil && (e.GetMode() != other.GetMode() || e.GetOwner() != other.GetOwner() || e.GetGroup() != other.GetGroup()) {
		text += fmt.Sprintf(", %s:%s %04o", e.GetOwner(), e.GetGroup(), e.GetMode())
	}
	return text
}

// machine writes one message on a line, or as a document.
func (o *checkOutput) machine(m *freshetv1.CheckResponse) error {
	b, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return freshet.Errorf(freshet.KindInternal, "print", "", "%w", err)
	}
	if o.output == "yaml" {
		if _, err := io.WriteString(o.Out, "---\n"); err != nil {
			return err
		}
		return o.structured(b)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, b); err != nil {
		return freshet.Errorf(freshet.KindInternal, "print", "", "%w", err)
	}
	line.WriteByte('\n')
	_, err = o.Out.Write(line.Bytes())
	return err
}

// end writes the sums.
func (o *checkOutput) end(last *freshetv1.CheckResponse) error {
	p := last.GetProgress()
	if p == nil {
		return nil
	}
	if o.output != "table" {
		return o.machine(&freshetv1.CheckResponse{Progress: p})
	}
	return o.draw(func(t *table) {
		if o.rows > 0 {
			t.line("")
		}
		t.row("DIRECTORIES", "ENTRIES", "SERVED", "EXCUSED", "REPAIRED", "NOT LOADED", "SKIPPED", "FAILED", "ELAPSED", "PER SECOND")
		t.row(p.GetDirectories(), p.GetEntries(), p.GetServed(), p.GetExcused(), p.GetRepaired(), p.GetNotLoaded(), p.GetSkipped(), p.GetFailed(),
			ageText(p.GetElapsed()), fmt.Sprintf("%.0f", checkRate(p)))
		switch {
		case p.GetLimited():
			t.line("ended at --limit: there may be more")
		case !p.GetDone():
			t.line("ended early: the rest was not compared")
		case o.open > 0 && !o.repair:
			t.line("a reader is answered with what the cache has of the entries above; `freshet check PATH --repair` makes the cache agree")
		}
	})
}
