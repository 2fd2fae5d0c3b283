package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

// watch shows frames until it was asked to end.
func (a *app) watch(ctx context.Context, w *watcher, every time.Duration, once bool) error {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	screen, err := a.openScreen(quit, once)
	if err != nil {
		return err
	}
	defer screen.close()
	if _, err := w.frame(ctx); err != nil { // what is per second needs a look before
		return ended(ctx, err)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var trouble time.Time
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ended(ctx, ctx.Err())
		}
		f, err := w.frame(ctx)
		switch {
		case err == nil:
			trouble = time.Time{}
			if err := a.show(screen, f); err != nil || once {
				return err
			}
		case ctx.Err() != nil:
			return ended(ctx, err)
		case once || !freshet.IsKind(rpc.ErrorOf(err), freshet.KindUnavailable, freshet.KindNotLeader, freshet.KindDeadline):
			return err
		case trouble.IsZero():
			trouble = time.Now()
		case time.Since(trouble) > syncPatience:
			return err
		}
	}
}

// ended is the error of a watch whose context may have ended: to be asked to end is
// none.
func ended(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil
	}
	return err
}

// screen is where frames are drawn: a terminal that is taken over, or nil.
type screen struct {
	out, in *os.File
	state   *term.State
}

// openScreen takes the terminal over, if there is one and frames are to be drawn there.
// A key calls quit.
func (a *app) openScreen(quit func(), once bool) (*screen, error) {
	in, inOK := a.In.(*os.File)
	out, outOK := a.Out.(*os.File)
	if once || a.output != "table" || !inOK || !outOK || !term.IsTerminal(int(in.Fd())) || !term.IsTerminal(int(out.Fd())) {
		return nil, nil //nolint:nilnil // no screen, no error
	}
	state, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, freshet.Errorf(freshet.KindInternal, "top", "", "%w", err)
	}
	s := &screen{out: out, in: in, state: state}
	_, _ = out.WriteString("\x1b[?1049h\x1b[?25l") // a second screen, no cursor; a terminal that is gone says so at the first frame
	go func() {                                    // ends with the process: nothing else can end a read of a terminal
		key := make([]byte, 16)
		for {
			n, err := in.Read(key)
			if err != nil || bytes.ContainsAny(key[:n], "qQ\x03") { // Ctrl-C is a key now
				quit()
				return
			}
		}
	}()
	return s, nil
}

func (s *screen) close() {
	if s == nil {
		return
	}
	_, _ = s.out.WriteString("\x1b[?25h\x1b[?1049l") // nothing to be done about it
	_ = term.Restore(int(s.in.Fd()), s.state)        // as above
}

// show draws a frame.
func (a *app) show(s *screen, f *topFrame) error {
	if a.output != "table" {
		return a.printValue(f, nil)
	}
	var b bytes.Buffer
	t := &table{w: tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)}
	topTables(t, f)
	if err := t.flush(); err != nil {
		return err
	}
	if s == nil {
		b.WriteByte('\n')
		_, err := a.Out.Write(b.Bytes())
		return err
	}
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	_, err = s.out.WriteString("\x1b[H" + fit(b.String()+"\nq quits\n", width, height) + "\x1b[J")
	return err
}

// fit cuts text to a screen.
func fit(text string, width, height int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > height {
		lines = append(lines[:height-1], "…")
	}
	for i, line := range lines {
		if utf8.RuneCountInString(line) > width {
			runes := []rune(line)
			lines[i] = string(runes[:width-1]) + "…"
		}
		lines[i] += "\x1b[K"
	}
	return strings.Join(lines, "\r\n")
}

func topTables(t *table, f *topFrame) {
	health := "healthy"
	if !f.Healthy {
		health = "UNHEALTHY"
	}
	t.line(safe(fmt.Sprintf("cluster %s, %s   leader %s   %s   %s   %s", f.Cluster, health, dash(f.Leader),
		countText(f.Entries, "entry", "entries"), countText(f.Mounts, "mount", "mounts"), f.At.UTC().Format("15:04:05Z"))))
	for _, p := range f.Problems {
		t.line(safe("problem: " + p))
	}
	t.line("")
	t.row("NODE", "STATE", "TIERS", "USED", "CAPACITY", "READS/S", "BYTES/S", "HITS", "STORAGE/S", "REQUESTS/S", "UPLOADS/S", "WARMED/S", "EVICTED/S")
	figures := func(name, state, tier, used, capacity string, n *topFigures) {
		hits := "-"
		if n.HitRatio != nil {
			hits = percent(*n.HitRatio)
		}
		t.row(name, state, tier, used, capacity, rateText(n.ReadsPerSecond), bytesText(int64(n.BytesPerSecond)), hits, bytesText(int64(n.StorageBytesPerSecond)),
			rateText(n.StorageRequestsPerSecond), rateText(n.UploadsPerSecond), rateText(n.WarmedPerSecond), rateText(n.EvictionsPerSecond))
	}
	var used, capacity int64
	for i := range f.Nodes {
		n := &f.Nodes[i]
		used, capacity = used+n.Used, capacity+n.Capacity
		figures(n.Name, n.State, dash(n.Tier), bytesText(n.Used), bytesText(n.Capacity), &n.topFigures)
	}
	figures("all", "", "", bytesText(used), bytesText(capacity), &f.Total)
	t.line("")
	t.row("COORDINATOR", "ROLE", "COMMANDS/S", "REQUESTS/S", "SYNCED/S", "WAITING")
	for _, m := range f.Members {
		role := "follower"
		if m.Leader {
			role = "leader"
		}
		t.row(m.Name, role, rateText(m.CommandsPerSecond), rateText(m.StorageRequestsPerSecond), rateText(m.SyncedPerSecond), fmt.Sprintf("%.0f", m.Waiting))
	}
	topNotes(t, f)
}

// topNotes are what has no columns.
func topNotes(t *table, f *topFrame) {
	if len(f.Jobs) > 0 || f.JobsError != "" {
		t.line("")
	}
	for _, j := range f.Jobs {
		t.line(safe(fmt.Sprintf("%s %d %s  %s", j.Kind, j.ID, j.State, j.Text)))
	}
	if f.JobsError != "" {
		t.line(safe("jobs are not shown: " + f.JobsError))
	}
	for _, n := range f.Nodes {
		if n.Error != "" {
			t.line(safe(fmt.Sprintf("no figures of node %s: %s", n.Name, n.Error)))
		}
	}
	for _, m := range f.Members {
		if m.Error != "" {
			t.line(safe(fmt.Sprintf("no figures of coordinator %s: %s", m.Name, m.Error)))
		}
	}
}

func rateText(r float64) string {
	if r > 0 && r < 10 {
		return fmt.Sprintf("%.1f", r)
	}
	return fmt.Sprintf("%.0f", r)
}
