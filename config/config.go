// Package config owns the configuration files: their schema, strict reading with
// the line of every mistake, defaults and validation. It starts nothing and
// reads no environment.
package config

import (
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/freshet-io/freshet"
)

// File is a configuration file of any server, or the part of one that `apply`
// reads. Every key is optional unless Validate says otherwise.
type File struct {
	// Cluster is the name of the cluster, such as "eu-west".
	Cluster string `yaml:"cluster"`
	Node    Node   `yaml:"node"`
	Listen  Listen `yaml:"listen"`
	// Advertise overrides what is told to others, where that is not what is
	// listened on.
	Advertise Listen `yaml:"advertise"`
	Raft      Raft   `yaml:"raft"`
	TLS       TLS    `yaml:"tls"`
	// Auth says who callers are and whether permissions are checked.
	Auth Auth `yaml:"auth"`
	// CrossCluster joins the cluster to the bus; absent means no bus.
	CrossCluster *CrossCluster `yaml:"cross_cluster"`
	Mounts       []Mount       `yaml:"mounts"`
	Sync         []SyncRule    `yaml:"sync"`
	Policies     []PolicyRule  `yaml:"policies"`
	Quotas       []QuotaRule   `yaml:"quotas"`
	// SyncEngine bounds what a coordinator asks of storages at once.
	SyncEngine SyncEngine `yaml:"sync_engine"`
	// Audit compares what is cached with the storages.
	Audit Audit `yaml:"audit"`
	// Metadata is what a coordinator remembers and asks for ahead.
	Metadata Metadata `yaml:"metadata"`
	// Placement says which cache nodes hold blocks.
	Placement Placement `yaml:"placement"`
	// Leases let clients keep answers for a while.
	Leases Leases `yaml:"leases"`
	Cache  Cache  `yaml:"cache"`
	// Coordinators are the client addresses that a cache node talks to.
	Coordinators []string `yaml:"coordinators"`
	Locality     Locality `yaml:"locality"`
	UFS          UFS      `yaml:"ufs"`
	Log          Log      `yaml:"log"`

	// tree is what was parsed, to say where a mistake is.
	tree *yaml.Node
}

// Node names the process and its directory.
type Node struct {
	Name    string `yaml:"name"`
	DataDir string `yaml:"data_dir"`
}

// Listen has the addresses to listen on, "host:port"; port 0 picks a free one.
type Listen struct {
	Client string `yaml:"client"` // coordinator: gRPC for clients and cache nodes
	HTTP   string `yaml:"http"`   // REST, health and metrics; cache node: HTTP data
	Raft   string `yaml:"raft"`
	Gossip string `yaml:"gossip"`
	Bus    string `yaml:"bus"`    // cluster to cluster
	Data   string `yaml:"data"`   // cache node: gRPC
	Socket string `yaml:"socket"` // cache node: Unix socket for local readers
	// SocketMode is that of the socket's file, in octal; who may write to it may
	// connect. SocketGroup is its group, by name or number.
	SocketMode  string `yaml:"socket_mode"`
	SocketGroup string `yaml:"socket_group"`
	// SocketUsers are the only ones who may connect, by name or number, separated
	// by commas; empty: whoever the mode lets.
	SocketUsers string `yaml:"socket_users"`
}

// Raft configures the group of coordinators.
type Raft struct {
	// BootstrapExpect is how many coordinators found the cluster: 1, 3 or 5.
	BootstrapExpect int `yaml:"bootstrap_expect"`
	// Join lists client addresses of members; any one that answers is enough.
	Join []string `yaml:"join"`
	// Heartbeat is the time after which a silent leader is doubted.
	Heartbeat Duration `yaml:"heartbeat"`
	// StateCache bounds the memory for the namespace.
	StateCache Size `yaml:"state_cache"`
	// LogSize bounds the log by its bytes.
	LogSize Size `yaml:"log_size"`
}

