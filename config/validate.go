package config

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// Parser checks a storage's URI and options without any I/O.
type Parser interface {
	Parse(spec ufs.Spec) (ufs.Canonical, error)
}

// problems collects mistakes, so that one run names them all.
type problems struct {
	name string
	tree *yaml.Node
	list []string
}

// add notes a mistake at a key such as "mounts[0].path".
func (p *problems) add(key, format string, args ...any) {
	p.list = append(p.list, p.where(key)+key+": "+fmt.Sprintf(format, args...))
}

// once notes that a path of a list was seen before.
func (p *problems) once(seen map[freshet.Path]bool, key string, path freshet.Path) {
	if seen[path] {
		p.add(key+".path", "%s is there twice", path)
	}
	seen[path] = true
}

// where returns "file:line:column: " of the key or, where the file does not have
// it, of the nearest key around it.
func (p *problems) where(key string) string {
	if p.tree != nil {
		if n := find(p.tree, key); n != nil {
			return fmt.Sprintf("%s:%d:%d: ", p.name, n.Line, n.Column)
		}
	}
	return p.name + ": "
}

func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	return freshet.Errorf(freshet.KindInvalid, "check configuration", "", "%s", strings.Join(p.list, "\n"))
}

// duration checks the text of a duration.
func (p *problems) duration(key string, d Duration, low, high time.Duration) {
	v, err := d.parse()
	switch {
	case err != nil:
		p.add(key, "%q is not a duration such as \"300ms\" or \"1s\"", string(d))
	case v < low || v > high:
		p.add(key, "%s is not between %s and %s", d, low, high)
	}
}

// size checks the text of a size.
func (p *problems) size(key string, s Size, low, high int64) {
	v, err := freshet.ParseSize(string(s))
	switch {
	case err != nil:
		p.add(key, "%q is not a size such as \"64MiB\"", string(s))
	case v < low || v > high:
		p.add(key, "%s is not between %s and %s", s, freshet.FormatSize(low), freshet.FormatSize(high))
	}
}

// Role is what a file is for.
type Role uint8

// The roles.
const (
	RoleCoordinator Role = iota
	RoleCacheNode
	RoleApply // only mounts, sync, policies and quotas are read
)

// ValidateOptions guide Validate.
type ValidateOptions struct {
	Name     string // of the file, for messages
	Role     Role
	Insecure bool // plain text on other than loopback addresses is allowed
	UFS      Parser
}

// Validate checks what a file means, fills in defaults, and names all mistakes at
// once.
func (f *File) Validate(opts ValidateOptions) error {
	p := &problems{name: opts.Name, tree: f.tree}
	f.checkMounts(p, opts.UFS)
	f.checkPolicies(p)
	f.checkQuotas(p)
	switch opts.Role {
	case RoleApply:
		return p.err()
	case RoleCoordinator:
		f.checkCoordinator(p)
	case RoleCacheNode:
		f.checkCacheNode(p)
	}
	f.checkIdentity(p)
	f.checkTLS(p)
	f.checkListen(p, opts)
	f.checkSocket(p, opts.Role)
	f.checkLog(p)
	return p.err()
}

// GuessRole tells what a file is for: a cache node's names its coordinators or
// its tiers, an apply file has no node.
func (f *File) GuessRole() Role {
	switch {
	case len(f.Coordinators) > 0 || len(f.Cache.Tiers) > 0:
		return RoleCacheNode
	case f.Node == Node{} && f.Cluster == "" && f.Listen == Listen{}:
		return RoleApply
	}
	return RoleCoordinator
}

func (f *File) checkIdentity(p *problems) {
	if !isName(f.Cluster) {
		p.add("cluster", "%q is not a name: use 1 to 63 letters, digits, \"-\", \"_\" or \".\"", f.Cluster)
	}
	if !isName(f.Node.Name) {
		p.add("node.name", "%q is not a name: use 1 to 63 letters, digits, \"-\", \"_\" or \".\"", f.Node.Name)
	}
	if f.Node.DataDir == "" {
		p.add("node.data_dir", "is required: the directory that survives restarts")
	} else if !filepath.IsAbs(f.Node.DataDir) {
		p.add("node.data_dir", "%q is not an absolute path", f.Node.DataDir)
	}
}

