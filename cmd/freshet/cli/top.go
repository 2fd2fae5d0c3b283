package cli

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/scrape"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// topPatience bounds one look at a process's metrics; one that does not answer is shown
// without figures.
const topPatience = 2 * time.Second

// topFrame is what top shows at a time. Figures per second are of the time since the
// frame before.
type topFrame struct {
	At        time.Time   `json:"at"`
	Seconds   float64     `json:"seconds"`
	Cluster   string      `json:"cluster"`
	Leader    string      `json:"leader"`
	Healthy   bool        `json:"healthy"`
	Problems  []string    `json:"problems"`
	Entries   int64       `json:"entries,string"`
	Mounts    int64       `json:"mounts,string"`
	Total     topFigures  `json:"total"`
	Nodes     []topNode   `json:"nodes"`
	Members   []topMember `json:"coordinators"`
	Jobs      []topJob    `json:"jobs"`
	JobsError string      `json:"jobsError,omitempty"`
}

// topFigures are those of a cache node, or of all.
type topFigures struct {
	ReadsPerSecond           float64  `json:"readsPerSecond"` // of blocks
	BytesPerSecond           float64  `json:"bytesPerSecond"`
	HitRatio                 *float64 `json:"hitRatio"` // share of bytes that came from caches; null if nothing was read
	StorageBytesPerSecond    float64  `json:"storageBytesPerSecond"`
	StorageRequestsPerSecond float64  `json:"storageRequestsPerSecond"`
	UploadsPerSecond         float64  `json:"uploadsPerSecond"`
	WarmedPerSecond          float64  `json:"warmedPerSecond"`
	EvictionsPerSecond       float64  `json:"evictionsPerSecond"`
}

type topNode struct {
	Name     string `json:"name"`
	State    string `json:"state"`
	Tier     string `json:"tier"`
	Used     int64  `json:"used,string"`
	Capacity int64  `json:"capacity,string"`
	Blocks   int64  `json:"blocks,string"`
	Error    string `json:"error,omitempty"` // why there are no figures
	topFigures
}

type topMember struct {
	Name                     string  `json:"name"`
	Leader                   bool    `json:"leader"`
	CommandsPerSecond        float64 `json:"commandsPerSecond"`
	StorageRequestsPerSecond float64 `json:"storageRequestsPerSecond"`
	SyncedPerSecond          float64 `json:"syncedEntriesPerSecond"`
	Waiting                  float64 `json:"waitingForStorage"` // questions to storages
	Error                    string  `json:"error,omitempty"`
}

type topJob struct {
	Kind  string `json:"kind"` // "sync" or "warm"
	ID    uint64 `json:"id,string"`
	State string `json:"state"`
	Text  string `json:"text"`
}

// watcher makes frames.
type watcher struct {
	s    *session
	http *http.Client
	tls  bool
	last map[string]scrape.Samples // by address
	at   time.Time
}

func newWatcher(s *session, tlsConfig *tls.Config) *watcher {
	return &watcher{
		s: s, tls: tlsConfig != nil, last: map[string]scrape.Samples{},
		http: &http.Client{Timeout: topPatience, Transport: &http.Transport{TLSClientConfig: tlsConfig, MaxIdleConnsPerHost: 1}},
	}
}

// scrape reads the metrics of a process.
func (w *watcher) scrape(ctx context.Context, addr string) (scrape.Samples, error) {
	scheme := "http"
	if w.tls {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+addr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	r, err := w.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Body.Close() }() // only read from
	if r.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", addr, r.Status)
	}
	const maxAnswer = 16 << 20
	return scrape.Parse(io.LimitReader(r.Body, maxAnswer))
}

// scrapeAll reads the metrics of processes side by side.
func (w *watcher) scrapeAll(ctx context.Context, addrs []string) (map[string]scrape.Samples, map[string]error) {
	var mu sync.Mutex
	got, failed := map[string]scrape.Samples{}, map[string]error{}
	var wg sync.WaitGroup
	for _, addr := range addrs {
		wg.Go(func() {
			samples, err := w.scrape(ctx, addr)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed[addr] = err
				return
			}
			got[addr] = samples
		})
	}
	wg.Wait()
	return got, failed
}

// frame looks at the cluster.
func (w *watcher) frame(ctx context.Context) (*topFrame, error) {
	c, err := w.s.cluster.GetCluster(ctx, &freshetv1.GetClusterRequest{})
	if err != nil {
		return nil, err
	}
	nodes, err := w.s.cluster.ListNodes(ctx, &freshetv1.ListNodesRequest{})
	if err != nil {
		return nil, err
	}
	f := &topFrame{
		Cluster: c.GetName(), Leader: c.GetLeader(), Healthy: c.GetHealthy(), Problems: append([]string{}, c.GetProblems()...), Entries: c.GetEntries(), Mounts: c.GetMounts(),
		Nodes: []topNode{}, Members: []topMember{}, Jobs: []topJob{},
	}
	var addrs []string
	for _, n := range nodes.GetNodes() {
		if n.GetState() == "live" && n.GetHttp() != "" {
			addrs = append(addrs, n.GetHttp())
		}
	}
	for _, m := range c.GetMembers() {
		if m.GetHttp() != "" && !slices.Contains(addrs, m.GetHttp()) {
			addrs = append(addrs, m.GetHttp())
		}
	}
	got, failed := w.scrapeAll(ctx, addrs)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	f.At = time.Now()
	if !w.at.IsZero() {
		f.Seconds = f.At.Sub(w.at).Seconds()
	}
	rates := func(addr string) rates { return rates{w.last[addr], got[addr], f.Seconds} }
	for _, n := range nodes.GetNodes() {
		f.addNode(n, rates(n.GetHttp()), failed[n.GetHttp()])
	}
	for _, m := range c.GetMembers() {
		f.addMember(m, rates(m.GetHttp()), failed[m.GetHttp()])
	}
	w.last, w.at = got, f.At
	w.jobs(ctx, f)
	return f, nil
}

