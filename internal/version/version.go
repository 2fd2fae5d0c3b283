// Package version owns what this build says of itself: its version and origin,
// and the versions of the wire protocols that it speaks.
//
// It never decides whether two versions get along: that is the business of the
// package that speaks the protocol.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// Set by the linker (see the Makefile); empty in a plain go build or go install,
// where the build information of the Go tool chain is used instead.
var (
	version string // as git describe names it, for example v0.1.0-3-gabcdef0
	commit  string // full hash
	date    string // time of the commit, RFC 3339, so that builds are reproducible
)

// Versions of the wire protocols. A number changes only when a speaker of the
// old one can't talk to a speaker of the new one; compatible additions do not
// change it.
const (
	// ProtocolClient is the version of the API that clients call (freshet.v1).
	ProtocolClient = 1
	// ProtocolNode is the version of the protocol between coordinators and
	// cache nodes.
	ProtocolNode = 1
	// ProtocolBus is the version of the protocol between clusters
	// (freshet.bus.v1) and of the gossip frames.
	ProtocolBus = 1
	// ProtocolState is the version of the commands in the Raft log and of the
	// records in the state store (freshet.state.v1).
	ProtocolState = 1
)

// Protocols lists the wire protocol versions that a build speaks.
type Protocols struct {
	Client int `json:"client" yaml:"client"`
	Node   int `json:"node"   yaml:"node"`
	Bus    int `json:"bus"    yaml:"bus"`
	State  int `json:"state"  yaml:"state"`
}

// Info is what a build says of itself.
type Info struct {
	// Version is the release, or "devel" when the build does not know it.
	Version string `json:"version" yaml:"version"`
	// Commit is the full commit hash, empty when unknown.
	Commit string `json:"commit,omitempty" yaml:"commit,omitempty"`
	// Modified says that the source differed from the commit.
	Modified bool `json:"modified" yaml:"modified"`
	// Date is the time of the commit in RFC 3339, empty when unknown.
	Date string `json:"date,omitempty" yaml:"date,omitempty"`
	// Go is the version of the Go tool chain.
	Go string `json:"go" yaml:"go"`
	// Platform is the operating system and architecture, as linux/amd64.
	Platform string `json:"platform" yaml:"platform"`
	// Protocols are the wire protocol versions.
	Protocols Protocols `json:"protocols" yaml:"protocols"`
}

// Get returns the information of the running program.
func Get() Info {
	build, _ := debug.ReadBuildInfo()
	return merge(Info{
		Version:  strings.TrimSuffix(version, dirtySuffix),
		Commit:   commit,
		Modified: strings.HasSuffix(version, dirtySuffix),
		Date:     date,
	}, build)
}

// dirtySuffix is what git describe --dirty appends.
const dirtySuffix = "-dirty"

// merge completes what the linker set with the build information of the Go tool
// chain, which may be missing.
func merge(info Info, build *debug.BuildInfo) Info {
	info.Go = runtime.Version()
	info.Platform = runtime.GOOS + "/" + runtime.GOARCH
	info.Protocols = Protocols{
		Client: ProtocolClient,
		Node:   ProtocolNode,
		Bus:    ProtocolBus,
		State:  ProtocolState,
	}
	if build != nil {
		if info.Version == "" && build.Main.Version != "(devel)" {
			info.Version = build.Main.Version
		}
		if info.Commit == "" {
			info = mergeVCS(info, build.Settings)
		}
	}
	if info.Version == "" {
		info.Version = "devel"
	}
	return info
}

// mergeVCS takes over what the Go tool chain recorded about the working tree.
func mergeVCS(info Info, settings []debug.BuildSetting) Info {
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			info.Commit = s.Value
		case "vcs.time":
			info.Date = s.Value
		case "vcs.modified":
			info.Modified = s.Value == "true"
		}
	}
	return info
}

// String returns the information as one line for people.
func (i Info) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "freshet %s", i.Version)
	if i.Commit != "" {
		fmt.Fprintf(&b, " (commit %.12s", i.Commit)
		if i.Modified {
			b.WriteString(", modified")
		}
		if i.Date != "" {
			fmt.Fprintf(&b, ", %s", i.Date)
		}
		b.WriteString(")")
	}
	fmt.Fprintf(&b, " %s %s, protocols client %d, node %d, bus %d, state %d", i.Go, i.Platform,
		i.Protocols.Client, i.Protocols.Node, i.Protocols.Bus, i.Protocols.State)
	return b.String()
}