// TLS names PEM files. All three together switch TLS on for every port.
type TLS struct {
	CA   string `yaml:"ca"`
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Enabled reports whether TLS is configured.
func (t TLS) Enabled() bool { return t != TLS{} }

// CrossCluster configures the bus.
type CrossCluster struct {
	// Join lists gossip addresses of other clusters' coordinators.
	Join []string `yaml:"join"`
	// GossipKey is a reference ("env:NAME", "file:/path") to 16, 24 or 32
	// bytes in base64.
	GossipKey string `yaml:"gossip_key"`
	// Peers are clusters whose addresses are fixed.
	Peers []Peer `yaml:"peers"`
}

// Peer is another cluster at a fixed address.
type Peer struct {
	Cluster string `yaml:"cluster"`
	Bus     string `yaml:"bus"`
}

// Mount is a mount to seed or to apply.
type Mount struct {
	Path        string            `yaml:"path"`
	UFS         string            `yaml:"ufs"`
	Options     map[string]string `yaml:"options"`
	ReadOnly    bool              `yaml:"read_only"`
	Consistency Consistency       `yaml:"consistency"`
}

// Consistency says how fresh reads below a mount must be.
type Consistency struct {
	Level            string `yaml:"level"`
	Interval         string `yaml:"interval"`
	DegradedInterval string `yaml:"degraded_interval"`
	// ActiveSync listens to the storage's own notices of changes.
	ActiveSync bool `yaml:"active_sync"`
}

// SyncRule is a sync interval for a path.
type SyncRule struct {
	Path     string `yaml:"path"`
	Interval string `yaml:"interval"`
}

// SyncEngine bounds the questions to storages about entries and listings that
// are on their way at once. It can change while the coordinator runs.
type SyncEngine struct {
	Parallel int `yaml:"parallel,omitempty"`  // in all
	PerMount int `yaml:"per_mount,omitempty"` // of one mount
}

// Cache configures a cache node's tiers.
type Cache struct {
	Tiers     []Tier `yaml:"tiers"` // the fastest first
	BlockSize Size   `yaml:"block_size"`
	Eviction  string `yaml:"eviction"` // of the tiers that do not say
	// Partial caches the rest of a block of which a part was read, and Passive keeps
	// copies of what is read from other nodes, where a mount does not say; true if
	// they are not given.
	Partial    *bool      `yaml:"partial"`
	Passive    *bool      `yaml:"passive"`
	Fetch      Fetch      `yaml:"fetch"`
	Background Background `yaml:"background"`
	Uploads    Uploads    `yaml:"uploads"`
}

// Fetch bounds how blocks that readers wait for are fetched. What is not given has the
// default.
type Fetch struct {
	Blocks   int  `yaml:"blocks,omitempty"`   // at a time
	Range    Size `yaml:"range"`              // of one request
	Parallel int  `yaml:"parallel,omitempty"` // requests for one block at a time
	Requests int  `yaml:"requests,omitempty"` // at a time for all, beyond one for each block
}

// Uploads bounds what the writes of files take. What is not given has the default.
type Uploads struct {
	Memory Size `yaml:"memory"` // of parts on their way to storages, of all uploads
}

// Background bounds what is fetched although no reader waits for it.
type Background struct {
	Blocks int  `yaml:"blocks,omitempty"` // at a time
	Rate   Size `yaml:"rate"`             // bytes a second; not given: no bound
}

// Tier is where blocks are kept.
type Tier struct {
	Kind string `yaml:"kind"` // "memory", "ssd", "disk" or "hdd"
	Path string `yaml:"path"` // of a tier of one directory
	Size Size   `yaml:"size"`
	// Dirs are the directories of a tier of several, instead of Path and Size.
	Dirs     []TierDir `yaml:"dirs"`
	Eviction string    `yaml:"eviction"`
	// Watermarks in percent of a directory's size; 0 is the default.
	HighWatermark int `yaml:"high_watermark"`
	LowWatermark  int `yaml:"low_watermark"`
}

// TierDir is one directory of a tier.
type TierDir struct {
	Path string `yaml:"path"`
	Size Size   `yaml:"size"`
}

// Directories returns the directories of the tier, however they were given; that of
// a memory tier has no path.
func (t Tier) Directories() []TierDir {
	if len(t.Dirs) > 0 {
		return t.Dirs
	}
	return []TierDir{{Path: t.Path, Size: t.Size}}
}

// Locality says where a process runs.
type Locality struct {
	Host string `yaml:"host"`
	Rack string `yaml:"rack"`
	Zone string `yaml:"zone"`
}

// UFS bounds what mounts may reach.
type UFS struct {
	// AllowedEndpoints lists host:port or CIDR of endpoints that are allowed
	// although they are loopback, private-link or link-local addresses.
	AllowedEndpoints []string `yaml:"allowed_endpoints"`
	// LocalRoots, if set, are the only directories below which file:// mounts
	// may be.
	LocalRoots []string `yaml:"local_roots"`
	// SecretDirs, if set, are the only directories for "file:" references.
	SecretDirs []string `yaml:"secret_dirs"`
}

// Log configures the log on stderr.
type Log struct {
	Level  string `yaml:"level"`  // "debug", "info" (default), "warn", "error"
	Format string `yaml:"format"` // "text" (default) or "json"
}

// Defaults of addresses and sizes.
const (
	DefaultClient    = "127.0.0.1:7400"
	DefaultRaft      = "127.0.0.1:7401"
	DefaultGossip    = "127.0.0.1:7402"
	DefaultBus       = "127.0.0.1:7403"
	DefaultData      = "127.0.0.1:7410"
	DefaultNodeHTTP  = "127.0.0.1:7411"
	DefaultHTTP      = "127.0.0.1:7480"
	DefaultHeartbeat = "700ms"
	// DefaultStateCache bounds the memory for the namespace.
	DefaultStateCache = "256MiB"
	// DefaultLogSize bounds the log by its bytes.
	DefaultLogSize = "256MiB"
	// DefaultParallel and DefaultPerMount bound the questions to storages.
	DefaultParallel  = 64
	DefaultPerMount  = 32
	DefaultBlockSize = "64MiB"
	DefaultTierSize  = "1GiB"
	// DefaultUploadMemory bounds the parts of uploads of a cache node.
	DefaultUploadMemory = "512MiB"
	// Defaults of what cache nodes fetch at a time.
	DefaultFetchBlocks      = 64
	DefaultFetchRange       = "8MiB"
	DefaultFetchParallel    = 4
	DefaultFetchRequests    = 64
	DefaultBackgroundBlocks = 4
)

// DefaultDegradedInterval is the interval that applies while a publisher is out
// of contact, unless a mount says otherwise.
const DefaultDegradedInterval = freshet.Interval(time.Minute)
