package config

// maxAuditRate bounds Audit.EntriesPerSecond: faster than this a check by hand is
// the better way.
const maxAuditRate = 10_000

// Audit has the leader compare, all the time, what is cached with the storages.
type Audit struct {
	// EntriesPerSecond is how many entries are compared in a second; 0 is none, and
	// nothing is asked.
	EntriesPerSecond float64 `yaml:"entries_per_second"`
}

func (f *File) checkAudit(p *problems) {
	if r := f.Audit.EntriesPerSecond; !(r >= 0 && r <= maxAuditRate) { //nolint:staticcheck // NaN is refused too
		p.add("audit.entries_per_second", "%v is not between 0 and %d", r, maxAuditRate)
	}
}
