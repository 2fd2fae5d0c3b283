package ufs

import (
	"maps"
	"slices"

	"github.com/freshet-io/freshet"
)

// Spec is what a mount says of its under file system: the URI, as the operator
// gave it, and the options. Secrets stand in Options as references only
// ("env:NAME", "file:/path", "iam"), so a Spec may be stored, logged and sent.
type Spec struct {
	URI     string
	Options map[string]string
}

// Canonical is a Spec after its URI was parsed and checked.
type Canonical struct {
	Scheme string // "file", "s3"
	// Authority identifies the domain, e.g. "s3://bucket" or "file"; the
	// options domain=NAME and domain_root=/key override it.
	Authority string
	// DomainKey is the key of the mount's root inside the domain, "/" or
	// "/a/b": events speak in keys of the domain.
	DomainKey string
}

// Domain returns the identity of the domain.
func (c Canonical) Domain() freshet.DomainID { return domainID(c.Authority) }

// Environment is what a process allows and knows when it opens mounts; it never
// travels.
type Environment struct {
	// AllowedEndpoints lists host:port or CIDR of endpoints that are allowed
	// although they are loopback, private-link or link-local addresses.
	AllowedEndpoints []string
	// LocalRoots, when not empty, are the only directories below which
	// file:// mounts may be.
	LocalRoots []string
	// ForbiddenRoots can't be mounted: Freshet's own data directories.
	ForbiddenRoots []string
	// SecretDirs, when not empty, are the only directories for "file:" references.
	SecretDirs []string
	// Getenv resolves "env:NAME".
	Getenv func(string) string
	// DryRun: Open changes nothing, not even what an option asks it to make.
	DryRun bool
	// Buffers bounds the memory of uploads in parts; nil has no bound.
	Buffers *Buffers
}

// Opener opens FSs of one or more schemes. Implementations must check the Spec
// completely before they touch the network: unknown options are KindInvalid with
// the nearest known name.
type Opener interface {
	// Schemes lists the URI schemes it opens.
	Schemes() []string
	// Parse checks a Spec without any I/O.
	Parse(spec Spec) (Canonical, error)
	// Open returns the FS. It may contact the storage, but an unreachable
	// storage is not an error here: use Probe.
	Open(spec Spec, env Environment) (FS, error)
}

// Clone returns a deep copy.
func (s Spec) Clone() Spec { return Spec{URI: s.URI, Options: maps.Clone(s.Options)} }

// OptionNames returns the names of the options in order.
func (s Spec) OptionNames() []string { return slices.Sorted(maps.Keys(s.Options)) }

// Resolve returns parsed as the open FS knows it better: a directory's real path,
// where the URI named it through a link. Parsed stays where the FS has nothing to
// add. It looks through wrappers that have an Unwrap method.
func Resolve(fs FS, parsed Canonical) Canonical {
	for fs != nil {
		if r, ok := fs.(interface{ Resolve(Canonical) Canonical }); ok {
			return r.Resolve(parsed)
		}
		w, ok := fs.(interface{ Unwrap() FS })
		if !ok {
			break
		}
		fs = w.Unwrap()
	}
	return parsed
}