// rates compares two looks at a process.
type rates struct {
	before, now scrape.Samples
	seconds     float64
}

// of returns how much a counter grew in a second; 0 if the process is new, or was not
// looked at before.
func (r rates) of(name string, labels ...string) float64 {
	if r.before == nil || r.now == nil || r.seconds <= 0 {
		return 0
	}
	return max(r.now.Sum(name, labels...)-r.before.Sum(name, labels...), 0) / r.seconds
}

func (f *topFrame) addNode(n *freshetv1.Node, r rates, failed error) {
	t := topNode{
		Name: n.GetName(), State: n.GetState(), Tier: n.GetTier(), Used: n.GetUsedBytes(), Capacity: n.GetCapacityBytes(), Blocks: n.GetBlocks(),
	}
	if failed != nil {
		t.Error = failed.Error()
	}
	t.ReadsPerSecond, t.BytesPerSecond = r.of("freshet_reads_total"), r.of("freshet_read_bytes_total")
	t.StorageBytesPerSecond = r.of("freshet_read_bytes_total", "source", "ufs")
	t.StorageRequestsPerSecond = r.of("freshet_ufs_requests_total")
	t.UploadsPerSecond, t.EvictionsPerSecond = r.of("freshet_uploads_total"), r.of("freshet_evictions_total")
	t.WarmedPerSecond = r.of("freshet_warmed_blocks_total", "result", "fetched")
	t.HitRatio = cachedShare(t.BytesPerSecond, t.StorageBytesPerSecond)
	f.Nodes = append(f.Nodes, t)
	sum := &f.Total
	sum.ReadsPerSecond += t.ReadsPerSecond
	sum.BytesPerSecond += t.BytesPerSecond
	sum.StorageBytesPerSecond += t.StorageBytesPerSecond
	sum.StorageRequestsPerSecond += t.StorageRequestsPerSecond
	sum.UploadsPerSecond += t.UploadsPerSecond
	sum.WarmedPerSecond += t.WarmedPerSecond
	sum.EvictionsPerSecond += t.EvictionsPerSecond
	sum.HitRatio = cachedShare(sum.BytesPerSecond, sum.StorageBytesPerSecond)
}

func cachedShare(all, storage float64) *float64 {
	if all <= 0 {
		return nil
	}
	return new(1 - storage/all)
}

func (f *topFrame) addMember(m *freshetv1.Member, r rates, failed error) {
	t := topMember{
		Name: m.GetName(), Leader: m.GetLeader(), CommandsPerSecond: r.of("freshet_raft_commands_total"),
		StorageRequestsPerSecond: r.of("freshet_ufs_requests_total"), SyncedPerSecond: r.of("freshet_sync_entries_total"),
	}
	if t.Name == "" {
		t.Name = m.GetId()
	}
	if r.now != nil {
		t.Waiting = r.now.Sum("freshet_sync_queue_length")
	}
	if failed != nil {
		t.Error = failed.Error()
	}
	f.Members = append(f.Members, t)
}

// jobs adds the syncs and warms that have not ended. Who may not see them sees the rest.
func (w *watcher) jobs(ctx context.Context, f *topFrame) {
	syncs, err := w.s.syncs.ListSyncs(ctx, &freshetv1.ListSyncsRequest{})
	if err != nil {
		f.JobsError = rpc.ErrorOf(err).Error()
		return
	}
	warms, err := w.s.cache.ListWarms(ctx, &freshetv1.ListWarmsRequest{})
	if err != nil {
		f.JobsError = rpc.ErrorOf(err).Error()
		return
	}
	for _, j := range syncs.GetSyncs() {
		if !freshet.SyncState(j.GetState()).Ended() {
			f.Jobs = append(f.Jobs, topJob{"sync", j.GetId(), j.GetState(), fmt.Sprintf("%s: %d entries, %d changed, %.0f/s", j.GetPath(), j.GetEntries(), j.GetChanged(), jobRate(j))})
		}
	}
	for _, j := range warms.GetWarms() {
		if !freshet.SyncState(j.GetState()).Ended() {
			f.Jobs = append(f.Jobs, topJob{"warm", j.GetId(), j.GetState(), pathsText(j.GetPaths()) + ": " + warmLine(j)})
		}
	}
}

func (a *app) top() *cobra.Command {
	var once bool
	var every time.Duration
	c := &cobra.Command{
		Use: "top", Short: "Watch a cluster: nodes, reads, hit ratio, storage requests, jobs", Args: cobra.NoArgs,
		Long: "top shows what a cluster does, anew each --interval, until q or Ctrl-C. Without a terminal, or with -o json|yaml, it\n" +
			"writes one frame after the other; with --once a single one, of the time of one interval. Figures come from the\n" +
			"metrics of the processes, at the HTTP addresses that they advertise. A process that can't be reached from here is\n" +
			"shown without figures.",
		Example: "  freshet top\n  freshet top --once -o json | jq .total.hitRatio",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond || every > time.Hour {
				return freshet.Errorf(freshet.KindInvalid, "top", "", "--interval %s: use 100ms to 1h", every)
			}
			tlsConfig, err := a.tls()
			if err != nil {
				return err
			}
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error {
				w := newWatcher(s, tlsConfig)
				defer w.http.CloseIdleConnections()
				return a.watch(ctx, w, every, once)
			})
		},
	}
	c.Flags().BoolVar(&once, "once", false, "show one interval and end")
	c.Flags().DurationVar(&every, "interval", 2*time.Second, "time between two frames")
	return c
}
