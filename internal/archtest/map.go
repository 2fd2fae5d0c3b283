package archtest

import "slices"

// projectMap is the architecture of the project. It is a map, not a cage: when a change
// needs another edge, the change edits this file and says why.
func projectMap() architecture {
	return architecture{rules: rules(), edges: edges()}
}

// hardTrees never import each other, not even through other packages: they are
// processes, or the way between processes, and meet only in cmd.
var hardTrees = []string{"coordinator/...", "cachenode/...", "crosscluster/...", "rpc/..."}

// rules says what each package may import of ours.
func rules() map[string]rule {
	const (
		clientProto = "proto/freshet/v1"
		stateProto  = "proto/freshet/state/v1"
		busProto    = "proto/freshet/bus/v1"
	)
	return map[string]rule{
		// The vocabulary, and what decides.
		"fingerprint":           {pure: true},
		"acl":                   {pure: true},
		root:                    {pure: true, imports: []string{"fingerprint", "acl"}},
		"invalidation":          pure(),
		"coordinator/placement": pure(),
		"internal/pathtree":     pure(),
		"coordinator/namespace": pure("coordinator/kv", "invalidation", stateProto),

		// Storages. Wrappers and kinds know the contract, not each other.
		// A storage's own notices are the same value as the bus carries.
		"ufs":              acting("invalidation"),
		"ufs/...":          acting("ufs", "invalidation"),
		"ufs/all":          acting("ufs", "ufs/..."),                           // the one list of storages
		"ufs/ufstest":      acting("ufs", "ufs/mem", "ufs/fault", "ufs/retry"), // the suite makes storages go wrong
		"ufs/object":       acting("ufs"),                                      // directories and renames over flat keys, for all object stores
		"ufs/events":       acting("ufs", "invalidation"),                      // the records in which clouds tell of changes
		"ufs/s3":           acting("ufs", "ufs/object", "ufs/httpclient", "ufs/events", "invalidation"),
		"ufs/gcs":          acting("ufs", "ufs/object", "ufs/httpclient", "ufs/events", "invalidation"),
		"ufs/azblob":       acting("ufs", "ufs/object", "ufs/httpclient", "ufs/events", "invalidation"),
		"ufs/hdfs":         acting("ufs", "ufs/hdfs/...", "invalidation"),
		"ufs/hdfs/inotify": acting("ufs", "invalidation", "proto/hadoop/v1"),

		// A region's metadata.
		"coordinator/kv":         {},
		"coordinator/kv/...":     acting("coordinator/kv"),
		"coordinator/journal":    acting("coordinator/namespace", stateProto),
		"coordinator/leases":     acting("internal/pathtree"),
		"coordinator/metasync":   acting("coordinator/namespace", "ufs"),
		"coordinator/ops":        acting("coordinator/namespace", "coordinator/placement", "ufs", "invalidation"),
		"coordinator/activesync": acting("coordinator/namespace", "ufs", "ufs/events", "invalidation"),
		"coordinator/audit":      acting("coordinator/namespace", "coordinator/metasync", "ufs"),
		"coordinator/warming":    acting("coordinator/placement"),
		"coordinator":            acting("coordinator/...", "invalidation", "ufs"),

		// A region's blocks.
		"cachenode/tier":  acting(),
		"cachenode/store": acting("cachenode/tier"),
		"cachenode/fill":  acting("cachenode/tier", "cachenode/store", "ufs"),
		"cachenode":       acting("cachenode/tier", "cachenode/store", "cachenode/fill", "ufs"),

		// Between clusters. The package declares the connections that it needs in
		// plain values and builds its frames from the bus messages.
		"crosscluster":     acting("invalidation", busProto),
		"crosscluster/...": acting("crosscluster", "invalidation", busProto),
		// The suite of the bus builds its worlds on the reference region in memory.
		"crosscluster/bustest": acting("crosscluster", "crosscluster/membus", "invalidation"),

		// Between processes.
		"rpc":         acting("proto/..."),
		"rpc/...":     acting("rpc", "proto/..."),
		"proto/...":   {imports: []string{"proto/..."}}, // generated
		"docs/api":    {},                               // holds the OpenAPI description
		"client":      acting("rpc", "internal/pathtree"),
		"auth":        acting("rpc"), // stands between the faces and a coordinator
		"client/...":  acting("client", "rpc"),
		"gateway/...": acting("client", "rpc", clientProto),
		"config":      acting("ufs"),

		// What puts the parts together, and what tests them from outside.
		"cmd/...":  {imports: []string{"..."}},
		"test/...": {imports: []string{"..."}},

		// What every acting package may use; nothing else without a reason.
		"internal/archtest": {},
		"internal/clock":    {},
		"internal/offheap":  {}, // memory for cmd to hand out
		"internal/run":      {},
		"internal/version":  {},
	}
}

// pure is the rule of a package that decides: the vocabulary and the packages
// listed.
func pure(imports ...string) rule {
	return rule{pure: true, imports: slices.Concat([]string{root, "fingerprint", "acl"}, imports)}
}

// acting is the rule of a package that acts: the vocabulary, the goroutine
// groups, the clock, the version, and the packages listed.
func acting(imports ...string) rule {
	return rule{imports: slices.Concat([]string{root, "fingerprint", "acl", "internal/run", "internal/clock", "internal/version"}, imports)}
}

// edges says which third-party modules only one place may know, so that each can
// be replaced there.
func edges() []edge {
	return []edge{
		{"github.com/aws", []string{"ufs/s3", "cmd/...", "test/..."}},
		{"github.com/Azure", []string{"ufs/azblob", "cmd/...", "test/..."}},
		{"github.com/colinmarc/hdfs", []string{"ufs/hdfs", "cmd/...", "test/..."}},
		{"cloud.google.com/go", []string{"ufs/gcs", "cmd/...", "test/..."}},
		{"google.golang.org/api", []string{"ufs/gcs", "cmd/...", "test/..."}},
		{"github.com/fsnotify/fsnotify", []string{"ufs/local", "cmd/...", "test/..."}},
		{"github.com/cockroachdb/pebble", []string{"coordinator/kv/pebblekv", "cmd/...", "test/..."}},
		{"github.com/hashicorp/raft", []string{"coordinator/journal", "cmd/...", "test/..."}},
		{"github.com/hashicorp/raft-boltdb", []string{"coordinator/journal", "cmd/...", "test/..."}},
		{"github.com/hashicorp/serf", []string{"crosscluster/...", "cmd/...", "test/..."}},
		{"github.com/hashicorp/memberlist", []string{"crosscluster/...", "cmd/...", "test/..."}},
		{"google.golang.org/grpc", []string{"rpc/...", "gateway/rest", "ufs/gcs", "proto/...", "cmd/...", "test/..."}},
		{"github.com/grpc-ecosystem/grpc-gateway", []string{"gateway/rest", "proto/...", "cmd/...", "test/..."}},
		{"google.golang.org/protobuf", []string{
			"proto/...", "rpc/...", "gateway/rest", "ufs/hdfs", "ufs/hdfs/inotify", "coordinator/namespace", "coordinator/journal", "crosscluster/...",
			"cmd/...", "test/...",
		}},
		{"go.yaml.in/yaml/v3", []string{"config", "cmd/...", "test/..."}},
		{"github.com/spf13/cobra", []string{"cmd/...", "test/..."}},
	}
}
