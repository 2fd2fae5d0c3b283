package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/namespace"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

const (
	// restorePatience bounds how long a restore waits for the cache nodes to come back:
	// several times what their heartbeats take.
	restorePatience = 15 * time.Second
	// restorePoll is how often it asks.
	restorePoll = 100 * time.Millisecond
)

func (a *app) clusterSnapshot() *cobra.Command {
	return group("snapshot", "Save, inspect and restore copies of the cluster's metadata",
		"  freshet cluster snapshot save backup.freshet\n"+
			"  freshet cluster snapshot inspect backup.freshet\n"+
			"  freshet cluster snapshot restore backup.freshet --dry-run",
		a.snapshotSave(), a.snapshotInspect(), a.snapshotRestore())
}

// snapshotInfo is what a snapshot says of itself.
type snapshotInfo struct {
	File      string          `json:"file"`
	Cluster   string          `json:"cluster"`
	ClusterID string          `json:"clusterId"`
	Epoch     uint64          `json:"epoch,string"`
	Index     uint64          `json:"index,string"`
	Format    int             `json:"format"`
	Bytes     int64           `json:"bytes,string"`
	StateHash string          `json:"stateHash"`
	Tables    []snapshotTable `json:"tables"`
}

type snapshotTable struct {
	Name  string `json:"name"`
	Rows  uint64 `json:"rows,string"`
	Bytes uint64 `json:"bytes,string"`
}

// inspectSnapshot reads a file to its end: every checksum in it is compared.
func inspectSnapshot(name string) (snapshotInfo, error) {
	const op = "inspect snapshot"
	f, err := os.Open(name)
	if err != nil {
		return snapshotInfo{}, freshet.Errorf(freshet.KindNotExist, op, "", "%w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	var state namespace.DumpInfo
	dump, err := journal.ReadDump(f, freshet.ClusterID{}, func(r io.Reader) (err error) {
		state, err = namespace.InspectDump(r)
		return err
	})
	if err != nil {
		return snapshotInfo{}, err
	}
	stat, err := f.Stat()
	if err != nil {
		return snapshotInfo{}, freshet.Errorf(freshet.KindUnavailable, op, "", "%w", err)
	}
	info := snapshotInfo{
		File: name, Cluster: state.Name, ClusterID: dump.Cluster.String(), Epoch: state.Epoch, Index: dump.Applied, Format: state.Format,
		Bytes: stat.Size(), StateHash: fmt.Sprintf("%x", state.Hash),
	}
	for _, t := range state.Tables {
		info.Tables = append(info.Tables, snapshotTable(t))
	}
	return info, nil
}

func (i *snapshotInfo) table(t *table) {
	t.row("file", fmt.Sprintf("%s, %s, whole", i.File, bytesText(i.Bytes)))
	t.row("cluster", fmt.Sprintf("%s (%s), epoch %d", i.Cluster, i.ClusterID, i.Epoch))
	t.row("index", i.Index)
	t.row("format", i.Format)
	t.row("state hash", i.StateHash)
	t.line("")
	t.row("TABLE", "ROWS", "BYTES")
	for _, r := range i.Tables {
		t.row(r.Name, r.Rows, bytesText(int64(r.Bytes)))
	}
}

func (a *app) snapshotSave() *cobra.Command {
	var stale bool
	c := &cobra.Command{
		Use: "save FILE", Short: "Write a consistent copy of the metadata to a new file, while the cluster serves", Args: cobra.ExactArgs(1),
		Long: "The copy has every change that was acknowledged before the command. It is read to its end and\n" +
			"checked before the file gets its name. It names all paths, mounts and members of the cluster, but\n" +
			"no secrets. What the files contain is in the storages, and not part of it.",
		Example: "  freshet cluster snapshot save /backup/freshet-$(date +%F)\n  freshet cluster snapshot save now.freshet --stale   # while there is no leader",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error {
				info, err := a.saveSnapshot(ctx, s, args[0], stale)
				if err != nil {
					return err
				}
				return a.printValue(info, info.table)
			})
		},
	}
	c.Flags().BoolVar(&stale, "stale", false, "take the state of the coordinator that answers, which may lack the latest changes")
	return c
}

