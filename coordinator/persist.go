package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

const (
	opPersist = "persist"
	// persistLag is how long a file may wait to be persisted before the cluster counts
	// as unwell.
	persistLag = 10 * time.Minute
	// prepareTimeout bounds what comes before a write that does not touch the storage: one
	// that does not answer holds up no such write.
	prepareTimeout = 3 * time.Second
)

// prepareKept does what comes before a write that does not touch the storage: what it
// will replace there is looked at, and its directory is made. A storage that is out of
// reach is no reason to refuse; what is found when the file is persisted counts.
func (c *Coordinator) prepareKept(ctx context.Context, q *freshet.BeginWriteQuery) error {
	if !q.Write.Keeps() {
		return nil
	}
	if v := c.state.Version(); v < namespace.VersionUnpersisted {
		_, below, err := c.lowest()
		if err != nil {
			return err
		}
		return freshet.Errorf(freshet.KindUnsupported, "write", q.Path,
			"%s needs version %d of the state, and version %d is in force until all coordinators can apply more; upgrade %s", q.Write, namespace.VersionUnpersisted, v, strings.Join(below, ", "))
	}
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	_, err := c.sync.Entry(ctx, q.Path, c.ruleOf(nil))
	if err == nil || !freshet.IsKind(err, freshet.KindNotExist) || q.Path.IsRoot() {
		return nil // what stands in the way the state says
	}
	if m, ok := c.state.MountAt(q.Path); !ok || m.ReadOnly || m.Path == q.Path || m.Path == q.Path.Parent() {
		return nil
	}
	if _, err := c.sync.Entry(ctx, q.Path.Parent(), c.ruleOf(nil)); !freshet.IsKind(err, freshet.KindNotExist) {
		return nil
	}
	_, err = c.ops.Mkdir(ctx, freshet.MkdirQuery{Path: q.Path.Parent(), Parents: true, Owner: q.Owner, Group: q.Group})
	if freshet.IsKind(err, freshet.KindUnavailable, freshet.KindDeadline) {
		return nil
	}
	return err
}

// lookAt looks at what the storage has at a path, whatever the interval of its mount.
func (c *Coordinator) lookAt(ctx context.Context, p freshet.Path) error {
	never := freshet.Never
	_, err := c.sync.Entry(ctx, p, c.ruleOf(&never))
	return err
}

// prepareEach is prepareKept of many. What it refuses the state refuses too, or lacks
// the version that it needs: there is no error to be told here.
func (c *Coordinator) prepareEach(ctx context.Context, qs []freshet.BeginWriteQuery) []freshet.BeginWriteQuery {
	for i := range qs {
		if err := c.prepareKept(ctx, &qs[i]); err != nil {
			c.log.Debug("a write that stays on nodes could not be prepared", "error", err)
		}
	}
	return qs
}

// Persist queues the unpersisted files at a path, or below it.
func (c *Coordinator) Persist(ctx context.Context, q freshet.PersistQuery) (freshet.Unpersisted, error) {
	var out freshet.Unpersisted
	if err := c.prepare(ctx, q.Path, freshet.ReadOptions{}); err != nil {
		return out, err
	}
	files, err := c.unpersistedUnder(q.Path)
	if err != nil {
		return out, err
	}
	l, err := c.state.Lookup(q.Path)
	switch {
	case err != nil:
		return out, err
	case l.Found && l.Info.Type == freshet.TypeDirectory && !q.Recursive:
		return out, freshet.Errorf(freshet.KindInvalid, opPersist, q.Path, "is a directory: ask for all below it, with --recursive")
	case len(files) == 0 && !q.Recursive:
		// What is not there is an error; what is in the storage is not.
		_, err := c.sync.Entry(ctx, q.Path, c.ruleOf(nil))
		return out, c.leaderHint(err)
	}
	cmd := &namespace.QueuePersist{Overwrite: q.Overwrite, At: c.clock.Now()}
	for i := range files {
		out.Count++
		out.Bytes += files[i].Length
		cmd.Files = append(cmd.Files, files[i].File)
	}
	if q.Overwrite {
		if q.Recursive || len(files) != 1 {
			return out, freshet.Errorf(freshet.KindInvalid, opPersist, q.Path, "only a single file can replace what the storage holds, not all below a directory")
		}
		st, exists, err := c.sync.Ask(ctx, &l)
		if err != nil {
			return out, c.leaderHint(err)
		}
		if exists {
			cmd.Beneath = st.Fingerprint
		}
	}
	if q.DryRun || out.Count == 0 {
		return out, nil
	}
	_, err = c.propose(ctx, namespace.Command{QueuePersist: cmd})
	return out, c.leaderHint(err)
}

func (c *Coordinator) unpersistedUnder(p freshet.Path) ([]namespace.UnpersistedFile, error) {
	all, err := c.state.Unpersisted(0, nil)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(f namespace.UnpersistedFile) bool { return !p.Contains(f.Path) }), nil
}

