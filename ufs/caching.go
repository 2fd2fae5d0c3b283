package ufs

import "github.com/freshet-io/freshet"

// Names of the options of every storage that say what cache nodes keep of what is
// read. A mount that does not name them has what each node's configuration says.
const (
	OptionPartialCaching = "partial_caching"
	OptionPassiveCaching = "passive_caching"
)

// Caching says what a cache node keeps of what is read.
type Caching struct {
	// Partial: a block of which a part was read is fetched as a whole. Without it
	// only what was read as a whole is kept.
	Partial bool
	// Passive: what another node holds is copied when it is read through this one.
	Passive bool
}

func cachingOptions() OptionTable {
	return OptionTable{
		{Name: OptionPartialCaching, Type: OptionBool, Help: "cache nodes fetch the rest of a block of which a part was read; by default what the node's cache.partial says"},
		{Name: OptionPassiveCaching, Type: OptionBool, Help: "cache nodes keep a copy of a block that they read from another node; by default what the node's cache.passive says"},
	}
}

// ParseCaching reads the Caching of a mount from its options and ignores all other
// options; what they don't name is as in def. Wrong values are KindInvalid.
func ParseCaching(options map[string]string, def Caching) (Caching, error) {
	table, mine := cachingOptions(), map[string]string{}
	for _, o := range table {
		if text, ok := options[o.Name]; ok {
			mine[o.Name] = text
		}
	}
	v, err := table.Check("every storage", mine)
	if err != nil {
		return def, freshet.Wrap("check options", "", err)
	}
	if v.Has(OptionPartialCaching) {
		def.Partial = v.Bool(OptionPartialCaching)
	}
	if v.Has(OptionPassiveCaching) {
		def.Passive = v.Bool(OptionPassiveCaching)
	}
	return def, nil
}
