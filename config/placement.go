package config

// Placement says which cache nodes hold blocks. It can change while the coordinator
// runs.
type Placement struct {
	// Policy is "rendezvous", "local_first" or "most_available".
	Policy string `yaml:"policy"`
	// HotCopies is how many copies a block gets at most for being read much, where no
	// policy sets replication_max; 1 makes none.
	HotCopies int `yaml:"hot_copies,omitempty"`
	// HotReads is how many reads a second one copy is to serve before there is another.
	HotReads int `yaml:"hot_reads,omitempty"`
}

// Defaults of placement.
const (
	DefaultPlacement = "rendezvous"
	DefaultHotCopies = 3
	DefaultHotReads  = 200
)

func (f *File) checkPlacement(p *problems) {
	l := &f.Placement
	setDefault(&l.Policy, DefaultPlacement)
	switch l.Policy {
	case "rendezvous", "local_first", "most_available":
	default:
		p.add("placement.policy", "%q is not known; use \"rendezvous\", \"local_first\" or \"most_available\"", l.Policy)
	}
	usual(p, "placement.hot_copies", &l.HotCopies, DefaultHotCopies)
	usual(p, "placement.hot_reads", &l.HotReads, DefaultHotReads)
	if l.HotCopies < 1 || l.HotCopies > 64 {
		p.add("placement.hot_copies", "%d is not between 1, which makes none, and 64", l.HotCopies)
	}
	if l.HotReads < 1 || l.HotReads > 1_000_000 {
		p.add("placement.hot_reads", "%d is not between 1 and 1000000", l.HotReads)
	}
}
