package config

import "time"

// Leases say for how long answers about files may be kept, and how many.
type Leases struct {
	// Length is for how long a client may keep an answer of a coordinator, "0s" for not
	// at all.
	Length Duration `yaml:"length"`
	// Max bounds the answers: of a coordinator those that its clients keep, of a cache
	// node those that it keeps itself, where 0 is none.
	Max *int `yaml:"max"`
}

// Defaults of leases.
const (
	DefaultLeaseLength = "2s"
	DefaultLeases      = 100_000
	DefaultKept        = 16_384

	minLease, maxLease = 100 * time.Millisecond, 30 * time.Second
	maxLeases          = 10_000_000
)

func (f *File) checkLeases(p *problems) {
	l := &f.Leases
	setDefault(&l.Length, DefaultLeaseLength)
	if v, err := l.Length.parse(); err != nil || v != 0 {
		p.duration("leases.length", l.Length, minLease, maxLease)
	}
	p.leases(l, 1, DefaultLeases, "to grant none, set leases.length to 0s")
}

// checkKept checks what a cache node keeps.
func (f *File) checkKept(p *problems) {
	if f.Leases.Length != "" {
		p.add("leases.length", "belongs into the file of a coordinator")
	}
	p.leases(&f.Leases, 0, DefaultKept, "0 keeps none")
}

func (p *problems) leases(l *Leases, least, usual int, off string) {
	if l.Max == nil {
		l.Max = &usual
	}
	if n := *l.Max; n < least || n > maxLeases {
		p.add("leases.max", "%d is not between %d and %d; %s", n, least, maxLeases, off)
	}
}