// Unpersisted says which files at and below a path are not in the storage.
func (c *Coordinator) Unpersisted(ctx context.Context, q freshet.UnpersistedQuery) (freshet.Unpersisted, error) {
	var out freshet.Unpersisted
	if err := c.prepare(ctx, q.Path, freshet.ReadOptions{}); err != nil {
		return out, err
	}
	files, err := c.unpersistedUnder(q.Path)
	if err != nil {
		return out, err
	}
	now := c.clock.Now()
	for i := range files {
		f := &files[i]
		one := c.describeKept(f)
		out.Count++
		out.Bytes += f.Length
		if f.Queued {
			out.Queued++
			out.Oldest = max(out.Oldest, now.Sub(f.Waits()))
		}
		if one.Live > 0 && one.Live < one.Replicas {
			out.Short++
		}
		switch one.State {
		case freshet.UnpersistedPersisting:
			out.Persisting++
		case freshet.UnpersistedFailed:
			out.Failed++
		case freshet.UnpersistedConflict:
			out.Conflicts++
		case freshet.UnpersistedLost:
			out.Lost++
		}
		out.Files = append(out.Files, one)
	}
	limit := cmp.Or(q.Limit, freshet.DefaultUnpersisted)
	urgent := func(f *freshet.UnpersistedFile) int {
		order := []string{freshet.UnpersistedLost, freshet.UnpersistedConflict, freshet.UnpersistedFailed}
		if i := slices.Index(order, f.State); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortStableFunc(out.Files, func(a, b freshet.UnpersistedFile) int { return cmp.Compare(urgent(&a), urgent(&b)) })
	out.Files = out.Files[:min(len(out.Files), max(limit, 0), freshet.MaxUnpersistedPage)]
	return out, nil
}

func (c *Coordinator) describeKept(f *namespace.UnpersistedFile) freshet.UnpersistedFile {
	state, at := c.ops.StateOf(f)
	return freshet.UnpersistedFile{
		Path: f.Path, File: f.File, Length: f.Length, Since: f.Since, State: state, Nodes: c.nodes.Named(f.Nodes),
		Replicas: f.Promised(), Live: len(at.Live), Attempts: f.Attempts, Error: f.Error, Next: f.Next,
	}
}

// errOvertaken says that an answer is of a version that has gone meanwhile.
var errOvertaken = freshet.Errorf(freshet.KindUnavailable, opLocate, "", "the file was changed meanwhile: try again")

// keptBlocks sees to it that the bytes of a file that no storage has are where an
// answer says: else the error names the nodes that should have them. err is why there
// is no answer.
func (c *Coordinator) keptBlocks(info *freshet.Info, blocks []freshet.Block, err error) error {
	if err != nil && !freshet.IsKind(err, freshet.KindUnavailable) {
		return err
	}
	if err != nil { // no node lives
		blocks = []freshet.Block{{}}
	}
	for i := range blocks {
		if len(blocks[i].Nodes) > 0 {
			continue
		}
		f, ok := c.state.UnpersistedOf(info.FileID)
		if !ok { // it was persisted, or replaced, this very moment
			return errOvertaken
		}
		if why := c.ops.LossOf(&f); !why.Certain() && !c.nodes.AllHeard(c.clock.Elapsed()) {
			return freshet.Errorf(freshet.KindUnavailable, opLocate, info.Path,
				"the file is not in the storage yet, and the cache nodes have not told this leader what they hold: try again in a few seconds")
		}
		return freshet.Errorf(freshet.KindUnavailable, opLocate, info.Path,
			"the file is not in the storage yet, and no live cache node has its bytes from %d on: %s", blocks[i].Offset, c.remedyOfLost(&f))
	}
	return nil
}

// explainKept says of an unpersisted file where it is and what becomes of it.
func (c *Coordinator) explainKept(l *namespace.Lookup) (reason, remedy string) {
	f, ok := c.state.UnpersistedOf(l.Info.FileID)
	if !ok || !l.Unpersisted || l.Info.Type != freshet.TypeFile {
		return "", ""
	}
	d := c.describeKept(&f)
	are := "are"
	if d.State == freshet.UnpersistedLost {
		are = "were"
	}
	reason = fmt.Sprintf("the file is not in the storage: its bytes %s kept by %s since %s (%s)", are, strings.Join(d.Nodes, ", "), f.Since.UTC().Format(time.RFC3339), d.State)
	if d.Replicas > 1 || d.Live > 1 {
		reason += fmt.Sprintf("; %d live nodes have all of it, of the %d that durable_replicas promised", d.Live, d.Replicas)
	}
	if f.Error != "" {
		reason += fmt.Sprintf("; %d attempts to persist it failed, the last one: %s", f.Attempts, f.Error)
	}
	switch d.State {
	case freshet.UnpersistedKept:
		remedy = fmt.Sprintf("have it persisted: freshet persist --wait %s", f.Path)
	case freshet.UnpersistedLost:
		remedy = c.remedyOfLost(&f)
	case freshet.UnpersistedConflict:
		remedy = fmt.Sprintf("replace what the storage holds: freshet persist --overwrite --wait %s; or keep that, and remove this file", f.Path)
	}
	return reason, remedy
}

// keptProblems says what is wrong with files that are not in the storage.
func (c *Coordinator) keptProblems() []string {
	if c.state.UnpersistedTotals().Files == 0 {
		return nil
	}
	all, err := c.ops.Kept()
	if err != nil {
		return nil
	}
	counts := map[string]int{}
	var lost lostFiles
	lag := time.Duration(0)
	for i := range all {
		f := &all[i]
		state, _ := c.ops.StateOf(f)
		counts[state]++
		if state == freshet.UnpersistedLost {
			lost.add(f, c.ops.LossOf(f))
		}
		if f.Queued {
			lag = max(lag, c.clock.Now().Sub(f.Waits()))
		}
	}
	out := lost.problems()
	if n := counts[freshet.UnpersistedConflict]; n > 0 {
		out = append(out, fmt.Sprintf("files can't be persisted, because the storage holds other versions, %d of them; see \"freshet persist status\"", n))
	}
	if lag > persistLag {
		out = append(out, fmt.Sprintf("a file waits to be persisted since %s; see \"freshet persist status\"", lag.Round(time.Second)))
	}
	return out
}
