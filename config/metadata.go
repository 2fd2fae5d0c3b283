package config

// Metadata says what a coordinator remembers, and asks for, beside what was asked
// for.
type Metadata struct {
	// AbsentPaths bounds the paths that are remembered not to exist; 0 remembers
	// none.
	AbsentPaths *int `yaml:"absent_paths"`
	// AbsentMemory bounds the memory for them.
	AbsentMemory Size `yaml:"absent_memory"`
	// Prefetch lists directories ahead of sequential readers.
	Prefetch *bool `yaml:"prefetch"`
	// PrefetchShare is how many storage calls prefetching may make for each call of
	// readers.
	PrefetchShare float64 `yaml:"prefetch_share,omitempty"`
	// PrefetchMemory bounds the memory for entries that were prefetched and not used
	// yet.
	PrefetchMemory Size `yaml:"prefetch_memory"`
}

// Defaults of what is remembered and asked for ahead.
const (
	DefaultAbsentPaths    = 131_072
	DefaultAbsentMemory   = "32MiB"
	DefaultPrefetchShare  = 0.5
	DefaultPrefetchMemory = "32MiB"

	maxAbsentPaths = 100_000_000
)

func (f *File) checkMetadata(p *problems) {
	m := &f.Metadata
	if m.AbsentPaths == nil {
		n := DefaultAbsentPaths
		m.AbsentPaths = &n
	}
	if m.Prefetch == nil {
		on := true
		m.Prefetch = &on
	}
	setDefault(&m.AbsentMemory, DefaultAbsentMemory)
	setDefault(&m.PrefetchMemory, DefaultPrefetchMemory)
	usual(p, "metadata.prefetch_share", &m.PrefetchShare, DefaultPrefetchShare)
	if n := *m.AbsentPaths; n < 0 || n > maxAbsentPaths {
		p.add("metadata.absent_paths", "%d is not between 0, which remembers none, and %d", n, maxAbsentPaths)
	}
	if s := m.PrefetchShare; !(s >= 0.01 && s <= 10) {
		p.add("metadata.prefetch_share", "%v is not between 0.01 and 10; to have none, set metadata.prefetch to false", s)
	}
	p.size("metadata.absent_memory", m.AbsentMemory, 64<<10, 1<<40)
	p.size("metadata.prefetch_memory", m.PrefetchMemory, 64<<10, 1<<40)
}
