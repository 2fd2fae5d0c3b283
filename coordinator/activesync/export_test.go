package activesync

import "github.com/freshet-io/freshet/invalidation"

// Canonical is canonical.
func Canonical(r invalidation.Record) invalidation.Record { return canonical(r) }