func isName(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

func (f *File) checkCoordinator(p *problems) {
	setDefault(&f.Listen.Client, DefaultClient)
	setDefault(&f.Listen.HTTP, DefaultHTTP)
	setDefault(&f.Listen.Raft, DefaultRaft)
	if f.CrossCluster != nil {
		setDefault(&f.Listen.Gossip, DefaultGossip)
		setDefault(&f.Listen.Bus, DefaultBus)
		f.checkBus(p)
	}
	if f.Raft.BootstrapExpect == 0 && len(f.Raft.Join) == 0 {
		f.Raft.BootstrapExpect = 1
	}
	if !slices.Contains([]int{0, 1, 3, 5}, f.Raft.BootstrapExpect) {
		p.add("raft.bootstrap_expect", "%d is not 1, 3 or 5", f.Raft.BootstrapExpect)
	}
	if f.Raft.BootstrapExpect > 1 && len(f.Raft.Join) == 0 {
		p.add("raft.join", "is required with bootstrap_expect %d: the client addresses of the other coordinators", f.Raft.BootstrapExpect)
	}
	for _, a := range f.Raft.Join {
		p.address("raft.join", a)
	}
	setDefault(&f.Raft.Heartbeat, DefaultHeartbeat)
	p.duration("raft.heartbeat", f.Raft.Heartbeat, 50*time.Millisecond, time.Minute)
	setDefault(&f.Raft.StateCache, DefaultStateCache)
	p.size("raft.state_cache", f.Raft.StateCache, 1<<20, 1<<50)
	setDefault(&f.Raft.LogSize, DefaultLogSize)
	p.size("raft.log_size", f.Raft.LogSize, 32<<20, 1<<50)
	f.checkSyncEngine(p)
	f.checkAudit(p)
	f.checkMetadata(p)
	f.checkPlacement(p)
	f.checkLeases(p)
	f.checkAuth(p)
	if len(f.Cache.Tiers) > 0 {
		p.add("cache.tiers", "belongs into the file of a cache node")
	}
	f.checkBlockSize(p)
}

func (f *File) checkBus(p *problems) {
	for _, a := range f.CrossCluster.Join {
		p.address("cross_cluster.join", a)
	}
	if ref := f.CrossCluster.GossipKey; ref != "" {
		if _, err := ufs.ParseSecretRef(ref); err != nil {
			p.add("cross_cluster.gossip_key", "%v", err)
		}
	} else if !isLoopback(f.Listen.Gossip) {
		p.add("cross_cluster.gossip_key", "is required off loopback: a reference (\"env:NAME\" or \"file:/path\") to 16, 24 or 32 bytes in base64")
	}
	for i, peer := range f.CrossCluster.Peers {
		if !isName(peer.Cluster) || peer.Cluster == f.Cluster {
			p.add(fmt.Sprintf("cross_cluster.peers[%d].cluster", i), "%q is not the name of another cluster", peer.Cluster)
		}
		p.address(fmt.Sprintf("cross_cluster.peers[%d].bus", i), peer.Bus)
	}
}

func (f *File) checkCacheNode(p *problems) {
	setDefault(&f.Listen.Data, DefaultData)
	setDefault(&f.Listen.HTTP, DefaultNodeHTTP)
	if len(f.Coordinators) == 0 {
		p.add("coordinators", "is required: the client addresses of the coordinators")
	}
	for _, a := range f.Coordinators {
		p.address("coordinators", a)
	}
	if len(f.Mounts) > 0 || len(f.Sync) > 0 || len(f.Policies) > 0 || len(f.Quotas) > 0 {
		p.add("mounts", "sync, policies and quotas belong into the file of a coordinator; cache nodes learn from it what they need")
	}
	if f.Auth.given() {
		p.add("auth", "belongs into the file of a coordinator")
	}
	if f.Audit != (Audit{}) {
		p.add("audit", "belongs into the file of a coordinator")
	}
	if f.SyncEngine != (SyncEngine{}) {
		p.add("sync_engine", "belongs into the file of a coordinator")
	}
	if f.Metadata != (Metadata{}) {
		p.add("metadata", "belongs into the file of a coordinator")
	}
	if f.Placement != (Placement{}) {
		p.add("placement", "belongs into the file of a coordinator")
	}
	f.checkKept(p)
	f.checkCache(p)
	f.checkBlockSize(p)
}

func (f *File) checkBlockSize(p *problems) {
	setDefault(&f.Cache.BlockSize, DefaultBlockSize)
	if v, err := freshet.ParseSize(string(f.Cache.BlockSize)); err != nil || v != freshet.DefaultBlockSize {
		p.add("cache.block_size", "%q: a node has no block size of its own; remove the key, and set block_size for \"/\" by a policy: freshet policy set / --block-size SIZE", f.Cache.BlockSize)
	}
}

func (f *File) checkTLS(p *problems) {
	if t := f.TLS; t.Enabled() && (t.CA == "" || t.Cert == "" || t.Key == "") {
		p.add("tls", "ca, cert and key belong together; one is missing")
	}
}

// checkListen also refuses plain text on addresses that others can reach.
func (f *File) checkListen(p *problems, opts ValidateOptions) {
	l := f.Listen
	for _, a := range []struct{ key, addr string }{
		{"listen.client", l.Client},
		{"listen.http", l.HTTP},
		{"listen.raft", l.Raft},
		{"listen.gossip", l.Gossip},
		{"listen.bus", l.Bus},
		{"listen.data", l.Data},
	} {
		if a.addr == "" {
			continue
		}
		p.address(a.key, a.addr)
		if a.key != "listen.gossip" && !isLoopback(a.addr) && !f.TLS.Enabled() && !opts.Insecure {
			p.add(a.key, "refusing to listen on %s without TLS; set tls.ca, tls.cert and tls.key, listen on a loopback address, or give --insecure", a.addr)
		}
	}
	adv := f.Advertise
	for _, a := range []struct{ key, addr, listen string }{
		{"client", adv.Client, l.Client},
		{"http", adv.HTTP, l.HTTP},
		{"raft", adv.Raft, l.Raft},
		{"gossip", adv.Gossip, l.Gossip},
		{"bus", adv.Bus, l.Bus},
		{"data", adv.Data, l.Data},
	} {
		if a.addr != "" {
			p.address("advertise."+a.key, a.addr)
		} else if isUnspecified(a.listen) {
			p.add("advertise."+a.key, "is required: %s can't be told to others", a.listen)
		}
	}
}

// MaxSocketPath is how long the path of a socket may be: what the kernel takes, less some for the name under which the socket
// is made.
const MaxSocketPath = 90

// DefaultSocketMode lets the node's user and its group connect.
const DefaultSocketMode = "0660"

func (f *File) checkSocket(p *problems, role Role) {
	l := &f.Listen
	if a := f.Advertise; a.Socket != "" || a.SocketMode != "" || a.SocketGroup != "" || a.SocketUsers != "" {
		p.add("advertise.socket", "is not known: clients learn of listen.socket, and --socket-dir tells them where else it is")
	}
	switch {
	case l.Socket == "":
		for _, k := range []struct{ key, value string }{{"socket_mode", l.SocketMode}, {"socket_group", l.SocketGroup}, {"socket_users", l.SocketUsers}} {
			if k.value != "" {
				p.add("listen."+k.key, "is of no use without listen.socket")
			}
		}
		return
	case role != RoleCacheNode:
		p.add("listen.socket", "is a key of cache nodes only")
	case !filepath.IsAbs(l.Socket):
		p.add("listen.socket", "%q: give an absolute path", l.Socket)
	case len(l.Socket) > MaxSocketPath:
		p.add("listen.socket", "%q has %d bytes; it may have %d", l.Socket, len(l.Socket), MaxSocketPath)
	}
	setDefault(&l.SocketMode, DefaultSocketMode)
	if v, err := strconv.ParseUint(l.SocketMode, 8, 32); err != nil || v&^0o777 != 0 {
		p.add("listen.socket_mode", "%q: give permissions in octal, such as 0660", l.SocketMode)
	}
}

// maxSlots is more than any storage answers at once.
const maxSlots = 10_000

func (f *File) checkSyncEngine(p *problems) {
	e := &f.SyncEngine
	for _, k := range []struct {
		key   string
		value *int
		def   int
	}{{"sync_engine.parallel", &e.Parallel, DefaultParallel}, {"sync_engine.per_mount", &e.PerMount, DefaultPerMount}} {
		usual(p, k.key, k.value, k.def)
		if *k.value < 1 || *k.value > maxSlots {
			p.add(k.key, "%d is not between 1 and %d", *k.value, maxSlots)
		}
	}
}

func (f *File) checkLog(p *problems) {
	setDefault(&f.Log.Level, "info")
	setDefault(&f.Log.Format, "text")
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, f.Log.Level) {
		p.add("log.level", "%q is not debug, info, warn or error", f.Log.Level)
	}
	if !slices.Contains([]string{"text", "json"}, f.Log.Format) {
		p.add("log.format", "%q is not text or json", f.Log.Format)
	}
}

// usual sets a number that the file does not have. A 0 that it has is left for the check
// of the key.
func usual[T int | float64](p *problems, key string, at *T, v T) {
	if *at != 0 {
		return
	}
	if p.tree != nil {
		if n := find(p.tree, key); n != nil && n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
			return
		}
	}
	*at = v
}

func setDefault[T ~string](s *T, v T) {
	if *s == "" {
		*s = v
	}
}

// address checks "host:port".
func (p *problems) address(key, addr string) {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		p.add(key, "%q is not host:port", addr)
	}
}

func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

func isUnspecified(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "" || (ip != nil && ip.IsUnspecified())
}