// saveSnapshot writes through a temporary name, so that no half a file is taken for
// a snapshot.
func (a *app) saveSnapshot(ctx context.Context, s *session, name string, stale bool) (info *snapshotInfo, err error) {
	const op = "save snapshot"
	local := func(err error) error { return freshet.Errorf(freshet.KindUnavailable, op, "", "%w", err) }
	if _, err := os.Lstat(name); err == nil {
		return nil, freshet.Errorf(freshet.KindExist, op, "", "%s exists already; choose another name, or remove it", name)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return nil, local(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	stream, err := s.state.SaveSnapshot(ctx, &freshetv1.SaveSnapshotRequest{Stale: stale})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	err = a.receive(stream.Recv, f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	checked, err := inspectSnapshot(f.Name())
	if err != nil {
		return nil, err
	}
	checked.File = name
	if err := os.Link(f.Name(), name); err != nil { // never replaces a file, as a rename would
		return nil, local(err)
	}
	return &checked, os.Remove(f.Name())
}

// receive writes a stream to a file and says now and then how far it is.
func (a *app) receive(next func() (*freshetv1.SaveSnapshotResponse, error), f io.Writer) error {
	w := bufio.NewWriterSize(f, 1<<20)
	progress := a.byteProgress("received")
	for {
		m, err := next()
		if errors.Is(err, io.EOF) {
			return w.Flush()
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(m.GetData()); err != nil {
			return freshet.Errorf(freshet.KindUnavailable, "save snapshot", "", "%w", err)
		}
		progress(len(m.GetData()))
	}
}

// byteProgress returns what counts bytes and says every five seconds how many came.
func (a *app) byteProgress(what string) func(n int) {
	var total int64
	last := time.Now()
	return func(n int) {
		total += int64(n)
		if now := time.Now(); now.Sub(last) >= 5*time.Second {
			last = now
			a.note("%s %s", what, bytesText(total))
		}
	}
}

func (a *app) snapshotInspect() *cobra.Command {
	return &cobra.Command{
		Use: "inspect FILE", Short: "Check a snapshot and show what is in it; needs no cluster", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			info, err := inspectSnapshot(args[0])
			if err != nil {
				return err
			}
			return a.printValue(&info, info.table)
		},
	}
}

func (a *app) snapshotRestore() *cobra.Command {
	var force, dryRun bool
	c := &cobra.Command{
		Use: "restore FILE", Short: "Replace the metadata of the whole cluster by a snapshot, in a new epoch", Args: cobra.ExactArgs(1),
		Long: "All coordinators go on with the mounts, policies and entries of the snapshot; changes of the metadata\n" +
			"since then are lost, files in the storages are not touched. In the new epoch every path is looked at in\n" +
			"its storage before it is served, the other clusters do the same, and uploads that began before end\n" +
			"without effect. Clients get errors for a moment; the command ends when the cache nodes are back. If the command ends with an unknown outcome, run it again.\n" +
			"A snapshot of another cluster is refused without --force; the cluster keeps its own identity then too.",
		Example: "  freshet cluster snapshot restore backup.freshet --dry-run\n  freshet cluster snapshot restore backup.freshet",
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := inspectSnapshot(args[0]); err != nil {
				return err
			}
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error {
				before, err := s.cluster.GetCluster(ctx, &freshetv1.GetClusterRequest{})
				if err != nil {
					return err
				}
				r, err := a.restoreSnapshot(ctx, s, args[0], force, dryRun)
				if err != nil {
					return err
				}
				if !dryRun {
					a.awaitNodes(ctx, s, before.GetLiveNodes())
				}
				a.changed(dryRun, "replaced %d entries at index %d by %d entries of %s at index %d", r.GetReplacedEntries(), r.GetReplacedIndex(),
					r.GetEntries(), r.GetCluster(), r.GetSnapshotIndex())
				return a.print(r, func(t *table) {
					t.row("CLUSTER", "INDEX", "ENTRIES", "MOUNTS", "NEW EPOCH")
					epoch := any(r.GetEpoch())
					if dryRun {
						epoch = "-"
					}
					t.row(r.GetCluster(), r.GetSnapshotIndex(), r.GetEntries(), r.GetMounts(), epoch)
				})
			})
		},
	}
	c.Flags().BoolVar(&force, "force", false, "take the snapshot of another cluster too")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, change nothing")
	return c
}

// awaitNodes waits until as many cache nodes live as before a restore: they register
// anew with their next heartbeats, and until then data can't be read or written.
func (a *app) awaitNodes(ctx context.Context, s *session, want int64) {
	ctx, cancel := context.WithTimeout(ctx, restorePatience)
	defer cancel()
	tick := time.NewTicker(restorePoll)
	defer tick.Stop()
	for {
		if r, err := s.cluster.GetCluster(ctx, &freshetv1.GetClusterRequest{}); err == nil && r.GetLiveNodes() >= want {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			a.note("not all cache nodes have come back yet: see `freshet cluster status`")
			return
		}
	}
}

func (a *app) restoreSnapshot(ctx context.Context, s *session, name string, force, dryRun bool) (*freshetv1.RestoreSnapshotResponse, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, freshet.Errorf(freshet.KindNotExist, "restore snapshot", "", "%w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	stream, err := s.state.RestoreSnapshot(ctx)
	if err != nil {
		return nil, err
	}
	progress := a.byteProgress("sent")
	buf := make([]byte, 256<<10)
	for {
		n, err := io.ReadFull(f, buf)
		if n > 0 {
			if stream.Send(&freshetv1.RestoreSnapshotRequest{Data: buf[:n], Force: force, DryRun: dryRun}) != nil {
				break // the answer says why
			}
			progress(n)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return nil, freshet.Errorf(freshet.KindUnavailable, "restore snapshot", "", "%w", err)
		}
	}
	return stream.CloseAndRecv()
}
